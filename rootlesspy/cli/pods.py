"""`rp pod …`: groups of containers that share namespaces and limits."""

# ruff: noqa: B008, UP045
# typer 0.7 knows neither Annotated nor X | None.

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, Optional

import typer

from rootlesspy.cli import argv, hot, human, output, table
from rootlesspy.cli.click_command import Help, table_options
from rootlesspy.cli.question import agreed
from rootlesspy.cli.removal import Removal
from rootlesspy.cli.run import HELPS as RUN_HELPS
from rootlesspy.cli.run import PANELS as RUN_PANELS
from rootlesspy.errors import Conflict, Error, NotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.cli.session import Session
    from rootlesspy.engine.pods.store import Pod

_SHORT_ID = 12
_FAILURE = 125
_HEADER = ("POD ID", "NAME", "STATUS", "CREATED", "INFRA ID", "# OF CONTAINERS")
_HEADERS = {"Id": "POD ID", "InfraID": "INFRA ID", "NumberOfContainers": "# OF CONTAINERS"}
_SHARE = "ipc,net,uts"
# Of a container's options those that mean its namespaces, its limits and itself.
_TAKEN = frozenset(
    (
        "add_host", "cpu_shares", "cpus", "cpuset_cpus", "dns", "dns_option", "dns_search",
        "hostname", "ignore_missing_limits", "label", "label_file", "memory",
        "memory_reservation", "memory_swap", "network", "pids_limit", "publish", "shm_size",
        "sysctl", "userns",
    )
)  # fmt: skip
_TABLE = argv.Command(
    name="create",
    operand=None,
    operands="names",
    options=(
        *(each for each in argv.RUN.options if each.dest in _TAKEN),
        argv.Option("infra", argv.SWITCH, ("--infra",)),
        argv.Option("name", argv.VALUE, ("--name", "-n")),
        argv.Option("pod_id_file", argv.VALUE, ("--pod-id-file",)),
        argv.Option("replace", argv.FLAG, ("--replace",)),
        argv.Option("share", argv.VALUE, ("--share",)),
    ),
)
_BASIC, _SECURITY = RUN_HELPS["name"].panel, RUN_HELPS["userns"].panel
_HELPS = {
    **{dest: RUN_HELPS[dest] for dest in _TAKEN},
    "names": Help("", "[NAME]", "Name of the pod."),
    "name": Help(_BASIC, "NAME", "Name of the pod, and of rp-pod-NAME.service and .slice."),
    "infra": Help(_BASIC, "", "Hold namespaces to be shared (default); else it is a slice alone."),
    "pod_id_file": Help(_BASIC, "FILE", "Write the pod's id to a file."),
    "replace": Help(_BASIC, "", "Remove a pod of this name, with its containers, first."),
    "share": Help(_SECURITY, "LIST", f"Of net, ipc, uts, pid; none; default {_SHARE}."),
    "userns": Help(
        _SECURITY, "MODE", "host-map: you are root inside (default); keep-id: you keep your id."
    ),
}


@table_options(_TABLE, _HELPS, RUN_PANELS)
def create(context: typer.Context, **_options: object) -> int:
    """Make a pod and print its id.

    Its members share a network, host name and shared memory, which rp-pod-NAME.service holds from
    their start on, and the limits of rp-pod-NAME.slice. Ports are the pod's: --publish here.
    """
    session: Session = context.obj
    from rootlesspy.engine.inputs import options
    from rootlesspy.engine.pods import actions, store

    given = argv.Values({**context.params, "image": "pod"})
    names = given.values("names")
    if len(names) > 1 or (names and given.value("name")):
        raise UsageError("a pod has one name", hint="rp pod create --help")
    if names:
        given = argv.Values({**context.params, "image": "pod", "name": names[0]})
    request = options.run_request(
        given, caller_environment=session.environment, directory=os.getcwd(), debug=False
    )
    paths = session.paths()
    if given.flag("replace") and request.name:
        try:
            pod = store.find(paths, request.name)
        except NotFound:
            pass
        else:
            actions.remove(paths, pod, session.reporter, force=True)
    infra = given.flag("infra", default=True)
    share = _share(given.value("share"), infra=infra)
    made = actions.create(paths, request, share, session.reporter, infra=infra)
    if path := given.value("pod_id_file"):
        with open(path, "w", encoding="ascii") as file:
            file.write(made.id)
    sys.stdout.write(f"{made.id}\n")
    return 0


