"""The typer application: help, completion, the commands that need not be fast, and usage errors."""

# ruff: noqa: UP045
# typer 0.7 knows no X | None.

from __future__ import annotations

import os
import sys
import time
import warnings
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Optional

import typer
from typer.core import TyperGroup
from typer.main import get_command

from rootlesspy import __version__
from rootlesspy.cli import click_command, commands, completion
from rootlesspy.cli.click_command import Command, Interrupted, sections_of, write_sections
from rootlesspy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.cli.session import Session

_HELP_NAMES = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
# `-h` of run is --hostname, as in podman.
_RUN_SETTINGS = {**_HELP_NAMES, "help_option_names": ["--help"], "allow_interspersed_args": False}
# click shortens what is longer, in the middle of a sentence.
_WHOLE_LINE = 200

# Global options that take a value.
_WITH_VALUE = ("--store", "--hooks-dir")

# typer exports one of click's error classes in every version; ClickException is its grandparent.
_CLICK_ERROR: type[Any] = typer.BadParameter.__mro__[2]


class Group(TyperGroup):
    """The commands of rp."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, those of rp itself below headings, and then the options."""
        found: dict[str, list[tuple[str, str]]] = {}
        made: Any = self.commands
        for name, each in made.items():
            heading = each.rich_help_panel if ctx.parent is None else "Commands"
            row = (name, each.get_short_help_str(_WHOLE_LINE))
            found.setdefault(heading, []).append(row)
        write_sections(formatter, found)
        write_sections(formatter, sections_of(self.get_params(ctx), ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; raises UsageError with the nearest name for an unknown one."""
        name = args[0]
        if name in self.commands or name.startswith("-"):
            return super().resolve_command(ctx, args)
        from difflib import get_close_matches

        near = get_close_matches(name, list(self.commands), n=1)
        here = ctx.command_path
        hint = f"{here} --help"
        if near:
            hint = f"did you mean {here} {near[0]}?  {hint} lists all"
        raise UsageError(f"unknown command {name!r}", hint=hint)


def main(argv: Sequence[str], session: Session) -> int:
    """Parse argv with typer and run the command; return its exit code.

    Raises rootlesspy's errors, KeyboardInterrupt and BrokenPipeError, and none of click's.
    """
    words = list(argv)
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    try:
        code = command(words or completion.typed_words(os.environ)).main(
            words or ["--help"], prog_name="rp", standalone_mode=False, obj=session
        )
    except Interrupted as interruption:
        raise interruption.__cause__ or KeyboardInterrupt() from None
    except typer.Abort:
        raise KeyboardInterrupt from None
    except _CLICK_ERROR as error:
        raise usage_error(error, words) from error
    except SystemExit as leaving:
        # click turns EPIPE into exit code 1; shell completion leaves this way too.
        if isinstance(leaving.__context__, OSError):
            raise BrokenPipeError from None
        return leaving.code if isinstance(leaving.code, int) else 0
    return code if isinstance(code, int) else 0


def command(words: Sequence[str] | None = None) -> Any:
    """Build the command tree: all of it, or with words what they name.

    Each command brings a module; those that are not typed are not imported.  Where words name no
    command there are names and texts alone, which a list of commands needs.
    """
    listed = words is not None
    application = _group("rp", "Run OCI containers as an ordinary user; systemd is the daemon.")
    application.callback()(_global_options)
    name, below = (*_operands(words or ()), "", "")[:2]
    entries = _named(commands.top_level(), name)
    if name not in commands.GROUPS:
        _register(application, entries, listed=listed and entries[0].name != name)
    for group, text in commands.GROUPS.items():
        if entries[0].name == name or (name in commands.GROUPS and name != group):
            continue
        inner = _filled(group, text, below, listed=listed)
        for inmost, words_of_help in commands.INNER_GROUPS.items():
            first, _, last = inmost.partition(" ")
            if first == group:
                filled = _filled(inmost, words_of_help, "", listed=False)
                inner.add_typer(filled, name=last, help=words_of_help)
        application.add_typer(inner, name=group, help=text, rich_help_panel="Groups")
    with warnings.catch_warnings():
        # typer 0.7 passes its own `autocompletion` on to itself by a deprecated name.
        warnings.simplefilter("ignore", DeprecationWarning)
        return get_command(application)


def _filled(group: str, text: str, name: str, *, listed: bool) -> typer.Typer:
    """Return a group with its command of this name, or with all of them when it has none."""
    made = _group(group, text)
    made.callback()(_no_options)
    entries = _named(commands.of_group(group), name)
    _register(made, entries, listed=listed and entries[0].name != name)
    return made


def _named(entries: tuple[commands.Entry, ...], name: str) -> tuple[commands.Entry, ...]:
    return tuple(entry for entry in entries if entry.name == name) or entries


def _group(name: str, text: str) -> typer.Typer:
    return typer.Typer(
        name=name,
        cls=Group,
        help=text,
        epilog=f"{'rp' if name == 'rp' else f'rp {name}'} COMMAND --help says more about each.",
        context_settings=_HELP_NAMES,
        rich_markup_mode=None,
    )


def _register(group: typer.Typer, entries: tuple[commands.Entry, ...], *, listed: bool) -> None:
    """Add commands to a group; those that are only listed have a name and a text."""
    for entry, text in zip(entries, commands.docstrings(entries), strict=True):
        register = group.command(
            entry.name,
            cls=Command,
            help=_paragraphs(text),
            context_settings=_RUN_SETTINGS if entry.has_payload else _HELP_NAMES,
            rich_help_panel=entry.panel,
        )
        register(_no_options if listed else click_command.typed(commands.function(entry)))


def _no_options() -> None:
    """Stand for a group's own options, and for a command that is only listed."""


def usage_error(error: Any, words: Sequence[str]) -> UsageError:
    """Say in rp's words what click found wrong with an argv."""
    context = getattr(error, "ctx", None)
    # Not every version tells which command an option without argument belongs to.
    path = context.command_path if context else " ".join(["rp", *_operands(words)[:1]])
    hint = f"{path} --help"
    kind = type(error).__name__
    if kind == "NoSuchOption":
        near = getattr(error, "possibilities", None)
        if near:
            hint = f"did you mean {' or '.join(sorted(near))}?  {hint}"
        return UsageError(f"unknown option {error.option_name}", hint=hint)
    if kind == "BadOptionUsage":
        return UsageError(f"option {error.option_name} needs an argument", hint=hint)
    if kind == "MissingParameter" and error.param is not None:
        name = (error.param.metavar or error.param.name).strip("[].")
        return UsageError(f"{path}: {name} is missing", hint=hint)
    message = str(error.format_message()).strip().rstrip(".")
    return UsageError(f"{message[:1].lower()}{message[1:]}", hint=hint)


def _paragraphs(text: str) -> str:
    """Join the lines of each paragraph, for the terminal to break where it is wide."""
    return "\n\n".join(" ".join(each.split()) for each in text.split("\n\n"))


def _operands(words: Sequence[str]) -> list[str]:
    """Return the words that are no options, as far as the global options tell."""
    values = [word for before, word in pairwise(("", *words)) if before not in _WITH_VALUE]
    return [word for word in values if not word.startswith("-")]


def _print_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"rp version {__version__}\n")
        raise typer.Exit


def _global_options(
    context: typer.Context,
    debug: bool = typer.Option(
        False, "--debug", help="Print each step before it is done.", show_default=False
    ),
    debug_timing: bool = typer.Option(
        False,
        "--debug-timing",
        help="Print when each step began and what it took, in milliseconds.",
        show_default=False,
    ),
    store: Optional[str] = typer.Option(
        None,
        "--store",
        metavar="DIR",
        help="Keep images, containers and volumes below DIR/rootlesspy, as XDG_DATA_HOME=DIR does.",
        show_default=False,
    ),
    hooks_dir: Optional[list[str]] = typer.Option(
        None,
        "--hooks-dir",
        metavar="DIR",
        help="As the option of run and create of this name.",
        show_default=False,
    ),
    version: bool = typer.Option(
        False,
        "--version",
        help="Print the version.",
        is_eager=True,
        show_default=False,
        callback=_print_version,
    ),
) -> None:
    if debug:
        context.obj.reporter.debug = True
    if debug_timing and not context.obj.reporter.began_ns:
        context.obj.reporter.began_ns = time.monotonic_ns()
    if hooks_dir:
        context.obj = context.obj._replace(hooks_dirs=tuple(hooks_dir))
    if store is not None:
        # What rp starts, in the user's session or as its child, is told by the same variable.
        os.environ["XDG_DATA_HOME"] = os.path.abspath(store)
