"""Listings of many containers: what is kept of their files is what they say, or is not believed."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from rootlesspy import paths as paths_module
from rootlesspy.engine import leftovers, names, record, record_cache, statefile
from rootlesspy.engine.record import Container, ContainerRecord, ExitRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rootlesspy.paths import Paths

_MANY = 40


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "run").mkdir()
    return paths_module.Paths(
        data=os.fspath(tmp_path / "data"),
        runtime=os.fspath(tmp_path / "run"),
        config=os.fspath(tmp_path / "config"),
    )


@pytest.fixture
def many(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make containers that have ended a while ago; return their ids."""
    monkeypatch.setattr(record_cache, "_SETTLED_NS", -(10**12))
    return [_ended(paths, f"c{number}") for number in range(_MANY)]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which state files are read."""
    read: list[str] = []
    content = statefile.content

    def recording(path: str, limit_bytes: int) -> tuple[bytes, os.stat_result]:
        read.append(path)
        return content(path, limit_bytes)

    monkeypatch.setattr(statefile, "content", recording)
    return read


def _ended(paths: Paths, name: str, code: int = 0, **fields: Any) -> str:
    identity = names.new_id()
    made = record._unknown(identity)._replace(
        name=name, image="alpine", created_s=5.25, labels={"é": '"\\'}, **fields
    )
    os.close(record.create(paths, made, durable=False))
    directory = paths.container(identity)
    with open(f"{directory}/config.json", "wb"):
        pass
    _end(directory, code)
    return identity


def _end(directory: str, code: int) -> None:
    ended = ExitRecord(
        exit_code=code, finished_s=7.5, started_s=6, oom_killed=False, error="", usage={"x": 1}
    )
    record.write_exit_record(directory, ended, durable=False)


def _listed(paths: Paths) -> dict[str, Container]:
    return {each.record.id: each for each in leftovers.sweep(paths)}


def _without_cache(paths: Paths) -> dict[str, Container]:
    return _listed(paths._replace(runtime=None))


def test_the_second_listing_reads_nothing_but_the_cache(
    paths: Paths, many: list[str], opened: list[str]
) -> None:
    first = _listed(paths)
    assert len(opened) == 1 + 2 * _MANY
    opened.clear()
    assert _listed(paths) == first == _without_cache(paths)
    assert opened[0] == f"{paths.runtime}/listing"
    assert len(opened) == 1 + 2 * _MANY  # those of the listing without a cache
    assert {type(each.created_s) for each in map(_record_of, first.values())} == {float}
    assert set(first) == set(many)


def _record_of(found: Container) -> ContainerRecord:
    return found.record


def _rename(directory: str) -> None:
    kept = record.load_record(directory)
    statefile.write(f"{directory}/record.json", kept._replace(name="other")._asdict(), durable=True)


def _restart(directory: str) -> None:
    record.forget_run(directory)
    _end(directory, 3)


def _damage(name: str) -> Callable[[str], None]:
    def damage(directory: str) -> None:
        with open(f"{directory}/damaged", "wb") as file:
            file.write(b"#")
        os.rename(f"{directory}/damaged", f"{directory}/{name}")

    return damage


def _forget(directory: str) -> None:
    record.forget_run(directory)


def _lose(directory: str) -> None:
    os.unlink(f"{directory}/record.json")


def _start_and_be_killed(directory: str) -> None:
    record.forget_run(directory)
    live = record._LOST._replace(boot_id="other", started_s=8.0)
    record.write_live_state(directory, live)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_rename, id="renamed"),
        pytest.param(_restart, id="started again"),
        pytest.param(_forget, id="about to start"),
        pytest.param(_damage("record.json"), id="damaged record"),
        pytest.param(_damage("exit.json"), id="damaged end"),
        pytest.param(_lose, id="record lost"),
        pytest.param(_start_and_be_killed, id="killed"),
    ],
)
def test_what_has_changed_is_read_again(
    paths: Paths, many: list[str], change: Callable[[str], None]
) -> None:
    before = _listed(paths)
    _listed(paths)
    change(paths.container(many[3]))
    after = _listed(paths)
    assert after.get(many[3]) != before[many[3]]
    assert after == _without_cache(paths)
    assert {each: after[each] for each in many if each != many[3]} == {
        each: before[each] for each in many if each != many[3]
    }


def test_what_was_removed_and_made_since(paths: Paths, many: list[str]) -> None:
    _listed(paths)
    found = _listed(paths)[many[0]]
    os.unlink(f"{paths.names}/{found.record.name}")
    os.rename(paths.container(many[0]), f"{paths.data}/gone")
    new = _ended(paths, "new")
    assert set(_listed(paths)) == {*many[1:], new}


def test_a_running_one_is_known_by_its_lock(
    paths: Paths, many: list[str], opened: list[str]
) -> None:
    directory = paths.container(many[7])
    record.forget_run(directory)
    live = record._LOST._replace(pid=os.getpid(), started_s=8.0)
    record.write_live_state(directory, live)
    lock_fd = record.lock(directory)
    assert lock_fd is not None
    assert {_listed(paths)[many[7]].state for _ in range(2)} == {"running"}
    opened.clear()
    assert _listed(paths)[many[7]].started_s == 8.0
    assert opened == [f"{paths.runtime}/listing"]
    os.close(lock_fd)
    assert _listed(paths)[many[7]].state == "exited"
    assert [each.record.id for each in leftovers.sweep(paths, running=True)] == [many[7]]


def test_poststop_hooks_that_are_owed_are_never_kept(
    paths: Paths, many: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    owed: list[str] = []
    from rootlesspy.engine import storage

    monkeypatch.setattr(storage, "finish_hooks", lambda directory, **_how: owed.append(directory))
    directory = paths.container(many[5])
    with open(f"{directory}/{record.POSTSTOP}", "wb"):
        pass
    for _ in range(3):
        _listed(paths)
    assert owed == [directory] * 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole.replace(b"alpine", b"alpinf"),
        lambda whole: whole.replace(b"/containers", b"/elsewhere"),
        lambda whole: b"\0" * 100,
        lambda whole: whole + b"\n",
    ],
)
def test_a_damaged_or_foreign_cache_counts_for_nothing(
    paths: Paths, many: list[str], opened: list[str], damage: Callable[[bytes], bytes]
) -> None:
    expected = _listed(paths)
    kept = f"{paths.runtime}/listing"
    with open(kept, "rb") as file:
        whole = file.read()
    with open(kept, "wb") as file:
        file.write(damage(whole))
    opened.clear()
    assert _listed(paths) == expected
    assert len(opened) == 1 + 2 * _MANY
    with open(kept, "rb") as file:
        assert file.read() == whole


def test_a_cache_of_other_fields_counts_for_nothing(
    paths: Paths, many: list[str], opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _listed(paths)
    shape = record.EXIT_RECORD._replace(names=[*record.EXIT_RECORD.names, "new"])
    monkeypatch.setitem(record_cache._SHAPES, record.EXIT, shape)
    opened.clear()
    assert _listed(paths) == expected
    assert len(opened) == 1 + 2 * _MANY


def test_what_changed_a_moment_ago_is_not_kept(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever the making takes, the first is a second old.
    now_ns = time.time_ns() + 10**9
    for number in range(_MANY):
        _ended(paths, f"c{number}")
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)
    _listed(paths)
    assert not os.path.exists(f"{paths.runtime}/listing")


def test_few_changes_are_not_worth_writing_it(paths: Paths, many: list[str]) -> None:
    _listed(paths)
    kept = f"{paths.runtime}/listing"
    written = os.stat(kept).st_mtime_ns
    _rename(paths.container(many[0]))
    _listed(paths)
    assert os.stat(kept).st_mtime_ns == written


def test_one_that_is_being_written_or_cannot_be_is_done_without(
    paths: Paths, many: list[str]
) -> None:
    import fcntl

    kept = f"{paths.runtime}/listing"
    with open(kept, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert set(_listed(paths)) == set(many)
        assert os.path.getsize(kept) == 0
    os.unlink(kept)
    os.symlink("elsewhere", kept)
    assert set(_listed(paths)) == set(many)
    assert not os.path.lexists(f"{paths.runtime}/elsewhere")


def test_what_cannot_be_kept_is_listed(
    paths: Paths, many: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_deep(*_arguments: object) -> None:
        raise RecursionError

    monkeypatch.setattr(record_cache, "_to_columns", too_deep)
    assert set(_listed(paths)) == set(many)
    assert not os.path.exists(f"{paths.runtime}/listing")


def test_a_record_that_is_not_believed_is_not_kept(paths: Paths, many: list[str]) -> None:
    kept = record.load_record(paths.container(many[0]))
    invalid = kept._replace(name="no name")._asdict()
    statefile.write(f"{paths.container(many[0])}/record.json", invalid, durable=False)
    assert [_listed(paths)[many[0]].state for _ in range(3)] == ["broken"] * 3


def _mounts_of(
    paths: Paths, wanted: list[str], seen: record_cache.Seen | None = None
) -> record_cache.MountCache:
    return record_cache.MountCache(paths, wanted, {} if seen is None else seen)


def test_mounts_are_kept_until_their_container_changes(paths: Paths, many: list[str]) -> None:
    mounts = {each: [{"Destination": f"/{number % 3}"}] for number, each in enumerate(many)}
    first = _mounts_of(paths, many)
    for each in many:
        assert first.get(each) is None
        first.put(each, mounts[each])
    first.save()
    second = _mounts_of(paths, many)
    assert {each: second.get(each) for each in many} == mounts
    _rename(paths.container(many[3]))
    _lose(paths.container(many[4]))
    third = _mounts_of(paths, [*many, names.new_id()])
    assert {each: third.get(each) for each in many} == {**mounts, many[3]: None, many[4]: None}


def test_a_directory_is_looked_at_once(
    paths: Paths, many: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    lstat = os.lstat

    def recording(path: str, *, dir_fd: int | None = None) -> os.stat_result:
        if dir_fd is not None:
            looked.append(path)
        return lstat(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "lstat", recording)
    seen: record_cache.Seen = {}
    leftovers.sweep(paths, seen=seen)
    assert sorted(looked) == sorted(many)
    looked.clear()
    new = _ended(paths, "new")
    _mounts_of(paths, [*many, new], seen)
    assert looked == [new]


def test_mounts_of_one_that_changed_since_it_was_looked_at_are_not_believed(
    paths: Paths, many: list[str]
) -> None:
    seen: record_cache.Seen = {}
    leftovers.sweep(paths, seen=seen)
    _rename(paths.container(many[3]))
    first = _mounts_of(paths, many, seen)
    for each in many:
        first.put(each, [])
    first.save()
    second = _mounts_of(paths, many)
    assert [each for each in many if second.get(each) is None] == [many[3]]


def test_few_mounts_are_not_worth_keeping(paths: Paths, many: list[str]) -> None:
    cache = _mounts_of(paths, many)
    for each in many[:31]:
        cache.put(each, [])
    cache.save()
    assert not os.path.exists(f"{paths.runtime}/listing-mounts")
    cache.put(many[31], [])
    cache.save()
    assert _mounts_of(paths, many).get(many[31]) == []
    assert _mounts_of(paths, many).get(many[32]) is None


def test_an_id_that_is_none_is_never_kept(paths: Paths, many: list[str]) -> None:
    identity = _ended(paths, "short")
    os.rename(paths.container(identity), paths.container("abc"))
    os.unlink(f"{paths.names}/short")
    kept = record.load_record(paths.container(many[0]))._replace(id="abc", name="short")
    statefile.write(f"{paths.container('abc')}/record.json", kept._asdict(), durable=False)
    expected = _listed(paths)
    assert expected["abc"].record.name == "short"
    assert _listed(paths) == expected
