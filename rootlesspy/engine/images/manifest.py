"""`rp manifest`: lists of images for several platforms, made, changed and sent.

What is added is kept in the store whole, so that a list can be copied and pushed wherever its
images came from.
"""

from __future__ import annotations

from rootlesspy.engine.images import image_removal
from rootlesspy.errors import Conflict, NotFound, UsageError
from rootlesspy.image import copy, copy_all, group, lists, manifest_list
from rootlesspy.image.place import REGISTRY, STORE, parse_place
from rootlesspy.image.store import Store
from rootlesspy.image.writer import Writer
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.image.copy import Trip
    from rootlesspy.image.lists import ManifestList
    from rootlesspy.image.manifest_list import Change, Document
    from rootlesspy.image.place import Place


def create(
    trip: Trip,
    name: str,
    sources: Sequence[str],
    *,
    amend: bool,
    everything: bool,
    annotations: Sequence[tuple[str, str]],
) -> ManifestList:
    """Make a list of images; with amend one that is here already gets them.

    Raises Conflict for a name that is in use, NotFound, UsageError, ImageError, RegistryError.
    """
    found = lists.named(trip.paths, name)
    if found is not None and not amend:
        raise Conflict(f"the name {name} is in use", hint=f"--amend, or rp manifest rm {name}")
    with Writer(trip.paths, trip.maps, trip.reporter, trip.progress) as writer:
        entries = [
            entry
            for source in sources
            for entry in _kept(writer, trip, source, everything=everything)
        ]

        def changed(document: Document) -> Document:
            if annotations:
                document = manifest_list.with_annotations(document, annotations)
            return manifest_list.with_entries(document, entries)

        if found is not None:
            made = lists.change(writer, trip.paths, found, changed)
        else:
            made = lists.create(writer, trip.paths, name, changed(manifest_list.empty()))
    image_removal.collect(trip.paths)
    return made


def add(
    trip: Trip, name: str, sources: Sequence[str], *, everything: bool, change: Change
) -> ManifestList:
    """Add images to a list, described as change says.

    Raises NotFound, UsageError, ImageError, RegistryError.
    """
    found = lists.resolve(trip.paths, name)
    with Writer(trip.paths, trip.maps, trip.reporter, trip.progress) as writer:
        entries = [
            manifest_list.described(entry, change)
            for source in sources
            for entry in _kept(writer, trip, source, everything=everything)
        ]
        made = lists.change(
            writer,
            trip.paths,
            found,
            lambda document: manifest_list.with_entries(document, entries),
        )
    # What the list was before.
    image_removal.collect(trip.paths)
    return made


def annotate(
    trip: Trip, name: str, image: str | None, change: Change, *, index: bool
) -> ManifestList:
    """Say other things of an image of a list, named by digest or by a name it has here.

    With index the annotations are the list's own.  Raises NotFound, UsageError, ImageError.
    """
    found = lists.resolve(trip.paths, name)

    def changed(document: Document) -> Document:
        if index:
            document = manifest_list.with_annotations(document, change.annotations)
        if image is None:
            return document
        about = change._replace(annotations=()) if index else change
        return manifest_list.annotated(document, _digest(trip, image), about)

    with Writer(trip.paths, trip.maps, trip.reporter) as writer:
        made = lists.change(writer, trip.paths, found, changed)
    image_removal.collect(trip.paths)
    return made


def take_out(trip: Trip, name: str, digest: str) -> ManifestList:
    """Take an image out of a list.  Raises NotFound, UsageError for what is no digest."""
    found = lists.resolve(trip.paths, name)
    if not image_spec.is_digest(digest):
        raise UsageError(f"{digest!r} is not a digest", hint=f"rp manifest inspect {name}")
    with Writer(trip.paths, trip.maps, trip.reporter) as writer:
        made = lists.change(
            writer,
            trip.paths,
            found,
            lambda document: manifest_list.without(document, digest),
        )
    image_removal.collect(trip.paths)
    return made


def inspect(trip: Trip, name: str) -> Document:
    """Return the index that a name means, here or else in its registry; an image's manifest too.

    Raises NotFound, UsageError for an image that is here, RegistryError, ImageError.
    """
    place = parse_place(name)
    if place.transport == STORE:
        found = lists.named(trip.paths, name)
        if found is not None:
            return manifest_list.shown(found.document())
        place = place._replace(transport=REGISTRY)
    if place.transport != REGISTRY:
        raise UsageError(f"{name} is neither here nor in a registry")
    return _remote(trip, place)


def _remote(trip: Trip, place: Place) -> Document:
    from rootlesspy.image.lookup import Finder
    from rootlesspy.image.reference import parse

    finder = Finder(trip.client, trip.settings, trip.reporter, insecure=trip.insecure)
    document, _ = finder.top(parse(trip.settings.resolve_alias(place.name)))
    if document.media_type in image_spec.INDEX_TYPES:
        return manifest_list.shown(manifest_list.parse(document.data, document.media_type))
    trip.reporter.notice(f"{place.name} is one image, not a manifest list")
    return image_spec.parse_document(document.data, "manifest")


def push(trip: Trip, name: str, destination: str | None) -> tuple[ManifestList, str]:
    """Send a list with its images; return it and its digest there.

    Raises NotFound, UsageError, ImageError, RegistryError.
    """
    found = lists.resolve(trip.paths, name)
    where = destination or (found.names[0] if found.names else None)
    if where is None:
        raise UsageError(
            f"manifest list {name} is to be pushed, but where", hint=f"rp manifest push {name} NAME"
        )
    target = parse_place(where, plain=REGISTRY)
    whole = trip.multi_arch == copy.ALL
    index = group.of_store(trip.paths, found.data, found.media_type, whole=whole)
    with Writer(trip.paths, trip.maps, trip.reporter, trip.progress) as writer:
        return found, copy_all.deliver(writer, index, target, trip)


def _kept(writer: Writer, trip: Trip, source: str, *, everything: bool) -> list[Document]:
    """Put what a list is to hold into the store; return how the list describes it."""
    place = parse_place(source)
    if place.transport == STORE and not _is_here(trip, source):
        # As podman: a plain name that is not here is one in a registry.
        place = place._replace(transport=REGISTRY, name=trip.settings.resolve_alias(source))
    trip = trip._replace(multi_arch=copy.ALL)
    if everything:
        with copy_all.opened(place, trip) as found:
            if found is not None:
                for image in found.instances:
                    group.keep(trip.paths, trip.maps, writer, image, trip.progress)
                return list(found.document()["manifests"])
    with copy.opened(place, trip) as image:
        group.keep(trip.paths, trip.maps, writer, image, trip.progress)
        return [group.of_image(image)]


def _is_here(trip: Trip, name: str) -> bool:
    if lists.named(trip.paths, name) is not None:
        return True
    try:
        Store(trip.paths).resolve(name)
    except NotFound:
        return False
    return True


def _digest(trip: Trip, image: str) -> str:
    if image_spec.is_digest(image):
        return image
    return Store(trip.paths).resolve(image).digest
