"""The subset of Go templates: expectations are what Go's text/template writes."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootlesspy.cli.gotemplate import Record, render
from rootlesspy.cli.gotime import Time, duration
from rootlesspy.errors import UsageError

DATA = Record(
    ID="abc",
    Names=["web", "www"],
    Labels={"b": "2", "a": "1"},
    Count=3,
    Zero=0,
    Empty=[],
    Running=True,
    Size=1.5,
    Nothing=None,
    Host={"Arch": "amd64", "Swap": {"Total": 7}},
    Ports=[{"Host": 80}, {"Host": 443}],
    Created=Time("2026-11-02T15:04:05.0625Z"),
    State=Record(Status="up", Ok=True),
    Lazy=lambda: "late",
    Label=lambda name: {"a": "1"}.get(name, ""),
)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", ""),
        ("plain } { text", "plain } { text"),
        ("{{.ID}}", "abc"),
        ("{{ .ID }}|{{.Count}}|{{.Running}}|{{.Size}}", "abc|3|true|1.5"),
        ("{{.Names}} {{.Labels}} {{.Empty}}", "[web www] map[a:1 b:2] []"),
        ("{{.Nothing}}", "<no value>"),
        ("{{.Host.Swap.Total}} {{.Host.Absent}} {{.Labels.zzz}}", "7 <no value> <no value>"),
        ("{{json .Names}}{{json .ID}}{{json .Nothing}}", '["web","www"]"abc"null'),
        ('{{json .Labels}}', '{"a":"1","b":"2"}'),
        ('{{.Label "a"}}{{.Label "b"}}', "1"),
        ('{{join .Names ","}}', "web,www"),
        ("{{len .Names}}{{len .ID}}{{len .Labels}}", "232"),
        ("{{upper .ID}}{{.ID | upper | lower}}{{title .ID}}", "ABCabcAbc"),
        ('{{index .Names 1}}{{index .Labels "a"}}', "www1"),
        ('{{(index .Ports 1).Host}}', "443"),
        ("{{range .Names}}<{{.}}>{{end}}", "<web><www>"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range $i, $n := .Names}}{{$i}}={{$n}} {{end}}", "0=web 1=www "),
        ("{{range $k, $v := .Labels}}{{$k}}{{$v}}{{end}}", "a1b2"),
        ("{{range .Ports}}{{.Host}} {{end}}", "80 443 "),
        ("{{range .Names}}{{$.ID}}{{end}}", "abcabc"),
        ("{{if .Running}}up{{else}}down{{end}}", "up"),
        ("{{if .Zero}}a{{else if .Empty}}b{{else if .ID}}c{{else}}d{{end}}", "c"),
        ("{{if and .Running (gt .Count 2)}}y{{end}}", "y"),
        ('{{if or (eq .ID "x" "abc") .Zero}}y{{end}}', "y"),
        ("{{if not .Zero}}y{{end}}", "y"),
        ("{{if ne .Count 3}}n{{else}}y{{end}}", "y"),
        ("{{with .Host}}{{.Arch}}{{end}}", "amd64"),
        ("{{with .Empty}}x{{else}}{{.ID}}{{end}}", "abc"),
        ("{{$x := .ID}}{{$x}}{{$x | upper}}", "abcABC"),
        ("a {{- .ID -}} b", "aabcb"),
        ("a\n{{/* comment */}}\nb", "a\n\nb"),
        ("{{/* c */ -}}  b", "b"),
        ("{{len (.Names) }}", "2"),
        ('{{"}}"}}', "}}"),
        ("{{`raw \\n`}}", "raw \\n"),
        ('{{"tab\\t\\"q\\""}}', 'tab\t"q"'),
        ('{{printf "%-5s|%5s|%03d|%q|%v%%" .ID .ID .Count .ID .Names}}',
         'abc  |  abc|003|"abc"|[web www]%'),
        ('{{println .ID .Count}}', "abc 3\n"),
        ('{{print .ID}}', "abc"),
        ('{{truncate .ID 2}}{{pad .ID 1 2}}|', "ab abc  |"),
        ('{{split "a,b" ","}}', "[a b]"),
        ("{{true}}{{5}}{{-3}}", "true5-3"),
        ("{{eq 1 1}}{{lt 1 2}}{{ge 2 2}}", "truetruetrue"),
        ("{{range .Names}}{{if eq . \"www\"}}{{break}}{{end}}{{.}}{{end}}", "web"),
        ("{{range .Names}}{{if eq . \"web\"}}{{continue}}{{end}}{{.}}{{end}}", "www"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{$f := true}}{{range .Names}}{{if $f}}{{$f = false}}{{else}},{{end}}{{.}}{{end}}",
         "web,www"),
        ("{{$x := 1}}{{if .ID}}{{$x := 2}}{{end}}{{$x}}", "1"),
        ("{{with $x := .Host}}{{$x.Arch}}{{end}}", "amd64"),
        ("{{if $n := len .Names}}{{$n}}{{end}}", "2"),
        ("{{or .Zero .ID (index .Names 9)}}{{and .Zero (index .Names 9)}}", "abc0"),
        ("{{.ID | and true}}", "abc"),
        ('{{/* a "quote }} */}}b', "b"),
        ("a {{- /* c */ -}} b", "ab"),
        ("{{if(.ID)}}y{{end}}{{\n.ID\n}}", "yabc"),
        ("{{if eq .ID `abc`}}{{- /* */}} y{{else}}{{end}}", " y"),
        ('{{slice .ID 1}}{{slice .ID 0 2}}{{slice .Names 1}}', "bcab[www]"),
        ("{{.Lazy}}{{len .Lazy}}{{if eq .Lazy `late`}}y{{end}}{{.Lazy | upper}}", "late4yLATE"),
        ("{{.State}}{{json .State}}", '{up true}{"Status":"up","Ok":true}'),
        ("{{.Created}}", "2026-11-02 15:04:05.0625 +0000 UTC"),
        ("{{json .Created}}", '"2026-11-02T15:04:05.0625Z"'),
        ("{{.Created.Unix}} {{.Created.Year}} {{.Created.IsZero}}", "1793631845 2026 false"),
        ('{{.Created.Format "Mon Jan _2 15:04:05.000 MST 2006"}}',
         "Mon Nov  2 15:04:05.062 UTC 2026"),
        ('{{(.Created.Format "2006-01-02T15:04:05Z07:00") | len}}', "20"),
        ('{{json .Host}}', '{"Arch":"amd64","Swap":{"Total":7}}'),
    ],
)  # fmt: skip
def test_render(template: str, expected: str) -> None:
    assert render(template, DATA) == expected


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{.Bogus}}", "no field 'Bogus'"),
        ("{{.ID.More}}", "no field 'More'"),
        ("{{", "not closed"),
        ("{{.ID", "not closed"),
        ('{{"a', "not closed"),
        ("{{}}", "empty"),
        ("{{.ID |}}", "empty"),
        ("{{len ()}}", "empty"),
        ("{{bogus .ID}}", "'bogus' is not known"),
        ("{{bogus}}", "'bogus' is not known"),
        ("{{range .ID}}x{{end}}", "range"),
        ("{{range .Names}}", "no {{end}}"),
        ("{{if .ID}}{{else}}", "no {{end}}"),
        ("{{end}}", "without"),
        ("{{else}}", "without"),
        ("{{$x}}", "not set"),
        ("{{len .Label}}", "cannot work on 0"),
        ("{{$x = 1}}", "not set"),
        ("{{if true}}{{$y := 1}}{{end}}{{$y}}", "not set"),
        ("{{break}}", "without range"),
        ("{{and}}", "cannot work on 0"),
        ("{{slice .ID 2 9}}", "cannot work"),
        ("{{.Created.Bogus}}", "no field 'Bogus'"),
        ("{{len}}", "cannot work"),
        ("{{len 5}}", "cannot work"),
        ("{{index .Names 9}}", "cannot work"),
        ("{{index .Names -1}}", "cannot work"),
        ("{{lt .ID 5}}", "cannot work"),
        ("{{(.ID}}", "not closed"),
        ("{{.ID)}}", "not understood"),
        ("{{.ID 5}}", "takes no argument"),
        ("{{.ID ; .ID}}", "not understood"),
        ("{{if .ID}}" * 99 + "{{end}}" * 99, "too deeply"),
        ("{{" + "(" * 99 + ")" * 99 + "}}", "too deeply"),
        ("{{if .ID}}a{{else range .Names}}b{{end}}", "else range"),
    ],
)
def test_refused(template: str, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        render(template, DATA)
    assert words in raised.value.message


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["{{", "}}", ".ID", ".Names", "range ", "end", "if ", "else", "$x", ":=", "|", "(", ")",
             '"', "`", "json ", "len ", " ", "-", "index ", "1", "printf ", "with ", ".", ","]
        ),
        max_size=10,
    )
)  # fmt: skip
def test_nothing_but_usage_errors(parts: list[str]) -> None:
    for template in ("".join(parts), "{{" + " ".join(parts) + "}}"):
        try:
            render(template, DATA)
        except UsageError:
            continue


def test_what_actions_write_is_cleaned_and_literal_text_is_not() -> None:
    found = render("\x1b[1m{{.ID}}", Record(ID="\x1b]52;evil"), clean=lambda text: text[1:])
    assert found == "\x1b[1m]52;evil"


def test_data_is_never_a_template() -> None:
    assert render("{{.ID}}", Record(ID="{{.Secret}}")) == "{{.Secret}}"


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [
        (0, "0s"), (7, "7ns"), (1_500, "1.5µs"), (711_932_691, "711.932691ms"), (10**9, "1s"),
        (61 * 10**9, "1m1s"), (7_538_700_000_000, "2h5m38.7s"), (3600 * 10**9, "1h0m0s"),
        (-2 * 10**9, "-2s"),
    ],
)  # fmt: skip
def test_duration(nanoseconds: int, expected: str) -> None:
    assert duration(nanoseconds) == expected


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9000, 1, 1)))
def test_a_moment_survives_its_layout(moment: datetime) -> None:
    text = Time(moment.isoformat(timespec="microseconds") + "Z")
    assert text.format("2006-01-02T15:04:05.000000Z07:00") == text
    micros = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    assert text.unixnano() == micros * 1000
