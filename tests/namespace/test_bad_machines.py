"""Machines that lack something: one line with the cure, exit 125, nothing left.

Row U8 of SECURITY.md's fault contract, and R1's full file system.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from namespace.living import lingering

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

pytestmark = [pytest.mark.namespace, pytest.mark.root_only]


@contextlib.contextmanager
def _without(rig: Machine, *programs: str) -> Iterator[None]:
    for program in programs:
        rig.root(["mv", program, f"{program}.away"])
    try:
        yield
    finally:
        for program in programs:
            rig.root(["mv", f"{program}.away", program])


def _refused(rig: Machine, image: str, *words: str, options: tuple[str, ...] = ()) -> None:
    done = rig.run(["rp", "run", "--rm", *options, image, "true"], check=False)
    assert done.returncode == 125, done.stderr
    lines = done.stderr.splitlines()
    assert lines[-2].startswith("rp: ")
    assert lines[-1].startswith("hint: ")
    for word in words:
        assert word in done.stderr


@pytest.mark.row("U8", "one line with the cure, 125")
@pytest.mark.parametrize("program", ["newuidmap", "newgidmap"])
def test_u8_id_helper_missing(
    rig: Machine, alpine: str, leaves_nothing: None, program: str
) -> None:
    with _without(rig, f"/usr/bin/{program}"):
        _refused(rig, alpine, f"{program} is not installed", "apt-get install uidmap")
    rig.run(["rp", "run", "--rm", alpine, "true"])


@pytest.mark.row("U8", "refused")
@pytest.mark.row("CVE-2018-6556", "a newuidmap that is not root's is not called")
def test_u8_newuidmap_that_is_not_roots(rig: Machine, alpine: str, leaves_nothing: None) -> None:
    rig.root(["chown", "alice", "/usr/bin/newuidmap"])
    try:
        _refused(rig, alpine, "/usr/bin/newuidmap")
    finally:
        rig.root(["chown", "root", "/usr/bin/newuidmap"])
        rig.root(["chmod", "4755", "/usr/bin/newuidmap"])
    rig.run(["rp", "run", "--rm", alpine, "true"])


@pytest.mark.row("U8", "its words are passed on")
def test_u8_the_words_of_the_id_helper_are_passed_on(
    rig: Machine, alpine: str, leaves_nothing: None
) -> None:
    script = "#!/bin/sh\necho range not allowed >&2\nexit 1\n"
    with _without(rig, "/usr/bin/newgidmap"):
        rig.root(["sh", "-c", "cat > /usr/bin/newgidmap; chmod 755 $0", "/usr/bin/newgidmap"],
                 input=script)  # fmt: skip
        _refused(rig, alpine, "range not allowed")
    rig.run(["rp", "run", "--rm", alpine, "true"])


@pytest.mark.row("N1", "pasta missing: slirp4netns, said so; 125 if asked for")
def test_n1_pasta_missing_falls_back_with_a_notice_unless_asked_for(
    rig: Machine, alpine: str, leaves_nothing: None
) -> None:
    with _without(rig, "/usr/bin/pasta"):
        done = rig.run(["rp", "run", "--rm", alpine, "ip", "addr"])
        assert "pasta is not installed: using slirp4netns" in done.stderr
        assert "tap0" in done.stdout
        _refused(rig, alpine, "pasta is not installed", "passt", options=("--network", "pasta"))


@pytest.mark.row("U3", "125 that names linger")
def test_u3_no_session_and_no_linger(rig: Machine) -> None:
    done = rig.run(["rp", "run", "--rm", "alpine", "true"], user="bob", check=False)
    assert done.returncode == 125
    assert "linger" in done.stderr


@pytest.mark.row("U8", "one id is mapped, and that is said")
def test_u8_without_subordinate_ids_one_id_is_mapped_and_said_so(rig: Machine) -> None:
    with lingering(rig, "bob") as uid:
        argv = ["rp", "run", "--rm", "alpine", "sh", "-c", "id -u; cat /proc/self/uid_map"]
        done = rig.run(argv, user="bob", timeout=120)
        assert done.stdout.split() == ["0", "0", uid, "1"]
        assert "/etc/subuid" in done.stderr
        assert "usermod --add-subuids" in done.stderr
        other = rig.run(["rp", "run", "--rm", "-u", "5", "alpine", "id"], user="bob", check=False)
        assert other.returncode == 125
        assert "Traceback" not in other.stderr


@pytest.mark.row("R1", "125, partial files removed")
def test_r1_no_space(rig: Machine, leaves_nothing: None) -> None:
    rig.root(
        ["sh", "-c", "mkdir -p /mnt/small; mount -t tmpfs -o size=2m,mode=1777 small /mnt/small"]
    )
    try:
        store = {"XDG_DATA_HOME": "/mnt/small/data"}
        done = rig.run(["rp", "run", "--rm", "alpine", "true"], env=store, check=False)
        assert done.returncode == 125
        assert "space" in done.stderr
        assert "Traceback" not in done.stderr
        assert rig.run(["rp", "images", "-q"], env=store).stdout == ""
        left = rig.run(["sh", "-c", "find /mnt/small -size +100k"]).stdout
        assert left == ""
    finally:
        rig.root(["sh", "-c", "until umount /mnt/small; do sleep 0.1; done"])


@pytest.mark.parametrize("driver", ["fuse-overlayfs", "copy"])
def test_other_storage_drivers_carry_the_same_image(
    rig: Machine, alpine: str, leaves_nothing: None, driver: str
) -> None:
    script = "touch /new && rm /etc/motd && ls -ld / /new && cat /etc/os-release && ps -o pid"
    argv = ["rp", "run", "--rm", "-u", "root", alpine, "sh", "-c", script]
    said = rig.run(argv, env={"RP_STORAGE_DRIVER": driver}).stdout
    assert "NAME=" in said
    assert said.split("\n")[1].split()[2:4] == ["root", "root"]
    # The image is as it was.
    rig.run(["rp", "run", "--rm", alpine, "test", "-e", "/etc/motd"])


@pytest.mark.row("U8", "another driver, and that is said")
@pytest.mark.row("D4", "another driver, and that is said")
def test_u8_a_store_that_overlay_refuses_is_noticed(rig: Machine, leaves_nothing: None) -> None:
    # An overlay's own file system cannot hold another overlay's upper directory.
    script = (
        "mkdir -p /mnt/t && mount -t tmpfs t /mnt/t && cd /mnt/t && mkdir l u w /mnt/o;"
        "mount -t overlay -o lowerdir=l,upperdir=u,workdir=w o /mnt/o && chmod 1777 /mnt/o"
    )
    rig.root(["sh", "-c", script])
    try:
        store = {"XDG_DATA_HOME": "/mnt/o/data"}
        done = rig.run(["rp", "run", "--rm", "alpine", "echo", "fine"], env=store, timeout=120)
        assert done.stdout == "fine\n"
        assert "overlay is refused here" in done.stderr
        again = rig.run(["rp", "run", "--rm", "alpine", "echo", "fine"], env=store)
        assert again.stdout == "fine\n"
    finally:
        # A process of fuse-overlayfs may still be ending.
        rig.root(["sh", "-c", "until umount /mnt/o; do sleep 0.1; done; umount /mnt/t"])


@pytest.mark.row("I8", "closed again")
def test_i8_a_store_that_others_could_enter_is_closed(rig: Machine, alpine: str) -> None:
    rig.run(["chmod", "755", "/home/alice/.local/share/rootlesspy"])
    rig.run(["rp", "run", "--rm", alpine, "true"])
    mode = rig.run(["stat", "-c", "%a", "/home/alice/.local/share/rootlesspy"]).stdout
    assert mode == "700\n"
