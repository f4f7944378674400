"""What a payload can see and do, told by a static probe that rp runs: SECURITY.md B to F, L, M.

Each test starts containers from the front door as the unprivileged user.  The payload is
tests/data/probe/probe.c in a root file system of its own, so that nothing of an image hides or
adds anything.
"""

from __future__ import annotations

import errno
import json
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from namespace.probe_box import options_by_target, sets

if TYPE_CHECKING:
    from namespace.probe_box import Box

EPERM, ENOENT, EROFS, EACCES, ENOSYS = 1, 2, 30, 13, 38
ENOKEY, EAFNOSUPPORT, EPROTONOSUPPORT = 126, 97, 93
HIGH = 1 << 32

# CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP
DEFAULT_MASK = 0x800405FB
NET_RAW = 1 << 13


@pytest.fixture(scope="module")
def seen(box: Box) -> Any:
    """Return what a payload sees in a container with no options."""
    return box.run()


# C. Capabilities, users, groups


def test_default_capabilities_are_podmans(seen: Any) -> None:
    assert sets(seen) == {
        "CapInh": 0, "CapPrm": DEFAULT_MASK, "CapEff": DEFAULT_MASK, "CapBnd": DEFAULT_MASK,
        "CapAmb": 0,
    }  # fmt: skip


@pytest.mark.row("CVE-2022-24769", "the inheritable and the ambient set are empty")
@pytest.mark.parametrize(
    ("options", "bounding"),
    [
        (["--cap-add", "NET_RAW"], DEFAULT_MASK | NET_RAW),
        (["--cap-drop", "ALL"], 0),
        (["--cap-drop", "all", "--cap-add", "net_raw"], NET_RAW),
        (["--privileged"], None),
        (["--cap-add", "ALL"], None),
    ],
)
def test_cve_2022_24769_inheritable_set_is_empty(
    box: Box, options: list[str], bounding: int | None
) -> None:
    got = sets(box.run(*options))
    full = (1 << int(box.machine.run(["cat", "/proc/sys/kernel/cap_last_cap"]).stdout) + 1) - 1
    wanted = full if bounding is None else bounding
    assert got == {
        "CapInh": 0, "CapPrm": wanted, "CapEff": wanted, "CapBnd": wanted, "CapAmb": 0,
    }  # fmt: skip


@pytest.mark.row("CVE-2016-8867", "another user than root holds none")
@pytest.mark.parametrize("user", ["1000", "bob", "1000:100"])
def test_cve_2016_8867_other_user_has_no_capabilities(box: Box, user: str) -> None:
    report = box.run("--user", user)
    assert sets(report) == {
        "CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": DEFAULT_MASK, "CapAmb": 0,
    }  # fmt: skip
    assert report["uids"] == [1000] * 3


def test_other_user_holds_what_is_added(box: Box) -> None:
    report = sets(box.run("--user", "1000", "--cap-add", "NET_RAW"))
    assert report == {
        "CapInh": NET_RAW, "CapPrm": NET_RAW, "CapEff": NET_RAW, "CapAmb": NET_RAW,
        "CapBnd": DEFAULT_MASK | NET_RAW,
    }  # fmt: skip


@pytest.mark.row("CVE-2022-2989", "the primary group is a supplementary one too")
def test_cve_2022_2989_primary_group_is_supplementary_too(box: Box) -> None:
    """Else a file that denies its group could be read by leaving the group."""
    assert 100 in box.run("--user", "1000:100")["groups"]
    report = box.run("--user", "1000:100", "--group-add", "300")
    assert {100, 300} <= set(report["groups"])
    assert report["gids"] == [100] * 3


