"""Make a container from a bundle: `rp oci create`, and the first half of `rp oci run`.

Every step pushes its undo: a create that fails leaves nothing.  One that succeeds leaves an init
which waits and whose parent is whoever adopts it.
"""

from __future__ import annotations

import os
import socket
import time

from rootlesspy.engine.oci_runtime import cgroups, hook_stages, jsontext, state, support
from rootlesspy.errors import NotFound, RuntimeFailure, Undo, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import procfs
from rootlesspy.runtime import (
    bundle_create,
    bundle_init,
    bundle_mounts,
    hooks,
    namespaces,
    seccomp,
)
from rootlesspy.runtime import caps as capability_sets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.oci.runtime_spec import Process, Spec

_CONFIG_LIMIT_BYTES = 16 * 1024 * 1024
_CREATING = ("prestart", "createRuntime")


class Options(NamedTuple):
    """What `create` and `run` are told besides the bundle."""

    root: str
    systemd_cgroup: bool
    console_socket: str
    pid_file: str
    preserve_fds: int
    no_pivot: bool
    no_new_keyring: bool
    debug: bool


class Created(NamedTuple):
    """A container that waits to be started."""

    directory: str
    container: state.Container
    spec: Spec
    pidfd: int
    master_fd: int
    """Of its terminal, unless a console socket has it; else -1."""


class _Task(NamedTuple):
    """One create, checked; nothing is made yet."""

    container_id: str
    bundle: str
    text: str
    """config.json as it is written."""
    spec: Spec
    options: Options
    environment: Mapping[str, str]
    request: cgroups.Request


