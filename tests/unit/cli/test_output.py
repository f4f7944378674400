"""Human numbers, plain tables, templates of rows, and progress."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootlesspy.cli import human, output, progress, table
from rootlesspy.cli.gotemplate import Record
from rootlesspy.errors import UsageError

HOUR, DAY = 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "Less than a second"),
        (0.9, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (HOUR - 1, "59 minutes"),
        (HOUR, "About an hour"),
        (2 * HOUR, "2 hours"),
        (47 * HOUR, "47 hours"),
        (2 * DAY, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
    ],
)
def test_durations(seconds: float, expected: str) -> None:
    assert human.duration(seconds) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (7_640_000, "7.64 MB"), (123_456_789, "123 MB"),
     (999_600, "1 MB"), (1_500_000_000, "1.5 GB"), (12 * 10**15, "1.2e+04 TB")],
)  # fmt: skip
def test_sizes(size: int, expected: str) -> None:
    assert human.size(size) == expected


HEADER = ("ID", "IMAGE", "NAMES")
ROWS = [("1", "docker.io/library/alpine:latest", "web"), ("22", "short", "a-long-name")]


def test_columns_are_as_wide_as_what_is_in_them() -> None:
    lines = table.render(HEADER, ROWS, table.Style()).splitlines()
    assert lines == [
        "ID  IMAGE                            NAMES",
        "1   docker.io/library/alpine:latest  web",
        "22  short                            a-long-name",
    ]


def test_a_table_fits_its_terminal() -> None:
    text = table.render(HEADER, ROWS, table.Style(width=34), cut=("IMAGE", "NAMES"))
    assert text.splitlines()[1] == "1   docker.io/librar…  web"
    assert all(table.cell_width(line) <= 34 for line in text.splitlines())


def test_an_image_keeps_the_end_of_its_name() -> None:
    text = table.render(HEADER, ROWS, table.Style(34), cut=("IMAGE",), cut_front=("IMAGE",))
    assert text.splitlines()[1] == "1   …ry/alpine:latest  web"


def test_columns_that_may_not_be_cut_are_not() -> None:
    text = table.render(HEADER, ROWS, table.Style(width=10), cut=("NAMES",))
    assert "docker.io/library/alpine:latest" in text
    assert "a-long-" in text


def test_control_characters_never_reach_a_cell() -> None:
    text = table.render(("A", "B"), [("\x1b]52;c;evil\x07", "a\nb\u202ec")], table.Style())
    assert text.splitlines()[1] == "\\x1b]52;c;evil\\x07  a\\nb\\u202ec"


def test_a_table_without_headings_fits_as_well() -> None:
    look = table.Style(width=34)
    text = table.render(HEADER, ROWS, look, heading=False, cut=("IMAGE", "NAMES"))
    assert len(text.splitlines()) == 2
    assert all(table.cell_width(line) <= 34 for line in text.splitlines())


def test_colour_is_only_for_terminals() -> None:
    painted = {"NAMES": [table.GREEN, ""]}
    plain = table.render(HEADER, ROWS, table.Style(), paint=painted)
    coloured = table.render(HEADER, ROWS, table.Style(colour=True), paint=painted)
    assert "\x1b" not in plain
    assert f"{table.GREEN}web\x1b[0m" in coloured


def test_wide_characters_take_two_cells() -> None:
    lines = table.render(("A", "B"), [("日本", "x"), ("ab", "y")], table.Style()).splitlines()
    assert lines == ["A     B", "日本  x", "ab    y"]
    assert table.shorten("日本語", 4) == "日…"
    assert table.shorten("日本語", 4, front=True) == "…語"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40)), max_size=4),
       st.integers(min_value=20, max_value=60))  # fmt: skip
def test_no_line_is_wider_than_the_terminal(rows: list[tuple[str, str]], width: int) -> None:
    text = table.render(("A", "B"), rows, table.Style(width=width), cut=("A", "B"))
    assert len(text.splitlines()) == len(rows) + 1
    assert all(table.cell_width(line) <= width for line in text.splitlines())


def rows() -> list[Record]:
    return [Record(ID="1", RepoTags=["a"], Name="x\ty"), Record(ID="2", RepoTags=[], Name="z")]


def shown(form: str, capsys: pytest.CaptureFixture[str], *, heading: bool = True) -> str:
    output.show(
        form, {"ID": "IMAGE ID"}, rows=rows, json_rows=lambda: [{"Id": "1"}], heading=heading
    )
    return capsys.readouterr().out


def test_json_is_one_array(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(shown("json", capsys)) == [{"Id": "1"}]


@pytest.mark.parametrize("form", ["{{json .}}", "{{ json . }}"])
def test_json_of_a_template_is_a_line_for_each(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(form, capsys) == '{"Id":"1"}\n'


def test_template_per_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("{{.ID}}\\t{{.RepoTags}}", capsys) == "1\t[a]\n2\t[]\n"


def test_template_over_all_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("{{range .}}{{.ID}},{{end}}", capsys) == "1,2,"


@pytest.mark.parametrize("form", ["{{range $r := .}}{{$r.ID}},{{end}}", "{{- range . -}}x{{end}}"])
def test_a_range_over_the_dot_is_over_all_rows(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(form, capsys) in ("1,2,", "xx")


def test_another_range_is_of_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("{{.ID}}{{range .RepoTags}}[{{.}}]{{end}}", capsys) == "1[a]\n2\n"


def test_a_template_is_checked_although_there_is_no_row() -> None:
    with pytest.raises(UsageError):
        output.show("{{if}}", {}, rows=list, json_rows=list)


def test_table_of_a_template(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("table {{.ID}}\\t{{.RepoTags}}\\t{{.Name}}", capsys).splitlines() == [
        "IMAGE ID  REPO TAGS  NAME",
        "1         [a]        x y",
        "2         []         z",
    ]
    assert shown("table {{.ID}}", capsys, heading=False) == "1\n2\n"
    tabs = shown("table {{.ID}}\\t{{.Name}}", capsys)
    assert shown("table {{.ID }} {{.Name}}", capsys) == tabs


def test_a_bad_template_is_found_without_rows() -> None:
    with pytest.raises(UsageError):
        output.show("{{.ID", {}, rows=list, json_rows=list)


class Terminal(io.StringIO):
    """What stderr is for somebody who sits at a terminal."""

    def isatty(self) -> bool:
        return True


def sit_down(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make stderr a terminal; in the test itself, as pytest's capture sets stderr before it."""
    stderr = Terminal()
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setattr("os.isatty", lambda fd: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return stderr


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = sit_down(monkeypatch)
    bars = progress.make(quiet=False)
    assert isinstance(bars, progress.Bars)
    bars.start("a", "layer \x1b]evil", 1000)
    bars.advance("a", 400)
    bars.phase("a", "unpacking")
    bars.start("b", "config", 0)
    bars.finish("a")
    bars.finish("b")
    seen = terminal.getvalue()
    assert "\\x1b]evil" in seen
    assert "unpacking" in seen
    assert "done" in seen
    assert "\x1b]" not in seen
    assert "\x1b[?25l" not in seen, "the cursor is hidden"
    assert seen.endswith("\x1b[J"), "the cursor is not below the bars"


@pytest.mark.parametrize("debug", [True, False])
def test_no_bars_between_debug_lines(debug: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sit_down(monkeypatch)
    assert isinstance(progress.make(quiet=False, debug=debug), progress.Lines) is debug


def test_lines_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    lines = progress.make(quiet=False)
    lines.start("a", "layer\n1", 2000)
    lines.advance("a", 2000)
    lines.phase("a", "unpacking")
    lines.finish("a")
    assert capsys.readouterr().err == "rp: layer\\n1: done (2 kB)\n"


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    silent = progress.make(quiet=True)
    silent.start("a", "layer", 1)
    silent.finish("a")
    assert capsys.readouterr() == ("", "")
