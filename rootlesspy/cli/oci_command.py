"""`rp oci` in the table of commands, for help and completion; the work is in oci.py."""

from __future__ import annotations

from rootlesspy.cli import light_typer as typer
from rootlesspy.cli import oci as runtime


def oci(
    context: typer.Context,
    words: list[str] = typer.Argument(
        None,
        metavar="COMMAND [ARG…]",
        help="A command of runc's, with its flags.",
        show_default=False,
    ),
) -> int:
    """Carry out OCI bundles by runc's command line, for engines that drive a runtime.

    The program rp-oci is the same command, to be named by its path: podman --runtime
    /usr/bin/rp-oci. Its commands: create, start, run, state, kill, delete, exec, list, ps, pause,
    resume, update, events, features, spec; rp-oci COMMAND --help says more about each.
    """
    return runtime.main(words or ["--help"], context.obj.environment)
