"""Drives OCI runtimes in the virtual machine: one JSON document on stdout says what was seen.

    python3 - MODE RUNTIME…        MODE: systemd, files

Sent there by tests/vm/test_oci_limits.py.  Runs as the user: with `files` in a scope that systemd
has delegated to it, whose processes it moves aside first, since a cgroup that divides its
controllers may hold none.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from typing import Any

HOME = os.path.expanduser("~/oci-limits")
MIB = 1 << 20
DISK = os.stat("/").st_dev
# What the resources below are meant to set.
FILES = (
    "memory.max", "memory.low", "memory.min", "memory.high", "memory.swap.max", "memory.oom.group",
    "cpu.max", "cpu.weight", "cpuset.cpus", "cpuset.mems", "pids.max", "io.weight", "io.max",
)  # fmt: skip
UNSET = {"max", "", "0", "100", "default 100", "max 100000"}
RESOURCES: dict[str, Any] = {
    "memory": {"limit": 100 * MIB, "swap": 150 * MIB, "reservation": 50 * MIB},
    "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "1", "mems": "0"},
    "pids": {"limit": 77},
    "blockIO": {
        "weight": 300,
        "throttleReadBpsDevice": [
            {"major": os.major(DISK), "minor": os.minor(DISK), "rate": 1048576}
        ],
        "throttleWriteIOPSDevice": [
            {"major": os.major(DISK), "minor": os.minor(DISK), "rate": 500}
        ],
    },
    "unified": {"memory.min": str(4 * MIB)},
    "devices": [{"allow": False, "access": "rwm"}],
}
# The container's program: on USR1 a child of it eats more memory than there is.
PAYLOAD = """
trap 'python3 -c "print(len(b\\"x\\" * (300 << 20)))"' USR1
while :; do sleep 0.2 & wait; done
"""


def run(*argv: str, check: bool = True, input: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command with streams of its own."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, input=input)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(argv)}: {done.returncode}: {done.stderr}{done.stdout}")
    return done


def move_aside() -> str:
    """Leave the scope's own cgroup; return its path in the tree."""
    with open("/proc/self/cgroup", encoding="ascii") as file:
        own = file.read().strip().removeprefix("0::")
    os.mkdir(f"/sys/fs/cgroup{own}/driver")
    with open(f"/sys/fs/cgroup{own}/driver/cgroup.procs", "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    return own


def write_bundle(runtime: str, cgroups_path: str, resources: dict[str, Any]) -> str:
    """Write a bundle on the machine's own programs."""
    directory = f"{HOME}/{os.path.basename(runtime)}"
    for name in ("usr", "proc", "sys", "dev", "run", "tmp", "etc"):
        os.makedirs(f"{directory}/rootfs/{name}", exist_ok=True)
    for name in ("bin", "lib", "lib64"):
        with contextlib.suppress(FileExistsError):
            os.symlink(f"usr/{name}", f"{directory}/rootfs/{name}")
    user, group = os.getuid(), os.getgid()
    spec = {
        "ociVersion": "1.2.0",
        "process": {
            "args": ["/bin/sh", "-c", PAYLOAD],
            "cwd": "/",
            "env": ["PATH=/usr/bin"],
            "user": {"uid": 0, "gid": 0},
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("user", "pid", "mount", "cgroup")],
            "uidMappings": [{"containerID": 0, "hostID": user, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": group, "size": 1}],
            "cgroupsPath": cgroups_path,
            "resources": resources,
        },
    }
    with open(f"{directory}/config.json", "w", encoding="utf-8") as file:
        json.dump(spec, file)
    return directory


def limits_of(pid: int) -> dict[str, str]:
    """Return the limits on a process, by file: the nearest that is set in it or above it."""
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
        place = file.read().strip().removeprefix("0::")
    found: dict[str, str] = {}
    # No further than the scope, or what was made in the driver's own.
    while place.count("/") > 4 and not place.endswith(".slice"):
        for name in FILES:
            try:
                with open(f"/sys/fs/cgroup{place}/{name}", encoding="ascii") as file:
                    text = file.read().strip()
            except OSError:
                continue
            # CPU 0 and node 0 are a choice, 0 bytes are none.
            chosen = bool(text) if name.startswith("cpuset.") else text not in UNSET
            if name not in found and chosen:
                found[name] = text
        place = os.path.dirname(place)
    return found


def drive(runtime: str, mode: str, own: str) -> dict[str, Any]:
    """Make a container with limits, look at it, change it, and end it."""
    name = f"limits-{os.path.basename(runtime)}"
    path = f"user.slice:oci:{name}" if mode == "systemd" else f"{own}/{name}"
    directory = write_bundle(runtime, path, RESOURCES)
    command = [runtime, *(["--systemd-cgroup"] if mode == "systemd" else [])]
    # Its streams are not pipes, at whose end run() would wait.
    with open("/dev/null", "r+b") as null:
        options = ["--detach", "--pid-file", f"{HOME}/pid", "--bundle", directory]
        argv = [*command, "run", *options, name]
        with open(f"{HOME}/errors", "w+", encoding="utf-8") as errors:
            code = subprocess.call(argv, stdin=null, stdout=null, stderr=errors)
            errors.seek(0)
            if code:
                raise SystemExit(f"{runtime}: {errors.read()}")
    try:
        with open(f"{HOME}/pid", encoding="ascii") as file:
            pid = int(file.read())
        seen: dict[str, Any] = {"made": limits_of(pid)}
        changed = {"cpu": {"shares": 2048, "cpus": "0"}, "blockIO": {"weight": 500}}
        run(*command, "update", "-r", "-", name, input=json.dumps(changed))
        seen["file"] = limits_of(pid)
        if "crun" not in runtime and mode == "systemd":
            seen.update(drive_further(command, name, pid))
    finally:
        run(*command, "delete", "--force", name, check=False)
    seen["left"] = not goes(pid)
    return seen


def goes(pid: int) -> bool:
    """Wait until a process is gone: a dead one is there until its parent has asked."""
    limit_s = time.monotonic() + 60
    while os.path.exists(f"/proc/{pid}"):
        if time.monotonic() > limit_s:
            return False
        time.sleep(0.05)
    return True


def drive_further(command: list[str], name: str, pid: int) -> dict[str, Any]:
    """Change more; look at what it uses; pause it; let a process of it eat too much memory."""
    update = ["--memory", str(120 * MIB), "--memory-swap", str(130 * MIB)]
    update += ["--pids-limit", "55", "--cpu-quota", "25000", "--cpu-period", "100000"]
    run(*command, "update", *update, name)
    flags = limits_of(pid)
    stats = json.loads(run(*command, "events", "--stats", name).stdout)["data"]
    listed = json.loads(run(*command, "ps", "-f", "json", name).stdout)
    run(*command, "pause", name)
    paused = json.loads(run(*command, "state", name).stdout)["status"]
    before = switches(pid)
    time.sleep(1)
    spent = switches(pid) - before
    run(*command, "resume", name)
    argv = [*command, "events", "--interval", "1s", name]
    events = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert events.stdout is not None
    kinds = [json.loads(events.stdout.readline())["type"]]
    os.kill(pid, signal.SIGUSR1)
    while kinds[-1] != "oom":
        kinds.append(json.loads(events.stdout.readline())["type"])
    os.kill(pid, signal.SIGKILL)
    for line in events.stdout:
        json.loads(line)
    return {
        "flags": flags,
        "stats": stats,
        "ps": [pid in listed, len(listed)],
        "paused": [paused, spent],
        "events": [kinds[0], kinds[-1], events.wait()],
    }


def switches(pid: int) -> int:
    """Return how often a process has given up the CPU: a paused one does not run at all."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)


def refused(own: str) -> list[object]:
    """Return how rp-oci refuses a limit whose controller no user has."""
    resources = {"hugepageLimits": [{"pageSize": "2MB", "limit": 2 * MIB}]}
    directory = write_bundle("refused", f"{own}/refused", resources)
    done = run("rp-oci", "run", "--bundle", directory, "refused", check=False)
    return [done.returncode, done.stderr]


def main(mode: str, *runtimes: str) -> None:
    # Its traceback says where it waited in vain.
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("".join(traceback.format_stack())))
    signal.alarm(1800)
    os.makedirs(HOME, exist_ok=True)
    own = move_aside() if mode == "files" else ""
    seen: dict[str, Any] = {each: drive(each, mode, own) for each in runtimes}
    if mode == "files":
        seen["refused"] = refused(own)
    print(json.dumps(seen))


main(*sys.argv[1:])
