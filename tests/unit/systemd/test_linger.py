"""The one warning that containers end with the session."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

import pytest

from rootlesspy.paths import Paths
from rootlesspy.systemd import linger

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    (tmp_path / "linger").mkdir()
    monkeypatch.setattr(linger, "DIRECTORY", f"{tmp_path}/linger")
    monkeypatch.setattr(linger, "_LOGIND", f"{tmp_path}")
    return Paths(data=f"{tmp_path}/data", runtime=None, config=f"{tmp_path}/config")


def turn_on() -> None:
    name = pwd.getpwuid(os.getuid()).pw_name
    with open(f"{linger.DIRECTORY}/{name}", "w", encoding="ascii"):
        pass


def test_told_once(paths: Paths) -> None:
    assert "loginctl enable-linger" in (linger.warning(paths) or "")
    assert linger.warning(paths) is None


def test_one_who_lingers_is_not_told(paths: Paths) -> None:
    turn_on()
    assert linger.is_on()
    assert linger.warning(paths) is None


def test_told_again_after_linger_was_on(paths: Paths) -> None:
    assert linger.warning(paths)
    turn_on()
    assert linger.warning(paths) is None
    for name in os.listdir(linger.DIRECTORY):
        os.unlink(f"{linger.DIRECTORY}/{name}")
    assert linger.warning(paths)


def test_without_logind_nobody_ends_the_manager(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linger, "_LOGIND", f"{paths.data}/none")
    assert linger.warning(paths) is None


def test_no_place_to_remember_is_no_failure(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert linger.warning(paths) is None
