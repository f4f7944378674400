"""A stream of tar entries becomes files in a directory that exists: the receiving half of `rp cp`.

Every path is resolved below a descriptor of that directory, whatever the archive and the directory
hold (SECURITY.md J, CVE-2018-15664).  A file is made under no name, or a temporary one, and put in
its place when it is whole: who is killed leaves the old one.  Directories are merged; a directory
takes no other file's place, nor the other way round, unless overwriting was asked for.
"""

from __future__ import annotations

import errno
import os
import stat

from rootlesspy.errors import Conflict, Error
from rootlesspy.image import entry_rules, tar, unpack
from rootlesspy.image.stream import Stream
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import pathrs

if TYPE_CHECKING:
    from rootlesspy.image.tar import Entry, TarReader

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NAMELESS = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
_CHUNK = 1 << 20
# The caller decides how much is copied; only what layers may hold is limited.
_LIMITS = unpack.Limits(entries=1 << 40, content_bytes=1 << 62, trailing_bytes=1 << 40)
_SET_ID_BITS = stat.S_ISUID | stat.S_ISGID


class Options(NamedTuple):
    """How files are made."""

    top: bytes
    """The name that the archive's "." gets in the directory; empty: its content goes there."""
    overwrite: bool
    keep_owners: bool
    to_host: bool
    """Without set-user-ID bits and capabilities: files of a container give nobody rights here."""


class Extracted(NamedTuple):
    """What came out of a stream."""

    entries: int
    devices: int


def write_tree(fd: int, dir_fd: int, options: Options) -> Extracted:
    """Make the files of the tar stream in fd below the directory dir_fd; read fd to its end.

    Raises Conflict for what must not be replaced, Error, ImageError for a bad archive.
    """
    old_umask = os.umask(0)
    work = _Extraction(dir_fd, options)
    try:
        done = work.apply_all(Stream(fd), _LIMITS)
    finally:
        work.close()
        os.umask(old_umask)
    return Extracted(done.entries, done.skipped_devices)


class _Extraction(unpack.Applier):
    """One stream while it is applied."""

    def __init__(self, dir_fd: int, options: Options) -> None:
        super().__init__(dir_fd, single_id=not options.keep_owners)
        self._options = options
        self._modes: list[tuple[bytes, int, int]] = []

    def _apply(self, reader: TarReader, entry: Entry) -> None:
        path = self._placed(entry.name)
        if not path:
            if entry.kind != tar.DIRECTORY:
                raise Conflict("cannot overwrite the destination directory with a file")
            # What is copied goes into a directory that stays what it is.
            return
        self._make(path, reader, entry)

    def _placed(self, name: bytes) -> bytes:
        path = entry_rules.normalised(name)
        if not self._options.top:
            return path
        return self._options.top + b"/" + path if path else self._options.top

    def _target(self, entry: Entry) -> bytes:
        return self._placed(entry.link)

    def _regular(self, parent: int, last: bytes, reader: TarReader, entry: Entry) -> None:
        temporary = b""
        try:
            fd = os.open(b".", _NAMELESS, 0o600, dir_fd=parent)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
            temporary = _temporary_name()
            fd = os.open(temporary, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            self._fill(fd, reader, entry)
            if not temporary:
                temporary = self._give_name(fd, parent, last)
            if temporary:
                self._replace(fd, temporary, parent, last)
                temporary = b""
        finally:
            os.close(fd)
            if temporary:
                os.unlink(temporary, dir_fd=parent)

    @staticmethod
    def _give_name(fd: int, parent: int, last: bytes) -> bytes:
        """Link a nameless file; where its name is taken, to a temporary one that is returned."""
        handle = f"/proc/self/fd/{fd}"
        try:
            os.link(handle, last, dst_dir_fd=parent, follow_symlinks=True)
        except FileExistsError:
            temporary = _temporary_name()
            os.link(handle, temporary, dst_dir_fd=parent, follow_symlinks=True)
            return temporary
        return b""

    def _replace(self, fd: int, temporary: bytes, parent: int, last: bytes) -> None:
        """Rename a whole file over what is there."""
        if _is_directory(parent, last):
            self._clear(parent, last)
        try:
            os.rename(temporary, last, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            # A file that is mounted there, such as /etc/hosts, can only be written to.
            _write_into(fd, parent, last)
            os.unlink(temporary, dir_fd=parent)

    def _directory(self, parent: int, last: bytes, path: bytes, entry: Entry) -> None:
        try:
            os.mkdir(last, 0o700, dir_fd=parent)
        except FileExistsError:
            if not _is_directory(parent, last):
                if not self._options.overwrite:
                    raise Conflict(
                        f"cannot overwrite non-directory {entry_rules.text_of(path)} "
                        "with a directory",
                        hint="--overwrite allows it",
                    ) from None
                os.unlink(last, dir_fd=parent)
                os.mkdir(last, 0o700, dir_fd=parent)
        fd = os.open(last, _DIRECTORY, dir_fd=parent)
        try:
            self._directory_metadata(fd, path, entry)
            mode = self._mode(entry)
            if mode & stat.S_IRWXU != stat.S_IRWXU:
                # Its own content comes first.
                os.fchmod(fd, mode | stat.S_IRWXU)
                self._modes.append((path, os.fstat(fd).st_ino, mode))
        finally:
            os.close(fd)

    def _clear(self, parent: int, last: bytes) -> None:
        if not self._options.overwrite and _is_directory(parent, last):
            raise Conflict(
                f"cannot overwrite directory {entry_rules.text_of(last)} with a non-directory",
                hint="--overwrite allows it",
            )
        super()._clear(parent, last)

    def _mode(self, entry: Entry) -> int:
        mode = super()._mode(entry)
        if self._options.to_host and entry.kind != tar.DIRECTORY:
            return mode & ~_SET_ID_BITS
        return mode

    def _set_xattrs(self, fd: int, entry: Entry) -> None:
        if self._options.to_host:
            kept = tuple(pair for pair in entry.xattrs if not pair[0].startswith(b"security."))
            entry = entry._replace(xattrs=kept)
        super()._set_xattrs(fd, entry)

    def _set_directory_times(self) -> None:
        super()._set_directory_times()
        # Innermost first, as an outer one may forbid to enter.
        for path, inode, mode in reversed(self._modes):
            try:
                parent, last = pathrs.open_parent(self._root_fd, path)
            except OSError:
                # Removed meanwhile.
                continue
            try:
                fd = os.open(last, _DIRECTORY, dir_fd=parent)
                if os.fstat(fd).st_ino == inode:
                    os.fchmod(fd, mode)
                os.close(fd)
            except (FileNotFoundError, NotADirectoryError):
                continue
            finally:
                os.close(parent)

    def _explained(self, error: OSError, entry: Entry) -> Exception:
        return Error(f"cannot write {entry_rules.text_of(entry.name)}: {error.strerror}")


def _is_directory(parent: int, last: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _temporary_name() -> bytes:
    return b".rp-cp-" + os.urandom(8).hex().encode()


def _write_into(fd: int, parent: int, last: bytes) -> None:
    """Replace the content of an existing file."""
    flags = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    target = os.open(last, flags, dir_fd=parent)
    try:
        offset = 0
        while data := os.pread(fd, _CHUNK, offset):
            offset += os.pwrite(target, data, offset)
    finally:
        os.close(target)
