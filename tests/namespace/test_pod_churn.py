"""Pods whose members, services and networks are started, stopped and killed at random.

Per commit some seconds of it, a minute in the nightly run.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from namespace.living import until
from rig.effort import effort

if TYPE_CHECKING:
    from collections.abc import Callable

    from rig.machine import Machine

pytestmark = pytest.mark.limit(1200)

PODS, SECONDS, AT_ONCE = effort(2, 10), effort(8, 60), effort(2, 4)
# Runs on the machine: so many commands at once, each chosen at random, until the time is over.
_CHURN = """
import json, random, subprocess, sys, time
pods, seconds, at_once, seed = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
chance = random.Random(seed)
# Ends when those are gone that it found: of a process that is about to die nobody can tell.
KILL = '''
    group=$(systemctl --user show --value --property ControlGroup "$0")
    [ "$group" ] || exit
    pids=$(cat "/sys/fs/cgroup$group/cgroup.procs" 2>/dev/null)
    systemctl --user kill --signal KILL "$0" || exit
    for pid in $pids; do while [ -e "/proc/$pid" ]; do sleep 0.02; done; done
'''
kill = ["sh", "-c", KILL]

def action():
    number = chance.randrange(pods)
    pod, member = f"pod{number}", f"member{number}{chance.choice('ab')}"
    return chance.choice([
        ["rp", "pod", "start", pod],
        ["rp", "pod", "stop", "-t", "0", pod],
        ["rp", "pod", "kill", pod],
        ["rp", "start", member],
        ["rp", "stop", "-t", "0", member],
        ["rp", "kill", member],
        [*kill, f"rp-pod-{pod}.service"],
        [*kill, f"rp-{member}.service"],
        [*kill, "rp-network-churn.service"],
        ["rp", "exec", member, "true"],
    ])

done, said, running = 0, [], []
until = time.monotonic() + seconds
while time.monotonic() < until or running:
    while len(running) < at_once and time.monotonic() < until:
        pipes = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        running.append(subprocess.Popen(action(), **pipes))
    first = running.pop(0)
    said.append(first.communicate()[1])
    done += 1
bad = [text for text in said if "Traceback" in text or "internal error" in text]
print(json.dumps({"done": done, "bad": bad}))
"""


def test_pods_survive_churn(
    rig: Machine,
    alpine: str,
    leaves_nothing: None,
    record_property: Callable[[str, object], None],
) -> None:
    """No command fails in a way of its own; afterwards each pod starts whole, and goes whole."""
    del leaves_nothing
    rig.run(["rp", "network", "create", "churn"])
    for number in range(PODS):
        more = ("--exit-policy", "stop") if number % 3 == 2 else ()
        network = "churn" if number % 2 else "none"
        rig.run(["rp", "pod", "create", "--name", f"pod{number}", "--network", network, *more])
        for member in "ab":
            name = f"member{number}{member}"
            rig.run(
                ["rp", "create", "--pod", f"pod{number}", "--name", name, alpine, "sleep", "1000"]
            )
    words = [str(PODS), str(SECONDS), str(AT_ONCE), "churn"]
    churned = rig.run(["python3", "-c", _CHURN, *words], timeout=SECONDS + 600)
    found = json.loads(churned.stdout)
    record_property("commands", found["done"])
    assert found["done"] > 0
    assert found["bad"] == []
    rig.run(["rp", "pod", "start", "--all"], timeout=600)
    states = rig.run(["rp", "pod", "ps", "--format", "{{.Status}}"]).stdout.split()
    assert states == ["Running"] * PODS
    rig.run(["rp", "pod", "rm", "--all", "--force", "--time", "0"], timeout=600)
    rig.run(["rp", "network", "rm", "churn"])
    listed = ["systemctl", "--user", "list-units", "--all", "--plain", "--no-legend", "rp*"]

    def left() -> list[str]:
        # A killed service may be shown as failed a moment longer, an ended one as inactive.
        lines = rig.run(listed).stdout.splitlines()
        return [line for line in lines if " failed " not in line]

    until(lambda: not left(), f"units stay: {left()}")
    rig.run(["systemctl", "--user", "reset-failed"])
