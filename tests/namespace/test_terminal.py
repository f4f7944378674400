"""Terminal sessions as a person has them: prompt, keys, resize, job control, detach, restore."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rig.machine import Machine

pytestmark = pytest.mark.namespace


def test_a_shell_session(rig: Machine, alpine: str, leaves_nothing: None) -> None:
    with rig.pty(["rp", "run", "--rm", "-it", alpine, "sh"]) as terminal:
        terminal.expect("# ")
        terminal.send("echo one-$((1+1)); tty; stty size\r")
        terminal.expect("one-2")
        terminal.expect("/dev/pts/0")
        terminal.expect("24 80")
        # Arrow up brings the last line back; its end is changed and it runs again.
        terminal.send("\x1b[A; echo again\r")
        terminal.expect("one-2.*again")
        terminal.send("exit 7\r")
        assert terminal.wait() == 7


def test_resize_reaches_the_payload(rig: Machine, alpine: str) -> None:
    with rig.pty(["rp", "run", "--rm", "-it", alpine, "sh"]) as terminal:
        terminal.expect("# ")
        terminal.resize(41, 101)
        terminal.send("while [ \"$(stty size)\" != '41 101' ]; do sleep 0.1; done; echo si''ze\r")
        terminal.expect("size\r")
        terminal.send("exit\r")
        assert terminal.wait() == 0


def test_ctrl_c_and_ctrl_z_belong_to_the_container(rig: Machine, alpine: str) -> None:
    with rig.pty(["rp", "run", "--rm", "-it", alpine, "sh"]) as terminal:
        terminal.expect("# ")
        terminal.send("sh -c 'echo g''o; exec sleep 600'\r")
        terminal.expect("go\r\n")
        terminal.send("\x03")
        terminal.expect("# ")
        terminal.send("sh -c 'echo g''o; exec sleep 601'\r")
        terminal.expect("go\r\n")
        terminal.send("\x1a")
        terminal.expect("Stopped")
        # The first exit only says that there are stopped jobs.
        terminal.send("kill -9 %1; exit 3; exit 3\r")
        assert terminal.wait() == 3


def test_colours_and_term_pass_through(rig: Machine, alpine: str) -> None:
    with rig.pty(["rp", "run", "--rm", "-t", alpine, "sh", "-c", "echo $TERM; ls --color /"]) as t:
        t.expect("xterm")
        t.expect("\x1b\\[1;34m")
        assert t.wait() == 0


def test_the_terminal_is_restored(rig: Machine, alpine: str) -> None:
    script = f"stty -g; rp run --rm -it {alpine} sh -c 'echo inside; cat'; stty -g; echo back"
    with rig.pty(["sh", "-c", script]) as terminal:
        before = terminal.expect("([0-9a-f:]{40,})\r\n")[1]
        terminal.expect("inside")
        terminal.send("\x04")
        assert terminal.expect("([0-9a-f:]{40,})\r\nback")[1] == before
        assert terminal.wait() == 0


def test_the_terminal_is_restored_after_a_crash(rig: Machine, alpine: str) -> None:
    # The supervisor gives the terminal back when it misses its client, the shell goes on at once.
    script = (
        f"before=$(stty -g); echo $before; rp run --rm --name crash -it {alpine} sh;"
        ' until [ "$(stty -g)" = "$before" ]; do sleep 0.1; done; stty -g; rp rm -f crash'
    )
    with rig.pty(["sh", "-c", script]) as terminal:
        before = terminal.expect("([0-9a-f:]{40,})\r\n")[1]
        terminal.expect("# ")
        rig.run(["pkill", "-9", "-o", "-f", "^/usr/bin/python3 .*rp run --rm --name crash -it"])
        terminal.expect("Killed")
        assert terminal.expect("([0-9a-f:]{40,})\r\n")[1] == before
        assert terminal.wait() == 0


def test_detach_leaves_the_container_running(rig: Machine, alpine: str) -> None:
    with rig.pty(["rp", "run", "--name", "det", "-it", alpine, "sh"]) as terminal:
        terminal.expect("# ")
        terminal.send("\x10\x11")
        assert terminal.wait() == 0
    assert "Up" in rig.run(["rp", "ps", "--filter", "name=det"]).stdout
    rig.run(["systemctl", "--user", "is-active", "rp-det.scope"])
    assert rig.run(["rp", "rm", "det"], check=False).returncode == 2
    rig.run(["rp", "rm", "-f", "det"])


def test_other_detach_keys(rig: Machine, alpine: str) -> None:
    argv = ["rp", "run", "--rm", "--name", "det2", "--detach-keys", "ctrl-a,x", "-it", alpine, "sh"]
    with rig.pty(argv) as terminal:
        terminal.expect("# ")
        # Half a sequence is typing: ctrl-a moves to the start of the line.
        terminal.send("ho ec\x01y\r")
        terminal.expect("yho")
        terminal.send("\x01x")
        assert terminal.wait() == 0
    rig.run(["rp", "rm", "-f", "det2"])


def test_p4_a_closed_window_leaves_the_container_running(rig: Machine, alpine: str) -> None:
    terminal = rig.pty(["rp", "run", "--rm", "--name", "hup", "-it", alpine, "sh"])
    terminal.expect("# ")
    terminal.close()
    assert "Up" in rig.run(["rp", "ps", "--filter", "name=hup"]).stdout
    rig.run(["rp", "rm", "-f", "hup"])


def test_a_command_without_end_of_line_is_shown_whole(rig: Machine, alpine: str) -> None:
    with rig.pty(["rp", "run", "--rm", "-t", alpine, "sh", "-c", "seq 1 20000; printf end"]) as t:
        t.expect("\r\n20000\r\nend$")
        assert t.wait() == 0


def test_piped_input_with_a_terminal_ends_the_session(rig: Machine, alpine: str) -> None:
    script = f"echo 'echo typed; exit 4' | rp run --rm -it {alpine} sh"
    with rig.pty(["sh", "-c", script]) as terminal:
        terminal.expect("typed")
        assert terminal.wait() == 4


def test_signals_to_rp_with_a_terminal(rig: Machine, alpine: str, leaves_nothing: None) -> None:
    with rig.pty(["rp", "run", "--rm", "--name", "tsig", "-t", alpine, "sleep", "600"]) as terminal:
        while "Up" not in rig.run(["rp", "ps", "--filter", "name=tsig"]).stdout:
            continue
        rig.run(["pkill", f"-{int(signal.SIGTERM)}", "-o", "-f", "rp run --rm --name tsig"])
        assert terminal.wait() == 143
