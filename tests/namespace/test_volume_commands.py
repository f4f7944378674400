"""`rp volume` from the front door: what is there, who uses it, what goes and what stays."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from namespace.living import LIMIT_S, rp, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

pytestmark = pytest.mark.usefixtures("alpine")


@pytest.fixture
def no_volumes(rig: Machine) -> Iterator[None]:
    """Begin and end without volumes."""
    rp(rig, "volume", "rm", "--all", "--force")
    yield
    rp(rig, "volume", "rm", "--all", "--force")


@pytest.fixture(scope="module")
def there(rig: Machine) -> Iterator[None]:
    """Hold a volume called there."""
    volume(rig, "create", "--ignore", "there")
    yield
    rp(rig, "volume", "rm", "there")


def volume(rig: Machine, *words: str) -> str:
    """Run rp volume, which has to succeed, and return what it printed."""
    return str(rig.run(["rp", "volume", *words], timeout=LIMIT_S).stdout)


def names(rig: Machine, *options: str) -> list[str]:
    return volume(rig, "ls", "-q", *options).split()


def described(rig: Machine, name: str) -> dict[str, Any]:
    return dict(json.loads(volume(rig, "inspect", name))[0])


def run(rig: Machine, *words: str) -> str:
    """Run a container to its end, and return its output."""
    argv = ["rp", "run", "--network=none", *words]
    return str(rig.run(argv, timeout=LIMIT_S).stdout)


def test_the_life_of_a_volume(rig: Machine, no_volumes: None, leaves_nothing: None) -> None:
    assert volume(rig, "create", "-l", "kind=test", "--label", "bare", "data") == "data\n"
    run(rig, "--rm", "-v", "data:/data", "alpine", "sh", "-c", "echo kept > /data/file")
    assert run(rig, "--rm", "-v", "data:/data", "alpine", "cat", "/data/file") == "kept\n"
    found = described(rig, "data")
    assert (found["Labels"], found["MountCount"]) == ({"kind": "test", "bare": ""}, 0)
    assert (found["NeedsCopyUp"], found["Anonymous"]) == (False, False)
    assert rig.run(["cat", f"{found['Mountpoint']}/file"]).stdout == "kept\n"
    assert volume(rig, "ls").split("\n")[1].split() == ["local", "data"]
    assert volume(rig, "ls", "--format", "{{.Name}} {{.Labels.kind}}") == "data test\n"
    assert volume(rig, "rm", "data") == "data\n"
    assert rp(rig, "volume", "exists", "data").returncode == 1


def test_the_same_keys_as_podman_s(rig: Machine) -> None:
    volume(rig, "create", "one")
    theirs = rig.run(["sh", "-c", "podman volume create one >&2; podman volume inspect one"])
    rig.run(["podman", "volume", "rm", "one"])
    # Omitted by podman where it is false; the number of its lock is no business of ours.
    wanted = {*json.loads(theirs.stdout)[0], "Anonymous"} - {"LockNumber"}
    assert set(described(rig, "one")) == wanted
    volume(rig, "rm", "one")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["create", "there"], 125, "volume there exists already"),
        (["create", "--ignore", "there"], 0, ""),
        (["create", "../x"], 125, "is not made of letters"),
        (["create", "--driver=nfs", "x"], 125, "only local volumes"),
        (["create", "-o", "type=tmpfs", "x"], 125, "need root"),
        (["create", "--label", "=x", "x"], 125, "expected KEY=VALUE"),
        (["inspect", "nosuch"], 125, "no volume with name 'nosuch'"),
        (["exists", "there"], 0, ""),
        (["exists", "ther"], 1, ""),
        (["rm", "nosuch"], 1, "no volume with name 'nosuch'"),
        (["rm", "-f", "nosuch"], 0, ""),
        (["rm"], 125, "name the volumes, or say --all"),
        (["rm", "--all", "there"], 125, "name the volumes, or say --all"),
        (["ls", "--filter", "x=y"], 125, "expected KEY=VALUE"),
        (["prune", "--filter", "since=nosuch"], 125, "no such volume"),
        (["ls", "-q", "--format", "{{.Name}}"], 125, "exclude each other"),
    ],
)
def test_exit_codes(rig: Machine, there: None, words: list[str], code: int, said: str) -> None:
    done = rp(rig, "volume", *words)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert bool(done.stderr) == bool(said)


def test_what_is_in_use_stays(rig: Machine, no_volumes: None, leaves_nothing: None) -> None:
    with running(rig, "user", "sleep", "600", options=("-v", "used:/data", "-v", "/own")):
        (other,) = set(names(rig)) - {"used"}
        assert described(rig, "used")["MountCount"] == 1
        assert described(rig, other)["Anonymous"] is True
        done = rp(rig, "volume", "rm", "used")
        assert (done.returncode, "in use by container user" in done.stderr) == (2, True)
        volume(rig, "create", "free")
        assert names(rig, "--filter", "dangling=true") == ["free"]
        assert names(rig, "--filter", "anonymous=true") == [other]
        assert volume(rig, "prune", "--force") == "free\n"
        assert set(names(rig)) == {"used", other}
        assert volume(rig, "rm", "--force", "used") == "used\n"
        assert rp(rig, "container", "exists", "user").returncode == 1


def test_filters(rig: Machine, no_volumes: None) -> None:
    volume(rig, "create", "--label", "a=1", "first")
    volume(rig, "create", "--label", "a=2", "--label", "b", "second")
    volume(rig, "create", "third")
    for options, wanted in (
        (("name=^(first|third)$",), ["first", "third"]),
        (("label=a",), ["first", "second"]),
        (("label=a=2",), ["second"]),
        (("label=a", "label=b"), ["second"]),
        (("label!=a",), ["third"]),
        (("since=first",), ["second", "third"]),
        (("until=1h",), []),
        (("driver=local", "scope=local", "dangling=1"), ["first", "second", "third"]),
        (("driver=other",), []),
    ):
        arguments = [word for each in options for word in ("--filter", each)]
        assert names(rig, *arguments) == wanted, options
    assert volume(rig, "prune", "-f", "--filter", "label=a").split() == ["first", "second"]
    assert names(rig) == ["third"]
    said = rig.run(["sh", "-c", "echo n | rp volume prune"]).stdout
    assert "WARNING! This will remove all volumes" in said
    assert names(rig) == ["third"]


def test_anonymous_ones_go_with_rm_and_volumes_and_only_then(
    rig: Machine, no_volumes: None, leaves_nothing: None
) -> None:
    run(rig, "--rm", "-v", "/data", "alpine", "true")
    assert names(rig) == []
    run(rig, "--name=two", "-v", "/data", "-v", "named:/named", "alpine", "true")
    assert len(names(rig)) == 2
    rig.run(["rp", "rm", "--volumes", "two"])
    assert names(rig) == ["named"]
    run(rig, "--name=three", "-v", "/data", "alpine", "true")
    rig.run(["rp", "rm", "three"])
    assert len(names(rig)) == 2
    run(rig, "--name=four", "-v", "/data", "alpine", "true")
    rig.run(["rp", "container", "prune", "--force"])
    assert len(names(rig)) == 3
    # Volumes go only where that was asked for.
    rig.run(["rp", "system", "prune", "--force"])
    assert len(names(rig)) == 3
    rig.run(["rp", "system", "prune", "--force", "--volumes"])
    assert names(rig) == []
