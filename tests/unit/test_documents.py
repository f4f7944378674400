"""Documents say what is there: links resolve, commands parse, the tree is the files' own."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rootlesspy.cli import app, commands

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "rootlesspy"
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "examples/*.md", "examples/*/*.md")
    for path in REPOSITORY.glob(pattern)
)
ROOMS = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
_FENCE = re.compile(r"(?ms)^```[^\n]*\n(.*?)^```$")
_INDENTED = re.compile(r"(?m)^    (\S.*)$")
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# What stands between a program's name and the prompt or another program.
_BEFORE = {"$", "|", "||", "&&", ";", "exec", "time", "sudo"}
_AFTER = {"|", "||", "&&", ";", "&", ">", ">>", "<", "2>"}
_PLACEHOLDERS = {"…", "...", "OPTIONS", "[OPTIONS]", "COMMAND"}


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


# --- links ------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of headings."""
    found = set()
    for heading in re.findall(r"(?m)^#+ (.+)$", _FENCE.sub("", text)):
        kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
        found.add(kept.strip().replace(" ", "-"))
    return found


def broken_links(document: Path, text: str) -> list[str]:
    broken = []
    for link in _LINK.findall(_FENCE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        outside = REPOSITORY not in (target, *target.parents)
        if outside or not target.exists() or (anchor and anchor not in anchors(text_of(target))):
            broken.append(link)
    return broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_resolve(document: Path) -> None:
    assert broken_links(document, text_of(document)) == []


@pytest.mark.parametrize("link", ["nowhere.md", "README.md#no-such-heading", "../outside.md"])
def test_broken_links_are_found(link: str) -> None:
    assert broken_links(REPOSITORY / "README.md", f"see [this]({link})") == [link]


# --- commands ---------------------------------------------------------------------------------


class Known(NamedTuple):
    """The options of one command: name → whether an argument follows."""

    options: dict[str, bool]
    operands_end_options: bool


def known_commands() -> dict[str, Known]:
    """Read the commands and options from the application itself; `GROUP COMMAND` is one name."""
    group: Any = app.command()
    found = {}
    for name, command in group.commands.items():
        for inner_name, inner in getattr(command, "commands", {}).items():
            found[f"{name} {inner_name}"] = inner
            for last, each in getattr(inner, "commands", {}).items():
                found[f"{name} {inner_name} {last}"] = each
        found[name] = command
    return {name: known_command(name, command) for name, command in found.items()}


def known_command(name: str, command: Any) -> Known:
    options = {"--help": False}
    for parameter in command.params:
        if parameter.param_type_name == "option":
            for spelling in (*parameter.opts, *parameter.secondary_opts):
                options[spelling] = not parameter.is_flag
    interspersed = command.context_settings.get("allow_interspersed_args", True)
    return Known(options, operands_end_options=not interspersed)


KNOWN = known_commands()
_GLOBAL = {
    "--debug",
    "--debug-timing",
    "--store",
    "--version",
    "--help",
    "-h",
    "--install-completion",
    "--show-completion",
}


def invocations(text: str) -> list[list[str]]:
    """Return the words after `rp` of every command line that a document shows."""
    lines = [line for block in _FENCE.findall(text) for line in joined(block)]
    prose = _FENCE.sub("", text)
    lines += _INDENTED.findall(prose)
    lines += [code for code in _CODE.findall(prose) if code.startswith("rp ")]
    return [words for line in lines for words in invocations_in(line)]


def joined(block: str) -> list[str]:
    return block.replace("\\\n", " ").splitlines()


def invocations_in(line: str) -> list[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError:
        words = line.split()
    found: list[list[str]] = []
    for index, word in enumerate(words):
        before = words[index - 1] if index else "$"
        if word == "rp" and (before in _BEFORE or "=" in before):
            rest = words[index + 1 :]
            end = next((i for i, each in enumerate(rest) if each in _AFTER), len(rest))
            found.append(rest[:end])
    return found


def fault(words: list[str]) -> str | None:
    """Return what rp would not understand in the words after its name."""
    words = list(words)
    while words and words[0] in _GLOBAL | _PLACEHOLDERS:
        words.pop(0)
    if not words:
        return None
    if words[0] in commands.GROUPS and len(words) > 1:
        number = 3 if " ".join(words[:2]) in commands.INNER_GROUPS else 2
        words[:number] = [" ".join(words[:number])]
    command = KNOWN.get(words[0])
    if command is None:
        return f"unknown command {words[0]}"
    position = 1
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            break
        if len(word) < 2 or not word.startswith("-"):
            if command.operands_end_options and word not in _PLACEHOLDERS:
                break
            continue
        name, equals, _ = word.partition("=")
        if word.startswith("--"):
            if name not in command.options:
                return f"rp {words[0]} has no option {name}"
            position += command.options[name] and not equals
            continue
        for index, letter in enumerate(word[1:], start=1):
            if f"-{letter}" not in command.options:
                return f"rp {words[0]} has no option -{letter}"
            if command.options[f"-{letter}"]:
                position += index == len(word) - 1
                break
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_exist(document: Path) -> None:
    faults = [found for words in invocations(text_of(document)) if (found := fault(words))]
    assert faults == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_options_exist(document: Path) -> None:
    """Options in the running text that stand alone are those of some command of rp."""
    every = {option for command in KNOWN.values() for option in command.options} | _GLOBAL
    named = re.findall(r"`(--?[a-z][a-z-]*)[`= ]", _FENCE.sub("", text_of(document)))
    assert [option for option in named if option not in every] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`rp frob`", "unknown command frob"),
        ("```\n$ rp run --rm --frob alpine\n```", "rp run has no option --frob"),
        ("```\n$ echo x | rp run -Z alpine\n```", "rp run has no option -Z"),
        ("```\n$ rp run --rm \\\n    --frob alpine\n```", "rp run has no option --frob"),
        ("    $ rp rm --frob x", "rp rm has no option --frob"),
        ("    $ rp rm x --frob", "rp rm has no option --frob"),
        ("    $ A=b rp ps --frob", "rp ps has no option --frob"),
        ("    rp run -it -e A=b --name x alpine ls --frob", None),
        ("    rp --debug run --memory=64m alpine true && rp ps -aq", None),
        ("    $ tool rp frob", None),
    ],
)
def test_wrong_commands_are_found(text: str, expected: str | None) -> None:
    faults = [found for words in invocations(text) if (found := fault(words))]
    assert faults == ([expected] if expected else [])


