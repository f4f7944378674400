"""Copy directory trees that strangers filled: descriptors and single names only, no link followed.

For volumes (image content into a new volume), the plain copy of unpacked layers where the kernel
has no overlay, and whatever later copies in or out of containers.  Runs as root of a user namespace
(linux.userns.call_in_userns), where owners can be set; needs no privilege for the caller's own
files.  Iterative, with two descriptors however deep the tree is.  Raises OSError, its path relative
to the top.

Kept: content with holes, owner, mode, times, links both soft and hard, FIFOs, and the extended
attributes of users, capabilities and ACLs.  Left out: device nodes, which a user namespace cannot
make, sockets, which nobody would listen on, and overlay's own marks.
"""

from __future__ import annotations

import errno
import os
import stat

from rootlesspy.image import entry_rules
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import pathrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Documentation/filesystems/overlayfs.rst, "User xattr".
_OPAQUE = "user.overlay.opaque"
_OPAQUE_NAME = ".wh..wh..opq"  # in place of the attribute, see image.unpack
_WHITEOUT = "user.overlay.whiteout"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK_BYTES = 1 << 20
_RANGE_BYTES = 1 << 30
# copy_file_range(2): what it cannot do is done by read and write.
_NO_RANGES = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)
_NO_LINKS = (errno.EXDEV, errno.EMLINK, errno.ENOENT, errno.EPERM, errno.EOPNOTSUPP, errno.ENOTDIR)


class Cursor:
    """One open directory of a tree that moves down by name and up by ".." with a check."""

    def __init__(self, top_fd: int) -> None:
        """Begin at the directory top_fd (O_PATH will do), which stays the caller's."""
        self.fd = os.open(".", _DIRECTORY, dir_fd=top_fd)
        self._trail: list[tuple[int, int]] = []

    def down(self, name: str) -> None:
        """Enter a directory; a link is refused (ELOOP or ENOTDIR)."""
        inner = os.open(name, _DIRECTORY, dir_fd=self.fd)
        status = os.fstat(self.fd)
        os.close(self.fd)
        self.fd = inner
        self._trail.append((status.st_dev, status.st_ino))

    def up(self) -> None:
        """Return to the directory that down() left; ESTALE when it is not there any more."""
        outer = os.open("..", _DIRECTORY, dir_fd=self.fd)
        os.close(self.fd)
        self.fd = outer
        status = os.fstat(outer)
        if (status.st_dev, status.st_ino) != self._trail.pop():
            raise OSError(errno.ESTALE, "directory was moved while it was read")

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)


def copy_tree(source_fd: int, target_fd: int) -> None:
    """Copy what the directory source_fd holds, and its attributes, into the empty target_fd.

    Overlay's whiteouts are no content.  Raises OSError; EEXIST when the target is not empty.
    """
    _Copier(target_fd, replace=False).run(source_fd)


def copy_layers(lower: tuple[str, ...], destination: str) -> None:
    """Build a plain root directory out of unpacked layers, base first, as an overlay shows them.

    destination is made when it is missing; what it holds is what lies below the first layer.
    Raises OSError.
    """
    try:
        os.mkdir(destination, 0o755)
    except FileExistsError:
        pass
    target = os.open(destination, _DIRECTORY)
    try:
        for path in lower:
            source = os.open(path, _DIRECTORY)
            try:
                _Copier(target, replace=True).run(source)
            finally:
                os.close(source)
    finally:
        os.close(target)