@pytest.fixture(scope="module")
def special(box: Box, alpine: str) -> Box:
    """Return a root with a set-user-ID probe, a set-group-ID one and a file that denies a group."""
    script = (
        "cd /d && mkdir -p special/etc && cp root/probe special/probe && cp root/etc/* special/etc"
        " && cd special && cp probe setuid && chmod 4755 setuid"
        " && cp probe setgid && chown 0:200 setgid && chmod 2755 setgid"
        " && echo secret >denied && chown 0:100 denied && chmod 604 denied"
    )
    argv = ["rp", "run", "--rm", "--network=none", f"--volume={box.directory}:/d", alpine]
    box.machine.run([*argv, "sh", "-c", script])
    return box


ALLOWED = ("--security-opt", "no-new-privileges=false")


@pytest.mark.row("no_new_privs", "is set by default")
def test_no_new_privileges_is_set(seen: Any) -> None:
    assert seen["status"]["NoNewPrivs"] == "1"


@pytest.mark.row("setuid", "gains nothing, unless no-new-privileges=false")
@pytest.mark.parametrize(("options", "effective"), [((), 1000), (ALLOWED, 0)])
def test_setuid_program(special: Box, options: tuple[str, ...], effective: int) -> None:
    report = special.inside("special", "/setuid", "--user", "1000", *options)
    assert report["uids"] == [1000, effective, effective]
    # Without no_new_privs the filter went in by CAP_SYS_ADMIN, and stays.
    assert report["status"]["Seccomp"] == "2"
    assert sets(report)["CapBnd"] == DEFAULT_MASK


@pytest.mark.row(
    "CVE-2022-2989", "what is denied to the group stays denied, by setgid programs too"
)
@pytest.mark.parametrize("program", ["/probe", "/setgid"])
@pytest.mark.parametrize("more", [(), ("--group-add", "300")], ids=str)
def test_cve_2022_2989_file_that_denies_its_group(
    special: Box, program: str, more: tuple[str, ...]
) -> None:
    """The set-group-ID program is the real test: it could leave the primary group behind."""
    options = ("--user", "1000:100", *ALLOWED, *more)
    groups = special.inside("special", program, *options)["gids"]
    assert groups == ([100, 200, 200] if program == "/setgid" else [100] * 3)
    looked = special.inside("special", program, *options, run=["look", "/denied"])
    assert looked["/denied"]["open_errno"] == EACCES
    # Not because nobody can: a stranger to the group may.
    looked = special.inside("special", program, "--user", "1000:5", run=["look", "/denied"])
    assert looked["/denied"]["open_errno"] == 0


def test_unknown_capability_is_refused(box: Box) -> None:
    done = box.machine.run(box.argv("--cap-add", "FLY"), check=False)
    assert done.returncode == 125
    assert "FLY" in done.stderr


def test_user_of_the_machine_is_root_inside_only(seen: Any, box: Box) -> None:
    assert seen["uids"] == seen["gids"] == [0, 0, 0]
    inside, outside, size = seen["uid_map"][0].split()
    assert (inside, outside, size) == ("0", str(box.machine.uid), "1")


# B. Descriptors, working directory, inherited state


@pytest.mark.row("CVE-2024-21626", "the payload has descriptors 0, 1, 2")
@pytest.mark.row("leaked fds", "none but 0, 1, 2")
@pytest.mark.parametrize(
    "redirection",
    [
        pytest.param("</dev/null >{out}/o 2>{out}/e", id="files"),
        pytest.param("</dev/zero 2>&1 | cat", id="pipes"),
        pytest.param("<&- >&- 2>&-", id="closed"),
        pytest.param("5</ 6</etc/passwd 7<>{out}/x 9<&0", id="more of the caller's"),
    ],
)
def test_cve_2024_21626_no_descriptor_but_the_first_three(box: Box, redirection: str) -> None:
    out = f"{box.directory}/out"
    argv = box.argv("--volume", f"{out}:/out", run=["report", "/out/fds.json"])
    # dash knows descriptors of one digit; those above come from Python.
    script = f"{shlex.join(argv)} {redirection.format(out=out)}"
    box.machine.run(["sh", "-c", script])
    report = box.written("fds.json")
    assert set(report["fds"]) <= {"0", "1", "2"}
    assert len(report["fds"]) == 3
    host = [target for target in report["fds"].values() if target.startswith("/etc")]
    assert host == []


