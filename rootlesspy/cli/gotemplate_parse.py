"""From the text of a Go template to its nodes; what they do is in gotemplate.py.

Reference: https://pkg.go.dev/text/template.
"""

from __future__ import annotations

import re

from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:[^"\\\n]|\\.)*")
    | (?P<raw>`[^`]*`)
    | (?P<number>-?\d+(?:\.\d+)?)
    | (?P<field>(?:\.[A-Za-z_]\w*)+)
    | (?P<variable>\$\w*(?:\.[A-Za-z_]\w*)*)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<mark>:=|=|\||\(|\)|,|\.)
    )""",
    re.VERBOSE,
)
_COMMENT = re.compile(r"(?:-\s)?\s*/\*.*?\*/", re.DOTALL)
_WORD = re.compile(r"\w+")
_MAX_DEPTH = 50


class Text(NamedTuple):
    """Literal text."""

    text: str


class Action(NamedTuple):
    """A pipeline whose value is written, unless it only sets variables."""

    pipe: Pipe


class Block(NamedTuple):
    """if, with or range."""

    keyword: str
    pipe: Pipe
    body: list[Any]
    otherwise: list[Any]


class Jump(NamedTuple):
    """break or continue."""

    keyword: str


class Pipe(NamedTuple):
    """Commands whose results feed each other, and the variables that take the last one."""

    variables: tuple[str, ...]
    commands: list[list[Any]]
    declares: bool = False
    """:= makes the variables, = changes them where they were made."""


class Operand(NamedTuple):
    """One operand: kind is constant, field, variable, function or pipe."""

    kind: str
    value: Any
    fields: tuple[str, ...] = ()


def parse(template: str) -> list[Any]:
    """Parse a template; raises UsageError."""
    pieces = list(_pieces(template))
    nodes, ending = _nodes(pieces, 0)
    if ending:
        raise UsageError(f"--format: {{{{{ending}}}}} without if, range or with")
    return nodes


def is_of_list(template: str) -> bool:
    """Say whether a template is for all rows at once: it has a range over the dot itself.

    Raises UsageError for one that cannot be parsed.
    """
    dot = [[Operand("field", None)]]
    return any(
        isinstance(node, Block) and node.keyword == "range" and node.pipe.commands == dot
        for node in parse(template)
    )


def _pieces(template: str) -> Iterator[tuple[bool, str]]:
    """Cut into literal text and actions, with the white space trimmed that `{{-` and `-}}` say."""
    trim = False
    rest = template
    while rest:
        head, opening, tail = rest.partition("{{")
        if trim:
            head = head.lstrip()
        action, closing, rest = _until_closed(tail) if opening else ("", "", "")
        if opening and not closing:
            raise UsageError("--format: {{ is not closed")
        if action[:1] == "-" and action[1:2].isspace():
            head, action = head.rstrip(), action[2:]
        trim = action[-1:] == "-" and action[-2:-1].isspace()
        if head:
            yield False, head
        action = (action[:-1] if trim else action).strip()
        if opening and not (action.startswith("/*") and action.endswith("*/")):
            yield True, action


def _until_closed(text: str) -> tuple[str, str, str]:
    """Find the }} that is not inside a string or comment."""
    quote = ""
    comment = _COMMENT.match(text)
    index = comment.end() if comment else 0
    while index < len(text):
        character = text[index]
        if quote:
            if character == "\\" and quote == '"':
                index += 1
            elif character == quote:
                quote = ""
        elif character in '"`':
            quote = character
        elif text.startswith("}}", index):
            return text[:index], "}}", text[index + 2 :]
        index += 1
    return text, "", ""


def _nodes(pieces: list[tuple[bool, str]], depth: int) -> tuple[list[Any], str]:
    """Take nodes from the front of pieces up to an end or else, which is returned too."""
    if depth > _MAX_DEPTH:
        raise UsageError("--format: nested too deeply")
    nodes: list[Any] = []
    while pieces:
        is_action, text = pieces.pop(0)
        if not is_action:
            nodes.append(Text(text))
            continue
        keyword, rest = _first_word(text)
        if keyword in ("end", "else"):
            return nodes, f"{keyword} {rest}".rstrip()
        if keyword in ("if", "range", "with"):
            nodes.append(_block(keyword, rest, pieces, depth))
        elif text in ("break", "continue"):
            nodes.append(Jump(text))
        else:
            nodes.append(Action(_pipe(text)))
    return nodes, ""


