"""The same probe in podman and in rp, side by side: nothing is weaker that docs/ does not explain.

One container of each runs the probe several times over; what it says is taken apart into facts with
names, and the names of those that differ are the rows of the table "Beside podman" in
docs/security.md.  A difference that is in no row fails.
"""

from __future__ import annotations

import ctypes
import errno
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from namespace.probe_box import joined

if TYPE_CHECKING:
    from namespace.probe_box import Box

    Sides = tuple[dict[str, Any], dict[str, Any]]

LIBSECCOMP = ctypes.CDLL("libseccomp.so.2")
LIBSECCOMP.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
TABLE = Path(__file__).parents[2] / "docs/security.md"
LAST_CALL = 480
# What may change from one look to the next, or is made up for each container.
PASSING = (
    *("kernel/random/", "kernel/ns_last_pid", "fs/dentry-state", "fs/inode-", "fs/file-nr"),
    *("kernel/pty/nr", "net/netfilter/nf_conntrack_count", "kernel/hostname", "fs/aio-nr"),
    *("fs/quota/", "kernel/perf_event_max_sample_rate", "vm/stat_"),
    *("kernel/tainted", "kernel/hung_task_detect_count"),
)
MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/bus", "/proc/fs", "/proc/interrupts", "/proc/irq"),
    *("/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi"),
    *("/proc/sys", "/proc/sysrq-trigger", "/proc/timer_list", "/proc/timer_stats"),
    *("/sys/dev/block", "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/selinux"),
    *("/sys/fs/cgroup", "/dev", "/dev/mqueue"),
)
NULL_DEVICES = tuple(
    f"mount /proc/{name}"
    for name in (
        *("interrupts", "kcore", "keys", "latency_stats", "sched_debug", "timer_list"),
        "timer_stats",
    )
)
REFUSALS = ("EPERM", "ENOSYS")
FLAGS = frozenset(("ro", "rw", "nosuid", "nodev", "noexec"))


RUNS = (
    ("report",),
    ("values", "/proc/sys"),
    ("look", *MASKED),
    ("writable", "/proc/sys"),
    ("sweep", "0", str(LAST_CALL)),
)


def facts(report: Any, sysctls: Any, looked: Any, writable: Any, calls: Any) -> dict[str, Any]:
    """Take what the probe said apart into facts that can be compared."""
    found: dict[str, Any] = {}
    status = report["status"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Seccomp", "NoNewPrivs"):
        found[name] = status[name]
    for name in ("SigIgn", "SigBlk", "SigCgt"):
        found[name] = int(status[name], 16)
    for name in ("uids", "gids", "groups", "umask", "securebits", "dumpable", "nice", "cwd"):
        found[name] = report[name]
    for name in ("uid_map", "gid_map", "setgroups", "oom_score_adj", "cgroup", "scheduler"):
        found[name] = report[name]
    found["descriptors"] = sorted(report["fds"])
    found["keyring"] = report["keyrings"]["session"]
    for name, limit in report["rlimits"].items():
        found[f"limit {name}"] = limit
    for entry in report["env"]:
        name, _, value = entry.partition("=")
        found[f"env {name}"] = "" if name == "HOSTNAME" else value
    for line in report["mountinfo"]:
        words = line.split()
        kind = words[words.index("-") + 1]
        found[f"mount {words[4]}"] = (kind, sorted(FLAGS & set(words[5].split(","))))
    for path, seen in looked.items():
        # In what order a directory lists its entries says nothing.
        seen["entries"] = sorted(seen["entries"]) if "entries" in seen else None
        found[f"look {path}"] = {
            key: seen.get(key)
            for key in ("errno", "type", "entries", "mkdirat_errno", "open_errno", "bytes")
        }
    for path, value in sysctls.items():
        name = path.removeprefix("/proc/sys/")
        if not name.startswith(PASSING):
            found[f"sysctl {name}"] = value
    found["writable sysctls"] = writable
    for number, answer in calls.items():
        found[f"call {name_of(int(number))}"] = errno.errorcode.get(answer, answer)
    return found


def name_of(number: int) -> str:
    """Return the name of a system call of this machine, or its number."""
    name = LIBSECCOMP.seccomp_syscall_resolve_num_arch(0, number)
    return f"{number}" if name is None else str(name.decode())


@pytest.fixture(scope="module")
def sides(box: Box) -> Sides:
    """Return the facts of podman's container and of rp's."""
    if box.machine.run(["sh", "-c", "command -v podman"], check=False).returncode:
        pytest.skip("podman is not installed on the machine")
    payload = ["--network=none", "--rootfs", f"{box.directory}/root", "/probe", *joined(RUNS)]
    both = []
    for command in (["podman", "run", "--rm", "--pids-limit=0"], ["rp", "run", "--rm"]):
        done = box.machine.run([*command, *payload], timeout=300)
        both.append(facts(*(json.loads(line) for line in done.stdout.splitlines())))
    return both[0], both[1]


def rows() -> list[tuple[re.Pattern[str], str]]:
    """Return the names of the table's first column, `*` for anything, and what rp does there."""
    text = TABLE.read_text().partition("## Beside podman\n")[2].partition("\n## ")[0]
    return [
        (re.compile(re.escape(name).replace(r"\*", ".*")), ours)
        for names, _podman, ours in re.findall(
            r"^\| (`[^|]+`) \| (.*?) \| (.*?) \|", text, re.MULTILINE
        )
        for name in names.strip("`").split("`, `")
    ]


def test_every_difference_is_explained(sides: Sides) -> None:
    theirs, ours = sides
    known = rows()
    assert len(known) > 40
    unexplained = [
        f"{name}: podman {theirs.get(name)}, rp {ours.get(name)}"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
        and not any(pattern.fullmatch(name) for pattern, _ in known)
    ]
    assert not unexplained, "\n".join(unexplained)


def test_no_call_is_allowed_that_podman_refuses(sides: Sides) -> None:
    """But for those of which the table says so."""
    theirs, ours = sides
    told = [pattern for pattern, does in rows() if does.startswith("allowed")]
    weaker = [
        name
        for name, answer in ours.items()
        if name.startswith("call ")
        and theirs.get(name) in REFUSALS
        and answer not in (*REFUSALS, "EAFNOSUPPORT")
        and not any(pattern.fullmatch(name) for pattern in told)
    ]
    assert weaker == []


def test_no_mount_lacks_a_protection(sides: Sides) -> None:
    """A device node needs no noexec, and the null device need not be read-only."""
    theirs, ours = sides
    for name, (_, options) in ((n, v) for n, v in theirs.items() if n.startswith("mount ")):
        if name == "mount /run/.containerenv":
            continue
        assert name in ours, name
        lost = set(options) & {"ro", "nosuid", "nodev", "noexec"} - set(ours[name][1])
        if name in NULL_DEVICES or name.startswith("mount /dev/"):
            lost -= {"ro", "noexec"}
        assert not lost, name
