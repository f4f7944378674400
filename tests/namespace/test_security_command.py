"""`rp security` through the front door: a container at its worst, by default and at its best."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

HARD = (
    *("--user", "1000", "--cap-drop", "ALL", "--network", "none", "--read-only"),
    *("--userns", "nomap", "--memory", "100m", "--cpus", "1", "--ignore-missing-limits"),
)
WORST = ("--privileged", "--network", "host", "--volume", "/:/host", "--env", "DB_PASSWORD=x")


def judged(rig: Machine, name: str) -> Any:
    return json.loads(rig.run(["rp", "security", name, "--format", "json"]).stdout)


def findings(document: Any) -> dict[str, Any]:
    return {each["Check"]: each for each in reversed(document["Findings"])}


@pytest.fixture(scope="module")
def documents(rig: Machine, alpine: str) -> Iterator[dict[str, Any]]:
    """Return what is said of four containers, one of them running, and of the image."""
    rig.run(["rp", "create", "--name", "s-worst", *WORST, alpine, "true"])
    rig.run(["rp", "create", "--name", "s-default", alpine, "true"])
    rig.run(["rp", "create", "--name", "s-hard", *HARD, alpine, "true"])
    rig.run(["rp", "run", "-d", "--name", "s-runs", "--user", "1000", alpine, "sleep", "1000"])
    names = ("s-worst", "s-default", "s-hard", "s-runs", alpine)
    yield {name: judged(rig, name) for name in names}
    rig.run(["rp", "rm", "--force", "--time", "0", *names[:4]])


def test_score_falls_from_privileged_to_hardened(documents: dict[str, Any]) -> None:
    scores = [documents[name]["Score"] for name in ("s-worst", "s-default", "s-runs", "s-hard")]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4
    assert documents["s-worst"]["Level"] in ("EXPOSED", "UNSAFE", "DANGEROUS")
    assert documents["s-default"]["Level"] == "OK"
    assert documents["s-hard"]["Level"] in ("OK", "SAFE", "PERFECT")


def test_an_image_is_judged_with_default_options(documents: dict[str, Any], alpine: str) -> None:
    image, container = documents[alpine], documents["s-default"]
    assert (image["Kind"], image["State"]) == ("image", "")
    assert (container["Kind"], container["State"]) == ("container", "created")
    assert image["Findings"] == container["Findings"]
    assert image["Score"] == container["Score"]


def test_what_is_said_of_the_worst(documents: dict[str, Any]) -> None:
    found = findings(documents["s-worst"])
    assert "SYS_ADMIN" in found["capabilities"]["Description"]
    assert "all that you can reach" in found["mounts"]["Description"]
    assert "DB_PASSWORD" in found["environment"]["Description"]
    for check in ("seccomp", "no_new_privs", "masked paths", "network", "user", "landlock"):
        assert not found[check]["Good"], check
        assert found[check]["Advice"], check


def test_a_running_container_is_judged_by_what_the_kernel_says(documents: dict[str, Any]) -> None:
    found = findings(documents["s-runs"])
    assert documents["s-runs"]["State"] == "running"
    for check in ("capabilities", "seccomp", "no_new_privs", "user"):
        assert found[check]["Good"], check
    assert found["user"]["Description"] == "runs as 1000"


def test_threshold_sets_the_exit_code(rig: Machine, documents: dict[str, Any]) -> None:
    ten_times = round(documents["s-default"]["Score"] * 10)
    argv = ["rp", "security", "s-default", "--threshold"]
    assert rig.run([*argv, str(ten_times)]).returncode == 0
    assert rig.run([*argv, str(ten_times - 1)], check=False).returncode == 1
    assert rig.run([*argv, "101"], check=False).returncode == 125
    # Without a name: one that is above is enough.
    assert rig.run(["rp", "security", "--threshold", "60"], check=False).returncode == 1


def test_list_of_all(rig: Machine, documents: dict[str, Any]) -> None:
    lines = rig.run(["rp", "security"]).stdout.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "SCORE", "LEVEL"]
    shown = {line.split()[0]: line.split()[2] for line in lines[1:]}
    assert {name: str(documents[name]["Score"]) for name in shown} == shown


def test_table_fits_the_terminal(rig: Machine, documents: dict[str, Any]) -> None:
    with rig.pty(["sh", "-c", "stty cols 60 && rp security s-worst"]) as terminal:
        assert terminal.wait() == 0
        lines = terminal.output.decode().replace("\r", "").splitlines()
    plain = [_without_colours(line) for line in lines if "Overall" not in line]
    assert max(map(len, plain)) <= 60
    assert any("--cap-drop ALL" in line for line in plain)


def _without_colours(line: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def test_unknown_name(rig: Machine) -> None:
    done = rig.run(["rp", "security", "no-such"], check=False)
    assert done.returncode == 125
    assert "'no-such' is neither a container nor an image" in done.stderr