def test_readme_names_its_two_commands() -> None:
    lines = [
        line
        for block in _FENCE.findall(text_of(REPOSITORY / "README.md"))
        for line in joined(block)
    ]
    for script in ("scripts/try", "scripts/test"):
        assert script in lines
        assert (REPOSITORY / script).stat().st_mode & 0o111


# --- the tree ---------------------------------------------------------------------------------


def drawn_tree(text: str) -> list[str]:
    """Return the files that ARCHITECTURE.md draws, as paths in the package."""
    block = next(block for block in _FENCE.findall(text) if block.startswith("rootlesspy/\n"))
    found = []
    room = ""
    for line in block.splitlines()[1:]:
        opened = re.match(r"(\w[\w/]*/)\s", line)
        if opened:
            room = opened[1]
        found += [room + name for name in re.findall(r"\b\w+\.(?:py|json)\b", line)]
    return found


def test_architecture_lists_every_file_and_no_other() -> None:
    drawn = drawn_tree(text_of(REPOSITORY / "ARCHITECTURE.md"))
    present = [
        path.relative_to(PACKAGE).as_posix()
        for pattern in ("*.py", "*.json")
        for path in PACKAGE.rglob(pattern)
        if path.name != "__init__.py"
    ]
    assert sorted(drawn) == sorted(present)


def test_architecture_fits_one_sitting() -> None:
    """The module tree is looked things up in; the rest is read."""
    assert len(_FENCE.sub("", text_of(REPOSITORY / "ARCHITECTURE.md")).splitlines()) <= 150


def test_architecture_names_functions_that_exist() -> None:
    """`module.function` of the walk, `module._function` and `room.module.Class.method`."""
    text = _FENCE.sub("", text_of(REPOSITORY / "ARCHITECTURE.md"))
    missing = []
    for code in _CODE.findall(text):
        named = re.fullmatch(r"((?:\w+\.)+)(\w+)(?:\(.*\))?", code)
        if named is None or code.endswith((".py", ".md", ".json", ".scope", ".service")):
            continue
        *path, function = code.partition("(")[0].split(".")
        sources = sources_of(path)
        if sources and not any(
            re.search(rf"(?m)^\s*(?:def|class) {function}\b|^{function}\b.*=", source)
            for source in sources
        ):
            missing.append(code)
    assert missing == []


def sources_of(path: list[str]) -> list[str]:
    """Return the texts of the modules that `room.module` or `module` may mean."""
    path = [
        part for part in path if part != "rootlesspy" and not part[0].isupper() and part[0] != "_"
    ]
    if not path:
        return []
    stem = path[-1]
    inside = f"{path[-2]}/" if len(path) > 1 else ""
    return [
        text_of(file)
        for file in PACKAGE.rglob(f"{stem}.py")
        if file.relative_to(PACKAGE).as_posix().startswith(inside)
    ]