@pytest.mark.row("CVE-2024-21626", "a working directory outside is refused")
@pytest.mark.parametrize("directory", ["/proc/self/fd/7", "/proc/self/fd/9", "/proc/1/cwd/../.."])
def test_cve_2024_21626_working_directory_is_inside(box: Box, directory: str) -> None:
    argv = box.argv("--workdir", directory)
    done = box.machine.run(["sh", "-c", f"{shlex.join(argv)} 5</ 7</ 9</home"], check=False)
    if done.returncode == 0:
        assert json.loads(done.stdout)["cwd"].startswith("/")
        assert json.loads(done.stdout)["cwd"] != "(unreachable)"
    else:
        assert done.returncode in {125, 126, 127}
        assert "Traceback" not in done.stderr


@pytest.mark.row("inherited state", "signals, umask and limits are the defaults")
def test_state_of_the_caller_does_not_reach_the_payload(box: Box, seen: Any) -> None:
    """CPython itself ignores SIGPIPE and SIGXFSZ; a shell or a cron job may ignore more."""
    odd = (
        "import os, resource, signal, sys\n"
        "for n in (signal.SIGPIPE, signal.SIGHUP, signal.SIGUSR1, signal.SIGXFSZ):\n"
        "    signal.signal(n, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGTERM})\n"
        "os.umask(0o777)\n"
        "os.execvp(sys.argv[1], sys.argv[1:])\n"
    )
    done = box.machine.run(["python3", "-I", "-c", odd, *box.argv()])
    report = json.loads(done.stdout)
    for field in ("SigIgn", "SigBlk", "SigCgt", "ShdPnd"):
        assert int(report["status"][field], 16) == 0, field
    assert report["umask"] == seen["umask"] == 0o022
    assert report["rlimits"] == seen["rlimits"]
    assert report["oom_score_adj"] == seen["oom_score_adj"]
    assert report["nice"] == 0


def test_payload_is_an_ordinary_process(seen: Any) -> None:
    assert (seen["pid"], seen["ppid"]) == (1, 0)
    assert seen["dumpable"] == 1
    assert seen["keep_capabilities"] == seen["securebits"] == 0
    assert seen["cwd"] == "/"
    assert seen["root"] == "/"
    assert seen["exe"] == "/probe"
    assert seen["status"]["TracerPid"] == "0"


def test_ulimit_is_applied(box: Box) -> None:
    limits = box.run("--ulimit", "nofile=512:1024", "--ulimit", "core=0")["rlimits"]
    assert limits["NOFILE"] == [512, 1024]
    assert limits["CORE"] == [0, 0]


# D. Namespaces, /proc, /sys, cgroup, keys


def test_every_namespace_is_its_own(seen: Any, box: Box) -> None:
    outside = box.outside()["namespaces"]
    shared = {kind for kind, name in seen["namespaces"].items() if name == outside[kind]}
    assert shared == {"time"}, "clocks are the machine's, as with podman"


def test_own_host_name_and_loopback_only(seen: Any, box: Box) -> None:
    assert seen["hostname"] != box.outside()["hostname"]
    devices = {line.split(":")[0].strip() for line in seen["net_dev"][2:]}
    assert devices == {"lo"}


MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
    *("/sys/dev/block", "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/selinux"),
)


@pytest.mark.row("CVE-2018-10892", "files are the null device, directories empty and read-only")
def test_cve_2018_10892_masked_paths_show_nothing(box: Box) -> None:
    looked = box.run(run=["look", *MASKED])
    # A kernel may lack some; what it has must have been covered.
    there = {path: found for path, found in looked.items() if found["errno"] == 0}
    assert {"/proc/keys", "/proc/timer_list", "/sys/firmware"} <= set(there)
    for path, found in there.items():
        if found["type"] == "directory":
            assert found["entries"] == [], path
            assert found["mkdirat_errno"] == EROFS, path
        else:
            assert (found["type"], found["major"], found["minor"]) == ("character", 1, 3), path
            assert found.get("bytes", 0) == 0, path


