"""`rp tag`, `rp untag` and `rp image exists`."""

from __future__ import annotations

from rootlesspy.cli import completion
from rootlesspy.cli import light_typer as typer
from rootlesspy.errors import NotFound


def tag(
    context: typer.Context,
    name: str = typer.Argument(
        ..., metavar="IMAGE", help="The image: a name, an id or the beginning of an id.",
        autocompletion=completion.images, show_default=False,
    ),
    names: list[str] = typer.Argument(
        ..., metavar="NAME...", help="New names; without a registry they are localhost/NAME.",
        show_default=False,
    ),
) -> int:  # fmt: skip
    """Give an image more names."""
    from rootlesspy.engine.output import events
    from rootlesspy.image import lists, naming
    from rootlesspy.image.store import Store

    paths = context.obj.paths()
    if (found := lists.named(paths, name)) is not None:
        for given in lists.tag(paths, found, names):
            events.emit_image("tag", given, found.id)
        return 0
    image = Store(paths).resolve(name)
    for given in naming.tag(paths, image, names):
        events.emit_image("tag", given, image.id)
    return 0


def untag(
    context: typer.Context,
    name: str = typer.Argument(
        ..., metavar="IMAGE", help="The image: a name, an id or the beginning of an id.",
        autocompletion=completion.images, show_default=False,
    ),
    names: list[str] = typer.Argument(
        None, metavar="[NAME...]", help="Names to take away; all of them when none is given.",
        show_default=False,
    ),
) -> int:  # fmt: skip
    """Take names from an image, which stays."""
    from rootlesspy.engine.output import events
    from rootlesspy.image import lists, naming
    from rootlesspy.image.store import Store

    paths = context.obj.paths()
    if (found := lists.named(paths, name)) is not None:
        for taken in lists.untag(paths, found, names or ()):
            events.emit_image("untag", taken, found.id)
        return 0
    image = Store(paths).resolve(name)
    for taken in naming.untag(paths, image, names or ()):
        events.emit_image("untag", taken, image.id)
    return 0


def exists(
    context: typer.Context,
    name: str = typer.Argument(
        ..., metavar="IMAGE", help="A name, an id or the beginning of an id.",
        autocompletion=completion.images, show_default=False,
    ),
) -> int:  # fmt: skip
    """Say by the exit code whether an image is here: 0 yes, 1 no."""
    from rootlesspy.image import lists
    from rootlesspy.image.store import Store

    paths = context.obj.paths()
    try:
        if lists.named(paths, name) is None:
            Store(paths).resolve(name)
    except NotFound:
        return 1
    return 0
