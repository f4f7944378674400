"""Copying an image from any place to any other; its configuration stays byte for byte."""

from __future__ import annotations

import contextlib
import os

from rootlesspy.errors import Conflict, ImageError, UsageError
from rootlesspy.image import compress, files, push, save, saved
from rootlesspy.image.documents import Described
from rootlesspy.image.lookup import Finder
from rootlesspy.image.place import REGISTRY, STORE, Place
from rootlesspy.image.reference import parse, parse_local
from rootlesspy.image.store import Store
from rootlesspy.image.tarwrite import TarWriter
from rootlesspy.image.trust import gate
from rootlesspy.image.writer import Writer, jobs_for
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.oci import image_spec
from rootlesspy.settings import Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootlesspy.image.files import Files
    from rootlesspy.image.group import Group
    from rootlesspy.image.progress import Progress
    from rootlesspy.image.reference import Reference
    from rootlesspy.image.registry import Client
    from rootlesspy.image.save import Copyable
    from rootlesspy.image.saved import Original
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter
    from rootlesspy.settings import Settings


SYSTEM, ALL, INDEX_ONLY = MULTI_ARCH = ("system", "all", "index-only")


class Compression(NamedTuple):
    """How layers are written: plain ones compressed, others only with force.

    form "" is gzip for a registry and nothing elsewhere; "none" decompresses.
    """

    form: str = ""
    level: int | None = None
    force: bool = False


_OCI = ("oci", "oci-archive")


class Trip(NamedTuple):
    """What a copy needs besides its two places.

    insecure: whether TLS may fail, None as registries.conf says, for source and destination.
    manifest: "oci", "v2s2" or "" for the kind that the source has.
    multi_arch: of an index the image for the platform, all of it, or the index alone.
    preserve: whether a digest that would change is an error.
    signature_policy: a file in place of the policy.json that is configured.
    """

    paths: Paths
    settings: Settings
    maps: IdMaps
    progress: Progress
    reporter: Reporter
    source_client: Client
    client: Client
    insecure_source: bool | None = None
    insecure: bool | None = None
    platform: str | None = None
    manifest: str = ""
    compression: Compression = Compression()
    multi_arch: str = SYSTEM
    preserve: bool = False
    signature_policy: str | None = None


def copy(source: Place, destination: Place, trip: Trip) -> str:
    """Copy one image; return the digest of the manifest that it has at its destination.

    Raises NotFound, UsageError, Conflict, ImageError, RegistryError, Error, OSError.
    """
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(Writer(trip.paths, trip.maps, trip.reporter, trip.progress))
        if trip.multi_arch != SYSTEM:
            from rootlesspy.image import copy_all

            digest = copy_all.copy(writer, source, destination, trip)
            if digest is not None:
                return digest
        image = stack.enter_context(opened(source, trip))
        made = _made(image, destination, trip)
        if trip.preserve:
            check_preserved(image.original.digest, made.original.digest, made_up=made.original)
        if destination.transport == STORE:
            return _to_store(writer, made, destination)
        if destination.transport == REGISTRY:
            return _to_registry(made, destination, trip)
        return _to_files(made, destination)


def check_preserved(old: str, new: str, *, made_up: Original | None = None) -> None:
    """Refuse to change a digest.  Raises UsageError."""
    if old != new or (made_up is not None and made_up.is_made_up):
        raise UsageError(
            f"--preserve-digests: {old} would become another manifest",
            hint="leave out --format and compression, or choose another kind of destination",
        )


def _made(image: Copyable, destination: Place, trip: Trip) -> Copyable:
    """Return the image as it is to be written: its kind of manifest, its compression."""
    if trip.manifest or destination.transport in _OCI:
        if trip.manifest == "v2s2" and destination.transport in _OCI:
            raise UsageError(f"--format v2s2: {destination.transport}: holds OCI images only")
        convert = save.as_docker if trip.manifest == "v2s2" else save.as_oci
        image = image._replace(original=convert(image.original))
    form, level, force = compression_for(destination, trip.compression)
    if not form:
        return image
    return compress.compressed(trip.paths, image, form, level, force=force)


def compression_for(destination: Place, asked: Compression) -> Compression:
    """Return how layers are written at a place.  Raises UsageError."""
    if asked.form and destination.transport in (STORE, "docker-archive"):
        raise UsageError(f"{destination}: layers are not compressed anew there")
    if not asked.form and destination.transport == REGISTRY:
        return asked._replace(form="gzip")
    return asked


