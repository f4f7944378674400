"""Let system calls fail while a container starts: it starts as it was asked for, or not at all.

What its first process sees of its confinement is compared with that of an undisturbed start.  Sent
into the rig by its text (faults/driving.py) and run there as root.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import sys
import time
from typing import Any

from namespace.faults import contract

_TRACE = "/run/confined.trace"
# Only what is the same in each container of one command line: not SigQ, how many signals wait.
_LOOK = """
grep -E "^(Cap|NoNew|Seccomp|Groups|Uid|Gid|Sig[^Q])" /proc/self/status; cat /proc/self/limits
cut -d" " -f4-6 /proc/self/mountinfo; cat /proc/self/uid_map /proc/self/gid_map
hostname; id; cat /proc/self/oom_score_adj; umask; pwd; env | sort
ls /proc/self/fd | wc -l; ls -ld / /etc /tmp /dev/* /proc/keys /proc/kcore | cut -c1-33
cat /proc/sys/net/ipv4/ping_group_range; touch /data/x /x; cat /proc/keys
"""
_OPTIONS = (
    *("--hostname", "confined", "--user", "70:70", "--group-add", "12", "--read-only"),
    *("--cap-drop", "all", "--cap-add", "chown", "--ulimit", "nofile=100:100", "--umask", "077"),
    *("--sysctl", "net.ipv4.ping_group_range=0 7", "-v", "data:/data:ro", "--tmpfs", "/t"),
    *("-w", "/tmp", "--security-opt", "no-new-privileges", "--network", "none"),
)
_COMMAND = ["rp", "run", "--rm", "--name", "x", *_OPTIONS, "alpine", "sh", "-c", _LOOK]
_ITS_OWN = re.compile(r"[0-9a-f]{64}")


def main(job: dict[str, Any]) -> None:
    """Try job["points"] (call, error, n), or all of job["calls"] with job["errors"] for seconds."""
    held = contract.Contract()
    wanted = _view(held, ["-ff", "-o", f"{_TRACE}.all"])[1]
    points = [tuple(each) for each in job["points"]] or _all_points(job)
    if job["seconds"]:
        random.Random(job["seed"]).shuffle(points)
    limit_s = time.monotonic() + (job["seconds"] or math.inf)
    failures, fired, tried = [], 0, 0
    for call, error, count in points:
        if time.monotonic() > limit_s:
            break
        tried += 1
        inject = f"inject={call}:error={error}:when={count}"
        options = ["-f", "-o", _TRACE, "-e", f"trace={call}", "-e", inject]
        wrong, seen = _view(held, options)
        with open(_TRACE, errors="replace") as file:
            injected = [line.strip() for line in file if "(INJECTED)" in line]
        fired += bool(injected)
        if seen and seen != wanted:
            wrong += [f"gone: {sorted(wanted - seen)}, instead: {sorted(seen - wanted)}"]
        failures += [f"{call} {error} {count}: {each} {injected[:4]}" for each in wrong]
    failures += held.clear()
    for name in os.listdir(os.path.dirname(_TRACE)):
        if name.startswith(os.path.basename(_TRACE)):
            os.unlink(f"{os.path.dirname(_TRACE)}/{name}")
    counts = {"points": len(points), "tried": tried, "fired": fired}
    json.dump({**counts, "failures": failures}, sys.stdout)


def _view(held: contract.Contract, options: list[str]) -> tuple[list[str], frozenset[str]]:
    """Start a container; return what is wrong with its words, and what it saw unless it failed."""
    done = held.traced(["strace", "-u", held.user, "-qqq", *options, *_COMMAND])
    # The last look fails on purpose.
    started = done.returncode not in (125, 126, 127)
    wrong = [] if started else contract.wrong_words(done, (125, 126, 127))
    if held.run(["rp", "ps", "-aq"]).stdout:
        held.run(["rp", "rm", "-fa"])
    lines = _ITS_OWN.sub("#", done.stdout + done.stderr).splitlines()
    return wrong, frozenset(lines if started else ())


def _all_points(job: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Return each n-th call of the busiest process of an undisturbed start, with each error."""
    most = dict.fromkeys(job["calls"], 0)
    for name in os.listdir(os.path.dirname(_TRACE)):
        if not name.startswith(f"{os.path.basename(_TRACE)}.all."):
            continue
        with open(f"{os.path.dirname(_TRACE)}/{name}", errors="replace") as file:
            found = [line.partition("(")[0] for line in file]
        for call in most:
            most[call] = max(most[call], found.count(call))
    return [
        (call, error, count)
        for call in job["calls"]
        for error in job["errors"]
        for count in range(1, most[call] + 1)
    ]
