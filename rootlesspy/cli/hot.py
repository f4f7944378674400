"""The hot commands, behind both parsers: options in, exit code out; imports only when needed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from rootlesspy.errors import UsageError

if TYPE_CHECKING:
    from rootlesspy.cli.argv import Invocation, Values
    from rootlesspy.cli.session import Session
    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.image.progress import Progress


_NO_LIMIT_S = 2.0**31


def execute(invocation: Invocation, session: Session) -> int:
    """Carry out what the fast parser understood."""
    commands = {
        "run": run,
        "create": create,
        "exec": execute_in,
        "start": start,
        "stop": stop,
        "ps": ps,
        "inspect": inspect,
        "pull": pull,
    }
    return commands[invocation.command.name](invocation.values, session)


def run(given: Values, session: Session) -> int:
    """Run a container; return the exit code of its payload."""
    request = _request(given, session)
    from rootlesspy.engine import run as engine

    paths, reporter = session.paths(), session.reporter
    if not request.detach:
        request = request._replace(sig_proxy=given.flag("sig_proxy", default=True))
        return engine.run(request, paths, reporter, lambda: _progress(request, session))
    identity = engine.run_detached(request, paths, reporter, lambda: _progress(request, session))
    sys.stdout.write(f"{identity}\n")
    return 0


def create(given: Values, session: Session) -> int:
    """Make a container; print its id."""
    request = _request(given, session)
    from rootlesspy.engine import run as engine

    paths, reporter = session.paths(), session.reporter
    identity = engine.create(request, paths, reporter, lambda: _progress(request, session))
    sys.stdout.write(f"{identity}\n")
    return 0


def execute_in(given: Values, session: Session) -> int:
    """Run a process in a running container; return its exit code."""
    from rootlesspy.engine.inputs import environment, values
    from rootlesspy.engine.supervision import exec_request

    name, command = given.value("container") or "", given.values("command")
    if given.flag("latest"):
        from rootlesspy.cli import operations

        command = (name, *command)
        name = operations.one(session, "exec", (), latest=True)
    if not command:
        raise UsageError("rp exec: the command is missing", hint="rp exec CONTAINER COMMAND")
    user, directory, keys = (given.value(each) for each in ("user", "workdir", "detach_keys"))
    wish = exec_request.Wish(
        args=command,
        env=environment.resolve(given.values("env"), given.values("env_file"), session.environment),
        cwd=values.parse_workdir(directory, "--workdir") if directory else "",
        user=values.parse_user(user, "--user") if user else "",
        tty=given.flag("tty"),
        privileged=given.flag("privileged"),
    )
    request = exec_request.ExecRequest(
        wish,
        interactive=given.flag("interactive"),
        detach=given.flag("detach"),
        detach_keys=(
            values.DEFAULT_DETACH_KEYS
            if keys is None
            else values.parse_detach_keys(keys, "--detach-keys")
        ),
    )
    result = exec_request.run(session.paths(), name, request, session.reporter)
    if isinstance(result, int):
        return result
    sys.stdout.write(f"{result}\n")
    return 0


def start(given: Values, session: Session) -> int:
    """Start containers; attached, return the exit code of one."""
    from rootlesspy.cli import operations
    from rootlesspy.engine import lifecycle
    from rootlesspy.engine.inputs.values import DEFAULT_DETACH_KEYS, parse_detach_keys

    names, latest = given.values("names"), given.flag("latest")
    if not (given.flag("attach") or given.flag("interactive")):
        found = operations.chosen(
            session,
            "start",
            names,
            everything=given.flag("all"),
            latest=latest,
            filters=given.values("filter"),
            states=("created", "exited"),
        )
        return operations.each(
            session,
            found,
            lambda name: lifecycle.start(session.paths(), name, session.reporter),
        )
    keys = given.value("detach_keys")
    return lifecycle.start_attached(
        session.paths(),
        operations.one(session, "start --attach", names, latest=latest),
        interactive=given.flag("interactive"),
        detach_keys=(
            DEFAULT_DETACH_KEYS if keys is None else parse_detach_keys(keys, "--detach-keys")
        ),
        reporter=session.reporter,
        forwards=given.flag("sig_proxy", default=True),
    )


def stop(given: Values, session: Session) -> int:
    """Stop containers."""
    from rootlesspy.cli import operations
    from rootlesspy.engine import ending

    limit_s = stop_time(given.value("time"))
    found = operations.chosen(
        session,
        "stop",
        given.values("names"),
        everything=given.flag("all"),
        latest=given.flag("latest"),
        filters=given.values("filter"),
        cidfiles=given.values("cidfile"),
        states=("running",),
    )
    return operations.each(
        session,
        found,
        lambda name: ending.stop(session.paths(), name, limit_s, session.reporter),
        ignore_missing=given.flag("ignore"),
    )


def stop_time(text: str | None) -> float | None:
    """Parse --time: seconds, a negative number for no limit; None when it was not given."""
    if text is None:
        return None
    from rootlesspy.engine.inputs.values import parse_integer

    number = parse_integer(text, "--time", -1, 2**31 - 1)
    return float(number) if number >= 0 else _NO_LIMIT_S


def ps(given: Values, session: Session) -> int:
    """List containers."""
    from rootlesspy.cli.ps import show

    show(given, session)
    return 0


def pull(given: Values, session: Session) -> int:
    """Pull images; print their ids."""
    from rootlesspy.cli import pull as command

    names = given.values("names")
    if not names:
        raise UsageError("rp pull: IMAGE is missing", hint="rp pull --help")
    return command.pull(
        session,
        names,
        policy=given.value("policy") or "always",
        platform=given.value("platform"),
        quiet=given.flag("quiet"),
    )


def inspect(given: Values, session: Session) -> int:
    """Describe containers and images in every detail."""
    from rootlesspy.cli.inspect import show

    return show(given, session)


def _request(given: Values, session: Session) -> RunRequest:
    from rootlesspy.engine.supervision import cancel

    # Not to be cancelled while the imports run, where the exception could be lost.
    cancel.hold()
    from rootlesspy.engine.inputs.options import run_request

    return run_request(
        given,
        caller_environment=session.environment,
        directory=_directory(),
        debug=session.reporter.debug,
    )


def _progress(request: RunRequest, session: Session) -> Progress:
    from rootlesspy.cli import progress

    return progress.make(quiet=request.quiet, debug=session.reporter.debug)


def _directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        # Somebody removed it; only relative paths need it, and those will not be found.
        return "/"
