"""`rp create, start, stop, restart, kill, pause, unpause, wait` and `attach` for typer."""

from __future__ import annotations

from rootlesspy.cli import argv, completion, hot, operations
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli.light_typer import Help, table_options
from rootlesspy.cli.run import HELPS as RUN_HELPS
from rootlesspy.cli.run import PANELS as RUN_PANELS
from rootlesspy.engine import ending, lifecycle
from rootlesspy.engine.inputs.constants import DEFAULT_DETACH_KEYS
from rootlesspy.engine.inputs.values import parse_detach_keys, parse_signal
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootlesspy.cli.session import Session

_PANELS = ("Which", "How")
_NAMES = Help("", "CONTAINER...", "Names, ids or unique beginnings of ids.")
_LATEST = Help("Which", "", "The newest one.")
_FILTER = Help("Which", "KEY=VALUE", "Those that fit, as in rp ps.")
_CIDFILE = Help("Which", "FILE", "Read the container's id from a file.")
_RUNNING, _PAUSED = ("running",), ("running",)
EXEC_HELPS = {
    "container": Help("", "CONTAINER", "Name, id or unique beginning of an id."),
    "command": Help("", "COMMAND...", "Command and arguments."),
    "detach": Help("Options", "", "Return as soon as it runs."),
    "detach_keys": Help("Options", "KEYS", "Keys that leave it running; default ctrl-p,ctrl-q."),
    "env": Help("Options", "KEY=VALUE", "Set a variable, over the container's own."),
    "env_file": Help("Options", "FILE", "Read variables from a file."),
    "interactive": Help("Options", "", "Give it your standard input."),
    "latest": Help("Options", "", "In the newest container; no CONTAINER is given then."),
    "privileged": Help("Options", "", "With all capabilities of the user namespace."),
    "tty": Help("Options", "", "Give it a terminal."),
    "user": Help("Options", "USER:GROUP", "User to run as; default: the container's."),
    "workdir": Help("Options", "DIR", "Working directory; default: the container's."),
}
START_HELPS = {
    "names": _NAMES,
    "all": Help("Which", "", "All that do not run."),
    "filter": _FILTER,
    "latest": _LATEST,
    "attach": Help("How", "", "Attach to its output, and return its exit code."),
    "detach_keys": Help("How", "KEYS", "Keys that leave it running; default ctrl-p,ctrl-q."),
    "interactive": Help("How", "", "Attach standard input too."),
    "sig_proxy": Help("How", "", "Pass signals on to it (default, with --attach)."),
}
STOP_HELPS = {
    "names": _NAMES,
    "all": Help("Which", "", "All that run."),
    "cidfile": _CIDFILE,
    "filter": _FILTER,
    "ignore": Help("Which", "", "Do not mind names that do not exist."),
    "latest": _LATEST,
    "time": Help("How", "SECONDS", "Time until SIGKILL; default: the container's --stop-timeout."),
}


@table_options(argv.CREATE, RUN_HELPS, RUN_PANELS)
def create(context: typer.Context, **_options: object) -> int:
    """Make a container without starting it, and print its id."""
    return hot.create(argv.Values(context.params), context.obj)


@table_options(argv.EXEC, EXEC_HELPS, ("Options",))
def execute(context: typer.Context, **_options: object) -> int:
    """Run a command in a running container.

    It is born in the container's cgroup and gets its namespaces, seccomp filter, capabilities and
    limits. Returns the command's exit code; 125, 126 and 127 as rp run does.
    """
    return hot.execute_in(argv.Values(context.params), context.obj)


@table_options(argv.START, START_HELPS, _PANELS)
def start(context: typer.Context, **_options: object) -> int:
    """Start containers as the services rp-NAME.service."""
    return hot.start(argv.Values(context.params), context.obj)


@table_options(argv.STOP, STOP_HELPS, _PANELS)
def stop(context: typer.Context, **_options: object) -> int:
    """Stop containers.

    Each gets its stop signal, and SIGKILL when the time is up; systemctl --user stop, logging out
    and shutting down do the same. A container that does not run is no error.
    """
    return hot.stop(argv.Values(context.params), context.obj)


def _names() -> Any:
    return typer.Argument(
        None,
        metavar=_NAMES.metavar,
        help=_NAMES.text,
        autocompletion=completion.containers,
        show_default=False,
    )


def _flag(help_text: str, *names: str) -> Any:
    return typer.Option(False, *names, help=help_text, show_default=False)


def _list(metavar: str, help_text: str, *names: str) -> Any:
    return typer.Option(None, *names, metavar=metavar, help=help_text, show_default=False)


def restart(
    context: typer.Context,
    names: list[str] = _names(),
    everything: bool = _flag("All containers.", "--all", "-a"),
    cidfile: list[str] = _list("FILE", _CIDFILE.text, "--cidfile"),
    filters: list[str] = _list("KEY=VALUE", _FILTER.text, "--filter", "-f"),
    latest: bool = _flag(_LATEST.text, "--latest", "-l"),
    running: bool = _flag("All that run.", "--running"),
    time: str | None = typer.Option(
        None, "--time", "-t", metavar="SECONDS", help=STOP_HELPS["time"].text, show_default=False
    ),
) -> int:
    """Stop containers, if they run, and start them again."""
    session: Session = context.obj
    found = operations.chosen(
        session, "restart", names or (), everything=everything or running, latest=latest,
        filters=filters or (), cidfiles=cidfile or (), states=_RUNNING if running else (),
    )  # fmt: skip
    limit_s = hot.stop_time(time)

    def again(name: str) -> None:
        ending.restart(session.paths(), name, limit_s, session.reporter)

    return operations.each(session, found, again)


