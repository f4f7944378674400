"""engine.volume and engine.volume_store with the caller's own files, without a user namespace."""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import os
import stat
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import pytest

from rootlesspy.engine import copytree, volume, volume_store
from rootlesspy.engine.inputs.request import VolumeMount
from rootlesspy.errors import Conflict, Error, ImageError, NotFound, Unsupported, UsageError
from rootlesspy.linux import mount, userns
from rootlesspy.linux.userns import IdMapping, IdMaps
from rootlesspy.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

MAPS = IdMaps((IdMapping(0, os.getuid(), 1),), (IdMapping(0, os.getgid(), 1),))


class Machine(NamedTuple):
    """A store, an image of one layer, and how often a user namespace was asked for."""

    paths: Paths
    layer: Path
    host: Path
    calls: list[IdMaps]

    def prepare(
        self, *volumes: VolumeMount, image: tuple[str, ...] = (), user: str = ""
    ) -> volume.Prepared:
        return volume.prepare(
            volumes,
            image,
            paths=self.paths,
            maps=MAPS,
            layers=(str(self.layer),),
            user=user or f"{os.getuid()}:{os.getgid()}",
        )

    def data(self, name: str) -> str:
        return f"{self.paths.volumes}/{name}/_data"

    def write(self, path: str, content: str = "x") -> Path:
        file = self.layer / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return file


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    for name in ("layer", "host"):
        (tmp_path / name).mkdir()
    calls: list[IdMaps] = []

    def call(maps: IdMaps, function: Callable[[], T]) -> T:
        calls.append(maps)
        return function()

    monkeypatch.setattr(userns, "call_in_userns", call)
    paths = Paths(data=f"{tmp_path}/data", runtime=None, config=f"{tmp_path}/config")
    # The collector closes what earlier tests have left to it.
    gc.disable()
    try:
        before = os.listdir("/proc/self/fd")
        yield Machine(paths, tmp_path / "layer", tmp_path / "host", calls)
        assert os.listdir("/proc/self/fd") == before, "descriptors were left open"
    finally:
        gc.enable()
    if os.path.exists(paths.tmp):
        assert os.listdir(paths.tmp) == [], "half-made things were left"


def bind(source: object, target: str = "/t", *options: str) -> VolumeMount:
    return VolumeMount(str(source), target, "bind", options)


def named(name: str, target: str = "/t", *options: str) -> VolumeMount:
    return VolumeMount(name, target, "volume", options)


