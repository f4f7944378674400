"""What a payload can see and do, told by a static probe that rp runs: SECURITY.md B to F, L, M.

Each test starts containers from the front door as the unprivileged user.  The payload is
tests/data/probe/probe.c in a root file system of its own, so that nothing of an image hides or
adds anything.
"""

from __future__ import annotations

import errno
import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rig.machine import Machine

SOURCE = Path(__file__).parents[1] / "data/probe/probe.c"
EPERM, ENOENT, EROFS, EACCES, ENOSYS = 1, 2, 30, 13, 38
ENOKEY, EAFNOSUPPORT, EPROTONOSUPPORT = 126, 97, 93
HIGH = 1 << 32

# CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP
DEFAULT_MASK = 0x800405FB
NET_RAW = 1 << 13


class Box(NamedTuple):
    """A root file system with the probe in it, on the machine."""

    machine: Machine
    directory: str

    def argv(self, *options: str, run: Sequence[str] = ()) -> list[str]:
        """Return the command line of one container."""
        return self.command("root", "/probe", options, run)

    def command(
        self, root: str, program: str, options: Sequence[str], run: Sequence[str]
    ) -> list[str]:
        payload = ["--rootfs", f"{self.directory}/{root}", program, *run]
        return ["rp", "run", "--rm", "--network", "none", *options, *payload]

    def inside(self, root: str, program: str, *options: str, run: Sequence[str] = ()) -> Any:
        """Run a copy of the probe in another root and return the JSON that it printed."""
        return json.loads(self.machine.run(self.command(root, program, options, run)).stdout)

    def run(self, *options: str, run: Sequence[str] = (), **more: Any) -> Any:
        """Run one container and return the JSON that it printed."""
        return json.loads(self.machine.run(self.argv(*options, run=run), **more).stdout)

    def outside(self, *run: str, **more: Any) -> Any:
        """Run the probe on the machine itself, as the user."""
        return json.loads(self.machine.run([f"{self.directory}/root/probe", *run], **more).stdout)

    def written(self, name: str) -> Any:
        """Return the JSON that a payload wrote to /out."""
        return json.loads(self.machine.run(["cat", f"{self.directory}/out/{name}"]).stdout)


