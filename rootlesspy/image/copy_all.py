"""Copying an index with all its images, or the index alone, from any place to any other."""

from __future__ import annotations

import contextlib

from rootlesspy.errors import UsageError
from rootlesspy.image import files, group, lists, push, save
from rootlesspy.image.copy import (
    ALL,
    admit,
    check_preserved,
    compression_for,
    layout_entries,
    target_of,
)
from rootlesspy.image.lookup import Finder
from rootlesspy.image.place import REGISTRY, STORE, Place
from rootlesspy.image.reference import parse
from rootlesspy.image.tarwrite import TarWriter
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootlesspy.image.copy import Trip
    from rootlesspy.image.group import Group
    from rootlesspy.image.saved import Original
    from rootlesspy.image.writer import Writer

_OCI = ("oci", "oci-archive")


def copy(writer: Writer, source: Place, destination: Place, trip: Trip) -> str | None:
    """Copy an index; return its digest at the destination, None when the source is one image.

    Raises what copy.copy() raises.
    """
    with opened(source, trip) as found:
        return None if found is None else deliver(writer, found, destination, trip)


@contextlib.contextmanager
def opened(place: Place, trip: Trip) -> Iterator[Group | None]:
    """Find the index of a place; None for one image.  Raises NotFound, ImageError, …"""
    whole = trip.multi_arch == ALL
    if place.transport == STORE:
        found = lists.named(trip.paths, place.name)
        if found is None:
            yield None
        else:
            yield group.of_store(trip.paths, found.data, found.media_type, whole=whole)
    elif place.transport == REGISTRY:
        reference = parse(place.name)
        finder = Finder(
            trip.source_client, trip.settings, trip.reporter, insecure=trip.insecure_source
        )
        found_there = group.of_registry(trip.source_client, finder, reference, whole=whole)
        if found_there is not None:
            for each in _judged(found_there):
                admit(each, place, trip, source=found_there.sources[0])
        yield found_there
    else:
        with files.Opened(trip.paths, place.path) as archive:
            saved_there = group.of_files(archive.files, place.name or None, whole=whole)
            for each in _judged(saved_there):
                admit(each, place, trip, archive=archive.files)
            yield saved_there


def _judged(found: Group | None) -> Iterator[Original | Group]:
    """Yield what a signature policy judges: the images of an index, or it alone when it goes."""
    if found is not None and not found.instances:
        yield found
    elif found is not None:
        yield from (each.original for each in found.instances)


def deliver(writer: Writer, found: Group, destination: Place, trip: Trip) -> str:
    """Write an index and its images to a place; return its digest there."""
    made = _made(found, destination, trip)
    if trip.preserve:
        check_preserved(found.digest, made.digest)
    if destination.transport == REGISTRY:
        _to_registry(made, destination, trip)
    elif destination.transport == STORE:
        for image in made.instances:
            group.keep(trip.paths, trip.maps, writer, image, trip.progress)
        lists.put(writer, trip.paths, destination.name, made.data, made.media_type)
    else:
        _to_files(made, destination)
    return made.digest


def _made(found: Group, destination: Place, trip: Trip) -> Group:
    """Return an index as it is to be written.  Raises UsageError."""
    if destination.transport == "docker-archive":
        raise UsageError(f"{destination}: docker-archive: holds no images of several platforms")
    wants_docker = trip.manifest == "v2s2"
    if wants_docker and destination.transport in _OCI:
        raise UsageError(f"--format v2s2: {destination.transport}: holds OCI images only")
    if trip.manifest or (destination.transport in _OCI and not _is_oci(found)):
        if trip.multi_arch != ALL:
            raise UsageError("--multi-arch=index-only copies an index as it is")
        found = group.converted(found, docker=wants_docker)
    form, level, force = compression_for(destination, trip.compression)
    if not form:
        return found
    return group.compressed(trip.paths, found, form, level, force=force)


def _is_oci(found: Group) -> bool:
    types = {image.original.manifest.media_type for image in found.instances}
    return found.media_type == image_spec.INDEX and types <= {image_spec.MANIFEST}


def _to_registry(made: Group, destination: Place, trip: Trip) -> None:
    reference = parse(destination.name)
    if reference.digest not in (None, made.digest):
        raise UsageError(
            f"{destination}: the index's digest is {made.digest}", hint="leave the digest out"
        )
    group.to_registry(
        trip.client,
        made,
        target_of(reference, trip.settings, trip.insecure),
        reference.tag or made.digest,
        elsewhere=push.repositories(trip.paths, reference.registry, reference.repository),
        progress=trip.progress,
    )


def _to_files(made: Group, destination: Place) -> None:
    path, name = destination.path, destination.name
    if destination.transport == "dir":
        group.to_directory(save.DirectoryTarget(path), made)
    elif destination.transport == "oci":
        old = layout_entries(path)
        group.to_layout(save.DirectoryTarget(path, add=bool(old)), made, name, old)
    else:
        save.write_file(path, lambda fd: _write_archive(TarWriter(fd), made, name))


def _write_archive(tar: TarWriter, made: Group, name: str) -> None:
    for directory in ("blobs", "blobs/sha256"):
        tar.add_directory(directory)
    group.to_layout(tar, made, name, [])
    tar.finish()
