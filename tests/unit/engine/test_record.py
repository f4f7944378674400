"""Records on disk: whole or old, names reserved once, damage confined to its object."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rootlesspy import paths as paths_module
from rootlesspy.engine import lifecycle, names, record, statefile
from rootlesspy.errors import Conflict, Error, NotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rootlesspy.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return paths_module.Paths(
        data=os.fspath(tmp_path / "data"),
        runtime=os.fspath(tmp_path / "run"),
        config=os.fspath(tmp_path / "config"),
    )


def _record(name: str = "web", container_id: str | None = None) -> record.ContainerRecord:
    blank = record._unknown(container_id or names.new_id())
    return blank._replace(name=name, image="alpine", unit=f"rp-{name}.scope", created_s=5.0)


def test_a_container_is_found_by_name_id_and_unique_prefix(paths: Paths) -> None:
    made = _record()
    os.close(record.create(paths, made, durable=False))
    for text in ("web", made.id, made.id[:12], made.id[:3]):
        assert record.find(paths, text) == made.id
    with pytest.raises(NotFound):
        record.find(paths, "webb")


def test_an_ambiguous_prefix_is_a_conflict(paths: Paths) -> None:
    for name, container_id in (("a1", "ab" + "0" * 62), ("a2", "ac" + "0" * 62)):
        os.close(record.create(paths, _record(name, container_id), durable=False))
    with pytest.raises(Conflict, match="2 begin with it"):
        record.find(paths, "a")


def test_a_name_is_reserved_once_and_the_loser_leaves_nothing(paths: Paths) -> None:
    first = _record()
    os.close(record.create(paths, first, durable=False))
    with pytest.raises(Conflict, match="in use by container " + first.id[:12]):
        record.create(paths, _record(), durable=False)
    assert record.ids(paths) == [first.id]
    assert record.find(paths, "web") == first.id


def test_the_name_of_a_vanished_container_is_free(paths: Paths) -> None:
    os.makedirs(paths.names)
    os.symlink("0" * 64, f"{paths.names}/web")
    made = _record()
    os.close(record.create(paths, made, durable=False))
    assert record.find(paths, "web") == made.id


def test_states_follow_the_files_and_the_lock(paths: Paths) -> None:
    made = _record()
    lock = record.create(paths, made, durable=False)
    directory = paths.container(made.id)

    def state() -> str:
        found = record.load(paths, made.id)
        assert found is not None
        return found.state

    assert state() == "created"
    live = record.LiveState(1, 2, 3, 4, "boot", 6.0, 0, 0)
    record.write_live_state(directory, live)
    assert state() == "running"
    os.close(lock)
    lost = record.load(paths, made.id)
    assert lost is not None
    assert lost.exit is not None
    assert (lost.state, lost.exit.exit_code) == ("exited", -1)
    assert "lost" in lost.exit.error
    ended = record.ExitRecord(3, 9.0, 6.0, oom_killed=True, error="out of memory")
    record.write_exit_record(directory, ended, durable=True)
    found = record.load(paths, made.id)
    assert found is not None
    assert found.exit == ended
    assert found.record == made


def _opened(directory: str) -> int:
    """Count the descriptors of this process that are open on a directory."""
    count = 0
    for each in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            count += os.path.samestat(os.stat(f"/proc/self/fd/{each}"), os.stat(directory))
    return count


def _while_it_waits(directory: str, call: Callable[[], Any], meanwhile: Callable[[], None]) -> Any:
    """Do something after call() has opened a directory, and before it can lock it."""
    # As somebody who only looks, for whom lock() waits.
    looking = os.open(directory, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call)
        try:
            while _opened(directory) < 2 and not answer.done():
                time.sleep(0.001)
            meanwhile()
        finally:
            os.close(looking)
        return answer.result()


def test_what_was_removed_before_it_could_be_locked_is_gone(paths: Paths, tmp_path: Path) -> None:
    made = _record()
    os.close(record.create(paths, made, durable=False))
    directory = paths.container(made.id)

    def remove() -> None:
        os.rename(directory, tmp_path / "removed")

    with pytest.raises(FileNotFoundError):
        _while_it_waits(directory, lambda: record.lock(directory), remove)
    assert not record.is_locked(os.fspath(tmp_path / "removed"))


def test_what_is_started_is_what_is_locked(paths: Paths) -> None:
    """Although its name is another one's by then."""
    made, other = _record(), _record("other")
    for each in (made, other):
        os.close(record.create(paths, each, durable=False))

    def rename() -> None:
        os.unlink(f"{paths.names}/web")
        os.symlink(other.id, f"{paths.names}/web")

    found, lock_fd = _while_it_waits(
        paths.container(made.id), lambda: lifecycle._lock_to_start(paths, "web"), rename
    )
    assert lock_fd is not None
    assert record.is_locked(paths.container(found.record.id))
    os.close(lock_fd)
    assert found.record.id == made.id


