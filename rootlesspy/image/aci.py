"""App Container Images: `rp load app.aci` makes OCI images of one layer of them.

The archive is read by image.tar and never extracted: what lies below rootfs/ becomes a layer in
the order of the archive, so that the same archive gives the same diff ID each time.

Source: the App Container specification 0.8.11, spec/aci.md.
"""

from __future__ import annotations

import os
import posixpath

from rootlesspy.errors import ImageError
from rootlesspy.image import platforms, tar
from rootlesspy.image.files import TarFiles, read_document
from rootlesspy.image.pax import PaxWriter
from rootlesspy.image.stream import Stream
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rootlesspy.image.aci_manifest import AciManifest
    from rootlesspy.image.files import Files
    from rootlesspy.image.store import Image
    from rootlesspy.image.writer import Writer
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

_ROOT = b"rootfs"
_MANIFEST = b"manifest"
# A sparse file is written out: the same bytes wherever it is loaded.
_MAX_SPARSE_BYTES = 1 << 30


def manifest_of(files: Files) -> bytes | None:
    """Return the manifest of an ACI; None for OCI and docker archives, and for directories.

    Raises ImageError.
    """
    others = ("manifest.json", "index.json")
    if not isinstance(files, TarFiles) or any(files.find(name) for name in others):
        return None
    return read_document(files, "manifest")


def load(writer: Writer, paths: Paths, files: Files, data: bytes, reporter: Reporter) -> Image:
    """Store the image of an archive under its name; data is what manifest_of() returned.

    Everything is checked before anything is stored.  Raises ImageError, Error, OSError.
    """
    from rootlesspy.image import aci_manifest

    manifest = aci_manifest.parse(data)
    flags = os.O_RDWR | os.O_TMPFILE | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(paths.tmp, flags, 0o600)
    try:
        owners = _write_layer(files, manifest, fd, paths)
        config = _config(manifest, owners)
        os.lseek(fd, 0, os.SEEK_SET)
        layer = writer.add_layer(fd)
    finally:
        os.close(fd)
    image = writer.add_image(config, [layer], [manifest.name])
    for notice in manifest.notices:
        reporter.notice(f"{manifest.name}: {notice}")
    return image


class _Owner(NamedTuple):
    uid: int
    gid: int


def _config(manifest: AciManifest, owners: dict[bytes, _Owner]) -> dict[str, object]:
    system, _, architecture = (manifest.platform or platforms.host()).partition("/")
    architecture, _, variant = architecture.partition("/")
    settings = dict(manifest.config)
    if manifest.user:
        user = _id(manifest.user, owners, "user")
        group = _id(manifest.group, owners, "group")
        settings["User"] = f"{user}:{group}"
    created = manifest.created or "1970-01-01T00:00:00Z"
    config: dict[str, object] = {
        "created": created,
        "author": manifest.author,
        "architecture": architecture,
        "os": system,
        "config": settings,
        "history": [{"created": created, "created_by": "rp load", "comment": "from an ACI"}],
    }
    if variant:
        config["variant"] = variant
    if not manifest.author:
        del config["author"]
    return config


def _id(text: str, owners: dict[bytes, _Owner], member: str) -> str:
    """Return a user or group; a path stands for the owner of that file in the image."""
    if not text.startswith("/"):
        if ":" in text:
            raise _bad(f"app: {member} {text!r} is not one name")
        return text
    path = posixpath.normpath(text).lstrip("/")
    owner = owners.get(os.fsencode(path))
    if owner is None:
        raise _bad(f"app: {member} is the owner of {text}, which the image does not have")
    return str(owner.uid if member == "user" else owner.gid)


