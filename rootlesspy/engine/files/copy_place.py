"""Both ends of `rp cp`, each given a descriptor of the root that its paths are meant in.

Whatever links the container holds, and whoever swaps them meanwhile, every lookup stays below that
root (CVE-2018-15664, CVE-2019-10152); files are opened by descriptors of their directories.
"""

from __future__ import annotations

import errno
import os
import stat

from rootlesspy.engine.files import extract, layered
from rootlesspy.engine.files.tree_archive import TreeArchive
from rootlesspy.errors import Conflict, Error, ImageError, NotFound
from rootlesspy.image import children
from rootlesspy.light_modules import json
from rootlesspy.light_typing import NamedTuple
from rootlesspy.linux import pathrs

_LINKS = 40
_HEAD_BYTES = 1 << 17
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_UNNAMED = (b"", b".", b"..")


class Place(NamedTuple):
    """One side of a copy; container None means the host."""

    container: str | None
    path: str
    typed: str = ""
    """The path as it is named in messages."""

    def is_stream(self) -> bool:
        """Say whether it is standard input or output."""
        return self.container is None and self.path == "-"

    def means_content(self) -> bool:
        """Say whether the directory's content is meant rather than the directory."""
        return self.path.endswith("/.") or self.path == "."

    def missing(self) -> NotFound:
        """Return the error for a path that is not there."""
        where = "the host" if self.container is None else f"container {self.container}"
        return NotFound(f"{self.typed!r} could not be found on {where}: no such file or directory")


class _Found(NamedTuple):
    """The file that a path means: its directory, its name there, and itself when it exists."""

    parent: int
    name: bytes
    fd: int


def send(root_fd: int, place: Place, out_fd: int, *, named: bool) -> int:
    """Write a file or directory as a tar stream to out_fd; return how many sockets were left out.

    Before the stream stands a line that describes it; named: none, and entries have the source's
    name instead of ".".  Raises NotFound, Error, OSError.
    """
    found = _find(root_fd, place.path)
    if found is None or found.fd < 0:
        raise place.missing()
    status = os.fstat(found.fd)
    is_directory = stat.S_ISDIR(status.st_mode)
    if not (is_directory or stat.S_ISREG(status.st_mode)):
        raise Error(f"{place.typed!r} is neither a file nor a directory")
    if not is_directory and place.path.endswith(("/", "/.")):
        raise place.missing()
    name = _name(place, found)
    top = name if named else "."
    if named and is_directory and place.means_content():
        top = ""
    if not named:
        head = {"name": name, "directory": is_directory, "content": place.means_content()}
        os.write(out_fd, json.dumps(head).encode() + b"\n")
    archive = TreeArchive(out_fd, whole_seconds=False)
    if is_directory:
        _send_directory(found.fd, archive, top)
    else:
        fd = os.open(f"/proc/self/fd/{found.fd}", _READ)
        archive.add_open_file(fd, top)
        os.close(fd)
    archive.close()
    return archive.sockets


def receive(
    root_fd: int, place: Place, in_fd: int, options: extract.Options, *, archive: bool
) -> int:
    """Make the files of a tar stream where place says; return how many device nodes were left out.

    archive: the stream is a plain one, as somebody else made it.  Raises NotFound, Conflict, Error,
    ImageError.
    """
    head = {"name": "", "directory": True, "content": True} if archive else _read_head(in_fd)
    directory, name = _destination(root_fd, place, head, archive=archive)
    done = extract.write_tree(in_fd, directory, options._replace(top=name))
    if archive and not done.entries:
        raise ImageError(
            "source must be a (compressed) tar archive when copying from standard input"
        )
    return done.devices


def _destination(
    root_fd: int, place: Place, head: dict[str, object], *, archive: bool
) -> tuple[int, bytes]:
    """Return the directory to work in, and what the source is called there, "" for its content."""
    found = _find(root_fd, place.path)
    exists = found is not None and found.fd >= 0
    is_directory = exists and found is not None and stat.S_ISDIR(os.fstat(found.fd).st_mode)
    if archive and not is_directory:
        raise Conflict("destination must be a directory when copying from standard input")
    if found is None or (not exists and place.path.endswith(("/", "/."))):
        raise place.missing()
    if is_directory:
        name = "" if head["content"] and head["directory"] else str(head["name"])
        return found.fd, os.fsencode(name)
    if exists:
        if head["directory"]:
            raise Conflict("destination must be a directory when copying a directory")
        if place.path.endswith(("/", "/.")):
            raise Conflict(f"destination {place.typed!r} exists but is not a directory")
        if not stat.S_ISREG(os.fstat(found.fd).st_mode):
            raise Conflict(f"destination {place.typed!r} must be a directory or a regular file")
    if found.name in _UNNAMED:
        raise place.missing()
    return found.parent, found.name


def _send_directory(fd: int, archive: TreeArchive, top: str) -> None:
    if top:
        archive.add_directory(fd, top)
    prefix = f"{top}/" if top else ""
    stack = layered.Stack([fd], marks="")
    try:
        for entry in layered.walk(stack):
            archive.add(entry, prefix + entry.path)
    finally:
        stack.close()


def _name(place: Place, found: _Found) -> str:
    """Return what the source is called: as podman has it, a container's link by its target."""
    typed = os.path.basename(place.path.rstrip("/"))
    if place.container is None and typed not in ("", ".", ".."):
        return typed
    return "" if found.name in _UNNAMED else os.fsdecode(found.name)


def _find(root_fd: int, path: str) -> _Found | None:
    """Resolve a path below root_fd to the file that it means, which may not exist (fd -1).

    None when its directory does not exist.  Links are followed by hand where they end, so that the
    name behind them is known.  Raises OSError, ELOOP for too many links.
    """
    encoded = os.fsencode(path).rstrip(b"/") or b"/"
    for _ in range(_LINKS):
        head, _, last = encoded.rpartition(b"/")
        if last in _UNNAMED:
            return _find_directory(root_fd, encoded)
        try:
            parent = pathrs.open_in_root(root_fd, head or b"/", os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in _MISSING:
                return None
            raise
        try:
            link = os.readlink(last, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
            return _Found(parent, last, _open_last(parent, last))
        os.close(parent)
        encoded = link if link.startswith(b"/") else head + b"/" + link
        encoded = encoded.rstrip(b"/") or b"/"
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _find_directory(root_fd: int, path: bytes) -> _Found | None:
    """Resolve "/", or a path that ends with "." or "..": a directory, or nothing."""
    try:
        fd = pathrs.open_in_root(root_fd, path, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in _MISSING:
            # DIRECTORY/. may be made, DIRECTORY/.. not.
            plain = path[:-2].rstrip(b"/") if path.endswith(b"/.") else b""
            return _find(root_fd, os.fsdecode(plain)) if plain else None
        raise
    outer, _, last = path.rpartition(b"/")
    name = outer.rpartition(b"/")[2] if last == b"." else b""
    return _Found(fd, name, fd)


def _open_last(parent: int, last: bytes) -> int:
    try:
        return os.open(last, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except FileNotFoundError:
        return -1


def _read_head(in_fd: int) -> dict[str, object]:
    """Read the line before the stream, byte by byte, as what follows belongs to another reader."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(in_fd, 1)
        if not byte or len(line) > _HEAD_BYTES:
            raise children.PipeClosed("the source could not be read")
        line += byte
    head = json.loads(line)
    if not isinstance(head, dict):
        raise children.PipeClosed("the source could not be read")
    return head
