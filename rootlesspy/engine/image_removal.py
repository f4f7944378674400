"""Removing images without taking them from under a container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootlesspy.engine import lifecycle
from rootlesspy.errors import Conflict
from rootlesspy.image.store import Store

if TYPE_CHECKING:
    from rootlesspy.image.store import Image
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


def users(paths: Paths) -> dict[str, list[str]]:
    """Return the names of the containers made from each image, by the image's id."""
    names: dict[str, list[str]] = {}
    for container in lifecycle.containers(paths):
        names.setdefault(container.record.image_id, []).append(container.record.name)
    return names


def remove(paths: Paths, text: str, *, force: bool, reporter: Reporter) -> list[str]:
    """Remove an image by name or id; return what was done as podman words it.

    A name of an image that has others only goes away itself.  With force the containers that use
    the image are removed first.  Raises NotFound, Conflict when a container uses it.
    """
    store = Store(paths)
    image = store.resolve(text)
    names = users(paths).get(image.id, [])
    if names and not (len(image.names) > 1 and _is_name(image, text)):
        if not force:
            raise Conflict(
                f"image {text} is in use by container {', '.join(names)}",
                hint=f"rp rm {' '.join(names)}, or rp rmi -f {text}",
            )
        lifecycle.remove(paths, names, force=True, reporter=reporter)
    store.remove(text, force=force)
    left = {name for each in store.images() if each.id == image.id for name in each.names}
    gone = all(each.id != image.id for each in store.images())
    done = [f"Untagged: {name}" for name in image.names if name not in left]
    return [*done, f"Deleted: {image.id.removeprefix('sha256:')}"] if gone else done


def _is_name(image: Image, text: str) -> bool:
    """Say whether text names the image, rather than being its id."""
    return not image.id.removeprefix("sha256:").startswith(text.removeprefix("sha256:"))