def kill(
    context: typer.Context,
    names: list[str] = _names(),
    everything: bool = _flag("All that run.", "--all", "-a"),
    cidfile: list[str] = _list("FILE", _CIDFILE.text, "--cidfile"),
    latest: bool = _flag(_LATEST.text, "--latest", "-l"),
    signal: str = typer.Option(
        "KILL", "--signal", "-s", metavar="SIGNAL", help="Name or number, default KILL.",
        show_default=False,
    ),
) -> int:  # fmt: skip
    """Send a signal to the first process of running containers."""
    session: Session = context.obj
    number = parse_signal(signal, "--signal")
    found = operations.chosen(
        session, "kill", names or (), everything=everything, latest=latest,
        cidfiles=cidfile or (), states=_RUNNING,
    )  # fmt: skip
    return operations.each(
        session, found, lambda name: lifecycle.signal(session.paths(), name, number)
    )


def pause(
    context: typer.Context,
    names: list[str] = _names(),
    everything: bool = _flag("All that run.", "--all", "-a"),
    cidfile: list[str] = _list("FILE", _CIDFILE.text, "--cidfile"),
    filters: list[str] = _list("KEY=VALUE", _FILTER.text, "--filter", "-f"),
    latest: bool = _flag(_LATEST.text, "--latest", "-l"),
) -> int:
    """Freeze all processes of running containers."""
    session: Session = context.obj
    found = operations.chosen(
        session, "pause", names or (), everything=everything, latest=latest, states=_RUNNING,
        filters=filters or (), cidfiles=cidfile or (),
    )  # fmt: skip
    return operations.each(session, found, lambda name: lifecycle.pause(session.paths(), name))


def unpause(
    context: typer.Context,
    names: list[str] = _names(),
    everything: bool = _flag("All that are paused.", "--all", "-a"),
    cidfile: list[str] = _list("FILE", _CIDFILE.text, "--cidfile"),
    filters: list[str] = _list("KEY=VALUE", _FILTER.text, "--filter", "-f"),
    latest: bool = _flag(_LATEST.text, "--latest", "-l"),
) -> int:
    """Let the processes of paused containers go on."""
    session: Session = context.obj
    found = operations.chosen(
        session, "unpause", names or (), everything=everything, latest=latest, states=_PAUSED,
        filters=filters or (), cidfiles=cidfile or (),
    )  # fmt: skip
    if everything or filters:
        paths = session.paths()
        found = [each for each in found if lifecycle.is_paused(paths, lifecycle.get(paths, each))]
    return operations.each(session, found, lambda name: lifecycle.unpause(session.paths(), name))


def wait(
    context: typer.Context,
    names: list[str] = _names(),
    condition: list[str] = _list(
        "STATE", "stopped (default), exited, running or created.", "--condition"
    ),
    ignore: bool = _flag("Do not mind names that do not exist.", "--ignore"),
    interval: str | None = typer.Option(
        None, "--interval", "-i", metavar="TIME", help="Accepted as podman's: nothing is polled.",
        show_default=False,
    ),
    latest: bool = _flag(_LATEST.text, "--latest", "-l"),
) -> int:  # fmt: skip
    """Wait until containers have ended, and print their exit codes."""
    del interval
    session: Session = context.obj
    wanted = tuple(condition or ("stopped",))
    for each in wanted:
        if each not in ("stopped", "exited", "running", "created"):
            raise UsageError(f"--condition {each!r}: expected stopped, exited, running or created")
    found = operations.chosen(session, "wait", names or (), latest=latest, has_all=False)
    return operations.each(
        session,
        found,
        lambda name: lifecycle.wait_for(session.paths(), name, wanted),
        ignore_missing=ignore,
        show=lambda _name, code: str(code),
    )


def attach(
    context: typer.Context,
    names: list[str] = _names(),
    detach_keys: str | None = typer.Option(
        None, "--detach-keys", metavar="KEYS", help=START_HELPS["detach_keys"].text,
        show_default=False,
    ),
    latest: bool = _flag(_LATEST.text, "--latest", "-l"),
    no_stdin: bool = _flag("Do not attach standard input.", "--no-stdin"),
    sig_proxy: bool = typer.Option(
        True, "--sig-proxy/--no-sig-proxy", help="Pass signals on to it (default).",
        show_default=False,
    ),
) -> int:  # fmt: skip
    """Attach to a running container, and return its exit code.

    The detach keys leave it running.
    """
    session: Session = context.obj
    keys = DEFAULT_DETACH_KEYS
    if detach_keys is not None:
        keys = parse_detach_keys(detach_keys, "--detach-keys")
    return lifecycle.attached(
        session.paths(),
        operations.one(session, "attach", names or (), latest=latest),
        interactive=not no_stdin,
        detach_keys=keys,
        reporter=session.reporter,
        forwards=sig_proxy,
    )