def _first_word(text: str) -> tuple[str, str]:
    found = _WORD.match(text)
    return (found[0], text[found.end() :].lstrip()) if found else ("", text)


def _block(keyword: str, text: str, pieces: list[tuple[bool, str]], depth: int) -> Block:
    body, ending = _nodes(pieces, depth + 1)
    otherwise: list[Any] = []
    if ending.startswith("else "):
        chained, condition = _first_word(ending.removeprefix("else "))
        otherwise = [_block(chained, condition, pieces, depth + 1)]
        if chained not in ("if", "with"):
            raise UsageError(f"--format: else {chained} is not known")
        ending = "end"
    elif ending == "else":
        otherwise, ending = _nodes(pieces, depth + 1)
    if ending != "end":
        raise UsageError(f"--format: {{{{{keyword}}}}} has no {{{{end}}}}")
    return Block(keyword, _pipe(text), body, otherwise)


def _pipe(text: str) -> Pipe:
    tokens = _tokens(text)
    variables: list[str] = []
    declares = ("mark", ":=") in tokens
    if any(token == ("mark", ":=") or token == ("mark", "=") for token in tokens):
        while tokens[0][0] == "variable":
            variables.append(tokens.pop(0)[1])
            if tokens and tokens[0] == ("mark", ","):
                tokens.pop(0)
        if not variables or not tokens or tokens.pop(0)[1] not in (":=", "="):
            raise UsageError(f"--format: {text!r} is not an assignment")
    commands = _commands(tokens, 0)
    if tokens:
        raise UsageError(f"--format: {{{{{text}}}}} is not understood")
    return Pipe(tuple(variables), commands, declares)


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise UsageError(f"--format: {text[position:].strip()!r} is not understood")
        kind = str(match.lastgroup)
        # (…).Field without a blank is a field of the parenthesis.
        if kind == "field" and tokens[-1:] == [("mark", ")")] and match.group(0)[0] == ".":
            kind = "chain"
        tokens.append((kind, match.group(str(match.lastgroup))))
        position = match.end()
    return tokens


def _commands(tokens: list[tuple[str, str]], depth: int) -> list[list[Any]]:
    """Take commands up to a closing parenthesis or the end."""
    if depth > _MAX_DEPTH:
        raise UsageError("--format: nested too deeply")
    commands: list[list[Any]] = [[]]
    while tokens and tokens[0] != ("mark", ")"):
        kind, text = tokens.pop(0)
        if text == "|" and kind == "mark":
            commands.append([])
        elif text == "(" and kind == "mark":
            inner = Pipe((), _commands(tokens, depth + 1))
            if not tokens:
                raise UsageError("--format: a parenthesis is not closed")
            tokens.pop(0)
            fields = _fields(tokens.pop(0)[1]) if tokens and tokens[0][0] == "chain" else ()
            commands[-1].append(Operand("pipe", inner, fields))
        else:
            commands[-1].append(_operand(kind, text))
    if not all(commands):
        raise UsageError("--format: an action or a part of it is empty")
    return commands


def _operand(kind: str, text: str) -> Operand:
    if kind == "string":
        return Operand("constant", unescape(text[1:-1]))
    if kind == "raw":
        return Operand("constant", text[1:-1])
    if kind == "number":
        return Operand("constant", float(text) if "." in text else int(text))
    if kind == "field":
        return Operand("field", None, _fields(text))
    if kind == "variable":
        name, *fields = text.split(".")
        return Operand("variable", name, tuple(fields))
    if kind == "word":
        constants = {"true": True, "false": False, "nil": None}
        if text in constants:
            return Operand("constant", constants[text])
        return Operand("function", text)
    if text == ".":
        return Operand("field", None)
    raise UsageError(f"--format: {text!r} is not expected here")


def unescape(text: str) -> str:
    r"""Replace \n, \t, \", \\ and the like."""
    known = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "0": "\0"}
    return re.sub(r"\\(.)", lambda found: known.get(found[1], found[0]), text)


def _fields(text: str) -> tuple[str, ...]:
    return tuple(text[1:].split("."))
