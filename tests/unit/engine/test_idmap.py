"""Which ids are mapped."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.engine import idmap
from rootlesspy.errors import Error, Unsupported, UsageError
from rootlesspy.linux.userns import IdMapping


def _own(monkeypatch: pytest.MonkeyPatch, ranges: tuple[tuple[int, int], ...]) -> None:
    monkeypatch.setattr(idmap, "_ranges", lambda _path: ranges)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(os, "getgid", lambda: 1000)


def test_host_map(monkeypatch: pytest.MonkeyPatch) -> None:
    _own(monkeypatch, ((100000, 10), (500000, 5)))
    maps = idmap.maps_for("host-map")
    assert maps.uids == (IdMapping(0, 1000, 1), IdMapping(1, 100000, 10), IdMapping(11, 500000, 5))
    assert idmap.owns_root(maps)
    assert [idmap.to_host(maps.uids, n) for n in (0, 1, 10, 11, 15, 16)] == [
        1000, 100000, 100009, 500000, 500004, None,
    ]  # fmt: skip


def test_without_ranges_one_id_is_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    _own(monkeypatch, ())
    assert idmap.maps_for("host-map").is_single()
    with pytest.raises(Unsupported, match="keep-id") as raised:
        idmap.maps_for("keep-id")
    assert "usermod" in str(raised.value.hint)


def test_keep_id(monkeypatch: pytest.MonkeyPatch) -> None:
    _own(monkeypatch, ((100000, 65536),))
    maps = idmap.maps_for("keep-id")
    assert maps.uids == (
        IdMapping(0, 100000, 1000),
        IdMapping(1000, 1000, 1),
        IdMapping(1001, 101000, 64536),
    )
    assert not idmap.owns_root(maps)
    assert idmap.default_user("keep-id") == "1000:1000"
    assert idmap.default_user("keep-id:uid=5") == "5:1000"
    assert idmap.default_user("host-map") == ""


@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=4),
    st.integers(0, 5000),
)
def test_keep_id_maps_every_id_once(sizes: list[int], kept: int) -> None:
    ranges = tuple((100000 * (n + 1), size) for n, size in enumerate(sizes))
    try:
        mappings = idmap._keep_id(1000, kept, ranges, "keep-id")
    except Error:
        assert kept > sum(sizes)
        return
    inside = [m.container_id + n for m in mappings for n in range(m.size)]
    outside = [m.host_id + n for m in mappings for n in range(m.size)]
    assert sorted(inside) == list(range(sum(sizes) + 1))
    assert len(set(outside)) == len(outside)
    assert idmap.to_host(mappings, kept) == 1000


@pytest.mark.parametrize(
    "mode",
    ["", "auto", "keep-id:", "keep-id:x=1", "keep-id:uid=-1", "keep-id:uid=", "host", "keep",
     "keep-id:uid=4294967295"],
)  # fmt: skip
def test_odd_modes_are_refused(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    _own(monkeypatch, ((100000, 65536),))
    if mode == "keep-id:":
        # Nothing after the colon is nothing asked for.
        assert idmap.maps_for(mode) == idmap.maps_for("keep-id")
        return
    with pytest.raises(UsageError):
        idmap.maps_for(mode)