def copy_attributes(source_fd: int, target_fd: int) -> None:
    """Give an open file or directory the owner, mode, extended attributes and times of another."""
    status = os.fstat(source_fd)
    current = os.fstat(target_fd)
    if (current.st_uid, current.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(target_fd, status.st_uid, status.st_gid)
    # After the owner, as chown(2) takes set-user-ID bits and capabilities away.
    os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
    kept = set(_xattrs(source_fd))
    for name in _xattrs(target_fd):
        if name not in kept:
            os.removexattr(target_fd, name)
    for name in kept:
        try:
            os.setxattr(target_fd, name, os.getxattr(source_fd, name))
        except OSError as error:
            # The target's file system has no such attributes; cp -a goes on as well.
            if error.errno != errno.EOPNOTSUPP:
                raise
    os.utime(target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def change_owner(top_fd: int, uid: int, gid: int) -> None:
    """Give a tree on one file system to uid and gid; links are changed, not followed.

    top_fd is a directory or a file; O_PATH will do.  Raises OSError.
    """
    top = os.fstat(top_fd)
    if not stat.S_ISDIR(top.st_mode):
        # fchown(2) refuses O_PATH descriptors; this is the same file, whatever its name.
        os.chown(f"/proc/self/fd/{top_fd}", uid, gid)
        return

    def visit(cursor: Cursor, entry: os.DirEntry[str]) -> bool:
        status = entry.stat(follow_symlinks=False)
        if (status.st_uid, status.st_gid) != (uid, gid):
            os.chown(entry.name, uid, gid, dir_fd=cursor.fd, follow_symlinks=False)
        return stat.S_ISDIR(status.st_mode) and status.st_dev == top.st_dev

    cursor = Cursor(top_fd)
    try:
        os.fchown(cursor.fd, uid, gid)
        trail: list[str] = []
        for step in _walk(lambda: _select(cursor, visit, trail), trail):
            if step is None:
                cursor.up()
            else:
                cursor.down(step)
    finally:
        cursor.close()


def _walk(scan: Callable[[], list[str]], trail: list[str]) -> Iterator[str | None]:
    """Yield the name of each directory to enter, and None for each to leave, depth first.

    scan handles the entries of the current directory and returns the names of those to enter.
    """
    pending = [scan()]
    while pending:
        if pending[-1]:
            name = pending[-1].pop()
            trail.append(name)
            yield name
            pending.append(scan())
            continue
        pending.pop()
        if pending:
            yield None
            trail.pop()


def _select(
    cursor: Cursor, visit: Callable[[Cursor, os.DirEntry[str]], bool], trail: list[str]
) -> list[str]:
    """Visit each entry of the current directory; return the names that visit says to enter."""
    chosen = []
    with os.scandir(cursor.fd) as entries:
        for entry in entries:
            try:
                if visit(cursor, entry):
                    chosen.append(entry.name)
            except OSError as error:
                path = "/".join((*trail, entry.name))
                raise OSError(error.errno, error.strerror, path) from error
    return chosen


class _Copier:
    """One copy of one tree; replace: the target has content that layers above it change."""

    def __init__(self, target_fd: int, *, replace: bool) -> None:
        self._target_fd = target_fd
        self._replace = replace
        self._trail: list[str] = []
        # Inode of the source → where its first name went and which inode that is.
        self._links: dict[tuple[int, int], tuple[str, int, int]] = {}

    def run(self, source_fd: int) -> None:
        self._source, self._target = Cursor(source_fd), Cursor(self._target_fd)
        try:
            for step in _walk(self._scan, self._trail):
                if step is None:
                    self._finish()
                    self._source.up()
                    self._target.up()
                else:
                    self._source.down(step)
                    self._target.down(step)
            self._finish()
        finally:
            self._source.close()
            self._target.close()

    def _scan(self) -> list[str]:
        return _select(self._source, self._copy_entry, self._trail)

    def _finish(self) -> None:
        # Last, as filling a directory changes its times and needs its owner's permissions.
        copy_attributes(self._source.fd, self._target.fd)

    def _copy_entry(self, cursor: Cursor, entry: os.DirEntry[str]) -> bool:
        """Copy one entry, a directory without its content; say whether it is a directory."""
        name, status = entry.name, entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            self._make_directory(cursor, name)
            return True
        if self._replace:
            pathrs.remove_tree(self._target.fd, name)
        if stat.S_ISREG(status.st_mode) and not (self._replace and name == _OPAQUE_NAME):
            if status.st_nlink < 2 or not self._link(name, status):
                self._copy_file(cursor, name, status)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=cursor.fd), name, dir_fd=self._target.fd)
            self._set_link_attributes(name, status)
        elif stat.S_ISFIFO(status.st_mode):
            os.mkfifo(name, 0o600, dir_fd=self._target.fd)
            self._set_fifo_attributes(name, status)
        return False

    def _make_directory(self, cursor: Cursor, name: str) -> None:
        target = self._target.fd
        if self._replace:
            if self._is_opaque(cursor, name) or not _is_directory(target, name):
                pathrs.remove_tree(target, name)
            else:
                return
        os.mkdir(name, 0o700, dir_fd=target)

    @staticmethod
    def _is_opaque(cursor: Cursor, name: str) -> bool:
        fd = os.open(name, _DIRECTORY, dir_fd=cursor.fd)
        try:
            return _xattr(fd, _OPAQUE) == b"y" or os.access(_OPAQUE_NAME, os.F_OK, dir_fd=fd)
        finally:
            os.close(fd)

    def _copy_file(self, cursor: Cursor, name: str, status: os.stat_result) -> None:
        source = os.open(name, _READ, dir_fd=cursor.fd)
        try:
            opened = os.fstat(source)
            if not stat.S_ISREG(opened.st_mode):
                raise OSError(errno.EAGAIN, "file was replaced while it was read")
            if opened.st_size == 0 and _xattr(source, _WHITEOUT) is not None:
                return
            target = os.open(name, _CREATE, 0o600, dir_fd=self._target.fd)
            try:
                _copy_content(source, target, opened)
                copy_attributes(source, target)
                made = os.fstat(target)
            finally:
                os.close(target)
        finally:
            os.close(source)
        if status.st_nlink > 1:
            where = "/".join((*self._trail, name))
            self._links[opened.st_dev, opened.st_ino] = (where, made.st_dev, made.st_ino)

    def _link(self, name: str, status: os.stat_result) -> bool:
        """Link name to the copy of the same inode; say False when there is none yet."""
        known = self._links.get((status.st_dev, status.st_ino))
        if known is None:
            return False
        where, device, inode = known
        try:
            parent, last = pathrs.open_parent(self._target_fd, where)
            try:
                target = self._target.fd
                os.link(last, name, src_dir_fd=parent, dst_dir_fd=target, follow_symlinks=False)
            finally:
                os.close(parent)
        except OSError as error:
            if error.errno in _NO_LINKS:
                return False
            raise
        linked = os.stat(name, dir_fd=target, follow_symlinks=False)
        if (linked.st_dev, linked.st_ino) != (device, inode):
            os.unlink(name, dir_fd=target)
            return False
        return True

    def _set_link_attributes(self, name: str, status: os.stat_result) -> None:
        target, times = self._target.fd, (status.st_atime_ns, status.st_mtime_ns)
        made = os.stat(name, dir_fd=target, follow_symlinks=False)
        if (made.st_uid, made.st_gid) != (status.st_uid, status.st_gid):
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)

    def _set_fifo_attributes(self, name: str, status: os.stat_result) -> None:
        self._set_link_attributes(name, status)
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=self._target.fd)
        try:
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                # fchmod(2) refuses O_PATH descriptors; this is the same file, whatever its name.
                os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(status.st_mode))
        finally:
            os.close(fd)


