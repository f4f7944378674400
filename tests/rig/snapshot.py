"""Print, as JSON, all that a user could have left behind: `python3 -I - UID`.

Sent into a rig by its text, so: standard library only, no imports of the rig. Everything is a
sorted list of lines, so that a difference reads by itself.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys


def collect(uid: int) -> dict[str, list[str]]:
    """Return what exists now, by kind."""
    home = pwd.getpwuid(uid).pw_dir
    return {
        "processes": sorted(_processes(uid)),
        "units": sorted(_units(uid)),
        "mounts": sorted(_mounts()),
        "cgroups": sorted(_directories(f"/sys/fs/cgroup/user.slice/user-{uid}.slice")),
        "runtime": sorted(
            line
            for line in _tree(f"/run/user/{uid}")
            # Made once, by the user manager with the first transient unit and by the first rp.
            if not line.startswith(
                (f"/run/user/{uid}/systemd/transient ", f"/run/user/{uid}/rootlesspy ")
            )
        ),
        "temporary": sorted([*_tree("/tmp"), *_tree("/var/tmp")]),
        "sockets": sorted(_sockets()),
        "home": sorted(_tree(home)),
    }


def _processes(uid: int) -> list[str]:
    found = []
    own = {os.getpid(), os.getppid()}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in own:
            continue
        try:
            owner = os.stat(f"/proc/{name}").st_uid
            effective, started, command = _process(name)
        except (FileNotFoundError, ProcessLookupError):
            continue
        # A non-dumpable process belongs to root in /proc: its status tells the user.
        if uid in (owner, effective) or 100000 <= effective < 165536:
            found.append(f"{name} {started} {command}")
    return found


def _process(name: str) -> tuple[int, str, str]:
    with open(f"/proc/{name}/status", encoding="utf-8", errors="replace") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
        started = file.read().rpartition(")")[2].split()[19]
    with open(f"/proc/{name}/cmdline", encoding="utf-8", errors="replace") as file:
        command = file.read().replace("\0", " ").strip() or f"[{status['Name']}]"
    return int(status["Uid"].split()[1]), started, command


def _units(uid: int) -> list[str]:
    runtime = f"/run/user/{uid}"
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "XDG_RUNTIME_DIR": runtime,
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
    }
    argv = ["systemctl", "--user", "list-units", "--all", "--plain", "--no-legend", "--no-pager"]
    if os.geteuid() != uid:
        argv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *argv]
    text = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout
    # Load and active states; devices and the like come and go by themselves.
    kinds = (".service", ".scope", ".socket", ".timer", ".slice", ".path")
    lines = (line.split() for line in text.splitlines())
    return [" ".join(fields[:4]) for fields in lines if fields and fields[0].endswith(kinds)]


def _mounts() -> list[str]:
    found = []
    for pid in {"1", "self"}:
        try:
            with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
                # Without the mount ids, which are numbered anew by each namespace.
                found += [f"{pid} {line.split(' ', 2)[2].strip()}" for line in file]
        except PermissionError:
            continue
    return found


def _directories(top: str) -> list[str]:
    return [path for path, _directories, _files in os.walk(top)]


def _tree(top: str) -> list[str]:
    found = []
    for path, directories, files in os.walk(top):
        for name in directories + files:
            entry = os.path.join(path, name)
            try:
                status = os.lstat(entry)
            except FileNotFoundError:
                continue
            found.append(f"{entry} {status.st_mode:o} {status.st_uid}")
    return found


def _sockets() -> list[str]:
    found = []
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
        next(file)
        for line in file:
            fields = line.split()
            listening = int(fields[3], 16) & 0x10000
            if len(fields) > 7 and listening:
                found.append(f"unix {fields[7]}")
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        with open(f"/proc/net/{protocol}", encoding="ascii") as file:
            next(file)
            for line in file:
                fields = line.split()
                # TCP_LISTEN, and unconnected UDP.
                if fields[3] in ("0A", "07"):
                    found.append(f"{protocol} {fields[1]}")
    return found


if __name__ == "__main__":
    json.dump(collect(int(sys.argv[1])), sys.stdout)
