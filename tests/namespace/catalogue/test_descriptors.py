"""Descriptors and working directories that could lead to the host: SECURITY.md B.

The caller holds the host's root on descriptors 5 to 20.  An image, an option and `rp exec` ask for
working directories that name them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from namespace import hostile
from namespace.hostile import ACCOUNTS, Host, Outcome
from rig import ociimage
from rig.effort import nightly

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rig.machine import Machine

NUMBERS = range(3, 41) if nightly() else (3, 7, 20)
PLACES = (
    *(f"/proc/self/fd/{number}" for number in NUMBERS),
    "/proc/1/cwd", "/proc/self/cwd/..", "/proc/self/root/..", "/proc/self/fd/7/home",
    "/proc/self/fd", "/proc/thread-self/cwd/../../..",
)  # fmt: skip
# Runs on the machine: a command of somebody who has the root open many times.
HOLD = """
import os, sys
for number in range(5, 21):
    os.dup2(os.open("/", os.O_RDONLY), number, inheritable=True)
os.execvp(sys.argv[1], sys.argv[1:])
"""
HOLDING = ("python3", "-I", "-c", HOLD)
RUN = ("rp", "run", "--rm", "--net=none")
IMAGES = {f"cwd{number}": place for number, place in enumerate(PLACES[1:5])}


@pytest.fixture(scope="module")
def host(rig: Machine, _fresh_start: None) -> Iterator[Host]:
    """Return the machine with canaries."""
    yield from hostile.prepare(rig)


@pytest.fixture(scope="module")
def said(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """Try all, in run and exec, and return what each said."""
    below = ociimage.tar([*hostile.base(host.machine, tmp_path_factory.mktemp("probe")), *ACCOUNTS])
    images = {
        name: ociimage.image([below], {"Cmd": ["/probe"], "WorkingDir": place}, compress=None)
        for name, place in {**IMAGES, "held": "/"}.items()
    }
    hostile.load(host.machine, images)
    held = "localhost/held"
    host.machine.run([*HOLDING, "rp", "run", "-d", "--net=none", "--name", "held", held, "sleep",
                      "1000"])  # fmt: skip
    commands = {
        **{f"run {place}": [*HOLDING, *RUN, "--workdir", place, held] for place in PLACES},
        **{f"exec {place}": [*HOLDING, "rp", "exec", "--workdir", place, "held", "/probe"]
           for place in PLACES},
        **{f"image {name}": [*HOLDING, *RUN, f"localhost/{name}"] for name in IMAGES},
        "plain run": [*HOLDING, *RUN, held],
        "plain exec": [*HOLDING, "rp", "exec", "held", "/probe"],
    }  # fmt: skip
    done = host.attempt(list(commands.values()))
    yield dict(zip(commands, done, strict=True))
    host.machine.run(["rp", "rm", "--force", "--time", "0", "held"])


def checked(outcome: Outcome) -> None:
    assert outcome.changed == ()
    if outcome.code != 0:
        assert outcome.code in (125, 126, 127)
        assert outcome.stdout == ""
        return
    report = outcome.report()
    assert sorted(report["fds"]) == ["0", "1", "2"]
    assert report["cwd"].startswith("/"), report["cwd"]
    # The host's root has a home; the container's has none.
    assert "(unreachable)" not in report["cwd"]
    assert report["root"] == "/"


def outcomes(said: dict[str, Outcome], way: str) -> Sequence[Outcome]:
    found = [outcome for name, outcome in said.items() if name.startswith(way)]
    assert found
    return found


@pytest.mark.row("CVE-2024-21626", "inside the container or exit 125; never outside of its root")
@pytest.mark.parametrize("way", ["run", "exec", "image"])
def test_cve_2024_21626_working_directories_by_descriptors(
    said: dict[str, Outcome], way: str
) -> None:
    for outcome in outcomes(said, way):
        checked(outcome)


@pytest.mark.row("leaked fds", "0, 1 and 2 alone, whatever the caller has open")
@pytest.mark.parametrize("way", ["run", "exec"])
def test_leaked_fds_of_the_caller(said: dict[str, Outcome], way: str) -> None:
    outcome = said[f"plain {way}"]
    assert outcome.code == 0, outcome.stderr
    report = outcome.report()
    assert sorted(report["fds"]) == ["0", "1", "2"]
    assert set(report["fds"].values()) & {"/"} == set()
