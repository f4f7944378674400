"""Hooks of a container: programs that are run at moments of its life, with its state on stdin.

Runs in the runtime's process (prestart, createRuntime, poststart, poststop) and in the container's
init (createContainer before the pivot, startContainer after it), so `run` makes system calls only:
everything is encoded by `prepare`.  A hook gets exactly the environment that its entry lists, never
the caller's and never the image's (CVE-2025-23266), and descriptors 0 to 2.

Source: runtime-spec config.md "POSIX-platform Hooks".
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.oci.runtime_spec import Hook

_KEPT_BYTES = 4096
_DEFAULT_ENVIRONMENT = {b"PATH": b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class Prepared(NamedTuple):
    """One hook, encoded."""

    path: bytes
    arguments: list[bytes]
    environment: dict[bytes, bytes]
    timeout_s: float | None


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


def run_all(hooks: Sequence[Prepared], state: bytes) -> None:
    """Run the hooks of one stage in their order; the first that fails ends it.

    Raises OSError with the hook's path and its last words.
    """
    for hook in hooks:
        run(hook, state)


def run(hook: Prepared, state: bytes) -> None:
    """Run one hook to its end.

    Raises OSError: ETIMEDOUT after its timeout, when it is killed; ECANCELED with its output when
    it exits with another status than 0; what execve(2) says when it cannot be run.
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
            ),
            # CPython ignores these two; the hook starts with the defaults.
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            setsigmask=(),
        )
    except OSError as error:
        for fd in (state_writer, output_reader):
            os.close(fd)
        raise OSError(error.errno, f"hook: {os.strerror(error.errno or 0)}", hook.path) from error
    finally:
        os.close(state_reader)
        os.close(output_writer)
    words = _attend(pid, hook, state, state_writer, output_reader)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if words is None:
        raise OSError(errno.ETIMEDOUT, f"hook did not end within {hook.timeout_s} s", hook.path)
    if status:
        how = f"exit status {status}" if status > 0 else f"signal {-status}"
        said = words.decode("utf-8", "replace").strip()
        raise OSError(errno.ECANCELED, f"hook failed: {how}{': ' if said else ''}{said}", hook.path)


def _attend(pid: int, hook: Prepared, state: bytes, state_fd: int, output_fd: int) -> bytes | None:
    """Feed the hook and read it until it has ended; None when it was killed for its time."""
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
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = poll.poll(left)
            if not ready:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return None
            events = dict(ready)
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
            elif pidfd in events:
                # Everything that it wrote has been read; what it left behind may hold the pipe.
                return words
    finally:
        os.close(pidfd)
        os.close(output_fd)
        if feeding:
            os.close(state_fd)


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
        return os.read(fd, 65536)
    except BlockingIOError:
        return b""
