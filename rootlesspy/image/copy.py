"""Copying an image from any place to any other; its configuration stays byte for byte."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, NamedTuple

from rootlesspy.errors import Conflict, ImageError, UsageError
from rootlesspy.image import compress, files, push, save, saved
from rootlesspy.image.documents import Described
from rootlesspy.image.lookup import Finder
from rootlesspy.image.place import REGISTRY, STORE, Place
from rootlesspy.image.reference import parse, parse_local
from rootlesspy.image.store import Store
from rootlesspy.image.tarwrite import TarWriter
from rootlesspy.image.writer import Writer, jobs_for
from rootlesspy.oci import image_spec
from rootlesspy.settings import Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootlesspy.image.progress import Progress
    from rootlesspy.image.reference import Reference
    from rootlesspy.image.registry import Client
    from rootlesspy.image.save import Copyable
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter
    from rootlesspy.settings import Settings


class Compression(NamedTuple):
    """How layers are sent to a registry: plain ones always compressed, others only with force."""

    form: str = "gzip"
    level: int | None = None
    force: bool = False


class Trip(NamedTuple):
    """What a copy needs besides its two places.

    insecure: whether TLS may fail, None as registries.conf says, for source and destination.
    manifest: "oci", "v2s2" or "" for the kind that the source has.
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


def copy(source: Place, destination: Place, trip: Trip) -> str:
    """Copy one image; return the digest of the manifest that it has at its destination.

    Raises NotFound, UsageError, Conflict, ImageError, RegistryError, Error, OSError.
    """
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(Writer(trip.paths, trip.maps, trip.reporter, trip.progress))
        image = stack.enter_context(_opened(source, trip))
        if trip.manifest:
            convert = save.as_oci if trip.manifest == "oci" else save.as_docker
            image = image._replace(original=convert(image.original))
        if destination.transport == STORE:
            return _to_store(writer, image, destination)
        if destination.transport == REGISTRY:
            return _to_registry(image, destination, trip)
        return _to_files(image, destination)


@contextlib.contextmanager
def _opened(place: Place, trip: Trip) -> Iterator[Copyable]:
    """Find the image of a place.  Raises NotFound, ImageError, UsageError, RegistryError."""
    if place.transport == STORE:
        yield save.stored(trip.paths, Store(trip.paths).resolve(place.name))
        return
    if place.transport == REGISTRY:
        yield _remote(place, trip)
        return
    with files.Opened(trip.paths, place.path) as opened:
        found = saved.images(opened.files, trip.platform, place.name or None)
        if len(found) > 1:
            names = sorted(name for each in found for name in each.names)
            raise UsageError(
                f"{place} holds {len(found)} images", hint=f"name one: {', '.join(names)}"
            )
        origin = files.Saved(opened.files, found[0].blobs)
        yield save.Copyable(found[0], origin, (Source(place.path, "", False),))


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
    form, level, force = trip.compression
    image = compress.compressed(trip.paths, image, form, level, force=force)
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
    target = save.DirectoryTarget(path, add=bool(old))
    save.oci_layout(target, [(image, names)], old=old)
