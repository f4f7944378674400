"""The images that are here: from a name to a configuration and the directories of its layers.

Hot path of `rp run`: three small files are read and nothing heavy is imported.  An image is listed
only when all its blobs are verified and all its layers were unpacked (pull.py); how things lie on
disk is in layout.py.
"""

from __future__ import annotations

import os

from rootlesspy.errors import ImageError, NotFound, UsageError
from rootlesspy.image import layout
from rootlesspy.image.reference import Reference, candidates, is_image_id
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rootlesspy.image.layout import IndexEntry
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.oci.image_spec import ImageConfig
    from rootlesspy.paths import Paths

# Shorter prefixes of ids would be hit by names: "cafe" is one, "a" is many.
_MIN_ID_PREFIX = 4
_HEX = frozenset("0123456789abcdef")


class Image(NamedTuple):
    """One image of one platform.  id is the digest of its configuration, digest its manifest's."""

    id: str
    digest: str
    names: tuple[str, ...]
    config: ImageConfig
    diff_ids: tuple[str, ...]
    size_bytes: int
    created_s: float
    platform: str


class Removal(NamedTuple):
    """What Store.remove() did: the names taken away, and whether the image went with them."""

    untagged: tuple[str, ...]
    deleted: str | None


class Store:
    """The images of one user.  Making it touches nothing."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def resolve(self, text: str, platform: str | None = None) -> Image:
        """Return the image that a name, digest, id or unique beginning of an id means.

        Of a manifest list it is the one for platform, this machine's when None.  Raises NotFound;
        UsageError for an ambiguous id or what cannot be a name; ImageError where the store is
        damaged or a list has no such image.
        """
        entries = layout.read_index(self._paths)
        if not is_image_id(text):
            entry = find_typed(entries, text)
            if entry is not None:
                return self._load(entry, entries)
        listed = self._of_list(text, platform, entries)
        if listed is not None:
            return listed
        prefix = text.removeprefix("sha256:")
        if _is_hex(prefix) and len(prefix) >= _MIN_ID_PREFIX:
            found = self._find_by_id(entries, prefix)
            if found is not None:
                return found
        raise NotFound(f"no image {text} here", hint=f"rp pull {text}")

    def by_digest(self, digest: str) -> Image:
        """Return the image whose manifest has this digest.  Raises NotFound, ImageError."""
        entries = layout.read_index(self._paths)
        for entry in entries:
            if entry["digest"] == digest:
                return self._load(entry, entries)
        raise NotFound(f"no image {digest} here", hint="rp images --digests")

    def images(self) -> list[Image]:
        """Return all images, one for each manifest, in the order of the index.

        Damaged ones are left out: one bad blob must not hide the rest.
        """
        entries = layout.read_index(self._paths)
        found = []
        for entry in {entry["digest"]: entry for entry in entries}.values():
            try:
                found.append(self._load(entry, entries))
            except ImageError:
                continue
        return found

    def layers(self, image: Image, maps: IdMaps) -> tuple[str, ...] | None:
        """Return the directories of an image's layers, base first.

        None when they were not all unpacked for these id maps: pull.ensure() makes them.
        """
        suffix = layout.maps_suffix(self._paths, maps)
        found: list[str] = []
        for diff_id in image.diff_ids:
            directory = layout.layer_directory(self._paths, diff_id, suffix)
            if os.path.isdir(f"{directory}/diff"):
                found.append(f"{directory}/diff")
            elif os.path.isdir(f"{directory}/opaque"):
                # It hides all that is below it; overlayfs knows no such mark on a whole layer.
                found = [f"{directory}/opaque"]
            else:
                return None
        return tuple(found)

    def remove(
        self, text: str, *, force: bool = False, in_use: Callable[[], Collection[str]] = tuple
    ) -> Removal:
        """Take a name away, and with its last name the image.

        With an id, or force, all names go.  in_use returns the layer directories that containers
        stand on: asked while nobody can start one (see hold()), and never removed.  Raises
        NotFound, Conflict when an id has several names and force is not given.
        """
        from rootlesspy.image import removal  # cold: only rp rmi

        return removal.remove(self._paths, self.resolve(text), text, force=force, in_use=in_use)

    def forget(self, image: Image) -> None:
        """Take an image with all its names from the list; its content goes by collect().

        Raises NotFound when it is not listed any more, ImageError, OSError.
        """

        def without(entries: list[IndexEntry]) -> list[IndexEntry]:
            left = [entry for entry in entries if entry["digest"] != image.digest]
            if len(left) == len(entries):
                raise NotFound(f"image {image.id} is not here any more", hint="rp images")
            return left

        layout.update_index(self._paths, without)

    def collect(self, in_use: Callable[[], Collection[str]]) -> None:
        """Remove what no image needs and no container stands on; see remove().

        Does nothing while somebody pulls an image or starts a container.
        """
        from rootlesspy.image import removal  # cold: only what removes

        if os.path.isdir(self._paths.layers):
            removal.collect(self._paths, in_use)

    def hold(self) -> int | None:
        """Keep content from being removed until the returned descriptor is closed.

        To be held from resolve() until what uses the layers is on record.  None where there is no
        store yet.
        """
        try:
            return layout.hold(self._paths, exclusive=False)
        except FileNotFoundError:
            return None

    def _find_by_id(self, entries: list[IndexEntry], prefix: str) -> Image | None:
        found: dict[str, Image] = {}
        for entry in entries:
            try:
                manifest = self._manifest(entry["digest"])
            except ImageError:
                continue
            encoded = manifest.config.digest.partition(":")[2]
            if encoded.startswith(prefix) and encoded not in found:
                found[encoded] = self._load(entry, entries)
        if len(found) > 1:
            raise UsageError(f"image id {prefix} is ambiguous: {', '.join(sorted(found))}")
        return next(iter(found.values()), None)

    def _of_list(self, text: str, platform: str | None, entries: list[IndexEntry]) -> Image | None:
        """Return the image of a manifest list for a platform; None when text means no list."""
        if not layout.read_lists(self._paths):
            return None
        from rootlesspy.image import lists  # cold: no list is here, mostly

        found = lists.find(self._paths, text)
        if found is None:
            return None
        chosen = lists.chosen(found, platform)
        entry: IndexEntry = {"mediaType": chosen.media_type, "digest": chosen.digest}
        return self._load(
            next((each for each in entries if each["digest"] == chosen.digest), entry), entries
        )

    def _manifest(self, digest: str) -> image_spec.Manifest:
        try:
            return image_spec.parse_manifest(layout.read_blob(self._paths, digest))
        except image_spec.MalformedError as error:
            raise ImageError(f"blob {digest} of the store: {error}") from error

    def _load(self, entry: IndexEntry, entries: list[IndexEntry]) -> Image:
        """Read manifest and configuration of an entry.  Raises ImageError."""
        digest = entry["digest"]
        manifest = self._manifest(digest)
        data = layout.read_blob(self._paths, manifest.config.digest)
        try:
            config = image_spec.parse_config(data)
        except image_spec.MalformedError as error:
            raise ImageError(f"blob {manifest.config.digest} of the store: {error}") from error
        size = entry.get("annotations", {}).get(layout.SIZE, "")
        return Image(
            id=manifest.config.digest,
            digest=digest,
            names=names_of(entries, digest),
            config=config,
            diff_ids=tuple(config["rootfs"]["diff_ids"]),
            size_bytes=(
                int(size)
                if size.isascii() and size.isdigit()
                else sum(layer.size for layer in manifest.layers)
            ),
            # Reproducible builds say year 1.
            created_s=max(parse_time(config.get("created", "")), 0.0),
            platform=image_spec.platform_of(config),
        )


def find_entry(entries: list[IndexEntry], reference: Reference) -> IndexEntry | None:
    """Return the entry of a reference: by its digest, by its name, or by an alias of it."""
    if reference.digest is not None:
        for entry in entries:
            digests = (entry["digest"], entry.get("annotations", {}).get(layout.INDEX_DIGEST))
            if reference.digest in digests and _is_of(entry, reference.name):
                return entry
        return None
    text = str(reference)
    for key in (image_spec.REF_NAME, layout.ALIAS):
        for entry in entries:
            if entry.get("annotations", {}).get(key) == text:
                return entry
    return None


def find_typed(entries: list[IndexEntry], text: str) -> IndexEntry | None:
    """Return the entry that a typed name means.  Raises UsageError for what cannot be a name."""
    for reference in candidates(text):
        entry = find_entry(entries, reference)
        if entry is not None:
            return entry
    return None


def names_of(entries: list[IndexEntry], digest: str) -> tuple[str, ...]:
    """Return all names of the manifest with this digest."""
    names = [
        entry.get("annotations", {}).get(image_spec.REF_NAME, "")
        for entry in entries
        if entry["digest"] == digest
    ]
    return tuple(name for name in names if name)


def parse_time(text: str) -> float:
    """Return the Unix time of an RFC 3339 date, 0.0 for anything else; no datetime on this path."""
    date, _, clock = text.upper().partition("T")
    zone = clock[-6:] if clock[-6:-5] in ("+", "-") else ""
    clock = clock.removesuffix(zone or "Z")
    seconds, _, fraction = clock.partition(".")
    fields = (*date.split("-"), *seconds.split(":"), *(zone[1:].split(":") if zone else ("0", "0")))
    if len(fields) != 8 or not all(f.isascii() and f.isdigit() for f in (*fields, fraction or "0")):
        return 0.0
    year, month, day, hours, minutes, secs, zone_hours, zone_minutes = map(int, fields)
    offset = (zone_hours * 60 + zone_minutes) * (-60 if zone.startswith("-") else 60)
    # Days since 1970-01-01 of a Gregorian date whose year begins in March.
    year, month = (year - 1, month + 9) if month < 3 else (year, month - 3)
    days = (
        365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 719469
    )
    return (
        days * 86400.0 + hours * 3600 + minutes * 60 + secs + float(f"0.{fraction or 0}") - offset
    )


def _is_of(entry: IndexEntry, name: str) -> bool:
    """Say whether an entry was pulled from the repository that name is."""
    annotations = entry.get("annotations", {})
    for key in (image_spec.REF_NAME, layout.ALIAS):
        text = annotations.get(key, "").partition("@")[0]
        head, colon, tail = text.rpartition(":")
        if name == (head if colon and "/" not in tail else text):
            return True
    return False


def _is_hex(text: str) -> bool:
    return bool(text) and _HEX.issuperset(text)
