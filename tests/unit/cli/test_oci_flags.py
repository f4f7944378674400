"""The flags of rp-oci as runc's callers write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.cli import oci, oci_cold, oci_flags
from rootlesspy.errors import UsageError

EXEC = oci_flags.COMMANDS["exec"].flags


@pytest.mark.parametrize(
    "words",
    [
        ["--root", "/r", "--log-format=json", "--systemd-cgroup", "create", "--bundle", "b", "id"],
        [
            "-root=/r",
            "-log-format",
            "json",
            "--systemd-cgroup=true",
            "create",
            "--bundle",
            "b",
            "id",
        ],
    ],
)
def test_global_flags_end_at_the_command(words: list[str]) -> None:
    parsed = oci_flags.parse(words, oci_flags.GLOBAL)
    assert parsed.text("root") == "/r"
    assert parsed.text("log-format") == "json"
    assert parsed.on("systemd-cgroup")
    assert parsed.operands == ["create", "--bundle", "b", "id"]


def test_flags_of_a_command_end_at_its_operand() -> None:
    parsed = oci_flags.parse(["-td", "-e", "A=b", "--env", "C=--d", "id", "-t", "--", "x"], EXEC)
    assert parsed.on("tty")
    assert parsed.on("detach")
    assert parsed.lists["env"] == ["A=b", "C=--d"]
    assert parsed.operands == ["id", "-t", "--", "x"]


@pytest.mark.parametrize("words", [["--frob"], ["-x"], ["--pid-file"], ["-te"]])
def test_unknown_and_incomplete_flags(words: list[str]) -> None:
    with pytest.raises(UsageError):
        oci_flags.parse(words, EXEC)


@pytest.mark.parametrize("word", ["1_0", "x", "", "0x1", "--1"])
def test_numbers_are_strict(word: str) -> None:
    with pytest.raises(UsageError):
        oci_flags.parse([f"--preserve-fds={word}"], EXEC).number("preserve-fds")


def test_booleans_are_strict() -> None:
    assert not oci_flags.parse(["--tty=false"], EXEC).on("tty")
    with pytest.raises(UsageError):
        oci_flags.parse(["--tty=maybe"], EXEC).on("tty")


@given(st.lists(st.text(max_size=6), max_size=6))
def test_only_usage_errors_come_out(words: list[str]) -> None:
    try:
        oci_flags.parse(words, EXEC)
    except UsageError:
        return


def test_every_command_is_carried_out() -> None:
    assert set(oci._HOT) | set(oci_cold.COMMANDS) == set(oci_flags.COMMANDS)


def test_errors_end_with_one_and_exec_with_255(
    tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["--root", f"{tmp_path}/none"]
    assert oci.main([*root, "state", "nobody"], {}) == 1
    assert oci.main([*root, "exec", "nobody", "true"], {}) == 255
    assert oci.main([*root, "state", "../x"], {}) == 1
    assert oci.main([*root, "frob"], {}) == 1
    assert oci.main([*root, "state"], {}) == 1
    assert "container does not exist" in capsys.readouterr().err
