"""How much of the account a path of the host gives away, when a container sees it: pure."""

from __future__ import annotations

from rootlesspy.light_typing import NamedTuple


class Bind(NamedTuple):
    """Something of the host in a container."""

    source: str
    target: str
    read_only: bool
    is_socket: bool
    is_volume: bool
    """A named or anonymous volume: nothing of the host's own."""
    home: str
    """The caller's home directory."""
    runtime: str
    """The caller's runtime directory, /run/user/UID."""


# Whoever reaches one of them has everything that its owner has.
_ENGINES = ("docker.sock", "podman.sock", "containerd.sock", "crio.sock", "buildkitd.sock")
_MANAGERS = ("systemd/private", "systemd/notify", "bus", "system_bus_socket")
# Below the home directory: keys, or what is executed at the next login.
_TELLING = (
    ".ssh", ".gnupg", ".aws", ".kube", ".docker", ".config", ".local", ".bashrc", ".bash_profile",
    ".profile", ".zshrc", ".netrc", ".password-store", ".mozilla", ".git-credentials",
)  # fmt: skip


def judge(bind: Bind) -> tuple[float, str, str]:
    """Return how bad it is from 0 to 1, what it is, and advice."""
    where = f"{bind.source} at {bind.target}"
    cure = f"leave out --volume {bind.source}"
    if bind.is_volume:
        return 0.0, f"volume {where}", ""
    if _is_engine(bind):
        return 1.0, f"{where}: the socket of a container engine is all that it may do", cure
    if _is_manager(bind):
        return 1.0, f"{where}: through a manager's socket programs start outside", cure
    inside = _reach(bind)
    if inside:
        badness = 0.7 if bind.read_only else 1.0
        what = "reads" if bind.read_only else "changes"
        return badness, f"{what} {where}: {inside} is in it", "mount only what it needs"
    if bind.is_socket:
        return 0.6, f"{where}: speaks to whoever listens there", cure
    if bind.read_only:
        return 0.1, f"reads {where}", ""
    return 0.3, f"changes {where}", f"--volume {bind.source}:{bind.target}:ro, if it only reads"


def _is_engine(bind: Bind) -> bool:
    return bind.source.endswith(_ENGINES)


def _is_manager(bind: Bind) -> bool:
    for place in (bind.runtime, "/run", "/run/dbus", "/var/run", "/var/run/dbus"):
        if bind.source in [f"{place}/{name}" for name in _MANAGERS]:
            return True
    return bind.source in (f"{bind.runtime}/systemd", "/run/systemd")


def _reach(bind: Bind) -> str:
    """Say what of the account lies in the source or holds it; empty when nothing does."""
    source = bind.source.rstrip("/") or "/"
    if source == "/":
        return "all that you can reach"
    if _contains(source, bind.runtime) or source == "/var/run":
        return "the socket of your user manager"
    if _contains(source, bind.home):
        return "your home directory"
    for name in _TELLING:
        if _contains(f"{bind.home}/{name}", source):
            return f"~/{name}"
    if source in ("/etc", "/proc", "/sys", "/dev", "/boot", "/var"):
        return "the machine's configuration or state"
    return ""


def _contains(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(f"{outer.rstrip('/')}/")