@pytest.mark.row("CVE-2018-10892", "/proc/sys, bus, fs and irq are read-only")
def test_read_only_paths_of_proc(box: Box, seen: Any) -> None:
    options = options_by_target(seen["mountinfo"])
    for path in ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"):
        assert "ro" in options[path], path
    # The first belong to root outside, the others to the container's own namespaces.
    of_the_machine = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/irq/0/spurious",
    ]
    own = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/core/somaxconn"]
    # With NET_ADMIN only the mount is in the way.
    answers = box.run("--cap-add", "NET_ADMIN", run=["open-write", *of_the_machine, *own])
    assert {answers[path] for path in of_the_machine} <= {EROFS, EACCES, ENOENT}
    assert {answers[path] for path in own} == {EROFS}


@pytest.mark.row("sysfs writes", "no file of /sys opens for writing")
@pytest.mark.parametrize("options", [(), ("--cap-add", "ALL")], ids=["default", "all"])
def test_no_file_of_sys_opens_for_writing(box: Box, options: tuple[str, ...]) -> None:
    assert box.run(*options, run=["writable", "/sys"], timeout=120) == []


@pytest.mark.row("CVE-2023-25809", "read-only; the own cgroup is the root")
def test_cve_2023_25809_cgroup_is_out_of_reach(box: Box) -> None:
    looked = box.run(run=["look", "/sys/fs/cgroup"])["/sys/fs/cgroup"]
    assert looked["mkdirat_errno"] in {EROFS, EACCES}
    files = ["cgroup.procs", "cgroup.subtree_control", "cgroup.freeze", "memory.max", "pids.max"]
    answers = box.run(run=["open-write", *(f"/sys/fs/cgroup/{name}" for name in files)])
    assert set(answers.values()) <= {EROFS, EACCES, ENOENT}


def test_cgroup_of_the_payload_looks_like_the_root(seen: Any) -> None:
    unified = [line for line in seen["cgroup"] if line.startswith("0::")]
    assert unified == ["0::/"]
    assert not any("user.slice" in line for line in seen["mountinfo"])


@pytest.mark.row("keyrings", "an own, empty session keyring; keyctl is refused")
def test_keyrings_of_the_caller_stay_outside(box: Box) -> None:
    """Without the filter, which refuses the calls: the keyring itself must be another."""
    probe = f"{box.directory}/root/probe"
    outside = box.machine.run([probe, "with-key", "rp-secret", probe, "find-key", "rp-secret"])
    if outside.stdout.strip() != "0":
        pytest.skip(f"no key could be made outside: {outside.stdout}{outside.stderr}")
    find = ["find-key", "rp-secret"]
    inside = box.argv("--security-opt", "seccomp=unconfined", run=find)
    done = box.machine.run([probe, "with-key", "rp-secret", *inside])
    assert int(done.stdout) == ENOKEY
    done = box.machine.run([probe, "with-key", "rp-secret", *box.argv(run=find)])
    assert int(done.stdout) == EPERM


