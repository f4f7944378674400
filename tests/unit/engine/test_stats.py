"""What a cgroup's files come to: numbers, and None for what is not counted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.engine.views import stats
from rootlesspy.systemd import cgroup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = {
    "memory.current": "5000000\n",
    "memory.peak": "6000000\n",
    "memory.max": "8000000\n",
    "memory.low": "0\n",
    "memory.swap.current": "4096\n",
    "memory.swap.max": "max\n",
    "memory.stat": "anon 1000\ninactive_file 1000000\nfile 2\n",
    "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n",
    "cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 9\n"
    "nr_throttled 4\nthrottled_usec 77\n",
    "cpu.max": "50000 100000\n",
    "pids.current": "3\n",
    "pids.peak": "9\n",
    "pids.max": "2048\n",
    "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n"
    "259:0 rbytes=5 wbytes=0\n8:16 \n",
    "memory.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=5\nfull avg10=9.00 total=1\n",
    "cgroup.freeze": "1\n",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the root of a cgroup tree with a scope in it, `a/rp-x.scope`."""
    monkeypatch.setattr(cgroup, "mount_point", lambda: str(tmp_path))
    scope = tmp_path / "a" / "rp-x.scope"
    scope.mkdir(parents=True)
    for name, text in FILES.items():
        (scope / name).write_text(text)
    return tmp_path


def test_everything_is_read(tree: Path) -> None:
    usage = stats.read(f"{tree}/a/rp-x.scope")
    assert usage.memory_bytes == 4_000_000
    assert usage.memory_current_bytes == 5_000_000
    assert usage.memory_peak_bytes == 6_000_000
    assert usage.memory_limit_bytes == 8_000_000
    assert usage.swap_bytes == 4096
    assert (usage.cpu_us, usage.cpu_system_us) == (1500, 500)
    assert (usage.cpu_throttled_us, usage.cpu_throttled_periods) == (77, 4)
    assert (usage.pids, usage.pids_peak, usage.pids_limit) == (3, 9, 2048)
    assert (usage.io_read_bytes, usage.io_write_bytes) == (15, 20)
    assert usage.oom_kills == 2
    assert usage.pressure == {"memory": 1.5}
    assert usage.at_ns > 0


def test_what_is_not_counted_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "mount_point", lambda: str(tmp_path))
    (tmp_path / "cgroup.threads").write_text("7\n")
    usage = stats.read(str(tmp_path))
    # Counted one by one.
    assert usage._replace(at_ns=0) == stats.Usage(pids=1)
    assert stats.read(None)._replace(at_ns=0) == stats.Usage()
    gone = stats.read(f"{tmp_path}/gone")
    assert gone._replace(at_ns=0) == stats.Usage(pids=0)


def test_the_tasks_below_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "mount_point", lambda: str(tmp_path))
    below = (
        "",
        "payload/",
        "payload/init.scope/",
        "payload/system.slice/",
        "payload/system.slice/a/",
    )
    for number, name in enumerate(below):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "cgroup.threads").write_text("7\n" * 10**number)
    assert stats.read(str(tmp_path)).pids == 11111


def test_a_list_longer_than_a_page_is_read_to_its_end() -> None:
    path = f"/proc/{os.getpid()}/smaps"
    assert len(stats._text(path)) <= 4096 < len(stats._text(path, long=True))
    assert stats._text(path, long=True).splitlines()[-1].startswith("VmFlags:")


