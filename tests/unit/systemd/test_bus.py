"""The parts of the bus binding that need no bus."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.errors import Unsupported
from rootlesspy.systemd import bus, diagnosis, sdbus

if TYPE_CHECKING:
    from pathlib import Path

# What the hot path may not pay for (CONTRIBUTING.md): each of these costs milliseconds.
# typing, which NamedTuple needs, brings re, enum and contextlib of its own before Python 3.13.
HEAVY = {"dataclasses", "enum", "re", "subprocess", "pathlib", "logging", "contextlib", "inspect"}


@pytest.mark.parametrize(
    ("signature", "parts"),
    [
        ("", []),
        ("ssa(sv)a(sa(sv))", ["s", "s", "a(sv)", "a(sa(sv))"]),
        ("aaya{sv}u", ["aay", "a{sv}", "u"]),
        ("(ii)(s(as))", ["(ii)", "(s(as))"]),
    ],
)
def test_signature_is_split_into_complete_types(signature: str, parts: list[str]) -> None:
    assert sdbus.split(signature) == parts


@pytest.mark.parametrize(
    ("unit", "path"),
    [
        ("rp-x.scope", "rp_2dx_2escope"),
        ("9.scope", "_39_2escope"),
        ("a@b", "a_40b"),
        ("é", "_c3_a9"),
        ("", "_"),
    ],
)
def test_unit_path_is_escaped(unit: str, path: str) -> None:
    assert sdbus.unit_path(unit) == f"/org/freedesktop/systemd1/unit/{path}"


@given(st.text(max_size=20))
def test_unit_path_is_always_an_object_path(unit: str) -> None:
    name = sdbus.unit_path(unit).rpartition("/")[2]
    assert name
    assert all(
        character.isascii() and (character.isalnum() or character == "_") for character in name
    )


def test_hot_modules_import_nothing_heavy() -> None:
    program = (
        "import sys, typing; before = set(sys.modules); import rootlesspy.systemd.scope, "
        "rootlesspy.systemd.properties, rootlesspy.engine.limits; "
        "print(*(set(sys.modules) - before))"
    )
    found = subprocess.run(
        [sys.executable, "-S", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": os.getcwd()},
    ).stdout.split()
    assert "rootlesspy.systemd.bus" in found
    assert HEAVY & set(found) == set()


@pytest.fixture
def booted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Pretend that systemd runs and that tmp_path is a user's runtime directory."""
    monkeypatch.setattr(diagnosis, "_BOOTED", os.fspath(tmp_path))
    return tmp_path


def test_machine_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_BOOTED", "/nonexistent")
    assert "systemd is not running" in diagnosis.explain("/run/user/1", errno.ENOENT).message


def test_each_missing_piece_has_its_own_line(booted: Path) -> None:
    runtime = os.fspath(booted / "run")
    seen = [diagnosis.explain(None, errno.ENOENT), diagnosis.explain(runtime, errno.ENOENT)]
    (booted / "run" / "systemd").mkdir(parents=True)
    seen.append(diagnosis.explain(runtime, errno.ENOENT))
    (booted / "run" / "systemd" / "private").touch()
    seen.append(diagnosis.explain(runtime, errno.ENOENT))
    (booted / "run" / "bus").touch()
    seen.append(diagnosis.explain(runtime, errno.ECONNREFUSED))
    seen.append(diagnosis.explain(runtime, errno.ETIMEDOUT, timeout_s=4))
    seen.append(diagnosis.explain(runtime, errno.EACCES))
    seen.append(diagnosis.explain(runtime, errno.EPROTO))
    assert len({each.message for each in seen}) == len(seen)
    assert all(each.hint and each.exit_code == 125 for each in seen)
    assert all("\n" not in each.message + str(each.hint) for each in seen)


def test_connecting_without_a_runtime_directory_is_diagnosed(booted: Path) -> None:
    with pytest.raises(Unsupported, match="does not exist"):
        bus.connect(os.fspath(booted / "absent"))


def test_socket_paths_are_escaped_in_the_address() -> None:
    library = sdbus.load()
    handle = sdbus.Handle()
    sdbus.check(library.sd_bus_new(ctypes.byref(handle)))
    connection = bus.Bus(library, handle, private=False)
    assert connection.start("/nonexistent/a b,c;d=é/bus", 1) == errno.ENOENT
    connection.close()
    connection.close()


@pytest.mark.parametrize(
    ("signature", "value"),
    [("u", -1), ("u", 2**32), ("y", 256), ("s", 5), ("s", "a\0b"), ("ay", "text"), ("t", "5")],
)
def test_misfits_are_refused_before_anything_is_written(signature: str, value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        sdbus.append(sdbus.load(), sdbus.Handle(), signature, value)
