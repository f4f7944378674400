"""Volumes of a container: from what was asked for to mounts of the spec.

Binds are checked, named volumes made when missing, anonymous ones always; a volume is filled with
the image's content when it is mounted for the first time.  What touches the files of containers
(filling, the option U) runs as root of a user namespace and goes through descriptors only.
Meanings are podman's (podman-run(1), --volume) where nothing else is said; the options z and Z have
none without SELinux, and are refused with it, as rp gives containers no label of their own.
"""

from __future__ import annotations

import os
import time

from rootlesspy.engine import copytree, volume_store
from rootlesspy.engine.inputs.request import VolumeMount
from rootlesspy.engine.volume_store import Volume, remove_anonymous
from rootlesspy.errors import Error, ImageError, NotFound, Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import mount, pathrs, userns
from rootlesspy.runtime import user as users
from rootlesspy.runtime.create import userns_hint

if TYPE_CHECKING:
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.oci.runtime_spec import Mount
    from rootlesspy.paths import Paths

__all__ = ("Prepared", "prepare", "remove_anonymous")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_DATA = "_data.new"
_ROOT_COPY = "root"
_SELINUX = "/sys/fs/selinux/enforce"
_MODE = 0o755
_PROPAGATION = frozenset((
    "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable",
))  # fmt: skip
# What the source's mount may forbid, with the option that asks for it.
_ALLOWING = {"exec": os.ST_NOEXEC, "suid": os.ST_NOSUID, "dev": os.ST_NODEV}
_VOLUME_DEFAULTS = ("nosuid", "nodev")
# Files that lxcfs stands in for, as runc has them; a mount anywhere else in /proc could fool rp
# itself or the payload (CVE-2019-19921, CVE-2025-52881).
_PROC_FILES = frozenset((
    "/proc/cpuinfo", "/proc/diskstats", "/proc/loadavg", "/proc/meminfo", "/proc/net/dev",
    "/proc/slabinfo", "/proc/stat", "/proc/swaps", "/proc/uptime",
))  # fmt: skip


class Prepared(NamedTuple):
    """Mounts for the spec, in no order, and the anonymous volumes that the container owns."""

    mounts: tuple[Mount, ...]
    anonymous: tuple[str, ...]


class _Opened(NamedTuple):
    """One wanted mount and a descriptor of what it is made from."""

    wanted: VolumeMount
    name: str
    """The volume's; empty for a bind."""
    fd: int
    """The volume's directory, or a bind's source as O_PATH."""


def plan(
    volumes: tuple[VolumeMount, ...],
    image_volumes: tuple[str, ...],
    occupied: tuple[str, ...] = (),
) -> tuple[VolumeMount, ...]:
    """Return all that is to be mounted, each anonymous volume with its name; nothing is made.

    image_volumes are the image's VOLUME paths, skipped where a volume or one of the occupied
    targets (tmpfs) is.  Raises UsageError, ImageError for a target that must not be covered.
    """
    for each in volumes:
        _refuse_target(each.target)
        _refuse_options(each)
    taken = {*occupied, *(each.target for each in volumes)}
    return tuple(
        each._replace(source=volume_store.anonymous_name())
        if each.kind == "anonymous" and not each.source
        else each
        for each in (*volumes, *_of_image(image_volumes, taken))
    )


