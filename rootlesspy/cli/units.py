"""`rp enable`, `rp disable` and `rp unit`: containers that start with the session."""

from __future__ import annotations

import sys

from rootlesspy.cli import completion, operations
from rootlesspy.cli import light_typer as typer
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.cli.session import Session
    from rootlesspy.engine.record import ContainerRecord

# A container may be called so, but then a file is meant.
_DEFINITION = ".toml"
_NAMES = typer.Argument(
    ..., metavar="CONTAINER...", help="Names, ids, unique beginnings of ids, or FILE.toml.",
    autocompletion=completion.containers, show_default=False,
)  # fmt: skip


def enable(
    context: typer.Context,
    names: list[str] = _NAMES,
    now: bool = typer.Option(False, "--now", help="Start them too.", show_default=False),
) -> int:
    """Start containers with your session, or with the machine if you linger.

    Writes rp-NAME.service into ~/.config/systemd/user and enables it. The unit is systemd's from
    then on: systemctl --user edit, cat, restart and drop-ins work, and rp start and rp stop use it.

    FILE.toml stands for all containers of a definition, which are made as rp apply makes them.
    """
    from rootlesspy.cli import definitions
    from rootlesspy.engine import autostart, lifecycle

    session: Session = context.obj
    paths = session.paths()

    files = [name for name in names if name.endswith(_DEFINITION)]
    if files:
        code = definitions.apply(context, files, locked=False, no_start=not now, quiet=True)
        if code:
            return code

    def one(found: ContainerRecord) -> None:
        autostart.enable(paths, found)
        if now:
            lifecycle.start(paths, found.id, session.reporter)

    return _for_each(session, names, one)


def disable(
    context: typer.Context,
    names: list[str] = _NAMES,
    now: bool = typer.Option(False, "--now", help="Stop them too.", show_default=False),
    delete: bool = typer.Option(
        False, "--delete", help="Remove their unit files too.", show_default=False
    ),
) -> int:
    """No longer start containers with your session.

    The unit file stays, for systemctl --user start and rp start; --delete removes it.
    """
    from rootlesspy.engine import autostart, ending

    session: Session = context.obj
    paths = session.paths()

    def one(found: ContainerRecord) -> None:
        if now:
            ending.stop(paths, found.id, None, session.reporter)
        autostart.disable(paths, found, delete=delete)

    return _for_each(session, names, one)


def unit(context: typer.Context, names: list[str] = _NAMES) -> int:
    """Print the unit files that rp enable would write."""
    from rootlesspy.engine import autostart

    session: Session = context.obj
    paths = session.paths()
    return _for_each(
        session, names, lambda found: sys.stdout.write(autostart.text_of(paths, found)), quiet=True
    )


def install_units(context: typer.Context) -> int:
    """Write units that are not of one container into ~/.config/systemd/user.

    rp@.service starts any container: systemctl --user enable --now rp@NAME. rp-prune.timer removes
    unused images once a week. A package installs them for all users.
    """
    from rootlesspy.engine import unit_templates

    session: Session = context.obj
    for path in unit_templates.install(session.paths()):
        sys.stdout.write(f"{path}\n")
    return 0


def _for_each(
    session: Session,
    names: list[str],
    action: Callable[[ContainerRecord], object],
    *,
    quiet: bool = False,
) -> int:
    """Do something with each container, print the names of those where it worked."""
    from rootlesspy.engine import lifecycle

    paths = session.paths()
    return operations.each(
        session,
        _containers(names),
        lambda name: action(lifecycle.get(paths, name).record),
        show=lambda name, _result: None if quiet else name,
    )


def _containers(names: list[str]) -> list[str]:
    """Put the containers of definitions in the place of their files.  Raises UsageError."""
    from rootlesspy.engine.definitions import definition

    found: list[str] = []
    for name in names:
        if name.endswith(_DEFINITION):
            found += [each.name for each in definition.load(name).containers]
        else:
            found.append(name)
    return list(dict.fromkeys(found))
