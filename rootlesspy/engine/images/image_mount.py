"""`rp image mount`: an image's file system, read-only, in the mount namespace of `rp unshare`."""

from __future__ import annotations

import errno
import os

from rootlesspy.engine.images.unshare import VARIABLE
from rootlesspy.errors import Conflict, NotFound, Unsupported
from rootlesspy.image import layout
from rootlesspy.image.store import Store
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import mount as mounts
from rootlesspy.paths import private_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.image.store import Image
    from rootlesspy.paths import Paths

_MAX_OPTIONS_BYTES = 4095
# <linux/mount.h>
_MS_REMOUNT = 0x20
_MS_BIND = 0x1000
_FLAGS = mounts.MS_RDONLY | mounts.MS_NODEV | mounts.MS_NOSUID


class Mounted(NamedTuple):
    """An image that is mounted here; several manifests may be one image."""

    image_id: str
    names: tuple[str, ...]
    path: str


def mount(paths: Paths, name: str, environment: Mapping[str, str]) -> str:
    """Mount an image; return where, also when it is mounted already.

    Raises Unsupported outside of rp unshare, NotFound, ImageError, OSError.
    """
    _require_unshared(environment)
    store = Store(paths)
    image = store.resolve(name)
    target = _target(paths, image.id)
    if _is_mounted(target):
        return target
    layers = _layers(paths, image)
    private_directory(target)
    if len(layers) == 1:
        # overlayfs wants two layers, or one that is written to.
        mounts.mount(os.fsencode(layers[0]), os.fsencode(target), None, _MS_BIND, None)
        mounts.mount(None, os.fsencode(target), None, _MS_BIND | _MS_REMOUNT | _FLAGS, None)
    else:
        _mount_overlay(layers, target)
    return target


def unmount(paths: Paths, name: str, environment: Mapping[str, str]) -> str:
    """Unmount an image; return its id.  Raises Unsupported, NotFound, Conflict when it is busy."""
    _require_unshared(environment)
    image = Store(paths).resolve(name)
    target = _target(paths, image.id)
    if not _is_mounted(target):
        raise NotFound(f"image {name} is not mounted here", hint="rp image mount")
    try:
        mounts.umount2(os.fsencode(target), 0)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Conflict(f"{target} is in use", hint=f"fuser -vm {target}") from error
        raise
    os.rmdir(target)
    return image.id


def mounted(paths: Paths) -> list[Mounted]:
    """Return the images that are mounted in this namespace."""
    names: dict[str, tuple[str, ...]] = {}
    for image in Store(paths).images():
        names[image.id] = names.get(image.id, ()) + image.names
    return [
        Mounted(image_id, known, _target(paths, image_id))
        for image_id, known in names.items()
        if _is_mounted(_target(paths, image_id))
    ]


def _require_unshared(environment: Mapping[str, str]) -> None:
    if os.geteuid() != 0 or VARIABLE not in environment:
        raise Unsupported("an image is mounted in a namespace of its own", hint="first: rp unshare")


def _target(paths: Paths, image_id: str) -> str:
    return f"{paths.data}/mounts/{image_id.partition(':')[2]}"


def _is_mounted(target: str) -> bool:
    try:
        here, above = os.lstat(target), os.lstat(os.path.dirname(target))
    except FileNotFoundError:
        return False
    if here.st_dev != above.st_dev:
        return True
    # A bind mount of the same file system: only the list tells.
    with open("/proc/self/mountinfo", "rb") as file:
        wanted = os.fsencode(os.path.realpath(target)).replace(b" ", b"\\040")
        return any(line.split(b" ")[4] == wanted for line in file)


def _layers(paths: Paths, image: Image) -> list[str]:
    """Return the directories of the layers for the default maps, base first."""
    found: list[str] = []
    for diff_id in image.diff_ids:
        directory = layout.layer_directory(paths, diff_id, "")
        if os.path.isdir(f"{directory}/opaque"):
            found = [f"{directory}/opaque"]
        elif os.path.isdir(f"{directory}/diff"):
            found.append(f"{directory}/diff")
        else:
            raise NotFound(f"layer {diff_id} is not unpacked", hint="rp pull the image again")
    if not found:
        raise NotFound("the image has no layers")
    return found


def _mount_overlay(layers: list[str], target: str) -> None:
    """Mount layers over one another, by short names where there are many."""
    before = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        base = os.path.commonpath(layers)
        os.chdir(base)
        lower = ":".join(os.path.relpath(layer, base) for layer in reversed(layers))
        options = f"lowerdir={lower},userxattr".encode()
        if len(options) > _MAX_OPTIONS_BYTES:
            raise Unsupported(f"the image has too many layers to mount: {len(layers)}")
        mounts.mount(b"overlay", os.fsencode(target), b"overlay", _FLAGS, options)
    finally:
        os.fchdir(before)
        os.close(before)
