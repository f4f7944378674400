"""rp doctor on a kernel of its own: sysctls, delegation, and the one command that cures all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rig.vm import VirtualMachine

CHANGES_MACHINE = True
# The machine has no udev that would open it to all.
TUN = "chmod 666 /dev/net/tun"


def doctor(vm: VirtualMachine) -> dict[str, Any]:
    done = vm.run(["rp", "doctor", "--format", "json"], check=False, timeout=120)
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if report["works"] else 1)
    return report


def wrong(report: dict[str, Any]) -> dict[str, str]:
    return {
        check["name"]: check["message"]
        for check in report["checks"]
        if check["status"] not in ("ok", "skipped")
    }


def test_what_forbids_user_namespaces_is_named_and_cured(vm: VirtualMachine) -> None:
    key = "user.max_user_namespaces"
    vm.root(["sh", "-c", f"{TUN}; sysctl -qw {key}=0"])
    try:
        report = doctor(vm)
        assert wrong(report)["user-namespaces"] == f"forbidden by {key}=0"
        assert set(wrong(report)) == {"user-namespaces", "delegation"}
        command = next(
            check["root"] for check in report["checks"] if check["name"] == "user-namespaces"
        )
        vm.root(["sh", "-c", command])
        assert set(wrong(doctor(vm))) == {"delegation"}
    finally:
        vm.root(["sh", "-c", f"sysctl -qw {key}=15000; rm -f /etc/sysctl.d/99-rootlesspy.conf"])


def test_the_command_for_root_delegates_all_controllers(vm: VirtualMachine) -> None:
    vm.root(["chmod", "600", "/dev/net/tun"])
    report = doctor(vm)
    assert wrong(report)["delegation"].startswith("not delegated: cpuset, io")
    assert set(wrong(report)) == {"delegation", "network"}
    vm.root(["sh", "-c", report["rootCommand"]])
    # Logging in afresh starts a manager with it.
    shown = vm.root(["systemctl", "show", "user@1000.service", "-P", "DelegateControllers"])
    assert set(shown.stdout.split()) == {"cpu", "cpuset", "io", "memory", "pids"}
    assert set(wrong(doctor(vm))) <= {"delegation"}
