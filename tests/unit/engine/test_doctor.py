"""doctor's checks on machines that the rig cannot be, and what is made of the findings."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import time
from collections import namedtuple
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rootlesspy.engine import idmap, limits, storage_driver
from rootlesspy.engine.doctor import (
    doctor,
    doctor_fix,
    doctor_ids,
    doctor_network,
    doctor_session,
    doctor_storage,
    doctor_system,
)
from rootlesspy.engine.doctor.doctor import FAILED, OK, SKIPPED, WARNING, Finding, Machine, Report
from rootlesspy.errors import Unsupported
from rootlesspy.linux import userns
from rootlesspy.network import ports
from rootlesspy.paths import Paths
from rootlesspy.systemd import cgroup, linger, logind

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).resolve().parents[3]
MACHINE = Machine({}, "alice", None, None)
FINE: Report = {"cgroups": Finding(OK, "")}


@pytest.fixture
def home(tmp_path: Path) -> Machine:
    """Return a user whose store does not exist yet."""
    paths = Paths(data=f"{tmp_path}/share/rootlesspy", runtime=f"{tmp_path}/run/rootlesspy",
                  config="")  # fmt: skip
    return MACHINE._replace(paths=paths)


# --- what is made of findings ------------------------------------------------------------------


def test_names_are_stable_and_each_is_explained() -> None:
    """A name is what scripts read: it is never renamed; docs/doctor.md has a section for each."""
    names = [check.name for check in doctor.checks()]
    assert names == [
        "user", "kernel", "systemd", "cgroups", "delegation", "seccomp", "clock",
        "session", "user-manager", "linger", "journal",
        "user-namespaces", "subordinate-ids", "id-helpers",
        "store", "space", "overlay", "containers", "network", "low-ports",
    ]  # fmt: skip
    text = (REPOSITORY / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        "What it says", *names,
    ]  # fmt: skip
    for check in doctor.checks():
        section = text.partition(f"\n## {check.name}\n")[2].partition("\n## ")[0].replace("`", "")
        said = section.lower().replace("\n", " ")
        assert check.why.lower() in said, check.name
        for word in ("**Looks at**", "**Cure**"):
            assert word in section, f"{check.name}: {word}"


def test_docs_name_what_fix_repairs() -> None:
    text = (REPOSITORY / "docs" / "doctor.md").read_text(encoding="utf-8")
    owners = {"linger": "linger", "start-bus": "user-manager", "private-runtime": "session",
              "private-store": "store", "forget-overlay": "overlay"}  # fmt: skip
    assert set(owners) == set(doctor_fix.REPAIRS)
    for name in {check.name for check in doctor.checks()}:
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert ("--fix" in section) is (name in owners.values()), name


def test_warnings_do_not_keep_it_from_running() -> None:
    report = {"a": Finding(OK, ""), "b": Finding(WARNING, ""), "c": Finding(SKIPPED, "")}
    assert doctor.would_run(report)
    assert not doctor.would_run({**report, "d": Finding(FAILED, "")})


def test_one_command_does_all_that_root_has_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "debian"})
    report = {
        "a": Finding(FAILED, "", root="modprobe tun", packages=("passt",)),
        "b": Finding(WARNING, "", root="usermod 'x y'", packages=("uidmap", "passt")),
        "c": Finding(WARNING, "", root="modprobe tun"),
    }
    command = doctor.root_command(report)
    assert command == "apt-get install -y passt uidmap; modprobe tun; usermod 'x y'"
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert doctor.as_root("usermod 'x y'") == """su -c 'usermod '"'"'x y'"'"''"""
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert doctor.as_root("modprobe tun") == "sudo sh -c 'modprobe tun'"


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ({"ID": "debian"}, "apt-get install -y uidmap passt"),
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, "apt-get install -y uidmap passt"),
        ({"ID": "fedora"}, "dnf install -y shadow-utils-subid passt"),
        ({"ID": "rocky", "ID_LIKE": "rhel fedora"}, "dnf install -y shadow-utils-subid passt"),
        ({"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"}, "zypper install -y shadow passt"),
        ({"ID": "arch"}, "pacman -S --needed --noconfirm shadow passt"),
        ({}, "apt-get install -y uidmap passt"),
    ],
)  # fmt: skip
def test_packages_by_the_distribution_s_names(
    monkeypatch: pytest.MonkeyPatch, release: dict[str, str], command: str
) -> None:
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: release)
    assert doctor.install_command(("uidmap", "passt")) == command


def test_an_odd_failure_is_a_row_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(_machine: Machine, _report: Report) -> Finding:
        raise PermissionError(errno.EACCES, "Permission denied", "/etc/subuid")

    check = doctor.Check("odd", "", odd)
    monkeypatch.setattr(doctor, "checks", lambda: (check, check._replace(name="next")))
    report = doctor.examine({"HOME": "/home/alice"})
    assert list(report) == ["odd", "next"]
    assert report["odd"].status == FAILED
    assert "/etc/subuid" in report["odd"].message


def test_a_user_without_home_is_examined_all_the_same() -> None:
    machine = doctor.machine_of({"HOME": "nowhere"})
    assert machine.paths is None
    assert doctor_session.session(machine, {}).status == FAILED
    store = doctor_storage.store(machine, {})
    assert store.status == FAILED
    assert doctor_storage.space(machine, {}).status == SKIPPED


# --- the machine --------------------------------------------------------------------------------

Uname = namedtuple("Uname", "release")


def test_root_is_no_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert doctor_system.user(MACHINE, {}).status == WARNING
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert doctor_system.user(MACHINE, {}).status == OK


@pytest.mark.parametrize(
    ("release", "status"),
    [("5.11.22", FAILED), ("5.12.0-rc1", OK), ("6.1.0-31-amd64", OK), ("x", FAILED)],
)  # fmt: skip
def test_kernels(monkeypatch: pytest.MonkeyPatch, release: str, status: str) -> None:
    monkeypatch.setattr(os, "uname", lambda: Uname(release))
    assert doctor_system.kernel(MACHINE, {}).status == status


@pytest.mark.parametrize(
    ("mounted", "status"), [("/sys/fs/cgroup", OK), ("/mnt/unified", FAILED), (None, FAILED)]
)  # fmt: skip
def test_cgroup_versions(monkeypatch: pytest.MonkeyPatch, mounted: str | None, status: str) -> None:
    monkeypatch.setattr(cgroup, "mount_point", lambda: mounted)
    assert doctor_system.cgroups(MACHINE, {}).status == status


ALL = frozenset(("cpu", "cpuset", "io", "memory", "pids"))


@pytest.mark.parametrize(
    ("offered", "delegated", "status", "root"),
    [
        (ALL, ALL, OK, ""),
        (ALL, ALL - {"io", "cpuset"}, WARNING, "Delegate=cpu cpuset io memory pids"),
        (frozenset(), frozenset(), WARNING, ""),
    ],
)
def test_delegation(
    monkeypatch: pytest.MonkeyPatch,
    offered: frozenset[str],
    delegated: frozenset[str],
    status: str,
    root: str,
) -> None:
    monkeypatch.setattr(limits, "host", lambda: limits.Host(offered, delegated, frozenset()))
    found = doctor_system.delegation(MACHINE, FINE)
    assert found.status == status
    assert root in found.root
    assert bool(found.root) is bool(root)


def test_the_drop_in_that_root_writes_is_the_one_of_the_package() -> None:
    drop_in = REPOSITORY / "units" / "user@.service.d" / os.path.basename(limits.DROP_IN)
    assert "\nDelegate=cpu cpuset io memory pids\n" in drop_in.read_text(encoding="utf-8")


def test_without_seccomp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda _path: False)
    assert doctor_system.seccomp(MACHINE, {}).status == FAILED


def test_libraries_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.setattr(os.path, "exists", lambda _path: True)
    monkeypatch.setattr(os.path, "isdir", lambda _path: True)
    assert doctor_system.seccomp(MACHINE, {}).packages == ("libseccomp2",)
    assert doctor_system.systemd(MACHINE, {}).packages == ("libsystemd0",)
    monkeypatch.setattr(os.path, "isdir", lambda _path: False)
    assert "not running" in doctor_system.systemd(MACHINE, {}).message


def test_a_clock_that_stands_in_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor_system.clock(MACHINE, {}).status == OK
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert doctor_system.clock(MACHINE, {}).status == WARNING


# --- the session --------------------------------------------------------------------------------


def test_a_runtime_directory_that_others_may_enter(home: Machine) -> None:
    directory = home.runtime_dir or ""
    os.mkdir(directory)
    os.chmod(directory, 0o755)
    found = doctor_session.session(home, {})
    assert (found.status, found.own) == (WARNING, "private-runtime")
    assert doctor_fix.REPAIRS[found.own](home)
    assert doctor_session.session(home, {}).status == OK


@pytest.mark.parametrize(
    ("present", "status", "says"),
    [
        (("socket", "persistent"), OK, "lasts"),
        (("socket", "volatile"), WARNING, "lost at the next boot"),
        (("socket",), WARNING, "no journal that you can read"),
        (("persistent",), WARNING, "does not run"),
    ],
)
def test_journals(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    present: tuple[str, ...],
    status: str,
    says: str,
) -> None:
    places = {name: tmp_path / name / "abc" for name in ("persistent", "volatile")}
    monkeypatch.setattr(doctor_session, "_machine_id", lambda: "abc")
    monkeypatch.setattr(
        doctor_session, "_JOURNALS", [os.fspath(each.parent) for each in places.values()]
    )
    for name in set(present) - {"socket"}:
        places[name].mkdir(parents=True)
        (places[name] / "system.journal").touch()
    real = os.path.exists
    monkeypatch.setattr(
        os.path,
        "exists",
        lambda path: "socket" in present if str(path).endswith("socket") else real(path),
    )
    found = doctor_session.journal(MACHINE, {})
    assert found.status == status
    assert says in found.message


def test_linger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(linger, "DIRECTORY", os.fspath(tmp_path))
    assert doctor_session.linger(MACHINE, {}).own == "linger"
    (tmp_path / idmap.user_name()).touch()
    assert doctor_session.linger(MACHINE, {}).status == OK


def test_a_repair_that_is_refused_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise Unsupported("logind refuses to enable linger: Access denied")

    monkeypatch.setattr(logind, "enable_linger", refuse)
    report = {"linger": Finding(WARNING, "", own="linger"), "store": Finding(OK, "")}
    attempts = doctor_fix.repair({"HOME": "/home/alice"}, report)
    assert [(each.check, each.done) for each in attempts] == [("linger", False)]
    assert "Access denied" in attempts[0].message


# --- ids ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("switch", "message"),
    [
        ("kernel.unprivileged_userns_clone", "forbidden by kernel.unprivileged_userns_clone=0"),
        ("kernel.apparmor_restrict_unprivileged_userns", "apparmor_restrict_unprivileged_userns=1"),
        ("", "forbidden: Operation not permitted"),
    ],
)
def test_what_forbids_user_namespaces_is_named(
    monkeypatch: pytest.MonkeyPatch, switch: str, message: str
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    bad = {name: value for name, value, _ in doctor_ids.SWITCHES}
    good = {name: value for name, _, value in doctor_ids.SWITCHES}
    monkeypatch.setattr(userns, "call_in_userns", refuse)
    monkeypatch.setattr(
        doctor_ids, "_sysctl", lambda name: bad[name] if name == switch else good[name]
    )
    found = doctor_ids.user_namespaces(MACHINE, {})
    assert found.status == FAILED
    assert message in found.message
    assert (f"sysctl -w {switch}={good.get(switch)}" in found.root) is bool(switch)


def test_as_many_user_namespaces_as_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(userns, "call_in_userns", refuse)
    monkeypatch.setattr(doctor_ids, "_sysctl", lambda _name: "")
    assert "max_user_namespaces" in doctor_ids.user_namespaces(MACHINE, {}).root


# --- the store ----------------------------------------------------------------------------------


def test_a_store_that_is_not_made_yet(home: Machine) -> None:
    found = doctor_storage.store(home, {})
    assert found.status == OK
    assert "not made yet" in found.message


def test_a_store_that_is_a_link(home: Machine, tmp_path: Path) -> None:
    os.mkdir(tmp_path / "share")
    os.symlink(tmp_path, home.paths.data if home.paths else "")
    assert doctor_storage.store(home, {}).status == FAILED


@pytest.mark.parametrize(("free", "status"), [(0, FAILED), (1000, WARNING), (10**9, OK)])
def test_room(monkeypatch: pytest.MonkeyPatch, home: Machine, free: int, status: str) -> None:
    parts = (4096, 4096, 10**9, free, free, 100, 50, 50, 0, 255)
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(parts))
    assert doctor_storage.space(home, {}).status == status


@pytest.mark.row("R3", "rp doctor says so")
def test_no_inodes_are_no_room(monkeypatch: pytest.MonkeyPatch, home: Machine) -> None:
    parts = (4096, 4096, 10**9, 10**9, 10**9, 100, 0, 0, 0, 255)
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(parts))
    assert doctor_storage.space(home, {}).status == FAILED


def test_overlay_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: Callable[[str], Finding] = doctor_storage._without_overlay
    monkeypatch.setattr(storage_driver, "fuse_overlayfs", lambda: None)
    assert refused("No").packages == ("fuse-overlayfs",)
    monkeypatch.setattr(storage_driver, "fuse_overlayfs", lambda: "/usr/bin/x")
    monkeypatch.setattr(os, "access", lambda *_arguments: False)
    assert "/dev/fuse" in refused("No").message
    monkeypatch.setattr(os, "access", lambda *_arguments: True)
    assert "slower" in refused("No").message


def test_low_ports_are_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "unprivileged_start", lambda: 1024)
    found = doctor_network.low_ports(MACHINE, {})
    assert (found.status, found.root) == (OK, "")
    assert "ip_unprivileged_port_start=80" in found.cure
    monkeypatch.setattr(ports, "unprivileged_start", lambda: 80)
    assert doctor_network.low_ports(MACHINE, {}).cure == ""
