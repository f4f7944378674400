"""`rp bootstrap`: images that need no registry."""

from __future__ import annotations

import sys

from rootlesspy.cli import light_typer as typer
from rootlesspy.cli import progress
from rootlesspy.cli.image_rows import hexadecimal
from rootlesspy.errors import UsageError

_HINT = "rp bootstrap busybox NAME, or rp bootstrap debian:trixie NAME"


def bootstrap(
    context: typer.Context,
    what: str = typer.Argument(
        ..., metavar="debian:SUITE|busybox", show_default=False,
        help="A suite of Debian, or the static busybox of this machine.",
    ),
    name: str = typer.Argument(
        ..., metavar="NAME", help="A name; without a registry it is localhost/NAME.",
        show_default=False,
    ),
    architecture: str | None = typer.Option(
        None, "--arch", metavar="ARCH", help="Debian's architecture; default: this machine's.",
        show_default=False,
    ),
    components: list[str] = typer.Option(
        None, "--components", metavar="NAMES", help="Such as main,contrib; default: main.",
        show_default=False,
    ),
    include: list[str] = typer.Option(
        None, "--include", metavar="PACKAGES", help="More packages.", show_default=False
    ),
    keyring: list[str] = typer.Option(
        None, "--keyring", metavar="PATH", help="Keys of the mirror.", show_default=False
    ),
    mirror: list[str] = typer.Option(
        None, "--mirror", metavar="URL", show_default=False,
        help="Where packages come from: a URL, or a line of sources.list.",
    ),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", help="Do not show progress.", show_default=False
    ),
    variant: str = typer.Option(
        "minbase", "--variant", metavar="NAME",
        help="Which packages: extract, custom, essential, apt, minbase, standard, …",
    ),
) -> int:  # fmt: skip
    """Make an image of Debian packages, or of a static busybox; print its id.

    Debian's is made by mmdebstrap as root of your own user namespace.
    """
    from rootlesspy.engine.images import bootstrap as work
    from rootlesspy.engine.output import events

    session = context.obj
    shop = work.Shop(
        paths=session.paths(),
        environment=session.environment,
        progress=progress.make(quiet=quiet, debug=session.reporter.debug),
        reporter=session.reporter,
        quiet=quiet,
    )
    kind, colon, suite = what.partition(":")
    if kind == "debian" and colon:
        asked = work.Debian(
            suite=suite,
            variant=variant,
            include=_words(include),
            components=_words(components),
            mirrors=tuple(mirror or ()),
            keyrings=tuple(keyring or ()),
            architecture=architecture,
        )
        image = work.debian_image(shop, name, asked)
    elif what == "busybox":
        if architecture or components or include or keyring or mirror or variant != "minbase":
            raise UsageError("rp bootstrap busybox takes no options of debian's", hint=_HINT)
        image = work.busybox_image(shop, name)
    else:
        raise UsageError(f"{what!r} is neither debian:SUITE nor busybox", hint=_HINT)
    events.emit_image("import", image.names[0] if image.names else "", image.id)
    sys.stdout.write(f"{hexadecimal(image.id)}\n")
    return 0


def _words(texts: list[str] | None) -> tuple[str, ...]:
    return tuple(word for text in texts or () for word in text.split(",") if word)