def load_bundle(bundle: str) -> tuple[str, Spec]:
    """Read and check a bundle's config.json; return its text too.

    Raises NotFound, UsageError, Unsupported.
    """
    path = os.path.join(bundle, "config.json")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_CONFIG_LIMIT_BYTES)
    except FileNotFoundError:
        raise NotFound(
            f"JSON specification file config.json not found in {bundle}", hint="rp-oci spec"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
    try:
        return text, support.check(jsontext.loads(text))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {error}") from error


def create(
    container_id: str,
    bundle: str,
    options: Options,
    environment: Mapping[str, str],
    warn: Callable[[str], None],
    *,
    detached: bool = True,
) -> Created:
    """Make a container that waits to be started.  Raises rootlesspy's errors."""
    text, spec = load_bundle(bundle)
    if support.is_newer(spec["ociVersion"]):
        version = spec["ociVersion"]
        warn(f"config.json is of version {version}: what is new since {support.VERSION} is ignored")
    _check_terminal(spec, options, detached=detached)
    listened = pass_sockets(spec["process"], environment)
    options = options._replace(preserve_fds=options.preserve_fds + listened)
    check_preserved(options.preserve_fds)
    drop_unavailable(spec["process"], spec, warn)
    place = state.Place(options.root)
    request = cgroups.request(spec, container_id, systemd=options.systemd_cgroup)
    task = _Task(container_id, bundle, text, spec, options, environment, request)
    undo = Undo()
    directory, lock = place.make(container_id)
    undo.push(lambda: place.remove(container_id))
    try:
        made = _create(task, directory, undo)
    except BaseException as error:
        undo.unwind(error)
        raise
    finally:
        os.close(lock)
    return made


def _create(task: _Task, directory: str, undo: Undo) -> Created:
    spec, options = task.spec, task.options
    listener = listen(directory)
    container = _container(task.container_id, task.bundle, spec)
    plan = _plan(container, spec, options, listener.fileno())
    with open(f"{directory}/config.json", "w", encoding="utf-8") as file:
        file.write(task.text)
    # Hooks start in "/", and nothing below is named relative to where the caller is.
    pid_file = os.path.abspath(options.pid_file) if options.pid_file else ""
    console_socket = os.path.abspath(options.console_socket) if options.console_socket else ""
    os.chdir("/")
    creation = bundle_create.launch(plan)
    undo.push(creation.abandon)
    listener.close()
    container = _place(task, container, creation, undo)
    devices = spec.get("linux", {}).get("netDevices")
    if devices:
        from rootlesspy.runtime import net_devices

        creation.devices_moved(net_devices.move(devices, creation.pid))
    creation.wait_hooks()
    # From here on hooks may have something to undo.
    undo.push(lambda: hook_stages.stop(spec, container, lambda _text: None))
    for stage in _CREATING:
        hook_stages.run(spec, stage, container, "creating")
    creation.hooks_done()
    master = creation.wait_ready()
    if master >= 0 and console_socket:
        from rootlesspy.engine.oci_runtime import console

        console.send_master(console_socket, master)
        os.close(master)
        master = -1
    state.save(directory, container)
    if pid_file:
        write_pid_file(pid_file, creation.pid)
    return Created(directory, container, spec, creation.pidfd, master)


def _place(
    task: _Task, container: state.Container, creation: bundle_create.Creation, undo: Undo
) -> state.Container:
    """Put the stage into its cgroup and have it make init; return what is known then."""
    placed = cgroups.place(task.request, task.container_id, creation.stage, task.environment)
    undo.push(lambda: cgroups.remove(placed, task.environment))
    creation.placed(_maps(task.spec))
    return container._replace(
        pid=creation.pid,
        pid_start=procfs.start_time(creation.pid) or 0,
        cgroup_manager=placed.manager,
        cgroup_path=placed.directory,
        unit=placed.unit,
    )


def _container(container_id: str, bundle: str, spec: Spec) -> state.Container:
    absolute = os.path.realpath(bundle)
    return state.Container(
        id=container_id,
        pid=0,
        pid_start=0,
        boot_id=procfs.boot_id(),
        oci_version=spec["ociVersion"],
        bundle=absolute,
        rootfs=os.path.join(absolute, spec["root"]["path"]),
        created=time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        + f".{time.time_ns() % 10**9:09d}Z",
        owner="root" if os.geteuid() == 0 else str(os.geteuid()),
        annotations=spec.get("annotations", {}),
        cgroup_manager="",
        cgroup_path="",
        unit="",
    )


def _plan(
    container: state.Container, spec: Spec, options: Options, start_fd: int
) -> bundle_init.Plan:
    if not os.path.isdir(container.rootfs):
        raise NotFound(f"root file system {container.rootfs} is not a directory")
    linux = spec.get("linux", {})
    named = spec.get("hooks", {})
    filters = filter_of(spec)
    return bundle_init.Plan(
        spec=spec,
        bundle=container.bundle,
        root=os.path.realpath(container.rootfs),
        namespaces=namespaces.resolve(linux),
        start_fd=start_fd,
        filter=filters.program,
        filter_flags=filters.flags,
        notify_fd=filters.agent_fd,
        notify_message=agent_message(container, spec, "creating"),
        creating=around_pid(state.for_hooks(container, "creating")),
        created=around_pid(state.for_hooks(container, "created")),
        create_container=hooks.prepare(named.get("createContainer", ())),
        start_container=hooks.prepare(named.get("startContainer", ())),
        no_pivot=options.no_pivot,
        no_new_keyring=options.no_new_keyring,
        preserve_fds=options.preserve_fds,
        debug=options.debug,
    )


# Parts that exec needs too


class Filter(NamedTuple):
    """The seccomp filter of a process, and who answers its questions."""

    program: bytes | None
    flags: int
    agent_fd: int


def filter_of(spec: Spec) -> Filter:
    """Compile a spec's filter and connect to its agent.  Raises Unsupported, RuntimeFailure."""
    profile = spec.get("linux", {}).get("seccomp")
    if profile is None:
        return Filter(None, 0, -1)
    program = seccomp.compile_filter(profile, with_agent=True)
    agent = -1
    if seccomp.notifies(profile):
        path = profile["listenerPath"]
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(path)
        except OSError as error:
            raise RuntimeFailure(
                f"cannot reach the seccomp agent {path}: {error.strerror}", step="seccomp"
            ) from error
        agent = connection.detach()
    return Filter(program, seccomp.filter_flags(profile), agent)


def agent_message(container: state.Container, spec: Spec, status: str) -> tuple[bytes, ...]:
    """Return the container process state that a seccomp agent is sent, around the pid.

    Source: runtime-spec config-linux.md, "The Container Process State".
    """
    profile = spec.get("linux", {}).get("seccomp", {"defaultAction": ""})
    return around_pid(
        {
            "ociVersion": container.oci_version,
            "fds": ["seccompFd"],
            "pid": container.pid,
            "metadata": profile.get("listenerMetadata", ""),
            "state": state.for_hooks(container, status),
        }
    )


def around_pid(value: Mapping[str, object]) -> tuple[bytes, ...]:
    """Encode a document and cut it where a pid that is not known yet (0) belongs: pid.join()."""
    # In a string of the document the quotes would be escaped.
    parts = jsontext.dumps(value).split('"pid": 0')
    return (*(f'{part}"pid": '.encode() for part in parts[:-1]), parts[-1].encode())


def listen(directory: str) -> socket.socket:
    """Return the listening socket `start` of a container's directory."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # Through the descriptor, as a socket's name has room for 107 bytes only.
        listener.bind(f"/proc/self/fd/{fd}/start")
        listener.listen(1)
    finally:
        os.close(fd)
    return listener


def drop_unavailable(process: Process, spec: Spec, warn: Callable[[str], None]) -> None:
    """Leave out capabilities that cannot be granted here, with a warning as the spec wants it."""
    sets = process.get("capabilities")
    if sets is None:
        return
    kinds = {entry["type"] for entry in spec.get("linux", {}).get("namespaces", ())}
    # A new user namespace has all that the kernel knows.
    kernel = (1 << capability_sets.last_cap() + 1) - 1
    available = kernel if "user" in kinds else capability_sets.current().bounding
    lost = set()
    for key, names in sets.items():
        listed: list[str] = list(names)  # type: ignore[call-overload]  # a list of names
        numbers = {name: capability_sets.NUMBERS.get(name, 64) for name in listed}
        kept = [name for name in listed if available >> numbers[name] & 1]
        lost.update(set(listed) - set(kept))
        sets[key] = kept  # type: ignore[literal-required]  # the key that it has
    if lost:
        warn(f"capabilities cannot be granted here: {', '.join(sorted(lost))}")


def pass_sockets(process: Process, environment: Mapping[str, str]) -> int:
    """Hand on descriptors of socket activation; return how many.  Source: sd_listen_fds(3)."""
    word = environment.get("LISTEN_FDS", "")
    if not (word.isascii() and word.isdigit() and len(word) < 6 and int(word)):
        return 0
    kept = [entry for entry in process.get("env", []) if not entry.startswith("LISTEN_")]
    process["env"] = [*kept, f"LISTEN_FDS={word}", "LISTEN_PID=1"]
    return int(word)


def check_preserved(number: int) -> None:
    """Make sure that descriptors which are to be passed on are open.  Raises UsageError."""
    for fd in range(3, 3 + number):
        try:
            os.fstat(fd)
        except OSError:
            raise UsageError(f"--preserve-fds: descriptor {fd} is not open") from None


def _check_terminal(spec: Spec, options: Options, *, detached: bool) -> None:
    terminal = spec["process"].get("terminal", False)
    if terminal and detached and not options.console_socket:
        raise UsageError("cannot allocate tty if runc will detach without setting console socket")
    if options.console_socket and not (terminal and detached):
        raise UsageError("cannot use console socket if runc will not detach or allocate tty")


def _maps(spec: Spec) -> IdMaps | None:
    linux = spec.get("linux", {})
    uids, gids = linux.get("uidMappings", ()), linux.get("gidMappings", ())
    return bundle_mounts.id_maps(uids, gids) if uids and gids else None


def write_pid_file(path: str, pid: int) -> None:
    """Write a pid for whoever waits for the file: it is never there half."""
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}")
    with open(temporary, "w", encoding="ascii") as file:
        file.write(str(pid))
    os.rename(temporary, path)
