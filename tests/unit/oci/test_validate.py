"""oci.validate: what is refused, where the message points, and that it stays cheap."""

from __future__ import annotations

import contextlib
import copy
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.oci.checks import MAX_ID, SpecError
from rootlesspy.oci.validate import sysctl_namespace, validate

if TYPE_CHECKING:
    from collections.abc import Iterator

FULL = json.loads((Path(__file__).parents[2] / "data/spec/every-field.json").read_text())
MINIMAL = {
    "ociVersion": "1.2.1",
    "process": {"args": ["/bin/true"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
    "root": {"path": "rootfs"},
}
# Refused by the runtime whatever they hold, so nobody looks inside.
UNCHECKED = ("linux", "intelRdt")
Place = tuple[Any, ...]


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the place of every value in a document, as keys and indexes."""
    if place:
        yield place
    if place == UNCHECKED:
        return
    if isinstance(value, (dict, list)):
        for key, element in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(element, (*place, key))


def written(place: Place) -> str:
    return "".join(f"[{key}]" if type(key) is int else f".{key}" for key in place)[1:]


def changed(document: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(document)
    target: Any = document
    for key in place[:-1]:
        target = target.setdefault(key, {}) if isinstance(target, dict) else target[key]
    target[place[-1]] = value
    return document


def error_of(document: Any) -> str:
    with pytest.raises(SpecError) as caught:
        validate(document)
    return str(caught.value)


def test_every_field_set_is_valid() -> None:
    validate(FULL)


def test_minimal_is_valid() -> None:
    validate(MINIMAL)


@pytest.mark.parametrize("place", [pytest.param(p, id=written(p)) for p in places(FULL)])
def test_wrong_type_is_refused_where_it_is(place: Place) -> None:
    """No field is left out: a value of no JSON type is found wherever it stands."""
    assert error_of(changed(FULL, place, object())).startswith(f"{written(place)}: must be ")


@pytest.mark.parametrize("wrong", [None, 1.0, True], ids=repr)
def test_null_float_and_boolean_are_no_integers(wrong: object) -> None:
    message = "process.user.uid: must be an integer"
    assert error_of(changed(MINIMAL, ("process", "user", "uid"), wrong)) == message


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("ociVersion",), "1.2", "ociVersion: must have the form 1.2.3"),
        (("ociVersion",), "2.0.0", "ociVersion: version 2.0.0 is not understood, only 1.x"),
        (("ociVersion",), "1.0.2-dev", None),
        (("process", "args"), [], "process.args: must not be empty"),
        (("process", "args"), ["a", 1], "process.args[1]: must be a string"),
        (("process", "args"), ["a\0"], "process.args[0]: must not contain a NUL"),
        (("process", "args"), ["sh", ""], None),
        (("process", "cwd"), "work", "process.cwd: must be an absolute path"),
        (("process", "cwd"), "", "process.cwd: must be an absolute path"),
        (
            ("process", "env"),
            ["A=1", "HOSTSECRET"],
            "process.env[1]: must have the form NAME=VALUE",
        ),
        (("process", "env"), ["=x"], "process.env[0]: must have the form NAME=VALUE"),
        (("process", "env"), [""], "process.env[0]: must have the form NAME=VALUE"),
        (("process", "env"), ["A=B\0C"], "process.env[0]: must not contain a NUL"),
        (("process", "env"), ["A="], None),
        (("process", "env"), ["A=B=C\n"], None),
        (("process", "user", "uid"), -1, f"process.user.uid: must be from 0 to {MAX_ID}"),
        (("process", "user", "gid"), 2**32 - 1, f"process.user.gid: must be from 0 to {MAX_ID}"),
        (("process", "user", "uid"), MAX_ID, None),
        (("process", "user", "umask"), 0o1000, "process.user.umask: must be from 0 to 511"),
        (
            ("process", "user", "additionalGids"),
            [1, 2**32],
            f"process.user.additionalGids[1]: must be from 0 to {MAX_ID}",
        ),
        (
            ("process", "capabilities"),
            {"bounding": ["CHOWN"]},
            "process.capabilities.bounding[0]: must be a capability such as CAP_CHOWN",
        ),
        (
            ("process", "capabilities"),
            {"bounding": ["CAP_chown"]},
            "process.capabilities.bounding[0]: must be a capability such as CAP_CHOWN",
        ),
        (
            ("process", "capabilities"),
            {"effective": ["CAP_KILL"], "permitted": ["CAP_CHOWN"]},
            "process.capabilities.effective: holds CAP_KILL, which is not permitted",
        ),
        (
            ("process", "rlimits"),
            [{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}],
            "process.rlimits[0].soft: must not be above the hard limit",
        ),
        (
            ("process", "rlimits"),
            [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}] * 2,
            "process.rlimits[1].type: RLIMIT_CORE is there twice",
        ),
        (
            ("process", "rlimits"),
            [{"type": "RLIMIT_AS", "soft": 0, "hard": 2**64}],
            f"process.rlimits[0].hard: must be from 0 to {2**64 - 1}",
        ),
        (("process", "oomScoreAdj"), 1001, "process.oomScoreAdj: must be from -1000 to 1000"),
        (("root", "path"), "", "root.path: must not be empty"),
        (("mounts",), [{"type": "bind"}], "mounts[0].destination: is missing"),
        (
            ("mounts",),
            [{"destination": "/x"}, {"destination": "y"}],
            "mounts[1].destination: must be an absolute path",
        ),
        (
            ("hooks",),
            {"poststop": [{"path": "true"}]},
            "hooks.poststop[0].path: must be an absolute path",
        ),
        (("hooks",), {"poststop": [{"path": "/x", "timeout": 0}]}, "hooks.poststop[0].timeout: "),
        (("annotations",), {"": "x"}, "annotations: must not be empty"),
        (("annotations",), {"a": 1}, "annotations.a: must be a string"),
        (("linux",), {"maskedPaths": ["proc"]}, "linux.maskedPaths[0]: must be an absolute path"),
        (
            ("linux",),
            {"namespaces": [{"type": "pid"}, {"type": "pid"}]},
            "linux.namespaces[1].type: pid is there twice",
        ),
        (
            ("linux",),
            {"namespaces": [{"type": "net"}]},
            "linux.namespaces[0].type: must be one of cgroup, ipc, mount, network, pid, time,",
        ),
        (
            ("linux",),
            {"devices": [{"path": "/dev/x", "type": "c", "major": 1}]},
            "linux.devices[0].minor: is missing",
        ),
        (("linux",), {"devices": [{"path": "/dev/x", "type": "p"}]}, None),
        (
            ("linux",),
            {"seccomp": {"defaultAction": "SCMP_ACT_ALLOWED"}},
            "linux.seccomp.defaultAction: must be one of SCMP_ACT_ALLOW,",
        ),
        (
            ("linux",),
            {
                "seccomp": {
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}],
                }
            },
            "linux.seccomp.syscalls[0].names: must not be empty",
        ),
        (("unknown",), {"x": 1}, None),
    ],
)
def test_value(place: Place, value: Any, message: str | None) -> None:
    document = changed(MINIMAL, place, value)
    if message is None:
        validate(document)
    else:
        assert error_of(document).startswith(message)


@pytest.mark.parametrize("missing", [("ociVersion",), ("process",), ("root",), ("process", "user")])
def test_missing(missing: Place) -> None:
    document = copy.deepcopy(MINIMAL)
    target: Any = document
    for key in missing[:-1]:
        target = target[key]
    del target[missing[-1]]
    assert error_of(document) == f"{written(missing)}: is missing"


@pytest.mark.parametrize("document", [None, [], "", 1], ids=repr)
def test_no_object_at_all(document: object) -> None:
    assert error_of(document) == "must be an object"


def id_map(*extents: tuple[int, int, int]) -> list[dict[str, int]]:
    return [dict(zip(("containerID", "hostID", "size"), e, strict=True)) for e in extents]


@pytest.mark.parametrize(
    ("extents", "message"),
    [
        pytest.param([(0, 1000, 1), (1, 1000, 5)], "two entries overlap in hostID 1000", id="host"),
        pytest.param([(0, 0, 10), (9, 50, 1)], "two entries overlap in containerID 9", id="inside"),
        pytest.param(
            [(0, 2**32 - 2, 2)],
            f"hostID {2**32 - 2} and size 2 go beyond {MAX_ID}",
            id="CVE-2016-6252 wrap",
        ),
        pytest.param([(5, 100, 5), (0, 1000, 5)], None, id="any order"),
    ],
)
def test_id_map(extents: list[tuple[int, int, int]], message: str | None) -> None:
    linux = {"namespaces": [{"type": "user"}], "uidMappings": id_map(*extents)}
    document = changed(MINIMAL, ("linux",), linux)
    if message is None:
        validate(document)
    else:
        assert error_of(document) == f"linux.uidMappings: {message}"


@pytest.mark.parametrize(
    ("key", "namespace"),
    [
        ("net.ipv4.ping_group_range", "network"),
        ("net/ipv4/conf/eth0.1/forwarding", "network"),
        ("kernel.shm_rmid_forced", "ipc"),
        ("kernel/shmmax", "ipc"),
        ("fs.mqueue.msg_max", "ipc"),
        ("kernel.domainname", "uts"),
    ],
)
def test_sysctl_namespace(key: str, namespace: str) -> None:
    assert sysctl_namespace(key) == namespace


@pytest.mark.parametrize(
    "key",
    [
        *("kernel.core_pattern", "kernel/core_pattern", "vm.swappiness", "fs.file-max", "net", ""),
        *("net..ipv4", "net.ipv4.x=1", "net.ipv4.x\nkernel.core_pattern", "net.ipv4.x+y"),
        *("net/../kernel/core_pattern", "../net.ipv4", "net.ipv4.", "net.\u0131pv4.x", "net ipv4"),
        *("fs.mqueue", "kernel.shm*", "kernel.sched_domain"),
    ],
)
def test_sysctl_of_the_machine_is_refused(key: str) -> None:
    """CVE-2022-0811: one string must not smuggle another key in."""
    linux = {"namespaces": [{"type": t} for t in ("network", "ipc", "uts")], "sysctl": {key: "1"}}
    assert error_of(changed(MINIMAL, ("linux",), linux)).startswith("linux.sysctl")


def test_sysctl_value_is_one_line() -> None:
    linux = {"namespaces": [{"type": "network"}], "sysctl": {"net.ipv4.x": "1\n2"}}
    message = "linux.sysctl.net.ipv4.x: must be one line"
    assert error_of(changed(MINIMAL, ("linux",), linux)) == message


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("hostname",), "box", "hostname: needs a uts namespace"),
        (("linux",), {"uidMappings": id_map((0, 1, 1))}, "linux.uidMappings: needs a user"),
        (("linux",), {"sysctl": {"net.ipv4.x": "1"}}, "linux.sysctl.net.ipv4.x: needs an own"),
    ],
)
def test_namespace_that_is_needed(place: Place, value: Any, message: str) -> None:
    assert error_of(changed(MINIMAL, place, value)).startswith(message)


@pytest.mark.parametrize(("length", "ok"), [(64, True), (65, False)])
def test_hostname_length(length: int, ok: bool) -> None:
    document = MINIMAL | {"hostname": "x" * length, "linux": {"namespaces": [{"type": "uts"}]}}
    if ok:
        validate(document)
    else:
        assert error_of(document) == "hostname: must not be longer than 64 bytes"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(place=st.sampled_from(list(places(FULL))), value=json_values)
def test_anything_anywhere_is_valid_or_a_spec_error(place: Place, value: Any) -> None:
    with contextlib.suppress(SpecError):
        validate(changed(FULL, place, value))


def test_costs_few_calls() -> None:
    """The hot path: a default container's document takes 2,000 calls or so, well under 1 ms."""
    document = copy.deepcopy(FULL)
    names = [f"call{n}" for n in range(500)]
    document["linux"]["seccomp"]["syscalls"].append({"names": names, "action": "SCMP_ACT_ALLOW"})
    calls = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        validate(document)
    finally:
        sys.setprofile(None)
    assert calls < 3000
