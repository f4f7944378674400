"""Hooks of a container: programs that are run at moments of its life, with its state on stdin.

Runs in the runtime's process (prestart, createRuntime, poststart, poststop) and in the container's
init (createContainer before the pivot, startContainer after it), so `run` makes system calls only:
everything is encoded by `prepare`.  A hook gets exactly the environment that its entry lists, never
the caller's and never the image's (CVE-2025-23266), descriptors 0 to 2, and a session of its own,
so that no terminal is within its reach.  Its working directory is its caller's: "/".

Source: runtime-spec config.md "POSIX-platform Hooks".
"""

from __future__ import annotations

import errno
import os
import select
import time

from rootlesspy.errors import RuntimeFailure
from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rootlesspy.oci.runtime_spec import Hook

_KEPT_BYTES = 4096
_CHUNK_BYTES = 65536
# A pipe holds 64 KiB, unless a hook has enlarged it to at most 1 MiB.
_PIPE_READS = 16
# poll(2) takes less than 25 days.
_LONGEST_S = 24 * 3600.0
_DEFAULT_ENVIRONMENT = {b"PATH": b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class Prepared(NamedTuple):
    """One hook, encoded."""

    path: bytes
    arguments: list[bytes]
    environment: dict[bytes, bytes]
    timeout_s: float | None


class Inside(NamedTuple):
    """The hooks that the container's init runs itself, in the container's namespaces."""

    create_container: tuple[Prepared, ...]
    start_container: tuple[Prepared, ...]
    creating: bytes
    """State for createContainer, without the pid; the next one for startContainer."""
    created: bytes
    traceable: bool
    """Nobody else is in the PID namespace: hooks outside may look into init's /proc directory."""
    inherited_fds: int = 0
    """How many descriptors from 3 on are the payload's."""

    def create(self) -> None:
        """Run the createContainer hooks.  Raises OSError as run_all()."""
        run_all(self.create_container, with_pid(self.creating, os.getpid()))

    def start(self) -> None:
        """Run the startContainer hooks, with what the payload may do and no more."""
        state = with_pid(self.created, os.getpid())
        run_all(self.start_container, state, closed=range(3, 3 + self.inherited_fds))


def with_pid(state: bytes, pid: int) -> bytes:
    """Add the pid to a state that is encoded without one.  No codec: it is called in init."""
    return b'{"pid": %d, ' % pid + state[1:]


def prepare(hooks: Sequence[Hook]) -> tuple[Prepared, ...]:
    """Encode the hooks of one stage.  Without `env` a hook gets a PATH and nothing else."""
    found = []
    for hook in hooks:
        environment = dict(_DEFAULT_ENVIRONMENT)
        if "env" in hook:
            entries = (os.fsencode(entry).partition(b"=") for entry in hook["env"])
            environment = {key: value for key, _, value in entries}
        path = os.fsencode(hook["path"])
        arguments = [os.fsencode(argument) for argument in hook.get("args", ())] or [path]
        found.append(Prepared(path, arguments, environment, hook.get("timeout")))
    return tuple(found)


def run_stage(stage: str, hooks: Sequence[Hook], state: bytes) -> None:
    """Run the hooks of a stage in the caller's own namespaces.  Raises RuntimeFailure."""
    for hook in prepare(hooks):
        try:
            run(hook, state)
        except OSError as error:
            raise RuntimeFailure(
                f"{stage} hook {os.fsdecode(hook.path)}: {error.strerror}", step=stage
            ) from error


def run_poststop(hooks: Sequence[Hook], state: bytes) -> list[str]:
    """Run the poststop hooks, all of them; return what failed (runtime-spec, lifecycle)."""
    failed = []
    for hook in hooks:
        try:
            run_stage("poststop", [hook], state)
        except RuntimeFailure as error:
            failed.append(error.message)
    return failed


def run_all(hooks: Sequence[Prepared], state: bytes, *, closed: Iterable[int] = ()) -> None:
    """Run the hooks of one stage in their order; the first that fails ends it.

    closed: descriptors that execve(2) would hand on.  Raises OSError with the hook's path and its
    last words.
    """
    for hook in hooks:
        run(hook, state, closed=closed)


def run(hook: Prepared, state: bytes, *, closed: Iterable[int] = ()) -> None:
    """Run one hook to its end.

    Raises OSError: ETIMEDOUT after its timeout, when it is killed; ECANCELED with its output when
    it exits with another status than 0; what execve(2) says when it cannot be run.
    """
    # A signal that ends the wait comes when the hook is known, or it would outlive its caller.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    # A hook need not read its state; init has the defaults back when it runs startContainer's.
    on_pipe = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        pid, state_fd, output_fd = _spawn(hook, closed)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            words = _attend(pid, hook, state, state_fd, output_fd)
        except BaseException:
            kill(pid)
            raise
    finally:
        signal.signal(signal.SIGPIPE, on_pipe)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
    if words is None:
        kill(pid)
        raise OSError(errno.ETIMEDOUT, f"it did not end within {hook.timeout_s} s", hook.path)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        how = f"exit status {status}" if status > 0 else f"signal {-status}"
        said = words.decode("utf-8", "replace").strip()
        raise OSError(errno.ECANCELED, f"{how}{': ' if said else ''}{said}", hook.path)


def _spawn(hook: Prepared, closed: Iterable[int]) -> tuple[int, int, int]:
    """Start a hook; return its pid, where its state is written to, and where its words come from.

    Raises OSError with its path.
    """
    state_reader, state_writer = os.pipe2(os.O_CLOEXEC)
    output_reader, output_writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.posix_spawn(
            hook.path,
            hook.arguments,
            hook.environment,
            file_actions=(
                (os.POSIX_SPAWN_DUP2, state_reader, 0),
                (os.POSIX_SPAWN_DUP2, output_writer, 1),
                (os.POSIX_SPAWN_DUP2, output_writer, 2),
                *((os.POSIX_SPAWN_CLOSE, fd) for fd in closed),
            ),
            setsid=True,
            # CPython ignores these two; the hook starts with the defaults.
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            setsigmask=(),
        )
    except OSError as error:
        for fd in (state_writer, output_reader):
            os.close(fd)
        raise OSError(error.errno, os.strerror(error.errno or 0), hook.path) from error
    finally:
        os.close(state_reader)
        os.close(output_writer)
    return pid, state_writer, output_reader


def kill(pid: int) -> None:
    """Kill a hook with all of its session's processes that have not left its group; reap it."""
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _attend(pid: int, hook: Prepared, state: bytes, state_fd: int, output_fd: int) -> bytes | None:
    """Feed the hook and read it until it has ended; None when its time is up."""
    deadline = None if hook.timeout_s is None else time.monotonic() + hook.timeout_s
    pidfd = os.pidfd_open(pid)
    os.set_blocking(state_fd, False)
    os.set_blocking(output_fd, False)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(output_fd, select.POLLIN)
    poll.register(state_fd, select.POLLOUT)
    words = b""
    feeding = True
    try:
        while True:
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                return None
            events = dict(poll.poll(None if left_s is None else min(left_s, _LONGEST_S) * 1000))
            if feeding and state_fd in events:
                state = _feed(state_fd, state)
                if not state:
                    poll.unregister(state_fd)
                    os.close(state_fd)
                    feeding = False
            if output_fd in events:
                chunk = _read(output_fd)
                if not chunk:
                    poll.unregister(output_fd)
                words = (words + chunk)[-_KEPT_BYTES:]
            if pidfd in events:
                return _last_words(output_fd, words)
    finally:
        os.close(pidfd)
        os.close(output_fd)
        if feeding:
            os.close(state_fd)


def _last_words(fd: int, words: bytes) -> bytes:
    """Read what an ended hook left in the pipe, not what those that it left behind still write."""
    for _ in range(_PIPE_READS):
        chunk = _read(fd)
        words = (words + chunk)[-_KEPT_BYTES:]
        if len(chunk) < _CHUNK_BYTES:
            break
    return words


def _feed(fd: int, state: bytes) -> bytes:
    """Write what the pipe takes; return the rest, nothing when the hook does not read."""
    try:
        return state[os.write(fd, state) :]
    except BlockingIOError:
        return state
    except BrokenPipeError:
        return b""


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK_BYTES)
    except BlockingIOError:
        return b""
