"""One more process in a container that runs: `rp oci exec`."""

from __future__ import annotations

import json
import os

from rootlesspy.engine.oci_runtime import cgroups, console, create, lifecycle, state, support
from rootlesspy.errors import Conflict, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.oci import checks, validate
from rootlesspy.runtime import bundle_join
from rootlesspy.systemd import values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rootlesspy.oci.runtime_spec import Process, Spec


class Options(NamedTuple):
    """What `exec` is told; texts that a flag gave, not yet looked at."""

    process_file: str
    arguments: tuple[str, ...]
    terminal: bool
    cwd: str
    environment: tuple[str, ...]
    user: str
    additional_gids: tuple[int, ...]
    capabilities: tuple[str, ...]
    no_new_privileges: bool
    apparmor: str
    process_label: str
    detach: bool
    console_socket: str
    pid_file: str
    preserve_fds: int
    ignore_paused: bool
    debug: bool


def execute(
    place: state.Place,
    container_id: str,
    options: Options,
    environment: Mapping[str, str],
    warn: Callable[[str], None],
) -> int:
    """Run the process; return its exit code, or 0 at once when it is detached.

    Raises rootlesspy's errors.
    """
    directory, container = place.load(container_id)
    now = container.status(directory)
    if now == "stopped":
        raise Conflict("cannot exec in a stopped container")
    if now == "paused" and not options.ignore_paused:
        raise Conflict("cannot exec in a paused container (use --ignore-paused to override)")
    spec = place.config(directory)
    process = _process(spec, options)
    if options.console_socket and not (process.get("terminal") and options.detach):
        raise UsageError("cannot use console socket if runc will not detach or allocate tty")
    if process.get("terminal") and options.detach and not options.console_socket:
        raise UsageError("cannot allocate tty if runc will detach without setting console socket")
    listened = create.pass_sockets(process, environment)
    create.check_preserved(options.preserve_fds + listened)
    create.drop_unavailable(process, spec, warn)
    plan = _plan(container, spec, process, options, listened)
    signals = None if options.detach else console.Signals()
    pidfd = lifecycle.open_init(container)
    where = lifecycle.placed(container)
    joined = bundle_join.launch(plan, pidfd, lambda pid: cgroups.join(where, pid, environment))
    if options.console_socket:
        console.send_master(options.console_socket, joined.master_fd)
    if options.pid_file:
        create.write_pid_file(options.pid_file, joined.pid)
    if signals is None:
        return 0
    console.attend(joined.pidfd, joined.master_fd, signals)
    return exit_code(os.waitpid(joined.pid, 0)[1])


def exit_code(status: int) -> int:
    """Return what a shell would: 128 and the signal's number for a process that was killed."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _plan(
    container: state.Container, spec: Spec, process: Process, options: Options, listened: int
) -> bundle_join.Plan:
    filters = create.filter_of(spec)
    affinity = process.get("execCPUAffinity", {})
    kinds = {e["type"] for e in spec["linux"]["namespaces"] if not e.get("path")}
    return bundle_join.Plan(
        process=process,
        linux=spec.get("linux", {}),
        pid=container.pid,
        chroot="mount" not in kinds,
        filter=filters.program,
        filter_flags=filters.flags,
        notify_fd=filters.agent_fd,
        notify_message=create.agent_message(container._replace(pid=0), spec, "running"),
        preserve_fds=options.preserve_fds + listened,
        listens=listened > 0,
        initial_cpus=_cpus("initial", affinity.get("initial", "")),
        final_cpus=_cpus("final", affinity.get("final", "")),
        debug=options.debug,
    )


def _cpus(name: str, text: str) -> frozenset[int]:
    try:
        return values.cpus(text) if text else frozenset()
    except ValueError as error:
        raise UsageError(f"process.execCPUAffinity.{name}: {error}") from error


def _process(spec: Spec, options: Options) -> Process:
    """Return the process of --process, or the container's own with what the flags change."""
    if options.process_file:
        process = _read(options.process_file)
    else:
        process = _flagged(spec["process"].copy(), options)
    if options.terminal:
        process["terminal"] = True
    support.check_process(process)
    return process


def _read(path: str) -> Process:
    try:
        with open(path, encoding="utf-8") as file:
            process = state.without_nulls(json.load(file))
        validate.process(process)
    except checks.SpecError as error:
        raise UsageError(f"{path}: {error}") from error
    except OSError as error:
        raise UsageError(f"open {path}: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {error}") from error
    checked: Process = process  # type: ignore[assignment]  # validate has proved it
    return checked


def _flagged(process: Process, options: Options) -> Process:
    if not options.arguments:
        raise UsageError("process args cannot be empty")
    process["args"] = list(options.arguments)
    process["terminal"] = options.terminal
    process["env"] = [*process.get("env", []), *options.environment]
    if options.cwd:
        process["cwd"] = options.cwd
    if options.apparmor:
        process["apparmorProfile"] = options.apparmor
    if options.process_label:
        process["selinuxLabel"] = options.process_label
    if options.no_new_privileges:
        process["noNewPrivileges"] = True
    if options.user:
        uid, colon, gid = options.user.partition(":")
        process["user"] = {**process["user"], "uid": _id("uid", uid)}
        if colon:
            process["user"]["gid"] = _id("gid", gid)
    if options.additional_gids:
        process["user"] = {**process["user"], "additionalGids": list(options.additional_gids)}
    _add_capabilities(process, options.capabilities)
    return process


def _add_capabilities(process: Process, names: tuple[str, ...]) -> None:
    if not names:
        return
    sets = {name: list(given) for name, given in process.get("capabilities", {}).items()}  # type: ignore[call-overload]
    for name in ("bounding", "effective", "permitted"):
        sets[name] = [
            *sets.get(name, []),
            *(each for each in names if each not in sets.get(name, [])),
        ]
    process["capabilities"] = sets  # type: ignore[typeddict-item]  # the five keys


def _id(kind: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= checks.MAX_ID):
        raise UsageError(f"parsing {text} as int for {kind} failed")
    return int(text)
