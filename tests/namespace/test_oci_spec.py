"""Every field of config.json that rp-oci carries out, seen from inside; the table that names these
tests is in docs/oci-runtime.md.

All bundles (oci_cases) run in one command of the rig; each test looks at what one of them printed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from namespace import bundles
from namespace.oci_cases import CASES, HOME, PROPAGATIONS, RECURSIVE

if TYPE_CHECKING:
    from rig.machine import Machine

# Runs each case: [name, spec, words before the runtime, flags of run, flags before it].
DRIVER = r"""
import json, os, subprocess, sys
home, cases = json.load(sys.stdin)
found = {}
for name, spec, before, flags, general in cases:
    directory = f"{home}/spec-{name}"
    os.makedirs(directory, exist_ok=True)
    with open(f"{directory}/config.json", "w") as file:
        json.dump(spec, file)
    argv = [*before, "rp-oci", *general, "run", "--bundle", directory, *flags, "spec-case"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=60, cwd=home)
    found[name] = [done.returncode, done.stdout, done.stderr]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def made(rig: Machine, alpine: str) -> bundles.Bundles:
    """Return the maker of bundles; its root file system is unpacked."""
    del alpine
    return bundles.Bundles(rig)


@pytest.fixture(scope="module")
def views(made: bundles.Bundles) -> dict[str, tuple[int, str, str]]:
    """Run all cases; return exit code, stdout and stderr of each."""
    cases = []
    for name, case in CASES.items():
        spec = made.spec("sh", "-c", case.line)
        spec["root"]["readonly"] = False
        case.change(spec)
        cases.append([name, spec, case.before, case.flags, case.general])
    made.rig.run(["mkdir", "-p", f"{HOME}/tree"])
    asked = json.dumps([HOME, cases])
    done = made.rig.run(["python3", "-c", DRIVER], input=asked, timeout=60 + 20 * len(cases))
    found: dict[str, tuple[int, str, str]] = json.loads(done.stdout)
    assert made.rig.run(["rp-oci", "list", "-q"]).stdout == ""
    return found


Views = dict[str, "tuple[int, str, str]"]


def ran(views: Views, name: str) -> list[str]:
    code, out, errors = views[name]
    assert (code, errors) == (0, ""), (name, out, errors)
    return out.splitlines()


def refused(views: Views, name: str, words: str) -> None:
    code, out, errors = views[name]
    assert (code, out) == (1, "")
    assert words in errors


def test_limits_and_capabilities(views: Views) -> None:
    lines = ran(views, "attributes")
    limits = {" ".join(line.split()[1:3]): line.split()[3:5] for line in lines[:6]}
    assert limits == {
        "core file": ["size", "0"],
        "processes 500": ["500", "processes"],
        "open files": ["400", "400"],
        "pending signals": ["77", "77"],
        "msgqueue size": ["4096", "4096"],
        "realtime priority": ["0", "0"],
    }
    sets = dict(line.split() for line in lines[6:11])
    assert sets == {
        "CapInh:": f"{1:016x}",
        "CapPrm:": f"{1 | 1 << 5:016x}",
        "CapEff:": f"{1 | 1 << 5:016x}",
        "CapBnd:": f"{1 | 1 << 5 | 1 << 13:016x}",
        "CapAmb:": f"{1:016x}",
    }


def test_memory_policy(views: Views) -> None:
    assert any(" bind=static:0 " in line for line in ran(views, "attributes"))


def test_devices(views: Views) -> None:
    lines = [line for line in views["attributes"][1].splitlines() if "/dev/" in line]
    assert any(line.startswith("prw-r-----") and line.endswith("/dev/pipe") for line in lines)
    assert any("1," in line and line.endswith("/dev/also-null") for line in lines)


def test_personality_sysctls_and_paths(views: Views) -> None:
    lines = ran(views, "attributes")[-6:]
    assert lines[0] == "i686"
    assert lines[1:3] == ["12345", "by.spec"]
    assert [int(line) for line in lines[3:5]] == [0, 0]
    assert "Read-only" in lines[5]


def test_unknown_fields_are_passed_over(views: Views) -> None:
    assert len(ran(views, "attributes")) == 20


def mountinfo(views: Views) -> dict[str, list[str]]:
    lines = ran(views, "mounts")
    return {words[0]: words[1:] for line in lines if len(words := line.split()) > 1}


@pytest.mark.parametrize("option", RECURSIVE)
def test_recursive_attributes(views: Views, option: str) -> None:
    found, word = mountinfo(views), RECURSIVE[option]
    assert word in found[f"/{option}"][0].split(",")
    assert word in found[f"/{option}/sub"][0].split(",")
    assert word in found[f"/top-{option}"][0].split(",")
    assert word not in found[f"/top-{option}/sub"][0].split(",")


def test_propagation_of_mounts(views: Views) -> None:
    found = mountinfo(views)

    def kinds(path: str) -> set[str]:
        return {word.partition(":")[0] for word in found[path][1:]}

    assert kinds("/private") == kinds("/rprivate/sub") == set()
    assert kinds("/slave") == kinds("/rslave") == kinds("/rslave/sub") == {"master"}
    assert {"shared"} <= kinds("/shared") & kinds("/rshared") & kinds("/rshared/sub")
    assert kinds("/unbindable") == kinds("/runbindable/sub") == {"unbindable"}
    assert "unbindable" not in kinds("/unbindable/sub")


