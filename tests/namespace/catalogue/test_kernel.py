"""What of the kernel a payload can reach: system calls and capabilities; catalogue E.

The calls that the default filter refuses one by one are in test_isolation.py.  Here: the filter in
all ways to start a process, and its list beside podman's.
"""

from __future__ import annotations

import json
import os
import platform
from typing import TYPE_CHECKING, Any

import pytest
from namespace.living import until

from rootlesspy.engine import seccomp_profile
from rootlesspy.engine.inputs import capabilities

if TYPE_CHECKING:
    from namespace.probe_box import Box
    from rig.machine import Machine

    from rootlesspy.oci.runtime_spec import LinuxSeccomp

EPERM = 1
NESTED = ("namespaces-of", "user,mnt")
DANGEROUS = ("NET_ADMIN", "SYS_ADMIN", "SYS_MODULE", "BPF", "PERFMON", "SYS_PTRACE", "NET_RAW")


@pytest.mark.row("CVE-2021-3493", "no user namespace, so no overlay in one: EPERM")
def test_cve_2021_3493_no_overlay_in_a_nested_namespace(box: Box) -> None:
    nested, direct = box.several(
        run=((*NESTED, "mount", "overlay", "/tmp", "overlay"), ("mount", "o", "/tmp", "overlay"))
    )
    assert nested == {"unshare": EPERM}
    assert direct == {"/tmp": EPERM}


@pytest.mark.row("CAP_NET_ADMIN", "is not held; the own network's settings: EPERM")
def test_cve_2026_53264_no_capability_that_opens_the_kernel(box: Box, alpine: str) -> None:
    held = int(box.run()["status"]["CapBnd"], 16)
    for name in DANGEROUS:
        assert not held >> capabilities.ALL.index(f"CAP_{name}") & 1, name
    argv = ["rp", "run", "--rm", "--network=none", alpine, "ip", "link", "set", "lo", "mtu", "999"]
    done = box.machine.run(argv, check=False)
    assert done.returncode != 0
    assert "not permitted" in done.stderr


@pytest.mark.row("GHSA-7236", "what is unknown is refused, and never without a filter")
@pytest.mark.parametrize(
    "option",
    ["seccomp=off", "seccomp=UNCONFINED", "seccomp=0", "seccomp=", "secomp=unconfined", "1", "="],
)
def test_ghsa_7236_unknown_mode_does_not_switch_the_filter_off(box: Box, option: str) -> None:
    done = box.machine.run(box.argv("--security-opt", option), check=False)
    assert done.returncode == 125
    assert done.stdout == ""


@pytest.mark.row("GHSA-7236", "the filter is on in every process: run, exec, health check")
def test_ghsa_7236_filter_is_on_in_every_way_in(rig: Machine, alpine: str) -> None:
    show = "grep -E '^(Seccomp|NoNewPrivs|CapBnd|CapInh|CapAmb):' /proc/self/status"
    health = ("--health-cmd", f"{show} >/health && echo ok", "--health-interval", "disable")
    payload = ("sh", "-c", f"{show} >/draft; mv /draft /run.txt; sleep 1000")
    rig.run(["rp", "run", "-d", "--name", "ways", *health, alpine, *payload])
    try:
        executed = rig.run(["rp", "exec", "ways", "sh", "-c", show]).stdout
        rig.run(["rp", "healthcheck", "run", "ways"])
        checked = rig.run(["rp", "exec", "ways", "cat", "/health"]).stdout
        look = ["rp", "exec", "ways", "cat", "/run.txt"]
        until(lambda: rig.run(look, check=False).returncode == 0, "the payload has not looked")
        first = rig.run(look).stdout
    finally:
        rig.run(["rp", "rm", "--force", "--time", "0", "ways"])
    assert "Seccomp:\t2" in first
    assert "NoNewPrivs:\t1" in first
    assert first == executed == checked


@pytest.mark.row("GHSA-7236", "a container without a filter says so in inspect")
def test_ghsa_7236_inspect_tells_of_what_is_off(rig: Machine, alpine: str) -> None:
    options = ("seccomp=unconfined", "no-new-privileges=false", "unmask=ALL")
    words = [word for option in options for word in ("--security-opt", option)]
    rig.run(["rp", "create", "--name", "told", *words, "--landlock", "ro=/", alpine, "true"])
    rig.run(["rp", "create", "--name", "untold", alpine, "true"])
    show = ["rp", "inspect", "--format", "{{json .HostConfig.SecurityOpt}}"]
    told = json.loads(rig.run([*show, "told"]).stdout)
    untold = json.loads(rig.run([*show, "untold"]).stdout)
    rules = rig.run(["rp", "inspect", "--format", "{{.HostConfig.Landlock}}", "told"]).stdout
    rig.run(["rp", "rm", "told", "untold"])
    assert "seccomp=unconfined" in told
    assert "seccomp=unconfined" not in untold
    assert rules.strip() == "[ro=/]"


# Beside podman's profile

NEWER = {
    *("cachestat", "fchmodat2", "file_getattr", "file_setattr", "futex_requeue", "futex_wait"),
    *("futex_waitv", "futex_wake", "getxattrat", "io_pgetevents", "io_pgetevents_time64"),
    *("listmount", "listxattrat", "map_shadow_stack", "mseal", "removexattrat"),
    *("landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "memfd_secret"),
    *("process_mrelease", "quotactl_fd", "set_mempolicy_home_node", "setxattrat", "statmount"),
    *("uprobe", "uretprobe"),
}
OLD_32_BIT = {"nice", "readdir", "sigaction", "sigpending", "sigsuspend"}
NEEDS_A_CAPABILITY = {
    *("fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount"),
    *("open_tree", "pivot_root", "reboot", "setns", "syslog", "umount", "umount2"),
}
REFUSED_FOR_A_REASON = {"keyctl", "add_key", "request_key", "clone3", "unshare"}
NEVER_IMPLEMENTED = {"epoll_ctl_old", "epoll_wait_old", "syscall", "timerfd"}


@pytest.mark.row("unlisted syscalls", "the list differs from podman's as docs/security.md says")
def test_new_syscalls_profile_beside_podmans(rig: Machine) -> None:
    found = rig.run(["cat", "/usr/share/containers/seccomp.json"], check=False)
    if found.returncode:
        pytest.skip("containers-common is not installed on the machine")
    theirs, ours = allowed(json.loads(found.stdout)), allowed(seccomp_profile.load())
    assert ours - theirs <= NEWER | OLD_32_BIT
    assert theirs - ours <= NEEDS_A_CAPABILITY | REFUSED_FOR_A_REASON | NEVER_IMPLEMENTED


def allowed(profile: dict[str, Any]) -> set[str]:
    """Return the calls that a profile allows with the default capabilities."""
    held = frozenset(capabilities.DEFAULT)
    resolved: LinuxSeccomp = seccomp_profile.resolve(
        profile, held, platform.machine(), os.uname().release
    )
    rules = resolved["syscalls"]
    return {n for each in rules for n in each["names"] if each["action"] == "SCMP_ACT_ALLOW"}
