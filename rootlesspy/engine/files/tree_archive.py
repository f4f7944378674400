"""Trees of files as tar entries: what cp, export and commit send.

Files are opened below a descriptor of their directory and never through a link; FIFOs and devices
are described, never opened; sockets are left out, as nobody would listen on the copy.  What
vanishes while it is read is left out.  Extended attributes are those that a layer keeps
(image.entry_rules), never overlay's own.
"""

from __future__ import annotations

import errno
import os
import stat

from rootlesspy.image import entry_rules, pax, tar
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.engine.files.layered import Entry

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: tar.REGULAR,
    stat.S_IFDIR: tar.DIRECTORY,
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFIFO: tar.FIFO,
    stat.S_IFCHR: tar.CHARACTER_DEVICE,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
}
_NO_XATTRS = (errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.ENOENT, errno.ENODATA)
_SECOND_NS = 1_000_000_000
_VANISHED = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)


class TreeArchive:
    """Writes files to out_fd, which stays the caller's.

    whole_seconds: times without their fractions, as other tools write layers.  owner replaces the
    files' own.
    """

    def __init__(
        self, out_fd: int, *, whole_seconds: bool, owner: tuple[int, int] | None = None
    ) -> None:
        self._writer = pax.PaxWriter(out_fd)
        self._whole_seconds = whole_seconds
        self._owner = owner
        self._links: dict[tuple[int, int], bytes] = {}
        self.sockets = 0

    def add(self, entry: Entry, name: str) -> None:
        """Add one file of a tree under a name; a directory without its content."""
        encoded = os.fsencode(name)
        if stat.S_ISREG(entry.status.st_mode):
            self._add_file(entry, encoded)
            return
        kind = _KINDS.get(stat.S_IFMT(entry.status.st_mode))
        if kind is None:
            self.sockets += 1
            return
        link = b""
        try:
            if kind == tar.SYMLINK:
                link = os.fsencode(os.readlink(entry.name, dir_fd=entry.dir_fd))
        except OSError as error:
            if error.errno in (*_VANISHED, errno.EINVAL):
                return
            raise
        if kind == tar.DIRECTORY:
            encoded += b"/"
        known = self._known(entry.status, encoded)
        if known is not None:
            self._add_link(entry.status, encoded, known)
            return
        xattrs: Sequence[tuple[bytes, bytes]] = ()
        if kind == tar.DIRECTORY:
            xattrs = kept_xattrs(f"/proc/self/fd/{entry.dir_fd}/{entry.name}")
        self._writer.add(self._describe(entry.status, kind, encoded, link, xattrs))

    def add_directory(self, fd: int, name: str) -> None:
        """Add an open directory (O_PATH will do) under a name, without its content."""
        encoded = os.fsencode(name) + b"/"
        xattrs = kept_xattrs(f"/proc/self/fd/{fd}/.")
        self._writer.add(self._describe(os.fstat(fd), tar.DIRECTORY, encoded, b"", xattrs))

    def add_open_file(self, fd: int, name: str) -> None:
        """Add an open regular file under a name."""
        status = os.fstat(fd)
        described = self._describe(status, tar.REGULAR, os.fsencode(name), b"", kept_xattrs(fd))
        self._writer.add_file(described, fd)

    def add_whiteout(self, name: str, mtime_ns: int) -> None:
        """Add an empty file, such as OCI layers hide lower ones with."""
        empty = tar.Entry(
            name=os.fsencode(name),
            kind=tar.REGULAR,
            mode=0,
            uid=0,
            gid=0,
            size=0,
            mtime_ns=mtime_ns // _SECOND_NS * _SECOND_NS,
            link=b"",
            device=(0, 0),
            xattrs=(),
        )
        self._writer.add(empty)

    def close(self) -> None:
        """End the archive."""
        self._writer.close()

    def _add_file(self, entry: Entry, name: bytes) -> None:
        known = self._known(entry.status, name)
        if known is not None:
            self._add_link(entry.status, name, known)
            return
        try:
            fd = os.open(entry.name, _READ, dir_fd=entry.dir_fd)
        except OSError as error:
            if error.errno in (*_VANISHED, errno.ENXIO):
                self._links.pop((entry.status.st_dev, entry.status.st_ino), None)
                return
            raise OSError(error.errno, error.strerror, entry.path) from error
        try:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode):
                described = self._describe(status, tar.REGULAR, name, b"", kept_xattrs(fd))
                self._writer.add_file(described, fd)
        finally:
            os.close(fd)

    def _known(self, status: os.stat_result, name: bytes) -> bytes | None:
        """Return the name under which the same file was added before, or note this one."""
        if status.st_nlink < 2 or stat.S_ISDIR(status.st_mode):
            return None
        key = (status.st_dev, status.st_ino)
        known = self._links.get(key)
        if known is None:
            self._links[key] = name
        return known

    def _add_link(self, status: os.stat_result, name: bytes, known: bytes) -> None:
        self._writer.add(self._describe(status, tar.HARD_LINK, name, known, ()))

    def _describe(
        self,
        status: os.stat_result,
        kind: bytes,
        name: bytes,
        link: bytes,
        xattrs: Sequence[tuple[bytes, bytes]],
    ) -> tar.Entry:
        uid, gid = self._owner or (status.st_uid, status.st_gid)
        mtime_ns = status.st_mtime_ns
        if self._whole_seconds:
            mtime_ns = mtime_ns // _SECOND_NS * _SECOND_NS
        is_device = kind in (tar.CHARACTER_DEVICE, tar.BLOCK_DEVICE)
        return tar.Entry(
            name=name,
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=uid,
            gid=gid,
            size=status.st_size if kind == tar.REGULAR else 0,
            mtime_ns=mtime_ns,
            link=link,
            device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0),
            xattrs=tuple(xattrs),
        )


def kept_xattrs(where: int | str) -> list[tuple[bytes, bytes]]:
    """Return the extended attributes that a copy keeps, of an open file or a path, not followed."""
    follow = isinstance(where, int)
    found = []
    try:
        names = os.listxattr(where, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return []
        raise
    for name in sorted(names):
        if entry_rules.is_kept(os.fsencode(name)):
            try:
                value = os.getxattr(where, name, follow_symlinks=follow)
            except OSError as error:
                if error.errno not in _NO_XATTRS:
                    raise
                continue
            found.append((os.fsencode(name), value))
    return found
