"""What rp-oci decides without a kernel: limits, refusals, states, features."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.engine import limits
from rootlesspy.engine.oci_runtime import (
    cgroups,
    create,
    default_spec,
    features,
    jsontext,
    lifecycle,
    resources,
    state,
    support,
    update,
)
from rootlesspy.errors import Conflict, NotFound, Unsupported, UsageError
from rootlesspy.runtime import bundle_mounts, rootfs
from rootlesspy.systemd.bus import Property

if TYPE_CHECKING:
    from pathlib import Path

ALL = frozenset(("cpu", "cpuset", "io", "memory", "pids"))
HOST = limits.Host(offered=ALL, delegated=ALL, cpus=frozenset((0, 1)))


@pytest.mark.parametrize(
    ("asked", "files"),
    [
        (
            {"memory": {"limit": 100, "swap": 150}},
            [("memory.max", "100"), ("memory.swap.max", "50")],
        ),
        ({"memory": {"limit": -1}}, [("memory.max", "max")]),
        ({"cpu": {"quota": 50_000, "period": 100_000}}, [("cpu.max", "50000 100000")]),
        ({"cpu": {"quota": -1}}, [("cpu.max", "max 100000")]),
        ({"cpu": {"shares": 1024, "idle": 1}}, [("cpu.weight", "100"), ("cpu.idle", "1")]),
        ({"cpu": {"cpus": "0-1", "burst": 5}}, [("cpuset.cpus", "0-1"), ("cpu.max.burst", "5")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")]),
        ({"blockIO": {"weight": 10}}, [("io.weight", "default 1")]),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}]}},
            [("io.max", "8:0 rbps=9")],
        ),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 4}]}, [("hugetlb.2MB.max", "4")]),
        ({"rdma": {"mlx": {"hcaHandles": 3}}}, [("rdma.max", "mlx hca_handle=3")]),
        ({"unified": {"memory.high": "7"}}, [("memory.high", "7")]),
        ({"devices": [{"allow": False, "access": "rwm"}]}, []),
    ],
)
def test_limits_as_files(asked: Any, files: list[tuple[str, str]]) -> None:
    assert list(resources.for_files(asked).files) == files


def test_limits_as_properties_with_files_for_the_rest() -> None:
    asked: Any = {
        "pids": {"limit": 5},
        "cpu": {"burst": 3},
        "unified": {"memory.high": "max", "memory.oom.group": "1"},
    }
    wanted = resources.for_systemd(asked, {}, HOST)
    assert Property("TasksMax", "t", 5) in wanted.properties
    assert Property("MemoryHigh", "t", 2**64 - 1) in wanted.properties
    assert wanted.files == (("cpu.max.burst", "3"), ("memory.oom.group", "1"))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"memory": {"swappiness": 0}}, "swappiness"),
        ({"memory": {"kernel": 5}}, "kernel"),
        ({"memory": {"disableOOMKiller": True}}, "disableOOMKiller"),
        ({"cpu": {"realtimeRuntime": 5}}, "realtimeRuntime"),
        ({"network": {"classID": 1}}, "network"),
        ({"unified": {"cgroup.procs": "1"}}, "cgroup.procs"),
        ({"unified": {"../memory.max": "1"}}, "memory.max"),
    ],
)
def test_limits_that_nothing_can_hold(asked: Any, words: str) -> None:
    with pytest.raises((Unsupported, UsageError), match=words):
        resources.for_files(asked)


def test_limit_without_its_controller_is_refused() -> None:
    nothing = HOST._replace(delegated=frozenset())
    for asked in ({"memory": {"limit": 1 << 26}}, {"cpu": {"cpus": "0"}}):
        with pytest.raises(Unsupported):
            resources.for_systemd(asked, {}, nothing)  # type: ignore[arg-type]
    spare = resources.without_defaults({"cpu": {"shares": 1024}})
    assert not resources.for_systemd(spare, {}, nothing).asked()


@pytest.mark.parametrize(
    ("annotation", "value", "setting"),
    [
        ("TimeoutStopUSec", "uint64 3000000", "TimeoutStopSec=3000000us"),
        ("KillSignal", "15", "KillSignal=15"),
        ("CollectMode", "'inactive-or-failed'", "CollectMode=inactive-or-failed"),
    ],
)
def test_annotations_become_settings(annotation: str, value: str, setting: str) -> None:
    assert resources.settings({f"org.systemd.property.{annotation}": value}) == [setting]


@pytest.mark.parametrize("name", ["Slice", "Delegate", "Frob", "ExecStart"])
def test_annotations_that_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        resources.for_systemd({}, {f"org.systemd.property.{name}": "'x'"}, HOST)


@pytest.mark.parametrize(
    ("path", "slice_", "unit"),
    [
        ("", "user.slice", "rp-oci-id.scope"),
        ("user.slice:libpod:abc", "user.slice", "libpod-abc.scope"),
        (":p:n", "user.slice", "p-n.scope"),
    ],
)
def test_scope_of_cgroups_path(path: str, slice_: str, unit: str) -> None:
    assert cgroups._unit(path, "id") == (slice_, unit)


@pytest.mark.parametrize("path", ["/a/b", "a:b", "x:y:z", "a.slice:p:", "a.slice:p:/x"])
def test_cgroups_path_that_is_none(path: str) -> None:
    with pytest.raises(UsageError):
        cgroups._unit(path, "id")


def test_written_spec_is_one_that_is_carried_out(tmp_path: Path) -> None:
    default_spec.write(os.fspath(tmp_path))
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert support.check(written) == written
    with pytest.raises(Conflict):
        default_spec.write(os.fspath(tmp_path))


def test_nulls_are_what_is_not_there() -> None:
    spec: Any = default_spec.document(1000, 1000)
    spec["linux"]["seccomp"] = None
    spec["process"]["rlimits"] = None
    assert "seccomp" not in support.check(spec)["linux"]


@pytest.mark.parametrize("word", ["", "..", ".", "a/b", "a b", "ü", "x" * 1025, "a\n"])
def test_ids_that_are_none(word: str) -> None:
    with pytest.raises(UsageError):
        state.Place("/nowhere").directory(word)


def test_one_of_two_that_make_the_same_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one finds the directory when it is made and not yet locked, and is quicker."""
    place = state.Place(os.fspath(tmp_path / "root"))
    others = []
    mkdir = os.mkdir

    def overtaken(path: str, mode: int) -> None:
        mkdir(path, mode)
        others.append(state.lock(path))

    monkeypatch.setattr(os, "mkdir", overtaken)
    with pytest.raises(Conflict):
        place.make("one")
    # The first is that of the directory of all.
    assert others[-1] >= 0
    for each in others:
        os.close(each)


