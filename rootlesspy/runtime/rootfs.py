"""The container's file system, built in its own mount namespace before the pivot.

Runs in the container's init.  Every mount is made detached and attached to a descriptor that was
resolved inside the root (linux.pathrs): no path of the container is looked up twice, and nothing
outside the root can be reached through its links.  Source: OCI runtime-spec, config.md "Mounts",
config-linux.md "Default Devices".
"""

from __future__ import annotations

import errno
import os
import stat

from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import mount, pathrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# name → (major, minor): the default devices of the OCI runtime specification.
_DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_TOP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

FLAG_OPTIONS = {
    "ro": (mount.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, mount.MOUNT_ATTR_RDONLY),
    "nosuid": (mount.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, mount.MOUNT_ATTR_NOSUID),
    "nodev": (mount.MOUNT_ATTR_NODEV, 0),
    "dev": (0, mount.MOUNT_ATTR_NODEV),
    "noexec": (mount.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, mount.MOUNT_ATTR_NOEXEC),
    "nosymfollow": (mount.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, mount.MOUNT_ATTR_NOSYMFOLLOW),
    "noatime": (mount.MOUNT_ATTR_NOATIME, mount.MOUNT_ATTR__ATIME),
    "relatime": (0, mount.MOUNT_ATTR__ATIME),
    "strictatime": (mount.MOUNT_ATTR_STRICTATIME, mount.MOUNT_ATTR__ATIME),
    "nodiratime": (mount.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, mount.MOUNT_ATTR_NODIRATIME),
}
PROPAGATION = {
    "private": mount.MS_PRIVATE,
    "slave": mount.MS_SLAVE,
    "shared": mount.MS_SHARED,
    "unbindable": mount.MS_UNBINDABLE,
}
KERNEL_TYPES = ("proc", "sysfs")
IGNORED_OPTIONS = frozenset(("defaults", "async", "loud", "nomand", "bind", "rbind"))


class Overlay(NamedTuple):
    """An overlay of unpacked layers, base first, below a writable directory."""

    lower: tuple[str, ...]
    upper: str
    work: str
    volatile: bool = False
    """Nothing of it has to be on disk: its end, or an fsync, does not wait for that."""


class Directory(NamedTuple):
    """A directory that is the root file system itself (--rootfs, or a copy of the layers)."""

    path: str


class FuseOverlay(NamedTuple):
    """An overlay that a fuse-overlayfs process serves; init is handed its mount (runtime.fuse)."""

    program: str
    lower: tuple[str, ...]
    upper: str
    work: str


class MountOptions(NamedTuple):
    """Mount options, sorted by what the kernel calls want."""

    set_flags: int = 0
    clear_flags: int = 0
    recursive_set: int = 0
    recursive_clear: int = 0
    propagation: int = 0
    propagation_recursive: bool = False
    bind: bool = False
    recursive_bind: bool = False
    data: tuple[tuple[bytes, bytes | None], ...] = ()


def parse_options(options: Iterable[str]) -> MountOptions:
    """Sort the options of one mount; what is no flag becomes data for the file system."""
    set_flags = clear_flags = recursive_set = recursive_clear = propagation = 0
    propagation_recursive = bind = recursive_bind = False
    data: list[tuple[bytes, bytes | None]] = []
    for option in options:
        plain = option[1:] if option[:1] == "r" else ""
        bind = bind or option in ("bind", "rbind")
        recursive_bind = recursive_bind or option == "rbind"
        if option in FLAG_OPTIONS:
            set_flags |= FLAG_OPTIONS[option][0]
            clear_flags |= FLAG_OPTIONS[option][1]
        elif plain in FLAG_OPTIONS:
            recursive_set |= FLAG_OPTIONS[plain][0]
            recursive_clear |= FLAG_OPTIONS[plain][1]
        elif option in PROPAGATION or plain in PROPAGATION:
            propagation = PROPAGATION.get(option) or PROPAGATION[plain]
            propagation_recursive = plain in PROPAGATION
        elif option not in IGNORED_OPTIONS:
            key, equals, value = option.partition("=")
            data.append((os.fsencode(key), os.fsencode(value) if equals else None))
    return MountOptions(
        set_flags=set_flags,
        # A flag that is both set and cleared is set: "ro" after "rw" is what was asked for last.
        clear_flags=clear_flags & ~set_flags | (mount.MOUNT_ATTR__ATIME & clear_flags),
        recursive_set=recursive_set,
        recursive_clear=recursive_clear & ~recursive_set
        | (mount.MOUNT_ATTR__ATIME & recursive_clear),
        propagation=propagation,
        propagation_recursive=propagation_recursive,
        bind=bind,
        recursive_bind=recursive_bind,
        data=tuple(data),
    )


