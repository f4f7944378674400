"""What confines a container beyond its namespaces: --landlock, --security-opt, --device."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from namespace.living import until

from rootlesspy.linux import landlock

if TYPE_CHECKING:
    from namespace.probe_box import Box
    from rig.machine import Machine

RULES = "ro=/,rw=/data,net=connect:8080,scope=signals"


def home_of(rig: Machine) -> str:
    return str(rig.run(["sh", "-c", 'printf %s "$HOME"']).stdout)


@pytest.fixture(scope="module")
def confined(rig: Machine, alpine: str) -> Any:
    """Return a container with rules, and the answers of its first process."""
    if landlock.abi() < 6:
        pytest.skip("the kernel has no Landlock ABI 6 (Linux 6.12)")
    attempt = (
        "try() { if eval \"$2\" 2>/dev/null; then echo $1 yes; else echo $1 no; fi; }\n"
        "try write 'echo x >/data/x'\n"
        "try elsewhere 'echo x >/tmp/x'\n"
        "try truncate 'true >/etc/motd'\n"
        "try remove 'rm /etc/motd'\n"
        "try link 'ln /data/x /tmp/l'\n"
        "try read 'cat /etc/passwd >/dev/null'\n"
        "try null 'echo x >/dev/null'\n"
        "try connect 'nc -w 1 127.0.0.1 80 </dev/null'\n"
    )  # fmt: skip
    rig.run(["sh", "-c", 'cat >"$HOME/attempt.sh"'], input=attempt)
    script = f"{home_of(rig)}/attempt.sh"
    mounts = ("--volume", "landdata:/data", "--volume", f"{script}:/attempt:ro")
    payload = ("sh", "-c", "sh /attempt >/data/first; sleep 1000")
    rig.run(
        ["rp", "run", "-d", "--name", "confined", "--landlock", RULES, *mounts, alpine, *payload]
    )
    yield rig
    rig.run(["rp", "rm", "--force", "--time", "0", "confined"])
    rig.run(["rp", "volume", "rm", "landdata"])


ANSWERS = {
    "write": "yes", "elsewhere": "no", "truncate": "no", "remove": "no", "link": "no",
    "read": "yes", "null": "yes", "connect": "no",
}  # fmt: skip


def answers(text: str) -> dict[str, str]:
    return dict(line.split() for line in text.splitlines())


def test_landlock_holds_the_first_process(confined: Machine) -> None:
    argv = ["rp", "exec", "confined", "cat", "/data/first"]
    until(lambda: "connect" in confined.run(argv, check=False).stdout, "the first process ends")
    assert answers(confined.run(argv).stdout) == ANSWERS


@pytest.mark.parametrize("options", [(), ("--user", "1000"), ("--privileged",), ("-t",)], ids=str)
def test_landlock_holds_sessions_too(confined: Machine, options: tuple[str, ...]) -> None:
    argv = ["rp", "exec", *options, "confined", "sh", "/attempt"]
    found = answers(confined.run(argv).stdout)
    expected = dict(ANSWERS, write="no") if "1000" in options else ANSWERS
    assert {**found, "connect": "no"} == expected


def test_landlock_holds_whatever_names_have_become(confined: Machine) -> None:
    """The rules are of the files that were there; a session resolves nothing anew."""
    script = "mkdir -p /data/etc && ls /data/etc && echo x >/etc/x"
    done = confined.run(["rp", "exec", "confined", "sh", "-c", script], check=False)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr


def test_landlock_of_a_restarted_container(confined: Machine) -> None:
    confined.run(["rp", "restart", "--time", "0", "confined"])
    found = answers(confined.run(["rp", "exec", "confined", "sh", "/attempt"]).stdout)
    assert found == ANSWERS


@pytest.mark.parametrize(
    "option", [("--security-opt", "no-new-privileges=false"), ("--privileged",), ("--init",)]
)
def test_landlock_without_no_new_privs(
    confined: Machine, alpine: str, option: tuple[str, ...]
) -> None:
    """The kernel then wants CAP_SYS_ADMIN, which the payload may not keep."""
    argv = ["rp", "run", "--rm", "--network=none", "--landlock", "ro=/", *option, alpine]
    done = confined.run([*argv, "sh", "-c", "id -u; echo x >/x"], check=False)
    assert done.stdout == "0\n"
    assert "Permission denied" in done.stderr


@pytest.mark.parametrize(
    ("rules", "code", "message"),
    [
        ("ro=/,rw=/nowhere", 125, "/nowhere: No such file or directory"),
        ("rw=/,ro=/etc", 125, "only add up"),
        ("net=none,net=bind:1", 125, "excludes"),
        ("ro=etc", 125, "expected ro=/PATH"),
        ("ro-noexec=/", 126, "cannot be executed"),
        ("rw=/data", 126, "cannot be executed"),
    ],
)
def test_landlock_rules_that_cannot_hold(
    confined: Machine, alpine: str, rules: str, code: int, message: str
) -> None:
    argv = ["rp", "run", "--rm", "--network=none", "--volume", "landdata:/data"]
    done = confined.run([*argv, "--landlock", rules, alpine, "true"], check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


# What else --security-opt and --device say


@pytest.mark.row("I9", "a label, profile, rule or device that cannot be: exit 125")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--security-opt", "label=type:spc_t"), "SELinux is not enabled on this machine"),
        (("--security-opt", "apparmor=some"), "AppArmor is not enabled on this machine"),
        (("--security-opt", "proc-opts=hidepid=9"), "expected hidepid="),
        (("--security-opt", "mask=proc"), "absolute paths"),
        (("--device-cgroup-rule", "c 1:3 rwm"), "only be ruled as root"),
        (("--device", "/dev/no-such"), "No such file"),
        (("--device", "vendor.com/class=none"), "no CDI file describes it"),
        (("--gpus", "all"), "nvidia.com/gpu=all: no CDI file describes it"),
    ],
    ids=str,
)
def test_i9_what_cannot_be_applied_is_an_error(
    rig: Machine, alpine: str, options: tuple[str, ...], message: str
) -> None:
    done = rig.run(["rp", "run", "--rm", *options, alpine, "true"], check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert message in done.stderr


@pytest.mark.parametrize("option", ["label=disable", "apparmor=unconfined"])
def test_what_is_off_may_be_switched_off(box: Box, option: str) -> None:
    assert box.run("--security-opt", option)["status"]["Seccomp"] == "2"


def test_device_that_a_file_describes(box: Box) -> None:
    """CDI: environment, device node, mount, group and hook, by the user's own file."""
    machine, home = box.machine, home_of(box.machine)
    edits = {
        "env": ["VENDOR=1"],
        "deviceNodes": [{"path": "/dev/vendor0", "hostPath": "/dev/null", "type": "c"}],
        "mounts": [{"hostPath": f"{box.directory}/out", "containerPath": "/usr/lib/vendor"}],
        "additionalGids": [7],
        "hooks": [
            {
                "hookName": "createRuntime",
                "path": "/bin/sh",
                "args": ["sh", "-c", f"cat >{box.directory}/out/hooked"],
            }
        ],
    }
    device = {"name": "one", "containerEdits": edits}
    document = {"cdiVersion": "0.8.0", "kind": "vendor.com/class", "devices": [device]}
    machine.run(["mkdir", "-p", f"{home}/.config/cdi"])
    path = f"{home}/.config/cdi/vendor.json"
    machine.run(["sh", "-c", 'cat >"$0"', path], input=json.dumps(document))
    try:
        report, looked = box.several(
            *("--device", "vendor.com/class=one"),
            run=(("report",), ("look", "/dev/vendor0", "/usr/lib/vendor")),
        )
        unknown = machine.run(box.argv("--device", "vendor.com/class=two"), check=False)
    finally:
        machine.run(["rm", path])
    assert "VENDOR=1" in report["env"]
    assert 7 in report["groups"]
    node = looked["/dev/vendor0"]
    assert (node["type"], node["major"], node["minor"]) == ("character", 1, 3)
    assert "hooked" in looked["/usr/lib/vendor"]["entries"]
    assert unknown.returncode == 125
    assert "known: vendor.com/class=one" in unknown.stderr
