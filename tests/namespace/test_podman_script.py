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
    from rig.machine import Machine

SCRIPT = (Path(__file__).parents[1] / "data" / "podman_script.sh").read_text(encoding="utf-8")
STEPS = tuple(re.findall(r"(?m)^step (\S+) ", SCRIPT))
LIMIT_S = 200
# There are no controllers in the rig, and without them podman needs to be told.
CONTAINERS_CONF = "/tmp/podman-script.conf"
OVERRIDE = "[containers]\npids_limit = 0\n"
ENGINES = {
    "podman": {"PORT": "18091", "CONTAINERS_CONF_OVERRIDE": CONTAINERS_CONF},
    "rp": {"PORT": "18092"},
}
MARKER = re.compile(rb"== (\S+): exit (\d+), stdout (\d+) bytes, stderr (\d+) bytes\n")
# What changes from run to run, and what takes its place.
CHANGING = (
    (r"\b[0-9a-f]{64}\b", "<ID>"),
    (r"\b[0-9a-f]{12}\b", "<id>"),
    (r"\b(About an? |Less than a )?\w+ (second|minute|hour|day|week|month|year)s?\b", "<time>"),
    (r"\b\d+(\.\d+)? ?[kMG]?i?B\b", "<size>"),
    (r"\b1809[12]\b", "<port>"),
    (r" {2,}", "  "),
)


class Step(NamedTuple):
    """What one step of the script did."""

    code: int
    stdout: str
    stderr: str


class Difference(NamedTuple):
    """What podman and rp may do differently in a step: the normalised output of each."""

    reason: str
    podman: str
    rp: str


DIFFERENCES: dict[str, Difference] = {}


@pytest.fixture(scope="module")
def steps(rig: Machine) -> dict[str, dict[str, Step]]:
    """Return what each engine did, by step; both run at the same time."""
    rig.run(["sh", "-c", f"cat >{CONTAINERS_CONF}"], input=OVERRIDE)
    with ExitStack() as stack:
        running = {
            engine: stack.enter_context(
                rig.popen(
                    ["timeout", str(LIMIT_S), "sh", "-c", SCRIPT],
                    env={"ENGINE": engine, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                )
            )
            for engine, environment in ENGINES.items()
        }
        return {engine: parsed(process.communicate()[0]) for engine, process in running.items()}


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


@pytest.mark.limit(2 * LIMIT_S)
@pytest.mark.parametrize("name", STEPS)
def test_step(steps: dict[str, dict[str, Step]], name: str) -> None:
    podman, rp = steps["podman"][name], steps["rp"][name]
    assert rp.code == podman.code, rp.stderr
    if name in DIFFERENCES:
        assert (podman.stdout, rp.stdout) == DIFFERENCES[name][1:]
        assert podman.stdout != rp.stdout, "no difference any more"
    else:
        assert rp.stdout == podman.stdout
    if rp.code == 125:
        assert re.fullmatch(r"rp: .*\n(hint: .*\n)?", rp.stderr)