def open_root(root: Overlay | FuseOverlay | Directory) -> tuple[int, ...]:
    """Open what the root file system is made of, for mount_root(); as runtime.sources."""
    if isinstance(root, FuseOverlay):
        return ()
    paths = (root.path,) if isinstance(root, Directory) else (*root.lower, root.upper, root.work)
    return tuple(os.open(path, _TOP) for path in paths)


def mount_root(
    root: Overlay | FuseOverlay | Directory,
    merged: str,
    fuse_fd: int = -1,
    opened: tuple[int, ...] | None = None,
) -> int:
    """Mount the root file system and return a descriptor of its top.

    merged is the empty directory of the bundle where an overlay is mounted; fuse_fd the detached
    mount of a FuseOverlay; opened what open_root() returned, closed here.  Raises OSError.
    """
    flags = _TOP
    if opened is None:
        opened = open_root(root)
    if isinstance(root, Directory):
        (source,) = opened
        tree = mount.open_tree(b"", dir_fd=source, recursive=True)
        mount.mount_setattr(tree, propagation=mount.MS_PRIVATE, recursive=True)
        mount.move_mount(tree, source)
        os.close(source)
        return tree
    if isinstance(root, FuseOverlay):
        target = os.open(merged, flags)
        mount.move_mount(fuse_fd, target)
        os.close(target)
        return fuse_fd
    # Through descriptors, as mount(2) takes one page of options: enough for 128 short paths.
    *lower, upper, work = [f"/proc/self/fd/{fd}" for fd in opened]
    options = f"lowerdir={':'.join(reversed(lower))},upperdir={upper},workdir={work},userxattr"
    if root.volatile:
        options += ",volatile"
        # What an unclean end left for those who still want the files (overlayfs.rst, "Volatile").
        _remove_mark(f"{work}/work/incompat/volatile")
    mount.mount(b"overlay", os.fsencode(merged), b"overlay", 0, options.encode())
    for fd in opened:
        os.close(fd)
    return os.open(merged, flags)


def _remove_mark(path: str) -> None:
    """Remove an empty directory if it is there."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return


def own(root: Overlay | FuseOverlay | Directory) -> None:
    """Make the top of a writable layer belong to root of the container.

    It was made by the caller, who is somebody else inside with --userns=keep-id.
    """
    if not isinstance(root, Directory):
        for path in (root.upper, root.work):
            os.chown(path, 0, 0, follow_symlinks=False)


def mount_all(
    root_fd: int,
    mounts: Sequence[Mapping[str, object]],
    opened: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Carry out the spec's mounts in order, except cgroup, which waits for its namespace.

    opened: what sources.open_all() returned.  Returns a descriptor of each file system of the
    kernel's (proc, sysfs) by where it is mounted: what lies at that name may be swapped
    (CVE-2025-52881).
    """
    trees = {}
    for entry in mounts:
        if entry.get("type") in KERNEL_TYPES:
            trees[str(entry["destination"])] = _mount_new(root_fd, entry)
        elif entry.get("type") not in ("cgroup", "cgroup2"):
            mount_one(root_fd, entry, opened)
    return trees


def mount_one(
    root_fd: int, entry: Mapping[str, object], opened: Mapping[str, int] | None = None
) -> None:
    """Carry out one mount of the spec.  Raises OSError with the destination as its path."""
    destination = str(entry["destination"])
    options = _options(entry)
    if entry.get("type") != "bind" and not options.bind:
        os.close(_mount_new(root_fd, entry))
        return
    source = str(entry["source"])
    try:
        if opened is not None and source in opened:
            source_fd = os.dup(opened[source])
        else:
            source_fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
        _bind(root_fd, source_fd, destination, options)
    except OSError as error:
        if error.errno == errno.ENOENT and error.filename == source:
            raise
        raise OSError(error.errno, error.strerror, destination) from error


def _options(entry: Mapping[str, object]) -> MountOptions:
    given = entry.get("options", ())
    return parse_options(given if isinstance(given, (list, tuple)) else ())


