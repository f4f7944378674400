"""typer's command class with the rules of podman's flag package, and options made for typer.

typer bundles click in its newer versions and imports it in the older ones; what is used here are
attributes of the objects, which both have, and never the module click.
"""

# ruff: noqa: UP045
# typer 0.7 knows no X | None.

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Optional

import typer
from typer.core import TyperCommand

from rootlesspy.cli import argv, completion, light_typer
from rootlesspy.engine.inputs.constants import BOOLEANS
from rootlesspy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


# What the shell offers for an operand.
_COMPLETIONS: dict[str, Callable[[str], list[str]]] = {
    "CONTAINER": completion.containers,
    "CONTAINER...": completion.containers,
    "IMAGE": completion.images,
}


_TYPES: dict[str, Any] = {
    "str": str, "str | None": Optional[str], "list[str]": list[str],
    "bool": bool, "bool | None": Optional[bool],
    "int": int, "int | None": Optional[int], "float": float,
}  # fmt: skip
"""The types of light_typer.KINDS."""
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


class Interrupted(Exception):
    """Carries a KeyboardInterrupt or BrokenPipeError past click, which has exits of its own."""


class Command(TyperCommand):
    """A command whose argv is read as podman reads it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Rewrite `--flag=false` and `-e=VALUE`, which click does not know, and parse."""
        plain = plain_forms(self.get_params(ctx), args, interspersed=ctx.allow_interspersed_args)
        return list(super().parse_args(ctx, plain))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write operands and options under the headings that they were declared with."""
        write_sections(formatter, sections_of(self.get_params(ctx), ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; leave interruptions to `__main__`."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, BrokenPipeError) as error:
            raise Interrupted from error


def sections_of(parameters: Iterable[Any], ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Return names and texts of a command's parameters by heading; what all have comes last."""
    found: dict[str, list[tuple[str, str]]] = {}
    for parameter in parameters:
        row = parameter.get_help_record(ctx)
        if row is not None:
            named = "Arguments" if parameter.param_type_name == "argument" else "Options"
            found.setdefault(getattr(parameter, "rich_help_panel", None) or named, []).append(row)
    return {**found, "Options": found.pop("Options", [])}


def write_sections(formatter: Any, sections: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Write a list of names and texts below each heading."""
    for heading, rows in sections.items():
        if rows:
            with formatter.section(heading):
                formatter.write_dl(rows)


def typed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command with the signature that typer reads, made of what it declares."""
    table = light_typer.table_of(function)
    if table is None:
        made = [
            _declared(name, annotation, declared)
            for name, (annotation, declared) in light_typer.declarations(function).items()
        ]
    else:
        command, helps, panels = table
        ordered = sorted(command.options, key=lambda each: panels.index(helps[each.dest].panel))
        made = [
            *_operands(command, helps),
            *(_parameter(option, helps[option.dest]) for option in ordered),
        ]
    context = inspect.Parameter("context", _KEYWORD, annotation=typer.Context)
    parameters = [context, *made]

    def carry_out(**values: Any) -> Any:
        return function(**values)

    carry_out.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # see inspect
    carry_out.__annotations__ = {each.name: each.annotation for each in parameters}
    return carry_out


def plain_forms(parameters: Sequence[Any], args: Iterable[str], *, interspersed: bool) -> list[str]:
    """Rewrite argv without `--flag=BOOLEAN` and `-e=VALUE`; raises UsageError for a bad boolean."""
    options: dict[str, Any] = {
        name: parameter
        for parameter in parameters
        if parameter.param_type_name == "option"
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    # Each piece with the flag it switches on: a later --flag=false takes it back.
    pieces: list[tuple[str | None, list[str]]] = []
    words = list(args)
    while words:
        word = words.pop(0)
        if word == "--" or (not interspersed and not _is_option(word)):
            pieces.append((None, [word, *words]))
            break
        if not _is_option(word):
            pieces.append((None, [word]))
        elif word.startswith("--"):
            _long(options, word, words, pieces)
        else:
            _cluster(options, word, words, pieces)
    return [word for _, piece in pieces for word in piece]


def _is_option(word: str) -> bool:
    return len(word) > 1 and word[0] == "-"


def _long(
    options: Mapping[str, Any],
    word: str,
    words: list[str],
    pieces: list[tuple[str | None, list[str]]],
) -> None:
    name, equals, text = word.partition("=")
    option = options.get(name)
    if option is not None and option.is_flag:
        _flag(option, name, text if equals else "true", pieces)
    elif option is not None and not equals and words:
        pieces.append((None, [word, words.pop(0)]))
    else:
        pieces.append((None, [word]))


def _cluster(
    options: Mapping[str, Any],
    word: str,
    words: list[str],
    pieces: list[tuple[str | None, list[str]]],
) -> None:
    for index in range(1, len(word)):
        name, tail = f"-{word[index]}", word[index + 1 :]
        option = options.get(name)
        if option is None:
            # As it was typed, for click to refuse.
            pieces.append((None, [word]))
            return
        has_equals = len(tail) > 1 and tail[0] == "="
        if option.is_flag:
            _flag(option, name, tail[1:] if has_equals else "true", pieces)
            if has_equals:
                return
        elif tail:
            pieces.append((None, [name, tail[1:] if has_equals else tail]))
            return
        else:
            pieces.append((None, [name, *words[:1]]))
            del words[:1]


def _flag(option: Any, name: str, text: str, pieces: list[tuple[str | None, list[str]]]) -> None:
    if text not in BOOLEANS:
        raise UsageError(f"{name} {text!r}: expected true or false")
    if BOOLEANS[text]:
        pieces.append((option.name, [name]))
    else:
        pieces[:] = [piece for piece in pieces if piece[0] != option.name]
        # One that is on unless it is switched off has a name for that.
        pieces.extend((option.name, [each]) for each in option.secondary_opts[:1])


def _declared(name: str, annotation: str, declared: light_typer.Declared) -> inspect.Parameter:
    make = typer.Option if declared.names else typer.Argument
    default = make(declared.default, *declared.names, **declared.settings)
    return inspect.Parameter(name, _KEYWORD, default=default, annotation=_TYPES[annotation])


def _parameter(option: argv.Option, help_text: light_typer.Help) -> inspect.Parameter:
    annotation: Any = {
        argv.FLAG: bool,
        argv.SWITCH: bool,
        argv.VALUE: Optional[str],
        argv.LIST: list[str],
    }[option.kind]
    names = option.names
    if option.kind == argv.SWITCH:
        names = tuple(f"{name}/--no-{name.removeprefix('--')}" for name in names)
    default = typer.Option(
        {argv.FLAG: False, argv.SWITCH: True}.get(option.kind),
        *names,
        help=help_text.text,
        metavar=None if annotation is bool else help_text.metavar,
        rich_help_panel=help_text.panel,
        show_default=False,
    )
    return inspect.Parameter(option.dest, _KEYWORD, default=default, annotation=annotation)


def _operands(
    command: argv.Command, helps: Mapping[str, light_typer.Help]
) -> list[inspect.Parameter]:
    operands = []
    places = ((command.operand, True), (command.rest, False), (command.operands, False))
    for dest, required in places:
        if dest is None:
            continue
        default = typer.Argument(
            ... if required else None, metavar=helps[dest].metavar, help=helps[dest].text,
            show_default=False, autocompletion=_COMPLETIONS.get(helps[dest].metavar),
        )  # fmt: skip
        annotation: Any = str if required else list[str]
        operands.append(inspect.Parameter(dest, _KEYWORD, default=default, annotation=annotation))
    return operands