@pytest.mark.row("keyrings", "a session that joins has an own one too")
def test_keyrings_stay_outside_of_sessions(box: Box) -> None:
    """The supervisor of a container in the foreground has the caller's keys."""
    probe = f"{box.directory}/root/probe"
    options = ("--security-opt", "seccomp=unconfined", "--name", "keyless")
    argv = [probe, "with-key", "rp-secret", *box.argv(*options, run=["pause"])]
    with box.machine.popen(argv, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        joined = ["rp", "exec", "keyless", "/probe", "find-key", "rp-secret"]
        done = box.machine.run(joined, check=False)
        box.machine.run(["rp", "stop", "keyless"])
        assert running.wait() == 0
    assert int(done.stdout) == ENOKEY, done.stderr


@pytest.mark.row("CVE-2022-0811", "exit 125 unless it belongs to a namespace of the container")
@pytest.mark.parametrize(
    "sysctl",
    [
        *("kernel.core_pattern=|/x", "kernel/shm_rmid_forced=1\nkernel.core_pattern=x"),
        *("net..ipv4=1", "../kernel/core_pattern=x", "vm.swappiness=1", "net.ipv4.x+y=1"),
        # Which the kernel would let its root write.
        "kernel.hostname=x",
    ],
)
def test_cve_2022_0811_sysctl_of_the_machine_is_refused(box: Box, sysctl: str) -> None:
    done = box.machine.run(box.argv("--sysctl", sysctl), check=False)
    assert done.returncode == 125
    assert done.stdout == ""
    # By rp, not by the kernel, which refuses what belongs to root outside.
    refusals = ("does not belong to a namespace", "is malformed", "expected KEY=VALUE")
    assert any(words in done.stderr for words in refusals), done.stderr


def test_devices_of_the_machine_are_absent(box: Box) -> None:
    devices = box.run(run=["look", "/dev"])["/dev"]["entries"]
    assert set(devices) <= {
        *("null", "zero", "full", "random", "urandom", "tty", "pts", "ptmx", "shm", "mqueue"),
        *("fd", "stdin", "stdout", "stderr", "core", "console"),
    }
    null = box.run(run=["look", "/dev/null", "/dev/zero", "/dev/full"])
    assert [(d["major"], d["minor"]) for d in null.values()] == [(1, 3), (1, 5), (1, 7)]


@pytest.mark.row("mknod", "EPERM, with all capabilities too")
@pytest.mark.parametrize("options", [(), ("--cap-add", "ALL"), ("--privileged",)], ids=str)
def test_disk_cannot_be_made(box: Box, options: tuple[str, ...]) -> None:
    """Kata 2020-2023: mknod of the machine's disk.."""
    block = 0o060600
    path = "/dev/shm/disk"
    made = box.run(*options, run=["make-node", path, str(block), "8", "0"])
    assert made == {path: EPERM}


# E. Kernel surface


def test_filter_is_on(seen: Any) -> None:
    assert seen["status"]["Seccomp"] == "2"


@pytest.mark.parametrize("options", [("--security-opt", "seccomp=unconfined"), ("--privileged",)])
def test_filter_is_off_when_told(box: Box, options: tuple[str, ...]) -> None:
    assert box.run(*options)["status"]["Seccomp"] == "0"


REFUSED = {
    "41,38,5": EPERM,  # CVE-2026-31431 AF_ALG
    "41,40,1": EPERM,  # AF_VSOCK
    "41,33,2": EPERM,  # CVE-2026-43500 AF_RXRPC
    f"41,{38 + HIGH},5": EAFNOSUPPORT,
    "41,16,3,6": EPROTONOSUPPORT,  # CVE-2026-43284 NETLINK_XFRM
    "41,16,3,12": EPROTONOSUPPORT,  # NETLINK_NETFILTER
    "272,0x10000000": EPERM,  # unshare NEWUSER
    "272,0x20000": EPERM,  # unshare NEWNS
    "56,0x10000011": EPERM,  # clone NEWUSER
    "435,0,0": ENOSYS,  # clone3
    "308,0,0": EPERM,  # setns
    "165,0,0,0,0": EPERM,  # mount, CVE-2021-3493 and all of overlayfs
    "155,0,0": EPERM,  # pivot_root
    "425,1,0": EPERM,  # io_uring_setup
    "248,0,0,0,0,0": EPERM,  # add_key
    "249,0,0,0,0": EPERM,  # request_key
    "250,0,0,0,0": EPERM,  # keyctl
    "16,0,0x5412,0": EPERM,  # TIOCSTI
    f"16,0,{0x5412 + HIGH},0": EPERM,  # CVE-2019-10063
    "16,0,0x541c,0": EPERM,  # TIOCLINUX
    f"16,0,{0x541C + HIGH},0": EPERM,
    "304,0,0,0": EPERM,  # open_by_handle_at, "shocker"
    "321,0,0,0": EPERM,  # bpf
    "298,0,0,0,0,0": EPERM,  # perf_event_open
    "i386:359,38,5,0": EPERM,
    "i386:359,40,1,0": EPERM,
    "i386:54,0,0x5412,0": EPERM,
    "i386:310,0x10000000": EPERM,
    "i386:21,0,0,0,0,0": EPERM,
    "i386:425,1,0": EPERM,
    "i386:288,0,0,0,0,0": EPERM,
    **{f"{n},0,0,0,0,0": EPERM for n in (428, 429, 430, 431, 432, 433, 442)},  # new mount API
}


@pytest.mark.row("CVE-2026-31431", "AF_ALG and AF_VSOCK: EPERM")
@pytest.mark.row("CVE-2026-43284", "XFRM netlink, AF_RXRPC, add_key, unshare: refused")
@pytest.mark.row("nf_tables", "the netlink protocol is refused")
@pytest.mark.row("CVE-2021-3493", "unshare and mount: EPERM")
@pytest.mark.row("io_uring", "EPERM")
@pytest.mark.row("CVE-2021-41133", "the new mount calls: EPERM; clone3: ENOSYS")
@pytest.mark.row("CVE-2019-10063", "TIOCSTI and TIOCLINUX are compared by 32 bits: EPERM")
@pytest.mark.row("i386", "the same calls are refused by int 0x80")
@pytest.mark.parametrize("options", [(), ("--user", "1000"), ("--read-only",)], ids=str)
def test_default_filter_refuses(box: Box, options: tuple[str, ...]) -> None:
    assert box.run(*options, run=["calls", *REFUSED]) == REFUSED


@pytest.mark.row("x32", "refused")
def test_x32_is_no_way_round(box: Box) -> None:
    answer = box.run(run=["calls", f"{0x40000000 + 41},38,5,0"])
    assert set(answer.values()) <= {EPERM, ENOSYS}


def test_sockets_of_32_bit_programs_work(box: Box) -> None:
    """moby issue 52506.  AF_ALG goes through here too: only a security module could tell."""
    answers = box.run(run=["calls", "socketcall:1,1,0", "socketcall:2,1,0", "i386:359,1,1,0"])
    if answers["i386:359,1,1,0"] == -11:
        pytest.skip("this kernel has no 32-bit calls")
    assert set(answers.values()) == {0}


@pytest.mark.row("new syscalls", "ENOSYS")
def test_sweep_of_all_numbers(box: Box) -> None:
    """Nothing is killed, and what nobody has looked at is ENOSYS rather than EPERM."""
    answers = {int(k): v for k, v in box.run(run=["sweep", "0", "1023"], timeout=120).items()}
    deadly = {number: -answer for number, answer in answers.items() if answer < 0}
    # The kernel's own SIGILL: uretprobe and uprobe are for its trampolines only.
    deadly = {n: signal for n, signal in deadly.items() if (n, signal) not in {(335, 4), (336, 4)}}
    # SIGALRM: select, poll and their like wait for ever with such arguments.
    assert set(deadly.values()) <= {14}, deadly
    assert {answer for number, answer in answers.items() if number > 480} == {ENOSYS}


def test_profile_of_the_users_own(box: Box) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["getpgrp"], "action": "SCMP_ACT_ERRNO", "errno": "EPROTO"}],
    }
    path = f"{box.directory}/profile.json"
    box.machine.run(["sh", "-c", 'cat >"$0"', path], input=json.dumps(profile))
    option = ("--security-opt", f"seccomp={path}")
    assert box.run(*option, run=["calls", "111", "39"]) == {"111": errno.EPROTO, "39": 0}
    assert box.run(*option)["status"]["Seccomp"] == "2"


