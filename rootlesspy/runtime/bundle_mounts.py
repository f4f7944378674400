"""Mounts and devices of any bundle: what `rp run` never asks for, on top of runtime.rootfs.

Runs in the container's init before the pivot: id-mapped binds, tmpcopyup, propagation and
recursive attributes of every mount, devices of the spec.  An option that means nothing for a bind
mount is refused, never passed over.  Sources: runtime-spec config.md "Linux mount options",
config-linux.md "Devices", mount_setattr(2).
"""

from __future__ import annotations

import errno
import os
import stat

from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import mount, pathrs, process, procfs, userns
from rootlesspy.runtime import rootfs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.oci.runtime_spec import LinuxDevice, LinuxIDMapping, Mount

OWN_OPTIONS = frozenset(("idmap", "ridmap", "tmpcopyup"))
# What mount(8) knows and the kernel does by itself, or has forgotten.
IGNORED_OPTIONS = frozenset(("silent", "loud", "noiversion", "nolazytime", "norelatime", "atime"))
_IGNORED_RECURSIVE = frozenset(f"r{word}" for word in ("atime", "norelatime"))
_CGROUP_KINDS = ("cgroup", "cgroup2")
_HOST_CGROUP = "/sys/fs/cgroup"
_COPY_BYTES = 1 << 20
_DEVICE_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK}


def mount_all(
    root_fd: int, mounts: Sequence[Mount], bundle: str, *, cgroup_namespace: bool
) -> dict[str, int]:
    """Carry out the spec's mounts in their order.  Raises OSError with the destination.

    Returns what rootfs.mount_all() does.
    """
    trees = {}
    for entry in mounts:
        if entry.get("type") in _CGROUP_KINDS:
            _mount_cgroup(root_fd, entry, bundle, own=cgroup_namespace)
            continue
        tree = _mount(root_fd, entry, bundle)
        if entry.get("type") in rootfs.KERNEL_TYPES and tree >= 0:
            trees[os.path.normpath(entry["destination"])] = tree
        elif tree >= 0:
            os.close(tree)
    return trees


def _mount_cgroup(root_fd: int, entry: Mount, bundle: str, *, own: bool) -> None:
    wanted: Mount = {**entry, "type": "cgroup2"}
    if own:
        os.close(_mount(root_fd, wanted, bundle))
        return
    # The tree of a cgroup namespace that is not the container's own cannot be mounted afresh.
    options = ["rbind", *entry.get("options", ())]
    _mount(root_fd, {**wanted, "type": "bind", "source": _HOST_CGROUP, "options": options}, bundle)


def _mount(root_fd: int, entry: Mount, bundle: str) -> int:
    """Carry out one mount; return a descriptor of a new file system's root, -1 for a bind."""
    destination, kind = entry["destination"], entry.get("type", "")
    words = [
        word
        for word in entry.get("options", ())
        if word not in IGNORED_OPTIONS and word not in _IGNORED_RECURSIVE
    ]
    options = rootfs.parse_options(word for word in words if word not in OWN_OPTIONS)
    try:
        if kind == "bind" or options.bind:
            _bind(root_fd, entry, options, words, bundle)
            return -1
        tree = _new_filesystem(kind, options)
        target = rootfs.target_directory(root_fd, destination, strict=kind in rootfs.KERNEL_TYPES)
        rootfs.refuse_link_into_proc(root_fd, target, destination)
        if "tmpcopyup" in words:
            _copy_up(target, tree)
        _set_attributes(tree, options)
        mount.move_mount(tree, target)
        if options.propagation:
            # Attached first: a detached mount has no peers yet.
            _propagate(tree, options)
        os.close(target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, destination) from error
    return tree


def _new_filesystem(kind: str, options: rootfs.MountOptions) -> int:
    encoded = os.fsencode(kind)
    try:
        return mount.new_filesystem(encoded, options.data, options.set_flags)
    except OSError as error:
        data = tuple(pair for pair in options.data if pair[0] != b"gid")
        # The group of terminals (5) need not be mapped; without it they are their user's alone.
        if kind != "devpts" or error.errno != errno.EINVAL or data == options.data:
            raise
        return mount.new_filesystem(encoded, data, options.set_flags)


