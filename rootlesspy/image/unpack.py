"""A layer's tar stream becomes an overlay lower directory, entry by entry.

Runs as root of a user namespace (pull.py), or as anybody in tests.  Every path is resolved below a
descriptor of the layer's root and metadata is set on the descriptor just made (SECURITY.md I1, H):
an archive cannot reach anything outside, whatever links it holds.  Whiteouts become overlayfs's:
a 0:0 character device, user.overlay.opaque on a directory.  Neither can be made by an entry itself:
device nodes and overlay attributes in a layer are left out.
"""

from __future__ import annotations

import errno
import os
import stat

from rootlesspy.errors import ImageError
from rootlesspy.image import entry_rules, tar
from rootlesspy.image.stream import Stream
from rootlesspy.light_typing import NamedTuple
from rootlesspy.linux import pathrs

_WHITEOUT = b".wh."
_META_WHITEOUT = b".wh..wh."
_OPAQUE_WHITEOUT = b".wh..wh..opq"
_OPAQUE_XATTR = "user.overlay.opaque"
_OPEN_PARENTS = 64
# Below linux.userns.SPARE_ID, as which the caller is there.
_MAX_ID = (1 << 32) - 3
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Limits(NamedTuple):
    """What a layer may cost at most; far above every real image."""

    entries: int = 2_000_000
    content_bytes: int = 256 << 30
    trailing_bytes: int = 1 << 30


class Unpacked(NamedTuple):
    """What came out of a layer."""

    entries: int
    size_bytes: int
    skipped_devices: int
    ignored_xattrs: int
    opaque_root: bool
    archive_bytes: int


def unpack(fd: int, root_fd: int, *, single_id: bool, limits: Limits | None = None) -> Unpacked:
    """Apply the tar stream in fd to the empty directory root_fd and read fd to its end.

    With single_id owners are not applied: there is one id only.  Raises ImageError, OSError (no
    space, I/O).
    """
    old_umask = os.umask(0)
    layer = Applier(root_fd, single_id)
    try:
        return layer.apply_all(Stream(fd), limits or Limits())
    finally:
        layer.close()
        os.umask(old_umask)


