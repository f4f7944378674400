"""What is started before a container."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.engine import record
from rootlesspy.engine.definitions import dependencies
from rootlesspy.errors import Error
from rootlesspy.paths import Paths
from rootlesspy.report import Reporter

if TYPE_CHECKING:
    from pathlib import Path

    from rootlesspy.engine.record import ContainerRecord


class Store:
    """Containers on disk, of which nothing but names and relations matters."""

    def __init__(self, directory: Path) -> None:
        self.paths = Paths(data=f"{directory}/rootlesspy", runtime=None, config=f"{directory}")
        self.names: dict[str, str] = {}
        self.started: list[str] = []

    def add(self, name: str, **relations: list[str]) -> ContainerRecord:
        identity = f"{len(self.names):064x}"
        self.names[identity] = name
        made = record._unknown(identity)._replace(name=name, request=dict(relations))
        os.close(record.create(self.paths, made, durable=False))
        return made

    def start(self, identity: str) -> None:
        name = self.names[identity]
        if name.startswith("bad"):
            raise Error("it cannot start", hint="look at it")
        self.started.append(name)

    def start_first(self, found: ContainerRecord) -> list[str]:
        dependencies.start_first(self.paths, found, self.start, Reporter())
        return self.started


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_what_is_required_or_wanted_is_started_in_order(store: Store) -> None:
    web = store.add("web", requires=["db"], wants=["mail"], after=["other"])
    store.add("db", requires=["disk"])
    store.add("disk")
    store.add("mail", requires=["disk"], wants=["web"])
    store.add("other")
    assert store.start_first(web) == ["disk", "db", "mail"]
    found = dependencies.needed(store.paths, web)
    assert sorted(each.name for each in found) == ["db", "disk", "mail"]


def test_a_required_one_that_fails_is_an_error(store: Store) -> None:
    web = store.add("web", requires=["bad"])
    store.add("bad")
    with pytest.raises(Error, match="container web requires bad: it cannot start") as caught:
        store.start_first(web)
    assert caught.value.hint == "look at it"


def test_one_that_is_not_there_is_an_error_too(store: Store) -> None:
    web = store.add("web", requires=["gone"])
    with pytest.raises(Error, match="container web requires gone: no container"):
        store.start_first(web)
    assert dependencies.needed(store.paths, web) == ()


def test_a_wanted_one_that_fails_is_a_notice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    monkeypatch.setattr("sys.stderr", told)
    web = store.add("web", wants=["bad", "gone", "db"])
    store.add("bad")
    store.add("db")
    assert store.start_first(web) == ["db"]
    assert told.getvalue().startswith("rp: container web wants bad: it cannot start\n")
    assert "rp: container web wants gone: no container" in told.getvalue()


def test_a_circle_ends(store: Store) -> None:
    one = store.add("one", requires=["two"])
    store.add("two", requires=["one"])
    assert store.start_first(one) == ["two"]
    assert [each.name for each in dependencies.needed(store.paths, one)] == ["two"]
