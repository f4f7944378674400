"""Which ids are mapped."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.engine import idmap, idmap_choice, idmap_lines, names, record
from rootlesspy.engine.inputs import id_values
from rootlesspy.engine.inputs.request import RunRequest
from rootlesspy.errors import Error, Unsupported, UsageError
from rootlesspy.linux import userns
from rootlesspy.linux.userns import IdMapping, IdMaps
from rootlesspy.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path

    from rootlesspy.engine.idmap_lines import Mappings

ONE_RANGE = ((100000, 65536),)
TWO_RANGES = ((100000, 10), (500000, 5))


def _own(monkeypatch: pytest.MonkeyPatch, ranges: tuple[tuple[int, int], ...]) -> None:
    monkeypatch.setattr(idmap, "_ranges", lambda _path: ranges)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(os, "getgid", lambda: 1000)


def _map(*lines: tuple[int, int, int]) -> Mappings:
    return tuple(IdMapping(*line) for line in lines)


def test_host_map(monkeypatch: pytest.MonkeyPatch) -> None:
    _own(monkeypatch, TWO_RANGES)
    maps = idmap.maps_for("host-map")
    assert maps.uids == _map((0, 1000, 1), (1, 100000, 10), (11, 500000, 5))
    assert idmap.owns_root(maps)
    assert not idmap.leaves_caller_out(maps)
    assert [idmap.to_host(maps.uids, n) for n in (0, 1, 10, 11, 15, 16)] == [
        1000, 100000, 100009, 500000, 500004, None,
    ]  # fmt: skip


def test_nomap_has_no_id_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    _own(monkeypatch, TWO_RANGES)
    maps = idmap.maps_for("nomap")
    assert maps.uids == _map((0, 100000, 10), (10, 500000, 5))
    assert idmap.leaves_caller_out(maps)
    assert not idmap.owns_root(maps)
    assert idmap.default_user("nomap") == ""


def test_without_ranges_one_id_is_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    _own(monkeypatch, ())
    assert idmap.maps_for("host-map").is_single()
    for mode in ("keep-id", "nomap"):
        with pytest.raises(Unsupported, match=mode) as raised:
            idmap.maps_for(mode)
        assert "usermod" in str(raised.value.hint)


def test_keep_id(monkeypatch: pytest.MonkeyPatch) -> None:
    _own(monkeypatch, ONE_RANGE)
    maps = idmap.maps_for("keep-id")
    assert maps.uids == _map((0, 100000, 1000), (1000, 1000, 1), (1001, 101000, 64536))
    assert not idmap.owns_root(maps)
    assert idmap.default_user("keep-id") == "1000:1000"
    assert idmap.default_user("keep-id:uid=5") == "5:1000"
    assert idmap.default_user("host-map") == ""


def test_keep_id_size_and_large_ids_are_podmans(monkeypatch: pytest.MonkeyPatch) -> None:
    _own(monkeypatch, ONE_RANGE)
    maps = idmap.maps_for("keep-id:size=2000")
    assert maps.uids == _map((0, 100000, 1000), (1000, 1000, 1), (1001, 101000, 999))
    maps = idmap.maps_for("keep-id:uid=200000")
    assert maps.uids == _map((0, 100000, 65536), (200000, 1000, 1))


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=4), st.integers(0, 9000),
       st.integers(1, 9000))  # fmt: skip
def test_keep_id_maps_every_id_once(sizes: list[int], kept: int, most: int) -> None:
    ranges = tuple((100000 * (n + 1), size) for n, size in enumerate(sizes))
    mappings = idmap._keep_id(1000, kept, ranges, most)
    inside = [m.container_id + n for m in mappings for n in range(m.size)]
    outside = [m.host_id + n for m in mappings for n in range(m.size)]
    count = min(sum(sizes), most - 1)
    others = [number for number in range(count + 1) if number != kept][:count]
    assert sorted(inside) == sorted([*others, kept])
    assert len(set(outside)) == len(outside) == count + 1
    assert idmap.to_host(mappings, kept) == 1000


@pytest.mark.parametrize(
    "mode",
    ["", "auto", "keep-id:", "keep-id:x=1", "keep-id:uid=-1", "keep-id:uid=", "host", "keep",
     "keep-id:uid=4294967295", "keep-id:size=0"],
)  # fmt: skip
def test_odd_modes_are_refused(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    _own(monkeypatch, ONE_RANGE)
    if mode == "keep-id:":
        # Nothing after the colon is nothing asked for.
        assert idmap.maps_for(mode) == idmap.maps_for("keep-id")
        return
    with pytest.raises(UsageError):
        idmap.maps_for(mode)


def test_work_on_files_has_the_callers_ids_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _own(monkeypatch, ONE_RANGE)
    inside = idmap.maps_for("keep-id")
    assert userns.with_caller(inside) == inside
    outside = idmap.maps_for("nomap")
    added = IdMapping(userns.SPARE_ID, 1000, 1)
    assert userns.with_caller(outside) == IdMaps((*outside.uids, added), (*outside.gids, added))
    assert IdMaps(_map((0, 100000, 1)), _map((0, 100000, 1))).needs_helpers()
    assert not IdMaps(_map((0, 1000, 1)), _map((0, 1000, 1))).needs_helpers()


class TestLines:
    """--uidmap; what is expected here is what podman 5.4 made of it."""

    own = _map((0, 1000, 1), (1, 100000, 65536))

    def resolve(self, *texts: str) -> Mappings:
        lines = [line for text in texts for line in id_values.parse_id_map(text, "--uidmap")]
        return idmap_lines.explicit(lines, self.own, "--uidmap")

    @pytest.mark.parametrize(
        ("texts", "expected"),
        [
            (("0:1:1000",), _map((0, 100000, 1000))),
            (("0:0:1",), _map((0, 1000, 1))),
            (("0:0:5",), _map((0, 1000, 1), (1, 100000, 4))),
            (("0:1:10", "1000:0:1"), _map((0, 100000, 10), (1000, 1000, 1))),
            (("0:1:10:10:11:10",), _map((0, 100000, 20))),
            (("+10:@100005",), _map((0, 1000, 1), (1, 100000, 5), (6, 100006, 4), (10, 100005, 1),
                                    (11, 100010, 65526))),
            (("+7:0",), _map((0, 100000, 7), (7, 1000, 1), (8, 100007, 65529))),
            (("0:1:100", "+5:0"), _map((0, 100000, 5), (5, 1000, 1), (6, 100006, 94))),
            (("0:@100010:3",), _map((0, 100010, 3))),
            (("0:1:0", "0:2"), _map((0, 100001, 1))),
            ((), own),
        ],
    )  # fmt: skip
    def test_maps(self, texts: tuple[str, ...], expected: Mappings) -> None:
        assert self.resolve(*texts) == expected

    @pytest.mark.parametrize(
        ("texts", "words"),
        [
            (("0:65537",), "no id number 65537, but 0 .yourself. to 65536"),
            (("0:0:70000",), "no id number 65537"),
            (("0:@99999",), "id 99999 of the host is not yours"),
            (("0:@165535:2",), "id 165536 of the host is not yours"),
            (("0:1:10", "5:100:1"), "id 5 of the container is mapped twice"),
            (("0:1:10", "20:5:1"), "id 100004 of the host is mapped twice"),
            (("1:0:1",), "id 0 of the container is not mapped"),
        ],
    )
    def test_refused(self, texts: tuple[str, ...], words: str) -> None:
        with pytest.raises(UsageError, match=words):
            self.resolve(*texts)

    def test_written_as_podman_inspect_has_them(self) -> None:
        keep_id = _map((0, 100000, 1000), (1000, 1000, 1), (1001, 101000, 64536))
        assert idmap_lines.texts(keep_id, self.own) == ["0:1:1000", "1000:0:1", "1001:1001:64536"]
        assert idmap_lines.texts(self.own, self.own) == ["0:0:65537"]
        gone = _map((0, 100000, 1), (1, 300000, 5))
        assert idmap_lines.texts(gone, self.own) == ["0:1:1", "1:@300000:5"]

    def test_cve_2021_43784_more_lines_than_the_kernel_takes(self) -> None:
        """CVE-2021-43784: an error, and never a shorter or wider map."""
        lines = [f"{number}:{2 * number + 1}" for number in range(341)]
        assert len(self.resolve(*lines[:200])) == 200
        for count in (339, 340, 341):
            with pytest.raises(UsageError, match="more than the kernel takes"):
                self.resolve(*lines[:count])
        # Neighbours are one line.
        assert self.resolve(*(f"{number}:{number}" for number in range(1000))) == _map(
            (0, 1000, 1), (1, 100000, 999)
        )

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 40),
                              st.integers(1, 9)), min_size=1, max_size=6))  # fmt: skip
    def test_every_id_is_mapped_once_and_is_the_callers(
        self, lines: list[tuple[bool, int, int, int]]
    ) -> None:
        own = _map((0, 7, 1), (1, 1000, 20), (21, 5000, 30))
        parsed = [id_values.MapLine(c, h, n, False, plus, "ug") for plus, c, h, n in lines]
        try:
            found = idmap_lines.explicit(parsed, own, "--uidmap")
        except UsageError:
            return
        written = [each for line in idmap_lines.texts(found, own)
                   for each in id_values.parse_id_map(line, "")]  # fmt: skip
        assert idmap_lines.explicit(written, own, "") == found
        inside = [m.container_id + n for m in found for n in range(m.size)]
        outside = [m.host_id + n for m in found for n in range(m.size)]
        assert len(set(inside)) == len(inside)
        assert len(set(outside)) == len(outside)
        assert set(outside) <= {m.host_id + n for m in own for n in range(m.size)}
        # The last one counts as it is.
        _, first, number, size = lines[-1]
        hosts = [idmap.to_host(own, number + n) for n in range(size)]
        assert [idmap.to_host(found, first + n) for n in range(size)] == hosts
        if lines[0][0]:
            # What is not asked for follows, so that no id is lost.
            assert len(outside) == sum(m.size for m in own) or not all(e[0] for e in lines)


@pytest.mark.parametrize(
    "text",
    ["", "0", "0:", ":0:1", "0:0:", "0:0:1:2", "a:0:1", "x0:0:1", "0:x:1", "-1:0:1", "0:-1:1",
     "0:0:-1", "0:4294967295:1", "4294967295:0:1", "0:0:4294967296", "0:1_0:1", " 0:0:1", "0:0:1 ",
     "\uff10:0:1", "+:0:1", "0:@:1", "0:@+1:1", "4294967294:0:2", "0:0:1:"],
)  # fmt: skip
def test_odd_lines_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        id_values.parse_id_map(text, "--uidmap")


@given(st.text(alphabet="0123456789:@+ug,-x\uff11", max_size=20))
def test_any_line_is_parsed_or_refused(text: str) -> None:
    try:
        lines = id_values.parse_id_map(text, "--uidmap")
    except UsageError:
        return
    for line in lines:
        assert line.size > 0
        assert max(line.container_id, line.from_id) + line.size <= 2**32 - 1


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("host", "host-map"),
        ("host-map", "host-map"),
        ("nomap", "nomap"),
        ("auto", "auto"),
        ("auto:size=5", "auto:size=5"),
        ("auto:size=500,uidmapping=5:0:1,gidmapping=7:3:2",) * 2,
        ("keep-id:uid=1,gid=2,size=3",) * 2,
        ("container:x", "container:x"),
        ("ns:/proc/1/ns/user", "ns:/proc/1/ns/user"),
    ],
)
def test_modes(text: str, mode: str) -> None:
    assert id_values.parse_userns(text, "--userns") == mode


@pytest.mark.parametrize(
    "text",
    ["", "private", "nomap:x", "host:1", "auto:", "auto:size", "auto:size=0", "auto:size=-1",
     "auto:size=1,size=2", "auto:x=1", "auto:uidmapping=1", "auto:uidmapping=+1:2:3",
     "auto:uidmapping=1:@2:3", "keep-id:size=0", "keep-id:x=1", "container:", "ns:", "ns:x",
     "AUTO", "keep-id:uid=\uff11"],
)  # fmt: skip
def test_odd_modes_on_the_command_line(text: str) -> None:
    if text == "auto:":
        assert id_values.parse_auto(text) == id_values.AutoOptions()
        return
    with pytest.raises(UsageError):
        id_values.parse_userns(text, "--userns")


class TestAuto:
    def request(self, mode: str = "auto") -> RunRequest:
        return RunRequest(image="x", userns=mode)

    @pytest.fixture
    def places(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
        monkeypatch.setattr(idmap, "_ranges", lambda _path: ONE_RANGE)
        return Paths(
            data=str(tmp_path / "data"),
            runtime=str(tmp_path / "run"),
            config=str(tmp_path / "config"),
        )

    def test_ranges_are_taken_from_the_end_and_free_again(self, places: Paths) -> None:
        first = idmap_choice.choose(places, self.request(), (), "")
        second = idmap_choice.choose(places, self.request("auto:size=2000"), (), "")
        assert first.maps.uids == _map((0, 164512, 1024))
        assert second.maps.uids == second.maps.gids == _map((0, 162512, 2000))
        first.release()
        third = idmap_choice.choose(places, self.request(), (), "")
        assert third.maps == first.maps
        second.release()
        third.release()
        assert os.listdir(f"{places.data}/ids") == []

    def test_what_a_killed_maker_reserved_is_free(self, places: Paths) -> None:
        first = idmap_choice.choose(places, self.request(), (), "")
        os.close(first.fd)
        second = idmap_choice.choose(places, self.request(), (), "")
        assert second.maps == first.maps
        assert len(os.listdir(f"{places.data}/ids")) == 1

    def test_what_a_container_has_is_taken(self, places: Paths) -> None:
        choice = idmap_choice.choose(places, self.request(), (), "")
        made = record._unknown(names.new_id())._replace(
            name="x", id_maps=[[list(line) for line in ids] for ids in choice.lines()]
        )
        os.close(record.create(places, made, durable=False))
        choice.release()
        assert idmap.of(record.load_record(places.container(made.id))) == choice.maps
        second = idmap_choice.choose(places, self.request(), (), "")
        assert second.maps.uids == _map((0, 163488, 1024))

    def test_too_few_ids_name_the_line_to_enlarge(self, places: Paths) -> None:
        with pytest.raises(Unsupported) as raised:
            idmap_choice.choose(places, self.request("auto:size=70000"), (), "")
        assert "70000 uids are needed, 65536 of your 65536 are free" in str(raised.value)
        hint = str(raised.value.hint)
        assert "/etc/subuid" in hint
        assert f"{idmap.user_name()}:100000:65536 by 4464" in hint

    def test_forced_lines(self, places: Paths) -> None:
        mode = "auto:size=500,uidmapping=5:0:1,gidmapping=7:3:2"
        maps = idmap_choice.choose(places, self.request(mode), (), "").maps
        assert idmap.to_host(maps.uids, 5) == os.getuid()
        assert [idmap.to_host(maps.gids, number) for number in (7, 8)] == [100002, 100003]
        for mappings in maps:
            assert all(idmap.to_host(mappings, number) is not None for number in range(500))
            assert idmap.to_host(mappings, 500) is None

    def test_size_is_what_the_image_needs(self, tmp_path: Path) -> None:
        base, top = tmp_path / "base", tmp_path / "top"
        (base / "etc").mkdir(parents=True)
        (top / "etc").mkdir(parents=True)
        assert idmap_choice.estimate((str(base), str(top))) == 1024
        (base / "etc/passwd").write_text("big:x:5000:5000::/:\nnobody:x:65534:65534::/:\n")
        assert idmap_choice.estimate((str(base), str(top))) == 5120
        (top / "etc/passwd").write_text("a:x:1:1::/:\nodd:x:-7:1\nodd:x:99999999999:1::/:\n\xff\n")
        (base / "etc/group").write_text("nogroup:x:65533:\ng:x:1023:\n")
        assert idmap_choice.estimate((str(base), str(top))) == 1024
        (base / "etc/group").write_text("g:x:1024:\n")
        assert idmap_choice.estimate((str(base), str(top))) == 2048
        assert idmap_choice.estimate((str(base), str(top)), ("3000:1", "web")) == 3072

    def test_hostile_accounts_are_not_read(self, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.write_text("x:x:60000:60000::/:\n")
        for name in ("link", "fifo", "large"):
            (tmp_path / name / "etc").mkdir(parents=True)
        os.symlink(outside, tmp_path / "link/etc/passwd")
        os.mkfifo(tmp_path / "fifo/etc/passwd")
        with (tmp_path / "large/etc/passwd").open("wb") as file:
            file.truncate(1 << 32)
        for name in ("link", "fifo", "large"):
            assert idmap_choice.estimate((str(tmp_path / name),)) == 1024

    @given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=5),
           st.integers(1, 40))  # fmt: skip
    def test_laid_out_takes_free_ids_only(self, taken: list[tuple[int, int]], size: int) -> None:
        free = idmap_lines.minus([(0, 30), (40, 60)], [(a, a + n) for a, n in taken])
        found = idmap_lines.laid_out(size, (), free, _map((0, 1, 1)), "--userns=auto")
        left = {number for start, end in free for number in range(start, end)}
        if found is None:
            assert len(left) < size
            return
        outside = [m.host_id + n for m in found for n in range(m.size)]
        assert len(set(outside)) == len(outside) == size
        assert set(outside) <= left
        assert sorted(m.container_id + n for m in found for n in range(m.size)) == [*range(size)]


class TestNames:
    def test_subuidname(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            userns,
            "subordinate_ranges",
            lambda _path, name, _number: {"me": ONE_RANGE, "you": ((300000, 5),)}.get(name, ()),
        )
        monkeypatch.setattr(idmap, "user_name", lambda: "me")
        monkeypatch.setattr(os, "getuid", lambda: 1000)
        monkeypatch.setattr(os, "getgid", lambda: 1000)
        request = RunRequest(image="x", userns="private", subuidname="me")
        places = Paths(data=str(tmp_path), runtime=None, config=str(tmp_path))
        maps = idmap_choice.choose(places, request, (), "").maps
        assert maps.uids == maps.gids == _map((0, 100000, 65536))
        for name, words in (("you", "not yours"), ("nobody", "no line")):
            with pytest.raises(Error, match=words):
                idmap_choice.choose(places, request._replace(subuidname=name), (), "")
