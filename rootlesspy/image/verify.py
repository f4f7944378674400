"""Whether an image here still is what its digests say, down to the unpacked files.

Manifest and configuration are hashed.  A layer cannot be: what was unpacked has lost the form of
its archive.  So its blob is unpacked once more, beside it, hashed on the way, and the two trees are
compared.  That costs the time of an unpack and, until it is done, the space.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat

from rootlesspy.errors import ImageError, Unsupported
from rootlesspy.image import children, entry_rules, layout, locks
from rootlesspy.image.decompress import Reader
from rootlesspy.image.documents import has_digest
from rootlesspy.image.transfer import File, pipe, write_all
from rootlesspy.image.unpack import unpack
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import pathrs, userns
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootlesspy.image.store import Image
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.oci.image_spec import Descriptor
    from rootlesspy.paths import Paths

_CHUNK = 1 << 18
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class _Trees(NamedTuple):
    """A layer as it should be, and as it is."""

    wanted_fd: int
    found_fd: int


def check(paths: Paths, image: Image, maps: IdMaps) -> int:
    """Compare everything of an image with its digests; return the number of its layers.

    Raises ImageError naming what is another one, and the file; Unsupported, OSError.
    """
    manifest = _manifest(paths, image)
    suffix = layout.maps_suffix(paths, maps)
    pairs = dict.fromkeys(zip(manifest.layers, image.diff_ids, strict=True))
    for descriptor, diff_id in pairs:
        directory = layout.layer_directory(paths, diff_id, suffix)
        difference = _check_layer(paths, descriptor, diff_id, directory, maps)
        if difference:
            name = image.names[0] if image.names else image.id
            raise ImageError(
                f"image {name} is not what its digest says: {difference} (layer {diff_id[7:19]})",
                hint="what runs on it cannot be trusted: rp rmi -f it, and rp pull it again",
            )
    return len(image.diff_ids)


def _manifest(paths: Paths, image: Image) -> image_spec.Manifest:
    """Return the manifest of an image whose documents have their digests.  Raises ImageError."""
    data = layout.read_blob(paths, image.digest)
    try:
        manifest = image_spec.parse_manifest(data)
        config_data = layout.read_blob(paths, manifest.config.digest)
        config = image_spec.parse_config(config_data)
    except image_spec.MalformedError as error:
        raise ImageError(f"blob {image.digest} of the store: {error}") from error
    for digest, document in ((image.digest, data), (image.id, config_data)):
        if not has_digest(document, digest):
            raise ImageError(
                f"image {image.id}: document {digest} is another one", hint="rp fsck --repair"
            )
    is_whole = len(config["rootfs"]["diff_ids"]) == len(manifest.layers)
    if manifest.config.digest != image.id or not is_whole:
        raise ImageError(f"image {image.id}: manifest and configuration do not belong together")
    return manifest


def _check_layer(
    paths: Paths, descriptor: Descriptor, diff_id: str, directory: str, maps: IdMaps
) -> str:
    """Unpack a layer once more and compare; return the first difference, "" for none."""
    try:
        blob_fd = os.open(layout.blob_path(paths, descriptor.digest), _FILE)
    except OSError as error:
        raise ImageError(
            f"blob {descriptor.digest} of the store: {error.strerror}", hint="rp fsck"
        ) from error
    item = locks.new_item(paths)
    try:
        plain_fd, writer = pipe()
        worker = _start_reading(blob_fd, plain_fd, writer, diff_id)
        try:
            answer = _in_userns(maps, item.fd, plain_fd, directory)
        except BaseException:
            children.kill(worker)
            raise
        finally:
            os.close(plain_fd)
        found = children.wait(worker)
        if found != diff_id:
            raise ImageError(
                f"blob {descriptor.digest} of the store holds {found} instead of {diff_id}",
                hint="rp fsck --repair",
            )
        return str(children.value_of(answer))
    finally:
        locks.remove_item(paths, item, maps)


def _start_reading(blob_fd: int, plain_fd: int, writer: int, diff_id: str) -> children.Child:
    """Decompress a blob into a pipe in a process of its own, whose value is the diff ID."""

    def decompress() -> str:
        os.close(plain_fd)
        digest = hashlib.new(diff_id.partition(":")[0])
        reader = Reader(File(blob_fd))
        while data := reader.read(_CHUNK):
            digest.update(data)
            write_all(writer, data)
        return f"{digest.name}:{digest.hexdigest()}"

    worker = children.fork(decompress)
    os.close(blob_fd)
    os.close(writer)
    return worker


def _in_userns(maps: IdMaps, item_fd: int, plain_fd: int, directory: str) -> dict[str, object]:
    """Unpack and compare as root of the user namespace.  Raises Unsupported."""
    try:
        return userns.call_in_userns(
            maps,
            lambda: children.answer(
                lambda: _unpack_and_compare(item_fd, plain_fd, directory, maps.is_single())
            ),
        )
    except OSError as error:
        raise Unsupported(
            f"cannot verify in a user namespace: {error.strerror}", hint="rp doctor"
        ) from error


def _unpack_and_compare(item_fd: int, plain_fd: int, directory: str, single_id: bool) -> str:
    os.mkdir("diff", 0o755, dir_fd=item_fd)
    wanted_fd = os.open("diff", _DIRECTORY, dir_fd=item_fd)
    os.fchmod(wanted_fd, 0o755)
    is_opaque = unpack(plain_fd, wanted_fd, single_id=single_id).opaque_root
    kept = [name for name in ("diff", "opaque") if os.path.isdir(f"{directory}/{name}")]
    if kept != ["opaque" if is_opaque else "diff"]:
        return "its files are missing, or marked as what they are not"
    found_fd = os.open(f"{directory}/{kept[0]}", _DIRECTORY)
    return compare(wanted_fd, found_fd)


def compare(wanted_fd: int, found_fd: int) -> str:
    """Compare two trees; return the first difference, with the file, "" for none.

    Times of directories do not count: where an archive does not list one, nobody knows it.
    """
    trees = _Trees(wanted_fd, found_fd)
    pending = [b""]
    while pending:
        path = pending.pop()
        with _both(trees, path or b".", _DIRECTORY) as (wanted, found):
            difference = _inode_difference(os.fstat(wanted), os.fstat(found))
            difference = difference or _xattr_difference(wanted, found)
            if difference:
                return f"{_shown(path)}: {difference}"
            names, present = (set(os.listdir(os.fsencode(f"/proc/self/fd/{fd}")))
                              for fd in (wanted, found))  # fmt: skip
            for name in sorted(names ^ present):
                below = os.path.join(path, name)
                return f"{_shown(below)} {'was added' if name in present else 'is missing'}"
            for name in sorted(names):
                below = os.path.join(path, name)
                expected = os.lstat(name, dir_fd=wanted)
                difference = _difference(_Trees(wanted, found), name, expected)
                if difference:
                    return f"{_shown(below)}: {difference}"
                if stat.S_ISDIR(expected.st_mode):
                    pending.append(below)
    return ""


def _difference(parents: _Trees, name: bytes, wanted: os.stat_result) -> str:
    """Compare a name of two directories, what is in a directory left out."""
    found = os.lstat(name, dir_fd=parents.found_fd)
    difference = _inode_difference(wanted, found)
    if difference:
        return difference
    if stat.S_ISLNK(wanted.st_mode):
        targets = {os.readlink(name, dir_fd=fd) for fd in parents}
        return "it leads elsewhere" if len(targets) > 1 else ""
    if not stat.S_ISREG(wanted.st_mode):
        return ""
    if wanted.st_nlink != found.st_nlink:
        return "it has other hard links"
    with _both(parents, name, _FILE) as (wanted_fd, found_fd):
        return _xattr_difference(wanted_fd, found_fd) or _content_difference(wanted_fd, found_fd)


def _inode_difference(wanted: os.stat_result, found: os.stat_result) -> str:
    if stat.S_IFMT(wanted.st_mode) != stat.S_IFMT(found.st_mode):
        return "it is another kind of file"
    if wanted.st_mode != found.st_mode:
        return f"its mode is {found.st_mode & 0o7777:04o} instead of {wanted.st_mode & 0o7777:04o}"
    if (wanted.st_uid, wanted.st_gid) != (found.st_uid, found.st_gid):
        return "its owner is another one"
    if wanted.st_rdev != found.st_rdev:
        return "it is another device"
    if stat.S_ISDIR(wanted.st_mode):
        return ""
    if wanted.st_size != found.st_size:
        return f"it has {found.st_size} bytes instead of {wanted.st_size}"
    is_file = stat.S_ISREG(wanted.st_mode)
    return "its time is another one" if is_file and wanted.st_mtime_ns != found.st_mtime_ns else ""


def _xattr_difference(wanted_fd: int, found_fd: int) -> str:
    wanted, found = (
        {name: os.getxattr(fd, name) for name in os.listxattr(fd)} for fd in (wanted_fd, found_fd)
    )
    return "its extended attributes are others" if wanted != found else ""


def _content_difference(wanted_fd: int, found_fd: int) -> str:
    while data := os.read(wanted_fd, _CHUNK):
        other = b""
        while len(other) < len(data) and (piece := os.read(found_fd, len(data) - len(other))):
            other += piece
        if other != data:
            return "its content is another one"
    return "its content is another one" if os.read(found_fd, 1) else ""


@contextlib.contextmanager
def _both(trees: _Trees, path: bytes, flags: int) -> Iterator[tuple[int, int]]:
    wanted = pathrs.open_in_root(trees.wanted_fd, path, flags)
    try:
        found = pathrs.open_in_root(trees.found_fd, path, flags)
        try:
            yield wanted, found
        finally:
            os.close(found)
    finally:
        os.close(wanted)


def _shown(path: bytes) -> str:
    return entry_rules.text_of(path) if path else "its root"