def _share(text: str | None, *, infra: bool) -> tuple[str, ...]:
    from rootlesspy.engine.pods.store import KINDS

    if not infra or text in ("", "none"):
        return ()
    words = (text or _SHARE).removeprefix("+").split(",")
    if text and text.startswith("+"):
        words = [*_SHARE.split(","), *words]
    for word in words:
        if word not in KINDS:
            raise UsageError(
                f"--share {text!r}: {word!r} cannot be shared", hint=f"of {', '.join(KINDS)}"
            )
    return tuple(dict.fromkeys(KINDS[word] for word in words))


def _names(text: str = "Names, ids or unique beginnings of ids.") -> Any:
    return typer.Argument(None, metavar="POD...", help=text, show_default=False)


def _flag(text: str, *names: str) -> Any:
    return typer.Option(False, *names, help=text, show_default=False)


def _value(metavar: str, text: str, *names: str) -> Any:
    return typer.Option(None, *names, metavar=metavar, help=text, show_default=False)


def list_(
    context: typer.Context,
    filters: list[str] = _value("KEY=VALUE", "name=, id=, status= or label=.", "--filter", "-f"),
    form: Optional[str] = _value("FORMAT", "json, a Go template, or table and one.", "--format"),
    noheading: bool = _flag("Leave out the headings.", "--noheading", "-n"),
    no_trunc: bool = _flag("Do not shorten ids.", "--no-trunc"),
    quiet: bool = _flag("Print ids only.", "--quiet", "-q"),
) -> int:
    """List pods."""
    from rootlesspy.engine.pods import store, views

    paths = context.obj.paths()
    pods = [(pod, views.listed(paths, pod)) for pod in store.everything(paths)]
    for text in filters or ():
        pods = [each for each in pods if _fits(each[1], text)]
    length = None if no_trunc else _SHORT_ID
    if quiet:
        sys.stdout.write("".join(f"{pod.id[:length]}\n" for pod, _ in pods))
        return 0
    now_s = time.time()
    if form:
        output.show(
            form,
            _HEADERS,
            rows=lambda: [_row(pod, shown, now_s, length) for pod, shown in pods],
            json_rows=lambda: [shown for _, shown in pods],
            heading=not noheading,
        )
        return 0
    cells = [
        (pod.id[:length], pod.name, shown["Status"], human.ago(pod.created_s, now_s), "",
         str(len(shown["Containers"])))
        for pod, shown in pods
    ]  # fmt: skip
    sys.stdout.write(table.render(_HEADER, cells, table.style(), heading=not noheading))
    return 0


def _row(pod: Pod, shown: dict[str, Any], now_s: float, length: int | None) -> Any:
    from rootlesspy.cli.gotemplate import Record

    members = shown["Containers"]
    return Record(
        Cgroup=pod.slice,
        ContainerIds=",".join(each["Id"][:length] for each in members),
        ContainerNames=",".join(each["Names"] for each in members),
        ContainerStatuses=",".join(each["Status"] for each in members),
        Created=human.ago(pod.created_s, now_s),
        ID=pod.id[:length],
        Id=pod.id[:length],
        InfraID="",
        Labels=pod.labels,
        Name=pod.name,
        Networks=",".join(shown["Networks"]),
        NumberOfContainers=len(members),
        Status=shown["Status"],
    )


def _fits(shown: dict[str, Any], text: str) -> bool:
    key, equals, value = text.partition("=")
    if not equals or key not in ("name", "id", "status", "label"):
        raise UsageError(f"--filter {text!r} is unknown", hint="name=, id=, status=, label=")
    if key == "label":
        name, with_value, wanted = value.partition("=")
        found = shown["Labels"].get(name)
        return found is not None and (not with_value or found == wanted)
    if key == "status":
        return bool(shown["Status"].lower() == value.lower())
    if key == "id":
        return bool(shown["Id"].startswith(value))
    return value in shown["Name"]


