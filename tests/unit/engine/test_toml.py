"""Where things stand in a TOML file, and writing one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.engine.definitions import toml
from rootlesspy.errors import NotFound, UsageError

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = '''\
# comment = "not a key"
[defaults] # [not.a.table]
memory = "1g # no comment"

[container.web]
command = [
  "x", # y ]
  """two
  lines "" \\" """, 'a # b', """q"""",
]
env = { A = "}", "b c" = [1, { d = 2.5 }] }
healthcheck.command = ["x"]
cpus = 1.5e3
when = 1979-05-27T07:32:00Z
[ container . "a.b" ]
'x\\y' = -1
"\\u0041" = true
[[array]]
a = 1
[[array]]
a = 2
[array.inner]
b = 3
'''
LINES = {
    ("defaults",): 2,
    ("defaults", "memory"): 3,
    ("container",): 5,
    ("container", "web"): 5,
    ("container", "web", "command"): 6,
    ("container", "web", "command", 0): 7,
    ("container", "web", "command", 1): 8,
    ("container", "web", "command", 2): 9,
    ("container", "web", "command", 3): 9,
    ("container", "web", "env"): 11,
    ("container", "web", "env", "A"): 11,
    ("container", "web", "env", "b c"): 11,
    ("container", "web", "env", "b c", 0): 11,
    ("container", "web", "env", "b c", 1): 11,
    ("container", "web", "env", "b c", 1, "d"): 11,
    ("container", "web", "healthcheck"): 12,
    ("container", "web", "healthcheck", "command"): 12,
    ("container", "web", "healthcheck", "command", 0): 12,
    ("container", "web", "cpus"): 13,
    ("container", "web", "when"): 14,
    ("container", "a.b"): 15,
    ("container", "a.b", "x\\y"): 16,
    ("container", "a.b", "A"): 17,
    ("array",): 18,
    ("array", 0): 18,
    ("array", 0, "a"): 19,
    ("array", 1): 20,
    ("array", 1, "a"): 21,
    ("array", 1, "inner"): 22,
    ("array", 1, "inner", "b"): 23,
}


def test_every_key_has_its_line() -> None:
    assert toml.parse(EVERYTHING, "f").lines == LINES


def test_windows_line_ends_count_the_same() -> None:
    assert toml.parse(EVERYTHING.replace("\n", "\r\n"), "f").lines == LINES


def test_what_is_not_there_has_the_line_of_what_is_around_it() -> None:
    document = toml.parse("\n[a]\nb = [1]\n", "f")
    assert document.line(("a", "b", 7)) == 3
    assert document.line(("a", "x", "y")) == 2
    assert document.line(("z",)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb = \n", "f:2: not valid TOML: invalid value"),
        ('a = 1\nb = "x', "f:2: not valid TOML: unterminated string"),
        ("[a.b]\n[a.b]\n", "f:2: not valid TOML: [a.b] is there twice"),
        ("a = 1\na = 2\n", "f:2: not valid TOML: cannot overwrite a value"),
        ("a = " + "[" * 20000, "f: nested too deeply"),
    ],
)
def test_syntax_errors_have_file_and_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        toml.parse(text, "f")
    assert caught.value.message == message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        toml.read(f"{tmp_path}/none.toml")
    with pytest.raises(UsageError, match="is a directory"):
        toml.read(f"{tmp_path}")
    with pytest.raises(UsageError, match="not a path"):
        toml.read("a\0b")
    (tmp_path / "latin.toml").write_bytes(b'a = 1\nb = "\xe9"\n')
    with pytest.raises(UsageError, match=r"latin.toml:2: not UTF-8"):
        toml.read(f"{tmp_path}/latin.toml")
    (tmp_path / "big.toml").write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    with pytest.raises(UsageError, match="longer than"):
        toml.read(f"{tmp_path}/big.toml")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    TEXTS | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, width=32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
TABLES = st.dictionaries(TEXTS, st.dictionaries(TEXTS, VALUES, max_size=4), max_size=3)


@given(TABLES)
def test_what_is_written_is_read_again(tables: dict[str, dict[str, Any]]) -> None:
    text = toml.write([(("t", name), table) for name, table in tables.items()])
    assert tomli.loads(text).get("t", {}) == tables
    lines = toml.parse(text, "f").lines
    for name, table in tables.items():
        for key in table:
            # Each key has a line of its own: the text of that line begins with it.
            assert text.split("\n")[lines["t", name, key] - 1].startswith(
                toml.write([((), {key: 1})])[:-2]
            )


@given(st.text(st.sampled_from("ab.[]{}=\"'\\,#\n -1"), max_size=40))
def test_strange_text_is_an_error_of_ours_or_none(text: str) -> None:
    try:
        document = toml.parse(text, "f")
    except UsageError:
        return
    for key in document.values:
        assert document.lines[(key,)] <= text.count("\n") + 1


def test_text_that_is_not_unicode_cannot_be_written() -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        toml.write([((), {"a": "\udc80"})])
