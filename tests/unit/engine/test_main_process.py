"""The main process of a service whose supervisor rp has forked, by each shell of /bin/sh."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rootlesspy.engine.supervision import own_service
from rootlesspy.linux import procfs

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = Path(own_service.__file__).with_name("main_process.sh")
SHELLS = [
    pytest.param(words, id=words[0])
    for words in (["sh"], ["dash"], ["bash", "--posix"], ["busybox", "sh"])
    if shutil.which(words[0])
]
# What it becomes where systemd starts the service again.
AGAIN = ("sh", "-c", "exit 42")
# Says which descriptors it has, then does what it is told, and tells of a SIGTERM.
SUPERVISOR = """
import os, signal, sys, time
reader, status = os.pipe()
here, writer = os.pipe()
def told(*_):
    print("asked to end", flush=True)
signal.signal(signal.SIGTERM, told)
print(reader, writer, flush=True)
for line in sys.stdin:
    word = line.strip()
    if word == "meet":
        print(os.read(here, 16).decode().strip(), flush=True)
    else:
        os.write(status, f"{word}\\n".encode())
"""


class Supervisor:
    """A process that a card may name."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.fds = self.heard()

    def heard(self) -> str:
        """Return the next line that it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, word: str) -> None:
        """Have it do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture(autouse=True)
def unblocked() -> Iterator[None]:
    """Let SIGTERM through, as systemd does for a service."""
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    found = Supervisor()
    yield found
    found.end()


@pytest.fixture
def card(tmp_path: Path, supervisor: Supervisor) -> Path:
    path = tmp_path / "forked"
    pid = supervisor.process.pid
    path.write_text(f"{pid} {procfs.start_time(pid)} {supervisor.fds}\n", encoding="ascii")
    return path


def begin(shell: list[str], card: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*shell, str(SCRIPT), str(card), *AGAIN])


@pytest.mark.parametrize("shell", SHELLS)
def test_it_is_the_supervisor_itself_where_there_is_no_card(
    shell: list[str], tmp_path: Path
) -> None:
    assert begin(shell, tmp_path / "none").wait() == 42


@pytest.mark.parametrize("text", ["", "\n", "12 34 5\n", "12 34 5"])
@pytest.mark.parametrize("shell", SHELLS)
def test_half_a_card_is_none(shell: list[str], text: str, tmp_path: Path) -> None:
    (tmp_path / "forked").write_text(text, encoding="ascii")
    assert begin(shell, tmp_path / "forked").wait() == 42


@pytest.mark.parametrize("shell", SHELLS)
def test_it_ends_as_asked_where_the_supervisor_is_gone(
    shell: list[str], card: Path, supervisor: Supervisor
) -> None:
    supervisor.end()
    assert begin(shell, card).wait() == -signal.SIGTERM


@pytest.mark.parametrize("shell", SHELLS)
def test_another_process_with_its_pid_is_left_alone(
    shell: list[str], card: Path, supervisor: Supervisor
) -> None:
    pid, started, *fds = card.read_text(encoding="ascii").split()
    card.write_text(" ".join((pid, str(int(started) + 1), *fds)), encoding="ascii")
    assert begin(shell, card).wait() == -signal.SIGTERM
    supervisor.tell("7")


@pytest.mark.parametrize(("word", "status"), [("0", 0), ("137", 137), ("TERM", -signal.SIGTERM)])
@pytest.mark.parametrize("shell", SHELLS)
def test_it_ends_as_the_supervisor_says(
    shell: list[str], word: str, status: int, card: Path, supervisor: Supervisor
) -> None:
    main = begin(shell, card)
    supervisor.tell("meet")
    assert supervisor.heard() == "here"
    supervisor.tell(word)
    assert main.wait() == status


@pytest.mark.parametrize("shell", SHELLS)
def test_it_ends_as_killed_where_the_supervisor_was(
    shell: list[str], card: Path, supervisor: Supervisor
) -> None:
    main = begin(shell, card)
    supervisor.tell("meet")
    assert supervisor.heard() == "here"
    supervisor.end()
    assert main.wait() == -signal.SIGKILL


@pytest.mark.parametrize("shell", SHELLS)
def test_a_sigterm_is_the_supervisors_and_it_waits_for_the_answer(
    shell: list[str], card: Path, supervisor: Supervisor
) -> None:
    main = begin(shell, card)
    supervisor.tell("meet")
    assert supervisor.heard() == "here"
    for _ in range(2):
        os.kill(main.pid, signal.SIGTERM)
        assert supervisor.heard() == "asked to end"
    supervisor.tell("TERM")
    assert main.wait() == -signal.SIGTERM
