"""Where things lie in the image store, and how they get there: written whole or not at all.

images/ is an OCI image layout that other tools can read; index.json is the list of images.
layers/ALGORITHM/HEX/diff is an unpacked layer, "opaque" instead of "diff" when it hides everything
below it; other id maps than the first one used have layers/ALGORITHM-KEY/.  Hot path: no imports
but os and json.
"""

from __future__ import annotations

import errno
import fcntl
import os

from rootlesspy.errors import Error, ImageError
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, TypedDict
from rootlesspy.oci import image_spec
from rootlesspy.paths import private_directory

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.paths import Paths

# Annotations of the descriptors in index.json that only rp reads.
SIZE = "rootlesspy.size"
INDEX_DIGEST = "rootlesspy.index"
ALIAS = "rootlesspy.alias"
LIST_ID = "rootlesspy.list"
LIST_CREATED = "rootlesspy.created"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_FOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC
_DEFAULT_MAPS = "default-maps"


class IndexEntry(TypedDict, total=False):
    """A descriptor in index.json."""

    mediaType: str
    digest: str
    size: int
    annotations: dict[str, str]


def prepare(paths: Paths) -> None:
    """Make the directories of the store.  Raises OSError, Unsupported."""
    for directory in (paths.data, paths.images, paths.layers, paths.tmp):
        private_directory(directory)
    private_directory(f"{paths.images}/blobs/sha256")
    marker = f"{paths.images}/oci-layout"
    if os.path.exists(marker):
        return
    lock = _locked(paths.images)
    try:
        write_file(marker, b'{"imageLayoutVersion":"1.0.0"}')
    finally:
        os.close(lock)


def blob_path(paths: Paths, digest: str) -> str:
    """Return where a blob lies; digest has been checked."""
    algorithm, _, encoded = digest.partition(":")
    return f"{paths.images}/blobs/{algorithm}/{encoded}"


def read_blob(paths: Paths, digest: str) -> bytes:
    """Return a document of the store.  Raises ImageError when it is missing or unreadable."""
    path = blob_path(paths, digest)
    try:
        return read_file(path)
    except OSError as error:
        raise ImageError(
            f"blob {digest} of the store: {error.strerror}", hint=f"ls -l {path}"
        ) from error


