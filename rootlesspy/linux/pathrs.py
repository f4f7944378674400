"""Paths inside a tree that strangers control: every step relative to a descriptor of its root.

All lookups go through openat2(2) with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS: absolute links and
".." stay below the root, /proc/*/fd links are refused.  No other module may open, make or change
anything inside a root file system or volume by a path string (SECURITY.md I1).
"""

from __future__ import annotations

import errno
import os
import stat

from rootlesspy.light_modules import ctypes
from rootlesspy.linux.libc import SYS_openat2, syscall

_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_RETRIES = 128
_LINKS = 40  # as the kernel's own MAXSYMLINKS


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_in_root(root_fd: int, path: str | bytes, flags: int, mode: int = 0) -> int:
    """Open path as if root_fd were "/", following links inside it; return a descriptor.

    Raises OSError: EAGAIN never (a racing rename is retried), ELOOP for a magic link.
    """
    encoded = os.fsencode(path) or b"."
    how = _OpenHow(flags | os.O_CLOEXEC, mode, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    for attempt in range(_RETRIES):
        try:
            return syscall(
                SYS_openat2,
                root_fd,
                ctypes.c_char_p(encoded),
                ctypes.byref(how),
                ctypes.sizeof(how),
                path=encoded,
            )
        except OSError as error:
            # openat2(2): EAGAIN when a rename or mount raced with the resolution of "..".
            if error.errno != errno.EAGAIN or attempt == _RETRIES - 1:
                raise
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), encoded)


def open_parent(root_fd: int, path: str | bytes) -> tuple[int, bytes]:
    """Open the directory that holds path and return it with the last component, not followed.

    Raises OSError, EINVAL where the last component is empty, "." or "..".
    """
    head, _, last = os.fsencode(path).rstrip(b"/").rpartition(b"/")
    if last in (b"", b".", b".."):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
    return open_in_root(root_fd, head, os.O_PATH | os.O_DIRECTORY), last


def make_directories(root_fd: int, path: str | bytes, mode: int = 0o755) -> int:
    """Open the directory at path below root_fd, making what is missing; return an O_PATH fd.

    Existing components may be links inside the root; a component that exists and is no directory
    raises ENOTDIR.
    """
    flags = os.O_PATH | os.O_DIRECTORY
    encoded = os.fsencode(path)
    try:
        return open_in_root(root_fd, encoded, flags)
    except FileNotFoundError:
        pass
    done = b""
    current = open_in_root(root_fd, b".", flags)
    try:
        for component in encoded.split(b"/"):
            if component in (b"", b"."):
                continue
            done += b"/" + component
            try:
                following = open_in_root(root_fd, done, flags)
            except FileNotFoundError:
                # A dangling link ends here too, with EEXIST: nothing is made through it.
                os.mkdir(component, mode, dir_fd=current)
                following = os.open(component, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = following
    except BaseException:
        os.close(current)
        raise
    return current


def make_file(root_fd: int, path: str | bytes, mode: int = 0o644) -> int:
    """Open the file at path below root_fd as O_PATH, making an empty one when it is missing.

    A dangling link is followed inside the root, as its target is what a reader would open.
    """
    encoded = os.fsencode(path)
    for _ in range(_LINKS):
        try:
            return open_in_root(root_fd, encoded, os.O_PATH)
        except FileNotFoundError:
            pass
        head, _, last = encoded.rstrip(b"/").rpartition(b"/")
        directory = make_directories(root_fd, head)
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(last, flags, mode, dir_fd=directory))
            return os.open(last, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except FileExistsError:
            link = os.readlink(last, dir_fd=directory)
            encoded = link if link.startswith(b"/") else head + b"/" + link
        finally:
            os.close(directory)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def read_file(root_fd: int, path: str | bytes, limit_bytes: int) -> bytes:
    """Return the content of a regular file below root_fd.

    Raises OSError: EINVAL for anything but a regular file (a FIFO or device would block or never
    end), EFBIG when it is longer than limit_bytes.
    """
    fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        chunks = []
        total = 0
        while chunk := os.read(fd, 65536):
            total += len(chunk)
            if total > limit_bytes:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(fd)


def remove_tree(dir_fd: int, name: str | bytes) -> None:
    """Remove name below dir_fd with all it holds; a missing name is fine.

    Iterative (a tree may be 20,000 deep), never follows a link, never enters another file system,
    opens directories that the owner made unreadable.  Raises OSError; EXDEV at a mount point.
    """
    try:
        if not stat.S_ISDIR(os.lstat(name, dir_fd=dir_fd).st_mode):
            os.unlink(name, dir_fd=dir_fd)
            return
    except FileNotFoundError:
        return
    _empty_directory(_open_directory(dir_fd, name))
    os.rmdir(name, dir_fd=dir_fd)


def _open_directory(dir_fd: int, name: str | bytes) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    how = _OpenHow(flags, 0, _RESOLVE_NO_XDEV)
    encoded = ctypes.c_char_p(os.fsencode(name))
    size = ctypes.sizeof(how)
    try:
        return syscall(SYS_openat2, dir_fd, encoded, ctypes.byref(how), size, path=name)
    except PermissionError:
        # Looked at through an O_PATH descriptor, so that the chmod hits what was opened.
        how.flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = syscall(SYS_openat2, dir_fd, encoded, ctypes.byref(how), size, path=name)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
            return os.open(b".", flags, dir_fd=handle)
        finally:
            os.close(handle)


def _empty_directory(fd: int) -> None:
    """Remove what the directory holds and close fd.

    Only one descriptor is held per call: on the way up ".." is opened and checked to be where we
    came from, so that depth is not limited by RLIMIT_NOFILE.  Each directory is read twice, however
    many it holds: the second time finds what came to be there meanwhile.
    """
    trail: list[tuple[list[bytes], int, int]] = []
    names = _remove_plain_entries(fd)
    try:
        while True:
            if names:
                inner = _open_remaining(fd, names[-1])
                if inner is None:
                    names.pop()
                    continue
                status = os.fstat(fd)
                trail.append((names, status.st_dev, status.st_ino))
                os.close(fd)
                fd = inner
                names = _remove_plain_entries(fd)
                continue
            names = _remove_plain_entries(fd)
            if names:
                continue
            if not trail:
                return
            names, device, inode = trail.pop()
            outer = os.open(b"..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = outer
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) != (device, inode):
                raise OSError(errno.ESTALE, "directory was moved while it was removed", names[-1])
            os.rmdir(names.pop(), dir_fd=fd)
    finally:
        os.close(fd)


def _open_remaining(fd: int, name: bytes) -> int | None:
    """Open a directory that was seen; None when it is not there any more, or no directory."""
    try:
        return _open_directory(fd, name)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise


def _remove_plain_entries(fd: int) -> list[bytes]:
    """Unlink everything but directories that hold something; return the names of these."""
    directories = []
    with os.scandir(fd) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if entry.is_dir(follow_symlinks=False):
                try:
                    os.rmdir(name, dir_fd=fd)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EACCES, errno.EPERM):
                        raise
                    directories.append(name)
                continue
            try:
                os.unlink(name, dir_fd=fd)
            except PermissionError:
                # A directory without write permission for its owner.
                os.fchmod(fd, 0o700)
                os.unlink(name, dir_fd=fd)
    return directories
