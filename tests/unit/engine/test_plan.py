"""What a definition would change, against containers that are only on paper."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from rootlesspy.engine import record
from rootlesspy.engine.definitions import definition, plan, toml
from rootlesspy.engine.definitions.plan import Change
from rootlesspy.engine.inputs.request import given
from rootlesspy.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rootlesspy.engine.definitions.definition import Definition
    from rootlesspy.engine.record import Container, ExitRecord

DB_AND_WEB = """
    [defaults]
    image = "alpine"
    [volume.data]
    [container.web]
    requires = ["db"]
    [container.db]
    """


def load(text: str, path: str = "/here/f.toml") -> Definition:
    return definition.parse(toml.parse(text, path))


def made(found: Definition, state: str = "running", **changes: Any) -> list[Container]:
    """Return the containers of a definition as they are after they were made."""
    return [
        record.Container(
            record=record._unknown("0" * 64)._replace(
                name=each.name,
                labels=dict(each.request.labels),
                restart=each.request.restart,
                request=json.loads(json.dumps(given(each.request))),
            ),
            state=state,
            pid=0,
            started_s=0.0,
            exit=None,
        )._replace(**changes)
        for each in found.containers
    ]


def actions(
    text: str,
    present: Iterable[Container],
    volumes: tuple[str, ...] = ("data",),
    *,
    start: bool = True,
) -> dict[str, str]:
    steps = plan.plan(load(text), present, volumes, start=start).steps
    return {step.name: step.action for step in steps}


def ended(code: int, reason: str = "") -> ExitRecord:
    return record.ExitRecord(code, 0.0, 0.0, False, "", reason=reason)


def test_everything_is_created_in_the_order_of_starting() -> None:
    found = plan.plan(load(DB_AND_WEB), [], ())
    assert [(step.action, step.kind, step.name) for step in found.steps] == [
        ("create", "volume", "data"),
        ("create", "container", "db"),
        ("create", "container", "web"),
    ]
    assert not found.is_empty


def test_what_is_made_needs_nothing() -> None:
    found = plan.plan(load(DB_AND_WEB), made(load(DB_AND_WEB)), ("data",))
    assert {step.action for step in found.steps} == {"nothing"}
    assert found.is_empty


def test_a_change_lists_its_keys_and_restarts_what_requires_it() -> None:
    old = DB_AND_WEB + 'memory = "1m"\nenv = { A = "1", B = "1" }\nports = ["80:80"]\n'
    new = DB_AND_WEB + 'memory = "2m"\nenv = { B = "2", C = "3" }\nhealthcheck.command = "x"\n'
    found = plan.plan(load(new), made(load(old)), ("data",))
    assert found.of("db").action == "change"
    assert found.of("db").changes == (
        Change("env.A", "1", None, hidden=True),
        Change("env.B", "1", "2", hidden=True),
        Change("ports", ["80:80"], None),
        Change("memory", "1m", "2m"),
        Change("env.C", None, "3", hidden=True),
        Change("healthcheck.command", None, "x"),
    )
    assert found.of("web") == plan.Step("restart", "container", "web", reason="it requires db")


def test_only_what_runs_and_requires_it_is_restarted() -> None:
    text = """
        [defaults]
        image = "alpine"
        [container.db]
        [container.one]
        requires = ["db"]
        [container.two]
        requires = ["one"]
        [container.later]
        after = ["db"]
        [container.wanting]
        wants = ["db"]
        """
    present = made(load(text))
    text = text.replace("[container.db]", '[container.db]\nmemory = "1m"')
    assert actions(text, present) == {
        "db": "change",
        "one": "restart",
        "two": "restart",
        "later": "nothing",
        "wanting": "nothing",
    }
    stopped = [
        each._replace(state="exited", exit=ended(0)) if each.record.name == "one" else each
        for each in present
    ]
    assert actions(text, stopped)["one"] == "nothing"
    assert actions(text, stopped)["two"] == "nothing"


def test_what_the_file_has_no_more_is_removed_dependents_first() -> None:
    present = made(load(DB_AND_WEB))
    text = '[container.other]\nimage = "x"\n'
    found = plan.plan(load(text), present, ())
    assert [(step.action, step.name) for step in found.steps] == [
        ("remove", "web"),
        ("remove", "db"),
        ("create", "other"),
    ]


@pytest.mark.parametrize(
    ("keys", "exit_record", "action"),
    [
        ("", None, "start"),
        ("", ended(0), "nothing"),
        ("", ended(1), "start"),
        ("", ended(0, "stop"), "start"),
        ("", ended(-1), "start"),
        ('restart = "on-failure"', ended(0), "nothing"),
        ('restart = "always"', ended(0), "start"),
        ('restart = "unless-stopped"', ended(0), "start"),
    ],
)
def test_what_does_not_run_is_started_unless_it_is_done(
    keys: str, exit_record: ExitRecord | None, action: str
) -> None:
    text = f'[container.job]\nimage = "alpine"\n{keys}\n'
    state = "created" if exit_record is None else "exited"
    present = made(load(text), state, exit=exit_record)
    assert actions(text, present) == {"job": action}
    assert actions(text, present, start=False) == {"job": "nothing"}


def test_containers_of_others_are_never_touched(tmp_path: Path) -> None:
    text = '[container.web]\nimage = "alpine"\n'
    (foreign,) = made(load(text))
    foreign = foreign._replace(record=foreign.record._replace(labels={}))
    with pytest.raises(Conflict, match="web exists and was not made from a definition"):
        actions(text, [foreign])
    other = tmp_path / "other.toml"
    other.touch()
    with pytest.raises(Conflict, match=rf"web belongs to the definition {other}"):
        actions(text, made(load(text, f"{other}")))


def test_a_file_that_moved_takes_its_containers_with_it() -> None:
    text = '[container.web]\nimage = "alpine"\n'
    found = plan.plan(load(text), made(load(text, "/gone/f.toml")), ())
    assert found.of("web").changes == (Change("file", "/gone/f.toml", "/here/f.toml"),)
    assert found.of("web").action == "change"


def test_a_record_of_an_older_rp_is_changed_without_saying_what() -> None:
    text = '[container.web]\nimage = "alpine"\n'
    (old,) = made(load(text))
    old = old._replace(record=old.record._replace(request={}))
    found = plan.plan(load(text + 'memory = "1m"\n'), [old], ())
    assert (found.of("web").action, found.of("web").changes) == ("change", ())


def test_circles_of_old_files_do_not_matter() -> None:
    a, b = made(load('[defaults]\nimage = "x"\n[container.a]\n[container.b]\n'))
    for name, other in (("a", "b"), ("b", "a")):
        each = a if name == "a" else b
        each.record.request["after"] = [other]
    assert {each.record.name for each in plan.owned([a, b], "/here/f.toml")} == {"a", "b"}
