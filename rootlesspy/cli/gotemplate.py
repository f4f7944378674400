"""The subset of Go's text/template that `--format` is used with.

Fields, variables, pipes, if/else, range, with, comments, {{- trimming -}}, and the functions of
`_FUNCTIONS`.  A template is text of the user; data is plain JSON-like values.  A `Record` knows its
fields: another one is an error, as a missing field of a Go struct is; a plain dict yields
"<no value>".  Reference: https://pkg.go.dev/text/template.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from rootlesspy.cli.gotemplate_functions import FUNCTIONS, NO_VALUE, truth, write
from rootlesspy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
_MAX_DEPTH = 50


class Record(dict[str, Any]):
    """A dict whose keys are all the fields there are."""


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


class Pipe(NamedTuple):
    """Commands whose results feed each other, and the variables that take the last one."""

    variables: tuple[str, ...]
    commands: list[list[Any]]


class Operand(NamedTuple):
    """One operand: kind is constant, field, variable, function or pipe."""

    kind: str
    value: Any
    fields: tuple[str, ...] = ()


def render(template: str, data: object, *, clean: Callable[[str], str] = str) -> str:
    """Execute template on data; clean is applied to what actions write, not to literal text.

    Raises UsageError, which names what is wrong with the template.
    """
    nodes = parse(template)
    output: list[str] = []
    _run(nodes, data, {"$": data}, output, clean)
    return "".join(output)


def parse(template: str) -> list[Any]:
    """Parse a template; raises UsageError."""
    pieces = list(_pieces(template))
    nodes, ending = _nodes(pieces, 0)
    if ending:
        raise UsageError(f"--format: {{{{{ending}}}}} without if, range or with")
    return nodes


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
        if action.startswith("- "):
            head, action = head.rstrip(), action[2:]
        trim = action.endswith(" -")
        if head:
            yield False, head
        action = action.removesuffix(" -").strip()
        if opening and not (action.startswith("/*") and action.endswith("*/")):
            yield True, action


def _until_closed(text: str) -> tuple[str, str, str]:
    """Find the }} that is not inside a string."""
    quote = ""
    index = 0
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
        keyword, _, rest = text.partition(" ")
        if keyword in ("end", "else"):
            return nodes, text
        if keyword in ("if", "range", "with"):
            nodes.append(_block(keyword, rest, pieces, depth))
        else:
            nodes.append(Action(_pipe(text)))
    return nodes, ""


def _block(keyword: str, text: str, pieces: list[tuple[bool, str]], depth: int) -> Block:
    body, ending = _nodes(pieces, depth + 1)
    otherwise: list[Any] = []
    if ending.startswith("else "):
        chained, _, condition = ending.removeprefix("else").strip().partition(" ")
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
    return Pipe(tuple(variables), commands)


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


def _run(
    nodes: list[Any], dot: Any, variables: dict[str, Any], output: list[str],
    clean: Callable[[str], str],
) -> None:  # fmt: skip
    for node in nodes:
        if isinstance(node, Text):
            output.append(node.text)
        elif isinstance(node, Action):
            value = _evaluate(node.pipe, dot, variables)
            if not node.pipe.variables:
                output.append(clean(write(value)))
        elif node.keyword == "range":
            _run_range(node, dot, variables, output, clean)
        else:
            value = _evaluate(node.pipe, dot, variables)
            inner = value if node.keyword == "with" and truth(value) else dot
            chosen = node.body if truth(value) else node.otherwise
            _run(
                chosen, inner, dict(variables) if node.pipe.variables else variables, output, clean
            )


def _run_range(
    node: Block, dot: Any, variables: dict[str, Any], output: list[str],
    clean: Callable[[str], str],
) -> None:  # fmt: skip
    value = _evaluate(node.pipe._replace(variables=()), dot, variables)
    if isinstance(value, dict):
        items: list[tuple[Any, Any]] = sorted(value.items())
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    elif value is None or value is NO_VALUE:
        items = []
    else:
        raise UsageError(f"--format: range cannot go over {write(value)!r}")
    if not items:
        _run(node.otherwise, dot, variables, output, clean)
    names = node.pipe.variables
    for key, item in items:
        inner = dict(variables)
        if len(names) == 2:
            inner[names[0]] = key
        if names:
            inner[names[-1]] = item
        _run(node.body, item, inner, output, clean)


def _evaluate(pipe: Pipe, dot: Any, variables: dict[str, Any]) -> Any:
    value: Any = None
    for number, command in enumerate(pipe.commands):
        value = _command(command, [value] if number else [], dot, variables)
    for name in pipe.variables:
        variables[name] = value
    return value


def _command(command: list[Any], piped: list[Any], dot: Any, variables: dict[str, Any]) -> Any:
    first = command[0]
    arguments = [*(_value(operand, dot, variables) for operand in command[1:]), *piped]
    if first.kind != "function":
        value = _value(first, dot, variables)
        if callable(value):
            return _call(first.fields[-1], value, arguments)
        if arguments:
            raise UsageError(f"--format: {write(value)!r} takes no argument")
        return value
    if first.value not in FUNCTIONS:
        raise UsageError(
            f"--format: function {first.value!r} is not known",
            hint=f"known are {', '.join(sorted(FUNCTIONS))}",
        )
    return _call(first.value, FUNCTIONS[first.value], arguments)


def _call(name: str, function: Callable[..., Any], arguments: list[Any]) -> Any:
    try:
        return function(*arguments)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise UsageError(f"--format: {name} cannot work on {len(arguments)} such values") from error


def _value(operand: Operand, dot: Any, variables: dict[str, Any]) -> Any:
    if operand.kind == "constant":
        return operand.value
    if operand.kind == "pipe":
        value = _evaluate(operand.value, dot, variables)
    elif operand.kind == "variable":
        if operand.value not in variables:
            raise UsageError(f"--format: variable {operand.value} is not set")
        value = variables[operand.value]
    elif operand.kind == "function":
        return _command([operand], [], dot, variables)
    else:
        value = dot
    for name in operand.fields:
        value = _field(value, name)
    return value


def _field(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        if name in value:
            return value[name]
        if not isinstance(value, Record):
            return NO_VALUE
    elif value is None or value is NO_VALUE:
        return NO_VALUE
    known = f"known are {', '.join(sorted(value))}" if isinstance(value, Record) else None
    raise UsageError(f"--format: there is no field {name!r}", hint=known)
