"""crun, runc and rp-oci run the same generated bundles; what a process sees inside is the same.

40 bundles in the nightly run or by RP_BUNDLES=40, fewer by default.  All run in one command of the
rig.  Differences that are meant (the link /dev/core, options of bound devices and of masks, slave
mounts) are taken out here and explained in docs/oci-runtime.md.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from namespace import bundles
from rig.effort import effort

if TYPE_CHECKING:
    from rig.machine import Machine

RUNTIMES = ("crun", "runc", "rp-oci")
NUMBER = int(os.environ.get("RP_BUNDLES") or effort(4, 40))
# What Debian 13's runc does not look at: personality, domainname, scheduler.
PASSED_OVER = ("machine", "domainname", "scheduler")
CAPABILITIES = ("CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_SETUID")
# Of a bind mount of the tree that the tests find mounted: propagation, recursive attributes.
TREE_OPTIONS = ("rslave", "rprivate", "rshared", "rro", "rnosuid", "rnoatime")

# What a process can see of how it was started, and is the same in two runs of one runtime; below
# /run, sessions and services that end take their mounts along.
PROBE = r"""
id; pwd; umask; hostname; echo domainname $(cat /proc/sys/kernel/domainname)
grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|SigIgn|SigBlk)' /proc/self/status
cat /proc/self/oom_score_adj /proc/self/limits /proc/self/uid_map /proc/self/timens_offsets
env | grep -v '^SHLVL=' | sort
ls /proc/self/fd | wc -l
ls -1 /dev | grep -v '^core$' | sort
for f in /proc/kcore /proc/timer_list /masked; do
    [ -e $f ] && wc -c $f 2>&1 | head -c 60; done
for d in /proc/sys /etc /tmp /m1 /m2 /dev/shm; do touch $d/x 2>&1; done
cat /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ip_unprivileged_port_start 2>&1
cut -d' ' -f5- /proc/self/mountinfo | grep -vE '^/tree/(user|credentials)/' \
    | sed -E 's/ (shared|master|propagate_from):[0-9]+//g' \
    | sed 's/ - \([^ ]*\) .*/ - \1/' \
    | sed -E 's#^(/proc/[^ ]*|/sys/firmware) .*#\1 masked#' \
    | grep -vE '^/dev/(null|zero|full|random|urandom|tty) ' | sort
