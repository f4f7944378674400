"""Secrets: kept by rp, seen by containers as files or variables, and nowhere else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

WORD = "correct-horse"
BOX = "secret-box"


@pytest.fixture
def kept(rig: Machine) -> Iterator[str]:
    """Return the name of a secret."""
    rig.run(["rp", "secret", "create", "--replace", "pass", "-"], input=WORD)
    yield "pass"
    rig.run(["rp", "rm", "-f", "-t", "0", BOX], check=False)
    rig.run(["rp", "secret", "rm", "--ignore", "pass"])


def test_a_file_that_every_user_of_the_container_reads(
    rig: Machine, alpine: str, kept: str, leaves_nothing: None
) -> None:
    script = f"cat /run/secrets/{kept}; echo; stat -c '%a %u %g' /run/secrets /run/secrets/{kept}"
    for extra in ([], ["--user", "1000"], ["--userns", "keep-id"], ["--read-only"]):
        run = ["rp", "run", "--rm", "--secret", kept, *extra, alpine, "sh", "-c", script]
        word, directory, file = rig.run(run).stdout.splitlines()
        assert (word, directory[:3], file) == (WORD, "755", "444 0 0")
    denied = rig.run(["rp", "run", "--rm", "--secret", kept, alpine, "sh", "-c",
                      f"echo x > /run/secrets/{kept}"], check=False)  # fmt: skip
    assert denied.returncode != 0
    assert "Read-only file system" in denied.stderr


def test_targets_owners_and_modes(rig: Machine, alpine: str, kept: str) -> None:
    first, second = f"{kept},target=/etc/deep/x,uid=5,gid=6,mode=0400", f"{kept},target=a/b"
    script = "stat -c '%a %u %g' /etc/deep/x; cat /etc/deep/x /run/secrets/a/b"
    run = ["rp", "run", "--rm", "--secret", first, "--secret", second, alpine, "sh", "-c", script]
    assert rig.run(run).stdout == f"400 5 6\n{WORD}{WORD}"


def test_a_variable_is_in_the_payload_and_its_sessions_alone(
    rig: Machine, alpine: str, kept: str
) -> None:
    rig.run(["rp", "run", "-d", "--name", BOX, "--secret", f"{kept},type=env,target=PW",
             "--secret", kept, alpine, "sleep", "1000"])  # fmt: skip
    assert rig.run(["rp", "exec", BOX, "sh", "-c", "echo $PW"]).stdout == f"{WORD}\n"
    assert WORD not in rig.run(["rp", "inspect", BOX]).stdout
    store = "~/.local/share/rootlesspy/containers/*/*.json"
    assert rig.run(["sh", "-c", f"grep -l {WORD} {store}"], check=False).stdout == ""
    assert WORD not in rig.run(["systemctl", "--user", "cat", f"rp-{BOX}.service"]).stdout
    told = json.loads(rig.run(["rp", "inspect", BOX]).stdout)[0]["Config"]["Secrets"]
    assert [each["Name"] for each in told] == [kept, kept]
    assert told[0]["ID"] == rig.run(["rp", "secret", "ls", "-q"]).stdout.strip()


def test_each_start_takes_it_as_it_is_then(rig: Machine, alpine: str, kept: str) -> None:
    rig.run(["rp", "run", "-d", "--name", BOX, "--secret", f"{kept},uid=1000", alpine,
             "sleep", "1000"])  # fmt: skip
    rig.run(["rp", "secret", "create", "--replace", kept, "-"], input="new")
    rig.run(["rp", "restart", "-t", "0", BOX])
    assert rig.run(["rp", "exec", BOX, "cat", f"/run/secrets/{kept}"]).stdout == "new"
    rig.run(["rp", "stop", "-t", "0", BOX])
    rig.run(["rp", "secret", "rm", kept])
    failed = rig.run(["rp", "start", BOX], check=False)
    assert failed.returncode == 125
    assert f"no secret with name or id '{kept}', which the container was made with" in failed.stderr
    assert f"hint: rp secret create {kept} FILE" in failed.stderr


def test_a_systemd_credential(rig: Machine, alpine: str) -> None:
    asked = ["rp", "run", "--rm", "--secret", "token,source=credential", alpine,
             "cat", "/run/secrets/token"]  # fmt: skip
    given = [
        "systemd-run",
        "--user",
        "--pipe",
        "--wait",
        "--quiet",
        "-p",
        f"SetCredential=token:{WORD}",
    ]
    assert rig.run([*given, *asked]).stdout == WORD
    failed = rig.run(asked, check=False)
    assert failed.returncode == 125
    assert "no such systemd credential" in failed.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("nosuch", "no secret with name or id 'nosuch'"),
        ("pass,mode=9", "the mode is octal"),
        ("pass,uid=4000000000", "uid 4000000000 is not mapped"),
        ("pass,target=../etc/passwd", "the target is a plain path"),
    ],
)
def test_bad_input_leaves_nothing(
    rig: Machine, alpine: str, kept: str, option: str, message: str, leaves_nothing: None
) -> None:
    failed = rig.run(["rp", "run", "--rm", "--secret", option, alpine, "true"], check=False)
    assert failed.returncode == 125
    assert message in failed.stderr
    assert rig.run(["rp", "ps", "-aq"]).stdout == ""


def test_the_commands_speak_as_podmans(rig: Machine) -> None:
    for program in ("podman", "rp"):
        made = rig.run([program, "secret", "create", "-l", "a=b", "talk", "-"], input="x").stdout
        assert len(made.strip()) == 25
        again = rig.run([program, "secret", "create", "talk", "-"], input="x", check=False)
        assert again.returncode == 125
        (told,) = json.loads(rig.run([program, "secret", "inspect", "talk"]).stdout)
        assert (told["ID"], told["Spec"]["Name"]) == (made.strip(), "talk")
        assert told["Spec"]["Labels"] == {"a": "b"}
        line = rig.run([program, "secret", "ls", "--noheading"]).stdout.split()
        assert line[:3] == [made.strip(), "talk", "file"]
        shown = rig.run([program, "secret", "inspect", "--showsecret", "talk"]).stdout
        assert json.loads(shown)[0]["SecretData"] == "x"
        assert rig.run([program, "secret", "rm", "talk"]).stdout == made
        gone = rig.run([program, "secret", "rm", "talk"], check=False)
        assert gone.returncode == 125
        assert rig.run([program, "secret", "exists", "talk"], check=False).returncode == 1
