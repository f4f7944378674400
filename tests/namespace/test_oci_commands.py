"""rp-oci's commands in every state of a container: exit code, words and log line, beside runc's.

One script runs all steps with rp-oci, and with runc where it is there.  Engines look for runc's
words, so that those are the same; what differs on purpose is in docs/oci-runtime.md.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from namespace import bundles

if TYPE_CHECKING:
    from rig.machine import Machine

HOME = bundles.HOME
DRIVER = r"""
import json, os, select, subprocess, sys
home, runtime, steps = json.load(sys.stdin)
log, root = f"{home}/commands.log", f"{home}/root-{runtime}"
found = []
for words in steps:
    open(log, "w").close()
    if words == ["END"]:
        try:
            select.select([os.pidfd_open(int(open(f"{home}/c.pid").read()))], [], [])
        except ProcessLookupError:
            pass
        found.append([0, "", ""])
        continue
    argv = [runtime, "--root", root, "--log", log, "--log-format", "json", *words]
    # Files: what a container keeps open would be waited for at a pipe's end.
    with open(f"{home}/out", "w") as out, open(f"{home}/err", "w") as err:
        code = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=home,
                              timeout=60).returncode
    lines = open(log).read().splitlines()
    found.append([code, open(f"{home}/out").read(), lines[-1] if lines else ""])
print(json.dumps(found))
"""


class Step(NamedTuple):
    """One command line and what it ends with."""

    words: str
    code: int = 0
    message: str = ""
    """Part of the last line of the log, which is an error's."""
    beside_runc: bool = True
    """runc ends with the same code and says the same words."""


ABSENT = "container does not exist"
STEPS = (
    *(
        Step(f"{command} nobody", 1, ABSENT)
        for command in ("state", "start", "kill", "delete", "pause", "resume", "ps", "update")
    ),
    Step("events --stats nobody", 1, ABSENT),
    Step("exec nobody true", 255, ABSENT),
    Step("delete --force nobody"),
    Step("create --bundle nosuch c", 1, "", beside_runc=False),
    Step("create --bundle missing c", 1, "executable file not found in $PATH"),
    Step("create --bundle denied c", 1, "permission denied"),
    Step("create --bundle sleeper a/b", 1, "invalid container ID format"),
    Step("create --bundle sleeper", 1, "requires"),
    Step("create --nosuch c", 1, "flag provided but not defined"),
    Step("create --bundle terminal c", 1, "without setting console socket"),
    Step("create --bundle sleeper --console-socket x c", 1, "console socket"),
    Step("checkpoint c", 1, "not supported", beside_runc=False),
    Step("restore c", 1, "not supported", beside_runc=False),
    Step("create --bundle sleeper --pid-file c.pid c"),
    Step("create --bundle sleeper c", 1, "container with given ID already exists"),
    Step("state c"),
    Step("exec c true"),
    Step("kill c 0"),
    Step("resume c", 1, "container not paused"),
    Step("start c"),
    Step("start c", 1, "cannot start an already running container"),
    Step("delete c", 1, "cannot delete container c that is not stopped: running"),
    Step("kill c NOSUCH", 1, 'unknown signal \\"NOSUCH\\"'),
    *(Step(f"kill c {word}") for word in ("0", "18", "CONT", "SIGCONT", "cont")),
    Step("kill --all c CONT", beside_runc=False),
    Step("exec c true"),
    Step("exec c sh -c false", 1),
    Step("exec c nosuch", 255, "executable file not found in $PATH"),
    Step("exec c /nosuch", 255, "no such file or directory"),
    Step("exec c /etc/passwd", 255, "permission denied"),
    Step("exec c", 255, "process args cannot be empty"),
    Step("exec --cwd /nosuch c true", 255, "o such file or directory"),
    Step("exec --user 5 c true", 255, "user"),
    Step("exec --user x c true", 255, "parsing x as int for uid failed"),
    Step("exec -t -d c true", 255, "without setting console socket"),
    Step("exec --console-socket x c true", 255, "console socket"),
    Step("exec --preserve-fds 7 c true", 255, "descriptor", beside_runc=False),
    Step("exec --process nosuch.json c", 255, "open nosuch.json: no such file or directory"),
    # runc passes the umask over.
    Step("exec --process process.json c", 7, beside_runc=False),
    Step("exec -d --pid-file e.pid c sleep 900"),
    Step("exec --cap CAP_NOSUCH c true"),
    Step("exec --process-label x c true", 255, "SELinux", beside_runc=False),
    Step("list"),
    Step("list -q"),
    Step("list -f json"),
    Step("list --format nosuch", 1, "invalid format option"),
    Step("ps c", beside_runc=False),
    Step("ps -f json c", beside_runc=False),
    Step("ps c -o pid,comm", beside_runc=False),
    Step("ps --format nosuch c", 1, "invalid format option", beside_runc=False),
    Step("kill c KILL"),
    Step("END"),
    Step("state c"),
    Step("kill c", 1, "container not running"),
    Step("kill c 9", 1, "container not running"),
    Step("kill --all c KILL"),
    Step("exec c true", 255, "cannot exec in a stopped container"),
    Step("start c", 1, "cannot start a container that has stopped"),
    Step("pause c", 1, "container not running"),
    Step("delete c"),
    Step("delete c", 1, ABSENT),
    Step("create --bundle sleeper c"),
    Step("delete c"),
    Step("run -d --bundle sleeper c"),
    Step("delete --force c"),
    Step("delete --force c"),
    Step("run --bundle leaver c", 42),
    Step("state c", 1, ABSENT),
    Step("features"),
)
Result = tuple[int, str, str]


