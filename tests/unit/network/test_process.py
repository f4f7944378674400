"""The helper process, with shell scripts in its place."""

from __future__ import annotations

import gc
import os
import select
import signal
from typing import TYPE_CHECKING

import pytest

from rootlesspy.errors import RuntimeFailure
from rootlesspy.network import driver, process

if TYPE_CHECKING:
    from collections.abc import Iterator


LIMIT_S = 60


def helper(script: str, ready_fd: int = 1) -> process.Helper:
    return process.start("/bin/sh", ["-c", script], ready_fd=ready_fd)


def wait_for_end(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(LIMIT_S * 1000))


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    # What earlier tests left to the collector is not closed in between.
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


def test_one_that_was_killed_is_not_ended_again_and_waited_for_once() -> None:
    running = helper("exec sleep 100")
    selection = driver.Selection(driver.NetworkRequest())
    pending = driver.Pending(selection, running, "")
    pending.kill()
    assert wait_for_end(running.pidfd)
    pending.cancel()
    assert os.path.exists(f"/proc/{running.pid}")
    for _ in range(2):
        pending.reap()
        assert not os.path.exists(f"/proc/{running.pid}")


@pytest.mark.parametrize("ready_fd", [1, 3])
def test_ready(ready_fd: int) -> None:
    running = helper(f"echo 1 >&{ready_fd}; exec sleep 100", ready_fd)
    assert process.wait_ready(running, LIMIT_S)
    with open(f"/proc/{running.pid}/stat") as file:
        assert str(running.start_time) in file.read().split()
    process.stop(running)
    assert not os.path.exists(f"/proc/{running.pid}")


def test_what_is_written_elsewhere_is_not_readiness() -> None:
    """slirp4netns 1.2 writes warnings to stdout before it is ready."""
    running = helper("echo warning; exec sleep 100", 3)
    with pytest.raises(RuntimeFailure, match=r"did not configure the network within 0\.2 s"):
        process.wait_ready(running, 0.2)
    process.stop(running)


def test_a_helper_that_fails_is_quoted() -> None:
    running = helper(
        "printf 'Failed to send 9 bytes to syslog\\nno such thing\\nUsage: x\\n  -a\\n' >&2; exit 3"
    )
    assert not process.wait_ready(running, LIMIT_S)
    assert process.complaint(running) == "no such thing"
    assert process.reap(running) == 3 << 8


def test_the_helper_dies_with_the_lifeline() -> None:
    """As it does when the supervisor is killed: every copy of the descriptor is gone then."""
    running = helper("trap '' TERM HUP IO; echo 1; while :; do sleep 100; done")
    assert process.wait_ready(running, LIMIT_S)
    spare = os.dup(running.pidfd)
    os.close(running.lifeline_fd)
    assert wait_for_end(spare)
    os.close(spare)
    assert process.reap(running._replace(lifeline_fd=-1)) == signal.SIGKILL


def test_a_noisy_helper_is_not_stopped() -> None:
    script = "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789 >&2; "
    running = helper(f"{script} i=$((i+1)); done 2>&2; echo 1; exec sleep 100")
    assert process.wait_ready(running, LIMIT_S)
    process.stop(running)


def test_the_helper_gets_nothing_of_ours() -> None:
    os.environ["HOSTSECRET"] = "token"
    with open("/dev/null") as ours:
        try:
            running = helper("echo 1; exec sleep 100")
        finally:
            del os.environ["HOSTSECRET"]
        assert process.wait_ready(running, LIMIT_S)
        with open(f"/proc/{running.pid}/environ") as file:
            assert "HOSTSECRET" not in file.read()
        links = [os.readlink(f"/proc/{running.pid}/fd/{fd}") for fd in range(3)]
        assert all(link.startswith("pipe:") for link in links)
        assert not os.path.exists(f"/proc/{running.pid}/fd/{ours.fileno()}")
        with open(f"/proc/{running.pid}/status") as file:
            ignored = next(line for line in file if line.startswith("SigIgn:"))
        assert int(ignored.split()[1], 16) & 0x7FFFFFFF == 0
    process.stop(running)


def test_stop_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked first, and waited for in vain."""
    running = helper("trap '' TERM; echo 1; while :; do sleep 100; done")
    assert process.wait_ready(running, LIMIT_S)
    sent: list[int] = []
    send = signal.pidfd_send_signal

    def recorded(pidfd: int, number: int) -> None:
        sent.append(number)
        send(pidfd, number)

    monkeypatch.setattr("rootlesspy.network.process.signal.pidfd_send_signal", recorded)
    process.stop(running)
    assert sent == [signal.SIGKILL]
    assert not os.path.exists(f"/proc/{running.pid}")


def test_find_program(tmp_path: os.PathLike[str]) -> None:
    assert process.find_program("sh", "/bin") == "/bin/sh"
    assert process.find_program("sh", f"relative:{os.fspath(tmp_path)}") is None
    assert process.find_program("tmp", "/") is None
