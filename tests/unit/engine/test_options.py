"""From the options of `rp run` to the RunRequest."""

from __future__ import annotations

import shlex
import signal
from typing import TYPE_CHECKING

import pytest

from rootlesspy.cli import argv, hot
from rootlesspy.cli.session import Session
from rootlesspy.engine.inputs import more_options, options
from rootlesspy.engine.inputs.constants import DEFAULT_DETACH_KEYS
from rootlesspy.engine.inputs.options import run_request
from rootlesspy.engine.inputs.request import Device, RunRequest, TmpfsMount, Ulimit, VolumeMount
from rootlesspy.errors import UsageError
from rootlesspy.network.driver import NetworkRequest
from rootlesspy.network.ports import PortMapping
from rootlesspy.report import Reporter

if TYPE_CHECKING:
    from pathlib import Path

CALLER = {"HOME": "/h", "LANG": "C"}


def request(line: str, directory: str = "/here") -> RunRequest:
    invocation = argv.parse(["run", *shlex.split(line)])
    assert invocation is not None, line
    return run_request(
        invocation.values, caller_environment=CALLER, directory=directory, debug=False
    )


def test_a_bare_run_has_only_defaults() -> None:
    assert request("alpine") == RunRequest(image="alpine")


@pytest.mark.parametrize(
    ("line", "field", "expected"),
    [
        ("alpine ls -l --rm", "command", ("ls", "-l", "--rm")),
        ("--name web_1 alpine", "name", "web_1"),
        ("--name '' alpine", "name", None),
        ("--rm alpine", "remove", True),
        ("-i alpine", "interactive", True),
        ("-t alpine", "tty", True),
        ("alpine", "detach_keys", DEFAULT_DETACH_KEYS),
        ("--detach-keys '' alpine", "detach_keys", b""),
        ("-e A=B -e LANG -e NONE alpine", "env", ("A=B", "LANG=C")),
        ("-v ./a:/b:ro -v data:/c alpine", "volumes",
         (VolumeMount("/here/a", "/b", "bind", ("ro",)), VolumeMount("data", "/c", "volume"))),
        ("-v /a:/b --mount type=bind,source=c,target=/d alpine", "volumes",
         (VolumeMount("/a", "/b"), VolumeMount("/here/c", "/d"))),
        ("--tmpfs /t --mount type=tmpfs,target=/u alpine", "tmpfs",
         (TmpfsMount("/t"), TmpfsMount("/u"))),
        ("-w /srv alpine", "workdir", "/srv"),
        ("-w '' alpine", "workdir", None),
        ("-u 1000:1000 alpine", "user", "1000:1000"),
        ("-u '' alpine", "user", None),
        ("--entrypoint sh alpine", "entrypoint", ("sh",)),
        ("--entrypoint '' alpine", "entrypoint", ("",)),
        ("-h box alpine", "hostname", "box"),
        ("-l a=b -l a=c -l d alpine", "labels", (("a", "c"), ("d", ""))),
        ("--read-only alpine", "read_only", True),
        ("--pull never alpine", "pull", "never"),
        ("--network host alpine", "network", NetworkRequest("host", (), True)),
        ("-p 8080:80 -p 8080:80 alpine", "publish", (PortMapping("", 8080, 80, "tcp"),)),
        ("-m 1g alpine", "memory_bytes", 1 << 30),
        ("-m 0 alpine", "memory_bytes", None),
        ("-m 1g --memory-swap 2g alpine", "memory_swap_bytes", 2 << 30),
        ("-m 1g --memory-swap -1 alpine", "memory_swap_bytes", -1),
        ("--memory-reservation 1m alpine", "memory_reservation_bytes", 1 << 20),
        ("--cpus 0.5 alpine", "cpu_quota_us", 500_000),
        ("--cpus 0 alpine", "cpu_quota_us", None),
        ("-c 512 alpine", "cpu_shares", 512),
        ("-c 0 alpine", "cpu_shares", None),
        ("--cpuset-cpus 0-1 alpine", "cpuset_cpus", "0-1"),
        ("--pids-limit -1 alpine", "pids_limit", -1),
        ("--pids-limit 0 alpine", "pids_limit", 0),
        ("--property A=1 --property B= alpine", "properties", ("A=1", "B=")),
        ("--stop-signal INT alpine", "stop_signal", 2),
        ("--stop-timeout 0 alpine", "stop_timeout_s", 0),
        ("--init alpine", "init", True),
        ("--privileged alpine", "privileged", True),
        ("--cap-add net_admin,kill --cap-add ALL alpine", "cap_add",
         ("CAP_NET_ADMIN", "CAP_KILL", "ALL")),
        ("--cap-drop ALL alpine", "cap_drop", ("ALL",)),
        ("--security-opt seccomp=unconfined alpine", "security_opts", ("seccomp=unconfined",)),
        ("--userns keep-id alpine", "userns", "keep-id"),
        ("--add-host a:1.1.1.1 --add-host 'b;c:::1' alpine", "add_hosts",
         (("a", "1.1.1.1"), ("b", "::1"), ("c", "::1"))),
        ("--dns 1.1.1.1,8.8.8.8 alpine", "dns", ("1.1.1.1", "8.8.8.8")),
        ("--dns none alpine", "dns", ("none",)),
        ("--dns-search . alpine", "dns_search", (".",)),
        ("--dns-option ndots:2 alpine", "dns_options", ("ndots:2",)),
        ("--ulimit nofile=1:2 alpine", "ulimits", (Ulimit("nofile", 1, 2),)),
        ("--shm-size 1m alpine", "shm_size_bytes", 1 << 20),
        ("--device /dev/fuse alpine", "devices", (Device("/dev/fuse", "/dev/fuse", "rwm"),)),
        ("--sysctl net.x=1 alpine", "sysctls", (("net.x", "1"),)),
        ("--platform linux/arm64 alpine", "platform", "linux/arm64"),
        ("-q alpine", "quiet", True),
        ("--cidfile /f alpine", "cidfile", "/f"),
        ("--ignore-missing-limits alpine", "ignore_missing_limits", True),
        ("--cgroups disabled alpine", "cgroups", "disabled"),
        ("--group-add audio,100 alpine", "group_add", ("audio", "100")),
        ("--umask 0027 alpine", "umask", 0o027),
        ("--rootfs ./root sh", "rootfs", "/here/root"),
        ("--rootfs ./root sh", "image", ""),
        ("--rootfs --entrypoint sh ./root -c true", "command", ("-c", "true")),
    ],
)  # fmt: skip
def test_each_option_reaches_its_field(line: str, field: str, expected: object) -> None:
    assert getattr(request(line), field) == expected
    others = {name for name in RunRequest._fields if name != field}
    bare = RunRequest(image="alpine")
    changed = {name for name in others if getattr(request(line), name) != getattr(bare, name)}
    # What belongs together: swap needs memory, a root directory is instead of an image.
    assert changed <= {"memory_bytes", "volumes", "image", "rootfs", "command", "entrypoint"}


