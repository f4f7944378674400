"""A podman user's script runs unchanged with rp: tests/data/podman_script.sh, step by step.

Exit codes and output are the same, apart from what changes from run to run and from what
DIFFERENCES lists; where podman complains, rp does so in one line.
"""

from __future__ import annotations

import re
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

SCRIPT = (Path(__file__).parents[1] / "data" / "podman_script.sh").read_text(encoding="utf-8")
STEPS = tuple(re.findall(r"(?m)^step (\S+) ", SCRIPT))
# On a busy machine it takes minutes.
LIMIT_S = 1200
# There are no controllers in the rig, and without them podman needs to be told.
CONTAINERS_CONF = "/tmp/podman-script.conf"
OVERRIDE = "[containers]\npids_limit = 0\n"
# Each has a port and a place of its own.
ENGINES = {
    "podman": {"PORT": "18091", "CONTAINERS_CONF_OVERRIDE": CONTAINERS_CONF},
    "rp": {"PORT": "18092"},
}
MARKER = re.compile(rb"== (\S+): exit (\d+), stdout (\d+) bytes, stderr (\d+) bytes\n")
# What changes from run to run, and what takes its place.
CHANGING = (
    (r"\b[0-9a-f]{64}\b", "<ID>"),
    (r"\b[0-9a-f]{12}\b", "<id>"),
    (r"\b(About |Less than )?\w+ (second|minute|hour|day|week|month|year)s?\b", "<time>"),
    (r"\b\d+(\.\d+)? ?[kMG]?i?B\b", "<size>"),
    (r"\b1809[12]\b", "<port>"),
    (r" {2,}", "  "),
    (r"(?m)[ \r]+$", ""),
)


class Step(NamedTuple):
    """What one step of the script did."""

    code: int
    stdout: str
    stderr: str


class Difference(NamedTuple):
    """What podman and rp do differently in a step, on purpose: exit code and normal output."""

    reason: str
    podman: tuple[int, str]
    rp: tuple[int, str]


PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MINE = "localhost/local/mine:1 <id>\nlocalhost/local/mine:2 <id>\n"
# Each of them is told in docs/differences.md.
DIFFERENCES = {
    "images-of-tag": Difference(
        "podman lists every name of an image of which one matches",
        (0, f"{MINE}docker.io/library/alpine:latest <id>\n"),
        (0, MINE),
    ),
    "run-user-missing": Difference("an error of rp's own is 125", (126, ""), (125, "")),
    "run-cidfile": Difference("podman removes the file too", (1, ""), (0, "<ID>")),
    "inspect-env": Difference(
        "the variable container; HOME is known once the container starts",
        (0, f"\nGREETING=hi\nHOME=/root\nHOSTNAME=<id>\n{PATH}\ncontainer=podman\n"),
        (0, f"\nGREETING=hi\nHOSTNAME=<id>\n{PATH}\ncontainer=rootlesspy\n"),
    ),
    "exec-paused": Difference("an error of rp's own is 125", (255, ""), (125, "")),
    "exec-stopped": Difference("an error of rp's own is 125", (255, ""), (125, "")),
    "committed-config": Difference(
        "what is set for a container is not the image's",
        (0, f"KEY=value\n{PATH}\n[cat /added] 2\ncontainer=podman\n"),
        (0, f"KEY=value\n{PATH}\n[cat /added] 2\n"),
    ),
    "system-df": Difference(
        "podman counts an image for each of its names",
        (0, "Images 3 2\nContainers 4 0\nLocal Volumes 1 0\n"),
        (0, "Images 2 2\nContainers 4 0\nLocal Volumes 1 0\n"),
    ),
    "stop-all": Difference(
        "podman names those too that did not run", (0, "<ID>\n" * 5), (0, "<ID>\n")
    ),
}


@pytest.fixture(scope="module")
def steps(rig: Machine) -> Iterator[dict[str, dict[str, Step]]]:
    """Return what each engine did, by step; both run at the same time."""
    version = rig.run(["sh", "-c", "podman --version"], check=False).stdout
    if not version.startswith("podman version 5."):
        pytest.skip(f"the same as podman 5; here is {version or 'none'}")
    rig.run(["sh", "-c", f"cat >{CONTAINERS_CONF}"], input=OVERRIDE)
    home = rig.run(["sh", "-c", "echo ~"]).stdout.strip()
    with ExitStack() as stack:
        running = {}
        for engine, environment in ENGINES.items():
            data = f"{home}/podman-script/{engine}"
            place = {"ENGINE": engine, "XDG_DATA_HOME": data, **environment}
            stack.callback(removed, rig, place)
            process = rig.popen(
                ["timeout", str(LIMIT_S), "sh", "-c", SCRIPT],
                env=place,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )
            running[engine] = stack.enter_context(process)
        yield {engine: parsed(process.communicate()[0]) for engine, process in running.items()}


def removed(rig: Machine, place: dict[str, str]) -> None:
    """Remove what an engine has left, which belongs to subordinate ids too."""
    everything = """
        for id in $($ENGINE ps -aq); do $ENGINE rm -f -t 0 "$id"; done
        rp unshare rm -rf "$XDG_DATA_HOME"
    """
    rig.run(["sh", "-c", everything], env=place)


def parsed(transcript: bytes) -> dict[str, Step]:
    """Return the steps of what the script printed."""
    found: dict[str, Step] = {}
    position = 0
    while marker := MARKER.match(transcript, position):
        code, *sizes = (int(number) for number in marker.groups()[1:])
        middle = marker.end() + sizes[0]
        position = middle + sizes[1]
        out, err = transcript[marker.end() : middle], transcript[middle:position]
        found[marker[1].decode()] = Step(code, normal(out), normal(err))
    assert position == len(transcript), transcript[position:]
    return found


def normal(output: bytes) -> str:
    """Return output without what changes from run to run."""
    text = output.decode()
    for pattern, replacement in CHANGING:
        text = re.sub(pattern, replacement, text)
    return text


def test_every_step_has_a_name_of_its_own() -> None:
    assert len(STEPS) == len(set(STEPS)) == SCRIPT.count("\nstep ")
    assert DIFFERENCES.keys() <= set(STEPS)


@pytest.mark.limit(2 * LIMIT_S)
@pytest.mark.parametrize("name", STEPS)
def test_step(steps: dict[str, dict[str, Step]], name: str) -> None:
    podman, rp = steps["podman"][name], steps["rp"][name]
    if name in DIFFERENCES:
        assert podman[:2] == DIFFERENCES[name].podman, podman.stderr
        assert rp[:2] == DIFFERENCES[name].rp, rp.stderr
    else:
        assert rp[:2] == podman[:2], rp.stderr
    if "Error: " in podman.stderr and rp.code:
        assert re.fullmatch(r"rp: .*\n(hint: .*\n)?", rp.stderr)
    elif not podman.stderr:
        assert not rp.stderr
