"""rp doctor on machines where one thing is broken: that row and no other, and a cure that cures.

Each case also asks rp run, for doctor's verdict is a promise about it.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from namespace.living import lingering

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rig.machine import Machine

pytestmark = [pytest.mark.namespace, pytest.mark.root_only]

# The rig's cgroup tree has no controllers.
USUAL = {"delegation": "warning"}
STORE = "/home/alice/.local/share/rootlesspy"


def doctor(
    rig: Machine, *options: str, user: str = "alice", env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the report; its verdict is the exit code's."""
    argv = ["rp", "doctor", "--format", "json", *options]
    done = rig.run(argv, user=user, env=env, check=False)
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if report["works"] else 1)
    assert done.stderr == ""
    return report


def wrong(report: dict[str, Any]) -> dict[str, str]:
    """Return what is neither fine nor skipped, apart from what the rig cannot have."""
    return {
        check["name"]: check["status"]
        for check in report["checks"]
        if check["status"] not in ("ok", "skipped") and check["name"] not in USUAL
    }


def row(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(check for check in report["checks"] if check["name"] == name)


def runs(rig: Machine, *, user: str = "alice", env: Mapping[str, str] | None = None) -> bool:
    """Say whether rp run works."""
    argv = ["rp", "run", "--rm", "alpine", "true"]
    done = rig.run(argv, user=user, env=env, check=False, timeout=120)
    assert "Traceback" not in done.stderr
    return done.returncode == 0


class Case(NamedTuple):
    """One defect, made and unmade by root."""

    name: str
    breaks: str
    mends: str
    check: str
    status: str
    says: str
    root: str = ""
    """What the command for root begins with; it is run, and must cure."""
    package: str = ""


CASES = (
    Case(
        "newuidmap-missing",
        "mv /usr/bin/newuidmap /usr/bin/away",
        "mv /usr/bin/away /usr/bin/newuidmap",
        "id-helpers", "failed", "newuidmap is not installed", package="uidmap",
    ),
    Case(
        "newgidmap-without-setuid",
        "chmod u-s /usr/bin/newgidmap",
        "chmod u+s /usr/bin/newgidmap",
        "id-helpers", "failed", "neither the setuid bit", root="chmod u+s",
    ),
    Case(
        "newuidmap-of-alice",
        "chown alice /usr/bin/newuidmap",
        "chown root /usr/bin/newuidmap; chmod 4755 /usr/bin/newuidmap",
        "id-helpers", "failed", "does not belong to root alone", root="chown root:root",
    ),
    Case(
        "newuidmap-refuses",
        "cp -p /etc/subuid /etc/subuid.away; mv /usr/bin/newuidmap /usr/bin/away;"
        "printf '#!/bin/sh\\necho no such range >&2; exit 1\\n' >/usr/bin/newuidmap;"
        "chmod 4755 /usr/bin/newuidmap",
        "mv /etc/subuid.away /etc/subuid; mv /usr/bin/away /usr/bin/newuidmap",
        "id-helpers", "failed", "refuses: no such range",
    ),
    Case(
        "no-subgid-line",
        "cp -p /etc/subgid /etc/subgid.away; : >/etc/subgid",
        "mv /etc/subgid.away /etc/subgid",
        "subordinate-ids", "warning", "no line for alice in /etc/subgid",
        root="usermod --add-subgids 165536-231071",
    ),
    Case(
        "few-ids",
        "cp -p /etc/subuid /etc/subuid.away; echo alice:100000:1000 >/etc/subuid",
        "mv /etc/subuid.away /etc/subuid",
        "subordinate-ids", "warning", "only 1000 ids", root="usermod --add-subuids",
    ),
    Case(
        "no-pasta",
        "mv /usr/bin/pasta /usr/bin/away",
        "mv /usr/bin/away /usr/bin/pasta",
        "network", "warning", "using slirp4netns, which works", package="passt",
    ),
    Case(
        "no-helper-at-all",
        "mv /usr/bin/pasta /usr/bin/away; mv /usr/bin/slirp4netns /usr/bin/away-too",
        "mv /usr/bin/away /usr/bin/pasta; mv /usr/bin/away-too /usr/bin/slirp4netns",
        "network", "failed", "pasta is not installed", package="passt",
    ),
    Case(
        "tun-closed",
        "chmod 600 /dev/net/tun",
        "chmod 666 /dev/net/tun",
        "network", "failed", "cannot open /dev/net/tun", root="chmod 666 /dev/net/tun",
    ),
    Case(
        "tun-missing",
        "mv /dev/net/tun /dev/net/away",
        "mv /dev/net/away /dev/net/tun",
        "network", "failed", "cannot open /dev/net/tun",
    ),
    Case(
        "store-of-root",
        f"mkdir -p {STORE}; chown root {STORE}",
        f"chown alice: {STORE}",
        "store", "failed", "is not a directory of alice", root=f"chown alice: {STORE}",
    ),
    Case(
        "journal-lost-at-boot",
        "mv /var/log/journal /var/log/away",
        "rm -rf /var/log/journal; mv /var/log/away /var/log/journal",
        "journal", "warning", "no journal that you can read", root="mkdir -p /var/log/journal",
    ),
)  # fmt: skip


@contextlib.contextmanager
def broken(rig: Machine, breaks: str, mends: str) -> Iterator[None]:
    rig.root(["sh", "-c", breaks])
    try:
        yield
    finally:
        rig.root(["sh", "-c", mends])


def test_a_machine_that_is_fine(rig: Machine, leaves_nothing: None) -> None:
    report = doctor(rig)
    assert wrong(report) == {}
    assert report["works"]
    assert report["fixed"] == []
    assert report["rootCommand"] == ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_one_defect_is_one_row(rig: Machine, alpine: str, case: Case) -> None:
    with broken(rig, case.breaks, case.mends):
        report = doctor(rig)
        assert wrong(report) == {case.check: case.status}
        found = row(report, case.check)
        assert case.says in found["message"]
        assert found["cure"]
        assert found["packages"] == ([case.package] if case.package else [])
        assert runs(rig) is report["works"] is (case.status == "warning")
        if case.package:
            assert report["rootCommand"] == f"apt-get install -y {case.package}"
        elif case.root:
            assert report["rootCommand"].startswith(case.root)
            rig.root(["sh", "-c", report["rootCommand"]])
            assert wrong(doctor(rig)) == {}
            assert runs(rig)
    assert wrong(doctor(rig)) == {}


@pytest.mark.parametrize(
    ("runtime_dir", "says"),
    [("/run/user/0", "belongs to uid 0"), ("/run/user/77", "does not exist")],
)
def test_a_wrong_runtime_directory(rig: Machine, alpine: str, runtime_dir: str, says: str) -> None:
    rig.root(["mkdir", "-p", "/run/user/0"])
    env = {"XDG_RUNTIME_DIR": runtime_dir}
    report = doctor(rig, env=env)
    assert wrong(report) == {"session": "failed"}
    assert says in row(report, "session")["message"]
    assert not runs(rig, env=env)


def test_without_a_bus_which_fix_brings_back(rig: Machine, alpine: str) -> None:
    rig.run(["rm", f"/run/user/{rig.uid}/bus"])
    report = doctor(rig)
    assert wrong(report) == {"user-manager": "failed"}
    assert "without a bus" in row(report, "user-manager")["message"]
    assert not runs(rig)
    repaired = doctor(rig, "--fix")
    assert [(each["check"], each["done"]) for each in repaired["fixed"]] == [("user-manager", True)]
    assert wrong(repaired) == {}
    assert runs(rig)


def test_a_store_that_others_may_enter_which_fix_closes(rig: Machine) -> None:
    rig.run(["sh", "-c", f"mkdir -p {STORE}; chmod 755 {STORE}"])
    assert wrong(doctor(rig)) == {"store": "warning"}
    assert rig.run(["stat", "-c", "%a", STORE]).stdout == "755\n"
    assert wrong(doctor(rig, "--fix")) == {}
    assert rig.run(["stat", "-c", "%a", STORE]).stdout == "700\n"


def test_a_refusal_of_overlay_that_is_remembered_wrongly(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "run", "--rm", alpine, "true"])
    script = (
        "key=$(python3 -c 'import os; print(os.uname().release,"
        f' os.stat("{STORE}").st_dev)\');'
        f'mkdir -p {STORE}/cache; printf \'{{"version":1,"key":"%s","refusal":"Busy"}}\' "$key"'
        f" >{STORE}/cache/overlay.json"
    )
    rig.run(["sh", "-c", script])
    report = doctor(rig)
    assert wrong(report) == {"overlay": "warning"}
    assert "Busy" in row(report, "overlay")["message"]
    assert wrong(doctor(rig, "--fix")) == {}
    assert rig.run(["rp", "run", "--rm", alpine, "true"]).stderr == ""


