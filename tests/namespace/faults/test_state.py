"""State that is not what it was: directories, pids, layers and mounts that changed meanwhile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from namespace.living import STORE, exit_record, main_process, rp, running, state, until
from rig.effort import effort

if TYPE_CHECKING:
    from rig.machine import Machine

pytestmark = [pytest.mark.usefixtures("alpine"), pytest.mark.limit(600)]

LAYERS = ".local/share/rootlesspy/layers"


def alive(rig: Machine, pid: int) -> bool:
    return rig.run(["test", "-e", f"/proc/{pid}"], check=False).returncode == 0


@pytest.mark.row("T2", "the container is listed as running, can be stopped, and starts again")
def test_t2_the_runtime_directory_is_deleted(rig: Machine, leaves_nothing: None) -> None:
    with running(rig, "bare", "sleep", "600"):
        pid = main_process(rig, "bare")
        rig.run(["sh", "-c", 'rm -rf "$XDG_RUNTIME_DIR/rootlesspy"'])
        assert state(rig, "bare") == "running"
        assert rp(rig, "start", "bare").returncode in (0, 125)
        # No second one was started.
        assert alive(rig, pid)
        assert rp(rig, "stop", "-t", "0", "bare").returncode == 0
        assert not alive(rig, pid)
        until(lambda: state(rig, "bare") == "exited", "it is said to run")
        assert rp(rig, "start", "bare").returncode == 0
        assert rp(rig, "exec", "bare", "true").returncode == 0


@pytest.mark.row("T3", "a stranger with the pid is never signalled")
@pytest.mark.parametrize("other", [{"start": 1}, {"boot_id": "another"}])
def test_t3_the_pid_is_a_strangers(
    rig: Machine, leaves_nothing: None, other: dict[str, object]
) -> None:
    with rig.popen(["sleep", "601"]) as stranger:
        until(lambda: rig.run(["pgrep", "-f", "^sleep 601$"], check=False).stdout, "it runs")
        pid = int(rig.run(["pgrep", "-f", "^sleep 601$"]).stdout.split()[0])
        with running(rig, "old", "sleep", "600") as identity:
            directory = f"{STORE}/{identity}"
            live = json.loads(rig.run(["cat", f"{directory}/state.json"]).stdout)
            rp(rig, "stop", "-t", "0", "old")
            text = json.dumps({**live, "pid": pid, "supervisor_pid": pid, **other})
            script = f"cat >{directory}/state.json; rm -f {directory}/exit.json"
            rig.run(["sh", "-c", script], input=text)
            assert state(rig, "old") == "exited"
            rp(rig, "stop", "old")
            rp(rig, "kill", "old")
            rp(rig, "rm", "-f", "old")
            assert alive(rig, pid)
        rig.run(["kill", str(pid)])
        stranger.wait(60)


@pytest.mark.row("D5", "125, and nothing below the mount is deleted")
def test_d5_something_is_mounted_in_a_containers_directory(
    rig: Machine, leaves_nothing: None
) -> None:
    if not rig.has_root:
        pytest.skip("mounts something as root")
    identity = rig.run(["rp", "create", "--name", "held", "alpine", "true"]).stdout.strip()
    place = f"/home/alice/{STORE}/{identity}/upper/kept"
    rig.root(["sh", "-c", f"mkdir {place} && mount -t tmpfs kept {place} && touch {place}/file"])
    try:
        rig.root(["chown", "-R", "alice:alice", place])
        done = rp(rig, "rm", "held")
        assert "Traceback" not in done.stderr
        left = rig.root(["sh", "-c", "grep -F ' kept ' /proc/self/mountinfo"], check=False).stdout
        assert left, "it was unmounted"
        mounted = left.split()[4]
        assert rig.root(["ls", mounted]).stdout == "file\n"
        assert done.returncode == 125, done.stderr
        assert done.stderr == (
            f"rp: container held cannot be removed: {place} is mounted in its directory\n"
            f"hint: unmount it first: umount {place}\n"
        )
        # Forcing it changes nothing, and other commands go on.
        assert rp(rig, "rm", "--force", "held").returncode == 125
        assert rp(rig, "ps", "-a", "--format", "{{.Names}}").stdout == "held\n"
        assert rp(rig, "rm", "--force", "--all").returncode == 125
    finally:
        rig.root(["sh", "-c", "umount $(grep -F ' kept ' /proc/self/mountinfo | cut -d' ' -f5)"])
        # It has lost nothing.
        assert rp(rig, "start", "--attach", "held").returncode == 0
        assert rp(rig, "rm", "held").returncode == 0


@pytest.mark.row("D5", "of --rm what is mounted stays, and hinders no command")
def test_d5_something_is_mounted_in_what_ends_by_itself(rig: Machine, leaves_nothing: None) -> None:
    if not rig.has_root:
        pytest.skip("mounts something as root")
    argv = ["run", "-d", "--rm", "--name", "held", "--network=none", "alpine", "sleep", "1000"]
    identity = rp(rig, *argv).stdout.strip()
    place = f"/home/alice/{STORE}/{identity}/upper/kept"
    rig.root(["sh", "-c", f"mkdir {place} && mount -t tmpfs kept {place} && touch {place}/file"])
    try:
        rp(rig, "stop", "--time", "0", "held")
        wait = "until ! rp ps -aq --no-trunc | grep -q $1; do sleep 0.1; done"
        rig.run(["sh", "-c", wait, "sh", identity])
        for words in (["ps", "-a"], ["run", "--rm", "--name", "held", "alpine", "true"]):
            done = rp(rig, *words)
            assert (done.returncode, done.stderr) == (0, "")
        mounted = rig.root(["sh", "-c", "grep -F ' kept ' /proc/self/mountinfo"]).stdout.split()[4]
        assert rig.root(["ls", mounted]).stdout == "file\n"
    finally:
        rig.root(["sh", "-c", "umount $(grep -F ' kept ' /proc/self/mountinfo | cut -d' ' -f5)"])
    rp(rig, "ps", "-a")
    left = rig.run(["sh", "-c", "ls ~/.local/share/rootlesspy/tmp | grep removed; :"]).stdout
    assert left == ""


@pytest.mark.row("D3", "system check finds it; a layer is unpacked again, a blob pulled again")
@pytest.mark.parametrize(("what", "code"), [("layer", 0), ("blob", 125)])
def test_d3_a_layer_is_missing_or_a_blob_altered(
    rig: Machine, leaves_nothing: None, what: str, code: int
) -> None:
    damage = {
        "layer": f"rm -rf {LAYERS}/sha256/*",
        "blob": "for f in .local/share/rootlesspy/images/blobs/sha256/*; do "
        "if [ $(stat -c %s $f) -lt 2000 ]; then chmod u+w $f; echo x >>$f; fi; done",
    }
    rig.run(["sh", "-c", damage[what]])
    assert rp(rig, "system", "check").returncode == 1
    done = rp(rig, "run", "--rm", "--pull", "never", "--network", "none", "alpine", "true")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    rp(rig, "system", "check", "--repair")
    assert rp(rig, "pull", "--quiet", "alpine").returncode == 0
    assert rp(rig, "system", "check").returncode == 0
    rig.run(["rp", "run", "--rm", "--network", "none", "alpine", "true"])


@pytest.mark.row(
    "U4", "what runs is seen and stopped without the bus; a start says what is missing"
)
def test_u4_the_bus_is_gone(rig: Machine, leaves_nothing: None) -> None:
    if not rig.has_root:
        pytest.skip("takes the bus away")
    bus = f"/run/user/{rig.uid}/bus"
    with running(rig, "steady", "sh", "-c", "echo said; sleep 600"):
        until(lambda: rp(rig, "logs", "steady").stdout == "said\n", "it says nothing")
        rig.root(["mv", bus, f"{bus}.away"])
        try:
            assert state(rig, "steady") == "running"
            assert rp(rig, "exec", "steady", "echo", "in").stdout == "in\n"
            done = rp(rig, "run", "--rm", "--network", "none", "alpine", "true")
            assert done.returncode == 125, done.stderr
            assert "Traceback" not in done.stderr
            assert rp(rig, "stop", "-t", "0", "steady").returncode == 0
        finally:
            rig.root(["mv", f"{bus}.away", bus])
        until(lambda: state(rig, "steady") == "exited", "it is said to run")


@pytest.mark.row("R12", "a supervisor that was stopped goes on, and records the end")
def test_r12_a_stopped_supervisor(rig: Machine, leaves_nothing: None) -> None:
    with running(rig, "slow", "sleep", "600") as identity:
        supervisor = rp(rig, "inspect", "--format", "{{.State.ConmonPid}}", "slow").stdout.strip()
        rig.run(["kill", "-STOP", supervisor])
        assert state(rig, "slow") == "running"
        rig.run(["kill", "-9", str(main_process(rig, "slow"))])
        assert rp(rig, "ps", "-a").returncode == 0
        rig.run(["kill", "-CONT", supervisor])
        until(lambda: state(rig, "slow") == "exited", "its end is not seen")
        assert exit_record(rig, identity)["exit_code"] == 137


@pytest.mark.row("C2", "all end with 0, and the store is sound")
def test_c2_many_pulls_of_one_image(rig: Machine, leaves_nothing: None) -> None:
    many = effort(6, 20)
    rp(rig, "rmi", "-f", "alpine")
    script = f"for n in $(seq {many}); do {{ rp pull -q alpine >/dev/null; echo $?; }} & done; wait"
    done = rig.run(["sh", "-c", script], timeout=500)
    assert done.stdout.split() == ["0"] * many, done.stderr
    assert rp(rig, "system", "check").returncode == 0
    assert len(rp(rig, "images", "-q").stdout.split()) == 1


@pytest.mark.row("X4", "a running supervisor needs no file of rp any more to record the end")
def test_x4_rp_is_replaced_while_a_container_runs(rig: Machine, leaves_nothing: None) -> None:
    if not rig.has_root:
        pytest.skip("takes the installed package away")
    place = rig.run(["python3", "-I", "-c", "import rootlesspy; print(rootlesspy.__path__[0])"])
    package = place.stdout.strip()
    with running(rig, "old", "sleep", "600") as identity:
        pid = main_process(rig, "old")
        ended = ["test", "-e", f"{STORE}/{identity}/exit.json"]
        rig.root(["mv", package, f"{package}.away"])
        try:
            rig.run(["kill", "-9", str(pid)])
            until(lambda: rig.run(ended, check=False).returncode == 0, "its end is not recorded")
        finally:
            rig.root(["mv", f"{package}.away", package])
        assert exit_record(rig, identity)["exit_code"] == 137


def test_half_written_networks_and_leases_go(rig: Machine, leaves_nothing: None) -> None:
    """A writer killed before its rename(2) leaves a temporary file behind."""
    kept, live = "~/.local/share/rootlesspy/networks", "$XDG_RUNTIME_DIR/rootlesspy/networks"
    rp(rig, "network", "create", "net0")
    rp(rig, "run", "-d", "--rm", "--name", "one", "--network", "net0", "alpine", "sleep", "1000")
    rig.run(["sh", "-c", f"touch {kept}/net0.json.7.tmp && touch {live}/net0/leases/cafe.7.tmp"])
    assert rp(rig, "stop", "--time", "0", "one").returncode == 0
    rig.run(["sh", "-c", f"until ! [ -e {live}/net0 ]; do sleep 0.1; done"])
    assert rp(rig, "network", "rm", "net0").returncode == 0
    assert rig.run(["sh", "-c", f"ls {kept}"]).stdout == ""
