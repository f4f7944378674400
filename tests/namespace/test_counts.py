"""What one `rp run` does, counted under strace: processes, programs, messages, files, syncs.

Counts instead of times: they are the same on a busy machine, and a regression is seen the day it is
made.  Whoever changes one on purpose changes it here and says why in the commit.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from namespace.tracing import CREATED, EXECUTED, GONE, MEMBER, SYNCED, Trace, opened_by, trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine


@pytest.fixture(scope="module")
def attached(rig: Machine, alpine: str) -> Trace:
    """Trace `rp run --rm` without a network helper, with warm caches."""
    rig.run(["rp", "run", "--rm", "--network", "none", alpine, "true"])
    return trace(rig, ["rp", "run", "--rm", "--network", "none", alpine, "true"])


def test_five_processes_and_no_program_but_the_needed(attached: Trace) -> None:
    # Who waits for the migration, the supervisor, the container's init, newuidmap, newgidmap.
    assert len(attached.found(CREATED)) == 5
    assert len(attached.lines) == 6
    programs = sorted(path.rpartition("/")[2] for path in attached.found(EXECUTED))
    assert programs == ["newgidmap", "newuidmap", "rp", "true"]


def test_three_messages_to_the_bus(attached: Trace) -> None:
    (connection,) = [
        line
        for lines in attached.lines.values()
        for line in lines
        if line.startswith("connect(") and "/bus" in line
    ]
    assert connection.endswith("= 0")
    assert attached.found(MEMBER) == ["Hello", "AddMatch", "StartTransientUnit"]


def test_nothing_waits_for_the_disk(attached: Trace) -> None:
    assert attached.found(SYNCED) == []


def test_a_kept_container_survives_a_power_loss(rig: Machine, alpine: str) -> None:
    name = "counted"
    kept = trace(rig, ["rp", "run", "--name", name, "--network", "none", alpine, "true"])
    rig.run(["rp", "rm", name])
    # The record and how it ended, each with its name in the directory, and config.json.
    assert kept.found(SYNCED) == ["fsync"] * 5


@pytest.fixture(scope="module")
def detached(rig: Machine, alpine: str) -> Iterator[Trace]:
    """Trace `rp run -d` likewise, until it returns."""
    argv = ["rp", "run", "-d", "--name", "counted", "--network", "none", alpine, "sleep", "1000"]
    rig.run(argv)
    rig.run(["sh", "-c", f"rp rm -f counted; {GONE}"])
    yield trace(rig, argv, outlived=True)
    rig.run(["rp", "rm", "-f", "counted"])


def test_a_detached_one_costs_a_shell_and_three_messages_more(detached: Trace) -> None:
    """The shell is systemd's child, and there is no second Python."""
    assert len(detached.found(CREATED)) == 5
    programs = sorted(path.rpartition("/")[2] for path in detached.found(EXECUTED))
    assert programs == ["newgidmap", "newuidmap", "rp", "sleep"]
    service = ["ResetFailedUnit", "AddMatch", "StartTransientUnit"]
    scope = ["AddMatch", "StartTransientUnit"]
    assert detached.found(MEMBER) == ["Hello", *service, *scope, "AttachProcessesToUnit"]
    # The record and config.json, each with its name in the directory.
    assert detached.found(SYNCED) == ["fsync"] * 3


def test_only_the_supervisor_imports_while_the_container_is_made(attached: Trace) -> None:
    supervisor = attached.supervisor()
    lines = attached.lines[supervisor]
    # It waits no more from here on: the payload is about to be executed.
    ready = next(number for number, line in enumerate(lines) if "/state.json." in line)
    others = [pid for pid in attached.lines if pid not in (attached.command, supervisor)]
    late = {
        path
        for path in (
            *opened_by(lines[ready:]),
            *(each for pid in others for each in attached.opened(pid)),
        )
        if path.endswith((".py", ".pyc")) or "lib-dynload" in path
    }
    assert late == set()
    # While rp makes the container, the id maps are written and init mounts, it does import.
    assert any(path.endswith(".pyc") for path in opened_by(lines[:ready]))


def test_the_container_has_a_process_before_it_is_on_disk(attached: Trace) -> None:
    supervisor = attached.lines[attached.supervisor()]
    # The first one: posix_spawn(3) uses it too.
    born = next(number for number, line in enumerate(supervisor) if line.startswith("clone3("))
    read = next(number for number, line in enumerate(supervisor) if "/record.json" in line)
    asked = next(number for number, line in enumerate(supervisor) if "StartTransient" in line)
    assert born < asked < read


def test_every_file_of_the_store_is_opened_once(attached: Trace) -> None:
    opened: Counter[str] = Counter()
    for pid in (attached.command, attached.supervisor()):
        for path in attached.opened(pid):
            opened.update(
                re.findall(r"/share/rootlesspy/((?:[\w-]+/)*(?:\w+\.json|default-maps).*)", path)
            )
    assert opened == {
        "images/index.json": 1,
        "layers/default-maps": 1,
        "cache/overlay.json": 1,
        "containers/ID/record.json.tmp": 1,
        "containers/ID/config.json.tmp": 1,
        # By the supervisor, which is handed a container that is on disk.
        "containers/ID/record.json": 1,
        "containers/ID/config.json": 1,
        "containers/ID/state.json.tmp": 1,
    }