def test_half_made_container_is_taken_over(tmp_path: Path) -> None:
    place = state.Place(os.fspath(tmp_path / "root"))
    directory, lock = place.make("one")
    with pytest.raises(Conflict):
        place.make("one")
    with pytest.raises(NotFound):
        place.load("one")
    os.close(lock)
    again, lock = place.make("one")
    assert again == directory
    os.close(lock)
    place.remove("one")
    place.remove("one")
    assert place.all() == []


def test_pid_is_filled_in_wherever_it_belongs() -> None:
    parts = create.around_pid({"pid": 0, "state": {"pid": 0, "x": '"pid": 0'}})
    assert json.loads(b"77".join(parts)) == {"pid": 77, "state": {"pid": 77, "x": '"pid": 0'}}


@pytest.mark.parametrize(
    ("word", "number"), [("9", 9), ("KILL", 9), ("sigterm", 15), ("0", 0), ("SIGRTMIN", 34)]
)
def test_signals(word: str, number: int) -> None:
    assert lifecycle.signal_number(word) == number


@pytest.mark.parametrize("word", ["65", "-9", "FROB", "", "1_0", "9" * 5000])
def test_signals_that_are_none(word: str) -> None:
    with pytest.raises(UsageError):
        lifecycle.signal_number(word)


def test_update_from_flags_and_from_a_file(tmp_path: Path) -> None:
    wanted = update.resources("", {"memory": 5, "cpu-share": 7}, {"cpuset-cpus": "1"})
    assert wanted == {"memory": {"limit": 5}, "cpu": {"shares": 7, "cpus": "1"}}
    file = tmp_path / "r.json"
    file.write_text('{"pids": {"limit": "many"}}', encoding="utf-8")
    with pytest.raises(UsageError, match="pids"):
        update.resources(os.fspath(file), {}, {})


def test_features_name_what_the_specification_calls_required() -> None:
    document: Any = features.document()
    assert document["ociVersionMin"] == "1.0.0"
    assert "rro" in document["mountOptions"]
    assert {"user", "time", "cgroup"} <= set(document["linux"]["namespaces"])
    assert document["linux"]["netDevices"] == {"enabled": True}
    assert "MPOL_BIND" in document["linux"]["memoryPolicy"]["modes"]


@pytest.mark.parametrize("word", features.mount_options())
def test_features_name_only_mount_options_that_are_understood(word: str) -> None:
    """What is no flag would be data for the file system."""
    ignored = bundle_mounts.IGNORED_OPTIONS | bundle_mounts.OWN_OPTIONS
    plain = word[1:] if word[1:] in ignored and word[0] == "r" else word
    understood = plain in ignored or not rootfs.parse_options([word]).data
    # The kernel's own, of any file system: fsconfig(2) takes them.
    assert understood or word in ("sync", "dirsync", "lazytime")


TEXTS = st.text() | st.integers() | st.booleans() | st.none()


@given(st.recursive(TEXTS, lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_json_is_what_the_package_json_says(value: Any) -> None:
    for indent in (None, "  "):
        text = jsontext.dumps(value, indent)
        assert text == json.dumps(value, indent=2 if indent else None)
        assert jsontext.loads(f" {text}\n") == value


@given(st.text(alphabet='{}[]":,0123456789.eE+-truefalsnNaI \n\\u'))
def test_json_refuses_what_the_package_json_refuses(text: str) -> None:
    try:
        expected = json.loads(text, parse_constant=lambda word: [][1])
    except (ValueError, IndexError):
        with pytest.raises(ValueError):  # noqa: PT011 - whichever of them
            jsontext.loads(text)
    else:
        assert jsontext.loads(text) == expected