@pytest.fixture(scope="module")
def made(rig: Machine, alpine: str) -> bundles.Bundles:
    """Return the maker of bundles; its root file system is unpacked."""
    del alpine
    return bundles.Bundles(rig)


def go_through(made: bundles.Bundles, runtime: str) -> list[Result]:
    asked = json.dumps([HOME, runtime, [step.words.split() for step in STEPS]])
    done = made.rig.run(["python3", "-c", DRIVER], input=asked, timeout=60 + 5 * len(STEPS))
    found: list[Result] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def results(made: bundles.Bundles) -> list[Result]:
    """Run all steps with rp-oci."""
    for name, arguments in (
        ("sleeper", ("sleep", "1000")),
        ("missing", ("nosuch",)),
        ("denied", ("/etc/passwd",)),
        ("leaver", ("sh", "-c", "exit 42")),
    ):
        made.write(made.spec(*arguments), name)
    spec = made.spec("sh")
    spec["process"]["terminal"] = True
    made.write(spec, "terminal")
    process = {
        "user": {"uid": 0, "gid": 0},
        "args": ["sh", "-c", 'test "$A" = b && test $(umask) = 0077 && exit 7'],
        "cwd": "/",
        "env": ["PATH=/bin:/usr/bin", "A=b"],
    }
    process["user"]["umask"] = 0o77  # type: ignore[index]
    made.rig.run(["sh", "-c", f"cat > {HOME}/process.json"], input=json.dumps(process))
    return go_through(made, "rp-oci")


def found(results: list[Result], words: str, nth: int = 0) -> Result:
    """Return the result of the nth step of these words."""
    return [r for step, r in zip(STEPS, results, strict=True) if step.words == words][nth]


def test_codes_and_words(results: list[Result]) -> None:
    wrong = []
    for step, (code, out, line) in zip(STEPS, results, strict=True):
        logged: dict[str, Any] = json.loads(line) if line else {}
        failed = logged.get("level") == "error"
        if code != step.code or step.message not in line or failed != bool(line and code):
            wrong.append((step, code, out, line))
        if line:
            assert set(logged) == {"level", "msg", "time"}
    assert not wrong


def test_states(results: list[Result]) -> None:
    created, stopped = (json.loads(found(results, "state c", nth)[1]) for nth in (0, 1))
    assert (created["status"], stopped["status"], stopped["pid"]) == ("created", "stopped", 0)
    assert created["pid"] > 0
    assert {"ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"} == set(
        created
    )


def test_listings(results: list[Result]) -> None:
    assert found(results, "list -q")[1] == "c\n"
    heading, row = found(results, "list")[1].splitlines()
    assert heading.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert row.split()[0:4:2] == ["c", "running"]
    (listed,) = json.loads(found(results, "list -f json")[1])
    assert (listed["id"], listed["status"]) == ("c", "running")


def test_processes(results: list[Result]) -> None:
    pids = json.loads(found(results, "ps -f json c")[1])
    assert len(pids) == 2
    heading, *rows = found(results, "ps c")[1].splitlines()
    assert heading.split()[:2] == ["UID", "PID"]
    assert sorted(int(row.split()[1]) for row in rows) == sorted(pids)
    assert found(results, "ps c -o pid,comm")[1].split()[2:] == [
        word for pid in sorted(pids) for word in (str(pid), "sleep")
    ]


def test_same_as_runc(made: bundles.Bundles, results: list[Result]) -> None:
    if made.rig.run(["which", "runc"], check=False).returncode:
        pytest.skip("runc is in the trixie rig")
    differences = []
    for step, ours, theirs in zip(STEPS, results, go_through(made, "runc"), strict=True):
        # Engines compare without regard to case.
        said = step.message.lower() in theirs[2].lower()
        if step.beside_runc and (ours[0] != theirs[0] or not said):
            differences.append((step, ours, theirs))
    assert not differences
