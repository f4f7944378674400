"""Bringing saved images into the store: `rp load`, and `rp copy` from archives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootlesspy.image.documents import Described, has_digest
from rootlesspy.image.files import Saved
from rootlesspy.image.writer import jobs_for
from rootlesspy.settings import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.image.files import Files
    from rootlesspy.image.saved import Original
    from rootlesspy.image.store import Image
    from rootlesspy.image.writer import Writer


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