class Applier:
    """A tree while entries are applied to it, as a layer; engine.files.extract copies with it."""

    def __init__(self, root_fd: int, single_id: bool) -> None:
        self._root_fd = root_fd
        self._single_id = single_id
        self._parents: dict[bytes, int] = {}
        # Times of directories are set last: making their children changes them.
        self._times: dict[bytes, tuple[int, int]] = {}
        self._skipped_devices = 0
        self._ignored_xattrs = 0
        self._opaque_root = False

    def apply_all(self, stream: Stream, limits: Limits) -> Unpacked:
        """Apply every entry; see unpack()."""
        reader = tar.TarReader(stream)
        entries = size_bytes = 0
        while (entry := reader.next()) is not None:
            entries += 1
            if entry.kind == tar.REGULAR:
                size_bytes += entry.size
            if entries > limits.entries:
                raise ImageError(f"layer has more than {limits.entries} files")
            if size_bytes > limits.content_bytes:
                raise ImageError(f"layer is larger than {limits.content_bytes} bytes unpacked")
            try:
                self._apply(reader, entry)
            except OSError as error:
                raise self._explained(error, entry) from error
        self._set_directory_times()
        if stream.drain(limits.trailing_bytes) > limits.trailing_bytes:
            raise ImageError("layer goes on after the end of its archive")
        return Unpacked(
            entries,
            size_bytes,
            self._skipped_devices,
            self._ignored_xattrs,
            self._opaque_root,
            stream.total,
        )

    def close(self) -> None:
        """Close the directories that are kept open."""
        for fd in self._parents.values():
            os.close(fd)
        self._parents.clear()

    def _apply(self, reader: tar.TarReader, entry: tar.Entry) -> None:
        path = entry_rules.normalised(entry.name)
        if not path:
            if entry.kind != tar.DIRECTORY:
                raise entry_rules.invalid(entry, "it would replace the root directory")
            self._directory_metadata(self._root_fd, path, entry)
            return
        head, _, last = path.rpartition(b"/")
        if last.startswith(_WHITEOUT):
            self._whiteout(head, last, entry)
        else:
            self._make(path, reader, entry)

    def _make(self, path: bytes, reader: tar.TarReader, entry: tar.Entry) -> None:
        """Make the file of an entry at path."""
        head, _, last = path.rpartition(b"/")
        if entry.kind == tar.REGULAR:
            self._regular(self._parent(head), last, reader, entry)
        elif entry.kind == tar.DIRECTORY:
            self._directory(self._parent(head), last, path, entry)
        elif entry.kind == tar.SYMLINK:
            self._symlink(self._parent(head), last, entry)
        elif entry.kind == tar.HARD_LINK:
            self._hard_link(self._parent(head), last, entry)
        elif entry.kind == tar.FIFO:
            parent = self._parent(head)
            self._clear(parent, last)
            os.mkfifo(last, 0o600, dir_fd=parent)
            self._node_metadata(parent, last, entry)
        else:
            # Nobody but the host's root can make one that works; 0:0 would be a whiteout.
            self._skipped_devices += 1

    def _parent(self, head: bytes) -> int:
        """Return an O_PATH descriptor of the directory, made when it is missing."""
        fd = self._parents.get(head)
        if fd is None:
            if len(self._parents) >= _OPEN_PARENTS:
                os.close(self._parents.pop(next(iter(self._parents))))
            fd = pathrs.make_directories(self._root_fd, head or b".")
            self._parents[head] = fd
        return fd

    def _regular(self, parent: int, last: bytes, reader: tar.TarReader, entry: tar.Entry) -> None:
        try:
            fd = os.open(last, _NEW_FILE, 0o600, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, last)
            fd = os.open(last, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            self._fill(fd, reader, entry)
        finally:
            os.close(fd)

    def _fill(self, fd: int, reader: tar.TarReader, entry: tar.Entry) -> None:
        """Give a new file its content and its metadata."""
        reader.copy(fd, entry)
        # chown(2) takes setuid bits and capabilities away, so it comes before both.
        self._chown(fd, entry)
        os.fchmod(fd, self._mode(entry))
        if entry.xattrs:
            self._set_xattrs(fd, entry)
        os.utime(fd, ns=entry_rules.times(entry))

    def _directory(self, parent: int, last: bytes, path: bytes, entry: tar.Entry) -> None:
        replaced = False
        try:
            os.mkdir(last, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(last, dir_fd=parent).st_mode):
                self._clear(parent, last)
                os.mkdir(last, 0o700, dir_fd=parent)
                replaced = True
        fd = os.open(last, _DIRECTORY, dir_fd=parent)
        try:
            self._directory_metadata(fd, path, entry)
            if replaced:
                # It took the place of a file or whiteout, so nothing below may shine through.
                _set_opaque(fd)
        finally:
            os.close(fd)

    def _directory_metadata(self, fd: int, path: bytes, entry: tar.Entry) -> None:
        self._chown(fd, entry)
        os.fchmod(fd, self._mode(entry))
        if entry.xattrs:
            self._set_xattrs(fd, entry)
        self._times[path] = (os.fstat(fd).st_ino, entry_rules.times(entry)[1])

    def _symlink(self, parent: int, last: bytes, entry: tar.Entry) -> None:
        if not entry.link:
            raise entry_rules.invalid(entry, "a link without a target")
        try:
            os.symlink(entry.link, last, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, last)
            os.symlink(entry.link, last, dir_fd=parent)
        if not self._single_id:
            os.chown(last, *self._owner(entry), dir_fd=parent, follow_symlinks=False)
        os.utime(last, ns=entry_rules.times(entry), dir_fd=parent, follow_symlinks=False)

    def _hard_link(self, parent: int, last: bytes, entry: tar.Entry) -> None:
        """Link to an earlier entry; an absolute target means the root of the layer."""
        target = self._target(entry)
        if not target:
            raise entry_rules.invalid(entry, "a link to the root directory")
        try:
            target_fd, target_last = pathrs.open_parent(self._root_fd, target)
        except FileNotFoundError:
            raise entry_rules.no_target(entry) from None
        try:
            found = os.lstat(target_last, dir_fd=target_fd)
            if stat.S_ISDIR(found.st_mode) or stat.S_ISCHR(found.st_mode):
                raise entry_rules.invalid(entry, "a hard link to something else than a file")
            if self._is_same(parent, last, found):
                return
            self._clear(parent, last)
            os.link(
                target_last, last, src_dir_fd=target_fd, dst_dir_fd=parent, follow_symlinks=False
            )
        except FileNotFoundError:
            raise entry_rules.no_target(entry) from None
        finally:
            os.close(target_fd)

    def _target(self, entry: tar.Entry) -> bytes:
        """Return the path of the entry that a hard link means."""
        return entry_rules.normalised(entry.link)

    def _whiteout(self, head: bytes, last: bytes, entry: tar.Entry) -> None:
        if last == _OPAQUE_WHITEOUT:
            if not head:
                # overlayfs looks at no attribute of a layer's root; layers() cuts there instead.
                self._opaque_root = True
                return
            fd = os.open(b".", _DIRECTORY, dir_fd=self._parent(head))
            try:
                _set_opaque(fd)
            finally:
                os.close(fd)
            return
        if last.startswith(_META_WHITEOUT):
            # Bookkeeping of aufs, which has no meaning here.
            return
        hidden = last[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise entry_rules.invalid(entry, "a whiteout of nothing")
        parent = self._parent(head)
        try:
            found = os.lstat(hidden, dir_fd=parent)
        except FileNotFoundError:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
            return
        # Whiteouts concern lower layers only, wherever in the archive they stand.
        if stat.S_ISDIR(found.st_mode):
            fd = os.open(hidden, _DIRECTORY, dir_fd=parent)
            try:
                _set_opaque(fd)
            finally:
                os.close(fd)

    def _clear(self, parent: int, last: bytes) -> None:
        """Remove what an earlier entry of this layer put there."""
        try:
            found = os.lstat(last, dir_fd=parent)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            pathrs.remove_tree(parent, last)
        else:
            os.unlink(last, dir_fd=parent)
        if stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode):
            self._forget_parents(parent)

    def _forget_parents(self, current: int) -> None:
        """Close remembered directories: some may have been reached through what is gone now."""
        for fd in self._parents.values():
            if fd != current:
                os.close(fd)
        # Still in use by the caller, under a name that no path has.
        self._parents = {b"\0": current}

    def _is_same(self, parent: int, last: bytes, found: os.stat_result) -> bool:
        try:
            present = os.lstat(last, dir_fd=parent)
        except FileNotFoundError:
            return False
        return (present.st_dev, present.st_ino) == (found.st_dev, found.st_ino)

    def _node_metadata(self, parent: int, last: bytes, entry: tar.Entry) -> None:
        """Set owner, mode and time of what cannot be opened without effect."""
        fd = os.open(last, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            handle = f"/proc/self/fd/{fd}"
            if not self._single_id:
                os.chown(handle, *self._owner(entry))
            os.chmod(handle, self._mode(entry))
            os.utime(handle, ns=entry_rules.times(entry))
        finally:
            os.close(fd)

    def _chown(self, fd: int, entry: tar.Entry) -> None:
        if not self._single_id:
            os.fchown(fd, *self._owner(entry))

    def _owner(self, entry: tar.Entry) -> tuple[int, int]:
        if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
            raise entry_rules.invalid(entry, "its owner is out of range")
        return entry.uid, entry.gid

    def _mode(self, entry: tar.Entry) -> int:
        return entry.mode & 0o7777

    def _set_xattrs(self, fd: int, entry: tar.Entry) -> None:
        for name, value in entry.xattrs:
            if not entry_rules.is_kept(name):
                self._ignored_xattrs += 1
                continue
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                # The file system or the namespace does not have it: as tar does, go on without.
                if error.errno in (errno.EIO, errno.EROFS, errno.EDQUOT):
                    raise
                self._ignored_xattrs += 1
            except ValueError:
                self._ignored_xattrs += 1

    def _explained(self, error: OSError, entry: tar.Entry) -> Exception:
        """Turn what the kernel refused because of the entry itself into an ImageError."""
        if error.errno in (*_NO_SPACE, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE):
            return error
        if error.errno == errno.EINVAL and not self._single_id and max(entry.uid, entry.gid) > 0:
            return ImageError(
                f"{entry_rules.text_of(entry.name)} belongs to {entry.uid}:{entry.gid}, "
                "which is not mapped",
                hint="more ids: usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST USER",
            )
        return ImageError(f"cannot unpack {entry_rules.text_of(entry.name)}: {error.strerror}")

    def _set_directory_times(self) -> None:
        for path, (inode, mtime_ns) in self._times.items():
            times = (mtime_ns, mtime_ns)
            if not path:
                os.utime(self._root_fd, ns=times)
                continue
            try:
                parent, last = pathrs.open_parent(self._root_fd, path)
            except OSError:
                # Removed or replaced by a later entry.
                continue
            try:
                if os.lstat(last, dir_fd=parent).st_ino == inode:
                    os.utime(last, ns=times, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                continue
            finally:
                os.close(parent)


def _set_opaque(fd: int) -> None:
    """Mark a directory as one that hides what lower layers have under its name.

    Where the file system has no user attributes the mark is a file: fuse-overlayfs knows it, and
    the kernel's overlayfs is not used there (engine.storage_driver).
    """
    try:
        os.setxattr(fd, _OPAQUE_XATTR, b"y")
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(_OPAQUE_WHITEOUT, flags, 0o000, dir_fd=fd))
