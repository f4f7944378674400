"""What an entry of a layer may say, and the words for one that may not."""

from __future__ import annotations

from rootlesspy.errors import ImageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.image import tar

_KEPT_XATTRS = frozenset(
    (b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default")
)
# What overlayfs, fuse-overlayfs and container tools read as commands.
_CONTROL_XATTRS = (b"user.overlay.", b"user.fuseoverlayfs.", b"user.containers.")
_MAX_MTIME_NS = (1 << 34) * 1_000_000_000


def normalised(name: bytes) -> bytes:
    """Return name relative to the root without "." parts; raise ImageError for ".."."""
    if name[:2] == b"./":
        name = name[2:]
    parts = name.split(b"/")
    if b".." in parts:
        raise ImageError(f"layer holds a path with '..': {text_of(name)}")
    if b"" in parts or b"." in parts:
        return b"/".join(part for part in parts if part not in (b"", b"."))
    return name


def times(entry: tar.Entry) -> tuple[int, int]:
    """Return access and modification time in nanoseconds, cut to what file systems hold."""
    mtime_ns = min(max(entry.mtime_ns, 0), _MAX_MTIME_NS)
    return mtime_ns, mtime_ns


def is_kept(name: bytes) -> bool:
    """Say whether an extended attribute of this name is set: no command to whoever reads it."""
    return name in _KEPT_XATTRS or (
        name.startswith(b"user.") and not name.startswith(_CONTROL_XATTRS)
    )


def no_target(entry: tar.Entry) -> ImageError:
    """Return the error for a hard link to nothing."""
    return invalid(entry, f"no such file to link to: {text_of(entry.link)}")


def invalid(entry: tar.Entry, why: str) -> ImageError:
    """Return the error for an entry that nobody should have written."""
    return ImageError(f"layer holds an invalid entry {text_of(entry.name)!r}: {why}")


def text_of(name: bytes) -> str:
    """Return a name of an archive for a message."""
    text = name.decode("utf-8", "backslashreplace")
    return text if len(text) <= 200 else f"{text[:197]}..."
