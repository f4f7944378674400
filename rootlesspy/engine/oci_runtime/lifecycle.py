"""What becomes of a container of `rp oci`: started, signalled, paused, removed."""

from __future__ import annotations

import os
import select

from rootlesspy.engine.oci_runtime import hook_stages, state
from rootlesspy.errors import Conflict, Error, NotFound, RuntimeFailure, UsageError
from rootlesspy.light_modules import signal, socket
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import procfs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    from rootlesspy.engine.oci_runtime import cgroups
    from rootlesspy.oci.runtime_spec import Spec

_END_TIMEOUT_MS = 60_000
# As runtime.bundle_init and runtime.sync have them, without importing these.
_START = b"START"
_MESSAGE_BYTES = 8192


def placed(container: state.Container) -> cgroups.Placed:
    """Return where a container's processes are."""
    from rootlesspy.engine.oci_runtime import cgroups

    return cgroups.Placed(container.cgroup_manager, container.unit, container.cgroup_path)


def start(
    place: state.Place,
    container_id: str,
    environment: Mapping[str, str],
    warn: Callable[[str], None],
) -> None:
    """Let a created container execute its program, then run the poststart hooks.

    Raises NotFound, Conflict, RuntimeFailure with init's words when it could not.
    """
    directory, container = place.load(container_id)
    now = container.status(directory)
    if now != "created":
        # In runc's words, which engines look for; so below.
        stopped = "cannot start a container that has stopped"
        raise Conflict(stopped if now == "stopped" else "cannot start an already running container")
    spec = place.config(directory)
    connection = _connect(directory)
    try:
        # Before the word is given: whoever is killed in between leaves a stopped container.
        os.unlink(f"{directory}/start")
        connection.send(_START)
        answer = _answer(connection)
    except OSError as error:
        raise RuntimeFailure(f"cannot start: {error.strerror}", step="start") from error
    finally:
        connection.close()
    if answer:
        _await_end(container)
        _report(answer, spec)
    try:
        hook_stages.run(spec, "poststart", container, "running")
    except Error:
        _kill_all(container)
        delete(place, container_id, environment, warn, force=True)
        raise


def _answer(connection: socket.socket) -> bytes:
    """Wait until init has executed the program: nothing; or return why it could not."""
    try:
        return connection.recv(_MESSAGE_BYTES)
    except ConnectionResetError:
        return b""


def _report(answer: bytes, spec: Spec) -> NoReturn:
    """Raise what init said last."""
    from rootlesspy.runtime import bundle_create, sync

    raise bundle_create.explain(sync.parse_failure(answer), spec["process"]["args"][0])


def _connect(directory: str) -> socket.socket:
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{fd}/start")
    except OSError as error:
        connection.close()
        raise Conflict("cannot start a container that is being started") from error
    finally:
        os.close(fd)
    return connection


def open_init(container: state.Container) -> int:
    """Return a pidfd of a container's first process.  Raises NotFound when it has ended."""
    try:
        pidfd = os.pidfd_open(container.pid)
    except ProcessLookupError:
        raise NotFound("container not running") from None
    # Opened first, then looked at: the number cannot have changed hands in between.
    if not procfs.is_alive(container.pid, container.pid_start):
        os.close(pidfd)
        raise NotFound("container not running")
    return pidfd


def kill(place: state.Place, container_id: str, number: int, *, everything: bool) -> None:
    """Send a signal to a container's first process, or to all of them.  Raises NotFound."""
    directory, container = place.load(container_id)
    if everything:
        for pid in processes(container):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        return
    if container.status(directory) == "stopped":
        raise NotFound("container not running")
    pidfd = open_init(container)
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        raise NotFound("container not running") from None
    finally:
        os.close(pidfd)


def processes(container: state.Container) -> list[int]:
    """Return the pids of a container: of its cgroup, or of its PID namespace."""
    if container.cgroup_path:
        from rootlesspy.engine.oci_runtime import cgroups

        return cgroups.processes(container.cgroup_path)
    if not procfs.is_alive(container.pid, container.pid_start):
        return []
    wanted = _pid_namespace(container.pid)
    if wanted is None or wanted == _pid_namespace(os.getpid()):
        return [container.pid]
    numbers = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return sorted(pid for pid in numbers if _pid_namespace(pid) == wanted)


def _pid_namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def pause(place: state.Place, container_id: str) -> None:
    """Freeze a running container.  Raises Conflict, Unsupported."""
    directory, container = place.load(container_id)
    now = container.status(directory)
    if now not in ("running", "created"):
        raise Conflict("container not running" if now == "stopped" else f"container is {now}")
    _freeze(container, frozen=True)


def resume(place: state.Place, container_id: str) -> None:
    """Let a paused container go on.  Raises Conflict, Unsupported."""
    directory, container = place.load(container_id)
    if container.status(directory) != "paused":
        raise Conflict("container not paused")
    _freeze(container, frozen=False)


def _freeze(container: state.Container, *, frozen: bool) -> None:
    from rootlesspy.engine.oci_runtime import cgroups

    cgroups.freeze(placed(container), frozen=frozen)


def delete(
    place: state.Place,
    container_id: str,
    environment: Mapping[str, str],
    warn: Callable[[str], None],
    *,
    force: bool,
) -> None:
    """Remove a container: what is left of its processes, its cgroup, its directory.

    Raises NotFound unless forced, Conflict for one that runs.
    """
    try:
        directory, container = place.load(container_id)
    except Error as error:
        if not force:
            raise
        _remove_broken(place, container_id, error)
        return
    now = container.status(directory)
    if now in ("running", "paused") and not force:
        raise Conflict(f"cannot delete container {container_id} that is not stopped: {now}")
    if now != "stopped":
        _kill_all(container)
    try:
        spec = place.config(directory)
    except RuntimeFailure as error:
        warn(error.message)
        spec = None
    if container.cgroup_manager:
        from rootlesspy.engine.oci_runtime import cgroups

        cgroups.remove(placed(container), environment)
    if spec is not None:
        hook_stages.stop(spec, container, warn)
    place.remove(container_id)


def _remove_broken(place: state.Place, container_id: str, error: Error) -> None:
    """Remove what `create` or a damaged disk left, unless somebody is making it."""
    directory = place.directory(container_id)
    if isinstance(error, UsageError):
        raise error
    if os.path.isdir(directory):
        lock = state.lock(directory)
        if lock < 0:
            raise Conflict("container is being created")
        place.remove(container_id)
        os.close(lock)


def _kill_all(container: state.Container) -> None:
    """Kill the first process, and with it its PID namespace, and wait until it has ended."""
    try:
        pidfd = open_init(container)
    except NotFound:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
    _await_end(container)


def _await_end(container: state.Container) -> None:
    try:
        pidfd = open_init(container)
    except NotFound:
        return
    try:
        # A zombie counts: it is its parent's to reap.
        if not select.select([pidfd], [], [], _END_TIMEOUT_MS / 1000)[0]:
            raise RuntimeFailure("the container does not end", step="kill")
    finally:
        os.close(pidfd)


def signal_number(word: str) -> int:
    """Return the number of a signal: 9, KILL or SIGKILL; 0 only looks.  Raises UsageError."""
    if word.isascii() and word.isdigit() and len(word) < 4 and int(word) < signal.NSIG:
        return int(word)
    name = word.upper().removeprefix("SIG")
    number = getattr(signal, f"SIG{name}", None)
    # SIG_BLOCK, SIG_IGN and the like are no signals.
    if name.startswith("_") or not isinstance(number, int):
        raise UsageError(f'unknown signal "{word}"')
    return number
