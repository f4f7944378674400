"""fuse-overlayfs for a container whose store the kernel's overlay refuses.

Runs in the supervisor: the helper joins the user and mount namespace of init, which waits for its
id maps meanwhile, and mounts there.  fuse-overlayfs goes to the background once the mount is there,
and ends by itself when the mount namespace does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

from rootlesspy.errors import RuntimeFailure
from rootlesspy.linux import process

if TYPE_CHECKING:
    from rootlesspy.runtime.rootfs import FuseOverlay


def mount(root: FuseOverlay, merged: str, pid: int) -> None:
    """Mount the overlay at merged inside the namespaces of init.  Raises RuntimeFailure."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _execute(root, merged, pid, writer)
    os.close(writer)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    # Its background process keeps the pipe open: read what is there, not to the end.
    os.set_blocking(reader, False)
    words = b""
    try:
        words = os.read(reader, 4096)
    except BlockingIOError:
        pass
    finally:
        os.close(reader)
    if status != 0:
        reason = words.decode("utf-8", "replace").strip() or f"status {status}"
        raise RuntimeFailure(f"fuse-overlayfs failed: {reason}", step="fuse-overlayfs")


def _execute(root: FuseOverlay, merged: str, pid: int, writer: int) -> NoReturn:
    try:
        user_fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        mount_fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        process.setns(user_fd, process.CLONE_NEWUSER)
        process.setns(mount_fd, process.CLONE_NEWNS)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        lower = ":".join(reversed(root.lower))
        options = f"lowerdir={lower},upperdir={root.upper},workdir={root.work}"
        os.dup2(writer, 2)
        os.execv(root.program, [root.program, "-o", options, merged])  # noqa: S606 - fixed program
    except OSError as error:
        os.write(writer, str(error).encode())
    finally:
        os._exit(127)
