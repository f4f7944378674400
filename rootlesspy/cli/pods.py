"""`rp pod create`: a group of containers that share namespaces and limits."""

from __future__ import annotations

import contextlib
import os
import sys

from rootlesspy.cli import argv
from rootlesspy.cli.light_typer import Help, table_options
from rootlesspy.cli.run import HELPS as RUN_HELPS
from rootlesspy.cli.run import PANELS as RUN_PANELS
from rootlesspy.engine.names import check_name
from rootlesspy.errors import Error, NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from rootlesspy.cli import light_typer as typer
    from rootlesspy.cli.session import Session
    from rootlesspy.engine.inputs.request import RunRequest

_SHARE = "ipc,net,uts"
# Of a container's options those that mean its namespaces, its limits and itself.
_TAKEN = frozenset(
    (
        "add_host", "cpu_shares", "cpus", "cpuset_cpus", "dns", "dns_option", "dns_search",
        "hostname", "ignore_missing_limits", "label", "label_file", "memory",
        "ip", "ip6", "mac_address", "memory_reservation", "memory_swap", "network",
        "network_alias", "pids_limit", "publish", "shm_size", "sysctl", "userns",
    )
)  # fmt: skip
_TABLE = argv.Command(
    name="create",
    operand=None,
    operands="names",
    options=(
        *(each for each in argv.RUN.options if each.dest in _TAKEN),
        argv.Option("exit_policy", argv.VALUE, ("--exit-policy",)),
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
    "exit_policy": Help(
        _BASIC, "POLICY", "When the last member ends: continue (default), or stop."
    ),
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
    from rootlesspy.engine.pods import actions, values

    given = argv.Values({**context.params, "image": "pod"})
    request = _request(session, given)
    infra = given.flag("infra", default=True)
    share = values.parse_share(given.value("share"), infra=infra)
    exit_policy = values.parse_exit_policy(given.value("exit_policy"))
    with _id_file(given.value("pod_id_file")) as file:
        if given.flag("replace") and request.name:
            _remove_named(session, request.name)
        paths, reporter = session.paths(), session.reporter
        made = actions.create(paths, request, share, reporter, infra=infra, exit_policy=exit_policy)
        if file is not None:
            # As podman: one that is there is written anew.
            file.truncate(0)
            file.write(made.id)
    sys.stdout.write(f"{made.id}\n")
    return 0


def _request(session: Session, given: argv.Values) -> RunRequest:
    """Return what is asked of the pod as of a container.  Raises UsageError."""
    from rootlesspy.engine.inputs import options

    names = given.values("names")
    if len(names) > 1 or (names and given.value("name")):
        raise UsageError("a pod has one name", hint="rp pod create --help")
    request = options.run_request(
        given, caller_environment=session.environment, directory=os.getcwd(), debug=False
    )
    return request._replace(name=check_name(names[0])) if names else request


def _remove_named(session: Session, name: str) -> None:
    """Remove the pod of this very name, if there is one."""
    from rootlesspy.engine.pods import actions, store

    paths = session.paths()
    try:
        pod = store.find(paths, name)
    except NotFound:
        return
    # A name may be the beginning of another pod's id.
    if pod.name == name:
        actions.remove(paths, pod, session.reporter, force=True)


@contextlib.contextmanager
def _id_file(path: str | None) -> Iterator[TextIO | None]:
    """Open the file for a pod's id before there is one.  Raises Error."""
    if path is None:
        yield None
        return
    try:
        file = open(path, "a", encoding="ascii")
    except OSError as error:
        raise Error(f"--pod-id-file {path} cannot be written: {error.strerror}") from error
    with file:
        yield file
