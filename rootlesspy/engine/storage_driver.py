"""How a container's writable root is laid over an image's layers on this machine.

overlay: the kernel's, in a user namespace.  fuse-overlayfs: where the kernel or the file system of
the store refuses that.  copy: a plain copy of all layers, where there is neither.  The kernel is
asked by trying, once per kernel and file system; the answer is kept in the cache directory.
"""

from __future__ import annotations

import errno
import os

from rootlesspy.engine import statefile
from rootlesspy.errors import Unsupported
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import userns
from rootlesspy.paths import private_directory

if TYPE_CHECKING:
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

DRIVERS = ("overlay", "fuse-overlayfs", "copy")
_VARIABLE = "RP_STORAGE_DRIVER"


def choose(paths: Paths, maps: IdMaps, reporter: Reporter) -> str:
    """Return the storage driver for new containers: RP_STORAGE_DRIVER, or the best that works.

    Says in a notice when it is not overlay.  Raises Unsupported for an unknown name.
    """
    wanted = os.environ.get(_VARIABLE)
    if wanted:
        if wanted not in DRIVERS:
            raise Unsupported(
                f"{_VARIABLE}={wanted} is unknown", hint=f"one of {', '.join(DRIVERS)}"
            )
        return wanted
    refusal = _overlay_refusal(paths, maps)
    if not refusal:
        return "overlay"
    if fuse_overlayfs() and os.access("/dev/fuse", os.R_OK | os.W_OK):
        reporter.notice(f"overlay is refused here ({refusal}): using fuse-overlayfs")
        return "fuse-overlayfs"
    reporter.notice(
        f"overlay is refused here ({refusal}) and there is no fuse-overlayfs: copying the image "
        "for every container; cure: apt-get install fuse-overlayfs"
    )
    return "copy"


def fuse_overlayfs() -> str | None:
    """Return the path of fuse-overlayfs, or None."""
    for directory in ("/usr/bin", "/usr/local/bin", "/bin"):
        if os.access(f"{directory}/fuse-overlayfs", os.X_OK):
            return f"{directory}/fuse-overlayfs"
    return None


def try_overlay(paths: Paths, maps: IdMaps) -> str | None:
    """Return why overlay is refused, "" when it is not, None when it cannot be tried.

    Without a user namespace nothing is learnt about overlay, and nothing may be remembered:
    starting the container will say what is wrong.
    """
    from rootlesspy.runtime import rootfs

    try:
        userns.call_in_userns(maps, lambda: None)
    except OSError:
        return None
    private_directory(paths.tmp)
    trial = f"{paths.tmp}/overlay-trial-{os.getpid()}"
    parts = [f"{trial}/{name}" for name in ("lower", "upper", "work", "merged")]
    os.mkdir(trial, 0o700)
    try:
        for part in parts:
            os.mkdir(part)
        if not _has_user_xattrs(parts[1]):
            return "the file system has no user extended attributes"
        root = rootfs.Overlay(lower=(parts[0],), upper=parts[1], work=parts[2])
        # The mount ends with the mount namespace of the child.
        userns.call_in_userns(maps, lambda: os.close(rootfs.mount_root(root, parts[3])))
    except OSError as error:
        return error.strerror or str(error)
    finally:
        _remove_trial(trial, parts)
    return ""


def _overlay_refusal(paths: Paths, maps: IdMaps) -> str:
    """Return why overlay cannot be used on the store's file system; "" when it can."""
    private_directory(paths.cache)
    key = f"{os.uname().release} {os.stat(paths.data).st_dev}"
    path = f"{paths.cache}/overlay.json"
    try:
        known = statefile.read(path)
        if known.get("key") == key:
            return str(known.get("refusal", ""))
    except (OSError, statefile.DamagedError):
        pass
    refusal = try_overlay(paths, maps)
    if refusal is None:
        return ""
    statefile.write(path, {"key": key, "refusal": refusal}, durable=False)
    return refusal


def _has_user_xattrs(directory: str) -> bool:
    """Say whether overlayfs could mark directories: it mounts without, and fails later on."""
    try:
        os.setxattr(directory, "user.rootlesspy.trial", b"y")
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return False
    return True


def _remove_trial(trial: str, parts: list[str]) -> None:
    for path in (f"{trial}/work/work", *parts, trial):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
