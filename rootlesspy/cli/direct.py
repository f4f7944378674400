"""Carry out a command as its function declares it, without typer.

`execute` declines by returning None whatever it is not sure of, as argv.parse does: global options,
help, unknown options, numbers, missing and surplus operands.  Then typer parses the same argv and
reports.
"""

from __future__ import annotations

import sys

from rootlesspy import __version__
from rootlesspy.cli import argv, commands, light_typer
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootlesspy.cli.light_typer import Declared
    from rootlesspy.cli.session import Session

_OPERANDS = "OPERANDS"
"""Where all operands go before it is known whose they are; no parameter has such a name."""


def execute(words: Sequence[str], session: Session) -> int | None:
    """Parse argv and run the command; return its exit code, None when typer has to do it.

    Raises rootlesspy's errors.
    """
    rest = list(words)
    while rest and rest[0] in ("--debug", "--debug-timing"):
        del rest[0]
    if rest == ["--version"]:
        sys.stdout.write(f"rp version {__version__}\n")
        return 0
    found = commands.typed(rest)
    if found is None:
        return None
    entry, count = found
    function = commands.function(entry)
    understood = parse(function, rest[count:], interspersed=not entry.has_payload)
    if understood is None:
        return None
    if light_typer.table_of(function) is not None:
        code = function(light_typer.Context(session, understood))
    else:
        code = function(light_typer.Context(session, {}), **understood)
    return code if isinstance(code, int) else 0


def parse(
    function: Callable[..., Any], words: list[str], *, interspersed: bool
) -> dict[str, Any] | None:
    """Return what a command is given by the words after its name, all of it or what was typed."""
    table = light_typer.table_of(function)
    if table is not None:
        typed = argv.parse_command(table.command, words)
        on = {each.dest: True for each in table.command.options if each.kind == argv.SWITCH}
        return None if typed is None else on | typed
    declared = light_typer.declarations(function)
    options = [
        _option(name, annotation, each)
        for name, (annotation, each) in declared.items()
        if each.names
    ]
    command = argv.Command(
        "", tuple(options), operand=None, operands=_OPERANDS, interspersed=interspersed
    )
    given = argv.parse_command(command, words)
    if given is None:
        return None
    texts = given.pop(_OPERANDS, [])
    if any(declared[name][0] in light_typer.NUMBERS for name in given):
        return None
    return _complete(declared, given, texts if isinstance(texts, list) else [])


def _option(name: str, annotation: str, declared: Declared) -> argv.Option:
    kind = argv.VALUE
    if annotation in light_typer.ON_OR_OFF:
        kind = argv.FLAG
    elif annotation == light_typer.TEXTS:
        kind = argv.LIST
    # What switches it off by a name of its own is typer's.
    names = tuple(each.partition("/")[0] for each in declared.names)
    return argv.Option(name, kind, names)


def _complete(
    declared: dict[str, tuple[str, Declared]], given: dict[str, Any], texts: list[str]
) -> dict[str, Any] | None:
    """Add operands and defaults; None when operands are missing or left over."""
    left = list(texts)
    for name, (annotation, each) in declared.items():
        if each.names:
            given.setdefault(name, each.default)
        elif annotation == light_typer.TEXTS:
            given[name], left = left, []
        elif left:
            given[name] = left.pop(0)
        else:
            given[name] = each.default
        if given[name] in (..., []) and each.is_required:
            return None
    return None if left else given
