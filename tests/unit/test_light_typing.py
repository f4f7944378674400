"""Whatever a NamedTuple of ours does, typing's own does too."""

from __future__ import annotations

import copy
import pickle
import typing
from typing import Any

import pytest

from rootlesspy import light_typing


class Real(typing.NamedTuple):
    """A record."""

    name: str
    number: int = 3
    others: tuple[str, ...] = ()

    def doubled(self) -> int:
        return self.number * 2

    @property
    def upper(self) -> str:
        return self.name.upper()


class Light(light_typing.NamedTuple):
    """A record."""

    name: str
    number: int = 3
    others: tuple[str, ...] = ()

    def doubled(self) -> int:
        return self.number * 2

    @property
    def upper(self) -> str:
        return self.name.upper()


class Empty(light_typing.NamedTuple):
    pass


KINDS = pytest.mark.parametrize("kind", [Real, Light])


@KINDS
@pytest.mark.parametrize(
    ("values", "named"),
    [
        (("x",), {}),
        (("x", 4), {}),
        (("x", 4, ("y",)), {}),
        ((), {"name": "x"}),
        (("x",), {"others": ("y",)}),
        ((), {"others": (), "number": 9, "name": "x"}),
    ],
)
def test_values_find_their_fields(
    kind: Any, values: tuple[object, ...], named: dict[str, object]
) -> None:
    made = kind(*values, **named)
    expected: Any = Real(*values, **named)  # type: ignore[arg-type]  # on purpose
    assert tuple(made) == expected
    assert hash(made) == hash(expected)
    assert repr(made).partition("(")[2] == repr(expected).partition("(")[2]
    assert (made.name, made.number, made.others) == expected
    assert made._asdict() == expected._asdict()
    assert (made.doubled(), made.upper) == (expected.doubled(), expected.upper)
    assert isinstance(made, tuple)


@KINDS
@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((), {}),
        (("x", 1, (), 2), {}),
        (("x",), {"name": "y"}),
        (("x",), {"unknown": 1}),
        ((), {"number": 1}),
        ((), {"unknown": 1, "number": 1}),
    ],
)
def test_values_that_do_not_fit_are_refused(
    kind: Any, values: tuple[object, ...], named: dict[str, object]
) -> None:
    with pytest.raises(TypeError):
        kind(*values, **named)


@KINDS
def test_a_record_is_changed_by_a_copy(kind: Any) -> None:
    made = kind("x")
    changed = made._replace(number=5)
    assert type(changed) is kind
    assert changed == ("x", 5, ())
    assert made == ("x", 3, ())
    with pytest.raises((TypeError, ValueError)):
        made._replace(unknown=1)
    with pytest.raises(AttributeError):
        made.name = "y"
    with pytest.raises(AttributeError):
        made.unknown = "y"


@KINDS
def test_a_record_is_made_of_any_iterable(kind: Any) -> None:
    assert kind._make(iter(["x", 1, ()])) == ("x", 1, ())
    for wrong in (["x", 1, (), 2], ["x", 1]):
        with pytest.raises(TypeError):
            kind._make(wrong)


@KINDS
def test_a_class_knows_its_fields(kind: Any) -> None:
    assert kind._fields == ("name", "number", "others")
    assert kind._field_defaults == {"number": 3, "others": ()}
    assert list(kind.__annotations__) == ["name", "number", "others"]
    assert kind.__doc__ == "A record."
    assert type(kind) is type


@KINDS
def test_a_record_is_copied_pickled_and_matched(kind: Any) -> None:
    made = kind("x", 1)
    assert copy.copy(made) == copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made
    assert type(pickle.loads(pickle.dumps(made))) is kind
    match made:
        case kind(name, number):
            assert (name, number) == ("x", 1)
        case _:
            pytest.fail("it does not match")


def test_a_record_may_have_no_fields() -> None:
    assert Empty() == ()
    assert Empty._fields == ()
    with pytest.raises(TypeError):
        Empty(1)  # type: ignore[call-arg]  # on purpose


def test_a_typed_dict_is_a_dict() -> None:
    class Keys(light_typing.TypedDict, total=False):
        name: str

    assert type(Keys(name="x")) is dict
    assert Keys(name="x") == {"name": "x"}


def test_a_cast_changes_nothing() -> None:
    value = object()
    assert light_typing.cast("int", value) is value