@pytest.mark.parametrize(
    "line",
    ["''", "--name ../x alpine", "--name -x alpine", "--name 'a\n' alpine", "-e =x alpine",
     "-m '' alpine", "-m 1_0 alpine", "-m 9x alpine", "--memory-swap 1g alpine",
     "-m 2g --memory-swap 1g alpine", "-m 1g --memory-reservation 2g alpine", "--cpus '' alpine",
     "--cpus 1.2.3 alpine", "-c 1 alpine", "-c x alpine", "--cpuset-cpus '' alpine",
     "--pids-limit '' alpine", "--pids-limit x alpine", "--property A alpine",
     "--stop-signal SIGNO alpine", "--stop-timeout -1 alpine", "--stop-timeout 1.5 alpine",
     "--cap-add bogus alpine", "--cap-drop '' alpine", "--security-opt x alpine",
     "--userns automatic alpine", "--add-host x alpine", "--dns none,1.1.1.1 alpine",
     "--dns-option 'a b' alpine", "--ulimit x=1 alpine", "--shm-size 1z alpine",
     "--device fuse alpine", "--sysctl x alpine", "--platform x alpine", "--cgroups split alpine",
     "--pull sometimes alpine", "--network web:bogus alpine",
     "--network none --network host alpine",
     "-p 0:80 alpine", "-p 80:1 -p 80:2 alpine", "-v /a:/b -v /c:/b alpine", "-w srv alpine",
     "-v /a:/b --tmpfs /b alpine", "--mount type=x alpine", "--label '' alpine",
     "--group-add '' alpine", "--umask 9 alpine", "-h -x alpine", "--detach-keys ctrl alpine",
     "--env-file /nonexistent alpine", "--label-file /nonexistent alpine", "-u a:b:c alpine",
     "--rootfs /root --rm true", "--entrypoint '[1]' alpine"],
)  # fmt: skip
def test_malformed_values_are_usage_errors(line: str) -> None:
    with pytest.raises(UsageError) as raised:
        request(line)
    assert raised.value.exit_code == 125
    assert raised.value.message


def test_label_files_come_before_labels(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("a=file\nb=file\n")
    found = request(f"--label a=option --label-file {tmp_path}/labels alpine")
    assert found.labels == (("a", "option"), ("b", "file"))


def test_run_hands_the_request_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    from rootlesspy.engine import run

    seen = []

    def record(request: RunRequest, *_: object) -> int:
        seen.append(request)
        return 7

    monkeypatch.setattr(run, "run", record)
    session = Session(Reporter(debug=True), {"HOME": "/h"})
    invocation = argv.parse(["--debug", "run", "-e", "HOME", "alpine", "ls"])
    assert invocation is not None
    held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        assert hot.execute(invocation, session) == 7
    finally:
        # It blocks signals for the rest of its process, which is that of all tests here.
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
    assert seen == [RunRequest(image="alpine", command=("ls",), env=("HOME=/h",), debug=True)]


class Recorder:
    """Was given nothing, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def flag(self, dest: str) -> bool:
        self.asked.add(dest)
        return False

    def value(self, dest: str) -> str | None:
        self.asked.add(dest)
        return None

    def values(self, dest: str) -> tuple[str, ...]:
        self.asked.add(dest)
        return ()


def test_what_more_options_parse_is_what_they_are_imported_for() -> None:
    recorder = Recorder()
    request = RunRequest(image="alpine")
    assert more_options.add(request, recorder) == request
    assert recorder.asked == {*options.MORE_FLAGS, *options.MORE_TEXTS, *options.MORE_LISTS}
    kinds = {option.dest: option.kind for option in argv.RUN.options}
    for kind, names in (
        (argv.FLAG, options.MORE_FLAGS),
        (argv.VALUE, options.MORE_TEXTS),
        (argv.LIST, options.MORE_LISTS),
    ):
        assert {kinds[name] for name in names} == {kind}
