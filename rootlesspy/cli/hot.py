"""The hot commands, behind both parsers: options in, exit code out; imports only when needed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.cli.argv import Invocation, Values
    from rootlesspy.cli.session import Session
    from rootlesspy.engine.request import RunRequest
    from rootlesspy.image.progress import Progress


def execute(invocation: Invocation, session: Session) -> int:
    """Carry out what the fast parser understood."""
    commands = {"run": run, "ps": ps, "inspect": inspect}
    return commands[invocation.command.name](invocation.values, session)


def run(given: Values, session: Session) -> int:
    """Run a container; return the exit code of its payload."""
    from rootlesspy.engine import cancel

    # Not to be cancelled while the imports run, where the exception could be lost.
    cancel.hold()
    from rootlesspy.engine.options import run_request

    request = run_request(
        given,
        caller_environment=session.environment,
        directory=_directory(),
        debug=session.reporter.debug,
    )
    from rootlesspy.engine.run import run as run_container

    return run_container(
        request, session.paths(), session.reporter, lambda: _progress(request, session)
    )


def ps(given: Values, session: Session) -> int:
    """List containers."""
    from rootlesspy.cli.ps import show

    show(given, session)
    return 0


def inspect(given: Values, session: Session) -> int:
    """Describe containers and images in every detail."""
    from rootlesspy.cli.inspect import show

    return show(given, session)


def _progress(request: RunRequest, session: Session) -> Progress:
    from rootlesspy.cli import progress

    return progress.make(quiet=request.quiet, debug=session.reporter.debug)


def _directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        # Somebody removed it; only relative paths need it, and those will not be found.
        return "/"
