"""What rp sees of this machine, for `rp info` and the host checks.

Everything here is asked of the machine itself, costs milliseconds, and never fails: on a broken
machine a fact is None, or says in words what is wrong.  Nothing is changed on the host: what has
to be tried is tried in a user namespace of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from rootlesspy import __version__
from rootlesspy.engine import idmap, limits
from rootlesspy.errors import Error
from rootlesspy.image import platforms
from rootlesspy.light_typing import TYPE_CHECKING, Any
from rootlesspy.linux import mount, userns
from rootlesspy.systemd import cgroup, manager

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.linux.userns import IdMapping, IdMaps
    from rootlesspy.paths import Paths

_PROGRAM_TIMEOUT_S = 3
_PROGRAMS = {
    "pasta": ("pasta", "--version"),
    "slirp4netns": ("slirp4netns", "--version"),
    "fuseOverlayfs": ("fuse-overlayfs", "--version"),
}
_ID_HELPERS = ("newuidmap", "newgidmap")
# Each forbids user namespaces at this value (user_namespaces(7), Debian's and Ubuntu's kernels).
_USERNS_SWITCHES = (
    ("user.max_user_namespaces", "0"),
    ("kernel.unprivileged_userns_clone", "0"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1"),
)


def info(paths: Paths) -> dict[str, Any]:
    """Return the facts as nested dicts, named as podman info does where it has the same fact."""
    namespaces = user_namespaces()
    cgroups = _cgroups()
    return {
        "host": {
            **_machine(),
            "distribution": _distribution(),
            "cgroupManager": "systemd",
            "cgroupVersion": cgroups["version"],
            "cgroups": cgroups,
            "systemd": user_manager(paths),
            "idMappings": id_mappings(),
            "security": {"rootless": os.getuid() != 0, "seccomp": _seccomp()},
            "userNamespaces": namespaces,
            "overlay": overlay() if namespaces == "allowed" else namespaces,
            "programs": programs(),
        },
        "store": _store(paths),
        "version": {"Version": __version__},
    }


def user_manager(paths: Paths) -> dict[str, Any]:
    """Return version and features of the user manager, or why it cannot be reached."""
    runtime_dir = None if paths.runtime is None else os.path.dirname(paths.runtime)
    found: dict[str, Any] = {
        "runtimeDir": runtime_dir,
        "linger": os.path.exists(f"/var/lib/systemd/linger/{idmap.user_name()}"),
    }
    try:
        told = manager.describe(runtime_dir)
    except Error as error:
        return {**found, "version": None, "problem": error.message, "cure": error.hint}
    return {**found, "version": told.version, "controlGroup": told.control_group}


def user_namespaces() -> str:
    """Try to make a user namespace: "allowed", or why not."""
    return _tried(lambda: "allowed", "forbidden")


def overlay() -> str:
    """Try to mount an overlay in a user namespace: "native", or why not."""
    return _tried(_mount_overlay, "refused by the kernel")


def id_mappings() -> dict[str, Any]:
    """Return the default maps and the helpers that write them, or what is wrong with them."""
    try:
        maps = idmap.default_maps()
    except (Error, OSError) as error:
        return {"problem": str(error)}
    found: dict[str, Any] = {"uidmap": _mappings(maps.uids), "gidmap": _mappings(maps.gids)}
    if maps.is_single():
        found["problem"] = idmap.missing_ranges_notice()
    for name in _ID_HELPERS:
        try:
            found[name] = userns.find_helper(name)
        except OSError as error:
            found[name] = None
            found["problem"] = f"{name} {error.strerror}"
    return found


def programs() -> dict[str, Any]:
    """Return path and version of the programs that rp can use, None where one is missing."""
    found: dict[str, Any] = {}
    for name, argv in _PROGRAMS.items():
        path = shutil.which(argv[0])
        found[name] = None if path is None else {"executable": path, "version": _version(argv)}
    return found


def _machine() -> dict[str, Any]:
    uname = os.uname()
    memory = _meminfo()
    system, _, architecture = platforms.host().partition("/")
    return {
        "arch": architecture,
        "os": system,
        "kernel": uname.release,
        "hostname": uname.nodename,
        "cpus": len(limits.host().cpus),
        "memTotal": memory.get("MemTotal"),
        "memFree": memory.get("MemAvailable"),
        "swapTotal": memory.get("SwapTotal"),
    }


def _meminfo() -> dict[str, int]:
    """Read /proc/meminfo in bytes (proc_meminfo(5) counts in units of 1024)."""
    found = {}
    for line in _read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()
        if number and number[0].isdigit():
            found[name] = int(number[0]) * 1024
    return found


def _distribution() -> dict[str, str]:
    # Imported here: it costs 5 ms that only rp info pays for.
    import platform

    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return {"distribution": "unknown", "version": "unknown"}
    return {
        "distribution": release.get("ID", "unknown"),
        "version": release.get("VERSION_ID", "unknown"),
    }


def _cgroups() -> dict[str, Any]:
    machine = limits.host()
    try:
        mounted = cgroup.mount_point()
    except OSError:
        mounted = None
    version = "v1" if mounted is None else "v2" if mounted == "/sys/fs/cgroup" else "hybrid"
    wanted = {"cpu", "cpuset", "io", "memory", "pids"}
    return {
        "version": version,
        "controllers": sorted(machine.delegated),
        "missing": sorted(wanted - machine.delegated),
    }


def _seccomp() -> str:
    """Say whether the kernel takes filters, and whether libseccomp can compile them."""
    if not os.path.exists("/proc/sys/kernel/seccomp/actions_avail"):
        return "the kernel has no seccomp filters"
    # Imported here: the library is loaded to see whether it can be.
    import ctypes

    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        return f"libseccomp cannot be loaded: {error}"
    return "enabled"


def _tried(function: Callable[[], str], otherwise: str) -> str:
    """Run function in a user namespace with a single id and return what it says, or why not."""
    try:
        return userns.call_in_userns(_single_map(), function)
    except OSError as error:
        switches = [
            f"{name}={value}"
            for name, value in _USERNS_SWITCHES
            if _read(f"/proc/sys/{name.replace('.', '/')}").strip() == value
        ]
        return f"{otherwise}: {error.strerror or error} {' '.join(switches)}".rstrip()


def _mount_overlay() -> str:
    """Mount a tmpfs and an overlay over it; runs in a namespace that ends with this function."""
    place = b"/tmp"
    mount.mount(b"tmpfs", place, b"tmpfs", mount.MS_NOSUID | mount.MS_NODEV, None)
    for name in (b"lower", b"upper", b"work", b"merged"):
        os.mkdir(place + b"/" + name)
    options = b"lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work,userxattr"
    mount.mount(b"overlay", place + b"/merged", b"overlay", 0, options)
    return "native"


def _single_map() -> IdMaps:
    return userns.IdMaps(
        (userns.IdMapping(0, os.getuid(), 1),), (userns.IdMapping(0, os.getgid(), 1),)
    )


def _mappings(mappings: tuple[IdMapping, ...]) -> list[str]:
    return [f"{each.container_id} {each.host_id} {each.size}" for each in mappings]


def _version(argv: tuple[str, ...]) -> str | None:
    """Return what a program says about its version; pasta of 2025 says nothing to a pipe."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROGRAM_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = (done.stdout or done.stderr).strip().splitlines()
    # fuse-overlayfs names fusermount3 first.
    own = [line for line in lines if line.startswith(argv[0])]
    return next(iter(own or lines), None)


def _store(paths: Paths) -> dict[str, Any]:
    return {
        "graphRoot": paths.data,
        "runRoot": paths.runtime,
        "imageStore": {"number": _images(paths)},
        "containerStore": {"number": _entries(paths.containers)},
        "volumePath": paths.volumes,
    }


def _images(paths: Paths) -> int | None:
    # Imported here: the other facts do not need it.
    from rootlesspy.image.store import Store

    try:
        return len(Store(paths).images())
    except (Error, OSError):
        return None


def _entries(directory: str) -> int | None:
    try:
        return len(os.listdir(directory))
    except FileNotFoundError:
        return 0
    except OSError:
        return None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