@pytest.mark.row("GHSA-7236", "a profile with an unknown word is refused")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("{", "not JSON"),
        ("{}", "defaultAction"),
        ('{"defaultAction": "SCMP_ACT_ALLOWED"}', "defaultAction"),
        ('{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"]}]}', "action"),
    ],
)
def test_broken_profile_is_refused(box: Box, content: str | None, message: str) -> None:
    """buildkit GHSA-7236: what is not understood never means "no filter"."""
    path = f"{box.directory}/broken.json"
    box.machine.run(["rm", "-f", path])
    if content is not None:
        box.machine.run(["sh", "-c", 'cat >"$0"', path], input=content)
    done = box.machine.run(box.argv("--security-opt", f"seccomp={path}"), check=False)
    assert done.returncode == 125
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_damaged_filter_in_the_cache_is_compiled_again(box: Box) -> None:
    """SECURITY.md D1: truncated, overwritten or replaced, the filter is whole or made anew."""
    cache = '"${XDG_DATA_HOME:-$HOME/.local/share}/rootlesspy/cache"'
    spoil = f"cd {cache} && for f in seccomp-*; do %s; done"
    box.run()
    for damage in ('truncate -s -8 "$f"', ': >"$f"', 'head -c 4096 /dev/urandom >"$f"'):
        box.machine.run(["sh", "-c", spoil % damage])
        report = box.run(run=["calls", "41,38,5", "39"])
        assert report == {"41,38,5": EPERM, "39": 0}, damage


