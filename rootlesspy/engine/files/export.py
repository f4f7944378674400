"""`rp export`: all files of a container as one tar archive, in the order of their names.

What its mounts hide is shown as it is below them: volumes are not part of it.  The same files give
the same archive.
"""

from __future__ import annotations

import os
import stat

from rootlesspy.engine.files import container_root, diff, layered
from rootlesspy.engine.files.tree_archive import TreeArchive
from rootlesspy.errors import Conflict, Error
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.engine.files.changes import Layers
    from rootlesspy.paths import Paths


def export(paths: Paths, name: str, out_fd: int) -> None:
    """Write the files of a container to out_fd.  Raises NotFound, Conflict, Error, OSError."""
    held = container_root.hold(paths, name)
    try:
        files = diff.files_of(held)
        layers = files.merged()
        container_root.call_with_ids(held.maps, lambda: write(layers, out_fd))
        if not held.exists():
            raise Conflict(f"container {name} was removed while it was exported")
    finally:
        held.release()


def export_to_file(paths: Paths, name: str, path: str) -> None:
    """Write the files of a container to a file, which is there whole or not at all.

    Raises NotFound, Conflict, Error, OSError.
    """
    try:
        is_plain = stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        is_plain = True
    if not is_plain:
        # A pipe or a device cannot be replaced.
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            export(paths, name, fd)
        finally:
            os.close(fd)
        return
    temporary = f"{path}.{os.urandom(4).hex()}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise Error(f"cannot write {path}: {error.strerror}") from error
    try:
        export(paths, name, fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def write(layers: Layers, out_fd: int) -> int:
    """Write the merged files of layers to out_fd; return how many sockets were left out.

    Runs as root of the container's user namespace, so that owners are the container's.
    """
    archive = TreeArchive(out_fd, whole_seconds=True)
    fds = layers.open()
    stack = layered.Stack(fds, layers.marks)
    try:
        for entry in layered.walk(stack):
            archive.add(entry, entry.path)
    finally:
        stack.close()
        for fd in fds:
            os.close(fd)
    archive.close()
    return archive.sockets
