"""docs/oci-runtime.md: every field of config.json has a row, and its test; refused ones are."""

from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rootlesspy.engine.oci_runtime import default_spec, resources, state, support, update
from rootlesspy.errors import Conflict, Unsupported
from rootlesspy.oci import runtime_spec

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[3]
ROW = re.compile(r"\| `([^`]+)` \| ([a-z ]+) \| .*\| (test_[a-z_0-9]+) \|")
REFUSED: dict[str, Any] = {
    "linux.intelRdt": {"closID": "x"},
    "linux.mountLabel": "x",
    "linux.personality.flags": ["x"],
    "linux.resources.memory.kernel": 1,
    "linux.resources.memory.kernelTCP": 1,
    "linux.resources.memory.swappiness": 0,
    "linux.resources.memory.disableOOMKiller": True,
    "linux.resources.cpu.realtimeRuntime": 1,
    "linux.resources.cpu.realtimePeriod": 1,
    "linux.resources.blockIO.leafWeight": 20,
    "linux.resources.blockIO.weightDevice.leafWeight": [{"major": 8, "minor": 0, "leafWeight": 9}],
    "linux.resources.network": {"classID": 1},
}


def rows() -> list[tuple[str, str, str]]:
    """Return field, state and test of each row."""
    text = (REPOSITORY / "docs/oci-runtime.md").read_text(encoding="utf-8")
    return ROW.findall(text)


def fields(hint: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of all fields that hold no others."""
    if typing.get_origin(hint) is typing.Required:
        (hint,) = typing.get_args(hint)
    inner = typing.get_args(hint)
    if typing.is_typeddict(hint):
        for name, field in typing.get_type_hints(hint, include_extras=True).items():
            yield from fields(field, f"{path}.{name}" if path else name)
    elif typing.get_origin(hint) in (list, dict) and typing.is_typeddict(inner[-1]):
        yield from fields(inner[-1], path)
    else:
        yield path


def row_of(field: str, named: set[str]) -> str:
    """Return the row that a field belongs to: its own, or one above it."""
    while field and field not in named:
        field = field.rpartition(".")[0]
    return field


def test_every_field_has_a_row_and_every_row_a_field() -> None:
    named = {field for field, _, _ in rows()}
    assert len(rows()) == len(named)
    found = {field: row_of(field, named) for field in fields(runtime_spec.Spec)}
    assert [field for field, row in found.items() if not row] == []
    assert named - set(found.values()) == set()


def test_every_row_has_a_test_that_exists() -> None:
    written: set[str] = set()
    for file in (REPOSITORY / "tests").rglob("test_*.py"):
        written.update(
            re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
        )
    assert {test for _, _, test in rows()} - written == set()


def test_states_are_one_of_three() -> None:
    assert {word for _, word, _ in rows()} == {"works", "refused", "not needed"}
    assert {field for field, word, _ in rows() if word == "refused"} == set(REFUSED)


@pytest.mark.parametrize("field", REFUSED)
def test_refused_fields(field: str) -> None:
    spec: Any = default_spec.document(1000, 1000)
    *parents, last = field.split(".")
    if parents[-1] == "weightDevice":
        last = parents.pop()
    target = spec
    for name in parents:
        target = target.setdefault(name, {})
    target[last] = REFUSED[field]
    if parents[-1] == "personality":
        target["domain"] = "LINUX"
    with pytest.raises(Unsupported, match=re.escape(".".join((*parents, last)))):
        resources.for_files(support.check(spec)["linux"].get("resources", {}))


def test_update_below_what_is_used(tmp_path: Path) -> None:
    container = state.Container(**dict.fromkeys(state.Container._fields))._replace(  # type: ignore[arg-type]
        cgroup_path=str(tmp_path)
    )
    memory: Any = {"limit": 1000, "checkBeforeUpdate": True}
    update._check_usage(container, memory)
    (tmp_path / "memory.current").write_text("1001", encoding="ascii")
    with pytest.raises(Conflict):
        update._check_usage(container, memory)
    update._check_usage(container, {"limit": 1000})
