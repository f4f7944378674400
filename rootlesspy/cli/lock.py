"""`rp lock`: the digests of the images of definitions, and what `--locked` makes of them."""

from __future__ import annotations

import sys

from rootlesspy.cli import light_typer as typer
from rootlesspy.cli import registry_access
from rootlesspy.errors import NotFound
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.report import escape

if TYPE_CHECKING:
    from rootlesspy.cli.session import Session
    from rootlesspy.engine.definitions.definition import Definition
    from rootlesspy.image.reference import Reference

LOCKED_HELP = "Take images by the digests of FILE.lock, and no others."


def lock(
    context: typer.Context,
    files: list[str] = typer.Argument(
        ..., metavar="FILE...", help="Definitions: TOML files.", show_default=False
    ),
    update: bool = typer.Option(
        False, "--update", "-u", help="Look all tags up again.", show_default=False
    ),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", help="Do not print what is different.", show_default=False
    ),
) -> int:  # fmt: skip
    """Write FILE.lock: the digest of each image that a definition names.

    What the lock file has stays as it is; only images that are new in the definition are looked up,
    in their registries or, where only this machine has them, here. rp apply --locked FILE takes
    these images and no others.
    """
    from rootlesspy import settings
    from rootlesspy.engine.definitions import definition
    from rootlesspy.engine.definitions import lock as locking
    from rootlesspy.image.lookup import Finder
    from rootlesspy.image.store import Store

    session: Session = context.obj
    paths = session.paths()
    configuration = settings.load(paths)
    client = registry_access.client(session)
    finder = Finder(client, configuration, session.reporter)

    def ask(reference: Reference) -> str:
        return finder.top(reference)[0].digest

    for found in [definition.load(file) for file in dict.fromkeys(files)]:
        path = locking.path_of(found.path)
        try:
            old = locking.read(path)
        except NotFound:
            old = {}
        new = locking.make(
            found, {} if update else old, store=Store(paths), settings=configuration, ask=ask
        )
        locking.write(path, new)
        if not quiet:
            lines = locking.difference(old, new)
            sys.stdout.write("".join(f"{escape(line)}\n" for line in lines))
    return 0


def pinned(session: Session, definitions: list[Definition]) -> list[Definition]:
    """Return definitions with the images of their lock files.  Raises NotFound, UsageError."""
    from rootlesspy import settings
    from rootlesspy.engine.definitions import lock as locking

    configuration = settings.load(session.paths())
    found = []
    for each in definitions:
        try:
            pins = locking.read(locking.path_of(each.path))
        except NotFound as error:
            raise NotFound(error.message, hint=f"rp lock {each.path}") from error
        found.append(locking.pinned(each, pins, configuration))
    return found