def _set_attributes(tree: int, options: rootfs.MountOptions) -> None:
    if options.recursive_set or options.recursive_clear:
        mount.mount_setattr(
            tree,
            set_flags=options.recursive_set,
            clear_flags=options.recursive_clear,
            recursive=True,
        )
    if options.set_flags or options.clear_flags:
        mount.mount_setattr(tree, set_flags=options.set_flags, clear_flags=options.clear_flags)


def _propagate(tree: int, options: rootfs.MountOptions) -> None:
    mount.mount_setattr(
        tree, propagation=options.propagation, recursive=options.propagation_recursive
    )


def _bind(
    root_fd: int, entry: Mount, options: rootfs.MountOptions, words: Sequence[str], bundle: str
) -> None:
    if options.data:
        name = os.fsdecode(options.data[0][0])
        raise OSError(errno.EINVAL, f"a bind mount has no option {name}")
    destination = entry["destination"]
    # Relative to the bundle, as the specification says.
    source = os.path.join(bundle, entry["source"])
    source_fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
    tree = mount.open_tree(b"", dir_fd=source_fd, recursive=options.recursive_bind)
    if options.propagation not in (mount.MS_SLAVE, mount.MS_SHARED):
        mount.mount_setattr(tree, propagation=mount.MS_PRIVATE, recursive=True)
    # Else what is mounted below the source later is to appear here: it stays a peer or a slave.
    if "idmap" in words or "ridmap" in words or entry.get("uidMappings"):
        _map_ids(tree, entry, recursive="ridmap" in words)
    _set_attributes(tree, options)
    if stat.S_ISDIR(os.fstat(source_fd).st_mode):
        target = rootfs.target_directory(root_fd, destination, strict=False)
    else:
        target = pathrs.make_file(root_fd, destination)
    rootfs.refuse_link_into_proc(root_fd, target, destination)
    mount.move_mount(tree, target)
    if options.propagation:
        _propagate(tree, options)
    for fd in (source_fd, tree, target):
        os.close(fd)


def _map_ids(tree: int, entry: Mount, *, recursive: bool) -> None:
    """Map the ids of a mount; without mappings of its own by the container's user namespace."""
    uids, gids = entry.get("uidMappings", ()), entry.get("gidMappings", ())
    userns_fd = -1
    try:
        if uids and gids:
            userns_fd = _namespace_of(id_maps(uids, gids))
        else:
            userns_fd = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        mount.mount_setattr(
            tree, set_flags=mount.MOUNT_ATTR_IDMAP, userns_fd=userns_fd, recursive=recursive
        )
    except OSError as error:
        text = f"the ids of this file system cannot be mapped: {error.strerror}"
        raise OSError(error.errno, text) from error
    finally:
        if userns_fd >= 0:
            os.close(userns_fd)


def id_maps(uids: Sequence[LinuxIDMapping], gids: Sequence[LinuxIDMapping]) -> userns.IdMaps:
    """Turn the specification's mappings into a namespace's maps."""
    both = [
        tuple(userns.IdMapping(m["containerID"], m["hostID"], m["size"]) for m in mappings)
        for mappings in (uids, gids)
    ]
    return userns.IdMaps(*both)


