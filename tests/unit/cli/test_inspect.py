"""`rp inspect`: what is asked for, what is printed, and how templates see it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rootlesspy.cli import argv, hot, image_inspect, output
from rootlesspy.cli.gotemplate import render
from rootlesspy.cli.inspect_fields import record
from rootlesspy.cli.session import Session
from rootlesspy.engine import lifecycle
from rootlesspy.engine.views import inspect
from rootlesspy.errors import NotFound, UsageError
from rootlesspy.report import Reporter

DOCUMENT: dict[str, Any] = {
    "Id": "ab" * 32,
    "Created": "2026-11-22T00:33:12.2175Z",
    "Image": "1234",
    "Name": "web",
    "State": {
        "Status": "running", "Running": True, "ExitCode": 0, "Health": None,
        "StartedAt": "2026-11-22T00:33:13Z", "FinishedAt": "0001-01-01T00:00:00Z",
    },
    "Mounts": [
        {"Type": "volume", "Name": "vol", "Source": "/v/vol/_data", "Destination": "/data"},
        {"Type": "bind", "Source": "/srv", "Destination": "/mnt"},
    ],
    "NetworkSettings": {
        "IPAddress": "", "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]},
    },
    "Config": {
        "Env": ["A=b"], "Labels": {"x.y": "z"}, "Cmd": ["sleep", "1"], "Entrypoint": None,
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> None:
    def container(_paths: object, name: str, *, size: bool = False) -> dict[str, Any]:
        if name not in ("web", "ab"):
            raise NotFound(f"no container with name or id {name!r}")
        return {**DOCUMENT, **({"SizeRw": 5} if size else {})}

    def image(_paths: object, name: str) -> dict[str, Any]:
        if name == "x/":
            raise UsageError("not a name")
        if name not in ("alpine", "web"):
            raise NotFound(f"no image {name} here")
        return {"Id": "im", "RepoTags": [name], "Config": {"Cmd": ["sh"]}}

    monkeypatch.setattr(inspect, "container", container)
    monkeypatch.setattr(image_inspect, "document", image)
    monkeypatch.setattr(lifecycle, "containers", lambda paths: [])


def run(*words: str) -> int:
    invocation = argv.parse(["inspect", *words])
    assert invocation is not None
    return hot.execute(invocation, Session(Reporter(), {"HOME": "/h"}))


def test_json_is_an_array(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("web", "alpine") == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["Id"] for each in found] == ["ab" * 32, "im"]
    assert run("-f", "json", "--size", "web") == 0
    assert json.loads(capsys.readouterr().out) == [{**DOCUMENT, "SizeRw": 5}]


@pytest.mark.parametrize(
    ("words", "code", "ids", "error"),
    [
        (("web", "nobody", "alpine"), 125, ["ab" * 32, "im"], "no such object: 'nobody'"),
        (("nobody",), 125, [], "no such object: 'nobody'"),
        (("x/",), 125, [], "no such object: 'x/'"),
        (("--type", "image", "web"), 0, ["im"], ""),
        (("--type", "container", "alpine"), 125, [], "no container with name or id 'alpine'"),
        (("--type", "image", "ab"), 125, [], "no image ab here"),
    ],
)
def test_kinds(
    words: tuple[str, ...],
    code: int,
    ids: list[str],
    error: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(*words) == code
    shown = capsys.readouterr()
    assert [each["Id"] for each in json.loads(shown.out)] == ids
    assert error in shown.err


@pytest.mark.parametrize("words", [(), ("--type", "pod", "web"), ("-l", "web")])
def test_usage(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        run(*words)


def test_the_latest_of_none() -> None:
    with pytest.raises(NotFound):
        run("-l")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.State.Status}}", "running"),
        ("{{.Id}}|{{.ID}}|{{.ImageID}}", f"{'ab' * 32}|{'ab' * 32}|1234"),
        ("{{json .Config.Cmd}}", '["sleep","1"]'),
        ("{{.Config.Entrypoint}}{{.Config.OnBuild}}", "[][]"),
        ('{{index .Config.Labels "x.y"}}{{.Config.Labels.nothing}}', "z<no value>"),
        ("{{range .Mounts}}{{.Type}}:{{.Name}}:{{.Src}}:{{.Destination}} {{end}}",
         "volume:vol:/v/vol/_data:/data bind::/srv:/mnt "),
        ('{{range $p, $b := .NetworkSettings.Ports}}{{$p}}={{(index $b 0).HostPort}}{{end}}',
         "80/tcp=8080"),
        ('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', "8080"),
        ("{{.NetworkSettings.Ports}}", "map[80/tcp:[{0.0.0.0 8080}]]"),
        ("{{json .Config.Entrypoint}}{{len .Config.Entrypoint}}", "null0"),
        ("{{.NetworkSettings.IPAddress}}", ""),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
        ("{{.Created}}", "2026-11-22 00:33:12.2175 +0000 UTC"),
        ("{{.State.StartedAt.Unix}} {{.State.FinishedAt.IsZero}}", "1795307593 true"),
        ("{{.SizeRw}}", "<no value>"),
    ],
)  # fmt: skip
def test_templates(template: str, expected: str) -> None:
    assert render(template, record(DOCUMENT)) == expected


@pytest.mark.parametrize("template", ["{{.Bogus}}", "{{.State.Bogus}}", "{{.Config.Bogus}}"])
def test_a_field_that_is_not_there(template: str) -> None:
    with pytest.raises(UsageError, match="no field 'Bogus'"):
        render(template, record(DOCUMENT))


def test_one_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--format", "{{.Name}}", "web", "web") == 0
    assert capsys.readouterr().out == "web\nweb\n"


def test_json_of_a_template_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--format", "{{json .}}", "web") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["Created"] == DOCUMENT["Created"]
    assert found["Mounts"] == DOCUMENT["Mounts"]
    assert not output.is_json("{{.}}")
