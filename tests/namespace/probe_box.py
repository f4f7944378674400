"""The static probe in a root file system of its own, and what it says of a container.

The payload is tests/data/probe/probe.c, so that nothing of an image hides or adds anything.  The
fixture `box` (tests/namespace/conftest.py) builds it once per module.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rig.machine import Machine

SOURCE = Path(__file__).parents[1] / "data/probe/probe.c"


class Box(NamedTuple):
    """A root file system with the probe in it, on the machine."""

    machine: Machine
    directory: str

    def argv(self, *options: str, run: Sequence[str] = ()) -> list[str]:
        """Return the command line of one container."""
        return self.command("root", "/probe", options, run)

    def command(
        self, root: str, program: str, options: Sequence[str], run: Sequence[str]
    ) -> list[str]:
        payload = ["--rootfs", f"{self.directory}/{root}", program, *run]
        return ["rp", "run", "--rm", "--network", "none", *options, *payload]

    def inside(self, root: str, program: str, *options: str, run: Sequence[str] = ()) -> Any:
        """Run a copy of the probe in another root and return the JSON that it printed."""
        return json.loads(self.machine.run(self.command(root, program, options, run)).stdout)

    def run(self, *options: str, run: Sequence[str] = (), **more: Any) -> Any:
        """Run one container and return the JSON that it printed."""
        return json.loads(self.machine.run(self.argv(*options, run=run), **more).stdout)

    def several(self, *options: str, run: Sequence[Sequence[str]], **more: Any) -> list[Any]:
        """Run one container and return what each of several runs of the probe in it printed."""
        done = self.machine.run(self.argv(*options, run=joined(run)), **more)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def outside(self, *run: str, **more: Any) -> Any:
        """Run the probe on the machine itself, as the user."""
        return json.loads(self.machine.run([f"{self.directory}/root/probe", *run], **more).stdout)

    def written(self, name: str) -> Any:
        """Return the JSON that a payload wrote to /out."""
        return json.loads(self.machine.run(["cat", f"{self.directory}/out/{name}"]).stdout)


def joined(runs: Sequence[Sequence[str]]) -> list[str]:
    """Return the arguments with which the probe does several things, a line of JSON for each."""
    words = ["several"]
    for index, run in enumerate(runs):
        words += ["," if index else "", *run][0 if index else 1 :]
    return words


def compiled(source: Path, build_directory: Path) -> Path:
    """Return a static program made of one C file; skip the test where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for static programs: apt install gcc libc6-dev")
    binary = build_directory / source.stem
    subprocess.run([compiler, "-static", "-O2", "-o", binary, source], check=True)
    return binary


def install(rig: Machine, build_directory: Path) -> Iterator[Box]:
    """Build the probe, put it into a root file system, and remove that afterwards.

    Skips the test where there is no compiler.
    """
    binary = compiled(SOURCE, build_directory)
    # Not in /tmp: it may be nosuid, which would hide what set-user-ID programs can do.
    made = rig.run(["sh", "-c", 'umask 022; mktemp -d "$HOME/isolation.XXXXXX"'])
    directory = made.stdout.strip()
    script = 'cd "$0" && mkdir -p root/etc out && cat >root/probe && chmod 755 root/probe && cat'
    rig.run(["sh", "-c", script, directory], input=binary.read_bytes())
    passwd = "root:x:0:0::/:/probe\nbob:x:1000:100::/home/bob:/probe\n"
    rig.run(["sh", "-c", 'cat >"$0"/root/etc/passwd', directory], input=passwd)
    group = "root:x:0:\nusers:x:100:\nextra:x:300:bob\n"
    rig.run(["sh", "-c", 'cat >"$0"/root/etc/group', directory], input=group)
    yield Box(rig, directory)
    rig.run(["rm", "-rf", directory])


def sets(report: Any) -> dict[str, int]:
    """Return the five capability sets of a report."""
    return {k: int(v, 16) for k, v in report["status"].items() if k.startswith("Cap")}


def options_by_target(mountinfo: list[str]) -> dict[str, set[str]]:
    """Return the options of each mount."""
    return {line.split()[4]: set(line.split()[5].split(",")) for line in mountinfo}
