"""The wait for a process migration before systemd is asked for one: nothing is moved by it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from namespace.living import rp, until

if TYPE_CHECKING:
    from rig.machine import Machine

# What the child of prepare() writes where, what the kernel says, and where the child is then.
_PROGRAM = """\
import json, os, sys
from rootlesspy.systemd import cgroup, migration
move = cgroup.move
def telling(pid, directory):
    said = ""
    try:
        move(pid, directory)
    except OSError as error:
        said = error.strerror
        raise
    finally:
        after = cgroup.control_group(os.getpid())
        told = [directory, said, after, os.listdir("/proc/self/fd")]
        os.write(1, f"{json.dumps(told)}\\n".encode())
cgroup.move = telling
before = cgroup.control_group(os.getpid())
held = os.open("/", os.O_RDONLY)
migration.prepare()
migration.finish()
try:
    os.waitpid(-1, 0)
    left = True
except ChildProcessError:
    left = False
print(json.dumps({"before": before, "left": left}))
"""


@pytest.mark.parametrize(
    ("wrapper", "where", "said"),
    [
        ([], "/user@{uid}.service", "Permission denied"),
        (["systemd-run", "--user", "--scope", "--quiet"], "{own}", ""),
        (["systemd-run", "--user", "--pipe", "--wait", "--quiet"], "{own}", ""),
    ],
    ids=["login session", "scope", "service"],
)
def test_nobody_is_moved(rig: Machine, wrapper: list[str], where: str, said: str) -> None:
    uid = rig.run(["id", "-u"]).stdout.strip()
    argv = [*wrapper, "python3", "-c", _PROGRAM]
    told, answer = map(json.loads, rig.run(argv).stdout.splitlines())
    directory, words, after, descriptors = told
    assert after == answer["before"]
    assert directory.endswith(where.format(uid=uid, own=answer["before"]))
    assert words == said
    # The last one is that of the list.
    assert sorted(map(int, descriptors)) == [0, 1, 2, 3]
    assert not answer["left"]


@pytest.mark.parametrize("way", ["run", "start"])
def test_an_attached_container_leaves_no_dead_child(rig: Machine, alpine: str, way: str) -> None:
    made = ["--name", "kept", "--network", "none", alpine, "sleep", "1000"]
    argv = ["rp", "run", *made]
    if way == "start":
        rig.run(["rp", "create", *made])
        argv = ["rp", "start", "--attach", "kept"]
    with rig.popen(argv):
        try:
            until(lambda: rp(rig, "top", "kept").returncode == 0, "it runs")
            said = rig.run(["ps", "-e", "-o", "pid=,ppid=,stat=,args="]).stdout
        finally:
            rig.run(["rp", "rm", "--force", "kept"])
    processes = [line.split(None, 3) for line in said.splitlines()]
    commands = {pid for pid, _, _, words in processes if words.endswith(" ".join(argv[1:]))}
    assert commands
    assert not [each for each in processes if each[1] in commands and each[2].startswith("Z")]
