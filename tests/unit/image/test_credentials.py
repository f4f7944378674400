"""Storing and finding passwords: files, helper programs, what strangers may write into them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.errors import RegistryError
from rootlesspy.image import credentials
from rootlesspy.image.auth import Credentials

if TYPE_CHECKING:
    from pathlib import Path

ALICE = Credentials("alice", "pass:word")

HELPER = """#!/bin/sh
store="{directory}/secret"
echo "$1 $(env | grep -c ^HOSTSECRET)" >> "{directory}/calls"
case "$1" in
get) read -r server; test -f "$store" && cat "$store" ||
  { echo "credentials not found in native keychain"; exit 1; };;
store) cat > "$store";;
erase) rm "$store";;
esac
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": f"{tmp_path}/run", "PATH": os.environ["PATH"]}


def find(environment: dict[str, str], registry: str = "r.example") -> Credentials | None:
    found, _ = credentials.find(registry, "a/b", environment, f"{environment['HOME']}/.config")
    return found


def test_what_is_stored_is_found_and_forgotten(environment: dict[str, str]) -> None:
    path = credentials.files(environment, f"{environment['HOME']}/.config")[0]
    assert path == f"{environment['XDG_RUNTIME_DIR']}/containers/auth.json"
    credentials.store(path, "r.example", ALICE, environment)
    credentials.store(path, "other.example", Credentials("bob", "x"), environment)
    assert find(environment) == ALICE
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert credentials.forget(path, "r.example", environment)
    assert find(environment) is None
    assert not credentials.forget(path, "r.example", environment)
    assert find(environment, "other.example") == Credentials("bob", "x")
    assert credentials.forget(path, None, environment)
    assert find(environment, "other.example") is None


def test_what_else_a_file_holds_is_kept(environment: dict[str, str]) -> None:
    path = f"{environment['HOME']}/auth.json"
    with open(path, "w", encoding="ascii") as file:
        json.dump({"auths": {"x": {"auth": "YTpi"}}, "psFormat": "table"}, file)
    credentials.store(path, "r.example", ALICE, environment)
    with open(path, encoding="ascii") as file:
        document = json.load(file)
    assert document["psFormat"] == "table"
    assert set(document["auths"]) == {"x", "r.example"}


def test_a_link_to_the_file_stays_one(environment: dict[str, str]) -> None:
    real, link = f"{environment['HOME']}/real.json", f"{environment['HOME']}/link.json"
    os.symlink(real, link)
    credentials.store(link, "r.example", ALICE, environment)
    assert os.path.islink(link)
    assert os.path.exists(real)


@pytest.fixture
def helper(tmp_path: Path, environment: dict[str, str]) -> Path:
    program = tmp_path / "docker-credential-test"
    program.write_text(HELPER.replace("{directory}", str(tmp_path)))
    program.chmod(0o755)
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    config = tmp_path / ".docker/config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"credHelpers": {"r.example": "test"}}))
    return config


def test_a_helper_keeps_the_password(
    tmp_path: Path, environment: dict[str, str], helper: Path
) -> None:
    assert find(environment) is None
    credentials.store(str(helper), "r.example", ALICE, environment)
    assert find(environment) == ALICE
    assert find(environment, "other.example") is None
    assert "pass" not in helper.read_text()
    assert credentials.forget(str(helper), "r.example", environment)
    assert find(environment) is None
    # It is given the environment that was passed in and no other.
    assert {line.split()[1] for line in (tmp_path / "calls").read_text().splitlines()} == {"0"}


@pytest.mark.parametrize("name", ["../evil", "a/b", "x y", ""])
@pytest.mark.row("credential helper", "a helper is a plain name; paths are refused")
def test_G_a_file_cannot_name_any_program(environment: dict[str, str], name: str) -> None:
    assert credentials.helper_of({"credsStore": name}, "r.example") is None


@pytest.mark.parametrize(
    ("script", "words"),
    [
        pytest.param("exit 3", "failed", id="failure"),
        pytest.param("echo junk", "gave no credentials", id="no JSON"),
        pytest.param(
            """echo '{"Username":"<token>","Secret":"x"}'""", "identity token", id="token"
        ),
    ],
)
@pytest.mark.row("credential helper", "one line, 125")
def test_helpers_that_fail_are_told(
    tmp_path: Path, environment: dict[str, str], helper: Path, script: str, words: str
) -> None:
    (tmp_path / "docker-credential-test").write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(RegistryError, match=words):
        find(environment)


@pytest.mark.row("credential helper", "one line, 125")
def test_a_helper_that_is_missing_is_told(environment: dict[str, str], helper: Path) -> None:
    helper.write_text(json.dumps({"credsStore": "nosuchhelper"}))
    with pytest.raises(RegistryError, match="cannot run docker-credential-nosuchhelper"):
        find(environment)
