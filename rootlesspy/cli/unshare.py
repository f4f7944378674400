"""`rp unshare`, `rp image mount` and `rp image unmount`."""

from __future__ import annotations

import sys

from rootlesspy.cli import completion
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli.image_rows import hexadecimal
from rootlesspy.errors import Error, UsageError
from rootlesspy.report import escape


def unshare(
    context: typer.Context,
    command: list[str] = typer.Argument(
        None, metavar="[COMMAND...]", help="Default: your shell.", show_default=False
    ),
) -> int:  # fmt: skip
    """Run a command as root of your user namespace.

    There you may look into layers, volumes and containers whatever ids own them.  Its exit code is
    the command's; 126: it cannot be executed, 127: it does not exist.
    """
    from rootlesspy.engine.images import unshare as unsharing

    return unsharing.run(command or (), context.obj.environment)


def mount(
    context: typer.Context,
    names: list[str] = typer.Argument(
        None, metavar="[IMAGE...]", help="Names, ids or unique beginnings of ids.",
        autocompletion=completion.images, show_default=False,
    ),
    everything: bool = typer.Option(
        False, "--all", "-a", help="Mount all images.", show_default=False
    ),
) -> int:  # fmt: skip
    """Mount images read-only and print where; without IMAGE list those that are mounted.

    Below rp unshare only; the mounts end with it.
    """
    from rootlesspy.engine.images import image_mount
    from rootlesspy.image.store import Store

    session = context.obj
    paths = session.paths()
    chosen = list(names or ())
    if everything:
        chosen = list(dict.fromkeys(image.id for image in Store(paths).images()))
    elif not chosen:
        for each in image_mount.mounted(paths):
            shown = each.names or (hexadecimal(each.image_id),)
            sys.stdout.write("".join(f"{escape(name)}  {escape(each.path)}\n" for name in shown))
        return 0
    code = 0
    for name in chosen:
        try:
            path = image_mount.mount(paths, name, session.environment)
        except Error as error:
            session.reporter.error(error.message, error.hint)
            code = max(code, error.exit_code)
        else:
            sys.stdout.write(f"{path}\n")
    return code


def unmount(
    context: typer.Context,
    names: list[str] = typer.Argument(
        None, metavar="IMAGE...", help="Names, ids or unique beginnings of ids.",
        autocompletion=completion.images, show_default=False,
    ),
    everything: bool = typer.Option(
        False, "--all", "-a", help="Unmount all images.", show_default=False
    ),
) -> int:  # fmt: skip
    """Unmount images; print their ids."""
    from rootlesspy.engine.images import image_mount

    session = context.obj
    paths = session.paths()
    if everything == bool(names):
        raise UsageError("rp image unmount: name the images, or say --all")
    chosen = list(names or ())
    if everything:
        chosen = [each.image_id for each in image_mount.mounted(paths)]
    code = 0
    for name in chosen:
        try:
            image_id = image_mount.unmount(paths, name, session.environment)
        except Error as error:
            session.reporter.error(error.message, error.hint)
            code = max(code, error.exit_code)
        else:
            sys.stdout.write(f"{hexadecimal(image_id)}\n")
    return code
