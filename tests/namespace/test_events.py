"""`rp events`, through the front door, against a real journal."""

from __future__ import annotations

import json
import secrets
import subprocess
from typing import TYPE_CHECKING

import pytest
from namespace.living import POLITE, journaled, rp, until

if TYPE_CHECKING:
    from rig.machine import Machine


def past(rig: Machine, name: str, *options: str) -> list[dict[str, object]]:
    """Return what happened to a container."""
    journaled(rig)
    argv = ["rp", "events", "--stream=false", "--format=json", "--filter", f"container={name}"]
    return [json.loads(line) for line in rig.run([*argv, *options]).stdout.splitlines()]


def kinds(events: list[dict[str, object]]) -> list[object]:
    return [event["Status"] for event in events]


@pytest.fixture
def name() -> str:
    """Return a name that the journal has not seen."""
    return f"events-{secrets.token_hex(4)}"


def test_the_life_of_a_container_is_told(rig: Machine, alpine: str, name: str) -> None:
    rig.run(["rp", "create", "--name", name, "--network=none", "--label=app=web",
             alpine, "sh", "-c", POLITE])  # fmt: skip
    rig.run(["rp", "start", name])
    until(lambda: "ready" in rp(rig, "logs", name).stdout, "it is not ready")
    for command in ("pause", "unpause", "stop", "rm"):
        rig.run(["rp", command, name])
    events = past(rig, name)
    told = ["create", "start", "pause", "unpause", "died", "stop", "remove"]
    assert [kind for kind in kinds(events) if kind in told] == told
    died = events[kinds(events).index("died")]
    assert died["ContainerExitCode"] == 3
    assert died["Image"] == "docker.io/library/alpine:latest"
    assert died["Attributes"] == {"app": "web", "reason": "stop"}
    assert len({event["ID"] for event in events}) == 1
    assert kinds(past(rig, name, "--filter", "event=pause", "--filter", "label=app")) == ["pause"]
    assert past(rig, name, "--filter", "label=app=other") == []


def test_a_container_that_removes_itself_is_told(rig: Machine, alpine: str, name: str) -> None:
    rig.run(["rp", "run", "--rm", "--name", name, "--network=none", alpine, "true"])
    assert kinds(past(rig, name))[0] == "create"
    assert kinds(past(rig, name))[-2:] == ["died", "remove"]


def test_what_happens_is_shown_as_it_happens(rig: Machine, alpine: str, name: str) -> None:
    argv = ["rp", "events", "--since=1m", "--filter", f"container={name}", "--format"]
    with rig.popen([*argv, "{{.Status}} {{.Name}}"], stdout=subprocess.PIPE, text=True) as process:
        rig.run(["rp", "create", "--name", name, alpine, "true"])
        assert process.stdout is not None
        assert process.stdout.readline() == f"create {name}\n"
        rig.run(["rp", "rm", name])
        assert process.stdout.readline() == f"remove {name}\n"
        process.terminate()


def test_until_ends_the_stream(rig: Machine, name: str) -> None:
    argv = ["rp", "events", "--filter", f"container={name}", "--until"]
    assert rig.run([*argv, "1s"]).stdout == ""
    assert rig.run([*argv, "2020-01-01T00:00:00Z"]).stdout == ""


def test_volumes_restarts_and_attachments_are_told(rig: Machine, alpine: str, name: str) -> None:
    rig.run(["rp", "run", "-d", "-i", "--name", name, "--network=none", "-v", f"{name}:/data",
             "--stop-timeout=0", alpine, "cat"])  # fmt: skip
    rig.run(["rp", "restart", name])
    rig.run(["rp", "attach", name], input="")
    told = [kind for kind in kinds(past(rig, name)) if kind in ("start", "restart", "attach")]
    assert told == ["start", "start", "restart", "attach"]
    rig.run(["rp", "rm", "-f", name])
    journaled(rig)
    lines = rig.run(["rp", "events", "--no-stream", "--filter", f"volume={name}"]).stdout
    assert [line.split()[4:] for line in lines.splitlines()] == [["volume", "create", name]]


def test_images_are_told(rig: Machine) -> None:
    rig.run(["rp", "pull", "-q", "busybox"])
    identity = rig.run(["rp", "images", "-q", "--no-trunc", "busybox"]).stdout.split()[0]
    rig.run(["rp", "rmi", "busybox"])
    journaled(rig)
    lines = rig.run(["rp", "events", "--no-stream", "--filter", "image=busybox"]).stdout
    told = [line.split()[4:] for line in lines.splitlines()][-3:]
    hexadecimal = identity.removeprefix("sha256:")
    image = [hexadecimal, "docker.io/library/busybox:latest"]
    assert told == [["image", kind, *image] for kind in ("pull", "untag", "remove")]


def test_a_container_cannot_tell_events(rig: Machine, alpine: str, name: str) -> None:
    forged = r"RP_EVENT=died\nMESSAGE_ID=52a95bf1c2cc4d9bb0a79b9ea28e6b9d\nRP_NAME=%s\n"
    rig.run(["rp", "run", "--rm", "--name", name, "--network=none", "--log-driver=journald",
             alpine, "printf", forged, "forged"])  # fmt: skip
    assert past(rig, "forged") == []


def test_other_users_see_nothing_of_it(rig: Machine, alpine: str, name: str) -> None:
    if not rig.has_root:
        pytest.skip("there is no other user")
    rig.run(["rp", "run", "--rm", "--name", name, "--network=none", alpine, "true"])
    journaled(rig)
    done = rig.run(["rp", "events", "--no-stream"], user="bob", check=False)
    assert name not in done.stdout
