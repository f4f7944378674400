"""What the hot commands load, by name: an import is a decision, and each costs milliseconds.

Clocks are for bench/. A module that is missing below is not forbidden for ever: it is added
together with the measurement that says what it costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rig.machine import Machine

# `python3 -I` loads these by itself, or the modules below them do.
STANDARD = frozenset(
    """
    __future__ _abc _codecs _collections _collections_abc _ctypes _frozen_importlib_external
    _functools _io _json _operator _sha2 _sha256 _signal _sitebuiltins _socket _stat _struct
    _typing abc apport_python_hook codecs ctypes ctypes._endian encodings encodings.aliases
    encodings.ascii encodings.utf_8 errno fcntl gc genericpath io itertools marshal math os posix
    posixpath pwd resource select site sitecustomize stat struct termios time tty types warnings
    zipimport
""".split()  # noqa: SIM905 readable, and three times shorter
)

COMMANDS = [
    pytest.param(["run", "--rm", "alpine", "true"], id="run"),
    pytest.param(["run", "--rm", "--network", "none", "alpine", "true"], id="run-no-network"),
    pytest.param(["run", "--rm", "--memory", "1g", "--ignore-missing-limits", "-v", "/etc:/x:ro",
                  "alpine", "true"], id="run-options"),
    pytest.param(["ps", "-a"], id="ps"),
]  # fmt: skip


def loaded(rig: Machine, arguments: Sequence[str]) -> set[str]:
    """Return every module that the command and the processes it forks import."""
    program = rig.run(["sh", "-c", "command -v rp"]).stdout.strip()
    argv = ["python3", "-I", "-X", "importtime", program, *arguments]
    lines = rig.run(argv).stderr.splitlines()
    names = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    return names - {"imported package"}


@pytest.mark.parametrize("arguments", COMMANDS)
def test_hot_command_loads_no_more_than_it_needs(
    rig: Machine, alpine: str, arguments: list[str]
) -> None:
    assert alpine
    names = loaded(rig, arguments)
    foreign = {name for name in names if name.partition(".")[0] != "rootlesspy"}
    assert foreign - STANDARD == set()


@pytest.mark.parametrize("arguments", COMMANDS)
def test_hot_command_loads_no_cold_module_of_ours(
    rig: Machine, alpine: str, arguments: list[str]
) -> None:
    assert alpine
    cold = {"cli.app", "cli.completion", "cli.progress", "image.pull", "image.registry", "settings"}
    assert loaded(rig, arguments) & {f"rootlesspy.{name}" for name in cold} == set()


def test_the_list_notices_an_import(rig: Machine) -> None:
    assert "typer" in loaded(rig, ["--help"])
