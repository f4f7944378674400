"""Devices that CDI files describe: which file counts, and what it changes in the spec."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootlesspy.engine.inputs.isolation_values import is_cdi_device
from rootlesspy.engine.security import cdi, cdi_edits
from rootlesspy.errors import Error, NotFound, Unsupported, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def write(directory: Path, name: str, document: object) -> str:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(json.dumps(document))
    return str(directory)


def described(edits: object = None, *, kind: str = "v.com/c", name: str = "one") -> dict[str, Any]:
    device = {"name": name, "containerEdits": edits or {"env": ["A=1"]}}
    return {"cdiVersion": "0.6.0", "kind": kind, "devices": [device]}


def collect(tmp_path: Path, edits: object, common: object = None) -> cdi_edits.Edits:
    document = described(edits)
    if common:
        document["containerEdits"] = common
    place = write(tmp_path / "cdi", "a.json", document)
    return cdi_edits.collect(cdi.find(["v.com/c=one"], (place,)))


@pytest.mark.parametrize(
    "text",
    ["vendor.com/class=name", "nvidia.com/gpu=all", "a/b=0", "v.com/c_d-e=GPU-1:0", "v/c=a.b"],
)
def test_qualified_names(text: str) -> None:
    assert is_cdi_device(text)


@pytest.mark.parametrize(
    "text",
    [
        *("/dev/fuse", "vendor.com/class", "class=name", "/class=name", "v/=name", "v/c=", "1/c=n"),
        *("v/c=-n", "v/c=n-", "v/c=a b", "v/c/d=n", "../c=n", "v/c=ä", "v./c=n", "/dev/a=b"),
    ],
)
def test_other_names(text: str) -> None:
    assert not is_cdi_device(text)


def test_later_directories_win(tmp_path: Path) -> None:
    first = write(tmp_path / "a", "x.json", described({"env": ["A=first"]}))
    second = write(tmp_path / "b", "x.json", described({"env": ["A=second"]}))
    (found,) = cdi.find(["v.com/c=one"], (first, second, str(tmp_path / "missing")))
    assert found.edits[1] == {"env": ["A=second"]}


def test_two_files_of_one_directory_are_in_conflict(tmp_path: Path) -> None:
    place = write(tmp_path / "a", "x.json", described())
    write(tmp_path / "a", "y.json", described())
    write(tmp_path / "a", "z.json", described(name="other"))
    with pytest.raises(UsageError, match=r"described twice: in .*x\.json and in .*y\.json"):
        cdi.find(["v.com/c=one"], (place,))
    assert cdi.find(["v.com/c=other"], (place,))
    stronger = write(tmp_path / "b", "x.json", described())
    assert cdi.find(["v.com/c=one"], (place, stronger))


def test_unknown_device_names_what_there_is(tmp_path: Path) -> None:
    place = write(tmp_path / "a", "x.json", described())
    (tmp_path / "a" / "broken.json").write_text("{")
    with pytest.raises(NotFound) as caught:
        cdi.find(["v.com/c=two"], (place, "/nowhere"))
    assert "v.com/c=two: no CDI file describes it" in caught.value.message
    assert "known: v.com/c=one" in (caught.value.hint or "")
    assert f"looked in {place}, /nowhere" in (caught.value.hint or "")
    assert "broken.json: is not JSON" in (caught.value.hint or "")


def test_nvidias_files_are_made_by_a_program() -> None:
    with pytest.raises(NotFound) as caught:
        cdi.find(["nvidia.com/gpu=all"], ("/nowhere",))
    assert "nvidia-ctk cdi generate" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "document",
    [
        *(None, [], "x", {}, {"kind": 1}, {"kind": "v.com/c", "devices": []}),
        {"cdiVersion": "2.0", "kind": "v.com/c", "devices": []},
        {"cdiVersion": "0.6.0", "kind": "v.com/c", "devices": {}},
        {"cdiVersion": "0.6.0", "kind": "v.com/c", "devices": [{}]},
        {"cdiVersion": "0.6.0", "kind": "v.com/c", "devices": [{"name": "a", "containerEdits": 1}]},
    ],
)
def test_malformed_files_describe_nothing(tmp_path: Path, document: object) -> None:
    registry = cdi.read((write(tmp_path / "a", "x.json", document),))
    assert registry.devices == {}
    assert list(registry.unread) == [str(tmp_path / "a" / "x.json")]


@pytest.mark.row("YAML", "safe loading alone; objects are an error of the file")
def test_yaml(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "x.yaml").write_text(
        "cdiVersion: 0.6.0\nkind: v.com/c\ndevices:\n"
        "- name: one\n  containerEdits:\n    env: [A=1]\n"
    )
    (tmp_path / "bad.yml").write_text("a: [")
    (tmp_path / "evil.yml").write_text("!!python/object/apply:os.system [false]")
    registry = cdi.read((str(tmp_path),))
    assert registry.devices["v.com/c=one"].edits[1] == {"env": ["A=1"]}
    assert set(registry.unread) == {str(tmp_path / "bad.yml"), str(tmp_path / "evil.yml")}


def test_yaml_needs_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    (tmp_path / "x.yaml").write_text("kind: v.com/c")
    with pytest.raises(NotFound) as caught:
        cdi.find(["v.com/c=one"], (str(tmp_path),))
    assert "x.yaml: needs python3-yaml" in (caught.value.hint or "")


def test_edits_of_the_file_and_of_the_device(tmp_path: Path) -> None:
    edits = collect(
        tmp_path,
        {
            "env": ["B=2"],
            "deviceNodes": [
                {"path": "/dev/n", "hostPath": "/dev/null", "type": "c", "major": 1, "minor": 3}
            ],
            "mounts": [{"hostPath": "/l", "containerPath": "/m", "options": ["ro", "bind"]}],
            "hooks": [{"hookName": "createContainer", "path": "/h", "args": ["h"], "timeout": 3}],
            "additionalGids": [7, 7],
        },
        {"env": ["A=1"]},
    )
    assert edits.env == ("A=1", "B=2")
    assert edits.groups == (7,)
    assert edits.hooks == (("createContainer", {"path": "/h", "args": ["h"], "timeout": 3}),)
    assert [(each["source"], each["destination"]) for each in edits.mounts] == [
        ("/dev/null", "/dev/n"),
        ("/l", "/m"),
    ]


def test_edits_of_a_file_count_once(tmp_path: Path) -> None:
    document = described()
    document["containerEdits"] = {"env": ["C=1"], "additionalGids": [1]}
    document["devices"].append({"name": "two", "containerEdits": {"env": ["B=1"]}})
    place = write(tmp_path / "a", "x.json", document)
    edits = cdi_edits.collect(cdi.find(["v.com/c=one", "v.com/c=two"], (place,)))
    assert edits.env == ("C=1", "A=1", "B=1")
    assert edits.groups == (1,)


@pytest.mark.parametrize(
    ("edits", "error", "message"),
    [
        ({"netDevices": []}, Unsupported, "netDevices can only be done as root"),
        ({"intelRdt": {}}, Unsupported, "intelRdt can only be done as root"),
        ({"more": {}}, Unsupported, "more of containerEdits is not known"),
        ({"env": "A=1"}, UsageError, "env must be an array"),
        ({"env": ["A"]}, UsageError, "is not KEY=VALUE"),
        ({"env": ["=A"]}, UsageError, "is not KEY=VALUE"),
        ({"additionalGids": [-1]}, UsageError, "group ids"),
        ({"additionalGids": [True]}, UsageError, "group ids"),
        ({"deviceNodes": [{}]}, UsageError, "path must be an absolute path"),
        ({"deviceNodes": [{"path": "/dev/rp-none"}]}, Error, "/dev/rp-none: No such file"),
        ({"deviceNodes": [{"path": "/dev/null", "type": "b"}]}, Error, "not of the type 'b'"),
        ({"deviceNodes": [{"path": "/dev/null", "major": 1, "minor": 5}]}, Error, "is device 1:3"),
        ({"deviceNodes": [{"path": "/dev/null", "permissions": "r"}]}, Unsupported, "enforced"),
        ({"deviceNodes": [{"path": "/dev/null", "permissions": "x"}]}, UsageError, "permissions"),
        ({"mounts": [{"containerPath": "/a"}]}, UsageError, "hostPath"),
        ({"mounts": [{"containerPath": "a", "hostPath": "/"}]}, UsageError, "containerPath"),
        ({"mounts": [{"containerPath": "/a/../b", "hostPath": "/"}]}, UsageError, "'..'"),
        ({"mounts": [{"containerPath": "/a", "type": "nfs"}]}, Unsupported, "type 'nfs'"),
        ({"hooks": [{"hookName": "later", "path": "/h"}]}, UsageError, "hookName 'later'"),
        ({"hooks": [{"hookName": "poststop", "path": "h"}]}, UsageError, "absolute path"),
        (
            {"hooks": [{"hookName": "poststop", "path": "/h", "timeout": "1"}]},
            UsageError,
            "timeout",
        ),
    ],
)
def test_what_cannot_be_done_is_an_error(
    tmp_path: Path, edits: object, error: type[Error], message: str
) -> None:
    with pytest.raises(error, match=message):
        collect(tmp_path, edits)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
KEYS = st.sampled_from(["env", "deviceNodes", "mounts", "hooks", "additionalGids"])
INNER = st.sampled_from(
    ["path", "hostPath", "containerPath", "options", "hookName", "args", "type", "timeout"]
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(KEYS, st.lists(st.dictionaries(INNER, JSON)) | JSON))
def test_no_description_is_more_than_refused(edits: dict[str, Any]) -> None:
    try:
        cdi_edits.collect([cdi.Description("f", ({}, edits))])
    except Error:
        return


def test_the_spec_is_changed() -> None:
    spec: Any = {
        "process": {"env": ["PATH=/bin", "A=0"]},
        "mounts": [{"destination": "/dev"}, {"destination": "/m"}, {"destination": "/dev/a/b"}],
    }
    hook = {"path": "/h", "timeout": 1}
    mounts: Any = ({"destination": "/m"}, {"destination": "/dev/x"})
    cdi_edits.apply(
        spec, cdi_edits.Edits(("A=1", "B=a=b"), mounts, (("poststop", hook),), groups=())
    )
    assert spec["process"]["env"] == ["PATH=/bin", "A=1", "B=a=b"]
    assert [each["destination"] for each in spec["mounts"]] == ["/dev", "/m", "/dev/x", "/dev/a/b"]
    assert spec["hooks"] == {"poststop": [hook]}