def prepare(
    volumes: tuple[VolumeMount, ...],
    image_volumes: tuple[str, ...],
    *,
    paths: Paths,
    maps: IdMaps,
    layers: tuple[str, ...],
    user: str = "",
    occupied: tuple[str, ...] = (),
) -> Prepared:
    """Check, make and fill what is to be mounted; return the mounts and the anonymous volumes.

    volumes may come from plan(), to have the names of anonymous volumes on record before they are
    made.  layers are the unpacked layers below the container, base first, or its root directory
    alone; user is who the payload is, as in --user.  Raises NotFound for a missing source,
    UsageError, ImageError, Unsupported, Error; no anonymous volume is left then.
    """
    planned = plan(volumes, image_volumes, occupied)
    anonymous = tuple(each.source for each in planned if each.kind == "anonymous")
    opened: list[_Opened] = []
    try:
        for each in planned:
            opened.append(_open(each, paths))  # noqa: PERF401 - closed below, also after an error
        mounts = tuple(_mount(each, paths) for each in opened)
        _make_ready(opened, paths, maps, layers, user)
    except BaseException as error:
        _undo(paths, anonymous, maps, error)
        if isinstance(error, OSError):
            where = f"{error.filename}: " if error.filename else ""
            raise Error(f"cannot prepare volumes: {where}{_reason(error)}") from error
        raise
    finally:
        for one in opened:
            # Gives a volume's lock back as well.
            os.close(one.fd)
    return Prepared(mounts, anonymous)


def _undo(paths: Paths, anonymous: tuple[str, ...], maps: IdMaps, first: BaseException) -> None:
    try:
        remove_anonymous(paths, anonymous, maps)
    except OSError as error:
        first.add_note(f"anonymous volumes are left: {error}")


def _refuse_target(target: str) -> None:
    if (target == "/proc" or target.startswith("/proc/")) and target not in _PROC_FILES:
        raise UsageError(f"a mount over {target} is not allowed")


def _refuse_options(wanted: VolumeMount) -> None:
    """Raise Unsupported for options that would come to nothing."""
    for option in wanted.options:
        if option.partition("=")[0] == "idmap":
            raise Unsupported(
                f"volume option {option!r}: the kernel lets only root map the ids of a mount of "
                f"{wanted.source or wanted.target}",
                hint="U gives the files to the container's user",
            )
        if option in ("z", "Z") and os.path.exists(_SELINUX):
            raise Unsupported(
                f"volume option {option!r}: SELinux is enabled, and rp sets no labels",
                hint="leave it away: SELinux does not confine containers of rp",
            )


def _of_image(image_volumes: tuple[str, ...], taken: set[str]) -> list[VolumeMount]:
    """Return anonymous volumes for the image's VOLUME paths that nothing else is mounted at."""
    found = {}
    for path in image_volumes:
        if ".." in path.split("/") or not path.isprintable():
            raise ImageError(f"the image's VOLUME {path!r} is refused: it is no plain path")
        target = os.path.normpath("/" + path.strip("/"))
        if target in ("/", "/proc", "/sys", "/dev") or target.startswith("/proc/"):
            raise ImageError(f"the image's VOLUME {target} is refused: nothing is mounted over it")
        # /sys/fs/cgroup, /dev/shm…: the container has file systems of the kernel there.
        if target not in taken and not target.startswith(("/sys/", "/dev/")):
            found[target] = VolumeMount(source="", target=target, kind="anonymous")
    return list(found.values())


def _open(wanted: VolumeMount, paths: Paths) -> _Opened:
    """Open a bind's source, or a volume, which is made when it is missing."""
    name = wanted.source
    if wanted.kind == "bind":
        try:
            # Followed: links on the way to a source are the user's own.
            return _Opened(wanted, "", os.open(name, os.O_PATH | os.O_CLOEXEC))
        except FileNotFoundError:
            raise NotFound(
                f"volume source {name}: no such file or directory", hint=f"mkdir -p {name}"
            ) from None
        except OSError as error:
            raise Error(f"volume source {name}: {_reason(error)}") from error
    try:
        return _Opened(wanted, name, volume_store.open_volume(paths, name))
    except FileNotFoundError:
        pass
    anonymous = wanted.kind == "anonymous"
    made = Volume(name=name, created_s=time.time(), labels={}, anonymous=anonymous)
    volume_store.create(paths, made)
    return _Opened(wanted, name, volume_store.open_volume(paths, name))


