"""Time commands and start containers, inside the rig: reads one JSON order, prints one answer.

Stands alone (standard library only).  As alice: `commands`, `grow`, `seed`.  As root: `memory`
(proportional set sizes by program) and `processor` (its time by cgroup).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TAIL_BYTES = 300
_STORE = Path.home() / ".local/share/rootlesspy"
_CGROUPS = Path("/sys/fs/cgroup")


def main() -> int:
    """Carry out what stdin asks for."""
    order: dict[str, Any] = json.load(sys.stdin)
    actions: dict[str, Callable[..., dict[str, Any]]] = {
        "commands": commands,
        "grow": grow,
        "seed": seed,
        "memory": memory,
        "processor": processor,
    }
    json.dump(actions[order.pop("do")](**order), sys.stdout)
    return 0


def commands(
    lines: dict[str, list[str]], rounds: int, limit_s: float, alone: str = ""
) -> dict[str, Any]:
    """Run named commands one after the other, as often as time allows, twice at least.

    {i} in a word is the number of the round, {one} a container that runs.  alone: where another
    store is, with one running and one stopped container; each round is done there too, by turns.
    """
    stores: dict[str, tuple[dict[str, str], str]] = {"times": ({}, "one")}
    if alone:
        stores["alone"] = ({"XDG_DATA_HOME": alone}, "lone")
    found: dict[str, Any] = {
        store: {name: {"wall_ms": [], "cpu_ms": []} for name in lines} for store in stores
    }
    began_s = time.monotonic()
    for index in range(rounds):
        if index > 1 and time.monotonic() - began_s > limit_s:
            break
        for store, (environment, one) in stores.items():
            for name, argv in lines.items():
                words = [word.replace("{i}", str(index)).replace("{one}", one) for word in argv]
                wall_ms, cpu_ms, said = _run(words, {**os.environ, **environment})
                if said:
                    found[store][name]["failed"] = said
                else:
                    found[store][name]["wall_ms"].append(wall_ms)
                    found[store][name]["cpu_ms"].append(cpu_ms)
    return found


def grow(argv: list[str], first: int, last: int, parallel: int) -> dict[str, Any]:
    """Start containers first to last, so many at a time; {i} in a word is the number."""
    began = time.monotonic()
    waiting: dict[int, tuple[float, int]] = {}
    starts, failed, number = [], [], first
    while number <= last or waiting:
        while number <= last and len(waiting) < parallel:
            err_fd = os.memfd_create("stderr", os.MFD_CLOEXEC)
            words = [word.replace("{i}", str(number)) for word in argv]
            waiting[_spawn(words, os.environ, err_fd)] = (time.monotonic(), err_fd)
            number += 1
        pid, status, used = os.wait4(-1, 0)
        since, err_fd = waiting.pop(pid)
        now = time.monotonic()
        if status:
            failed.append(_tail(err_fd))
        else:
            cpu_ms = (used.ru_utime + used.ru_stime) * 1e3
            starts.append([round(now - began, 3), round((now - since) * 1e3, 1), round(cpu_ms, 1)])
        os.close(err_fd)
    return {"starts": starts, "failed": failed, "took_s": round(time.monotonic() - began, 3)}


def seed(name: str, first: int, last: int) -> dict[str, Any]:
    """Have containers first to last of rp that ended as one did: its files, other ids and names."""
    origin = os.readlink(_STORE / "names" / name)
    source = _STORE / "containers" / origin
    files = {path.name: path.read_text() for path in source.glob("*.json")}
    for number in range(first, last + 1):
        identity, own = os.urandom(32).hex(), f"{name}-{number}"
        directory = _STORE / "containers" / identity
        for part in ("upper", "work", "rootfs"):
            (directory / part).mkdir(parents=True, mode=0o700)
        directory.chmod(0o700)
        for file, text in files.items():
            changed = text.replace(origin, identity).replace(f'"{name}"', f'"{own}"')
            (directory / file).write_text(changed.replace(f"rp-{name}.", f"rp-{own}."))
        (_STORE / "names" / own).symlink_to(identity)
    return {}


def memory() -> dict[str, Any]:
    """Add up by program what processes have to themselves (PSS)."""
    found: dict[str, list[float]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "comm").read_text().strip().partition(".")[0]
            rollup = (process / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        if name.startswith("rp-"):
            name = "supervisor"
        kilobytes = next((int(line.split()[1]) for line in rollup if line.startswith("Pss:")), 0)
        count, total = found.get(name, [0, 0.0])
        found[name] = [count + 1, total + kilobytes / 1024]
    info = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(info["MemAvailable"].split()[0]) / 1024
    return {"pss_mb": found, "available_mb": round(available)}


def processor() -> dict[str, Any]:
    """Return the seconds of processor time so far: of all, and of those that serve many."""
    manager = "**/user@1000.service"
    places = {
        "systemd --user": f"{manager}/init.scope",
        "dbus-daemon": f"{manager}/*/dbus.service",
        "journald": "**/systemd-journald.service",
        "pid 1": "init.scope",
    }
    found = {"all": _used_s(_CGROUPS)}
    for name, place in places.items():
        found[name] = next((_used_s(path) for path in _CGROUPS.glob(place)), 0.0)
    return found


def _used_s(path: Path) -> float:
    for line in (path / "cpu.stat").read_text().splitlines():
        if line.startswith("usage_usec"):
            return int(line.split()[1]) / 1e6
    return 0.0


def _run(argv: list[str], environment: Mapping[str, str]) -> tuple[float, float, str]:
    err_fd = os.memfd_create("stderr", os.MFD_CLOEXEC)
    began = time.monotonic()
    pid = _spawn(argv, environment, err_fd)
    _, status, used = os.wait4(pid, 0)
    wall_ms = (time.monotonic() - began) * 1e3
    said = (_tail(err_fd) or f"status {status}") if status else ""
    os.close(err_fd)
    return round(wall_ms, 1), round((used.ru_utime + used.ru_stime) * 1e3, 1), said


def _spawn(argv: list[str], environment: Mapping[str, str], err_fd: int) -> int:
    return os.posix_spawnp(
        argv[0],
        argv,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, err_fd, 2),
        ],
    )


def _tail(fd: int) -> str:
    size = os.fstat(fd).st_size
    text = os.pread(fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES)).decode(errors="replace")
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