@contextlib.contextmanager
def opened(place: Place, trip: Trip) -> Iterator[Copyable]:
    """Find the image of a place.  Raises NotFound, ImageError, UsageError, RegistryError."""
    if place.transport == STORE:
        image = Store(trip.paths).resolve(place.name, trip.platform)
        yield save.stored(trip.paths, image)
        return
    if place.transport == REGISTRY:
        found_there = _remote(place, trip)
        admit(found_there.original, place, trip, source=found_there.sources[0])
        yield found_there
        return
    with files.Opened(trip.paths, place.path) as opened:
        found = saved.images(opened.files, trip.platform, place.name or None)
        if len(found) > 1:
            names = sorted(name for each in found for name in each.names)
            raise UsageError(
                f"{place} holds {len(found)} images", hint=f"name one: {', '.join(names)}"
            )
        origin = files.Saved(opened.files, found[0].blobs)
        admit(found[0], place, trip, archive=opened.files)
        yield save.Copyable(found[0], origin, (Source(place.path, "", False),))


def admit(
    what: Original | Group,
    place: Place,
    trip: Trip,
    *,
    source: Source | None = None,
    archive: Files | None = None,
) -> None:
    """Refuse what the signature policy does not accept from a place: a registry or an archive.

    Raises ImageError, UsageError, RegistryError, Unsupported.
    """
    trust = gate.load(trip.paths, trip.reporter, trip.signature_policy)
    if archive is not None:
        trust.admit_files(place.transport, place.path, archive, what.data, what.digest)
    elif source is not None:
        reference = parse(place.name)
        client = trip.source_client
        trust.admit_remote(reference, lambda: client, source, what.data, what.digest)


def _remote(place: Place, trip: Trip) -> Copyable:
    reference = parse(place.name)
    settings = trip.settings
    finder = Finder(trip.source_client, settings, trip.reporter, insecure=trip.insecure_source)
    remote = finder.look_up(reference, trip.platform)
    original = saved.Original(
        remote.data, remote.digest, remote.manifest, remote.config_data, remote.config, {},
        (str(reference),), remote.index_digest,
    )  # fmt: skip
    return save.Copyable(original, trip.source_client, remote.sources)


def _to_store(writer: Writer, image: Copyable, destination: Place) -> str:
    original = image.original
    jobs = jobs_for(original.manifest.layers, original.diff_ids, writer.vouched())
    writer.make_layers(jobs, image.origin, image.sources)
    described = Described(
        original.data, original.digest, original.manifest.media_type, original.config_data
    )
    name = str(parse_local(destination.name))
    return writer.commit(described, [name], index_digest=original.index_digest).digest


def _to_registry(image: Copyable, destination: Place, trip: Trip) -> str:
    reference = parse(destination.name)
    target = target_of(reference, trip.settings, trip.insecure)
    if reference.digest not in (None, image.original.digest):
        raise UsageError(
            f"{destination}: the image's digest is {image.original.digest}",
            hint="leave the digest out",
        )
    return push.push(
        trip.client,
        image,
        target,
        reference.tag or image.original.digest,
        elsewhere=push.repositories(trip.paths, reference.registry, reference.repository),
        progress=trip.progress,
    )


def target_of(reference: Reference, settings: Settings, insecure: bool | None) -> Source:
    """Return where a name is pushed to: its own place, never a mirror."""
    target = settings.sources(reference.name, by_digest=False)[-1]
    return target if insecure is None else target._replace(insecure=insecure)


def _to_files(image: Copyable, destination: Place) -> str:
    path, name = destination.path, destination.name
    names = [name] if name else []
    if destination.transport == "dir":
        save.directory(save.DirectoryTarget(path), image)
        return image.original.digest
    if destination.transport == "oci":
        _to_layout(image, path, names)
    elif destination.transport == "oci-archive":
        save.write_file(path, lambda fd: save.oci_archive(TarWriter(fd), [(image, names)]))
    else:
        if os.path.isfile(path) and os.path.getsize(path):
            raise Conflict(f"{path} exists already", hint=f"rm {path}")
        full = [str(parse(each)) for each in names]
        save.write_file(path, lambda fd: save.docker_archive(TarWriter(fd), [(image, full)]))
        return image.original.digest
    return save.as_oci(image.original).digest


def _to_layout(image: Copyable, path: str, names: list[str]) -> None:
    """Write to an OCI layout, beside the images that it holds."""
    old = layout_entries(path)
    target = save.DirectoryTarget(path, add=bool(old))
    save.oci_layout(target, [(image, names)], old=old)


def layout_entries(path: str) -> list[dict[str, object]]:
    """Return what the index of a layout lists; nothing where there is none.  Raises ImageError."""
    old: list[dict[str, object]] = []
    index = os.path.join(path, "index.json")
    if os.path.exists(os.path.join(path, "oci-layout")) and os.path.exists(index):
        try:
            with open(index, "rb") as file:
                data = file.read(image_spec.MAX_DOCUMENT_BYTES + 1)
            image_spec.parse_index(data, None)
            old = json.loads(data)["manifests"]
        except image_spec.MalformedError as error:
            raise ImageError(f"{index}: {error}") from error
    return old