def _mount(opened: _Opened, paths: Paths) -> Mount:
    """Return the spec's mount of what was opened."""
    wanted = opened.wanted
    source = volume_store.data_path(paths, opened.name) if opened.name else wanted.source
    given = wanted.options
    recursive = "bind" not in given
    # Attributes of the whole tree, or what is mounted below the source would stay writable.
    prefix = "r" if recursive else ""
    options = [f"{prefix}bind"]
    options.append(next((o for o in given if o in _PROPAGATION), f"{prefix}private"))
    if "ro" in given:
        options.append(f"{prefix}ro")
    forbidden = os.fstatvfs(opened.fd).f_flag
    for allowing, flag in _ALLOWING.items():
        forbidding = f"no{allowing}"
        if forbidding in given:
            options.append(prefix + forbidding)
        elif allowing not in given:
            # As podman: binds keep what the source's mount has, which the clone does by itself.
            if opened.name and forbidding in _VOLUME_DEFAULTS:
                options.append(prefix + forbidding)
        elif forbidden & flag:
            raise Unsupported(
                f"volume option {allowing!r}: {source} is on a file system mounted {forbidding}, "
                "which a user namespace cannot undo"
            )
    return {"destination": wanted.target, "type": "bind", "source": source, "options": options}


def _make_ready(
    opened: list[_Opened], paths: Paths, maps: IdMaps, layers: tuple[str, ...], user: str
) -> None:
    """Fill volumes that were never mounted, and change owners where U asks for it."""
    pending: dict[str, _Opened] = {}
    # By name, so that two runs with the same volumes never wait for each other.
    for each in sorted(opened, key=lambda one: one.name):
        if not each.name or each.name in pending or volume_store.read(paths, each.name).populated:
            continue
        volume_store.lock(each.fd, each.name)
        # Whoever had the lock may have filled it.
        if not volume_store.read(paths, each.name).populated:
            pending[each.name] = each
    given_away = [each for each in opened if "U" in each.wanted.options]
    for each in given_away:
        _refuse_wide_change(each, paths)
    if not pending and not given_away:
        return
    scratch = volume_store.make_staging(paths)
    work = _Work(tuple(pending.values()), tuple(given_away), layers, scratch, user)
    try:
        userns.call_in_userns(maps, lambda: _carry_out(work))
    except OSError as error:
        raise _explain(error) from error
    finally:
        volume_store.discard(scratch)
    for name in pending:
        volume_store.mark_populated(paths, name)


def _refuse_wide_change(opened: _Opened, paths: Paths) -> None:
    """Refuse to give away the caller's home or the store, which podman's list is for as well."""
    if opened.name:
        return
    source = os.path.realpath(opened.wanted.source)
    for own in (paths.data, paths.config):
        if (os.path.realpath(own) + "/").startswith(source.rstrip("/") + "/"):
            raise UsageError(f"volume option 'U': {source} holds {own}, which must stay yours")


class _Work(NamedTuple):
    """What is done in the user namespace."""

    fill: tuple[_Opened, ...]
    give_away: tuple[_Opened, ...]
    layers: tuple[str, ...]
    scratch: volume_store.Staging
    user: str


def _carry_out(work: _Work) -> None:
    """Fill volumes and change owners; runs as root of the user namespace, in its own mounts."""
    label = "the image's files"
    root_fd = -1
    try:
        root_fd = _open_root(work.layers, work.scratch)
        for each in work.fill:
            label = f"volume {each.name}"
            _fill(each, root_fd, work.user)
        for each in work.give_away:
            label = f"volume {each.name or each.wanted.source}"
            _give_away(each, root_fd, work.user)
    except OSError as error:
        path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
        where = f"{label}: {path}" if path else label
        raise OSError(error.errno, error.strerror, where) from error
    finally:
        if root_fd >= 0:
            os.close(root_fd)
        pathrs.remove_tree(work.scratch.fd, _ROOT_COPY)