def _write_layer(
    files: Files, manifest: AciManifest, out_fd: int, paths: Paths
) -> dict[bytes, _Owner]:
    """Write what is below rootfs/ as a layer; return who owns what.  Raises ImageError, OSError."""
    if not isinstance(files, TarFiles):
        raise _bad(f"{files.where} is no archive")
    in_fd = files.rewound()
    stream = Stream(in_fd)
    reader, writer = tar.TarReader(stream), PaxWriter(out_fd)
    kept = _kept(manifest.whitelist)
    owners: dict[bytes, _Owner] = {}
    seen: set[bytes] = set()
    while (entry := reader.next()) is not None:
        name = _plain(entry.name)
        if name in seen:
            raise _bad(f"the archive holds {os.fsdecode(name)!r} twice")
        seen.add(name)
        if name == _MANIFEST and entry.kind == tar.REGULAR:
            continue
        inside = _inside(name, entry)
        if kept is not None and inside not in kept:
            continue
        owners[inside] = _Owner(entry.uid, entry.gid)
        entry = _stripped(entry, inside)
        if entry.kind == tar.HARD_LINK and entry.link not in owners:
            raise _bad(f"{os.fsdecode(name)!r} is a hard link to a file that is not before it")
        if entry.kind != tar.REGULAR:
            writer.add(entry)
        elif reader.is_sparse():
            _add_sparse(reader, writer, entry, paths)
        else:
            writer.add_part(entry, in_fd, stream.offset())
    writer.close()
    if not any(name == _ROOT or name.startswith(_ROOT + b"/") for name in seen):
        raise _bad("the archive has no rootfs")
    return owners


def _add_sparse(reader: tar.TarReader, writer: PaxWriter, entry: tar.Entry, paths: Paths) -> None:
    if entry.size > _MAX_SPARSE_BYTES:
        raise ImageError(
            f"{os.fsdecode(entry.name)!r} is a sparse file of {entry.size} bytes: too long for rp"
        )
    flags = os.O_RDWR | os.O_TMPFILE | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(paths.tmp, flags, 0o600)
    try:
        reader.copy(fd, entry)
        os.ftruncate(fd, entry.size)
        writer.add_part(entry, fd, 0)
    finally:
        os.close(fd)


def _stripped(entry: tar.Entry, inside: bytes) -> tar.Entry:
    """Return an entry as one of the layer: names begin at the root of the image."""
    name = inside + b"/" if entry.kind == tar.DIRECTORY else inside
    if not inside:
        name = b"./"
    if entry.kind != tar.HARD_LINK:
        return entry._replace(name=name)
    target = _plain(entry.link)
    if not target.startswith(_ROOT + b"/"):
        raise _bad(f"the hard link {os.fsdecode(entry.name)!r} leads out of rootfs")
    return entry._replace(name=name, link=target.removeprefix(_ROOT + b"/"))


def _inside(name: bytes, entry: tar.Entry) -> bytes:
    """Return a path below rootfs, empty for rootfs itself.  Raises ImageError."""
    if name == _ROOT:
        if entry.kind != tar.DIRECTORY:
            raise _bad("rootfs is not a directory")
        return b""
    if not name.startswith(_ROOT + b"/"):
        raise _bad(f"{os.fsdecode(name)!r} is neither manifest nor in rootfs")
    inside = name.removeprefix(_ROOT + b"/")
    if inside.rpartition(b"/")[2].startswith(b".wh."):
        raise ImageError(f"{os.fsdecode(name)!r} would remove a file in an OCI layer")
    return inside


def _plain(name: bytes) -> bytes:
    """Return a name without "./" and slashes at its end.  Raises ImageError for ".."."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts or name.startswith(b"/"):
        raise _bad(f"{os.fsdecode(name)!r} is not a path inside the archive")
    return b"/".join(parts)


def _kept(whitelist: tuple[str, ...]) -> frozenset[bytes] | None:
    """Return the listed paths with the directories they are in; None for everything."""
    if not whitelist:
        return None
    found = {b""}
    for path in whitelist:
        parts = [part for part in os.fsencode(path).split(b"/") if part not in (b"", b".")]
        found.update(b"/".join(parts[: length + 1]) for length in range(len(parts)))
    return frozenset(found)


def _bad(what: str) -> ImageError:
    return ImageError(f"not a valid App Container Image: {what}")
