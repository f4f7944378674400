"""oci.runtime_spec: the example that sets every field has exactly the fields of the types."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

from rootlesspy.oci import runtime_spec

EVERY_FIELD = Path(__file__).parents[2] / "data/spec/every-field.json"


def seen_fields(value: Any, hint: Any, seen: dict[Any, set[str]]) -> None:
    """Note which fields of each TypedDict the value sets; fail on one that the type lacks."""
    if typing.is_typeddict(hint):
        fields = typing.get_type_hints(hint)
        assert set(value) <= set(fields), hint
        seen.setdefault(hint, set()).update(value)
        for name, element in value.items():
            seen_fields(element, fields[name], seen)
    elif typing.get_origin(hint) is list:
        for element in value:
            seen_fields(element, typing.get_args(hint)[0], seen)
    elif typing.get_origin(hint) is dict:
        for element in value.values():
            seen_fields(element, typing.get_args(hint)[1], seen)
    elif typing.get_origin(hint) is typing.Literal:
        assert value in typing.get_args(hint)
    else:
        assert type(value) is hint


def test_example_and_types_agree() -> None:
    seen: dict[Any, set[str]] = {}
    seen_fields(json.loads(EVERY_FIELD.read_text()), runtime_spec.Spec, seen)
    types = [t for t in vars(runtime_spec).values() if typing.is_typeddict(t)]
    missing = {t.__name__: set(typing.get_type_hints(t)) - seen.get(t, set()) for t in types}
    assert {name: fields for name, fields in missing.items() if fields} == {}