def _namespace_of(maps: userns.IdMaps) -> int:
    """Make a user namespace with these maps and return its descriptor."""
    pid, pidfd = process.clone3(process.CLONE_NEWUSER)
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        # /proc is the caller's still, where this process has another number.
        shown = procfs.shown_pid(pidfd)
        userns.write_maps(shown, maps)
        return os.open(f"/proc/{shown}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)


# tmpcopyup


def _copy_up(source: int, tree: int) -> None:
    """Copy what a tmpfs will hide into it, with owners and modes; sparse and links as they are."""
    source_fd = os.open(f"/proc/self/fd/{source}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    target_fd = os.open(f"/proc/self/fd/{tree}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _copy_directory(source_fd, target_fd)


def _copy_directory(source_fd: int, target_fd: int) -> None:
    """Copy one directory's entries and close both descriptors."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        for name in os.listdir(source_fd):
            status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
            kind = status.st_mode
            if stat.S_ISDIR(kind):
                os.mkdir(name, 0o700, dir_fd=target_fd)
                inner = os.open(name, flags | os.O_DIRECTORY, dir_fd=source_fd)
                _copy_directory(inner, os.open(name, flags | os.O_DIRECTORY, dir_fd=target_fd))
            elif stat.S_ISLNK(kind):
                os.symlink(os.readlink(name, dir_fd=source_fd), name, dir_fd=target_fd)
            elif stat.S_ISREG(kind):
                _copy_file(name, source_fd, target_fd)
            else:
                # FIFOs and sockets: a device node can exist as a bind mount only.
                os.mknod(name, kind, dir_fd=target_fd)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target_fd, follow_symlinks=False)
            if not stat.S_ISLNK(kind):
                os.chmod(name, stat.S_IMODE(kind), dir_fd=target_fd)
    finally:
        os.close(source_fd)
        os.close(target_fd)


def _copy_file(name: str, source_dir: int, target_dir: int) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source_dir)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    target = os.open(name, flags, 0o600, dir_fd=target_dir)
    try:
        while chunk := os.read(source, _COPY_BYTES):
            os.write(target, chunk)
    finally:
        os.close(source)
        os.close(target)


# Devices


def add_devices(root_fd: int, devices: Sequence[LinuxDevice], mounts: Sequence[Mount]) -> None:
    """Put default and further devices in; a bind mount of /dev brings its own default ones."""
    if not any(entry["destination"].rstrip("/") == "/dev" and _is_bind(entry) for entry in mounts):
        rootfs.add_devices(root_fd)
    for device in devices:
        try:
            _add_device(root_fd, device)
        except OSError as error:
            raise OSError(error.errno, error.strerror, device["path"]) from error


def _is_bind(entry: Mount) -> bool:
    words = entry.get("options", ())
    return entry.get("type") == "bind" or "bind" in words or "rbind" in words


def _add_device(root_fd: int, device: LinuxDevice) -> None:
    if device["type"] == "p":
        parent, last = pathrs.open_parent(root_fd, device["path"])
        os.mkfifo(last, dir_fd=parent)
        os.chmod(last, device.get("fileMode", 0o666) & 0o7777, dir_fd=parent)
        os.chown(last, device.get("uid", 0), device.get("gid", 0), dir_fd=parent)
        os.close(parent)
        return
    source = _host_device(device)
    target = pathrs.make_file(root_fd, device["path"])
    if os.fstat(target).st_rdev != os.fstat(source).st_rdev:
        # Not one of the default devices, which are there already.
        tree = mount.open_tree(b"", dir_fd=source)
        mount.move_mount(tree, target)
        os.close(tree)
    os.close(source)
    os.close(target)


def _kernel_name(uevent: str) -> str:
    """Return where devtmpfs has a device, by the kernel's own name; empty when nobody knows."""
    try:
        with open(uevent, encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("DEVNAME="):
                    return f"/dev/{line[8:].strip()}"
    except OSError:
        return ""
    return ""


def _host_device(device: LinuxDevice) -> int:
    """Open the host's node of a device: no other can be had in a user namespace."""
    number = os.makedev(device["major"], device["minor"])
    kind = _DEVICE_TYPES[device["type"]]
    directory = "block" if kind == stat.S_IFBLK else "char"
    by_number = f"{directory}/{device['major']}:{device['minor']}"
    for path in (device["path"], f"/dev/{by_number}", _kernel_name(f"/sys/dev/{by_number}/uevent")):
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        status = os.fstat(fd)
        if stat.S_IFMT(status.st_mode) == kind and status.st_rdev == number:
            return fd
        os.close(fd)
    raise OSError(errno.ENODEV, "the host has no such device node, and it cannot be made")