def _mount_new(root_fd: int, entry: Mapping[str, object]) -> int:
    """Mount a new file system and return a descriptor of its root."""
    destination, kind, options = str(entry["destination"]), str(entry["type"]), _options(entry)
    try:
        tree = mount.new_filesystem(os.fsencode(kind), options.data, options.set_flags)
        target = target_directory(root_fd, destination, strict=kind in KERNEL_TYPES)
        refuse_link_into_proc(root_fd, target, destination)
        mount.move_mount(tree, target)
        os.close(target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, destination) from error
    return tree


def mount_cgroup(root_fd: int, mounts: Sequence[Mapping[str, object]]) -> None:
    """Mount the cgroup entries of the spec; the caller is in its new cgroup namespace."""
    for entry in mounts:
        if entry.get("type") in ("cgroup", "cgroup2"):
            mount_one(root_fd, {**entry, "type": "cgroup2"})


def add_devices(root_fd: int) -> None:
    """Put the default devices and links into /dev.

    Nodes are bound from the host's, which a user namespace cannot make; each source is checked
    after opening to be the device that its name promises.
    """
    for name, number in _DEVICES.items():
        source = open_device(name, number)
        target = pathrs.make_file(root_fd, f"dev/{name}", 0o666)
        tree = mount.open_tree(b"", dir_fd=source)
        mount.move_mount(tree, target)
        for fd in (source, target, tree):
            os.close(fd)
    directory = pathrs.make_directories(root_fd, "dev")
    for name, link in _DEVICE_LINKS.items():
        try:
            os.symlink(link, name, dir_fd=directory)
        except FileExistsError:
            # A volume over /dev brings its own; nothing of ours is behind these names.
            continue
    os.close(directory)


def open_device(name: str, number: tuple[int, int]) -> int:
    """Open a device node of the host as O_PATH; raise ENODEV when it is not that device."""
    path = f"/dev/{name}"
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(*number):
        os.close(fd)
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), path)
    return fd


def _bind(root_fd: int, source_fd: int, destination: str, options: MountOptions) -> None:
    tree = mount.open_tree(b"", dir_fd=source_fd, recursive=options.recursive_bind)
    mount.mount_setattr(
        tree,
        set_flags=options.recursive_set,
        clear_flags=options.recursive_clear,
        # Nothing that happens below on the host appears inside, unless asked for.
        propagation=options.propagation or mount.MS_PRIVATE,
        recursive=True,
    )
    if options.set_flags or options.clear_flags:
        mount.mount_setattr(tree, set_flags=options.set_flags, clear_flags=options.clear_flags)
    if stat.S_ISDIR(os.fstat(source_fd).st_mode):
        # Where the kernel's own file systems belong it is as strict as for a new one.
        strict = destination in ("/proc", "/sys")
        target = target_directory(root_fd, destination, strict=strict)
    else:
        target = pathrs.make_file(root_fd, destination)
        if stat.S_ISDIR(os.fstat(target).st_mode):
            # move_mount(2) says EINVAL only.
            raise OSError(errno.EISDIR, "is a directory, its source is not", destination)
    refuse_link_into_proc(root_fd, target, destination)
    mount.move_mount(tree, target)
    for fd in (source_fd, tree, target):
        os.close(fd)


def refuse_link_into_proc(root_fd: int, target: int, destination: str) -> None:
    """Refuse a mount point that a link of the image puts into /proc: sysctls are written there.

    What lies in /proc by its name is the caller's own decision (lxcfs).
    """
    if destination == "/proc" or destination.startswith("/proc/"):
        return
    try:
        proc = pathrs.open_in_root(root_fd, "proc", os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return
    same = os.fstat(proc).st_dev == os.fstat(target).st_dev != os.fstat(root_fd).st_dev
    os.close(proc)
    if same:
        raise OSError(errno.EPERM, "a mount over /proc is not allowed", destination)


def target_directory(root_fd: int, destination: str, *, strict: bool) -> int:
    try:
        target = pathrs.make_directories(root_fd, destination)
    except (FileExistsError, NotADirectoryError):
        # A file, or a link that leads nowhere.
        raise OSError(errno.ENOTDIR, "must be a directory", destination) from None
    if strict:
        # An image whose /proc is a link would get its procfs somewhere else (CVE-2023-27561).
        parent, last = pathrs.open_parent(root_fd, destination)
        found = os.stat(last, dir_fd=parent, follow_symlinks=False)
        os.close(parent)
        if not stat.S_ISDIR(found.st_mode):
            raise OSError(errno.ENOTDIR, "must be a directory", destination)
    return target
