"""What a check of a document is made of: of one value, of lists, of objects.

A check takes a value and raises SpecError.  The place of an error is put together only once there
is one, so that a valid document costs well under a millisecond.
"""

from __future__ import annotations

from rootlesspy.light_typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Check = Callable[[Any], object]

MAX_NUMBER = 8191  # CONFIG_NR_CPUS and CONFIG_NODES_SHIFT allow no more
MAX_ID = 2**32 - 2  # (uid_t) -1 means "leave unchanged" in chown(2) and setresuid(2)


class SpecError(ValueError):
    """A config.json is not what the specification says: where, and what it must be."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.path = path
        self.reason = reason

    def under(self, key: str) -> SpecError:
        """Return the same error seen from one level further up."""
        joint = "" if not self.path or self.path.startswith("[") else "."
        return SpecError(f"{key}{joint}{self.path}", self.reason)


def fail(reason: str) -> NoReturn:
    raise SpecError("", reason)


def text(value: Any) -> None:
    if type(value) is not str:
        fail("must be a string")
    if "\0" in value:
        fail("must not contain a NUL")


def non_empty(value: Any) -> None:
    text(value)
    if not value:
        fail("must not be empty")


def absolute(value: Any) -> None:
    text(value)
    if not value.startswith("/"):
        fail("must be an absolute path")


def boolean(value: Any) -> None:
    if type(value) is not bool:
        fail("must be true or false")


def integer(low: int, high: int) -> Check:
    def check(value: Any) -> None:
        # type(), as True is an int.
        if type(value) is not int:
            fail("must be an integer")
        if not low <= value <= high:
            fail(f"must be from {low} to {high}")

    return check


def one_of(words: Iterable[str]) -> Check:
    known = frozenset(words)

    def check(value: Any) -> None:
        if type(value) is not str or value not in known:
            fail(f"must be one of {', '.join(sorted(known))}")

    return check


# Checks made of checks


def list_of(item: Check, *, least: int = 0, unique: str = "") -> Check:
    """Return a check of a list; unique: the key whose values must differ."""

    def check(value: Any) -> None:
        if type(value) is not list:
            fail("must be an array")
        if len(value) < least:
            fail("must not be empty")
        seen = set()
        for index, element in enumerate(value):
            try:
                item(element)
            except SpecError as error:
                raise error.under(f"[{index}]") from None
            if unique:
                if element[unique] in seen:
                    raise SpecError(f"[{index}].{unique}", f"{element[unique]} is there twice")
                seen.add(element[unique])

    return check


def map_of(item: Check, *, key: Callable[[str], object] | None = None) -> Check:
    def check(value: Any) -> None:
        if type(value) is not dict:
            fail("must be an object")
        for name, element in value.items():
            try:
                if key is not None:
                    key(name)
                item(element)
            except SpecError as error:
                raise error.under(name) from None

    return check


def object_of(required: dict[str, Check], optional: dict[str, Check]) -> Check:
    known = required | optional

    def check(value: Any) -> None:
        if type(value) is not dict:
            fail("must be an object")
        for name in required:
            if name not in value:
                raise SpecError(name, "is missing")
        for name, element in value.items():
            item = known.get(name)
            if item is not None:
                try:
                    item(element)
                except SpecError as error:
                    raise error.under(name) from None

    return check


def all_of(*checks: Check) -> Check:
    def check(value: Any) -> None:
        for one in checks:
            one(value)

    return check


def line(value: Any) -> None:
    text(value)
    if "\n" in value:
        fail("must be one line")


def numbers(value: Any) -> list[int]:
    """Check a list of numbers such as 0-2,4, and return them."""
    text(value)
    found: list[int] = []
    for part in value.split(","):
        first, dash, last = part.partition("-")
        ends = (first, last) if dash else (first,)
        if not all(end.isascii() and end.isdigit() and int(end) <= MAX_NUMBER for end in ends):
            fail("must be numbers such as 0-2,4")
        found.extend(range(int(first), int(ends[-1]) + 1))
    return found


u16, u32, u64 = integer(0, 2**16 - 1), integer(0, 2**32 - 1), integer(0, 2**64 - 1)
i32, i64 = integer(-(2**31), 2**31 - 1), integer(-(2**63), 2**63 - 1)
id_number, texts, absolutes = integer(0, MAX_ID), list_of(text), list_of(absolute)
device_number = integer(-1, 2**32 - 1)
any_object = object_of({}, {})
