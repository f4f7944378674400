"""The mounts of a container's spec: the kernel's file systems, /etc files, devices, the user's own.

Part of engine.specgen, and as pure: what may not be mounted is refused, nothing is looked at.
"""

from __future__ import annotations

from rootlesspy.engine import idmap
from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.systemd import notify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.engine.inputs.request import Device, RunRequest
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.oci.runtime_spec import Mount

_TTY_GID = 5
_SHM_BYTES = 64 * 1024 * 1024


class Files(NamedTuple):
    """The files of the host that become /etc/hosts and others in the container; "" for none."""

    hosts: str
    resolv_conf: str
    hostname: str
    init: str
    """A static init for --init."""
    notify: str = ""
    """The directory of the payload's notify socket."""
    mqueue: bool = True
    """The host has /dev/mqueue."""


def mounts(
    request: RunRequest,
    volumes: Sequence[Mount],
    files: Files,
    maps: IdMaps,
    proc_options: Sequence[str] = (),
) -> list[Mount]:
    """Return all mounts: the kernel's file systems, /etc files, then the user's by depth."""
    # The group tty owns terminals, where it exists: devpts refuses an id that is not mapped.
    tty_gid = [] if idmap.to_host(maps.gids, _TTY_GID) is None else [f"gid={_TTY_GID}"]
    shm = request.shm_size_bytes or _SHM_BYTES
    # /sys of a container in the host's network namespace cannot be new: only its owner may mount.
    sysfs: Mount = {
        "destination": "/sys",
        "type": "sysfs",
        "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", *([] if request.privileged else ["ro"])],
    }
    if request.network.driver == "host":
        sysfs = {
            "destination": "/sys",
            "type": "bind",
            "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "rro"],
        }
    cgroup_access = "rw" if request.privileged else "ro"
    base: list[Mount] = [
        _mount("/proc", "proc", "nosuid", "noexec", "nodev", *proc_options),
        _mount("/dev", "tmpfs", "nosuid", "noexec", "strictatime", "mode=755", "size=65536k"),
        sysfs,
        _mount(
            "/dev/pts",
            "devpts",
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            *tty_gid,
        ),
        _mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _mount("/sys/fs/cgroup", "cgroup2", "nosuid", "noexec", "nodev", cgroup_access),
    ]
    if "ipc" not in dict(request.shares) and request.ipc != "none":
        # Else it is the one of whoever the IPC namespace belongs to: runtime.init.
        base.append(
            _mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", f"size={shm}")  # noqa: S108 - inside the container
        )
    for target, source in (
        ("/etc/hosts", files.hosts),
        ("/etc/resolv.conf", files.resolv_conf),
        ("/etc/hostname", files.hostname),
    ):
        if source:
            base.append(_bind(source, target, "nosuid", "nodev", "noexec"))
    if files.init:
        base.append(_bind(files.init, "/run/rp-init", "ro", "nosuid", "nodev"))
    if files.notify:
        base.append(_bind(files.notify, notify.MOUNTED, "ro", "nosuid", "nodev", "noexec"))
    base += [_bind(each.host, each.container, "nosuid", "noexec") for each in _devices(request)]
    if request.read_only:
        # podman's --read-only-tmpfs, its default: scratch space stays writable.
        base += [
            _mount(path, "tmpfs", "nosuid", "nodev", "mode=1777")
            for path in ("/tmp", "/var/tmp", "/run")  # noqa: S108 - inside the container
        ]
    return _merge(_with_host(base, request, files), [*volumes, *_tmpfs(request)])


def _with_host(base: list[Mount], request: RunRequest, files: Files) -> list[Mount]:
    """Put the host's file systems in place of those of the namespaces that are the host's.

    Only who owns a namespace may mount its file system anew; podman and crun bind them too.
    """
    safe = ("rbind", "nosuid", "noexec", "nodev")
    bound: dict[str, tuple[str, ...]] = {}
    if request.pid == "host":
        bound["/proc"] = safe
    if request.ipc == "host":
        bound["/dev/shm"] = safe  # noqa: S108 - the host's own
        bound["/dev/mqueue"] = safe if files.mqueue else ()
    if request.cgroupns == "host":
        bound["/sys/fs/cgroup"] = safe if request.privileged else (*safe, "rro")
    if not bound:
        return base
    kept = [each for each in base if each["destination"] not in bound]
    for place, options in bound.items():
        if options:
            kept.append(
                {"destination": place, "type": "bind", "source": place, "options": list(options)}
            )
    return kept


def _devices(request: RunRequest) -> tuple[Device, ...]:
    for device in request.devices:
        if set(device.access) < {"r", "w"}:
            raise Unsupported(
                f"--device {device.host}: access {device.access!r} cannot be enforced without root",
                hint="give it without access letters, or as a read-only bind mount: -v …:ro",
            )
    return request.devices


def _tmpfs(request: RunRequest) -> list[Mount]:
    found = []
    for each in request.tmpfs:
        if each.target == "/proc" or each.target.startswith("/proc/"):
            raise UsageError(f"--tmpfs {each.target}: a mount over /proc is not allowed")
        if {"tmpcopyup", "U"} & set(each.options):
            raise Unsupported(f"--tmpfs {each.target}: tmpcopyup and U are not supported")
        options = [option for option in each.options if option != "notmpcopyup"]
        if not any(option.startswith("mode=") for option in options):
            options.append("mode=1777")
        found.append(_mount(each.target, "tmpfs", "nosuid", "nodev", *options))
    return found


def _merge(base: list[Mount], extra: list[Mount]) -> list[Mount]:
    """Let the user's mounts replace ours at the same place, and order all by depth.

    What lies deeper is mounted later, or a volume at /etc would hide /etc/resolv.conf.
    """
    taken = {each["destination"] for each in extra}
    kept = [each for each in base if each["destination"] not in taken]
    return sorted([*kept, *extra], key=lambda each: each["destination"].rstrip("/").count("/"))


def _mount(destination: str, kind: str, *options: str) -> Mount:
    return {"destination": destination, "type": kind, "source": kind, "options": list(options)}


def _bind(source: str, destination: str, *options: str) -> Mount:
    return {
        "destination": destination,
        "type": "bind",
        "source": source,
        "options": ["bind", "rprivate", *options],
    }
