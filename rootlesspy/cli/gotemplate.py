"""The subset of Go's text/template that `--format` is used with: carried out on plain values.

Fields, variables, pipes, if/else, range with break and continue, with, comments, {{- trimming -}},
and the functions of gotemplate_functions.py.  A template is text of the user; data is plain
JSON-like values.  A `Record` knows its fields: another one is an error, as a missing field of a Go
struct is; a plain dict yields "<no value>".  Reference: https://pkg.go.dev/text/template.

No library does this in Python: what there is binds Go's own as a shared object.
"""

from __future__ import annotations

from rootlesspy.cli.gotemplate_functions import FUNCTIONS, NO_VALUE, truth, write
from rootlesspy.cli.gotemplate_functions import Record as Record
from rootlesspy.cli.gotemplate_parse import Action, Jump, Text, parse
from rootlesspy.cli.gotime import Time
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.cli.gotemplate_parse import Block, Operand, Pipe


class _Scope:
    """The variables of a block, and those of the blocks around it."""

    def __init__(self, around: _Scope | None = None) -> None:
        self._values: dict[str, Any] = {}
        self._around = around

    def get(self, name: str) -> Any:
        """Return the value of a variable; raises UsageError."""
        return self._owner(name)._values[name]

    def declare(self, name: str, value: Any) -> None:
        self._values[name] = value

    def assign(self, name: str, value: Any) -> None:
        """Change a variable where it was declared; raises UsageError."""
        self._owner(name)._values[name] = value

    def _owner(self, name: str) -> _Scope:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope._values:
                return scope
            scope = scope._around
        raise UsageError(f"--format: variable {name} is not set")


class _Run:
    """One execution: what is written, and what is done to it first."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        self.output: list[str] = []
        self._clean = clean

    def nodes(self, nodes: list[Any], dot: Any, scope: _Scope) -> str:
        """Carry out nodes; return the break or continue that ended them, or ""."""
        for node in nodes:
            jump = ""
            if isinstance(node, Text):
                self.output.append(node.text)
            elif isinstance(node, Jump):
                return node.keyword
            elif isinstance(node, Action):
                value = _evaluate(node.pipe, dot, scope)
                if not node.pipe.variables:
                    self.output.append(self._clean(write(value)))
            elif node.keyword == "range":
                self._range(node, dot, scope)
            else:
                inner = _Scope(scope)
                value = _evaluate(node.pipe, dot, inner)
                chosen = node.body if truth(value) else node.otherwise
                within = value if node.keyword == "with" and truth(value) else dot
                jump = self.nodes(chosen, within, inner)
            if jump:
                return jump
        return ""

    def _range(self, node: Block, dot: Any, scope: _Scope) -> None:
        outer = _Scope(scope)
        pipe = node.pipe
        items = _items(_evaluate(pipe._replace(variables=()), dot, outer))
        if not items:
            self.nodes(node.otherwise, dot, outer)
        for key, item in items:
            inner = _Scope(outer)
            store = inner.declare if pipe.declares else scope.assign
            if len(pipe.variables) == 2:
                store(pipe.variables[0], key)
            if pipe.variables:
                store(pipe.variables[-1], item)
            if self.nodes(node.body, item, inner) == "break":
                break


def render(template: str, data: object, *, clean: Callable[[str], str] = str) -> str:
    """Execute template on data; clean is applied to what actions write, not to literal text.

    Raises UsageError, which names what is wrong with the template.
    """
    nodes = parse(template)
    scope = _Scope()
    scope.declare("$", data)
    run = _Run(clean)
    jump = run.nodes(nodes, data, scope)
    if jump:
        raise UsageError(f"--format: {{{{{jump}}}}} without range")
    return "".join(run.output)


def _items(value: Any) -> list[tuple[Any, Any]]:
    """Return what range goes over: keys and values, in the order of the keys."""
    if isinstance(value, dict):
        return sorted(value.items())
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return [(number, number) for number in range(value)]
    if value is None or value is NO_VALUE:
        return []
    raise UsageError(f"--format: range cannot go over {write(value)!r}")


def _evaluate(pipe: Pipe, dot: Any, scope: _Scope) -> Any:
    value: Any = None
    for number, command in enumerate(pipe.commands):
        value = _command(command, [value] if number else [], dot, scope)
    for name in pipe.variables:
        if pipe.declares:
            scope.declare(name, value)
        else:
            scope.assign(name, value)
    return value


def _command(command: list[Any], piped: list[Any], dot: Any, scope: _Scope) -> Any:
    first = command[0]
    if first.kind == "function" and first.value in ("and", "or"):
        return _decide(command, piped, dot, scope)
    arguments = [*(_value(operand, dot, scope) for operand in command[1:]), *piped]
    if first.kind != "function":
        value = _looked_up(first, dot, scope)
        if callable(value):
            return _call(first.fields[-1], value, arguments)
        if arguments:
            raise UsageError(f"--format: {write(value)!r} takes no argument")
        return value
    if first.value not in FUNCTIONS:
        raise UsageError(
            f"--format: function {first.value!r} is not known",
            hint=f"known are {', '.join(sorted((*FUNCTIONS, 'and', 'or')))}",
        )
    return _call(first.value, FUNCTIONS[first.value], arguments)


def _decide(command: list[Any], piped: list[Any], dot: Any, scope: _Scope) -> Any:
    """Carry out and, or: as in Go what need not be looked at is not."""
    name = command[0].value
    value: Any = None
    if not command[1:] and not piped:
        raise UsageError(f"--format: {name} cannot work on 0 such values")
    for operand in command[1:]:
        value = _value(operand, dot, scope)
        if truth(value) is (name == "or"):
            return value
    return piped[0] if piped else value


def _call(name: str, function: Callable[..., Any], arguments: list[Any]) -> Any:
    try:
        return function(*arguments)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise UsageError(f"--format: {name} cannot work on {len(arguments)} such values") from error


def _value(operand: Operand, dot: Any, scope: _Scope) -> Any:
    """Return the value of an operand; a field that is a function is called, as methods are."""
    value = _looked_up(operand, dot, scope)
    return _call(operand.fields[-1], value, []) if callable(value) else value


def _looked_up(operand: Operand, dot: Any, scope: _Scope) -> Any:
    if operand.kind == "constant":
        return operand.value
    if operand.kind == "pipe":
        value = _evaluate(operand.value, dot, scope)
    elif operand.kind == "variable":
        value = scope.get(operand.value)
    elif operand.kind == "function":
        return _command([operand], [], dot, scope)
    else:
        value = dot
    for name in operand.fields:
        value = _field(value, name)
    return value


def _field(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        try:
            return value[name]
        except KeyError:
            if not isinstance(value, Record):
                return NO_VALUE
    elif value is None or value is NO_VALUE:
        return NO_VALUE
    elif isinstance(value, Time) and name in Time.METHODS:
        found = getattr(value, name.lower())
        return found if name == "Format" else found()
    known = f"known are {', '.join(sorted(value))}" if isinstance(value, Record) else None
    raise UsageError(f"--format: there is no field {name!r}", hint=known)
