"""What modules use of typing while they run, without typing.

Its import takes 3 ms, and a NamedTuple 0.1 to 3 ms, as every annotation is compiled: together that
was a third of all that `rp run` imported.  Type checkers see the real ones, and a test compares.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any as Any
    from typing import NamedTuple as NamedTuple
    from typing import NoReturn as NoReturn
    from typing import Protocol as Protocol
    from typing import TypedDict as TypedDict
    from typing import TypeVar as TypeVar
    from typing import cast as cast
else:
    from _collections import _tuplegetter

    # Nobody evaluates annotations.
    Any = NoReturn = object

    class Protocol:
        """What an argument must be able to do."""

    class TypedDict(dict):
        """Which keys a dict has; instances are plain dicts."""

        def __init_subclass__(cls, *, total=True):
            """Take what a type checker wants to know."""

        def __new__(cls, *arguments, **named):
            return dict(*arguments, **named)

    class TypeVar:
        """A name for annotations."""

        def __init__(self, name, *_constraints, bound=None):
            self.__name__ = name

    def cast(_kind, value):
        """Return the value."""
        return value

    class _Named(tuple):
        """What all named tuples can do."""

        __slots__ = ()
        _fields = ()
        _field_defaults = {}  # noqa: RUF012 - that of a class without fields

        def __new__(cls, *values, **named):
            if named or len(values) != len(cls._fields):
                values = _complete(cls, values, named)
            return tuple.__new__(cls, values)

        @classmethod
        def _make(cls, values):
            """Return a record of as many values as there are fields."""
            made = tuple.__new__(cls, values)
            if len(made) != len(cls._fields):
                raise TypeError(f"{cls.__name__} has {len(cls._fields)} fields, not {len(made)}")
            return made

        def _replace(self, **changed):
            """Return a record in which some fields differ."""
            return type(self)(**{**self._asdict(), **changed})

        def _asdict(self):
            """Return the fields by their names."""
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self):
            fields = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
            return f"{type(self).__name__}({fields})"

        def __getnewargs__(self):
            """Return the values, for copy and pickle."""
            return tuple(self)

    def _complete(cls, values, named):
        """Return all values of a record, in their order; raises TypeError."""
        fields = cls._fields
        positional = dict(zip(fields, values, strict=False))
        whole = {**cls._field_defaults, **positional, **named}
        if (
            len(values) > len(fields)
            or len(whole) != len(fields)
            or not positional.keys().isdisjoint(named)
            or not named.keys() <= set(fields)
        ):
            wrong = ", ".join(sorted(set(fields) ^ set(whole))) or "a field is given twice"
            raise TypeError(f"{cls.__name__}() takes ({', '.join(fields)}): {wrong}")
        return map(whole.__getitem__, fields)

    class _Maker(type):
        """Makes a record's class from a class body."""

        def __new__(cls, name, _bases, namespace):
            fields = tuple(namespace.get("__annotations__", ()))
            defaults = {field: namespace[field] for field in fields if field in namespace}
            for index, field in enumerate(fields):
                namespace[field] = _tuplegetter(index, None)
            namespace.update(
                _fields=fields, _field_defaults=defaults, __match_args__=fields, __slots__=()
            )
            return type(name, (_Named,), namespace)

    # A record's class is a plain one: nothing is left of what made it.
    NamedTuple = type.__new__(_Maker, "NamedTuple", (), {})
