"""`rp rename`, `rp container exists` and `rp container prune`."""

from __future__ import annotations

import sys

from rootlesspy.cli import completion, ps_filter
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli.moment import parse_moment
from rootlesspy.cli.operations import is_stopped
from rootlesspy.cli.question import agreed
from rootlesspy.cli.removal import Removal
from rootlesspy.engine import ending, lifecycle
from rootlesspy.errors import Conflict, Error, NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.engine.record import Container
    from rootlesspy.paths import Paths

_KEYS = ("label", "label!", "until")


def rename(
    context: typer.Context,
    old: str = typer.Argument(
        ..., metavar="CONTAINER", help="Its name, id or unique beginning of an id.",
        autocompletion=completion.containers, show_default=False,
    ),
    new: str = typer.Argument(..., metavar="NAME", help="The new name.", show_default=False),
) -> int:  # fmt: skip
    """Give a container another name.

    The units of a running one keep the old name until it is started again.
    """
    from rootlesspy.engine.rename import rename as give_name

    give_name(context.obj.paths(), old, new)
    return 0


def exists(
    context: typer.Context,
    name: str = typer.Argument(
        ..., metavar="CONTAINER", help="Its name, id or unique beginning of an id.",
        autocompletion=completion.containers, show_default=False,
    ),
) -> int:  # fmt: skip
    """Exit with 0 if there is such a container, with 1 if there is none."""
    try:
        lifecycle.get(context.obj.paths(), name)
    except NotFound:
        return 1
    return 0


def prune(
    context: typer.Context,
    force: bool = typer.Option(
        False, "--force", "-f", help="Ask nothing.", show_default=False
    ),
    filters: list[str] = typer.Option(
        None, "--filter", metavar="KEY=VALUE", show_default=False,
        help="Only what fits: label, label!, until (made before: a date, or a duration ago).",
    ),
) -> int:  # fmt: skip
    """Remove all containers that do not run; print their ids."""
    session = context.obj
    paths = session.paths()
    asked = tuple(filters or ())
    # Before the question: a filter that cannot be is an error, whatever the answer would be.
    chosen([], asked, paths)
    if not force and not agreed("This will remove all non running containers."):
        return 0
    removal = Removal(session.reporter)
    for container in chosen(lifecycle.containers(paths), asked, paths):
        container_id = container.record.id
        try:
            ending.remove(paths, [container_id], force=False, reporter=session.reporter)
        except (NotFound, Conflict):
            # Removed, or started, by somebody else meanwhile.
            continue
        except Error as error:
            removal.failed(error)
        else:
            sys.stdout.write(f"{container_id}\n")
    return removal.exit_code


def chosen(
    containers: Sequence[Container], filters: Sequence[str], paths: Paths
) -> list[Container]:
    """Return the containers that are to go.  Raises UsageError."""
    before = None
    others = []
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals or key not in _KEYS:
            raise UsageError(
                f"--filter {text!r}: expected KEY=VALUE", hint=f"keys: {', '.join(_KEYS)}"
            )
        if key == "until":
            before = parse_moment(value, "--filter until")
        else:
            others.append(text)
    found = [each for each in containers if is_stopped(each)]
    if before is not None:
        found = [each for each in found if each.record.created_s < before]
    return ps_filter.matching(found, tuple(others), paths)
