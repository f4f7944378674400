"""How events are written and chosen; the lines and objects are podman 5.4.2's own."""

from __future__ import annotations

import json
import math
import os
import re
import time
from typing import cast

import pytest

from rootlesspy.cli import app, commands, events
from rootlesspy.cli.click_command import plain_forms
from rootlesspy.cli.events import json_of, text_of
from rootlesspy.engine.output import event_reader
from rootlesspy.engine.output.event_reader import Event
from rootlesspy.errors import UsageError
from rootlesspy.systemd.journal_reader import Reader

pytestmark = pytest.mark.usefixtures("utc")

ID = "08e08209f10603251f9e198475b7d4296208c66e8043e4808aa0be8020824b38"
DIED = Event(
    time_ns=1795307855798074060,
    type="container",
    kind="died",
    id=ID,
    name="p1",
    image="docker.io/library/alpine:latest",
    labels={},
    attributes={},
    exit_code=0,
    health_status="",
)


def test_a_line_is_podmans() -> None:
    assert text_of(DIED) == (
        f"2026-11-22 00:37:35.79807406 +0000 UTC container died {ID} "
        "(image=docker.io/library/alpine:latest, name=p1)"
    )
    labelled = DIED._replace(labels={"a": "b"}, attributes={"signal": "9"}, health_status="healthy")
    assert text_of(labelled).endswith(
        " (image=docker.io/library/alpine:latest, name=p1, health_status=healthy, a=b, signal=9)"
    )
    image = DIED._replace(type="image", kind="pull", name="docker.io/library/alpine:latest")
    assert text_of(image) == (
        f"2026-11-22 00:37:35.79807406 +0000 UTC image pull {ID} docker.io/library/alpine:latest"
    )
    assert text_of(DIED._replace(type="volume", kind="create", time_ns=10**9)) == (
        "1970-01-01 00:00:01 +0000 UTC volume create p1"
    )


def test_an_object_is_podmans() -> None:
    assert json_of(DIED) == (
        f'{{"ContainerExitCode":0,"ID":"{ID}","Image":"docker.io/library/alpine:latest",'
        '"Name":"p1","Status":"died","time":1795307855,"timeNano":1795307855798074060,'
        '"Type":"container","Attributes":null}'
    )
    assert "ContainerExitCode" not in json.loads(json_of(DIED._replace(exit_code=None)))


@pytest.mark.parametrize(
    ("filters", "fits"),
    [
        ([], True),
        (["event=died"], True), (["event=die"], True), (["status=died"], True),
        (["event=start"], False), (["event=start", "event=died"], True),
        (["container=p1"], True), (["container=08e0"], True), (["container=p"], False),
        (["container="], False), (["event=died", "container=p2"], False),
        (["image=alpine"], True), (["image=docker.io/library/alpine"], True),
        (["image=library/alpine:latest"], True), (["image=pine"], False),
        (["type=container"], True), (["type=image"], False), (["volume=p1"], False),
        (["label=app"], True), (["label=app=web"], True), (["label=app=we"], False),
    ],
)  # fmt: skip
def test_filters_choose(filters: list[str], fits: bool) -> None:
    assert events._filter(filters)(DIED._replace(labels={"app": "web"})) is fits


@pytest.mark.parametrize("text", ["event", "colour=red", "=x"])
def test_a_filter_that_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(text)):
        events._filter([text])


@pytest.mark.parametrize(
    ("argv", "plain"),
    [
        (["--stream=false"], ["--no-stream"]),
        (["--stream=true"], ["--stream"]),
        (["--stream=false", "--stream"], ["--no-stream", "--stream"]),
        (["--no-stream"], ["--no-stream"]),
        (["-f=event=x", "--stream=0"], ["-f", "event=x", "--no-stream"]),
    ],
)
def test_a_flag_that_is_on_by_default_can_be_switched_off_as_in_podman(
    argv: list[str], plain: list[str]
) -> None:
    assert "events" in {entry.name for entry in commands.top_level()}
    command = app.command(["events"]).commands["events"]
    assert plain_forms(command.params, argv, interspersed=True) == plain


@pytest.mark.parametrize(
    "change",
    [{"RP_TIME": b"x"}, {"RP_EXIT_CODE": b""}, {"RP_LABELS": b"{"}, {"RP_LABELS": b"[" * 100_000}],
)  # fmt: skip
def test_what_rp_did_not_write_is_no_event(change: dict[str, bytes]) -> None:
    fields = {"RP_TIME": b"1", "RP_TYPE": b"container", "RP_EVENT": b"died", "RP_LABELS": b"[]"}
    assert event_reader._event(fields) is not None
    assert event_reader._event({**fields, **change}) is None
    assert event_reader._event({}) is None


class _Silent:
    """A reader of the journal that nothing comes from."""

    done = False

    def __init__(self) -> None:
        self._ends = os.pipe()

    def fileno(self) -> int:
        return self._ends[0]

    def says(self) -> None:
        os.write(self._ends[1], b"x")

    def close(self) -> None:
        for fd in self._ends:
            os.close(fd)


def test_until_may_be_years_ahead() -> None:
    """poll(2) takes less than 25 days."""
    reader = _Silent()
    reader.says()
    assert event_reader._wait(cast(Reader, reader), time.time() + 20 * 365 * 86400)
    reader.close()
    reader = _Silent()
    assert not event_reader._wait(cast(Reader, reader), time.time() + 0.01)
    reader.close()


@pytest.mark.row("T4", "events go on when the clock was set back")
def test_t4_events_go_on_when_the_clock_was_set_back() -> None:
    """The reader begins with a whole second; what is much older cannot have been before it."""
    from_now_on = (999.0, 1000.0)
    for at_s, told in ((999.5, False), (1000.5, True), (10.0, True)):
        event = DIED._replace(time_ns=int(at_s * 1e9))
        assert event_reader._within(event, from_now_on, None) is told
    asked = (-math.inf, 1000.0)
    assert not event_reader._within(DIED._replace(time_ns=10**9), asked, None)
