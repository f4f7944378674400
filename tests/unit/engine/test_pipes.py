"""Pipes in the place of a process's own streams, for as long as a child is born."""

from __future__ import annotations

import subprocess
import sys

_LENT = """\
import os
from rootlesspy.engine.supervision.pipes import Pipes
pipes = Pipes(interactive={interactive})
pipes.lend()
os.write(1, b"lent")
given = os.read(0, 9) if not {interactive} else b""
pipes.take_back()
(out,) = (fd for fd, name in pipes.sources.items() if name == "stdout")
os.write(1, os.read(out, 9) + given + b" back")
"""


def _run(*, interactive: bool) -> bytes:
    code = _LENT.format(interactive=interactive)
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"mine", capture_output=True, check=True
    )
    assert done.stderr == b""
    return done.stdout


def test_what_is_written_while_they_are_lent_is_in_the_pipe() -> None:
    # Nothing is read of the process's own stdin.
    assert _run(interactive=False) == b"lent back"


def test_an_interactive_payload_has_a_pipe_to_read_from() -> None:
    assert _run(interactive=True) == b"lent back"