# F. Terminal and environment


def test_environment_is_clean(box: Box) -> None:
    told = {
        "HOSTSECRET": "token-4711",
        "SSH_AUTH_SOCK": "/tmp/agent",
        "NOTIFY_SOCKET": "/run/n",
        "LISTEN_FDS": "1",
        "LISTEN_PID": "1",
        "INVOCATION_ID": "x",
        "JOURNAL_STREAM": "1:2",
        "CREDENTIALS_DIRECTORY": "/run/c",
        "MEMORY_PRESSURE_WATCH": "/x",
        "LD_BIND_NOW": "1",
        "PYTHONUTF8": "1",
        "LC_ALL": "C",
        "PATH": "/usr/bin:/bin:/canary",
    }
    env = [f"{name}={value}" for name, value in told.items()]
    argv = ["env", *env, *box.argv("--env", "GIVEN=1", "--env", "HOSTSECRET2=x")]
    report = json.loads(box.machine.run(argv).stdout)
    names = {entry.partition("=")[0] for entry in report["env"]}
    assert names <= {"PATH", "HOME", "HOSTNAME", "TERM", "container", "GIVEN", "HOSTSECRET2"}
    assert {"PATH", "GIVEN"} <= names
    assert "canary" not in json.dumps(report["env"])


def test_cve_2020_14370_no_other_process_is_visible(box: Box) -> None:
    done = box.machine.run(["env", "HOSTSECRET=token-4711", *box.argv(run=["environ"])])
    assert set(json.loads(done.stdout)) == {"1"}
    assert "token-4711" not in done.stdout
    assert "XDG_RUNTIME_DIR" not in done.stdout


def test_cve_2017_5226_terminal_of_the_caller_is_not_controlling(box: Box) -> None:
    """stdin is the caller's terminal, but the payload has a session of its own."""
    out = f"{box.directory}/out"
    argv = box.argv("--interactive", "--volume", f"{out}:/out", run=["report", "/out/tty.json"])
    with box.machine.pty(argv) as terminal:
        assert terminal.wait() == 0
    report = box.written("tty.json")["tty"]
    assert report["0"] == 1
    assert report["session_leader"] == 1
    assert report["controlling"] == 0


