"""What commands say about their options and operands: typer's words, without typer.

Its import takes 75 to 110 ms, more than most commands.  `direct` reads these declarations for an
ordinary command line; for help, completion and everything else `click_command` makes typer's own
of them.  Nobody evaluates annotations: those of a command are among KINDS.
"""

# ruff: noqa: N802
# The names are typer's.

from __future__ import annotations

from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rootlesspy.cli.argv import Command
    from rootlesspy.cli.session import Session

TEXT, TEXTS = ("str", "str | None"), "list[str]"
ON_OR_OFF = ("bool", "bool | None")
NUMBERS = ("int", "int | None", "float")
KINDS = (*TEXT, TEXTS, *ON_OR_OFF, *NUMBERS)


class Context(NamedTuple):
    """What a command is called with, as much of typer's as commands use."""

    obj: Session
    params: dict[str, object]
    """What was given to the options of a table."""


class Declared(NamedTuple):
    """One option, or one operand, of a command."""

    default: Any
    names: tuple[str, ...]
    """None at all: it is an operand."""
    settings: dict[str, Any]
    """What else typer's function of this name takes."""

    @property
    def is_required(self) -> bool:
        """Whether it has to be given."""
        return self.default is ...


class Help(NamedTuple):
    """What `--help` says about one option of a table."""

    panel: str
    metavar: str
    text: str


class Table(NamedTuple):
    """Options that the fast parser has a table of."""

    command: Command
    helps: Mapping[str, Help]
    panels: Sequence[str]


def Option(default: Any, *names: str, **settings: Any) -> Any:
    """Declare an option; see typer.Option."""
    return Declared(default, names, settings)


def Argument(default: Any, **settings: Any) -> Any:
    """Declare an operand; see typer.Argument."""
    return Declared(default, (), settings)


def table_options(
    command: Command, helps: Mapping[str, Help], panels: Sequence[str]
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a function `(context, **values)` the options of a table.

    panels: the groups of `--help`, in their order.
    """

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        function.table = Table(command, helps, panels)  # type: ignore[attr-defined] # PEP 232
        return function

    return decorate


def table_of(function: Callable[..., Any]) -> Table | None:
    """Return the table that was given to a function."""
    return getattr(function, "table", None)


def declarations(function: Callable[..., Any]) -> dict[str, tuple[str, Declared]]:
    """Return what a function declares: its parameters' annotations and declarations, in order."""
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount][-len(defaults) :] if defaults else ()
    return {
        name: (function.__annotations__[name], default)
        for name, default in zip(names, defaults, strict=True)
    }