def test_who_waits_for_one_that_listens_no_more_is_told_its_end(paths: Paths) -> None:
    """As between a supervisor's last turn and its record of the end."""
    made = _record()
    lock = record.create(paths, made, durable=False)
    directory = paths.container(made.id)
    record.write_live_state(directory, record.LiveState(1, 2, 3, 4, "boot", 6.0, 0, 0))

    ended = record.ExitRecord(7, 9.0, 6.0, oom_killed=False, error="")

    def end() -> None:
        record.write_exit_record(directory, ended, durable=True)
        os.close(lock)

    later = threading.Timer(0.3, end)
    later.start()
    assert lifecycle.wait(paths, "web") == 7
    later.join()


@pytest.mark.parametrize("end", ["unlocked", "removed", "never"])
def test_waiting_for_a_supervisor_opens_its_container_once(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    made = _record()
    lock_fd = record.create(paths, made, durable=False)
    directory = paths.container(made.id)
    pauses, opened = [], []
    plain_open = os.open

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 5 and end == "unlocked":
            fcntl.flock(lock_fd, fcntl.LOCK_UN)
        if len(pauses) == 5 and end == "removed":
            os.rename(directory, f"{directory}-removed")

    def count(path: str, flags: int) -> int:
        opened.append(path)
        return plain_open(path, flags)

    monkeypatch.setattr(time, "sleep", pause)
    monkeypatch.setattr(os, "open", count)
    assert record.wait_unlocked(directory, 0.2 if end == "never" else 60) == (end != "never")
    assert opened == [directory]
    assert len(pauses) == 5 or end == "never"
    os.close(lock_fd)
    assert record.wait_unlocked(directory, 0)


@pytest.mark.row("D1", "shown as damaged, for a cut at every byte")
def test_d1_every_truncation_of_a_record_is_a_broken_container_and_no_other(paths: Paths) -> None:
    good, bad = _record("good"), _record("bad")
    for each in (good, bad):
        os.close(record.create(paths, each, durable=True))
    path = f"{paths.container(bad.id)}/record.json"
    with open(path, "rb") as file:
        content = file.read()
    variants = [content[:n] for n in range(len(content))] + [b"\0" * 50, b"[]", b"{}", b"\xff"]
    for variant in variants:
        with open(path, "wb") as file:
            file.write(variant)
        found = record.load(paths, bad.id)
        assert found is not None
        assert found.state == "broken"
    other = record.load(paths, good.id)
    assert other is not None
    assert other.state == "created"


@pytest.mark.row("T5", "a file that was never synced and is empty counts as not there")
def test_t5_what_a_power_loss_leaves_of_files_that_were_not_synced(paths: Paths) -> None:
    kept, removed = _record("kept"), _record("removed", "b" * 64)
    os.close(record.create(paths, kept, durable=True))
    os.close(record.create(paths, removed, durable=False))
    directory = paths.container(kept.id)
    live = record.LiveState(1, 1, 1, 1, "boot", 1.0, 0, 0)
    record.write_live_state(directory, live)
    os.truncate(f"{directory}/state.json", 0)
    found = record.load(paths, kept.id)
    assert found is not None
    # It was started, and nobody saw its end.
    assert (found.state, found.exit) == ("exited", record.lost())
    # Whoever starts it has not written where it runs yet.
    lock_fd = record.lock(directory)
    assert lock_fd is not None
    starting = record.load(paths, kept.id)
    assert starting is not None
    assert starting.state == "created"
    os.close(lock_fd)
    os.truncate(f"{paths.container(removed.id)}/record.json", 0)
    assert record.load(paths, removed.id) is None
    os.truncate(f"{directory}/record.json", 0)
    damaged = record.load(paths, kept.id)
    assert damaged is not None
    assert damaged.state == "broken"


def test_d1_state_and_exit_files_too(paths: Paths) -> None:
    made = _record()
    os.close(record.create(paths, made, durable=False))
    for name in ("state.json", "exit.json"):
        path = f"{paths.container(made.id)}/{name}"
        for content in (b"", b"{", b"{}", b'{"version":1}', b"[1]"):
            with open(path, "wb") as file:
                file.write(content)
            found = record.load(paths, made.id)
            assert found is not None
            assert found.state == "broken", (name, content)
        os.unlink(path)


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_d1_a_record_that_is_no_file(paths: Paths, kind: str) -> None:
    made = _record()
    os.close(record.create(paths, made, durable=False))
    path = f"{paths.container(made.id)}/record.json"
    os.rename(path, path + ".away")
    if kind == "link":
        os.symlink(path + ".away", path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        os.mkdir(path)
    found = record.load(paths, made.id)
    assert found is not None
    assert found.state == "broken"


def test_too_few_descriptors_are_no_damage(paths: Paths) -> None:
    made = _record()
    os.close(record.create(paths, made, durable=False))
    taken: list[int] = []
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some more than there are: the limit of a machine may be a billion.
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 16, limits[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/", os.O_PATH | os.O_CLOEXEC))
        with pytest.raises(OSError, match="Too many open files"):
            record.load(paths, made.id)
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    found = record.load(paths, made.id)
    assert found is not None
    assert found.state == "created"


def test_d2_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "x.json")
    statefile.write(path, {"a": 1}, durable=True)
    assert statefile.read(path) == {"version": 1, "a": 1}
    with open(path, "w", encoding="ascii") as file:
        file.write('{"version": 2}')
    with pytest.raises(Error, match="newer rp"):
        statefile.read(path)


def test_a_failed_write_keeps_the_old_content(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "x.json")
    statefile.write(path, {"a": 1}, durable=False)
    with pytest.raises(TypeError):
        statefile.write(path, {"a": object()}, durable=False)
    assert statefile.read(path)["a"] == 1
    assert os.listdir(tmp_path) == ["x.json"]


@pytest.mark.parametrize(
    "name", ["", "-x", ".", "..", "../x", "a/b", "a b", "a\n", "é", "a" * 129, "a\0", "_a"]
)
def test_odd_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        names.check_name(name)


@given(st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}", fullmatch=True))
def test_podmans_names_are_accepted(name: str) -> None:
    assert names.check_name(name) == name


def test_random_names_are_valid() -> None:
    for _ in range(50):
        assert names.check_name(names.new_name())


_VALUES: st.SearchStrategy[object] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.text(),
    st.sampled_from(["\0", "\ud800"]),
    st.lists(st.one_of(st.text(max_size=2), st.integers()), max_size=2),
    st.dictionaries(st.text(max_size=2), st.one_of(st.text(max_size=2), st.none()), max_size=2),
)


@given(
    field=st.sampled_from(
        ("image", "command", "labels", "created_s", "stop_timeout_s", "tty", "health", "ports")
    ),
    value=_VALUES,
)
@example(field="image", value="\0")
@example(field="image", value="\ud800")
@example(field="health", value=None)
def test_the_quick_reading_finds_what_the_slow_one_does(field: str, value: object) -> None:
    fields = {**_record()._asdict(), field: value}
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/x.json"
        with open(path, "w", encoding="ascii") as file:
            json.dump({"version": 1, **fields}, file)
        shape = statefile.shape(record.ContainerRecord)
        try:
            expected = statefile.read_as(record.ContainerRecord, path)
        except statefile.DamagedError:
            with pytest.raises(statefile.DamagedError):
                statefile.read_shape(shape, path)
        else:
            assert statefile.read_shape(shape, path) == expected