class TestBinds:
    def test_default_is_a_private_recursive_bind(self, machine: Machine) -> None:
        prepared = machine.prepare(bind(machine.host, "/data"))
        assert prepared.anonymous == ()
        assert prepared.mounts == (
            {
                "destination": "/data",
                "type": "bind",
                "source": str(machine.host),
                "options": ["rbind", "rprivate"],
            },
        )
        assert machine.calls == []

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            pytest.param(("ro",), ["rbind", "rprivate", "rro"], id="read-only with all below"),
            pytest.param(("rw",), ["rbind", "rprivate"], id="rw never lifts the source's own ro"),
            pytest.param(("bind", "ro"), ["bind", "private", "ro"], id="not recursive"),
            pytest.param(("z",), ["rbind", "rprivate"], id="z"),
            pytest.param(("Z", "rslave"), ["rbind", "rslave"], id="propagation"),
            pytest.param(
                ("noexec", "nosuid", "nodev"),
                ["rbind", "rprivate", "rnoexec", "rnosuid", "rnodev"],
                id="forbidding",
            ),
        ],
    )
    def test_options(self, machine: Machine, given: tuple[str, ...], expected: list[str]) -> None:
        assert machine.prepare(bind(machine.host, "/t", *given)).mounts[0]["options"] == expected

    @pytest.mark.parametrize("option", ["exec", "suid", "dev"])
    def test_what_the_host_forbids_cannot_be_allowed(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch, option: str
    ) -> None:
        class Statistics(NamedTuple):
            f_flag: int

        flag = {"exec": os.ST_NOEXEC, "suid": os.ST_NOSUID, "dev": os.ST_NODEV}[option]
        monkeypatch.setattr(os, "fstatvfs", lambda _: Statistics(~flag))
        machine.prepare(bind(machine.host, "/t", option))
        monkeypatch.setattr(os, "fstatvfs", lambda _: Statistics(flag))
        with pytest.raises(Unsupported, match=f"mounted no{option}"):
            machine.prepare(bind(machine.host, "/t", option))

    def test_file_and_followed_link(self, machine: Machine) -> None:
        (machine.host / "file").write_text("x")
        os.symlink("file", machine.host / "link")
        mounts = machine.prepare(bind(machine.host / "file"), bind(machine.host / "link")).mounts
        assert [each["source"] for each in mounts] == [
            str(machine.host / "file"),
            str(machine.host / "link"),
        ]

    def test_missing_source(self, machine: Machine) -> None:
        with pytest.raises(NotFound) as caught:
            machine.prepare(bind(machine.host / "nope"))
        assert str(caught.value).endswith("/nope: no such file or directory")
        assert caught.value.hint == f"mkdir -p {machine.host}/nope"
        assert caught.value.exit_code == 125

    def test_source_below_a_file(self, machine: Machine) -> None:
        (machine.host / "file").write_text("x")
        with pytest.raises(Error, match="not a directory"):
            machine.prepare(bind(machine.host / "file/x"))

    def test_u_never_gives_the_store_or_the_home_away(self, machine: Machine) -> None:
        os.makedirs(machine.paths.config)
        os.symlink(machine.host.parent, machine.host / "home")
        for source in (machine.host.parent, machine.host / "home", machine.paths.data, "/"):
            os.makedirs(machine.paths.data, exist_ok=True)
            with pytest.raises(UsageError, match="must stay yours"):
                machine.prepare(bind(source, "/t", "U"))

    def test_u_changes_the_whole_source(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []
        monkeypatch.setattr(
            copytree, "change_owner", lambda fd, uid, gid: asked.append((os.fstat(fd), uid, gid))
        )
        machine.write("etc/passwd", "web:x:33:44::/:\n")
        machine.prepare(bind(machine.host, "/t", "U"), user="web")
        assert [(status.st_ino, uid, gid) for status, uid, gid in asked] == [
            (machine.host.stat().st_ino, 33, 44)
        ]


def test_idmap_and_labels_that_would_come_to_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for option in ("idmap", "idmap=uids=0-1-10"):
        with pytest.raises(Unsupported, match="lets only root map the ids") as raised:
            machine.prepare(bind(machine.host, "/t", option))
        assert "U gives" in str(raised.value.hint)
    for option in ("z", "Z"):
        monkeypatch.setattr(volume, "_SELINUX", str(tmp_path / "no"))
        assert len(machine.prepare(bind(machine.host, "/t", option)).mounts) == 1
        monkeypatch.setattr(volume, "_SELINUX", str(tmp_path))
        with pytest.raises(Unsupported, match="SELinux is enabled"):
            machine.prepare(bind(machine.host, "/t", option))


@pytest.mark.parametrize("target", ["/proc", "/proc/sys", "/proc/self/attr", "/proc/sysrq-trigger"])
def test_cve_2019_19921_no_mount_over_proc(machine: Machine, target: str) -> None:
    with pytest.raises(UsageError, match="is not allowed"):
        machine.prepare(bind(machine.host, target))


def test_lxcfs_files_may_be_mounted_over_proc(machine: Machine) -> None:
    machine.prepare(bind(machine.host, "/proc/meminfo"), bind(machine.host, "/process"))


class TestNamedVolumes:
    def test_made_when_missing(self, machine: Machine) -> None:
        prepared = machine.prepare(named("db", "/var/lib/db"))
        assert prepared.anonymous == ()
        assert prepared.mounts[0] == {
            "destination": "/var/lib/db",
            "type": "bind",
            "source": machine.data("db"),
            "options": ["rbind", "rprivate", "rnosuid", "rnodev"],
        }
        assert stat.S_IMODE(os.stat(machine.data("db")).st_mode) == 0o755
        for private in (machine.paths.volumes, f"{machine.paths.volumes}/db"):
            assert stat.S_IMODE(os.stat(private).st_mode) == 0o700
        with open(f"{machine.paths.volumes}/db/volume.json", encoding="utf-8") as file:
            described = json.load(file)
        created = described.pop("created_s")
        assert abs(created - os.stat(machine.data("db")).st_ctime) < 60
        assert described == {
            "version": 1,
            "name": "db",
            "labels": {},
            "driver": "local",
            "anonymous": False,
            "populated": True,
        }

    def test_options_given_replace_the_defaults(self, machine: Machine) -> None:
        given = ("suid", "dev", "ro", "noexec")
        options = machine.prepare(named("db", "/t", *given)).mounts[0]["options"]
        assert options == ["rbind", "rprivate", "rro", "rnoexec"]

    def test_kept_and_never_filled_again(self, machine: Machine) -> None:
        machine.write("t/from-image", "image")
        machine.prepare(named("db"))
        os.unlink(f"{machine.data('db')}/from-image")
        assert len(machine.calls) == 1
        machine.prepare(named("db"))
        assert os.listdir(machine.data("db")) == []
        assert len(machine.calls) == 1, "a known volume costs no user namespace"

    @pytest.mark.row("CVE-2020-1726", "a volume that holds anything is left alone")
    def test_cve_2020_1726_content_is_never_overwritten(self, machine: Machine) -> None:
        """A volume that was made, never mounted, and filled by other means."""
        machine.write("t/file", "image")
        volume_store.create(machine.paths, volume_store.Volume("db", 0.0, {}))
        with open(f"{machine.data('db')}/file", "w", encoding="utf-8") as file:
            file.write("user")
        machine.prepare(named("db"))
        with open(f"{machine.data('db')}/file", encoding="utf-8") as file:
            assert file.read() == "user"
        assert volume_store.read(machine.paths, "db").populated

    def test_made_beforehand_is_filled_at_its_first_mount(self, machine: Machine) -> None:
        machine.write("t/file")
        volume_store.create(machine.paths, volume_store.Volume("db", 0.0, {"a": "b"}))
        machine.prepare(named("db"))
        assert os.listdir(machine.data("db")) == ["file"]
        assert volume_store.read(machine.paths, "db").labels == {"a": "b"}

    def test_twice_in_one_container(self, machine: Machine) -> None:
        """The first of two mounts fills it; the second does not wait for its lock."""
        machine.write("one/first")
        machine.write("two/second")
        prepared = machine.prepare(named("db", "/one"), named("db", "/two"))
        assert [each["source"] for each in prepared.mounts] == [machine.data("db")] * 2
        assert os.listdir(machine.data("db")) == ["first"]

    def test_link_in_its_place_is_refused(self, machine: Machine) -> None:
        """GHSA-8688: somebody who could write there planted a link to the user's files."""
        (machine.host / "_data").mkdir()
        os.makedirs(machine.paths.volumes)
        os.symlink(machine.host, f"{machine.paths.volumes}/db")
        with pytest.raises(Error, match="not what rp made"):
            machine.prepare(named("db"))

    def test_linked_data_is_refused(self, machine: Machine) -> None:
        machine.prepare(named("db"))
        os.rmdir(machine.data("db"))
        os.symlink(machine.host, machine.data("db"))
        with pytest.raises(Error, match="not what rp made"):
            machine.prepare(named("db"))
        assert os.listdir(machine.host) == []

    def test_one_of_another_user_is_refused(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine.prepare(named("db"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "getuid", lambda: os.geteuid() + 1)
            with pytest.raises(Error, match="not what rp made"):
                volume_store.open_volume(machine.paths, "db")

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"version": 1}', '{"version": 99}'])
    def test_damaged_description(self, machine: Machine, content: str) -> None:
        machine.prepare(named("db"))
        with open(f"{machine.paths.volumes}/db/volume.json", "w", encoding="utf-8") as file:
            file.write(content)
        with pytest.raises(Error, match="volume db"):
            machine.prepare(named("db"))
        machine.prepare(named("other"))

    @pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-x", "a b", "é", "x" * 256])
    def test_names(self, machine: Machine, name: str) -> None:
        machine.prepare(named("db"))
        with pytest.raises(UsageError):
            machine.prepare(named(name))

    def test_keys_of_a_later_rp_are_kept(self, machine: Machine) -> None:
        volume_store.create(machine.paths, volume_store.Volume("db", 0.0, {}))
        path = f"{machine.paths.volumes}/db/volume.json"
        with open(path, encoding="utf-8") as file:
            described = json.load(file)
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**described, "new": [1]}, file)
        machine.prepare(named("db"))
        with open(path, encoding="utf-8") as file:
            assert json.load(file)["new"] == [1]

    def test_second_creator_finds_the_first_ones(self, machine: Machine) -> None:
        assert volume_store.create(machine.paths, volume_store.Volume("db", 1.0, {}))
        assert not volume_store.create(machine.paths, volume_store.Volume("db", 2.0, {}))
        assert volume_store.read(machine.paths, "db").created_s == 1.0

    def test_waits_for_whoever_fills_it(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine.write("t/file")
        volume_store.create(machine.paths, volume_store.Volume("db", 0.0, {}))
        holder = volume_store.open_volume(machine.paths, "db")
        fcntl.flock(holder, fcntl.LOCK_EX)

        def other_finishes(_: float) -> None:
            volume_store.mark_populated(machine.paths, "db")
            fcntl.flock(holder, fcntl.LOCK_UN)

        monkeypatch.setattr(time, "sleep", other_finishes)
        machine.prepare(named("db"))
        os.close(holder)
        assert os.listdir(machine.data("db")) == [], "filled by the other, not again"

    def test_waits_not_for_ever(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        volume_store.create(machine.paths, volume_store.Volume("db", 0.0, {}))
        holder = volume_store.open_volume(machine.paths, "db")
        fcntl.flock(holder, fcntl.LOCK_EX)
        monkeypatch.setattr(volume_store, "_LOCK_TIMEOUT_S", 0.05)
        with pytest.raises(Conflict, match="filled by another rp"):
            machine.prepare(named("db"))
        os.close(holder)


class TestFilling:
    def test_content_owner_and_mode_of_the_image(self, machine: Machine) -> None:
        machine.write("t/sub/file", "content").chmod(0o640)
        os.symlink("/etc/passwd", machine.layer / "t/link")
        os.chmod(machine.layer / "t", 0o1770)
        machine.prepare(named("db"))
        data = machine.data("db")
        with open(f"{data}/sub/file", encoding="utf-8") as file:
            assert file.read() == "content"
        assert stat.S_IMODE(os.stat(f"{data}/sub/file").st_mode) == 0o640
        assert os.readlink(f"{data}/link") == "/etc/passwd"
        assert stat.S_IMODE(os.stat(data).st_mode) == 0o1770
        assert sorted(os.listdir(f"{machine.paths.volumes}/db")) == ["_data", "volume.json"]

    def test_nocopy_takes_owner_and_mode_alone(self, machine: Machine) -> None:
        machine.write("t/file")
        os.chmod(machine.layer / "t", 0o1777)
        machine.prepare(named("db", "/t", "nocopy"))
        assert os.listdir(machine.data("db")) == []
        assert stat.S_IMODE(os.stat(machine.data("db")).st_mode) == 0o1777

    @pytest.mark.parametrize("link", ["{outside}", "../../../../../..{outside}", "a", "b"])
    def test_cve_2022_23648_links_stay_inside(self, machine: Machine, link: str) -> None:
        outside = machine.host / "home"
        outside.mkdir()
        (outside / "secret").write_text("token")
        machine.write("inside/x/harmless")
        os.symlink("/inside", machine.layer / "a")
        os.symlink("../../inside", machine.layer / "b")
        os.symlink(link.format(outside=outside), machine.layer / "l")
        machine.prepare(named("db", "/l/x"), named("top", "/l"))
        found = {name for _, dirs, files in os.walk(machine.paths.volumes) for name in files + dirs}
        assert "secret" not in found
        assert ("harmless" in found) == (link in "ab")

    def test_failure_leaves_an_empty_volume_for_the_next(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine.write("t/a")
        machine.write("t/b")
        with monkeypatch.context() as patch:

            def full(*_: object) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            patch.setattr(copytree, "_copy_content", full)
            with pytest.raises(Error, match=r"volume db: [ab]: no space left on device"):
                machine.prepare(named("db"))
        assert os.listdir(machine.data("db")) == []
        assert sorted(os.listdir(f"{machine.paths.volumes}/db")) == ["_data", "volume.json"]
        machine.prepare(named("db"))
        assert sorted(os.listdir(machine.data("db"))) == ["a", "b"]

    def test_half_of_a_killed_copy_is_thrown_away(self, machine: Machine) -> None:
        machine.write("t/whole")
        volume_store.create(machine.paths, volume_store.Volume("db", 0.0, {}))
        half = f"{machine.paths.volumes}/db/_data.new"
        os.mkdir(half)
        os.symlink("whole", f"{half}/half")
        with open(f"{machine.paths.volumes}/db/volume.json.123.tmp", "w", encoding="utf-8"):
            pass
        machine.prepare(named("db"))
        assert os.listdir(machine.data("db")) == ["whole"]
        assert sorted(os.listdir(f"{machine.paths.volumes}/db")) == ["_data", "volume.json"]

    def test_target_that_the_image_lacks_belongs_to_the_user(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []
        monkeypatch.setattr(os, "fchown", lambda _, uid, gid: asked.append((uid, gid)))
        machine.write("etc/passwd", "root:x:0:0::/:\nweb:x:33:44::/:\n")
        machine.prepare(named("db"), user="web")
        assert asked == [(33, 44)]

    def test_unknown_user(self, machine: Machine) -> None:
        with pytest.raises(Error, match="'nobody' is not in /etc/passwd"):
            machine.prepare(named("db"), user="nobody")

    def test_without_overlay_the_layers_are_copied(
        self, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(mount, "mount", refuse)
        machine.write("t/base")
        (tmp_path / "top/t").mkdir(parents=True)
        (tmp_path / "top/t/top").touch()
        layers = (str(machine.layer), str(tmp_path / "top"))
        volume.prepare((named("db"),), (), paths=machine.paths, maps=MAPS, layers=layers)
        assert sorted(os.listdir(machine.data("db"))) == ["base", "top"]

    def test_helper_and_namespace_errors_name_the_cure(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(error: OSError) -> Callable[..., None]:
            def call(*_: object) -> None:
                raise error

            return call

        helper = userns.HelperError(errno.EPERM, "range not allowed", "/usr/bin/newuidmap")
        monkeypatch.setattr(userns, "call_in_userns", fail(helper))
        with pytest.raises(Unsupported, match="newuidmap: range not allowed"):
            machine.prepare(named("db"))
        forbidden = PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        monkeypatch.setattr(userns, "call_in_userns", fail(forbidden))
        with pytest.raises(Unsupported, match="user namespace") as caught:
            machine.prepare(named("db"))
        assert caught.value.hint


class TestAnonymousVolumes:
    def test_named_at_random_and_removed(self, machine: Machine) -> None:
        machine.write("data/file")
        prepared = machine.prepare(VolumeMount("", "/x", "anonymous"), image=("/data",))
        assert len(set(prepared.anonymous)) == 2
        for name, each in zip(prepared.anonymous, prepared.mounts, strict=True):
            assert len(name) == 64
            assert each["source"] == machine.data(name)
            assert volume_store.read(machine.paths, name).anonymous
        assert os.listdir(machine.data(prepared.anonymous[1])) == ["file"]
        machine.prepare(named("kept"))
        volume.remove_anonymous(machine.paths, (*prepared.anonymous, "kept", "../x"), MAPS)
        assert os.listdir(machine.paths.volumes) == ["kept"]
        volume.remove_anonymous(machine.paths, prepared.anonymous, MAPS)

    def test_volume_that_only_looks_anonymous_is_kept(self, machine: Machine) -> None:
        name = "ab" * 32
        machine.prepare(named(name))
        volume.remove_anonymous(machine.paths, (name,), MAPS)
        assert os.path.exists(machine.data(name))

    def test_planned_names_are_used(self, machine: Machine) -> None:
        planned = volume.plan((VolumeMount("", "/x", "anonymous"),), ("/y",))
        assert not os.path.exists(machine.paths.volumes)
        prepared = machine.prepare(*planned)
        assert prepared.anonymous == tuple(each.source for each in planned)

    def test_nothing_is_left_after_an_error(self, machine: Machine) -> None:
        with pytest.raises(NotFound):
            machine.prepare(VolumeMount("", "/x", "anonymous"), bind(machine.host / "nope"))
        assert os.listdir(machine.paths.volumes) == []

    def test_damaged_one_is_removed(self, machine: Machine) -> None:
        prepared = machine.prepare(image=("/data",))
        name = prepared.anonymous[0]
        os.truncate(f"{machine.paths.volumes}/{name}/volume.json", 0)
        volume.remove_anonymous(machine.paths, prepared.anonymous, MAPS)
        assert os.listdir(machine.paths.volumes) == []


class TestImageVolumes:
    def test_skipped_where_something_is_mounted(self) -> None:
        planned = volume.plan(
            (named("db", "/data"),), ("/data/", "/tmp//x", "//cache", "/cache"), ("/tmp/x",)
        )
        assert [each.target for each in planned] == ["/data", "/cache"]

    def test_skipped_where_the_kernels_file_systems_are(self) -> None:
        assert volume.plan((), ("/sys/fs/cgroup", "/dev/shm")) == ()

    @pytest.mark.parametrize(
        "path",
        [
            *("/", "", ".", "/proc", "/proc/", "/proc/sys", "/sys", "/dev", "//dev//", "/./proc"),
            *("/..", "/../../../../tmp/rig", "/a/../../b", "..", "/a\0b", "/a\nb", "/\x1b]52;c"),
        ],
    )
    def test_refused(self, path: str) -> None:
        with pytest.raises(ImageError, match="is refused"):
            volume.plan((), (path,))
