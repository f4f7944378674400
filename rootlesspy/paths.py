"""Where rp keeps things: XDG data and runtime directories.  File names stand nowhere else.

Layout (ARCHITECTURE.md, "On disk"): the data directory holds everything that survives a reboot, the
runtime directory only what belongs to running containers.  Both are 0700 and owned by the user.
"""

from __future__ import annotations

import os
import stat

from rootlesspy.errors import Unsupported
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_SYSTEM = "/etc/containers"
_VENDOR = "/usr/share/containers"


class Paths(NamedTuple):
    """All directories of one user; nothing is created by making it."""

    data: str
    runtime: str | None
    config: str

    @property
    def images(self) -> str:
        """The OCI image layout."""
        return f"{self.data}/images"

    @property
    def layers(self) -> str:
        """Unpacked layers, one directory per diff ID."""
        return f"{self.data}/layers"

    @property
    def containers(self) -> str:
        """One directory per container."""
        return f"{self.data}/containers"

    @property
    def names(self) -> str:
        """One file per container name, holding the id."""
        return f"{self.data}/names"

    @property
    def volumes(self) -> str:
        """One directory per named volume."""
        return f"{self.data}/volumes"

    @property
    def networks(self) -> str:
        """One file per user-defined network."""
        return f"{self.data}/networks"

    @property
    def pods(self) -> str:
        """One directory per pod."""
        return f"{self.data}/pods"

    @property
    def secrets(self) -> str:
        """One file per secret."""
        return f"{self.data}/secrets"

    @property
    def cache(self) -> str:
        """What can be made again at any time: compiled seccomp programs."""
        return f"{self.data}/cache"

    @property
    def linger_told(self) -> str:
        """Exists once the user was told that containers end at logout."""
        return f"{self.cache}/linger-told"

    @property
    def tmp(self) -> str:
        """Half-made things, each locked by its owner."""
        return f"{self.data}/tmp"  # noqa: S108 - a directory of the store

    def container(self, container_id: str) -> str:
        """The bundle directory of one container."""
        return f"{self.containers}/{container_id}"

    def container_runtime(self, container_id: str) -> str:
        """The runtime directory of one running container.

        Raises Unsupported when the user has no runtime directory.
        """
        return f"{self.require_runtime()}/{container_id}"

    def containers_conf(self, environment: Mapping[str, str]) -> list[str]:
        """The files that exist, in the order of containers.conf(5): later ones win."""
        forced = environment.get("CONTAINERS_CONF")
        if forced:
            return [forced]
        files: list[str] = []
        for base in (_VENDOR, _SYSTEM, f"{self.config}/containers"):
            path = f"{base}/containers.conf"
            if os.path.exists(path):
                files.append(path)
            if base != _VENDOR:
                files += drop_ins(f"{path}.d")
        return files

    def names_hooks(self, environment: Mapping[str, str]) -> bool:
        """Say whether the files of settings, mostly comments, may hold `hooks_dir =`."""
        return any(map(_names_hooks, self.containers_conf(environment)))

    def network_runtime(self, name: str) -> str:
        """What exists of a network while containers are in it: its service's socket, leases.

        Raises Unsupported when the user has no runtime directory.
        """
        return f"{self.require_runtime()}/networks/{name}"

    def require_runtime(self) -> str:
        """The runtime directory; raises Unsupported when the user has none."""
        if self.runtime is None:
            raise Unsupported(
                "no runtime directory: XDG_RUNTIME_DIR is not set and /run/user/"
                f"{os.getuid()} does not exist",
                hint=f"log in, or run as root: loginctl enable-linger {os.getuid()}",
            )
        session = os.path.dirname(self.runtime)
        if not os.path.isdir(session):
            # A shell that outlived its session; making the directory would not bring it back.
            raise Unsupported(
                f"no user session: XDG_RUNTIME_DIR={session} does not exist",
                hint=f"log in, or run as root: loginctl enable-linger {os.getuid()}",
            )
        return self.runtime


def from_environment(environment: Mapping[str, str]) -> Paths:
    """Compute the directories from XDG_DATA_HOME, XDG_RUNTIME_DIR, XDG_CONFIG_HOME and HOME.

    Relative values are ignored, as the XDG base directory specification says.  A runtime directory
    of another user (su, sudo) is refused with Unsupported.
    """
    home = environment.get("HOME", "")
    if not home.startswith("/"):
        raise Unsupported("HOME is not an absolute path", hint="export HOME=/home/YOU")
    data = _absolute(environment, "XDG_DATA_HOME") or f"{home}/.local/share"
    config = _absolute(environment, "XDG_CONFIG_HOME") or f"{home}/.config"
    runtime = _absolute(environment, "XDG_RUNTIME_DIR")
    if runtime is not None:
        _refuse_foreign(runtime)
    elif _owner(f"/run/user/{os.getuid()}") == os.getuid():
        # cron and su leave the variable unset although the directory is there.
        runtime = f"/run/user/{os.getuid()}"
    return Paths(
        data=f"{data}/rootlesspy",
        runtime=None if runtime is None else f"{runtime}/rootlesspy",
        config=config,
    )


def _names_hooks(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return b"\nhooks_dir=" in b"\n" + file.read().translate(None, b" \t")
    except OSError:
        # Whoever reads it for what it holds will say so.
        return False


def drop_ins(directory: str) -> list[str]:
    """Return the paths of a directory's files *.conf, in the order of their names."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [f"{directory}/{name}" for name in names if name.endswith(".conf")]


def private_directory(path: str) -> None:
    """Make path and its missing parents, 0700, and refuse one that others own or may enter.

    Raises Unsupported for a symlink, a foreign owner or group/other permissions that cannot be
    taken away; OSError when it cannot be made.
    """
    os.makedirs(path, mode=0o700, exist_ok=True)
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise Unsupported(f"{path} is not a directory of this user", hint=f"ls -ld {path}")
    if status.st_mode & 0o077:
        os.chmod(path, 0o700)


def _absolute(environment: Mapping[str, str], name: str) -> str | None:
    value = environment.get(name, "")
    return value.rstrip("/") if value.startswith("/") and value != "/" else None


def _owner(path: str) -> int | None:
    try:
        return os.stat(path).st_uid
    except OSError:
        return None


def _refuse_foreign(runtime: str) -> None:
    owner = _owner(runtime)
    if owner is not None and owner != os.getuid():
        raise Unsupported(
            f"XDG_RUNTIME_DIR={runtime} belongs to uid {owner}, not to uid {os.getuid()}",
            hint="log in as this user (machinectl shell USER@), do not use su or sudo",
        )