def test_a_full_file_system(rig: Machine) -> None:
    mounted = "mkdir -p /mnt/full; mount -t tmpfs -o size=64k,mode=1777 full /mnt/full"
    filled = "head -c 64k /dev/zero >/mnt/full/fill"
    mends = "until umount /mnt/full; do sleep 0.1; done; rmdir /mnt/full"
    with broken(rig, f"{mounted}; {filled}", mends):
        env = {"XDG_DATA_HOME": "/mnt/full"}
        report = doctor(rig, env=env)
        assert wrong(report) == {"space": "failed"}
        assert not runs(rig, env=env)


def test_a_file_system_that_overlay_refuses(rig: Machine) -> None:
    script = (
        "mkdir -p /mnt/t && mount -t tmpfs t /mnt/t && cd /mnt/t && mkdir l u w /mnt/o;"
        "mount -t overlay -o lowerdir=l,upperdir=u,workdir=w o /mnt/o && chmod 1777 /mnt/o"
    )
    mends = "until umount /mnt/o; do sleep 0.1; done; umount /mnt/t; rmdir /mnt/o /mnt/t"
    with broken(rig, script, mends):
        report = doctor(rig, env={"XDG_DATA_HOME": "/mnt/o"})
        assert wrong(report)["overlay"] == "warning"
        assert "fuse-overlayfs is used" in row(report, "overlay")["message"]
        assert report["works"]