@pytest.fixture(scope="module")
def box(rig: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Return the probe's root file system; skip where it cannot be built."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the probe: apt install gcc libc6-dev")
    binary = tmp_path_factory.mktemp("probe") / "probe"
    subprocess.run([compiler, "-static", "-O2", "-o", binary, SOURCE], check=True)
    # Not in /tmp: it may be nosuid, which would hide what set-user-ID programs can do.
    made = rig.run(["sh", "-c", 'umask 022; mktemp -d "$HOME/isolation.XXXXXX"'])
    directory = made.stdout.strip()
    script = 'cd "$0" && mkdir -p root/etc out && cat >root/probe && chmod 755 root/probe && cat'
    rig.run(["sh", "-c", script, directory], input=binary.read_bytes())
    passwd = "root:x:0:0::/:/probe\nbob:x:1000:100::/home/bob:/probe\n"
    rig.run(["sh", "-c", 'cat >"$0"/root/etc/passwd', directory], input=passwd)
    group = "root:x:0:\nusers:x:100:\nextra:x:300:bob\n"
    rig.run(["sh", "-c", 'cat >"$0"/root/etc/group', directory], input=group)
    yield Box(rig, directory)
    rig.run(["rm", "-rf", directory])


@pytest.fixture(scope="module")
def seen(box: Box) -> Any:
    """Return what a payload sees in a container with no options."""
    return box.run()


def sets(report: Any) -> dict[str, int]:
    return {k: int(v, 16) for k, v in report["status"].items() if k.startswith("Cap")}


def options_by_target(mountinfo: list[str]) -> dict[str, set[str]]:
    return {line.split()[4]: set(line.split()[5].split(",")) for line in mountinfo}


# C. Capabilities, users, groups


def test_default_capabilities_are_podmans(seen: Any) -> None:
    assert sets(seen) == {
        "CapInh": 0, "CapPrm": DEFAULT_MASK, "CapEff": DEFAULT_MASK, "CapBnd": DEFAULT_MASK,
        "CapAmb": 0,
    }  # fmt: skip


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


def test_no_new_privileges_is_set(seen: Any) -> None:
    assert seen["status"]["NoNewPrivs"] == "1"


@pytest.mark.parametrize(("options", "effective"), [((), 1000), (ALLOWED, 0)])
def test_setuid_program(special: Box, options: tuple[str, ...], effective: int) -> None:
    report = special.inside("special", "/setuid", "--user", "1000", *options)
    assert report["uids"] == [1000, effective, effective]
    # Without no_new_privs the filter went in by CAP_SYS_ADMIN, and stays.
    assert report["status"]["Seccomp"] == "2"
    assert sets(report)["CapBnd"] == DEFAULT_MASK


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


@pytest.mark.parametrize("options", [(), ("--cap-add", "ALL")], ids=["default", "all"])
def test_no_file_of_sys_opens_for_writing(box: Box, options: tuple[str, ...]) -> None:
    assert box.run(*options, run=["writable", "/sys"], timeout=120) == []


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


@pytest.mark.parametrize(
    "sysctl",
    [
        *("kernel.core_pattern=|/x", "kernel/shm_rmid_forced=1\nkernel.core_pattern=x"),
        *("net..ipv4=1", "../kernel/core_pattern=x", "vm.swappiness=1", "net.ipv4.x+y=1"),
    ],
)
def test_cve_2022_0811_sysctl_of_the_machine_is_refused(box: Box, sysctl: str) -> None:
    done = box.machine.run(box.argv("--sysctl", sysctl), check=False)
    assert done.returncode == 125
    assert done.stdout == ""


def test_devices_of_the_machine_are_absent(box: Box) -> None:
    devices = box.run(run=["look", "/dev"])["/dev"]["entries"]
    assert set(devices) <= {
        *("null", "zero", "full", "random", "urandom", "tty", "pts", "ptmx", "shm", "mqueue"),
        *("fd", "stdin", "stdout", "stderr", "core", "console"),
    }
    null = box.run(run=["look", "/dev/null", "/dev/zero", "/dev/full"])
    assert [(d["major"], d["minor"]) for d in null.values()] == [(1, 3), (1, 5), (1, 7)]


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


@pytest.mark.parametrize("options", [(), ("--user", "1000"), ("--read-only",)], ids=str)
def test_default_filter_refuses(box: Box, options: tuple[str, ...]) -> None:
    assert box.run(*options, run=["calls", *REFUSED]) == REFUSED


def test_x32_is_no_way_round(box: Box) -> None:
    answer = box.run(run=["calls", f"{0x40000000 + 41},38,5,0"])
    assert set(answer.values()) <= {EPERM, ENOSYS}


def test_sockets_of_32_bit_programs_work(box: Box) -> None:
    """moby issue 52506.  AF_ALG goes through here too: only a security module could tell."""
    answers = box.run(run=["calls", "socketcall:1,1,0", "socketcall:2,1,0", "i386:359,1,1,0"])
    if answers["i386:359,1,1,0"] == -11:
        pytest.skip("this kernel has no 32-bit calls")
    assert set(answers.values()) == {0}


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


def test_user_manager_and_bus_are_out_of_reach(box: Box, seen: Any) -> None:
    uid = box.machine.uid
    paths = [f"/run/user/{uid}", f"/run/user/{uid}/bus", "/run/dbus/system_bus_socket", "/home"]
    assert {found["errno"] for found in box.run(run=["look", *paths]).values()} == {ENOENT}
    assert not any("@" in line for line in seen["net_unix"] or ())


def test_no_mount_of_the_machine_but_what_was_asked_for(seen: Any, box: Box) -> None:
    """A mount shows its origin in mountinfo: the root, /dev nodes and our own files in /etc."""
    for line in seen["mountinfo"]:
        words = line.split()
        origin, target = words[3], words[4]
        allowed = origin == "/" or target == "/" or target.startswith(("/dev/", "/proc/", "/etc/"))
        assert allowed, line


def test_cve_2021_33910_no_mount_shows_outside(box: Box) -> None:
    before = box.machine.run(["cat", "/proc/self/mountinfo"]).stdout
    with box.machine.popen(box.argv(run=["pause"]), stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        during = box.machine.run(["cat", "/proc/self/mountinfo"]).stdout
        running.terminate()
        assert running.wait(20) == 0
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
            assert running.wait(20) == 0


# Beside podman


def test_nothing_is_weaker_than_podmans(box: Box, seen: Any) -> None:
    """The same probe under podman on the same machine: every difference is in rp's favour."""
    if box.machine.run(["sh", "-c", "command -v podman"], check=False).returncode:
        pytest.skip("podman is not installed on the machine")
    root = f"{box.directory}/root"
    argv = ["podman", "run", "--rm", "--pids-limit=0", "--network=none", "--rootfs", root, "/probe"]
    theirs = json.loads(box.machine.run(argv).stdout)
    assert sets(seen) == sets(theirs)
    assert seen["status"]["Seccomp"] == theirs["status"]["Seccomp"]
    assert seen["status"]["NoNewPrivs"] >= theirs["status"]["NoNewPrivs"]
    assert seen["securebits"] == theirs["securebits"]
    assert seen["uid_map"] == theirs["uid_map"]
    covered = ("/proc/", "/sys/")
    ours = options_by_target(seen["mountinfo"])
    for target, options in options_by_target(theirs["mountinfo"]).items():
        if target.startswith(covered):
            assert target in ours
        if target in ours:
            lost = options & {"ro", "nosuid", "nodev"} - ours[target]
            # A masked file is the null device: read-only or not makes no difference.
            assert lost <= {"ro"} if target.startswith("/proc/") else lost == set(), target
    assert set(seen["rlimits"]) == set(theirs["rlimits"])


def test_errno_names_are_the_kernels() -> None:
    """The numbers above are written out, as this file is read beside a C program."""
    assert (errno.EROFS, errno.ENOSYS, errno.ENOKEY) == (EROFS, ENOSYS, ENOKEY)