echo machine $(uname -m)
mkdir /tmp/seccomp 2>&1
awk '{print "scheduler", $19, $41}' /proc/self/stat
exit 42
"""
RUN = r"""
import json, subprocess, sys, os
home, runtimes, specs = json.load(sys.stdin)
os.makedirs(home + "/conform", exist_ok=True)
views = []
for index, spec in enumerate(specs):
    with open(home + "/conform/config.json", "w") as file:
        json.dump(spec, file)
    view = {}
    for runtime in runtimes:
        name = f"conform-{index}"
        left = " ".join(f"{home}/{n}" for n in ("work", "rootfs/tmp/seccomp", "rootfs/made"))
        subprocess.run(["sh", "-c", f"rm -rf {left}"],
                       stderr=subprocess.DEVNULL)
        os.makedirs(home + "/work/sub")
        done = subprocess.run([runtime, "run", "--bundle", home + "/conform", name],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        view[runtime] = [done.returncode, done.stdout, done.stderr]
        subprocess.run([runtime, "delete", "--force", name], capture_output=True)
    views.append(view)
print(json.dumps(views))
"""

_rlimits = st.dictionaries(
    st.sampled_from(("RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_NPROC", "RLIMIT_SIGPENDING")),
    st.sampled_from((500, 1000)),
    max_size=3,
)
_flags = st.sets(st.sampled_from(("nosuid", "noexec", "nodev", "ro")), max_size=3)
_kinds = st.sampled_from(("tmpfs", "bind"))
_rules = st.sampled_from((None, "SCMP_ACT_ERRNO", "SCMP_ACT_LOG"))
_changes = st.fixed_dictionaries(
    {
        "capabilities": st.sets(st.sampled_from(CAPABILITIES)),
        "ambient": st.booleans(),
        "no_new_privileges": st.booleans(),
        "cwd": st.sampled_from(("/", "/etc", "/tmp", "/made/here")),
        "umask": st.sampled_from((None, 0, 0o77, 0o22)),
        "environment": st.dictionaries(
            st.sampled_from(("A", "B", "HOME")), st.text("xyz =", min_size=1), max_size=3
        ),
        "rlimits": _rlimits,
        "oom": st.sampled_from((None, 0, 300, 1000)),
        "readonly": st.booleans(),
        "hostname": st.sampled_from(("", "some.host")),
        "network": st.booleans(),
        "time": st.booleans(),
        "cgroup": st.booleans(),
        "mounts": st.lists(st.tuples(_kinds, _flags), max_size=2),
        "copy_up": st.booleans(),
        "masked": st.booleans(),
        "seccomp": _rules,
        "personality": st.booleans(),
        "scheduler": st.sampled_from(
            (None, {"policy": "SCHED_OTHER", "nice": 4}, {"policy": "SCHED_BATCH"})
        ),
        "domainname": st.sampled_from(("", "some.domain")),
        "shm_max": st.booleans(),
        "tree": st.sampled_from((None, *TREE_OPTIONS)),
        "root_propagation": st.sampled_from((None, "rprivate", "rslave", "rshared")),
    }
)


def spec_of(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Put the drawn changes into a spec."""
    spec: dict[str, Any] = json.loads(json.dumps(base))
    process, linux = spec["process"], spec["linux"]
    process["args"] = ["sh", "-c", PROBE]
    held = sorted(changes["capabilities"])
    sets = dict.fromkeys(("bounding", "effective", "permitted"), held)
    if changes["ambient"]:
        sets |= dict.fromkeys(("inheritable", "ambient"), held)
    process["capabilities"] = sets
    process["noNewPrivileges"] = changes["no_new_privileges"]
    process["cwd"] = changes["cwd"]
    if changes["umask"] is not None:
        process["user"]["umask"] = changes["umask"]
    process["env"] += [f"{name}={value}" for name, value in changes["environment"].items()]
    process["rlimits"] = [
        {"type": name, "soft": value, "hard": value} for name, value in changes["rlimits"].items()
    ]
    if changes["oom"] is not None:
        process["oomScoreAdj"] = changes["oom"]
    spec["root"]["readonly"] = changes["readonly"]
    spec["hostname"] = changes["hostname"]
    for kind in ("network", "time"):
        if changes[kind]:
            linux["namespaces"].append({"type": kind})
    if changes["network"]:
        linux["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "80"}
    if changes["time"]:
        linux["timeOffsets"] = {"monotonic": {"secs": 1000}}
    if not changes["cgroup"]:
        linux["namespaces"] = [n for n in linux["namespaces"] if n["type"] != "cgroup"]
    for index, (kind, flags) in enumerate(changes["mounts"], start=1):
        source = f"{bundles.HOME}/work" if kind == "bind" else "tmpfs"
        options = [*(("rbind",) if kind == "bind" else ()), *sorted(flags)]
        where = f"/m{index}"
        spec["mounts"].append(
            {"destination": where, "type": kind, "source": source, "options": options}
        )
    _extend(spec, changes)
    return spec


def _extend(spec: dict[str, Any], changes: dict[str, Any]) -> None:
    linux = spec["linux"]
    if changes["copy_up"]:
        options = ["tmpcopyup", "mode=755"]
        spec["mounts"].append(
            {"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": options}
        )
    if not changes["masked"]:
        linux["maskedPaths"], linux["readonlyPaths"] = [], []
    if changes["seccomp"]:
        rule = {"names": ["mkdir", "mkdirat"], "action": changes["seccomp"]}
        linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    if changes["personality"]:
        linux["personality"] = {"domain": "LINUX32"}
    if changes["scheduler"]:
        spec["process"]["scheduler"] = changes["scheduler"]
    if changes["domainname"]:
        spec["domainname"] = changes["domainname"]
    if changes["shm_max"]:
        linux.setdefault("sysctl", {})["kernel.shmmax"] = "54321"
    if changes["tree"]:
        options = ["rbind", changes["tree"]]
        spec["mounts"].append(
            {"destination": "/tree", "type": "bind", "source": "/run", "options": options}
        )
    if changes["root_propagation"]:
        linux["rootfsPropagation"] = changes["root_propagation"]


def generated(base: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the bundles, always the same ones."""
    found: list[dict[str, Any]] = []

    @settings(
        max_examples=NUMBER,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(_changes)
    def collect(changes: dict[str, Any]) -> None:
        found.append(spec_of(base, changes))

    collect()
    return found


@pytest.fixture(scope="module")
def made(rig: Machine, alpine: str) -> bundles.Bundles:
    """Return the maker of bundles."""
    del alpine
    return bundles.Bundles(rig)


def test_same_view_as_crun_and_runc(made: bundles.Bundles) -> None:
    missing = made.rig.run(["which", *RUNTIMES], check=False)
    if missing.returncode:
        pytest.skip("crun and runc are in the trixie rig")
    specs = generated(made.spec("sh"))
    asked = json.dumps([bundles.HOME, RUNTIMES, specs])
    done = made.rig.run(["python3", "-c", RUN], input=asked, timeout=60 + 10 * NUMBER)
    differences = []
    for index, view in enumerate(json.loads(done.stdout)):
        ours = view["rp-oci"]
        for other in compared(specs[index]):
            differences += [
                f"bundle {index}, {other}: {line}"
                for line in difference(view[other], ours, runc=other == "runc")
            ]
    assert not differences, "\n".join(differences)


def compared(spec: dict[str, Any]) -> tuple[str, ...]:
    """Return the runtimes that know all of a spec: Debian 13's runc has no time namespaces."""
    kinds = {entry["type"] for entry in spec["linux"]["namespaces"]}
    return ("crun",) if "time" in kinds else ("crun", "runc")


def difference(theirs: list[Any], ours: list[Any], *, runc: bool) -> list[str]:
    """Return the lines that differ, but for what is meant to."""
    left, right = (
        [line for line in view[1].splitlines() if not (runc and line.startswith(PASSED_OVER))]
        for view in (theirs, ours)
    )
    found = [f"- {line}" for line in left if line not in right]
    found += [f"+ {line}" for line in right if line not in left]
    if theirs[0] != ours[0]:
        found.append(f"exit code {theirs[0]}: {theirs[2]}, not {ours[0]}: {ours[2]}")
    return found