def _open_root(layers: tuple[str, ...], scratch: volume_store.Staging) -> int:
    """Open the container's root as the image has it, read-only; an empty one without layers."""
    if len(layers) < 2:
        return os.open(layers[0] if layers else scratch.path, _DIRECTORY)
    opened = [os.open(path, _DIRECTORY) for path in layers]
    # Through descriptors, as mount(2) takes one page of options.
    lower = ":".join(f"/proc/self/fd/{fd}" for fd in reversed(opened))
    options = f"lowerdir={lower},userxattr".encode()
    target = os.fsencode(scratch.path)
    try:
        mount.mount(b"overlay", target, b"overlay", mount.MS_RDONLY, options)
    except OSError:
        # No overlay in user namespaces here (before Linux 5.11, or another file system).
        copytree.copy_layers(layers, f"{scratch.path}/{_ROOT_COPY}")
        return os.open(f"{scratch.path}/{_ROOT_COPY}", _DIRECTORY)
    finally:
        for fd in opened:
            os.close(fd)
    return os.open(scratch.path, _DIRECTORY)


def _fill(opened: _Opened, root_fd: int, user: str) -> None:
    """Put the image's directory at the target into an empty volume, all of it or nothing.

    A volume that holds anything is left alone (CVE-2020-1726).
    """
    volume_fd = opened.fd
    if not _is_empty(volume_fd):
        return
    pathrs.remove_tree(volume_fd, _NEW_DATA)
    os.mkdir(_NEW_DATA, 0o700, dir_fd=volume_fd)
    new = os.open(_NEW_DATA, _DIRECTORY, dir_fd=volume_fd)
    try:
        _copy_image(opened.wanted, root_fd, new, user)
    except BaseException:
        # At once, as it may be what filled the disk.
        pathrs.remove_tree(volume_fd, _NEW_DATA)
        raise
    finally:
        os.close(new)
    # rename(2) puts a directory in the place of an empty one at once.
    os.rename(_NEW_DATA, volume_store.DATA, src_dir_fd=volume_fd, dst_dir_fd=volume_fd)


def _is_empty(volume_fd: int) -> bool:
    data = os.open(volume_store.DATA, _DIRECTORY, dir_fd=volume_fd)
    try:
        return not os.listdir(data)
    finally:
        os.close(data)


def _copy_image(wanted: VolumeMount, root_fd: int, new: int, user: str) -> None:
    """Copy the image's directory, owner and mode of its top also with nocopy.

    Where there is none the volume belongs to the payload's user.
    """
    try:
        # Links stay inside the image, whatever they say (CVE-2022-23648).
        source = pathrs.open_in_root(root_fd, wanted.target, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        who = users.resolve(root_fd, user, ())
        os.fchown(new, who.uid, who.gid)
        os.fchmod(new, _MODE)
        return
    try:
        if "nocopy" in wanted.options:
            copytree.copy_attributes(source, new)
        else:
            copytree.copy_tree(source, new)
    finally:
        os.close(source)


def _give_away(opened: _Opened, root_fd: int, user: str) -> None:
    who = users.resolve(root_fd, user, ())
    if not opened.name:
        copytree.change_owner(opened.fd, who.uid, who.gid)
        return
    data = os.open(volume_store.DATA, _DIRECTORY, dir_fd=opened.fd)
    try:
        copytree.change_owner(data, who.uid, who.gid)
    finally:
        os.close(data)


def _explain(error: OSError) -> Error:
    if isinstance(error, userns.HelperError):
        return Unsupported(
            f"cannot map ids: {error.filename}: {error.strerror}", hint=userns.helper_hint(error)
        )
    if error.filename is None:
        return Unsupported(
            f"cannot make a user namespace to prepare volumes in: {_reason(error)}",
            hint=userns_hint(),
        )
    return Error(f"cannot prepare {error.filename}: {_reason(error)}")


def _reason(error: OSError) -> str:
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
