"""inspect, ps, top, port and why of real containers, from the front door."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from namespace.living import DEAF, main_process, rp, running, script, show, state, until
from namespace.test_hot_modules import STANDARD, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

# Templates are taken apart by regular expressions, and json indents documents.
FOR_TEMPLATES = frozenset(
    """
    _sre collections copyreg enum functools json json.decoder json.encoder json.scanner keyword
    operator re re._casefix re._compiler re._constants re._parser reprlib signal typing
""".split()  # noqa: SIM905 as STANDARD
)

KEYS = Path(__file__).parents[1] / "data" / "podman_inspect_keys.txt"
OPTIONS = (
    "--publish", "18080:80", "--env", "A=b", "--label", "x.y=z", "--user", "1:1",
    "--volume", "seen-volume:/data", "--volume", "/usr:/mnt:ro", "--tmpfs", "/scratch",
    "--ulimit", "nofile=100:200", "--workdir", "/tmp", "--cap-add", "NET_ADMIN",
    "--cap-drop", "CHOWN", "--hostname", "seen-host", "--stop-timeout", "3",
    # No check at its start: it would be one more process, or the second one.
    "--health-cmd", "true", "--health-interval", "disable", "--restart", "on-failure:3",
    "--add-host", "db:10.0.0.1",
)  # fmt: skip
SCRIPT = "sleep 1001 & exec sleep 1000"


@pytest.fixture(scope="module", autouse=True)
def pulled(alpine: str) -> None:
    """Have the image."""
    assert alpine


@pytest.fixture(scope="module")
def seen(rig: Machine, alpine: str) -> Iterator[str]:
    """Hold a container with many options, its own network and two processes."""
    argv = ["rp", "run", "-d", "--name", "seen", *OPTIONS, alpine, "sh", "-c", SCRIPT]
    rig.run(argv)
    both = ["COMMAND", "sleep 1000", "sleep 1001"]
    listing = ["rp", "top", "seen", "args"]
    until(lambda: rig.run(listing).stdout.splitlines() == both, "they do not sleep")
    yield "seen"
    rp(rig, "rm", "-f", "seen")
    rig.run(["sh", "-c", "rm -rf ~/.local/share/rootlesspy/volumes/seen-volume"], check=False)


def inspected(machine: Machine, name: str) -> dict[str, Any]:
    """Return the document of one container or image."""
    (found,) = json.loads(machine.run(["rp", "inspect", name]).stdout)
    return dict(found)


def podman_keys() -> dict[str, list[str]]:
    """Return the keys of each object of podman's document by the object's path."""
    text = re.sub(r"(?m)^#.*\n", "", KEYS.read_text(encoding="utf-8")).replace("\n    ", " ")
    lines = (line.partition(": ") for line in text.splitlines() if line)
    return {path: keys.split() for path, _, keys in lines}


def at(document: Any, path: str) -> dict[str, Any]:
    """Return the object at a path; of a list all keys that its elements have."""
    for part in filter(None, path.split(".")):
        document = document[part.removesuffix("[]")]
    if isinstance(document, list):
        return {key: value for each in document for key, value in each.items()}
    return dict(document)


def test_every_key_of_podman_is_there(rig: Machine, seen: str) -> None:
    document = inspected(rig, seen)
    missing = [
        f"{path}.{key}"
        for path, keys in podman_keys().items()
        for key in keys
        if key not in at(document, path)
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.State.Status}} {{.State.Running}} {{.State.Paused}}", "running true false"),
        ("{{.Name}} {{.Driver}} {{.RestartCount}}", "seen (overlay|fuse-overlayfs|copy) 0"),
        ("{{.ImageName}} {{.Image}}", "docker.io/library/alpine:latest [0-9a-f]{64}"),
        ("{{.Path}} {{json .Args}}", re.escape(f'sh ["-c","{SCRIPT}"]')),
        ('{{index .Config.Labels "x.y"}}', "z"),
        ("{{range .Config.Env}}{{println .}}{{end}}", "(?s).*A=b\n.*"),
        ("{{.Config.Hostname}} {{.Config.User}} {{.Config.WorkingDir}}", "seen-host 1:1 /tmp"),
        ("{{.Config.StopSignal}} {{.Config.StopTimeout}}", "SIGTERM 3"),
        ("{{.Config.Entrypoint}} {{index .Config.Cmd 0}}", r"\[\] sh"),
        ("{{json .Config.Healthcheck.Test}}", r'\["CMD-SHELL","true"\]'),
        ('{{range .Mounts}}{{.Type}}:{{.Name}}:{{.Destination}}:{{.RW}} {{end}}',
         "(?=.*bind::/mnt:false)(?=.*volume:seen-volume:/data:true)(?!.*tmpfs).*"),
        ("{{range $path, $options := .HostConfig.Tmpfs}}{{$path}}{{end}}", "/scratch"),
        ('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', "18080"),
        ("{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}",
         "on-failure 3"),
        ("{{.HostConfig.CapAdd}} {{.HostConfig.CapDrop}} {{.EffectiveCaps}}",
         r"\[CAP_NET_ADMIN\] \[CAP_CHOWN\] \[CAP_NET_ADMIN\]"),
        ("{{.HostConfig.ExtraHosts}}", r"\[db:10.0.0.1\]"),
        ("{{.HostConfig.LogConfig.Type}}", "journald|json-file"),
        ("{{.HostConfig.Privileged}} {{.HostConfig.AutoRemove}}", "false false"),
        ("{{.Systemd.Scope}} {{.Systemd.Service}}", "rp-seen.scope rp-seen.service"),
        ("{{.Created.Year}} {{.State.FinishedAt.IsZero}}", "20.. true"),
        ("{{.Usage.PidsCurrent}}", "2"),
    ],
)  # fmt: skip
def test_what_scripts_ask(rig: Machine, seen: str, template: str, expected: str) -> None:
    found = rig.run(["rp", "inspect", "--format", template, seen]).stdout.removesuffix("\n")
    assert re.fullmatch(expected, found), found


def test_inspect_loads_little(rig: Machine, seen: str) -> None:
    """Scripts ask it in loops: what it imports is counted, as for the hot commands."""
    names = loaded(rig, ["inspect", seen])
    foreign = {name for name in names if not name.startswith("rootlesspy")}
    assert foreign - STANDARD - FOR_TEMPLATES == set()
    names = loaded(rig, ["inspect", "--format", "{{.State.Status}}", seen])
    assert (
        names & {"typer", "rich", "pystemd", "rootlesspy.cli.app", "rootlesspy.settings"} == set()
    )


def test_id_mappings_are_those_of_podman(rig: Machine, alpine: str) -> None:
    """Of a container with ids of its own: as --uidmap takes them."""
    for options, expected in (
        ((), "null"),
        (("--userns=keep-id",), f'{{"UidMap":["0:1:{rig.uid}","{rig.uid}:0:1",.*'),
        (("--uidmap=0:1:999", "--gidmap=0:1:998"), '{"UidMap":["0:1:999"],"GidMap":["0:1:998"]}'),
    ):
        identity = rp(rig, "create", *options, alpine).stdout.strip()
        asked = ("inspect", "--format", "{{json .HostConfig.IDMappings}}", identity)
        told = rp(rig, *asked).stdout.strip()
        rp(rig, "rm", identity)
        assert re.fullmatch(re.escape(expected).replace(r"\.\*", ".*"), told), told


def test_the_process_and_the_cgroup_are_real(rig: Machine, seen: str) -> None:
    document = inspected(rig, seen)
    pid = document["State"]["Pid"]
    assert rig.run(["cat", f"/proc/{pid}/comm"]).stdout == "sleep\n"
    cgroup = rig.run(["cat", f"/proc/{pid}/cgroup"]).stdout
    assert f"{document['State']['CgroupPath']}/payload" in cgroup


def test_an_image_and_what_is_not_there(rig: Machine, seen: str) -> None:
    image = inspected(rig, "alpine")
    assert image["Id"] == inspected(rig, seen)["Image"]
    done = rp(rig, "inspect", seen, "no-such", "--format", "{{.Name}}")
    assert (done.returncode, done.stdout) == (125, "seen\n")
    assert "no such object: 'no-such'" in done.stderr
    assert rp(rig, "container", "inspect", "alpine").returncode == 125
    assert rp(rig, "inspect", "--type", "image", seen).returncode == 125


def test_a_bad_template_is_one_line(rig: Machine, seen: str) -> None:
    done = rp(rig, "inspect", "--format", "{{.Bogus}}", seen)
    assert done.returncode == 125
    assert done.stderr.splitlines()[0] == "rp: --format: there is no field 'Bogus'"


def test_states(rig: Machine) -> None:
    def told() -> str:
        form = "{{.State.Status}} {{.State.Running}} {{.State.Paused}} {{.State.ExitCode}}"
        shown = rig.run(["rp", "inspect", "-f", form, "states"]).stdout.strip()
        listed = state(rig, "states")
        assert shown.split()[0] == listed
        return str(shown)

    with script(rig, "states", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done"):
        assert told() == "running true false 0"
        rig.run(["rp", "pause", "states"])
        assert told() == "paused false true 0"
        assert rp(rig, "ps", "-q", "--filter", "name=^states$").stdout == ""
        paused = ["ps", "--filter", "status=paused", "--format", "{{.Names}} {{.Status}}"]
        assert rp(rig, *paused).stdout == "states Paused\n"
        rig.run(["rp", "unpause", "states"])
        rig.run(["rp", "stop", "states"])
        assert told() == "exited false false 3"


def test_health_is_shown_everywhere(rig: Machine) -> None:
    options = ("--health-cmd", "echo no; exit 1", "--health-interval", "100ms",
               "--health-retries", "1")  # fmt: skip
    with running(rig, "ill", "sleep", "100", options=options):
        listed = ["rp", "ps", "--filter", "health=unhealthy", "--format", "{{.Names}} {{.Status}}"]
        until(lambda: "ill Up" in rig.run(listed).stdout, "it does not become unhealthy")
        assert "(unhealthy)" in rig.run(listed).stdout
        health = json.loads(
            rig.run(["rp", "inspect", "-f", "{{json .State.Health}}", "ill"]).stdout
        )
        assert (health["Status"], health["Log"][-1]["Output"]) == ("unhealthy", "no")
        assert re.search("(?m)^Health +unhealthy, failed", rig.run(["rp", "why", "ill"]).stdout)


def test_sizes(rig: Machine) -> None:
    # By another user, who is a subordinate id outside.
    text = (
        "mkdir /tmp/d && dd if=/dev/zero of=/tmp/d/f bs=1M count=3 && chmod 700 /tmp/d && sleep 99"
    )
    with running(rig, "big", "sh", "-c", text, options=("--user", "7")):
        size = ["rp", "inspect", "-s", "-f", "{{.SizeRw}}", "big"]
        until(lambda: int(rig.run(size).stdout) >= 3 << 20, "SizeRw does not grow")
        written, root = rig.run([*size[:4], "{{.SizeRw}} {{.SizeRootFs}}", "big"]).stdout.split()
        assert 3 << 20 <= int(written) < 4 << 20
        assert int(root) > int(written)
        shown = rig.run(["rp", "ps", "-s", "--filter", "name=big"]).stdout
        assert re.search(r"3\.15MB \(virtual \d+", shown)


def test_filters_of_ps(rig: Machine, seen: str) -> None:
    def names(*filters: str) -> list[str]:
        words = [word for each in filters for word in ("--filter", each)]
        found = rp(rig, "ps", "-a", "--sort", "names", "--format", "{{.Names}}", *words).stdout
        return [name for name in found.split() if name in (seen, "later")]

    with running(rig, "later", "sleep", "100"):
        assert names(f"since={seen}") == ["later"]
        assert names("before=later") == [seen]
        assert names("volume=seen-volume") == [seen]
        assert names("volume=/mnt") == [seen]
        assert names("network=none") == ["later"]
        assert names("restart-policy=on-failure") == [seen]
        assert names("health=none") == ["later"]
        assert names("command=sleep") == ["later"]
        assert names("until=1h") == []
        assert names("label=x.y=z", "ancestor=alpine") == [seen]
        assert rp(rig, "ps", "--filter", "before=no-such").returncode == 125


def test_restarts_are_those_of_systemd(rig: Machine) -> None:
    with running(rig, "again", "sh", "-c", "exit 4", options=("--restart", "on-failure:2")):
        form = [
            "rp",
            "ps",
            "-a",
            "--filter",
            "name=^again$",
            "--format",
            "{{.State}} {{.Restarts}}",
        ]
        until(lambda: rig.run(form).stdout == "exited 2\n", "it was not restarted twice")
        # systemd counts a restart before it does it.
        last = {"ActiveState": "failed"}
        until(lambda: show(rig, "rp-again.service", "ActiveState") == last, "it does not end")
        shown = rp(rig, "why", "again").stdout
        assert "by itself with exit code 4" in shown
        assert "restarted 2 times" in shown


# --- top and port -----------------------------------------------------------------------------


def test_top_shows_what_is_inside(rig: Machine, seen: str) -> None:
    columns = ["pid", "ppid", "user", "group", "args"]
    lines = rig.run(["rp", "top", seen, *columns]).stdout.splitlines()
    assert lines[0].split() == ["PID", "PPID", "USER", "GROUP", "COMMAND"]
    assert [line.split(None, 4) for line in lines[1:]] == [
        ["1", "0", "bin", "bin", "sleep 1000"],
        ["2", "1", "bin", "bin", "sleep 1001"],
    ]
    outside = rig.run(["rp", "top", seen, "hpid,huid,capeff,seccomp"]).stdout.splitlines()[1]
    host_pid, host_uid, capabilities, seccomp = outside.split()
    assert int(host_pid) == main_process(rig, seen)
    assert int(host_uid) != rig.uid
    assert (capabilities, seccomp) == ("NET_ADMIN", "filter")


def test_top_runs_nothing_of_the_container(rig: Machine) -> None:
    """CVE-2022-1227: programs of the image must not see who looks at the container."""
    text = (
        "for name in ps sh.new nsenter; do printf '#!/bin/sh\\ntouch /was-run\\n' > /tmp/x; "
        "chmod 755 /tmp/x; for d in /bin /usr/bin /sbin; do cp /tmp/x $d/$name; done; done; "
        "echo 'evil\\033[2J:x:0:0::/:' > /etc/passwd; echo ready; while :; do sleep 0.1; done"
    )
    with script(rig, "evil", text) as identity:
        for words in ([], ["-ef"], ["aux"]):
            shown = rig.run(["rp", "top", "evil", *words]).stdout
            assert "sleep 0.1" in shown
            assert "\x1b" not in shown
        upper = f"~/.local/share/rootlesspy/containers/{identity}/upper"
        assert rig.run(["sh", "-c", f"ls -d {upper}/bin/ps"]).returncode == 0
        assert rig.run(["sh", "-c", f"ls {upper}/was-run"], check=False).returncode != 0


def test_port(rig: Machine, seen: str) -> None:
    assert rig.run(["rp", "port", seen]).stdout == "80/tcp -> 0.0.0.0:18080\n"
    assert rig.run(["rp", "port", seen, "80"]).stdout == "0.0.0.0:18080\n"
    assert rp(rig, "port", seen, "81").returncode == 125
    assert "80/tcp -> 0.0.0.0:18080" in rig.run(["rp", "port", "-a"]).stdout


# --- why --------------------------------------------------------------------------------------


def why(machine: Machine, name: str) -> dict[str, Any]:
    """Return what rp why says, after a look at its screen."""
    screen = machine.run(["rp", "why", name]).stdout
    assert screen.startswith(f"{name} ")
    assert len(screen.splitlines()) <= 40
    return dict(json.loads(machine.run(["rp", "why", "--format", "json", name]).stdout))


def test_why_of_one_that_ended_by_itself(rig: Machine) -> None:
    with script(rig, "own", "echo last words; exit 3"):
        until(lambda: state(rig, "own") == "exited", "it does not end")
        told = why(rig, "own")
        assert (told["Kind"], told["Log"]) == ("exit", ["last words"])
        assert "exit code 3" in told["Headline"]


def test_why_of_one_that_did_not_start(rig: Machine) -> None:
    rp(rig, "run", "--name", "fails", "--network=none", "alpine", "no-such-command")
    try:
        told = why(rig, "fails")
        assert told["Kind"] == "start"
        assert "no-such-command" in told["Cause"][0]
        assert "did not start" in told["Headline"]
    finally:
        rp(rig, "rm", "-f", "fails")


def test_why_of_one_that_never_ran(rig: Machine) -> None:
    rig.run(["rp", "create", "--name", "never", "--network=none", "alpine", "true"])
    try:
        told = why(rig, "never")
        assert (told["Kind"], told["Next"]) == ("created", ["rp start never"])
    finally:
        rp(rig, "rm", "-f", "never")


def await_deaf(machine: Machine, name: str, run: int) -> None:
    """Wait until a container has said in each of its runs that it hears no SIGTERM."""
    until(lambda: rp(machine, "logs", name).stdout == "ready\n" * run, f"{name} is not ready")


def test_why_says_who_stopped_it(rig: Machine) -> None:
    with script(rig, "ended", DEAF, "--stop-timeout", "1"):
        assert why(rig, "ended")["Kind"] == "running"
        rig.run(["rp", "kill", "ended"])
        until(lambda: state(rig, "ended") == "exited", "it was not killed")
        assert why(rig, "ended")["Kind"] == "kill"
        for run, (words, kind) in enumerate((
            (["rp", "stop", "ended"], "timeout"),
            (["systemctl", "--user", "kill", "-s", "KILL", "rp-ended.scope"], "signal"),
        ), start=2):  # fmt: skip
            rig.run(["rp", "start", "ended"])
            await_deaf(rig, "ended", run)
            rig.run(words)
            until(lambda: state(rig, "ended") == "exited", "it was not ended")
            assert why(rig, "ended")["Kind"] == kind, words


def test_why_says_systemctl(rig: Machine) -> None:
    text = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    with script(rig, "asked", text):
        rig.run(["systemctl", "--user", "stop", "rp-asked.service"])
        until(lambda: state(rig, "asked") == "exited", "it was not ended")
        assert why(rig, "asked")["Kind"] == "systemctl"


def test_why_of_one_whose_supervisor_was_killed(rig: Machine) -> None:
    with script(rig, "lost", DEAF):
        supervisor = rig.run(["rp", "inspect", "-f", "{{.State.ConmonPid}}", "lost"]).stdout.strip()
        rig.run(["kill", "-KILL", supervisor])
        until(lambda: state(rig, "lost") == "exited", "its end is not noticed")
        signalled = {"Result": "signal"}
        until(lambda: show(rig, "rp-lost.service", "Result") == signalled, "nor by systemd")
        told = why(rig, "lost")
        assert told["Kind"] == "lost"
        assert "supervisor" in told["Cause"][0]
        assert told["Service"]["Result"] == "signal"


def test_why_has_colours_on_a_terminal_alone(rig: Machine, seen: str) -> None:
    assert "\x1b" not in rig.run(["rp", "why", seen]).stdout
    with rig.pty(["rp", "why", seen]) as terminal:
        terminal.expect("\x1b\\[32mseen is running")
        assert terminal.wait() == 0
