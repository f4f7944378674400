"""Taking over what a service manager hands to this process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rootlesspy.engine.supervision import sockets
from rootlesspy.engine.supervision.sockets import Listening

_PROGRAM = """
import os, sys
{before}
from rootlesspy.engine.supervision import sockets
from rootlesspy.errors import Error
environment = dict(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[1], LISTEN_FDNAMES="a:b", X="1")
try:
    found = sockets.take(environment)
except Error as error:
    sys.exit(error.message)
print(found.number, found.names, found.end, environment)
print([os.get_inheritable(fd) for fd in range(3, found.end)])
found.close()
print([fd for fd in range(3, found.end) if os.path.exists(f"/proc/self/fd/{{fd}}")])
"""


def run(count: str, before: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(before=before), count],
        capture_output=True,
        text=True,
        check=False,
    )


def test_descriptors_stay_where_they_are() -> None:
    done = run("2", "os.dup2(0, 3); os.dup2(0, 4)")
    assert done.stdout.splitlines() == ["2 a:b 5 {'X': '1'}", "[False, False]", "[]"], done.stderr


def test_one_that_is_not_open_is_an_error() -> None:
    assert "descriptor 4 is not open" in run("2", "os.dup2(0, 3); os.closerange(4, 9)").stderr


def test_a_directory_is_refused() -> None:
    before = "fd = os.open('/', os.O_RDONLY); os.dup2(fd, 3)"
    assert "descriptor 3 of LISTEN_FDS is a directory" in run("1", before).stderr


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "x", "LISTEN_PID": "self"},
        {"LISTEN_FDS": "-1", "LISTEN_PID": "self"},
        {"LISTEN_FDS": "", "LISTEN_PID": "self"},
        {"LISTEN_FDS": "0", "LISTEN_PID": "self"},
    ],
)
def test_what_is_not_for_us_is_dropped(environment: dict[str, str]) -> None:
    given = {k: str(os.getpid()) if v == "self" else v for k, v in environment.items()}
    found = sockets.take(given)
    assert (found.number, given) == (0, {})
    assert found.environment() == []


def test_process_1_is_told() -> None:
    assert Listening(2, "http:admin").environment() == [
        "LISTEN_FDS=2",
        "LISTEN_PID=1",
        "LISTEN_FDNAMES=http:admin",
    ]
    assert Listening(1).environment() == ["LISTEN_FDS=1", "LISTEN_PID=1"]
