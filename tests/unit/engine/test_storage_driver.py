"""Choosing a storage driver on kernels that refuse one thing or the other."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.engine import storage_driver
from rootlesspy.linux import userns
from rootlesspy.linux.userns import IdMapping, IdMaps
from rootlesspy.paths import Paths
from rootlesspy.report import Reporter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAPS = IdMaps((IdMapping(0, 1000, 1),), (IdMapping(0, 1000, 1),))


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.delenv("RP_STORAGE_DRIVER", raising=False)
    monkeypatch.setattr(storage_driver, "fuse_overlayfs", lambda: None)
    data = os.fspath(tmp_path / "data")
    os.mkdir(data, 0o700)
    return Paths(data=data, runtime=None, config=data)


def answer(monkeypatch: pytest.MonkeyPatch, *answers: OSError | None) -> None:
    """Let user namespaces be made, or refused, one after the other."""
    left = list(answers)

    def call(_maps: IdMaps, _function: Callable[[], object]) -> None:
        error = left.pop(0)
        if error is not None:
            raise error

    monkeypatch.setattr(userns, "call_in_userns", call)


def refusal(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def test_forbidden_user_namespaces_say_nothing_about_overlay(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, refusal(errno.ENOSPC), None, refusal(errno.EINVAL))
    assert storage_driver.choose(paths, MAPS, Reporter()) == "overlay"
    assert capsys.readouterr().err == ""
    # Nothing was remembered: once they are allowed, overlay is tried.
    assert storage_driver.choose(paths, MAPS, Reporter()) == "copy"


@pytest.mark.parametrize(
    ("answers", "driver"),
    [((None, None), "overlay"), ((None, refusal(errno.EINVAL)), "copy")],
    ids=["allowed", "refused"],
)
def test_the_kernel_is_asked_once(
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: tuple[OSError | None, ...],
    driver: str,
) -> None:
    answer(monkeypatch, *answers)
    assert storage_driver.choose(paths, MAPS, Reporter()) == driver
    assert storage_driver.choose(paths, MAPS, Reporter()) == driver
    assert ("Invalid argument" in capsys.readouterr().err) == (driver == "copy")