def _copy_content(source: int, target: int, status: os.stat_result) -> None:
    """Copy a file's data; holes stay holes.  st_blocks counts 512 bytes (inode(7))."""
    size = status.st_size
    if status.st_blocks * 512 >= size:
        _copy_range(source, target, 0, size)
        return
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        end = os.lseek(source, start, os.SEEK_HOLE)
        _copy_range(source, target, start, end)
    os.ftruncate(target, size)


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    offset = start
    while offset < end:
        wanted = min(end - offset, _RANGE_BYTES)
        try:
            copied = os.copy_file_range(source, target, wanted, offset, offset)
        except OSError as error:
            if error.errno not in _NO_RANGES:
                raise
            copied = 0
        if copied == 0:
            # Unsupported, or a file system that says so by copying nothing.
            _read_and_write(source, target, offset, end)
            return
        offset += copied


def _read_and_write(source: int, target: int, start: int, end: int) -> None:
    offset = start
    while offset < end:
        chunk = os.pread(source, min(end - offset, _CHUNK_BYTES), offset)
        if not chunk:
            return
        view = memoryview(chunk)
        while view:
            written = os.pwrite(target, view, offset)
            offset += written
            view = view[written:]


def _xattrs(fd: int) -> list[str]:
    """Return the names of the extended attributes that a copy keeps."""
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return []
    return [name for name in names if entry_rules.is_kept(os.fsencode(name))]


def _xattr(fd: int, name: str) -> bytes | None:
    try:
        return os.getxattr(fd, name)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise
        return None


def _is_directory(dir_fd: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
