"""Every directory of examples/ is run as its README says, and says what its README shows."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STORIES = sorted(path.parent.name for path in EXAMPLES.glob("*/README.md"))
# What differs from machine to machine, on both sides of the comparison.
VARIABLE = (
    (r"docker\.io/library/", ""),
    (r"uid \d+", "uid N"),
    (r"\w+ owns", "USER owns"),
    # Which Alpine it is, or what stands in for it.
    (r"(?m)^(NAME|ID|VERSION_ID|PRETTY_NAME|HOME_URL|BUG_REPORT_URL)=.*$", "FIELD"),
    (r"(FIELD\n)+", "FIELD\n"),
)

pytestmark = pytest.mark.usefixtures("alpine", "leaves_nothing")


@pytest.fixture(scope="module")
def examples(rig: Machine) -> Iterator[str]:
    """Return a directory on the machine that holds a copy of examples/."""
    directory = rig.run(["sh", "-c", 'mktemp -d "$HOME/examples.XXXXXX"']).stdout.strip()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(EXAMPLES, arcname=".")
    rig.run(["tar", "-x", "--no-same-owner", "-C", directory], input=packed.getvalue())
    rig.run(["rp", "pull", "--quiet", "--policy", "missing", "busybox"], timeout=120)
    yield directory
    rig.run(["rm", "-r", directory])


def shown(story: str, block: int = 0) -> str:
    """Return what the README shows as the output of ./run."""
    text = (EXAMPLES / story / "README.md").read_text(encoding="utf-8")
    transcripts = re.findall(r"(?s)```\n\$ \./run\n(.*?)```", text)
    return str(transcripts[block])


def comparable(text: str) -> str:
    for pattern, replacement in VARIABLE:
        text = re.sub(pattern, replacement, text)
    return text


def test_every_directory_is_a_story() -> None:
    directories = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
    assert directories == STORIES
    listed = re.findall(r"\| \[([\w-]+)\]", (EXAMPLES / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == STORIES


@pytest.mark.parametrize(
    "story", [name for name in STORIES if name not in ("tty", "volume", "low-port")]
)
def test_example(rig: Machine, examples: str, story: str) -> None:
    done = rig.run([f"{examples}/{story}/run"], timeout=120)
    assert comparable(done.stdout) == comparable(shown(story))


def test_a_port_of_roots_is_served_by_a_user(rig: Machine, examples: str) -> None:
    """A system .socket passed in: the program sees the true address of every client."""
    if not rig.has_root:
        pytest.skip("only root can write units of the system")
    script = rig.popen(
        [f"{examples}/low-port/run", "wait"], user="root", stdin=-1, stdout=-1, text=True
    )
    try:
        assert script.stdin is not None
        assert script.stdout is not None
        said = [script.stdout.readline() for _ in range(2)]
        text = (EXAMPLES / "low-port" / "README.md").read_text(encoding="utf-8")
        assert f"```\n$ sudo ./run\n{''.join(said)}```" in text
        fetch = ["ip", "netns", "exec", "outside", "python3", f"{examples}/static-site/fetch.py"]
        seen = [rig.root([*fetch, f"http://{each}/"]).stdout for each in ("10.99.0.2", "[fd99::2]")]
        assert seen == ["you are 10.99.0.1\n", "you are fd99::1\n"]
    finally:
        script.communicate("\n", timeout=60)
    assert script.returncode == 0
    units = rig.root(["systemctl", "list-units", "--all", "-q", "example-low-port*"]).stdout
    assert units == ""


def test_limits_that_hold_need_no_notice(rig: Machine, examples: str) -> None:
    done = rig.run([f"{examples}/limited/run"], timeout=120)
    service = f"/sys/fs/cgroup/user.slice/user-{rig.uid}.slice/user@{rig.uid}.service"
    controllers = rig.run(["cat", f"{service}/cgroup.controllers"]).stdout.split()
    assert ("MemoryMax" in done.stderr) == ("memory" not in controllers)


def test_keep_id_writes_files_of_the_caller(rig: Machine, examples: str) -> None:
    rig.run([f"{examples}/keep-id/run"], timeout=120)
    result = f"{examples}/keep-id/out/hello.tar.gz"
    assert rig.run(["stat", "-c", "%u", result]).stdout.strip() == str(rig.uid)
    assert rig.run(["tar", "-xzOf", result, "./hello.txt"]).stdout == "hello\n"


def test_volume_outlives_its_containers(rig: Machine, examples: str) -> None:
    facts = json.loads(rig.run(["rp", "info", "--format", "json"]).stdout)
    volume = f"{facts['store']['volumePath']}/example-counter"
    rig.run(["rm", "-rf", volume])
    try:
        said = "".join(
            f"$ ./run\n{rig.run([f'{examples}/volume/run'], timeout=120).stdout}" for _ in range(2)
        )
    finally:
        rig.run(["rm", "-rf", volume])
    assert said == f"$ ./run\n{shown('volume')}"


def test_tty(rig: Machine, examples: str) -> None:
    with rig.pty([f"{examples}/tty/run"]) as terminal:
        terminal.expect("/ # ")
        terminal.send("stty size\r")
        terminal.expect("\n24 80\r\n.*/ # ")
        terminal.resize(30, 100)
        terminal.send("while [ \"$(stty size)\" != '30 100' ]; do sleep 0.1; done; echo si''ze\r")
        terminal.expect("\nsize\r\n.*/ # ")
        terminal.send("sh -c 'echo started; exec sleep 1000'\r")
        terminal.expect("\nstarted\r\n")
        terminal.send("\x03")
        terminal.expect("/ # ")
        terminal.send("exit 9\r")
        assert terminal.wait() == 9
