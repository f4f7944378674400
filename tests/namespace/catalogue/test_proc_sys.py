"""/proc, /sys, cgroups and keys, as a payload that tries to get round the masks: catalogue D.

What a container with no options sees is in test_isolation.py; here it makes namespaces and mounts
of its own, with the filter off or capabilities on where the default would already refuse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from namespace.probe_box import Box
    from rig.machine import Machine

EPERM, EACCES, EBUSY, EINVAL, EROFS = 1, 13, 16, 22, 30
UNFILTERED = ("--security-opt", "seccomp=unconfined")
MASKED = ("/proc/keys", "/proc/timer_list", "/proc/interrupts", "/sys/firmware")
NESTED = ("namespaces-of", "user,mnt,pid,net,cgroup")


@pytest.fixture(scope="module")
def nested(box: Box) -> list[Any]:
    """Return what happens in namespaces of the container's own making, without the filter."""
    box.machine.run(["mkdir", "-p", *(f"{box.directory}/root/{name}" for name in ("mnt", "tmp"))])
    runs = (
        (*NESTED, "mount", "proc", "/mnt", "proc"),
        (*NESTED, "mount", "sysfs", "/mnt", "sysfs"),
        (*NESTED, "mount", "cgroup", "/mnt", "cgroup"),
        (*NESTED, "unmount", *MASKED),
        (*NESTED, "mount", "tmpfs", "/mnt", "tmpfs"),
    )
    return box.several(*UNFILTERED, run=runs)


@pytest.mark.row("CVE-2018-10892", "no unmasked /proc can be mounted in a nested namespace")
def test_cve_2018_10892_second_proc_shows_no_unmasked_view(nested: list[Any]) -> None:
    """The kernel compares with the procfs that is there, which is covered in part."""
    proc, sysfs, *_, tmpfs = nested
    assert proc == {"/mnt": EPERM}
    assert sysfs == {"/mnt": EPERM}
    # Not because nothing could be mounted there.
    assert tmpfs == {"/mnt": 0}


@pytest.mark.row("CVE-2018-10892", "masks cannot be taken off in a nested namespace")
def test_cve_2018_10892_masks_are_locked(nested: list[Any]) -> None:
    assert nested[3] == dict.fromkeys(MASKED, EINVAL)


@pytest.mark.row("CVE-2018-10892", "nor in the container's own: umount is refused")
def test_cve_2018_10892_umount_is_refused(box: Box) -> None:
    unmounted, nested_too = box.several(
        run=(("unmount", *MASKED), ("namespaces-of", "user,mnt", "unmount", *MASKED))
    )
    assert unmounted == dict.fromkeys(MASKED, EPERM)
    assert nested_too == {"unshare": EPERM}


@pytest.mark.row("CVE-2022-0492", "EPERM: in a nested user namespace and with all capabilities")
def test_cve_2022_0492_cgroup_v1_cannot_be_mounted(box: Box, nested: list[Any]) -> None:
    assert nested[2] == {"/mnt": EPERM}
    default = box.run(run=("namespaces-of", "user,mnt,cgroup", "mount", "cgroup", "/mnt", "cgroup"))
    assert default == {"unshare": EPERM}
    privileged = box.run("--privileged", run=("mount", "cgroup", "/mnt", "cgroup"))
    assert privileged == {"/mnt": EPERM}


@pytest.mark.row("CVE-2023-25809", "nothing can be written, made or left, with --cgroupns host too")
@pytest.mark.parametrize("options", [(), ("--cgroupns", "host")], ids=["own", "host"])
def test_cve_2023_25809_no_file_of_the_cgroup_opens(box: Box, options: tuple[str, ...]) -> None:
    writable, looked, report = box.several(
        *options, run=(("writable", "/sys/fs/cgroup"), ("look", "/sys/fs/cgroup"), ("report",))
    )
    assert writable == []
    assert looked["/sys/fs/cgroup"]["mkdirat_errno"] in (EROFS, EACCES)
    assert "cgroup.procs" in looked["/sys/fs/cgroup"]["entries"]
    unified = [line for line in report["cgroup"] if line.startswith("0::")]
    assert (unified == ["0::/"]) is (not options)


