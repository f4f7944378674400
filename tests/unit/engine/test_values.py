"""Strict parsers: what is taken, what is refused, and that nothing but UsageError comes out."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootlesspy.engine.inputs import environment, isolation_values, mount_values, values
from rootlesspy.engine.inputs.request import Device, TmpfsMount, Ulimit, VolumeMount
from rootlesspy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# What Python's int() takes and no option does (SECURITY.md, area I).
ODD_NUMBERS = ["1_0", " 1", "1 ", "+1", "１", "١", "²", "0x10", "1e3", "", "-", "--1", "1.", "nan"]

SIMPLE: list[tuple[Callable[[str, str], Any], str, Any]] = [
    (values.parse_size, "0", 0),
    (values.parse_size, "512", 512),
    (values.parse_size, "1b", 1),
    (values.parse_size, "1k", 1024),
    (values.parse_size, "64M", 64 << 20),
    (values.parse_size, "64mb", 64 << 20),
    (values.parse_size, "64MiB", 64 << 20),
    (values.parse_size, "1.5g", 3 << 29),
    (values.parse_size, "2t", 2 << 40),
    (values.parse_size_or_unlimited, "-1", -1),
    (values.parse_size_or_unlimited, "1m", 1 << 20),
    (values.parse_cpus, "0", 0),
    (values.parse_cpus, "1", 1_000_000),
    (values.parse_cpus, "0.5", 500_000),
    (values.parse_cpus, "1.25", 1_250_000),
    (values.parse_cpus, "0.0100009", 10_000),
    (values.parse_cpuset, "0", "0"),
    (values.parse_cpuset, "0-3,5", "0-3,5"),
    (values.parse_pids_limit, "-1", -1),
    (values.parse_pids_limit, "64", 64),
    (values.parse_signal, "9", 9),
    (values.parse_signal, "TERM", 15),
    (values.parse_signal, "SIGTERM", 15),
    (values.parse_signal, "sigusr1", 10),
    (values.parse_signal, "SIGRTMIN", 34),
    (values.parse_signal, "SIGRTMIN+3", 37),
    (values.parse_signal, "RTMAX-1", 63),
    (values.parse_add_hosts, "db:10.0.0.1", (("db", "10.0.0.1"),)),
    (values.parse_add_hosts, "a;b:::1", (("a", "::1"), ("b", "::1"))),
    (values.parse_add_hosts, "v6:[fe80::1]", (("v6", "fe80::1"),)),
    (values.parse_add_hosts, "h:host-gateway", (("h", "host-gateway"),)),
    (values.parse_dns, "none", "none"),
    (values.parse_dns, "2001:DB8::1", "2001:db8::1"),
    (values.parse_dns_search, ".", "."),
    (values.parse_dns_search, "example.org.", "example.org"),
    (values.parse_label, "a=b=c", ("a", "b=c")),
    (values.parse_label, "a", ("a", "")),
    (values.parse_user, "root", "root"),
    (values.parse_user, "1000:100", "1000:100"),
    (values.parse_entrypoint, "sh", ("sh",)),
    (values.parse_entrypoint, "", ("",)),
    (values.parse_entrypoint, '["sh", "-c"]', ("sh", "-c")),
    (values.parse_entrypoint, "[]", ("",)),
    (values.parse_entrypoint, "[odd", ("[odd",)),
    (values.parse_property, "MemoryHigh=1G", "MemoryHigh=1G"),
    (values.parse_property, "Environment=", "Environment="),
    (values.parse_platform, "linux/arm64/v8", "linux/arm64/v8"),
    (values.parse_umask, "0022", 0o022),
    (values.parse_umask, "77", 0o077),
    (values.parse_detach_keys, "ctrl-p,ctrl-q", b"\x10\x11"),
    (values.parse_detach_keys, "ctrl-@,ctrl-],a", b"\x00\x1da"),
    (values.parse_detach_keys, "", b""),
    (isolation_values.parse_ulimits, "nofile=1:2", (Ulimit("nofile", 1, 2),)),
    (isolation_values.parse_ulimits, "core=-1", (Ulimit("core", -1, -1),)),
    (isolation_values.parse_ulimits, "nproc=5:unlimited", (Ulimit("nproc", 5, -1),)),
    (isolation_values.parse_device, "/dev/fuse", Device("/dev/fuse", "/dev/fuse")),
    (isolation_values.parse_device, "/dev/a:rw", Device("/dev/a", "/dev/a", "rw")),
    (isolation_values.parse_device, "/dev/a:/dev/b:r", Device("/dev/a", "/dev/b", "r")),
    (isolation_values.parse_sysctl, "net/ipv4/ip_forward=1", ("net.ipv4.ip_forward", "1")),
    (isolation_values.parse_userns, "host", "host-map"),
    (isolation_values.parse_userns, "keep-id:uid=1,gid=2", "keep-id:uid=1,gid=2"),
    (isolation_values.parse_capability, "net_admin", "CAP_NET_ADMIN"),
    (isolation_values.parse_capability, "CAP_SYS_PTRACE", "CAP_SYS_PTRACE"),
    (isolation_values.parse_capability, "all", "ALL"),
    (isolation_values.parse_security_option, "no-new-privileges", "no-new-privileges=true"),
    (isolation_values.parse_security_option, "seccomp:unconfined", "seccomp=unconfined"),
    (isolation_values.parse_security_option, "unmask=/proc/a:/proc/b", "unmask=/proc/a:/proc/b"),
]

REFUSED: list[tuple[Callable[[str, str], Any], list[str]]] = [
    (values.parse_boolean, ["", "yes", "TrUe", " true"]),
    (values.parse_size, [*ODD_NUMBERS, "1kk", "1kib2", "1x", "-1", ".5m", "m", "1 m", "1.m", "1e3m",
                         "9" * 19 + "p", "9" * 30, "1.2.3k"]),
    (values.parse_cpus, [*ODD_NUMBERS, "-1", ".5", "0.001", "0.0000001", "1,5", "inf"]),
    (values.parse_cpuset, [*ODD_NUMBERS, "3-1", "0-", "-3", "0,,1", "0,", "9999", "a", "0-1-2"]),
    (values.parse_pids_limit, [*ODD_NUMBERS, "-2", "-0_1", "9" * 30]),
    (values.parse_signal, ["", "0", "65", "SIG", "SIGFOO", "RTMIN+31", "RTMAX+1", "RTMIN-1",
                           "RTMIN+", "RTMIN+٣", "RTMIN+999", "-9", "9 ", "9" * 5000]),
    (values.parse_add_hosts, ["", "a", "a:", ":1.1.1.1", "a:1.1.1", "a:127.1", "a b:1.1.1.1",
                              "a\n:1.1.1.1", "a;:1.1.1.1", "a:1.1.1.1%lo"]),
    (values.parse_dns, ["", "localhost", "1.1.1", "1.1.1.1 2.2.2.2", "1.1.1.1\n", "0x1.1.1.1"]),
    (values.parse_dns_search, ["", "a b", "a\nnameserver 6.6.6.6", "-a", "ä.example"]),
    (values.parse_word, ["", " ", "a b", "a\n", "\ta", "a\u2028b"]),
    (values.parse_label, ["", "=b"]),
    (values.parse_hostname, ["", "-a", "a b", "a" * 65, "a/b", "a\n", "é"]),
    (values.parse_workdir, ["", "a", "./a"]),
    (values.parse_user, ["", ":", "a:", ":a", "a:b:c", "4294967295", "-1", "+1", "a b", "9" * 30]),
    (values.parse_group, ["", "a:b", "4294967295"]),
    (values.parse_entrypoint, ["[1]", '["a", null]', '["\\u0000"]']),
    (values.parse_property, ["", "=1", "Memory High=1", "A=1\nExecStart=x", "MemoryMax"]),
    (values.parse_platform, ["", "linux", "linux/", "Linux/AMD64", "a/b/c/d", "linux/../x"]),
    (values.parse_umask, ["", "8", "0o22", "1777", "07_7", "-1", " 22", "٢"]),
    (values.parse_detach_keys, ["ctrl-", "ctrl-pp", "ctrl-1", "p,", "pq", "ä"]),
    (isolation_values.parse_ulimits, ["", "nofile", "nofile=", "nofile=2:1", "nofile=-1:1",
                                      "bogus=1", "NOFILE=1", "nofile=1:2:3", "nofile=1_0",
                                      "nofile=-2"]),
    (isolation_values.parse_device, ["", "fuse", "/dev/a:b", "/dev/a:/dev/b:x", "/dev/a:/b:rr",
                                     "/dev/a:/b:r:w", "/dev/../etc/shadow", "/etc/passwd"]),
    (isolation_values.parse_sysctl, ["", "a", "=1", "net.a=1\nb=2"]),
    (isolation_values.parse_userns, ["", "auto:x", "keep-id:", "keep-id:uid=x", "keep-id:pid=1",
                                     "host-map:uid=1", "keep-id:uid=4294967295", "private"]),
    (isolation_values.parse_capability, ["", "CAP_", "CAP_BOGUS", "net-admin", "NET_ADMIN "]),
    (isolation_values.parse_security_option, ["", "bogus", "seccomp", "seccomp=",
                                              "no-new-privileges=maybe", "bogus=1"]),
]  # fmt: skip


@pytest.mark.parametrize(("parse", "text", "expected"), SIMPLE)
def test_taken(parse: Callable[[str, str], Any], text: str, expected: object) -> None:
    assert parse(text, "--option") == expected


@pytest.mark.parametrize(("parse", "texts"), REFUSED)
def test_refused(parse: Callable[[str, str], Any], texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(UsageError) as raised:
            raise AssertionError(f"{text!r} was taken for {parse(text, '--option')!r}")
        assert raised.value.message.startswith("--option ")
        assert not raised.value.message.endswith(".")


@pytest.mark.parametrize("parse", [parse for parse, _ in REFUSED])
@settings(max_examples=10, deadline=None)
@given(text=st.text(max_size=12) | st.from_regex(r"[-a-z0-9:=,./\[\]]{0,12}", fullmatch=True))
def test_nothing_but_usage_errors(parse: Callable[[str, str], Any], text: str) -> None:
    try:
        parse(text, "--option")
    except UsageError:
        return


@settings(max_examples=50, deadline=None)
@given(st.integers(min_value=-5, max_value=5000))
def test_integers_come_back(number: int) -> None:
    if 1 <= number <= 4096:
        assert values.parse_integer(str(number), "--option", 1, 4096) == number
    else:
        with pytest.raises(UsageError):
            values.parse_integer(str(number), "--option", 1, 4096)


@pytest.mark.parametrize("text", [*ODD_NUMBERS, "9" * 5000])
def test_integers_are_ascii_digits(text: str) -> None:
    with pytest.raises(UsageError):
        values.parse_integer(text, "--option", -10, 10)


def test_host_ulimits_are_the_callers() -> None:
    limits = {limit.name: limit for limit in isolation_values.parse_ulimits("host", "--ulimit")}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert limits["nofile"] == Ulimit("nofile", soft, hard)
    assert len(limits) == 15


VOLUMES = [
    ("/a:/b", VolumeMount("/a", "/b", "bind")),
    ("/a:/b:ro,Z", VolumeMount("/a", "/b", "bind", ("ro", "Z"))),
    ("./a:/b", VolumeMount("/here/a", "/b", "bind")),
    ("../a:/b", VolumeMount("/a", "/b", "bind")),
    (".:/b", VolumeMount("/here", "/b", "bind")),
    ("//a/./b/:/c//d/", VolumeMount("/a/b", "/c/d", "bind")),
    ("data:/b", VolumeMount("data", "/b", "volume")),
    ("/b", VolumeMount("", "/b", "anonymous")),
    ("data:/b:U,noexec,rslave", VolumeMount("data", "/b", "volume", ("U", "noexec", "rslave"))),
]


@pytest.mark.parametrize(("text", "expected"), VOLUMES)
def test_volumes(text: str, expected: VolumeMount) -> None:
    assert mount_values.parse_volume(text, "-v", directory="/here") == expected


@pytest.mark.parametrize(
    "text",
    ["", ":", "a", "a:", ":/b", "/a:b", "/a:/", "/a:/..", "/a:/b:", "/a:/b:bogus", "/a:/b:ro,rw",
     "/a:/b:z,Z", "/a:/b:ro:rw", "~/a:/b", "-x:/b", "a b:/c", "/a:/b\n", "/data:ro", "/a:/b:ro,",
     "/a:/b:shared,slave", "/a:/b:tmpcopyup"],
)  # fmt: skip
def test_volumes_refused(text: str) -> None:
    with pytest.raises(UsageError):
        mount_values.parse_volume(text, "--volume", directory="/here")


MOUNTS: list[tuple[str, VolumeMount | TmpfsMount]] = [
    ("type=bind,source=/a,target=/b", VolumeMount("/a", "/b", "bind")),
    ("type=bind,src=a,dst=/b,readonly", VolumeMount("/here/a", "/b", "bind", ("ro",))),
    ("type=bind,src=/a,destination=/b,ro=true", VolumeMount("/a", "/b", "bind", ("ro",))),
    ("type=bind,src=/a,dst=/b,ro=false", VolumeMount("/a", "/b", "bind", ("rw",))),
    ('type=bind,"source=/a,b",dst=/c', VolumeMount("/a,b", "/c", "bind")),
    ('type=bind,"source=/a""b",dst=/c', VolumeMount('/a"b', "/c", "bind")),
    (
        "type=bind,src=/a,dst=/b,bind-propagation=rshared,relabel=private,U=true",
        VolumeMount("/a", "/b", "bind", ("rshared", "Z", "U")),
    ),
    ("type=bind,src=/a,dst=/b,bind-nonrecursive", VolumeMount("/a", "/b", "bind", ("bind",))),
    ("source=data,target=/b", VolumeMount("data", "/b", "volume")),
    ("type=volume,target=/b", VolumeMount("", "/b", "anonymous")),
    ("type=tmpfs,dst=/t", TmpfsMount("/t")),
    (
        "type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1777,ro,notmpcopyup",
        TmpfsMount("/t", ("size=67108864", "mode=1777", "ro", "notmpcopyup")),
    ),
]


@pytest.mark.parametrize(("text", "expected"), MOUNTS)
def test_mounts(text: str, expected: VolumeMount | TmpfsMount) -> None:
    assert mount_values.parse_mount(text, "--mount", directory="/here") == expected


@pytest.mark.parametrize(
    "text",
    ["", "type=bind", "type=bind,source=/a", "type=bind,target=/b", "type=bind,source=,target=/b",
     "type=image,source=a,target=/b", "type=tmpfs,source=/a,target=/b", "type=bind,bogus",
     "type=bind,source=/a,target=/b,bogus=1", "type=bind,source=/a,source=/b,target=/c",
     "type=bind,source=/a,target=b", "type=bind,source=/a,target=/b,ro,rw",
     "type=bind,source=/a,target=/b,ro=maybe", 'type=bind,"source=/a', 'type=bind,sou"rce=/a',
     'type=bind,"source=/a"b,target=/c', "type=volume,source=a/b,target=/c",
     "type=tmpfs,target=/t,tmpfs-size=1_0", "type=tmpfs,target=/t,tmpfs-mode=99",
     "type=bind,source=/a,target=/b,tmpfs-size=1m", "type=bind,source=/a,target=/b,relabel=x"],
)  # fmt: skip
def test_mounts_refused(text: str) -> None:
    with pytest.raises(UsageError):
        mount_values.parse_mount(text, "--mount", directory="/here")


@settings(max_examples=80, deadline=None)
@given(st.text(alphabet='typebindsourcetarget=,"/avol', max_size=30))
def test_mounts_raise_nothing_else(text: str) -> None:
    for parse in (mount_values.parse_mount, mount_values.parse_volume):
        try:
            parse(text, "--mount", directory="/here")
        except UsageError:
            continue


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/t", TmpfsMount("/t")),
        ("/t:", None),
        ("/t:rw,size=1g,mode=0700", TmpfsMount("/t", ("rw", "size=1073741824", "mode=0700"))),
        ("/t:size=50%,uid=1000", TmpfsMount("/t", ("size=50%", "uid=1000"))),
        ("/t:nr_inodes=1k", TmpfsMount("/t", ("nr_inodes=1024",))),
        ("t", None),
        ("/", None),
        ("/t:size=", None),
        ("/t:size=1x", None),
        ("/t:mode=8", None),
        ("/t:bogus", None),
        ("/t:huge=always", None),
        ("/t:uid=-1", None),
        ("/t:exec,noexec", None),
    ],
)
def test_tmpfs(text: str, expected: TmpfsMount | None) -> None:
    if expected is None:
        with pytest.raises(UsageError):
            mount_values.parse_tmpfs(text, "--tmpfs")
    else:
        assert mount_values.parse_tmpfs(text, "--tmpfs") == expected


def test_two_mounts_at_one_place_are_refused() -> None:
    volumes = (VolumeMount("/a", "/x"), VolumeMount("/b", "/y"))
    mount_values.refuse_duplicates(volumes, (TmpfsMount("/z"),))
    with pytest.raises(UsageError, match="/y is mounted twice"):
        mount_values.refuse_duplicates(volumes, (TmpfsMount("/y"),))


CALLER = {"HOME": "/h", "LANG": "C", "LC_ALL": "de", "SECRET": "s", "EMPTY": ""}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["A=B"], ["A=B"]),
        (["A="], ["A="]),
        (["A=B=C\nD"], ["A=B=C\nD"]),
        (["HOME"], ["HOME=/h"]),
        (["EMPTY"], ["EMPTY="]),
        (["ABSENT"], []),
        (["L*"], ["LANG=C", "LC_ALL=de"]),
        (["A=1", "B=2", "A=3"], ["B=2", "A=3"]),
        (["L*", "LANG=x"], ["LC_ALL=de", "LANG=x"]),
    ],
)
def test_environment(options: list[str], expected: list[str]) -> None:
    assert list(environment.resolve(options, [], CALLER)) == expected


@pytest.mark.parametrize("text", ["", "=B", " A=B", "A B=C", "A\n=B", "\u2003=x"])
def test_environment_refused(text: str) -> None:
    with pytest.raises(UsageError):
        environment.resolve([text], [], CALLER)


def test_environment_files(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_bytes(b'# comment\n\n  A=1 \nHOME\r\nB="quoted" # kept\nQ=\xff\nABSENT\n#C=1\n')
    found = environment.resolve(["A=2"], [str(path)], CALLER)
    assert found == ("HOME=/h", 'B="quoted" # kept', "Q=\udcff", "A=2")


@pytest.mark.parametrize("content", [b"=x\n", b"A B=C\n", b"A=\0\n", b"x=" + b"y" * (1 << 20)])
def test_environment_files_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "env"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="env"):
        environment.resolve([], [str(path)], CALLER)


@pytest.mark.parametrize("name", ["absent", ".", "a\0b"])
def test_environment_files_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--env-file"):
        environment.resolve([], [f"{tmp_path}/{name}"], CALLER)


def test_label_files(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_text("# none\na=b\n\n c \nd=e=f")
    found = values.read_label_file(str(path), "--label-file")
    assert found == (("a", "b"), ("c", ""), ("d", "e=f"))
