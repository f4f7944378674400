"""The command tree that is built for an argv: what it names in full, and lists of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from rootlesspy.cli import app, commands

WHOLE = app.command()


def below(tree: Any, name: str) -> Any:
    for word in name.split():
        tree = tree.commands[word]
    return tree


def parameters(command: Any) -> list[tuple[str, list[str], str | None]]:
    return [(each.name, each.opts, each.help) for each in command.params]


@pytest.mark.parametrize("before", ["", "--debug", "--store /x", "--hooks-dir=/x"])
@pytest.mark.parametrize("entry", commands.COMMANDS, ids=lambda entry: str(entry.name))
def test_a_command_that_is_named_is_whole(entry: commands.Entry, before: str) -> None:
    built = below(app.command([*before.split(), *entry.name.split(), "x"]), entry.name)
    assert parameters(built) == parameters(below(WHOLE, entry.name))
    assert built.callback is not app._no_options


@pytest.mark.parametrize("words", ["", "--help", "nosuch", *commands.GROUPS, "image trust"])
def test_where_none_is_named_all_are_listed(words: str) -> None:
    built = app.command(words.split())
    group = words if words in (*commands.GROUPS, *commands.INNER_GROUPS) else ""
    listed, whole = below(built, group), below(WHOLE, group)
    assert set(listed.commands) == set(whole.commands)
    for name, command in listed.commands.items():
        assert command.help == whole.commands[name].help
        assert command.rich_help_panel == whole.commands[name].rich_help_panel


@pytest.mark.parametrize("entry", commands.COMMANDS, ids=lambda entry: str(entry.name))
def test_docstrings_are_found_in_the_byte_code(entry: commands.Entry) -> None:
    assert commands.docstrings([entry]) == [commands.function(entry).__doc__]
