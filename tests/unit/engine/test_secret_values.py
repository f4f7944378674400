"""--secret, and what is kept of secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy import paths
from rootlesspy.engine import secret
from rootlesspy.engine.inputs import secret_values
from rootlesspy.engine.inputs.request import SecretUse
from rootlesspy.errors import Conflict, NotFound, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def places(tmp_path: Path) -> paths.Paths:
    return paths.Paths(data=str(tmp_path / "data"), runtime=None, config=str(tmp_path))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("db", SecretUse("db", "mount", "/run/secrets/db")),
        ("db,target=a/b", SecretUse("db", "mount", "/run/secrets/a/b")),
        ("db,target=/etc/x,uid=5,gid=6,mode=0400",
         SecretUse("db", "mount", "/etc/x", 5, 6, 0o400)),
        ("db,type=env", SecretUse("db", "env", "db")),
        ("db,type=env,target=PW", SecretUse("db", "env", "PW")),
        ("c,source=credential", SecretUse("c", "mount", "/run/secrets/c", source="credential")),
    ],
)  # fmt: skip
def test_what_is_understood(text: str, wanted: SecretUse) -> None:
    assert secret_values.parse(text, "--secret") == wanted


@pytest.mark.parametrize(
    "text",
    ["", ",type=env", "a=b", "db,type=x", "db,uid=-1", "db,uid=4294967295", "db,mode=8",
     "db,mode=1777", "db,target=../x", "db,target=/a//b", "db,target=/a/./b", "db,target=",
     "db,nonsense=1", "db,uid=1,uid=2", "db,type=env,uid=1", "db,source=moon", "db,target=a\nb"],
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        secret_values.parse(text, "--secret")


@given(st.text())
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        use = secret_values.parse(text, "--secret")
    except UsageError:
        return
    assert secret_values.parse(secret_values.text_of(use), "--secret") == use


def test_a_secret_is_kept_found_replaced_and_removed(places: paths.Paths) -> None:
    made = secret.create(places, "db", b"\0pass\xff", {"a": "b"})
    assert secret.find(places, "db") == secret.find(places, made.id[:6]) == made
    assert secret.data(places, "db") == b"\0pass\xff"
    with pytest.raises(Conflict):
        secret.create(places, "db", b"x", {})
    assert secret.create(places, "db", b"x", {}, replace=True).id != made.id
    assert secret.data(places, "db") == b"x"
    secret.remove(places, "db")
    assert list(secret.everything(places)) == []
    with pytest.raises(NotFound):
        secret.find(places, "db")
    with pytest.raises(NotFound):
        secret.remove(places, "db")


@pytest.mark.parametrize("name", ["", ".x", "a/b", "a,b", "a=b", "a\nb", "x" * 254])
def test_impossible_names(places: paths.Paths, name: str) -> None:
    with pytest.raises(UsageError):
        secret.create(places, name, b"x", {})


@pytest.mark.parametrize("size", [0, secret.LIMIT_BYTES + 1])
def test_impossible_sizes(places: paths.Paths, size: int) -> None:
    with pytest.raises(UsageError):
        secret.create(places, "db", b"x" * size, {})


def test_a_damaged_one_leaves_the_others(places: paths.Paths, tmp_path: Path) -> None:
    secret.create(places, "good", b"x", {})
    (tmp_path / "data/secrets/bad.json").write_text('{"version": 1, "name": "bad"}')
    assert [each.name for each in secret.everything(places)] == ["good"]
    with pytest.raises(Exception, match=r"secret bad: .* cannot be understood"):
        secret.data(places, "bad")


def test_what_a_killed_maker_left_goes_with_the_next_command(
    places: paths.Paths, tmp_path: Path
) -> None:
    secret.create(places, "kept.tmp", b"x", {})
    half = tmp_path / "data/secrets/db.json.4711.tmp"
    half.write_text("the data")
    secret.create(places, "db", b"x", {})
    assert not half.exists()
    half.write_text("the data")
    secret.remove(places, "db")
    assert not half.exists()
    half.write_text("the data")
    assert secret.names(places) == ["kept.tmp"]
    assert not half.exists()


@pytest.mark.parametrize("content", ["", "{}", '{"version": 1}', '{"version": 99}', "\0", "[" * 9])
def test_a_damaged_secret_can_be_removed(places: paths.Paths, tmp_path: Path, content: str) -> None:
    secret.create(places, "good", b"x", {})
    (tmp_path / "data/secrets/bad.json").write_text(content)
    assert list(secret.names(places)) == ["bad", "good"]
    assert secret.remove(places, "bad") == "bad"
    assert list(secret.names(places)) == ["good"]
    with pytest.raises(NotFound):
        secret.remove(places, "bad")