def test_terminal_of_the_container_is_its_own(box: Box) -> None:
    out = f"{box.directory}/out"
    argv = box.argv("--tty", "--volume", f"{out}:/out", run=["report", "/out/tty.json"])
    with box.machine.pty(argv) as terminal:
        assert terminal.wait() == 0
    report = box.written("tty.json")
    assert report["tty"] == {
        "0": 1, "1": 1, "2": 1, "rows": 24, "columns": 80, "controlling": 1, "console": 1,
        "session_leader": 1,
    }  # fmt: skip
    # of the container's devpts, or /dev/console that is bound over it
    assert set(report["fds"].values()) <= {"/dev/pts/0", "/dev/console"}


# L, M. What of the machine must not be reachable


@pytest.mark.row("user bus", "neither it nor the runtime directory is in the container")
def test_user_manager_and_bus_are_out_of_reach(box: Box, seen: Any) -> None:
    uid = box.machine.uid
    paths = [f"/run/user/{uid}", f"/run/user/{uid}/bus", "/run/dbus/system_bus_socket", "/home"]
    assert {found["errno"] for found in box.run(run=["look", *paths]).values()} == {ENOENT}
    assert not any("@" in line for line in seen["net_unix"] or ())


@pytest.mark.row("user bus", "a volume that holds its socket, or the manager's, is told")
def test_user_bus_in_a_volume_is_told(box: Box) -> None:
    runtime = f"/run/user/{box.machine.uid}"
    link = f"{box.directory}/link"
    box.machine.run(["ln", "-sfn", f"{runtime}/bus", link])
    for source in (runtime, f"{runtime}/bus", link, f"{runtime}/systemd", "/run", "/run/user"):
        target = "/file" if "bus" in source or source == link else "/directory"
        done = box.machine.run(box.argv("-v", f"{source}:{target}:ro", run=["look", target]))
        told = f"rp: volume {source} holds the socket of your user manager: the container can"
        assert done.stderr.startswith(told), source
        assert len(done.stderr.splitlines()) == 1
        assert json.loads(done.stdout)[target]["errno"] == 0
    for source in (box.directory, "/usr", "/run/user/../../tmp"):
        assert box.machine.run(box.argv("-v", f"{source}:/directory", run=["look"])).stderr == ""


def test_no_mount_of_the_machine_but_what_was_asked_for(seen: Any, box: Box) -> None:
    """A mount shows its origin in mountinfo: the root, /dev nodes and our own files in /etc."""
    for line in seen["mountinfo"]:
        words = line.split()
        origin, target = words[3], words[4]
        allowed = origin == "/" or target == "/" or target.startswith(("/dev/", "/proc/", "/etc/"))
        assert allowed, line


@pytest.mark.row("CVE-2021-33910", "the mount table outside stays as it was")
def test_cve_2021_33910_no_mount_shows_outside(box: Box) -> None:
    before = box.machine.run(["cat", "/proc/self/mountinfo"]).stdout
    with box.machine.popen(box.argv(run=["pause"]), stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        during = box.machine.run(["cat", "/proc/self/mountinfo"]).stdout
        running.terminate()
        assert running.wait(60) == 0
    assert during == before


def test_signal_that_the_payload_waits_for_is_delivered(box: Box) -> None:
    """init programs and systemd block their signals and read them: they have no handlers.

    It comes the moment that the payload runs, when rp itself may not be ready yet.
    """
    for _ in range(5):
        argv = box.argv(run=["pause"])
        with box.machine.popen(argv, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            running.terminate()
            assert running.wait(60) == 0


def test_errno_names_are_the_kernels() -> None:
    """The numbers above are written out, as this file is read beside a C program."""
    assert (errno.EROFS, errno.ENOSYS, errno.ENOKEY) == (EROFS, ENOSYS, ENOKEY)