def read_file(path: str) -> bytes:
    """Return the content of a document, one byte more than is allowed at most.  Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _NO_FOLLOW)
    try:
        file = open(fd, "rb")
    except OSError as error:
        # A directory: it would name the descriptor.
        os.close(fd)
        error.filename = path
        raise
    with file:
        return file.read(image_spec.MAX_DOCUMENT_BYTES + 1)


def write_file(path: str, data: bytes, *, durable: bool = True) -> None:
    """Replace a file, by default durably; the caller's lock makes him its only writer."""
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NO_FOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        if durable:
            os.fsync(fd)
    os.rename(temporary, path)
    if durable:
        sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    """Make renames in a directory durable.  Raises OSError."""
    fd = os.open(path, _DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def install(source: str, target: str) -> None:
    """Rename a finished file or directory to its place; a thing there already wins.

    What it holds is on disk already; that the rename is too, is seen to before the index names it.
    """
    private_directory(os.path.dirname(target))
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def read_index(paths: Paths) -> list[IndexEntry]:
    """Return the entries of index.json that rp understands.  Raises ImageError."""
    entries = _index_document(paths).get("manifests")
    if not isinstance(entries, list):
        raise _broken_index(paths, "manifests is not a list")
    return [entry for entry in entries if _is_entry(entry)]


def read_lists(paths: Paths) -> list[IndexEntry]:
    """Return the entries of index.json that are indexes themselves.  Raises ImageError."""
    entries = _index_document(paths).get("manifests")
    if not isinstance(entries, list):
        raise _broken_index(paths, "manifests is not a list")
    return [entry for entry in entries if _is_list(entry)]


def update_index(paths: Paths, change: Callable[[list[IndexEntry]], list[IndexEntry]]) -> None:
    """Replace the images of index.json by what change makes of them, under its lock.

    Members and entries that rp does not understand are kept; an index loses a name that an image
    gets.  Raises ImageError, OSError.
    """
    _update(paths, _is_entry, change)


def update_lists(paths: Paths, change: Callable[[list[IndexEntry]], list[IndexEntry]]) -> None:
    """Do what update_index() does for the entries that are indexes themselves."""
    _update(paths, _is_list, change)


def _update(
    paths: Paths,
    is_meant: Callable[[object], bool],
    change: Callable[[list[IndexEntry]], list[IndexEntry]],
) -> None:
    lock = _locked(paths.images)
    try:
        document = _index_document(paths)
        entries = document.get("manifests")
        if not isinstance(entries, list):
            raise _broken_index(paths, "manifests is not a list")
        old = [entry for entry in entries if is_meant(entry)]
        new = change(list(old))
        taken = _names(new) - _names(old)
        others = _without_names([entry for entry in entries if not is_meant(entry)], taken)
        document["manifests"] = new + others
        write_file(f"{paths.images}/index.json", json.dumps(document).encode())
    finally:
        os.close(lock)


def _names(entries: list[IndexEntry]) -> set[str]:
    names = (entry.get("annotations", {}).get(image_spec.REF_NAME) for entry in entries)
    return {name for name in names if name}


def _without_names(entries: list[IndexEntry], taken: set[str]) -> list[IndexEntry]:
    """Take names away; what has no other one stays without."""
    kept: list[IndexEntry] = []
    for entry in entries:
        if not (_is_entry(entry) or _is_list(entry)) or not _names([entry]) & taken:
            kept.append(entry)
        elif not any(_is_same(entry, each) for each in [*kept, *entries] if each is not entry):
            annotations = {
                key: value
                for key, value in entry["annotations"].items()
                if key not in (image_spec.REF_NAME, ALIAS)
            }
            kept.append({**entry, "annotations": annotations})
    return kept


def _is_same(one: IndexEntry, other: IndexEntry) -> bool:
    """Say whether two entries name one thing."""
    if not (_is_entry(other) or _is_list(other)) or one["digest"] != other["digest"]:
        return False
    ids = (each.get("annotations", {}).get(LIST_ID) for each in (one, other))
    return len(set(ids)) == 1


def with_entry(entries: list[IndexEntry], new: IndexEntry) -> list[IndexEntry]:
    """Return the entries with a named one added, which takes its name from any other.

    An image that loses its last name stays listed without one, as with other tools.
    """
    name = new["annotations"][image_spec.REF_NAME]
    digests = {new["digest"]}
    kept: list[IndexEntry] = []
    nameless: list[IndexEntry] = []
    for entry in entries:
        annotations = entry.get("annotations", {})
        if annotations.get(image_spec.REF_NAME) == name:
            rest = {k: v for k, v in annotations.items() if k in (SIZE, INDEX_DIGEST)}
            nameless.append({**entry, "annotations": rest})
        elif image_spec.REF_NAME in annotations:
            kept.append(entry)
            digests.add(entry["digest"])
        else:
            nameless.append(entry)
    for entry in nameless:
        if entry["digest"] not in digests:
            kept.append(entry)
            digests.add(entry["digest"])
    return [*kept, new]


def layer_size(paths: Paths, diff_id: str, suffix: str) -> int:
    """Return the size of an unpacked layer's files, 0 when it is not known."""
    return _layer_number(paths, diff_id, suffix, "size_bytes")


def archive_size(paths: Paths, diff_id: str) -> int:
    """Return the size of the tar archive that a layer was unpacked from, 0 when it is not known."""
    return max(_layer_number(paths, diff_id, "", "archive_bytes"), 0)


def _layer_number(paths: Paths, diff_id: str, suffix: str, key: str) -> int:
    try:
        data = read_file(f"{layer_directory(paths, diff_id, suffix)}/layer.json")
        return int(json.loads(data)[key])
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return 0


def hold(paths: Paths, *, exclusive: bool) -> int | None:
    """Lock the store against the removal of content; close the descriptor to let go.

    Pulls hold it shared from the look for what is there to the entry in the index.  Exclusively it
    is only tried: None means that somebody works with the store now.
    """
    fd = os.open(paths.layers, _DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def layer_directory(paths: Paths, diff_id: str, suffix: str) -> str:
    """Return the directory that wraps one unpacked layer."""
    algorithm, _, encoded = diff_id.partition(":")
    return f"{paths.layers}/{algorithm}{suffix}/{encoded}"


def maps_suffix(paths: Paths, maps: IdMaps) -> str:
    """Return what distinguishes the layers of these id maps: nothing for the first ones used."""
    text = maps_text(maps)
    try:
        default = read_file(f"{paths.layers}/{_DEFAULT_MAPS}").decode("ascii", "replace")
    except FileNotFoundError:
        return ""
    if default == text:
        return ""
    import hashlib  # 4 ms: only for the second map and its successors

    return f"-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def claim_default_maps(paths: Paths, maps: IdMaps) -> None:
    """Make these maps the default when there is none yet; the first caller wins."""
    path = f"{paths.layers}/{_DEFAULT_MAPS}"
    if os.path.exists(path):
        return
    temporary = f"{path}.{os.getpid()}"
    write_file(temporary, maps_text(maps).encode())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)
    sync_directory(paths.layers)


def maps_text(maps: IdMaps) -> str:
    """Return the canonical text of id maps."""
    return " ".join(",".join("{}:{}:{}".format(*mapping) for mapping in ids) for ids in maps)


def no_space(paths: Paths, needed_bytes: int) -> Error:
    """Return the error for a full disk, with numbers."""
    place = paths.data
    while not os.path.isdir(place):
        # Not even the directory could be made.
        place = os.path.dirname(place)
    status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize
    needed = f"need {needed_bytes >> 20} MiB, " if needed_bytes else ""
    inodes = ", no inodes left" if status.f_files and not status.f_favail else ""
    return Error(
        f"no space in {paths.data}: {needed}have {free >> 20} MiB{inodes}",
        hint="rp rmi an image that is not needed, or set XDG_DATA_HOME to a larger file system",
    )


def _locked(directory: str) -> int:
    """Open and lock a directory; closing the descriptor unlocks it."""
    fd = os.open(directory, _DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _index_document(paths: Paths) -> dict[str, object]:
    try:
        data = read_file(f"{paths.images}/index.json")
    except FileNotFoundError:
        return {"schemaVersion": 2, "mediaType": image_spec.INDEX, "manifests": []}
    except OSError as error:
        raise _broken_index(paths, error.strerror or "unreadable") from error
    try:
        return image_spec.parse_document(data, "index.json")
    except image_spec.MalformedError as error:
        raise _broken_index(paths, str(error)) from error


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and entry.get("mediaType") in image_spec.MANIFEST_TYPES
        and image_spec.is_digest(entry.get("digest"))
        and isinstance(entry.get("annotations", {}), dict)
    )


def _is_list(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and entry.get("mediaType") in image_spec.INDEX_TYPES
        and image_spec.is_digest(entry.get("digest"))
        and isinstance(entry.get("annotations", {}), dict)
    )


def _broken_index(paths: Paths, why: str) -> ImageError:
    path = f"{paths.images}/index.json"
    return ImageError(f"{path} is damaged: {why}", hint="rp fsck --repair")