@pytest.mark.row("CVE-2022-0811", "what the kernel does with a core dump stays as it was")
def test_cve_2022_0811_core_pattern_is_not_changed(box: Box) -> None:
    path = "/proc/sys/kernel/core_pattern"
    before = box.machine.run(["cat", path]).stdout
    smuggled = (
        "kernel.shm_rmid_forced=1+kernel.core_pattern=|/x",
        "net.a=1\nkernel.core_pattern=x",
    )
    for sysctl in (*smuggled, "kernel.core_pattern=|/x", "net.ipv4.ping_group_range=0 0+0"):
        assert box.machine.run(box.argv("--sysctl", sysctl), check=False).returncode == 125
    answers = box.run("--privileged", run=("open-write", path))
    assert answers[path] in (EACCES, EPERM, EROFS)
    assert box.machine.run(["cat", path]).stdout == before


def test_sysctl_of_the_container_is_set(box: Box) -> None:
    """The refusals above are not those of everything."""
    sysctls = {"net.core.somaxconn": "77", "kernel.msgmax": "4096", "net/ipv4/ip_forward": "1"}
    options = [word for key, value in sysctls.items() for word in ("--sysctl", f"{key}={value}")]
    values = box.run(*options, run=("values", "/proc/sys/net/core"))
    assert values["/proc/sys/net/core/somaxconn"].strip() == "77"


@pytest.mark.row("CVE-2021-33910", "a mount of any depth stays in the container; systemd runs on")
def test_cve_2021_33910_deep_mount_hurts_nobody(box: Box, machine_pids: tuple[str, str]) -> None:
    """A path of 800,000 bytes: PID 1 of systemd copied such a one to its stack."""
    table = box.machine.run(["cat", "/proc/self/mountinfo"]).stdout
    options = ("--cap-add", "SYS_ADMIN", "--tmpfs", "/tmp")
    assert box.run(*options, run=("deep-mount", "4000")) == {"errno": 0}
    assert box.machine.run(["cat", "/proc/self/mountinfo"]).stdout == table
    assert managers(box.machine) == machine_pids


@pytest.fixture
def machine_pids(rig: Machine) -> tuple[str, str]:
    """Return the start time of PID 1 and the user manager's own id, before the test."""
    return managers(rig)


def managers(rig: Machine) -> tuple[str, str]:
    first = rig.run(["cut", "-d", " ", "-f", "22", "/proc/1/stat"]).stdout
    own = rig.run(["systemctl", "--user", "show", "-p", "UserspaceTimestampMonotonic"]).stdout
    return first, own


@pytest.mark.row("mknod", "a device node in a volume cannot be opened")
def test_mknod_node_in_a_volume_cannot_be_opened(box: Box) -> None:
    """A node that root made there, for instance by restoring a backup."""
    machine = box.machine
    if not machine.has_root:
        pytest.skip("only root can make a device node")
    machine.run(["rp", "volume", "create", "nodes"])
    try:
        show = ["rp", "volume", "inspect", "--format", "{{.Mountpoint}}", "nodes"]
        path = machine.run(show).stdout.strip() + "/kmsg"
        machine.root(["mknod", "-m", "666", path, "c", "1", "11"])
        options = ("--volume", "nodes:/out", "--privileged")
        assert box.run(*options, run=("open-write", "/out/kmsg")) == {"/out/kmsg": EACCES}
        machine.root(["rm", path])
    finally:
        machine.run(["rp", "volume", "rm", "nodes"])


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ((), False),
        (("--security-opt", "unmask=/proc/interrupts"), True),
        (("--security-opt", "unmask=/proc/*"), True),
        (("--security-opt", "unmask=ALL"), True),
        (("--security-opt", "unmask=ALL", "--security-opt", "mask=/proc/interrupts"), False),
    ],
    ids=str,
)
def test_masks_are_changed_by_options(box: Box, options: tuple[str, ...], seen: bool) -> None:
    looked = box.run(*options, run=("look", "/proc/interrupts"))["/proc/interrupts"]
    assert (looked["type"], looked["bytes"]) == (("file", 1) if seen else ("character", 0))


def test_options_of_proc(box: Box) -> None:
    report, looked = box.several(
        *("--security-opt", "proc-opts=hidepid=2,subset=pid"), run=(("report",), ("look", "/proc"))
    )
    (line,) = [each for each in report["mountinfo"] if each.split()[4] == "/proc"]
    assert {"hidepid=invisible", "subset=pid"} <= set(line.split()[-1].split(","))
    assert "sys" not in looked["/proc"]["entries"]
