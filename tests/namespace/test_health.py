"""Health checks through the front door: results, timeouts, actions, and what they leave alone.

Most containers are checked by hand, with rp healthcheck run, so that nothing depends on time.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from namespace import living
from namespace.imagepush import push
from rig import ociimage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

pytestmark = pytest.mark.namespace

BY_HAND = ("--health-interval", "disable")
# A shell that ends at once when it is told to.
IDLE = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done")


@contextlib.contextmanager
def container(
    rig: Machine, *options: str, image: str = "alpine", name: str = "hc"
) -> Iterator[str]:
    """Run a detached container with a health check."""
    rig.run(["rp", "run", "-d", "--name", name, *options, image, *IDLE])
    try:
        yield name
    finally:
        rig.run(["rp", "rm", "-f", "-i", name])


def check(rig: Machine, name: str = "hc") -> tuple[int, str]:
    done = rig.run(["rp", "healthcheck", "run", name], check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def health(rig: Machine, name: str = "hc") -> dict[str, Any]:
    shown = rig.run(["rp", "inspect", "--format", "{{json .State.Health}}", name])
    found: dict[str, Any] = json.loads(shown.stdout)
    return found


def until(rig: Machine, template: str, wanted: str, name: str = "hc") -> None:
    """Wait until rp inspect shows something."""
    argv = ["rp", "inspect", "--format", template, name]
    living.until(lambda: rig.run(argv).stdout == f"{wanted}\n", f"{template} is not {wanted}")


def events(rig: Machine, name: str = "hc") -> list[str]:
    living.journaled(rig)
    form = "{{.HealthStatus}}"
    container_id = rig.run(["rp", "inspect", "--format", "{{.Id}}", name]).stdout.strip()
    wanted = ["--filter", f"container={container_id}", "--filter", "event=health_status"]
    argv = ["rp", "events", "--since", "10m", "--until", "0s", *wanted, "--format", form]
    said: str = rig.run(argv).stdout
    return said.split()


def test_failures_in_a_row_make_it_unhealthy_and_one_success_healthy(
    rig: Machine, alpine: str, leaves_nothing: None
) -> None:
    command = "test -e /tmp/fine || { echo not yet; exit 3; }"
    options = ("--health-cmd", command, "--health-retries", "2")
    with container(rig, *options, *BY_HAND):
        assert health(rig) == {"Status": "starting", "FailingStreak": 0, "Log": []}
        assert check(rig) == (1, "unhealthy\n")
        assert health(rig)["Status"] == "starting"
        assert check(rig) == (1, "unhealthy\n")
        found = health(rig)
        assert (found["Status"], found["FailingStreak"]) == ("unhealthy", 2)
        assert [(each["ExitCode"], each["Output"]) for each in found["Log"]] == [(3, "not yet")] * 2
        assert "(unhealthy)" in rig.run(["rp", "ps", "--filter", "name=hc"]).stdout
        rig.run(["rp", "exec", "hc", "touch", "/tmp/fine"])
        assert check(rig) == (0, "")
        found = health(rig)
        assert (found["Status"], found["FailingStreak"]) == ("healthy", 0)
        assert "(healthy)" in rig.run(["rp", "ps", "--filter", "health=healthy"]).stdout
        assert events(rig)[-2:] == ["unhealthy", "healthy"]


def test_the_supervisor_checks_by_itself(rig: Machine, alpine: str, leaves_nothing: None) -> None:
    count = "echo x >>/tmp/count"
    with container(rig, "--health-cmd", count, "--health-interval", "100ms"):
        until(rig, "{{.State.Health.Status}}", "healthy")
        wait = "until [ $(wc -l </tmp/count) -ge 4 ]; do sleep 0.1; done"
        rig.run(["rp", "exec", "hc", "sh", "-c", wait])
        assert len(health(rig)["Log"]) >= 3
        # It is the supervisor's poll loop and nothing else.
        timers = rig.run(["systemctl", "--user", "list-timers", "--all", "--no-legend"]).stdout
        assert "hc" not in timers
        units = rig.run(["systemctl", "--user", "list-units", "--all", "--plain", "--no-legend"])
        assert [line.split()[0] for line in units.stdout.splitlines() if "hc" in line] == [
            "rp-hc.scope",
            "rp-hc.service",
        ]
        noise = rig.run(["journalctl", "--user", "-u", "rp-hc.service", "-o", "cat"]).stdout
        assert "count" not in noise


def test_a_check_is_a_process_of_the_container(rig: Machine, alpine: str) -> None:
    script = (
        "id -u; pwd; echo $KEY; grep -E 'NoNewPrivs|Seccomp:' /proc/self/status; ls /proc/1/exe"
    )
    options = (
        "--user",
        "nobody",
        "--workdir",
        "/tmp",
        "--env",
        "KEY=value",
        "--health-cmd",
        script,
    )
    with container(rig, *options, *BY_HAND):
        assert check(rig) == (0, "")
        said = health(rig)["Log"][0]["Output"].split("\n")
        assert said[:3] == ["65534", "/tmp", "value"]
        assert [line.split()[-1] for line in said[3:5]] == ["1", "2"]


def test_a_check_that_takes_too_long_is_killed_with_all_it_started(
    rig: Machine, alpine: str, leaves_nothing: None
) -> None:
    options = ("--health-cmd", "sleep 4711 & sleep 4712; true", "--health-timeout", "500ms")
    with container(rig, *options, "--health-retries", "1", *BY_HAND):
        assert check(rig) == (1, "unhealthy\n")
        found = health(rig)
        assert found["Status"] == "unhealthy"
        assert found["Log"][0]["ExitCode"] == -1
        assert "timed out after 0.5 s" in found["Log"][0]["Output"]
        # What is killed takes its time to die.
        listing = ["rp", "exec", "hc", "ps", "-o", "args"]
        living.until(lambda: "471" not in rig.run(listing).stdout, "it goes on")


def test_a_command_that_is_not_there_is_a_failure_that_says_so(rig: Machine, alpine: str) -> None:
    with container(rig, "--health-cmd", '["CMD", "/no/such"]', *BY_HAND):
        assert check(rig) == (1, "unhealthy\n")
        entry = health(rig)["Log"][0]
        assert entry["ExitCode"] == 127
        assert "/no/such" in entry["Output"]


def test_output_is_cut_and_the_log_is_short(rig: Machine, alpine: str) -> None:
    options = ("--health-cmd", "yes | head -c 3000000", "--health-max-log-size", "100")
    with container(rig, *options, "--health-max-log-count", "2", *BY_HAND):
        for _ in range(3):
            assert check(rig) == (0, "")
        log = health(rig)["Log"]
        assert [len(each["Output"]) for each in log] == [100, 100]


@pytest.mark.parametrize("action", ["kill", "stop"])
def test_an_unhealthy_container_is_ended_when_that_was_asked(
    rig: Machine, alpine: str, action: str
) -> None:
    options = ("--health-cmd", "false", "--health-retries", "1", "--health-on-failure", action)
    with container(rig, *options, *BY_HAND):
        check(rig)
        code = rig.run(["rp", "wait", "hc"]).stdout.strip()
        assert code == ("137" if action == "kill" else "0")
        assert "it was unhealthy" in rig.run(["rp", "why", "hc"]).stdout
        living.journaled(rig)
        reason = rig.run(
            ["rp", "events", "--since", "10m", "--until", "0s", "--filter", "event=died"]
        )
        assert "unhealthy" in reason.stdout.splitlines()[-1]


def test_an_unhealthy_container_is_restarted_when_that_was_asked(rig: Machine, alpine: str) -> None:
    options = ("--health-cmd", "false", "--health-retries", "1", "--health-on-failure", "restart")
    with container(rig, *options, *BY_HAND):
        pid = ["rp", "inspect", "--format", "{{.State.Pid}}", "hc"]
        before = rig.run(pid).stdout
        check(rig)
        living.until(lambda: rig.run(pid).stdout not in (before, "0\n"), "it is not restarted")
        # A new run knows nothing of the old one's health.
        assert health(rig) == {"Status": "starting", "FailingStreak": 0, "Log": []}


def test_a_paused_container_is_not_judged(rig: Machine, alpine: str) -> None:
    options = ("--health-cmd", "true", "--health-interval", "100ms", "--health-timeout", "5s")
    with container(rig, *options, "--health-retries", "1"):
        until(rig, "{{.State.Health.Status}}", "healthy")
        rig.run(["rp", "pause", "hc"])
        refused = rig.run(["rp", "healthcheck", "run", "hc"], check=False)
        assert refused.returncode == 125
        assert "is paused" in refused.stderr
        # Longer than the check that it stopped may take.
        rig.run(["sleep", "6"])
        rig.run(["rp", "unpause", "hc"])
        assert health(rig)["Status"] == "healthy"
        assert check(rig) == (0, "")
        assert "unhealthy" not in events(rig)


def test_failures_of_the_start_period_do_not_count(rig: Machine, alpine: str) -> None:
    options = ("--health-cmd", "test -e /tmp/up", "--health-retries", "1")
    with container(rig, *options, "--health-start-period", "1h", *BY_HAND):
        assert check(rig) == (1, "unhealthy\n")
        assert health(rig)["Status"] == "starting"
        rig.run(["rp", "exec", "hc", "touch", "/tmp/up"])
        assert check(rig) == (0, "")
        rig.run(["rp", "exec", "hc", "rm", "/tmp/up"])
        check(rig)
        assert health(rig)["Status"] == "unhealthy"


def test_the_startup_check_comes_first(rig: Machine, alpine: str) -> None:
    options = ("--health-cmd", "echo regular", "--health-startup-cmd", "echo startup")
    with container(rig, *options, "--health-startup-interval", "50ms", *BY_HAND):
        until(rig, "{{len .State.Health.Log}}", "1")
        assert health(rig)["Status"] == "starting"
        check(rig)
        assert [each["Output"] for each in health(rig)["Log"]] == ["startup", "regular"]
        assert health(rig)["Status"] == "healthy"


@pytest.fixture(scope="module")
def checked_image(rig: Machine, alpine: str) -> str:
    """Return an image that has a HEALTHCHECK, in the schema that carries it."""
    script = "tar -cf - bin lib/ld-musl* etc/passwd"
    layer = rig.run(["rp", "run", "--rm", alpine, "sh", "-c", script], binary=True).stdout
    test = {"Test": ["CMD-SHELL", "test -e /tmp/up"], "Interval": 50_000_000, "Retries": 1}
    image = ociimage.image(
        [layer], {"Cmd": ["sh"], "Healthcheck": test, "Env": ["PATH=/bin"]}, docker=True
    )
    return push(rig, "rp/checked", {"latest": image})


def test_the_image_s_own_check(rig: Machine, checked_image: str) -> None:
    with container(rig, image=checked_image):
        until(rig, "{{.State.Health.Status}}", "unhealthy")
        rig.run(["rp", "exec", "hc", "mkdir", "-p", "/tmp"])
        rig.run(["rp", "exec", "hc", "sh", "-c", ": >/tmp/up"])
        until(rig, "{{.State.Health.Status}}", "healthy")
    with container(rig, "--no-healthcheck", image=checked_image):
        done = rig.run(["rp", "healthcheck", "run", "hc"], check=False)
        assert (done.returncode, done.stdout) == (125, "")
        assert "has no health check" in done.stderr
    with container(rig, "--health-cmd", "echo mine", *BY_HAND, image=checked_image):
        assert check(rig) == (0, "")
        assert health(rig)["Log"][0]["Output"] == "mine"


def test_a_container_that_does_not_run_is_not_checked(rig: Machine, alpine: str) -> None:
    with container(rig, "--health-cmd", "true", *BY_HAND):
        rig.run(["rp", "stop", "hc"])
        done = rig.run(["rp", "healthcheck", "run", "hc"], check=False)
        assert done.returncode == 125
        assert "is not running" in done.stderr


def test_sdnotify_healthy_is_ready_with_the_first_success(rig: Machine, alpine: str) -> None:
    options = ("--health-cmd", "test -e /tmp/up", "--health-interval", "50ms", "--sdnotify")
    command = ["sh", "-c", "trap 'exit 0' TERM; sleep 1; touch /tmp/up; sleep 1000 & wait"]
    try:
        rig.run(["rp", "run", "-d", "--name", "hc", *options, "healthy", "alpine", *command])
        # It came back once it was healthy, not before.
        assert health(rig)["Status"] == "healthy"
    finally:
        rig.run(["rp", "rm", "-f", "-i", "hc"])
