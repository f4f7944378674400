"""Bringing saved images into the store: `rp load`, and `rp pull` from archives."""

from __future__ import annotations

from rootlesspy.image import saved
from rootlesspy.image.documents import Described, has_digest
from rootlesspy.image.files import Opened, Saved
from rootlesspy.image.reference import parse
from rootlesspy.image.trust import gate
from rootlesspy.image.writer import Writer, jobs_for
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.settings import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.image.files import Files
    from rootlesspy.image.place import Place
    from rootlesspy.image.progress import Progress
    from rootlesspy.image.saved import Original
    from rootlesspy.image.store import Image
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


def load(writer: Writer, files: Files, original: Original, names: Sequence[str]) -> Image:
    """Store an image of an archive or directory under its names.

    Raises ImageError for content that is not what its digest says, NotFound for a blob that is
    missing, Unsupported, Error, OSError.
    """
    config_digest = original.manifest.config.digest
    if original.is_made_up and has_digest(original.config_data, config_digest):
        known = writer.known(config_digest)
        if known is not None:
            # The same configuration promises the same layers: they are here, as they were pulled.
            return writer.name(known, names)
    jobs = jobs_for(original.manifest.layers, original.diff_ids, writer.vouched())
    origin = Saved(files, original.blobs)
    writer.make_layers(jobs, origin, (Source(files.where, "", False),))
    described = Described(
        original.data, original.digest, original.manifest.media_type, original.config_data
    )
    return writer.commit(described, names, index_digest=original.index_digest)


def pull(
    place: Place,
    *,
    paths: Paths,
    maps: IdMaps,
    platform: str | None,
    progress: Progress,
    reporter: Reporter,
    signature_policy: str | None = None,
) -> list[Image]:
    """Store what an archive or directory holds, under the names that podman pull gives it.

    Those of archives are what the archive says; a layout's is the one that was typed, and without
    one, or from dir:, an image has none.  Raises NotFound, ImageError, Error, OSError.
    """
    with (
        Writer(paths, maps, reporter, progress) as writer,
        Opened(paths, place.path) as opened,
    ):
        found = saved.images(opened.files, platform, place.name or None)
        trust = gate.load(paths, reporter, signature_policy)
        for each in found:
            trust.admit_files(place.transport, place.path, opened.files, each.data, each.digest)
        typed = [str(parse(place.name))] if place.name else []
        return [
            load(
                writer,
                opened.files,
                each,
                typed if place.transport in ("oci", "dir") else each.names,
            )
            for each in found
        ]
