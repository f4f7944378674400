"""From --landlock's rules to what the kernel is told, or a refusal where it lacks what they need.

Landlock's rules only add up: each gives rights below a path, none takes away what another one gave.
So a rule that promises less than one around it is refused.
"""

from __future__ import annotations

from rootlesspy.errors import Unsupported
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import landlock
from rootlesspy.runtime.landlock import PathRule, Rules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootlesspy.engine.record import ContainerRecord

_READ = landlock.ACCESS_FS_READ_FILE | landlock.ACCESS_FS_READ_DIR
_ALL = landlock.ACCESS_FS_TRUNCATE * 2 - 1
_ACCESS = {
    "ro": _READ | landlock.ACCESS_FS_EXECUTE,
    "ro-noexec": _READ,
    "rw": _ALL,
    "rw-noexec": _ALL & ~landlock.ACCESS_FS_EXECUTE,
}
_NET = {"connect": landlock.ACCESS_NET_CONNECT_TCP, "bind": landlock.ACCESS_NET_BIND_TCP}
_SCOPES = {
    "abstract-sockets": landlock.SCOPE_ABSTRACT_UNIX_SOCKET,
    "signals": landlock.SCOPE_SIGNAL,
}
# What a program takes for granted, as with a read-only root file system.
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts")

# From which version on the kernel knows what a kind of rule needs.  Before 3 truncate(2) goes
# unchecked, so that "ro" would not be true.
_NEEDS = {
    **dict.fromkeys(_ACCESS, (3, "6.2")),
    "net": (4, "6.7"),
    "scope": (6, "6.12"),
}


def compile_rules(texts: Iterable[str], *, init: bool, abi: int) -> Rules:
    """Return the rules of checked texts (engine.inputs.landlock_values).

    init: the container's first program is rp's own, which has to be executed.  abi: the kernel's
    version of the interface, 0 without.  Raises Unsupported.
    """
    paths: list[PathRule] = []
    ports: dict[int, int] = {}
    handled_net = scoped = 0
    for text in texts:
        kind, _, value = text.partition("=")
        _require(text, kind, abi)
        if kind == "net":
            handled_net = _NET["connect"] | _NET["bind"]
            what, _, port = value.partition(":")
            if port:
                ports[int(port)] = ports.get(int(port), 0) | _NET[what]
        elif kind == "scope":
            scoped |= _SCOPES[value]
        else:
            paths.append(PathRule(path=value, access=_ACCESS[kind]))
    return Rules(
        handled_fs=_ALL if paths else 0,
        handled_net=handled_net,
        scoped=scoped,
        paths=tuple([*paths, *_granted(init=init)] if paths else ()),
        ports=tuple(ports.items()),
    )


def of_container(record: ContainerRecord) -> Rules:
    """Return the rules that a container was made with, for this kernel.  Raises Unsupported."""
    asked: list[str] = record.request.get("landlock", [])  # type: ignore[assignment]  # by options
    return compile_rules(asked, init=bool(record.request.get("init")), abi=landlock.abi())


def _granted(*, init: bool) -> list[PathRule]:
    access = _ACCESS["rw-noexec"]
    found = [PathRule(f"/dev/{name}", access, optional=True) for name in _DEVICES]
    if init:
        found.append(PathRule("/run/rp-init", _ACCESS["ro"], optional=True))
    return found


def _require(text: str, kind: str, abi: int) -> None:
    needed, kernel = _NEEDS[kind]
    if abi >= needed:
        return
    has = f"this one has ABI {abi}" if abi else "this one has none"
    hint = "boot with lsm=landlock,… or a kernel that has CONFIG_SECURITY_LANDLOCK"
    raise Unsupported(
        f"--landlock {text} needs Landlock ABI {needed} (Linux {kernel}); {has}",
        hint=None if abi else hint,
    )
