"""Checks of the store, of overlay and of the containers that are there."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile

from rootlesspy.engine import idmap, record, statefile, storage_driver
from rootlesspy.engine.doctor.doctor import (
    FAILED,
    OK,
    SKIPPED,
    WARNING,
    Check,
    Finding,
    Machine,
    Report,
    skipped,
)
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.paths import Paths

_LITTLE_BYTES = 1 << 30


def store(machine: Machine, _report: Report) -> Finding:
    """See whose the store is, who may enter it, and whether it can be written."""
    if machine.paths is None:
        hint = machine.problem.hint if machine.problem else None
        return Finding(FAILED, "there is no place for it: HOME is not set", cure=hint or "")
    data = machine.paths.data
    existing = _existing(data)
    status = os.stat(existing)
    if os.path.islink(data):
        return Finding(FAILED, f"{data} is a symbolic link", cure="set XDG_DATA_HOME to its target")
    if existing == data and (status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode)):
        return Finding(
            FAILED,
            f"{data} is not a directory of {machine.user}",
            cure="as root: give it back; its files keep their subordinate ids",
            root=f"chown {machine.user}: {data}",
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            FAILED,
            f"{existing} cannot be written",
            cure="its permissions, or set XDG_DATA_HOME to another directory",
        )
    if os.statvfs(existing).f_flag & os.ST_RDONLY:
        return Finding(FAILED, f"{existing} is mounted read-only", cure="set XDG_DATA_HOME")
    if existing == data and stat.S_IMODE(status.st_mode) & 0o077:
        return Finding(
            WARNING,
            f"{data} may be entered by others",
            cure=f"chmod 700 {data}; the next rp run does it too",
            own="private-store",
        )
    return Finding(OK, data if existing == data else f"{data}, not made yet")


def space(machine: Machine, _report: Report) -> Finding:
    """See how much room the store's file system has."""
    if machine.paths is None:
        return Finding(SKIPPED, "not tried, because of store")
    found = os.statvfs(_existing(machine.paths.data))
    free_bytes = found.f_bavail * found.f_frsize
    text = f"{free_bytes // (1 << 20)} MiB free"
    if free_bytes == 0 or (found.f_files and not found.f_favail):
        return Finding(FAILED, "the file system is full", cure="rp rmi, or set XDG_DATA_HOME")
    if free_bytes < _LITTLE_BYTES:
        return Finding(WARNING, f"only {text}", cure="rp rmi, or set XDG_DATA_HOME")
    return Finding(OK, text)


def overlay(machine: Machine, report: Report) -> Finding:
    """Try overlay on the store's file system, with the maps that containers get."""
    missing = skipped(report, "user-namespaces", "id-helpers", "store", "space")
    if missing is not None or machine.paths is None:
        return missing or Finding(SKIPPED, "not tried, because of store")
    maps = idmap.default_maps()
    trial = tempfile.mkdtemp(prefix=".rp-doctor-", dir=_existing(machine.paths.data))
    try:
        refusal = storage_driver.try_overlay(machine.paths._replace(data=trial), maps)
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    if refusal:
        return _without_overlay(refusal)
    remembered = _remembered_refusal(machine.paths)
    if remembered:
        return Finding(
            WARNING,
            f"it works, but was refused before ({remembered}), which is remembered",
            cure=f"rm {machine.paths.cache}/overlay.json",
            own="forget-overlay",
        )
    return Finding(OK, "the kernel's overlay works in a user namespace")


def containers(machine: Machine, report: Report) -> Finding:
    """Read the records of all containers."""
    missing = skipped(report, "store")
    if missing is not None or machine.paths is None:
        return missing or Finding(SKIPPED, "not tried, because of store")
    try:
        known = record.ids(machine.paths)
    except OSError as error:
        return Finding(
            FAILED, f"{machine.paths.containers} cannot be read: {error.strerror}", cure="ls -ld it"
        )
    found = [record.load(machine.paths, each) for each in known]
    broken = [each.record.name for each in found if each is not None and each.state == "broken"]
    if broken:
        return Finding(WARNING, f"damaged: {' '.join(broken)}", cure=f"rp rm -f {' '.join(broken)}")
    return Finding(OK, f"{sum(each is not None for each in found)} of them, none damaged")


def _without_overlay(refusal: str) -> Finding:
    if storage_driver.fuse_overlayfs() is None:
        return Finding(
            WARNING,
            f"refused ({refusal}): images are copied for every container",
            cure="install fuse-overlayfs, or set XDG_DATA_HOME to another file system",
            packages=("fuse-overlayfs",),
        )
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return Finding(
            WARNING,
            f"refused ({refusal}), and /dev/fuse cannot be opened: images are copied",
            cure="as root: make /dev/fuse",
            root="modprobe fuse; chmod 666 /dev/fuse",
        )
    return Finding(
        WARNING,
        f"refused ({refusal}): fuse-overlayfs is used, which is slower",
        cure="a newer kernel, or set XDG_DATA_HOME to another file system",
    )


def _remembered_refusal(paths: Paths) -> str:
    try:
        return str(statefile.read(f"{paths.cache}/overlay.json").get("refusal", ""))
    except (OSError, statefile.DamagedError):
        return ""


def _existing(path: str) -> str:
    """Return path, or the nearest directory above it that is there."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


CHECKS = (
    Check("store", "images, containers and volumes", store),
    Check("space", "an unpacked image is a few times larger than what is pulled", space),
    Check("overlay", "containers of one image share its files", overlay),
    Check("containers", "a damaged one is not listed as it is", containers),
)
