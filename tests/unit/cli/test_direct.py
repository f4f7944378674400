"""Commands without typer: what is understood is what typer understands, and the rest is typer's."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from rootlesspy.cli import app, commands, direct, light_typer
from rootlesspy.errors import UsageError

TREE = app.command()
TEXTS = st.sampled_from(["", "A=B", "x", "true", "-", "--", "-1", "--help", "=x", "7", "a b"])


def slow(entry: commands.Entry, words: list[str]) -> dict[str, Any] | None:
    """Return what typer understood; None when it refused or showed help."""
    command = TREE
    for name in entry.name.split():
        command = command.commands[name]
    try:
        context = command.make_context(entry.name, list(words), obj=None)
    except (UsageError, SystemExit, app._CLICK_ERROR, typer.Exit):
        return None
    return normal(context.params)


def fast(entry: commands.Entry, words: list[str]) -> dict[str, Any] | None:
    function = commands.function(entry)
    found = direct.parse(function, words, interspersed=not entry.has_payload)
    return None if found is None else normal(found)


def normal(values: dict[str, Any]) -> dict[str, Any]:
    """Make nothing of what is nothing: a flag that is off, no texts, no text at all."""
    tuples = {
        name: tuple(each) if isinstance(each, list) else each for name, each in values.items()
    }
    return {name: each for name, each in tuples.items() if each not in (None, (), False)}


def of_table(entry: commands.Entry) -> bool:
    return light_typer.table_of(commands.function(entry)) is not None


DECLARED = [entry for entry in commands.COMMANDS if not of_table(entry)]
TABLES = [entry for entry in commands.COMMANDS if of_table(entry)]


@pytest.mark.parametrize("entry", DECLARED, ids=lambda entry: str(entry.name))
def test_declarations_are_of_known_kinds(entry: commands.Entry) -> None:
    declared = light_typer.declarations(commands.function(entry))
    lists = [
        name for name, (kind, each) in declared.items() if kind == "list[str]" and not each.names
    ]
    operands = [name for name, (_, each) in declared.items() if not each.names]
    # A list takes all that is left: it can only be the last.
    assert lists in ([], operands[-1:])
    for kind, each in declared.values():
        assert kind in light_typer.KINDS
        assert all(name.startswith("-") for name in each.names)


@pytest.mark.parametrize("entry", DECLARED, ids=lambda entry: str(entry.name))
def test_each_option_alone_is_what_typer_takes_it_for(entry: commands.Entry) -> None:
    declared = light_typer.declarations(commands.function(entry))
    operands = ["x", "y", "z"][: sum(each.is_required for _, each in declared.values())]
    assert fast(entry, operands) == slow(entry, operands) != None  # noqa: E711
    understood = 0
    for kind, each in declared.values():
        for name in (part for names in each.names for part in names.split("/")):
            argument = [] if kind in light_typer.ON_OR_OFF else ["7"]
            for words in (
                [name, *argument, *operands],
                [*operands, f"{name}={'true' if not argument else '7'}"],
            ):
                found = fast(entry, words)
                if found is not None:
                    understood += 1
                    assert found == slow(entry, words), words
                else:
                    assert kind in light_typer.NUMBERS or "/" in "".join(each.names), words
    assert understood >= sum(
        kind not in light_typer.NUMBERS for kind, each in declared.values() if each.names
    )


@pytest.mark.parametrize("entry", DECLARED, ids=lambda entry: str(entry.name))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_both_agree_about_anything(entry: commands.Entry, data: st.DataObject) -> None:
    declared = light_typer.declarations(commands.function(entry))
    names = [
        part for _, each in declared.values() for names in each.names for part in names.split("/")
    ]
    tokens = st.one_of(TEXTS, st.text(max_size=3))
    if names:
        tokens = st.one_of(
            st.sampled_from(names), st.builds("{}={}".format, st.sampled_from(names), TEXTS), tokens
        )
    words = data.draw(st.lists(tokens, max_size=5))
    found = fast(entry, words)
    if found is not None:
        assert found == slow(entry, words)


@pytest.mark.parametrize("entry", TABLES, ids=lambda entry: str(entry.name))
def test_commands_with_a_table_are_parsed_by_it(entry: commands.Entry) -> None:
    table = light_typer.table_of(commands.function(entry))
    assert table is not None
    words = ["--help"]
    assert direct.parse(commands.function(entry), words, interspersed=True) is None
    operands = ["x", "y"] if table.command.operand or table.command.operands else []
    found = direct.parse(commands.function(entry), operands, interspersed=True)
    assert found is not None
    assert normal(found) == slow(entry, operands)


@pytest.mark.parametrize(
    ("words", "name", "count"),
    [
        ("images -q", "images", 1),
        ("image ls", "ls", 2),
        ("container run alpine", "run", 2),
        ("image trust show", "show", 3),
        ("pod ps", "ps", 2),
    ],
)
def test_which_command_is_typed(words: str, name: str, count: int) -> None:
    found = commands.typed(words.split())
    assert found is not None
    assert (found[0].name, found[1]) == (name, count)


@pytest.mark.parametrize(
    "words", ["", "image", "image trust", "imags", "image nosuch", "--store x"]
)
def test_what_is_no_command_is_typers(words: str) -> None:
    assert commands.typed(words.split()) is None
