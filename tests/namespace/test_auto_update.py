"""`rp auto-update`: containers that follow their image, from the machine's own registry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from namespace.living import until

if TYPE_CHECKING:
    from rig.machine import Completed, Machine

pytestmark = pytest.mark.usefixtures("needs_registry")

# Where registries.conf of the rig has the mirror.
PLACE = "docker://localhost:5000/updated/app:latest"
NAME = "docker.io/updated/app:latest"
LABEL = "io.containers.autoupdate"
LIMIT_S = 120


def rp(rig: Machine, *words: str, check: bool = True) -> Completed:
    return rig.run(["rp", *words], check=check, timeout=LIMIT_S)


def publish(rig: Machine, command: str) -> None:
    """Put an image that runs a shell command into the registry, and only there."""
    rp(rig, "create", "--name", "made", "--network=none", "alpine", "true")
    entry = json.dumps(["sh", "-c", command])
    rp(rig, "commit", "-q", "-c", f"CMD {entry}", "made", "localhost/made")
    rp(rig, "push", "-q", "--tls-verify=false", "localhost/made", PLACE)
    rp(rig, "rm", "made")
    rp(rig, "rmi", "localhost/made")


def updates(rig: Machine, *words: str, check: bool = True) -> list[tuple[str, str]]:
    done = rp(rig, "auto-update", *words, "--format", "json", check=check)
    return [(each["ContainerName"], each["Updated"]) for each in json.loads(done.stdout)]


def test_containers_follow_their_image_and_come_back_when_it_fails(
    rig: Machine, alpine: str
) -> None:
    publish(rig, "echo one; exec sleep 1000")
    options = ("-d", "--network=none", "--stop-timeout=1")
    rp(rig, "run", *options, "--name", "follows", "--label", f"{LABEL}=registry", "-v", "kept:/k",
       NAME)  # fmt: skip
    rp(rig, "run", *options, "--name", "stays", NAME)
    rp(rig, "run", *options, "--name", "stopped", "--label", f"{LABEL}=registry", NAME)
    rp(rig, "stop", "stopped")
    rp(rig, "enable", "follows")
    rp(rig, "exec", "follows", "touch", "/k/mine")

    def said(name: str) -> str:
        return str(rp(rig, "logs", name).stdout)

    until(lambda: said("stays"), "the first one says nothing")
    try:
        assert updates(rig) == [("follows", "false")]

        publish(rig, "echo two; exec sleep 1000")
        before = rp(rig, "ps", "-q", "--no-trunc", "--filter", "name=follows").stdout
        assert updates(rig, "--dry-run") == [("follows", "pending")]
        assert rp(rig, "ps", "-q", "--no-trunc", "--filter", "name=follows").stdout == before
        assert updates(rig) == [("follows", "true")]
        until(lambda: said("follows").endswith("two\n"), "the new one says nothing")
        assert rp(rig, "exec", "follows", "ls", "/k").stdout == "mine\n"
        assert said("stays") == "one\n"
        enabled = rig.run(["systemctl", "--user", "is-enabled", "rp-follows"]).stdout
        assert enabled == "enabled\n"
        assert updates(rig) == [("follows", "false")]

        # One that cannot be executed: back to the image that it had.
        rp(rig, "create", "--name", "made", "--network=none", "alpine", "true")
        rp(rig, "commit", "-q", "-c", 'CMD ["/nonesuch"]', "made", "localhost/made")
        rp(rig, "push", "-q", "--tls-verify=false", "localhost/made", PLACE)
        rp(rig, "rm", "made")
        done = rp(rig, "auto-update", "--format", "{{.ContainerName}} {{.Updated}}", check=False)
        assert (done.returncode, done.stdout) == (125, "follows rolled back\n")
        assert "/nonesuch" in done.stderr
        until(lambda: said("follows").endswith("two\n"), "the old one says nothing")
        shown = rp(rig, "inspect", "-f", "{{.State.Status}}", "follows").stdout
        assert shown == "running\n"
    finally:
        rp(rig, "rm", "-f", "follows", "stays", "stopped", check=False)


def test_a_label_that_is_no_policy_is_told(rig: Machine, alpine: str) -> None:
    rp(rig, "run", "-d", "--name", "odd", "--network=none", "--label", f"{LABEL}=weekly", alpine,
       "sleep", "100")  # fmt: skip
    try:
        done = rp(rig, "auto-update", check=False)
        assert done.returncode == 125
        assert "io.containers.autoupdate=weekly" in done.stderr
    finally:
        rp(rig, "rm", "-f", "odd")
