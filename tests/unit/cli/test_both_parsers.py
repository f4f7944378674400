"""The fast parser against typer: the same table, and the same answer for every argv."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.core import TyperCommand

from rootlesspy.cli import app, argv
from rootlesspy.errors import UsageError

CORPUS = Path(__file__).with_name("argv.txt")
TREE = app.command()


def corpus() -> list[tuple[list[str], bool]]:
    """Return command lines, and whether they must be understood."""
    text = CORPUS.read_text(encoding="utf-8").replace("\nB'", "\0B'")
    lines = [line.replace("\0", "\n") for line in text.splitlines() if line[:1] not in ("#", "")]
    return [(shlex.split(line.removeprefix("! ")), line[:2] != "! ") for line in lines]


def fast(words: list[str]) -> dict[str, object] | None:
    """Return what the fast parser understood, every option present; None when it declined."""
    invocation = argv.parse(words)
    return None if invocation is None else normal(invocation.command, invocation.values)


def slow(words: list[str], *, raw: bool = False) -> dict[str, object] | None:
    """Return what typer understood; None when it refused or showed help."""
    command = TREE.commands[words[0]]
    settings_ = {name: value for name, value in command.context_settings.items() if name != "obj"}
    try:
        if raw:
            context = type(TREE).context_class(command, info_name=words[0], **settings_)
            TyperCommand.parse_args(command, context, words[1:])
        else:
            context = command.make_context(words[0], words[1:])
    except (UsageError, SystemExit, app._CLICK_ERROR):
        return None
    except typer.Exit:
        return None  # after --help
    table = next(each for each in argv.HOT if each.name == words[0])
    return normal(table, argv.Values(context.params))


def normal(command: argv.Command, values: argv.Values) -> dict[str, object]:
    read: dict[str, Any] = {
        argv.FLAG: values.flag,
        argv.SWITCH: lambda dest: values.flag(dest, default=True),
        argv.VALUE: values.value,
        argv.LIST: values.values,
    }
    found = {option.dest: read[option.kind](option.dest) for option in command.options}
    if command.operand is not None:
        found[command.operand] = values.value(command.operand)
    if command.rest is not None:
        found[command.rest] = values.values(command.rest)
    if command.operands is not None:
        found[command.operands] = values.values(command.operands)
    return found


@pytest.mark.parametrize("table", argv.HOT, ids=lambda table: str(table.name))
def test_table_is_what_typer_has(table: argv.Command) -> None:
    command = TREE.commands[table.name]
    options = {each.name: each for each in command.params if each.param_type_name == "option"}
    assert set(options) == {option.dest for option in table.options}
    for option in table.options:
        made = options[option.dest]
        assert tuple(made.opts) == option.names
        switch = [f"--no-{name[2:]}" for name in option.names if option.kind == argv.SWITCH]
        assert made.secondary_opts == switch
        assert made.is_flag is (option.kind in (argv.FLAG, argv.SWITCH))
        assert made.multiple is (option.kind == argv.LIST)
        assert made.nargs == 1
        assert made.help, option.dest
        assert made.required is False
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    expected = [dest for dest in (table.operand, table.rest, table.operands) if dest is not None]
    assert [each.name for each in arguments] == expected


@pytest.mark.parametrize(
    "words",
    ["alpine", "-q alpine", "--quiet=false a b", "--policy=never a", "a --policy missing -q",
     "--platform linux/arm64 -- a"],
)  # fmt: skip
def test_the_common_options_of_pull(words: str) -> None:
    line = ["pull", *words.split()]
    command = TREE.commands["pull"]
    context = command.make_context("pull", line[1:])
    understood = normal(argv.PULL, argv.Values(context.params))
    found = fast(line)
    assert found is not None
    assert {**found, "policy": found["policy"] or "always"} == understood


@pytest.mark.parametrize("words", ["-a x", "--creds=u:p x", "--help", "--tls-verify=false x"])
def test_other_options_of_pull_are_typers(words: str) -> None:
    assert argv.parse(["pull", *words.split()]) is None


def test_no_option_has_two_meanings() -> None:
    for table in argv.HOT:
        names = [name for option in table.options for name in option.names]
        assert len(names) == len(set(names))
        assert all(name.startswith("--") or (len(name) == 2 and name[0] == "-") for name in names)


def test_corpus_is_worth_its_name() -> None:
    lines = corpus()
    assert len(lines) >= 150
    assert sum(not understood for _, understood in lines) >= 30
    used = {word.partition("=")[0] for words, understood in lines if understood for word in words}
    for table in argv.HOT:
        for option in table.options:
            assert used & set(option.names), f"{option.dest} is not in the corpus"
            short = [name for name in option.names if len(name) == 2]
            assert all(any(word[:2] == name for word in used) for name in short), short


@pytest.mark.parametrize(("words", "understood"), corpus())
def test_both_parsers_agree(words: list[str], understood: bool) -> None:
    found = fast(words)
    assert (found is not None) is understood
    assert slow(words) == found


def tokens() -> st.SearchStrategy[str]:
    names = [name for option in argv.RUN.options for name in option.names]
    letters = st.text(alphabet="itqehmvwupldx-=", max_size=4)
    texts = st.sampled_from(["", "A=B", "alpine", "true", "false", "--rm", "-", "--", "-i", "=x"])
    return st.one_of(
        st.sampled_from(names),
        st.builds("{}={}".format, st.sampled_from(names), texts),
        st.builds("-{}".format, letters),
        texts,
        st.text(max_size=3),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(tokens(), max_size=6))
def test_both_parsers_agree_about_anything(words: list[str]) -> None:
    assert fast(["run", *words]) == slow(["run", *words])


@settings(max_examples=40, deadline=None)
@given(st.lists(tokens(), max_size=6))
def test_click_itself_agrees_where_nothing_is_rewritten(words: list[str]) -> None:
    command = ["run", *words]
    understood = fast(command)
    rewritten = any(
        word.startswith("-") and "=" in word and not word.startswith("--") for word in words
    ) or any(
        word.partition("=")[0] in option.names
        for word in words
        for option in argv.RUN.options
        if option.kind in (argv.FLAG, argv.SWITCH) and "=" in word
    )
    if understood is not None and not rewritten:
        assert slow(command, raw=True) == understood


@pytest.mark.parametrize("words", [["--debug"], ["--debug-timing"], ["--debug-timing", "--debug"]])
def test_debug_is_taken_before_the_command(words: list[str]) -> None:
    invocation = argv.parse([*words, "run", "alpine"])
    assert invocation is not None
    assert invocation.command is argv.RUN
    assert invocation.values.value("image") == "alpine"


@pytest.mark.parametrize(
    "words",
    [[], ["--help"], ["--version"], ["images"], ["--debug"], ["--debug", "push", "x"], ["runn"],
     ["--verbose", "run", "alpine"], ["", "run"], ["run alpine"]],
)  # fmt: skip
def test_what_is_not_hot_is_declined(words: list[str]) -> None:
    assert argv.parse(words) is None
