"""`rp image verify` and `rp run --verify-always`: an image's files against its digests."""

from __future__ import annotations

import os

from rootlesspy.engine import idmap
from rootlesspy.errors import ImageError, NotFound
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.image.store import Image
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


def verify(paths: Paths, name: str) -> tuple[Image, int]:
    """Verify an image that is here; return it with the number of its layers.

    Raises ImageError when something is not what its digest says, NotFound, Unsupported, OSError.
    """
    from rootlesspy.image import verify as content
    from rootlesspy.image.store import Store

    store = Store(paths)
    hold_fd = store.hold()
    try:
        image = store.resolve(name)
        return image, content.check(paths, image, idmap.default_maps())
    finally:
        if hold_fd is not None:
            os.close(hold_fd)


def check(paths: Paths, found: ContainerRecord, maps: IdMaps, reporter: Reporter) -> None:
    """Verify the image that a container stands on, in a process of its own.

    Raises ImageError, Unsupported, OSError.
    """
    if not found.image_id:
        return
    from rootlesspy.image import children

    reporter.step(f"verify image {found.image}")
    # What it imports is gone before the container starts.
    children.wait(children.fork(lambda: _check(paths, found, maps)))


def _check(paths: Paths, found: ContainerRecord, maps: IdMaps) -> None:
    from rootlesspy.image import verify as content
    from rootlesspy.image.store import Store

    store = Store(paths)
    try:
        image = store.resolve(found.image_id)
    except NotFound:
        raise ImageError(
            f"image {found.image} of container {found.name} cannot be verified: it is not here "
            "any more",
            hint=f"rp pull {found.image}",
        ) from None
    layers = store.layers(image, maps)
    listed = found.storage.get("lower")
    if found.storage["kind"] != "copy" and (layers is None or list(layers) != listed):
        raise ImageError(f"container {found.name} does not stand on the layers of its image")
    content.check(paths, image, maps)