def test_idmapped_mounts(views: Views) -> None:
    found = mountinfo(views)
    assert "idmapped" in found["/mapped"][0] + " ".join(found["/mapped"])
    assert "idmapped" in found["/mapped/sub"][0] + " ".join(found["/mapped/sub"])


def test_sources_are_relative_to_the_bundle(views: Views) -> None:
    assert ran(views, "mounts")[-1] == "sub"


def test_idmap_of_a_foreign_file_system_is_refused(views: Views) -> None:
    refused(views, "foreign-idmap", "the ids of this file system cannot be mapped")


def test_network_devices(views: Views) -> None:
    out = "\n".join(ran(views, "devices-moved"))
    assert "inet 10.5.5.1/24" in out
    assert "inet6 fd77::1/64" in out
    assert "moved1" in out
    assert out.count("LOWER_UP") == 3
    assert out.endswith("\n1400")


def test_network_devices_that_cannot_be_moved(views: Views) -> None:
    refused(views, "foreign-device", "linux.netDevices: lo cannot be moved")
    refused(views, "missing-device", "linux.netDevices: nosuch0 cannot be moved: No such device")


@pytest.mark.parametrize(("policy", "shown"), [("other", "3 0"), ("batch", "0 3"), ("idle", "0 5")])
def test_schedulers(views: Views, policy: str, shown: str) -> None:
    assert ran(views, policy) == [shown]


@pytest.mark.parametrize("policy", ["fifo", "rr", "deadline", "iso"])
def test_schedulers_that_the_kernel_refuses(views: Views, policy: str) -> None:
    refused(views, policy, "cannot set the scheduler")


def test_no_pivot(views: Views) -> None:
    code, out, errors = views["no-pivot"]
    assert (code, errors.strip()) == (1, "ls: rootfs: No such file or directory")
    assert "No such file" in out.splitlines()[0] or "/etc/passwd" in out.splitlines()[0]
    assert "/home/alice\n" not in out
    assert "/etc/passwd" in out
    assert out.splitlines()[-1] == "/"


def test_descriptors_are_passed_on(views: Views) -> None:
    lines = ran(views, "descriptors")
    assert lines[:3] == ["three", "four", "1 1"]
    # 0 to 4, and the one of ls.
    assert lines[3] == "6"
    refused(views, "closed-descriptor", "descriptor")


def test_versions(views: Views) -> None:
    code, out, errors = views["newer-version"]
    assert (code, out) == (0, "ran\n")
    assert "1.99.0" in errors
    refused(views, "next-version", "ociVersion")


def test_with_and_without_a_user_bus(views: Views) -> None:
    assert ran(views, "scope")[-1] == "0::/"
    assert ran(views, "no-bus") == ["ran"]
    refused(views, "no-bus-but-limits", "")


def test_root_of_a_user_namespace(views: Views) -> None:
    user, mapping = ran(views, "root-in-a-namespace")
    assert (user, mapping.split()[::2]) == ("0", ["0", "1"])
    assert ran(views, "root-without-bus") == ["0"]


@pytest.mark.parametrize("kind", PROPAGATIONS)
def test_propagation_of_the_root(views: Views, kind: str) -> None:
    for word in (kind, f"r{kind}"):
        (shown,) = ran(views, word)
        expected = {"shared": "shared:", "unbindable": "unbindable"}.get(kind, "")
        assert shown.startswith(expected)
        assert expected or not shown.startswith(("shared:", "unbindable"))


_AGENT = """
import os, socket, subprocess, sys, struct, fcntl, json
path, directory = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(1)
child = subprocess.Popen(["rp-oci", "run", "--bundle", directory, "oci-test"],
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
connection, _ = listener.accept()
message, fds, _, _ = socket.recv_fds(connection, 65536, 1)
told = json.loads(message)
notification = bytearray(80)
fcntl.ioctl(fds[0], 0xC0502100, notification)
number, = struct.unpack_from("Q", notification)
fcntl.ioctl(fds[0], 0xC0182101, struct.pack("QqiI", number, 0, -95, 0))
out = child.communicate()[0].decode()
print(json.dumps([told["fds"], told["pid"] == told["state"]["pid"] > 0, told["metadata"], out]))
"""


def test_seccomp_agent_is_asked(made: bundles.Bundles) -> None:
    path = f"{HOME}/agent"
    spec = made.spec("sh", "-c", "mkdir /tmp/never 2>&1 || true")
    spec["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "meta",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    }
    directory = made.write(spec)
    made.rig.run(["rm", "-f", path])
    done = made.rig.run(["python3", "-c", _AGENT, path, directory], timeout=60)
    fds, same, metadata, out = json.loads(done.stdout)
    assert (fds, same, metadata) == (["seccompFd"], True, "meta")
    assert "not supported" in out.lower()
