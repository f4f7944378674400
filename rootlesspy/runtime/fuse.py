"""fuse-overlayfs for a container whose store the kernel's overlay refuses.

Runs in the supervisor.  The server must not live in init's mount namespace: pivot_root(2) would
change its root too, and it would keep the namespace alive.  So it gets a mount namespace of its own
below the container's user namespace; a sibling there clones the finished mount and hands it over as
a descriptor, which init attaches.
"""

from __future__ import annotations

import errno
import os
import select

from rootlesspy.errors import RuntimeFailure
from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, NoReturn
from rootlesspy.linux import mount, process
from rootlesspy.runtime import rootfs, sync

if TYPE_CHECKING:
    from rootlesspy.runtime.rootfs import FuseOverlay

_TIMEOUT_MS = 60_000
_MOUNTED = b"MOUNTED"


class Server(NamedTuple):
    """A running fuse-overlayfs and its mount, detached."""

    pid: int
    mount_fd: int

    def stop(self) -> None:
        """End the server; doing it twice is harmless."""
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            return


def start(root: FuseOverlay, merged: str, init_pid: int, *, is_outsider: bool = False) -> Server:
    """Start fuse-overlayfs for the container of init and wait for its mount.

    is_outsider: as runtime.init.Plan has it.  Raises RuntimeFailure with the program's words.
    """
    user_fd = os.open(f"/proc/{init_pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    words_reader, words_writer = os.pipe2(os.O_CLOEXEC)
    ours, theirs = sync.channel_pair()
    pid = os.fork()
    if pid == 0:
        _serve(root, merged, user_fd, words_writer, theirs, is_outsider=is_outsider)
    for fd in (user_fd, words_writer):
        os.close(fd)
    theirs.close()
    try:
        return Server(pid, ours.expect(_MOUNTED))
    except sync.FailedError as error:
        ended = _status(pid)
        Server(pid, -1).stop()
        with open(words_reader, "rb", closefd=False) as words:
            said = words.read(4096).decode("utf-8", "replace").strip()
        reason = f"{error.failed.text}{ended}: {said}" if said else f"{error.failed.text}{ended}"
        raise RuntimeFailure(f"fuse-overlayfs failed: {reason}", step="fuse-overlayfs") from error
    finally:
        ours.close()
        os.close(words_reader)


def _status(pid: int) -> str:
    """Say how the server ended, "" while it lives."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    return f" (it ended with {os.waitstatus_to_exitcode(status)})" if ended else ""


def _serve(
    root: FuseOverlay,
    merged: str,
    user_fd: int,
    words: int,
    channel: sync.Channel,
    *,
    is_outsider: bool,
) -> NoReturn:
    """Become the server, after a sibling was left behind that waits for its mount."""
    try:
        process.setns(user_fd, process.CLONE_NEWUSER)
        process.unshare(process.CLONE_NEWNS)
        parts = _open_parts(root) if is_outsider else ()
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        mount.mount(None, b"/", None, mount.MS_REC | mount.MS_PRIVATE, None)
        if is_outsider:
            root, merged = _reachable(root, parts)
        else:
            # Before the server looks at it: it remembers what it saw.
            rootfs.own(root)
        # Before there are two of us: the server may have mounted when the other one first looks.
        before = os.stat(merged).st_dev
        server = os.getpid()
        if os.fork() == 0:
            _hand_over(os.fsencode(merged), before, server, channel)
        process.set_parent_death_signal(signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        lower = ":".join(reversed(root.lower))
        options = f"lowerdir={lower},upperdir={root.upper},workdir={root.work}"
        for number in (1, 2):
            os.dup2(words, number)
        os.execv(root.program, [root.program, "-f", "-o", options, merged])  # noqa: S606 - fixed
    except OSError as error:
        os.write(words, str(error).encode())
    finally:
        os._exit(127)


def _open_parts(root: FuseOverlay) -> tuple[int, ...]:
    """Open the layers and the container's directory, as the caller."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return tuple(os.open(path, flags) for path in (*root.lower, os.path.dirname(root.upper)))


def _reachable(root: FuseOverlay, parts: tuple[int, ...]) -> tuple[FuseOverlay, str]:
    """Bind what the server is to find where root of the container may go; return it and where.

    On a tmpfs over /sys, which nothing here needs.
    """
    place = "/sys"
    mount.mount(b"tmpfs", place.encode(), b"tmpfs", 0, b"mode=755")
    for number, fd in enumerate(parts):
        target = f"{place}/{number}"
        os.mkdir(target, 0o755)
        target_fd = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mount.move_mount(mount.open_tree(b"", dir_fd=fd), target_fd)
    os.mkdir(f"{place}/merged", 0o755)
    # The upper and the work directory on one mount, as files are renamed between them.
    own = f"{place}/{len(parts) - 1}"
    lower = tuple(f"{place}/{number}" for number in range(len(root.lower)))
    moved = root._replace(lower=lower, upper=f"{own}/upper", work=f"{own}/work")
    return moved, f"{place}/merged"


def _hand_over(merged: bytes, before: int, server: int, channel: sync.Channel) -> NoReturn:
    """Wait for another device at the mount point, or the server's end; send a clone of it."""
    try:
        watcher = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        pidfd = os.pidfd_open(server)
        poller = select.poll()
        # The kernel wakes a poller of mountinfo when a mount is made (proc_pid_mounts(5)).
        poller.register(watcher, select.POLLPRI)
        poller.register(pidfd, select.POLLIN)
        while os.stat(merged).st_dev == before:
            ready = poller.poll(_TIMEOUT_MS)
            if not ready or any(fd == pidfd for fd, _ in ready):
                channel.send_failure(sync.Failed("mount", errno.ETIMEDOUT, "", "no mount appeared"))
                os._exit(1)
        channel.send(_MOUNTED, passed_fd=mount.open_tree(merged))
    except OSError as error:
        channel.send_failure(sync.Failed("mount", error.errno or errno.EIO, "", str(error)))
    finally:
        os._exit(0)
