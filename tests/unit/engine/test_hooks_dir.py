"""Directories of hooks: order, masking, conditions, both formats, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.engine.inputs import hooks_dir
from rootlesspy.errors import UsageError

HOOK = {"path": "/bin/sh"}
CONTAINER = hooks_dir.Container(
    command="/usr/bin/nginx", annotations={"com.example.department": "dynamics"}, bind_mounts=False
)


def written(directory: Path, name: str, **changes: Any) -> None:
    document = {
        "version": "1.0.0",
        "hook": HOOK,
        "when": {"always": True},
        "stages": ["createRuntime"],
        **changes,
    }
    directory.mkdir(exist_ok=True)
    whole = {key: value for key, value in document.items() if value is not None}
    (directory / name).write_text(json.dumps(whole), encoding="utf-8")


def select(*directories: Path, container: hooks_dir.Container = CONTAINER) -> dict[str, Any]:
    return dict(hooks_dir.select(map(str, directories), container, missing_ok=False))


def names(found: dict[str, Any], stage: str = "createRuntime") -> list[str]:
    return [each["args"][1] for each in found.get(stage, [])]


def test_order_is_that_of_the_lower_cased_names(tmp_path: Path) -> None:
    for name in ("01-b.json", "01-UPPER.json", "02-a.json", "00.json", "README", "x.JSON"):
        written(tmp_path, name, hook={**HOOK, "args": ["sh", name]})
    assert names(select(tmp_path)) == ["00.json", "01-b.json", "01-UPPER.json", "02-a.json"]


def test_later_directories_stand_for_earlier_ones(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for directory, listed in ((one, ("a.json", "b.json")), (two, ("b.json", "c.json"))):
        for name in listed:
            written(directory, name, hook={**HOOK, "args": ["sh", f"{directory.name}/{name}"]})
    assert names(select(one, two)) == ["one/a.json", "two/b.json", "two/c.json"]
    assert names(select(two, one)) == ["one/a.json", "one/b.json", "two/c.json"]
    # One that is for nobody masks, too.
    written(two, "a.json", when={"always": False})
    assert names(select(one, two)) == ["two/b.json", "two/c.json"]


def test_every_stage_that_is_named(tmp_path: Path) -> None:
    written(tmp_path, "a.json", stages=list(hooks_dir.STAGES))
    found = select(tmp_path)
    assert tuple(found) == hooks_dir.STAGES
    assert all(each == [{**HOOK, "timeout": 10}] for each in found.values())


def test_what_a_hook_says_is_kept(tmp_path: Path) -> None:
    hook = {**HOOK, "args": ["sh", "-c", "x"], "env": ["A=b"], "timeout": 3}
    written(tmp_path, "a.json", hook={**hook, "unknown": 1})
    assert select(tmp_path) == {"createRuntime": [hook]}


@pytest.mark.parametrize(
    ("when", "met"),
    [
        ({}, False),
        ({"always": True}, True),
        ({"always": False}, False),
        ({"always": None, "commands": ["nginx$"]}, True),
        ({"hasBindMounts": True}, False),
        ({"commands": ["nginx"]}, True),
        ({"commands": ["^nginx", "/nginx$"]}, True),
        ({"commands": ["^nginx"]}, False),
        ({"commands": ["^/[[:lower:]/]+$"]}, True),
        ({"commands": ["^/[^[:lower:]/]+$"]}, False),
        ({"commands": []}, False),
        ({"annotations": {r"^com\.example\.department$": "^dyn"}}, True),
        ({"annotations": {r"^com\.example\.department$": "^static"}}, False),
        ({"annotations": {"com": "", "org": ""}}, False),
        # All of them have to be met.
        ({"always": True, "commands": ["nothing"]}, False),
        ({"always": True, "hasBindMounts": True}, False),
        ({"always": True, "annotations": {"org": ""}}, False),
        ({"annotations": {"com": ""}, "commands": ["nginx"]}, True),
    ],
)
def test_conditions(tmp_path: Path, when: dict[str, Any], *, met: bool) -> None:
    written(tmp_path, "a.json", when=when)
    assert bool(select(tmp_path)) is met


def test_bind_mounts_that_were_asked_for(tmp_path: Path) -> None:
    written(tmp_path, "a.json", when={"hasBindMounts": True})
    assert select(tmp_path, container=CONTAINER._replace(bind_mounts=True))


@pytest.mark.parametrize("version", [{}, {"version": "0.1.0"}])
@pytest.mark.parametrize(
    ("conditions", "met"),
    [
        ({}, False),
        ({"cmds": ["^/usr"]}, True),
        ({"cmd": ["^/bin"]}, False),
        ({"annotations": ["^dynamics$"]}, True),
        # One of them is enough.
        ({"annotation": ["^statics$"], "cmds": ["nginx"]}, True),
        ({"hasbindmounts": True}, False),
    ],
)
def test_the_old_format(
    tmp_path: Path, version: dict[str, str], conditions: dict[str, Any], *, met: bool
) -> None:
    document = {"hook": "/bin/sh", "arguments": ["old"], "stage": ["prestart"], **conditions}
    (tmp_path / "a.json").write_text(json.dumps({**version, **document}), encoding="utf-8")
    hook = {"path": "/bin/sh", "args": ["/bin/sh", "old"], "timeout": 10}
    assert select(tmp_path) == ({"prestart": [hook]} if met else {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "2.0.0"}, "version '2.0.0' is unknown"),
        ({"version": 1}, "version 1 is unknown"),
        ({"hook": None}, "hook is not an object"),
        ({"hook": {}}, "hook.path None is not an absolute path"),
        ({"hook": {"path": "sh"}}, "hook.path 'sh' is not an absolute path"),
        ({"hook": {"path": "/nowhere/x"}}, "hook.path /nowhere/x is not an executable file"),
        ({"hook": {"path": "/etc/passwd"}}, "/etc/passwd is not an executable file"),
        ({"hook": {"path": "/etc"}}, "/etc is not an executable file"),
        ({"hook": {**HOOK, "args": "x"}}, "hook.args is not an array of strings"),
        ({"hook": {**HOOK, "args": ["a\0b"]}}, "hook.args is not an array of strings"),
        ({"hook": {**HOOK, "env": ["A"]}}, "hook.env: 'A' is not KEY=VALUE"),
        ({"hook": {**HOOK, "env": ["=A"]}}, "hook.env: '=A' is not KEY=VALUE"),
        ({"hook": {**HOOK, "timeout": 0}}, "hook.timeout 0 is not a number"),
        ({"hook": {**HOOK, "timeout": True}}, "hook.timeout True is not a number"),
        ({"when": None}, "when is not an object"),
        ({"when": {"always": "yes"}}, "when.always is not true or false"),
        ({"when": {"hasBindMounts": 1}}, "when.hasBindMounts is not true or false"),
        ({"when": {"annotations": []}}, "when.annotations is not an object"),
        ({"when": {"annotations": {"(": ""}}}, r"when.annotations: '\(' is not a regular"),
        ({"when": {"annotations": {"a": 1}}}, "when.annotations: 1 is not a regular"),
        ({"when": {"commands": "x"}}, "when.commands is not an array of strings"),
        ({"when": {"commands": ["["]}}, r"when.commands: '\[' is not a regular"),
        ({"stages": None}, "stages is missing"),
        ({"stages": ["bogus"]}, "stage 'bogus' is unknown"),
        ({"stages": ["precreate"]}, "stage 'precreate' is not supported"),
    ],
)
def test_mistakes_name_the_file(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    written(tmp_path, "a.json", **changes)
    with pytest.raises(UsageError, match=rf"^hook {tmp_path}/a.json: .*{words}"):
        select(tmp_path)


def test_a_hook_of_the_container_need_not_be_on_the_host(tmp_path: Path) -> None:
    written(tmp_path, "a.json", hook={"path": "/nowhere/x"}, stages=["startContainer"])
    assert select(tmp_path)


def test_a_mistake_in_a_hook_for_others_is_one_too(tmp_path: Path) -> None:
    written(tmp_path, "a.json", when={"always": False}, stages=["bogus"])
    with pytest.raises(UsageError, match="bogus"):
        select(tmp_path)


def test_directories_and_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "gone.json").symlink_to("/nowhere")
    assert select(tmp_path) == {}
    with pytest.raises(UsageError, match="--hooks-dir /nowhere does not exist"):
        select(Path("/nowhere"))
    assert hooks_dir.select(["/nowhere"], CONTAINER, missing_ok=True) == {}
    (tmp_path / "a.json").mkdir()
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        select(tmp_path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=8,
    )
    | st.fixed_dictionaries(
        {},
        optional={
            "version": st.sampled_from(("1.0.0", "0.1.0", "")),
            "hook": st.sampled_from((HOOK, "/bin/sh", None, {})),
            "when": st.dictionaries(
                st.sampled_from(("always", "commands", "annotations", "hasBindMounts")),
                st.booleans()
                | st.lists(st.text(max_size=6))
                | st.dictionaries(st.text(), st.text()),
            ),
            "stages": st.lists(st.sampled_from((*hooks_dir.STAGES, "x"))) | st.text(),
            "cmds": st.lists(st.text(max_size=6)),
        },
    )
)
def test_any_document_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, document: object
) -> None:
    directory = tmp_path_factory.mktemp("hooks")
    (directory / "a.json").write_text(json.dumps(document), encoding="utf-8")
    try:
        found = select(directory)
    except UsageError:
        return
    assert set(found) <= set(hooks_dir.STAGES)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * (1 << 21)])
def test_what_is_no_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UsageError, match=rf"hook {tmp_path}/a.json: it is"):
        select(tmp_path)