def inspect(
    context: typer.Context,
    names: list[str] = _names(),
    form: Optional[str] = _value("FORMAT", "json or a Go template.", "--format", "-f"),
) -> int:
    """Show what pods are, as JSON."""
    from rootlesspy.engine.pods import store, views

    if not names:
        raise UsageError("rp pod inspect: name the pods", hint="rp pod ps")
    paths = context.obj.paths()
    shown = [views.inspected(paths, store.find(paths, name)) for name in names]
    if form and not output.is_json(form):
        from rootlesspy.cli.gotemplate import Record

        for each in shown:
            output.show_one(Record(each), form)
        return 0
    output.print_json(shown)
    return 0


def exists(
    context: typer.Context,
    name: str = typer.Argument(..., metavar="POD", help="Name, id or unique beginning of an id."),
) -> int:
    """Say by the exit code whether a pod exists: 0, or 1."""
    from rootlesspy.engine.pods import store

    try:
        store.find(context.obj.paths(), name)
    except NotFound:
        return 1
    return 0


def _each(
    session: Session,
    command: str,
    names: list[str] | None,
    do: Callable[[Pod], object],
    *,
    everything: bool,
) -> int:
    """Do it to every pod and print what it was called; 125 when one failed."""
    from rootlesspy.engine.pods import store

    if everything == bool(names):
        raise UsageError(f"rp pod {command}: name the pods, or say --all", hint="rp pod ps")
    paths, code = session.paths(), 0
    for name in [each.id for each in store.everything(paths)] if everything else names or ():
        try:
            do(store.find(paths, name))
        except Error as error:
            session.reporter.error(error.message, error.hint)
            code = _FAILURE
        else:
            sys.stdout.write(f"{name}\n")
    return code


def start(
    context: typer.Context, names: list[str] = _names(), everything: bool = _flag("All.", "--all")
) -> int:
    """Start pods: their services, and all members that do not run."""
    from rootlesspy.engine.pods import actions

    session = context.obj
    return _each(
        session, "start", names,
        lambda pod: actions.start(session.paths(), pod, session.reporter), everything=everything,
    )  # fmt: skip


def stop(
    context: typer.Context,
    names: list[str] = _names(),
    everything: bool = _flag("All.", "--all", "-a"),
    ignore: bool = _flag("Do not mind names that do not exist.", "--ignore", "-i"),
    limit: Optional[str] = _value("SECONDS", "Time until SIGKILL.", "--time", "-t"),
) -> int:
    """Stop all members of pods, and then what holds their namespaces."""
    from rootlesspy.engine.pods import actions

    session = context.obj
    limit_s = hot.stop_time(limit)
    return _each(
        session, "stop", _present(session, names) if ignore else names,
        lambda pod: actions.stop(session.paths(), pod, limit_s, session.reporter),
        everything=everything,
    )  # fmt: skip


def _present(session: Session, names: list[str] | None) -> list[str]:
    from rootlesspy.engine.pods import store

    found = []
    for name in names or ():
        try:
            store.find(session.paths(), name)
        except NotFound:
            continue
        found.append(name)
    return found


def restart(
    context: typer.Context,
    names: list[str] = _names(),
    everything: bool = _flag("All.", "--all", "-a"),
) -> int:
    """Stop pods and start them again, with all members."""
    from rootlesspy.engine.pods import actions

    session = context.obj

    def again(pod: Pod) -> None:
        actions.stop(session.paths(), pod, None, session.reporter)
        actions.start(session.paths(), pod, session.reporter)

    return _each(session, "restart", names, again, everything=everything)


def kill(
    context: typer.Context,
    names: list[str] = _names(),
    everything: bool = _flag("All.", "--all", "-a"),
    signal: str = typer.Option("KILL", "--signal", "-s", metavar="SIGNAL", help="Which one."),
) -> int:
    """Send a signal to all members of pods."""
    from rootlesspy.engine.inputs.values import parse_signal
    from rootlesspy.engine.pods import actions

    session, number = context.obj, parse_signal(signal, "--signal")
    return _each(
        session, "kill", names, lambda pod: actions.kill(session.paths(), pod, number),
        everything=everything,
    )  # fmt: skip