def test_a_damaged_container_is_named(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "run", "--name", "hurt", alpine, "true"])
    container_id = rig.run(["rp", "ps", "-aq", "--no-trunc"]).stdout.split()[0]
    rig.run(["sh", "-c", f"echo '{{' >{STORE}/containers/{container_id}/record.json"])
    report = doctor(rig)
    assert wrong(report) == {"containers": "warning"}
    cure = row(report, "containers")["cure"]
    assert cure.startswith("rp rm -f ")
    rig.run(cure.split())
    assert wrong(doctor(rig)) == {}


def test_user_namespaces_that_are_forbidden(rig: Machine, alpine: str) -> None:
    # The limit of the rig is not the rig's; that of a user namespace inside it is.
    inside = ["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c"]
    limit = "echo 0 >/proc/sys/user/max_user_namespaces"
    said = rig.run([*inside, f"{limit}; rp doctor --format json"], check=False)
    report = json.loads(said.stdout)
    assert said.returncode == 1
    found = row(report, "user-namespaces")
    assert found["message"] == "forbidden by user.max_user_namespaces=0"
    assert "sysctl -w user.max_user_namespaces=15000" in report["rootCommand"]
    assert row(report, "overlay")["status"] == row(report, "network")["status"] == "skipped"
    refused = rig.run([*inside, f"{limit}; rp run --rm {alpine} true"], check=False)
    assert refused.returncode == 125


def test_a_sandbox_that_takes_setuid_away(rig: Machine, alpine: str) -> None:
    sandbox = ["setpriv", "--no-new-privs", "rp"]
    said = rig.run([*sandbox, "doctor", "--format", "json"], check=False)
    report = json.loads(said.stdout)
    assert said.returncode == 1
    assert wrong(report) == {"id-helpers": "failed"}
    assert "no_new_privs" in row(report, "id-helpers")["message"]
    refused = rig.run([*sandbox, "run", "--rm", alpine, "true"], check=False)
    assert refused.returncode == 125
    assert "NoNewPrivileges" in refused.stderr


def test_a_user_with_nothing_gets_one_command_that_cures_all(rig: Machine) -> None:
    before = {path: rig.root(["cat", path]).stdout for path in ("/etc/subuid", "/etc/subgid")}
    report = doctor(rig, user="bob")
    assert wrong(report) == {
        "session": "failed", "linger": "warning", "subordinate-ids": "warning",
    }  # fmt: skip
    assert not runs(rig, user="bob")
    # The rig has no polkit that would let him.
    (attempt,) = doctor(rig, "--fix", user="bob")["fixed"]
    assert (attempt["check"], attempt["done"]) == ("linger", False)
    assert "logind refuses" in attempt["message"]
    try:
        rig.root(["sh", "-c", report["rootCommand"]])
        rig.root(["test", "-e", "/var/lib/systemd/linger/bob"])
        with lingering(rig, "bob"):
            assert wrong(doctor(rig, user="bob")) == {}
            assert runs(rig, user="bob")
    finally:
        for path, content in before.items():
            rig.root(["sh", "-c", f"cat >{path}"], input=content)


def test_what_a_person_sees(rig: Machine) -> None:
    with broken(rig, "chmod 600 /dev/net/tun", "chmod 666 /dev/net/tun"):
        done = rig.run(["rp", "doctor"], check=False)
        assert done.returncode == 1
        lines = done.stdout.splitlines()
        failed = next(line for line in lines if line.startswith("FAIL"))
        assert failed.split()[1] == "network"
        assert lines[lines.index(failed) + 1].strip().startswith("cure: as root: chmod 666")
        assert "rp run does not work here: network" in lines
        assert lines[-1] in (
            "sudo sh -c 'chmod 666 /dev/net/tun'",
            "su -c 'chmod 666 /dev/net/tun'",
        )
    told = rig.run(["rp", "doctor", "--verbose"]).stdout
    assert "for: a container is a unit of your systemd" in told
    assert "ip_unprivileged_port_start" in told


@pytest.mark.parametrize(("locale", "line"), [("C.UTF-8", "✔ kernel"), ("C", "ok   kernel")])
def test_a_terminal_gets_signs_that_it_can_show(rig: Machine, locale: str, line: str) -> None:
    with rig.pty(["rp", "doctor"], LC_ALL=locale, NO_COLOR="1") as terminal:
        terminal.expect(line)
        terminal.expect("rp run works here")


def test_other_formats_are_refused(rig: Machine) -> None:
    done = rig.run(["rp", "doctor", "--format", "yaml"], check=False)
    assert done.returncode == 125
    assert "expected json" in done.stderr
