"""The hot commands, behind both parsers: options in, exit code out; imports only when needed."""

from __future__ import annotations

import os
import sys

from rootlesspy.engine.inputs.constants import DEFAULT_DETACH_KEYS
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING

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
        "rm": remove,
        "ps": ps,
        "inspect": inspect,
        "logs": logs,
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
        progress = lambda: _progress(request, session)  # noqa: E731
        return engine.run(request, paths, reporter, progress, session.supervisor)
    identity = engine.run_detached(
        request, paths, reporter, lambda: _progress(request, session), session.supervisor
    )
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
    from rootlesspy.engine.inputs import environment
    from rootlesspy.engine.supervision import exec_request

    name, command = given.value("container") or "", given.values("command")
    if given.flag("latest"):
        from rootlesspy.cli import operations

        command = (name, *command)
        name = operations.one(session, "exec", (), latest=True)
    if not command:
        raise UsageError("rp exec: the command is missing", hint="rp exec CONTAINER COMMAND")
    directory, user = _place(given)
    wish = exec_request.Wish(
        args=command,
        env=environment.resolve(given.values("env"), given.values("env_file"), session.environment),
        cwd=directory,
        user=user,
        tty=given.flag("tty"),
        privileged=given.flag("privileged"),
    )
    request = exec_request.ExecRequest(
        wish,
        interactive=given.flag("interactive"),
        detach=given.flag("detach"),
        detach_keys=_detach_keys(given),
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
    return lifecycle.start_attached(
        session.paths(),
        operations.one(session, "start --attach", names, latest=latest),
        interactive=given.flag("interactive"),
        detach_keys=_detach_keys(given),
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


def remove(given: Values, session: Session) -> int:
    """Remove containers: 1 when one did not exist, 2 when one is running, 125 for anything else."""
    from rootlesspy.cli import operations
    from rootlesspy.cli.removal import Removal
    from rootlesspy.engine import ending
    from rootlesspy.errors import Error, NotFound

    paths, force, time = session.paths(), given.flag("force"), given.value("time")
    chosen = operations.chosen(
        session,
        "rm",
        given.values("names"),
        everything=given.flag("all"),
        latest=given.flag("latest"),
        filters=given.values("filter"),
        cidfiles=given.values("cidfile"),
    )
    if given.flag("depend"):
        from rootlesspy.engine.pods import sharing

        chosen = sharing.with_sharers(paths, chosen)
    if time is not None and not force:
        raise UsageError("rp rm: --time needs --force", hint="rp rm --help")
    limit_s, volumes = stop_time(time), given.flag("volumes")
    removal = Removal(session.reporter)
    for name in chosen:
        try:
            ending.remove(
                paths,
                [name],
                force=force,
                reporter=session.reporter,
                volumes=volumes,
                timeout_s=limit_s,
            )
        except NotFound as error:
            # With --force podman takes "is not there" for "is gone".
            if not (given.flag("ignore") or force):
                removal.failed(error)
        except Error as error:
            removal.failed(error)
        else:
            sys.stdout.write(f"{name}\n")
    if given.flag("all"):
        ending.forget_failed(paths)
    return removal.exit_code


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


def logs(given: Values, session: Session) -> int:
    """Show what containers have written."""
    from rootlesspy.cli.logs import show

    return show(given, session)


def _place(given: Values) -> tuple[str, str]:
    """Return the working directory and the user of an exec, empty where they were not given."""
    directory, user = given.value("workdir") or "", given.value("user") or ""
    if directory or user:
        from rootlesspy.engine.inputs import values

        directory = values.parse_workdir(directory, "--workdir") if directory else ""
        user = values.parse_user(user, "--user") if user else ""
    return directory, user


def _detach_keys(given: Values) -> bytes:
    keys = given.value("detach_keys")
    if keys is None:
        return DEFAULT_DETACH_KEYS
    from rootlesspy.engine.inputs.values import parse_detach_keys

    return parse_detach_keys(keys, "--detach-keys")


def _request(given: Values, session: Session) -> RunRequest:
    from rootlesspy.engine.supervision import cancel

    # Not to be cancelled while the imports run, where the exception could be lost.
    cancel.hold()
    from rootlesspy.engine.inputs.options import run_request

    directory = _directory()
    request = run_request(
        given,
        caller_environment=session.environment,
        directory=directory,
        debug=session.reporter.debug,
    )
    if not session.hooks_dirs:
        return request
    first = (os.path.normpath(os.path.join(directory, each)) for each in session.hooks_dirs)
    return request._replace(hooks_dirs=(*first, *request.hooks_dirs))


def _progress(request: RunRequest, session: Session) -> Progress:
    from rootlesspy.cli import progress

    return progress.make(quiet=request.quiet, debug=session.reporter.debug)


def _directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        # Somebody removed it; only relative paths need it, and those will not be found.
        return "/"