def pause(
    context: typer.Context,
    names: list[str] = _names(),
    everything: bool = _flag("All.", "--all", "-a"),
) -> int:
    """Freeze all members of pods."""
    from rootlesspy.engine.pods import actions

    session = context.obj
    return _each(
        session, "pause", names, lambda pod: actions.pause(session.paths(), pod),
        everything=everything,
    )  # fmt: skip


def unpause(
    context: typer.Context,
    names: list[str] = _names(),
    everything: bool = _flag("All.", "--all", "-a"),
) -> int:
    """Let all members of pods go on."""
    from rootlesspy.engine.pods import actions

    session = context.obj
    return _each(
        session, "unpause", names, lambda pod: actions.unpause(session.paths(), pod),
        everything=everything,
    )  # fmt: skip


def rm(
    context: typer.Context,
    names: list[str] = _names(),
    everything: bool = _flag("All.", "--all", "-a"),
    force: bool = _flag("Running members too.", "--force", "-f"),
    ignore: bool = _flag("Do not mind names that do not exist.", "--ignore", "-i"),
    limit: Optional[str] = _value("SECONDS", "With --force: time to stop.", "--time", "-t"),
) -> int:
    """Remove pods and their members.

    Exit code 1: one did not exist; 125: one has running members.
    """
    from rootlesspy.engine.pods import actions, store

    session = context.obj
    if everything == bool(names):
        raise UsageError("rp pod rm: name the pods, or say --all", hint="rp pod ps")
    paths, limit_s = session.paths(), hot.stop_time(limit)
    removal = Removal(session.reporter)
    for name in [each.id for each in store.everything(paths)] if everything else names:
        try:
            pod = store.find(paths, name)
            actions.remove(paths, pod, session.reporter, force=force, timeout_s=limit_s)
        except NotFound as error:
            if not (ignore or force):
                removal.failed(error)
        except Conflict as error:
            removal.failed(Error(error.message, hint=error.hint))
        except Error as error:
            removal.failed(error)
        else:
            sys.stdout.write(f"{pod.id}\n")
    return removal.exit_code


def prune(context: typer.Context, force: bool = _flag("Ask nothing.", "--force", "-f")) -> int:
    """Remove pods of which nothing runs, with their members; print their ids."""
    from rootlesspy.engine.pods import actions, store, views

    session = context.obj
    if not force and not agreed("This command removes all stopped pods with their containers."):
        return 0
    paths = session.paths()
    for pod in store.everything(paths):
        if views.listed(paths, pod)["Status"] in ("Created", "Exited"):
            actions.remove(paths, pod, session.reporter, force=False)
            sys.stdout.write(f"{pod.id}\n")
    return 0


def logs(
    context: typer.Context,
    name: str = typer.Argument(..., metavar="POD", help="Name, id or unique beginning of an id."),
    follow: bool = _flag("Go on until the containers end.", "--follow", "-f"),
    since: Optional[str] = _value("TIME", "Not what is older.", "--since"),
    until: Optional[str] = _value("TIME", "Not what is newer.", "--until"),
    tail: str = typer.Option(
        "-1", "--tail", metavar="NUMBER", show_default=False, help="The last NUMBER lines of each."
    ),
    timestamps: bool = _flag("Begin each line with its time.", "--timestamps", "-t"),
    with_names: bool = _flag("Begin each line with the container's name.", "--names", "-n"),
    colour: bool = _flag("Give each container's name a colour.", "--color"),
) -> int:
    """Show what the members of a pod have written."""
    from rootlesspy.cli import logs as containers_logs
    from rootlesspy.engine.pods import store

    paths = context.obj.paths()
    members = [each.record.id for each in store.members(paths, store.find(paths, name))]
    if not members:
        return 0
    return containers_logs.logs(
        context, members, follow=follow, since=since, until=until, tail=tail,
        timestamps=timestamps, with_names=with_names, colour=colour, latest=False,
    )  # fmt: skip