@pytest.fixture
def scopes(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[stats.Scopes]:
    """Yield scopes beside that of process 1, where every controller is enabled."""
    (tree / "a" / "cgroup.subtree_control").write_text("cpu io memory pids\n")
    (tree / "a" / "rp-y.scope" / "payload").mkdir(parents=True)
    monkeypatch.setattr(cgroup, "control_group", {1: "/a/rp-x.scope/payload"}.__getitem__)
    with stats.Scopes() as found:
        yield found


def test_scopes_side_by_side_are_found_by_the_first(tree: Path, scopes: stats.Scopes) -> None:
    assert scopes.find(1, "rp-x.scope") == "rp-x.scope"
    assert scopes.find(2, "rp-y.scope") == "rp-y.scope"
    assert scopes.find(1, "rp-renamed.scope") == f"{tree}/a/rp-x.scope"
    assert scopes.is_frozen("rp-x.scope")
    assert not scopes.is_frozen("rp-y.scope")
    assert not scopes.is_frozen(None)


def test_what_is_known_of_one_beside_another(tree: Path, scopes: stats.Scopes) -> None:
    whole = scopes.read(scopes.find(1, "rp-x.scope"), whole=True)
    assert whole._replace(at_ns=0) == stats.read(f"{tree}/a/rp-x.scope")._replace(at_ns=0)
    brief = scopes.read("rp-x.scope")
    assert brief._replace(at_ns=0) == whole._replace(
        at_ns=0, memory_peak_bytes=None, swap_bytes=None, pids_peak=None, pids_limit=None,
        oom_kills=None, pressure={},
    )  # fmt: skip
    assert scopes.read("rp-y.scope")._replace(at_ns=0) == stats.Usage(pids=0)
    (tree / "a" / "memory.max").write_text("7000000\n")
    with stats.Scopes() as again:
        again.find(1, "")
        assert again.read("rp-x.scope").memory_limit_bytes == 7_000_000


def test_controllers_that_are_not_enabled_are_not_asked(tree: Path, scopes: stats.Scopes) -> None:
    (tree / "a" / "cgroup.subtree_control").write_text("cpu\n")
    scopes.find(1, "rp-x.scope")
    known = scopes.read("rp-x.scope")
    assert (known.memory_bytes, known.io_read_bytes, known.cpu_us) == (None, None, 1500)


def test_the_smallest_limit_around_counts(tree: Path) -> None:
    (tree / "a" / "memory.max").write_text("7000000\n")
    assert stats.read(f"{tree}/a/rp-x.scope").memory_limit_bytes == 7_000_000
    (tree / "a" / "memory.max").write_text("max\n")
    (tree / "a" / "rp-x.scope" / "memory.max").write_text("max\n")
    usage = stats.read(f"{tree}/a/rp-x.scope")
    assert usage.memory_limit_bytes == stats.machine_memory_bytes()


def test_limits(tree: Path) -> None:
    assert stats.limits(f"{tree}/a/rp-x.scope") == stats.Limits(
        memory_bytes=8_000_000,
        swap_bytes=None,
        memory_low_bytes=None,
        cpu_quota_us=50000,
        cpu_period_us=100000,
        pids=2048,
    )
    (tree / "a" / "rp-x.scope" / "cpu.max").write_text("max 100000\n")
    assert stats.limits(f"{tree}/a/rp-x.scope").cpu_period_us is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/rp-x.scope/payload", "/a/rp-x.scope"),
        ("/a/rp-x.scope/payload/init.scope", "/a/rp-x.scope"),
        ("/a/rp-x.scope", "/a/rp-x.scope"),
        ("/a/other.scope", None),
    ],
)
def test_the_scope_is_found_from_below(
    tree: Path, monkeypatch: pytest.MonkeyPatch, path: str, expected: str | None
) -> None:
    monkeypatch.setattr(cgroup, "control_group", lambda pid: path)
    found = stats.scope_directory(1)
    assert found == (expected and f"{tree}{expected}")


def test_no_scope(tree: Path) -> None:
    assert stats.scope_directory(os.getpid()) is None
    assert stats.scope_directory(2**22 + 1) is None


def test_frozen(tree: Path) -> None:
    assert stats.is_frozen(f"{tree}/a/rp-x.scope")
    assert not stats.is_frozen(f"{tree}/a")
    assert not stats.is_frozen(None)


def test_network_counters_of_this_process() -> None:
    for name, counters in stats.network(os.getpid()).items():
        assert name != "lo"
        assert set(counters) == {
            "RxBytes", "RxPackets", "RxErrors", "RxDropped",
            "TxBytes", "TxPackets", "TxErrors", "TxDropped",
        }  # fmt: skip
    assert stats.network(2**22 + 1) == {}


def test_processes_below(tree: Path) -> None:
    (tree / "a" / "cgroup.procs").write_text("7\n3\n")
    (tree / "a" / "rp-x.scope" / "cgroup.procs").write_text("12\n")
    assert stats.processes(f"{tree}/a") == [3, 7, 12]
