"""Who holds a port: looked up only to word the error, so it never raises.

Source: proc_net(5) for the columns, proc(5) for /proc/PID/fd.
"""

from __future__ import annotations

import os

from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rootlesspy.network.ports import PortMapping

_TCP_LISTEN = "0A"
# Their files may be passt, passt.avx2 or pasta.avx2.
_HELPERS = ("pasta", "passt", "slirp4netns")


class _Socket(NamedTuple):
    uid: int
    inode: str


def describe(mapping: PortMapping) -> str:
    """Return ` by nginx (pid 123)`, ` by container web`, ` by a process of root`, or nothing."""
    sockets = _bound(mapping)
    wanted = {f"socket:[{each.inode}]" for each in sockets}
    pid = _process_with(wanted) if wanted else None
    if pid is not None:
        name = _read(f"/proc/{pid}/comm").strip()
        owner = _owner(pid) if name.startswith(_HELPERS) else ""
        return owner or f" by {name} (pid {pid})"
    pid = _pasta_with(mapping) if sockets else None
    if pid is not None:
        return _owner(pid) or f" by a container (pasta, pid {pid})"
    for each in sockets:
        return f" by a process of {_user(each.uid)}"
    return ""


def _owner(pid: int) -> str:
    """Return ` by container NAME` of a network helper: its parent's name, or service, says so."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    parent = fields[1] if len(fields) > 1 else ""
    unit = _read(f"/proc/{parent}/cgroup").strip().rpartition("/")[2]
    for prefix, kind in (("rp-pod-", "pod"), ("rp-", "container")):
        if unit.startswith(prefix) and unit.endswith(".service"):
            return f" by {kind} {unit.removeprefix(prefix).removesuffix('.service')}"
    name = _read(f"/proc/{parent}/comm").strip()
    return f" by container {name.removeprefix('rp-')}" if name.startswith("rp-") else ""


def _bound(mapping: PortMapping) -> list[_Socket]:
    found: list[_Socket] = []
    for table in (mapping.protocol, f"{mapping.protocol}6"):
        for line in _read(f"/proc/net/{table}").splitlines()[1:]:
            fields = line.split()
            if len(fields) < 10 or not fields[7].isdigit():
                continue
            _address, _colon, port = fields[1].rpartition(":")
            if mapping.protocol == "tcp" and fields[3] != _TCP_LISTEN:
                continue
            if int(port, 16) == mapping.host_port:
                found.append(_Socket(uid=int(fields[7]), inode=fields[9]))
    return found


def _process_with(links: set[str]) -> int | None:
    """Return a process of this user (others cannot be read) that has one of these sockets open."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with os.scandir(f"/proc/{name}/fd") as entries:
                if any(_link(entry.path) in links for entry in entries):
                    return int(name)
        except OSError:
            continue
    return None


def _pasta_with(mapping: PortMapping) -> int | None:
    """Return a pasta that was told to publish the port: it hides its descriptors, not its words."""
    for name in os.listdir("/proc"):
        # Its file may be passt, passt.avx2 or pasta.avx2.
        if name.isdigit() and _read(f"/proc/{name}/comm").startswith(("pasta", "passt")):
            words = _read(f"/proc/{name}/cmdline").split("\0")
            if any(_covers(word, mapping.host_port) for word in words):
                return int(name)
    return None


def _covers(spec: str, port: int) -> bool:
    """Say whether [ADDRESS/]FIRST[-LAST]:… holds the port."""
    first, dash, last = spec.rpartition("/")[2].partition(":")[0].partition("-")
    last = last if dash else first
    return first.isdigit() and last.isdigit() and int(first) <= port <= int(last)


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
