"""Whose ids a container has, and what an escape could do with them: SECURITY.md 0 and C.

One image serves all: a shell, the static probe, the same with set-user-ID bit and with a file
capability.  Nothing here needs more than BusyBox.
"""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from namespace import hostile
from rig import ociimage
from rig.effort import effort, nightly
from rig.ociimage import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Completed, Machine

IMAGE = "localhost/ids"
# VFS_CAP_REVISION_2 with the effective bit; cap_net_bind_service has number 10.
BIND_SERVICE = bytes.fromhex("0100000200040000000000000000000000000000")
PASSWD = (
    b"root:x:0:0::/:/bin/sh\nbob:x:1000:100::/home/bob:/bin/sh\npostgres:x:70:70::/:/bin/sh\n"
    b"nobody:x:65534:65534::/:/bin/sh\n"
)
MODES = ("nomap", "auto", "keep-id", "host-map")
# What leaves the user out, and what does not.
OUT, IN = ("nomap", "auto"), ("host-map", "keep-id")
DRIVERS = ("overlay", "fuse-overlayfs", "copy") if nightly() else ("overlay",)
LIVES = ("nomap", "auto:size=3000", "keep-id", "--uidmap") if nightly() else ("auto:size=3000",)


class Ground(NamedTuple):
    """A machine with the image, a directory of the user's and a secret in it."""

    machine: Machine
    home: str
    token: str

    def attempt(self, *options: str, run: str, **more: Any) -> Completed:
        """Run a shell command in a container and return whatever came."""
        argv = ["rp", "run", "--rm", "--network", "none", *options, IMAGE, "sh", "-c", run]
        return self.machine.run(argv, check=False, **more)

    def run(self, *options: str, run: str, **more: Any) -> str:
        """Run a shell command in a container and return what it said."""
        done = self.attempt(*options, run=run, **more)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def refused(self, *options: str, words: str, **more: Any) -> str:
        """Check that a container is refused, with these words and a hint; return the hint."""
        done = self.attempt(*options, run="true", **more)
        assert done.returncode == 125, done.stderr
        first, *rest = done.stderr.splitlines()
        assert first.startswith("rp: ")
        assert words in first
        assert len(rest) <= 1
        return rest[0] if rest else ""

    def sh(self, script: str, **more: Any) -> str:
        """Run a shell command on the machine, as the user."""
        return str(self.machine.run(["sh", "-c", script], **more).stdout)


@pytest.fixture(scope="module")
def ground(
    rig: Machine, _fresh_start: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ground]:
    if not rig.has_root:
        pytest.skip("needs root on the machine")
    base = hostile.base(rig, tmp_path_factory.mktemp("probe"))
    probe = next(each.data for each in base if each.name == "probe")
    layer = [
        *base,
        ociimage.directory("etc"),
        Entry("etc/passwd", data=PASSWD),
        Entry("etc/group", data=b"root:x:0:\nusers:x:100:\npostgres:x:70:\n"),
        Entry("etc/shadow", data=b"x", mode=0o640, gid=42),
        ociimage.directory("tmp", mode=0o1777),
        Entry("sid", data=probe, mode=0o4755),
        Entry(
            "capped", data=probe, mode=0o755, pax={"SCHILY.xattr.security.capability": BIND_SERVICE}
        ),
    ]
    hostile.load(rig, {"ids": ociimage.image([ociimage.tar(layer)], {"Cmd": ["/bin/sh"]})})
    token = "only-for-the-user"
    rig.run(["sh", "-c", 'umask 077; mkdir -p ~/ids/top && printf %s "$0" >~/ids/secret', token])
    home = rig.run(["sh", "-c", "echo ~"]).stdout.strip()
    yield Ground(rig, f"{home}/ids", token)
    rig.run(["rp", "rm", "--all", "--force"], check=False)
    # Some of it belongs to subordinate ids.
    rig.root(["rm", "-rf", f"{home}/ids"])


@pytest.fixture(scope="module")
def escaped(ground: Ground) -> dict[str, str]:
    """Return for each mode what an escaped process reads of the secret.

    As root of the container's user namespace, with all its capabilities, among the host's mounts;
    and through a directory of the host's that leaked into the container.
    """
    found = {}
    for mode in MODES:
        name = f"escape-{mode}"
        ground.machine.run(
            ["rp", "run", "-d", "--name", name, "--network", "none", "--userns", mode, "--user",
             "0:0", "-v", f"{ground.home}:/leak", IMAGE, "sleep", "1000"]
        )  # fmt: skip
    listed = json.loads(
        ground.machine.run(["rp", "inspect", *(f"escape-{m}" for m in MODES)]).stdout
    )
    for mode, one in zip(MODES, listed, strict=True):
        pid = str(one["State"]["Pid"])
        path = f"{ground.home}/secret"
        outside = ground.machine.root(
            ["nsenter", "-t", pid, "-U", "--", "sh", "-c", f"id -u; cat {path}; cat /etc/shadow"],
            check=False,
        )
        leaked = ground.machine.run(
            ["rp", "exec", f"escape-{mode}", "sh", "-c", "cat /leak/secret"],
            check=False,
        )
        found[mode] = outside.stdout + outside.stderr + leaked.stdout + leaked.stderr
    ground.machine.run(["rp", "rm", "-f", *(f"escape-{mode}" for mode in MODES)])
    return found


@pytest.mark.row("nomap", "an escaped process can read nothing of the user's; so with auto")
@pytest.mark.parametrize("mode", OUT)
def test_escaped_process_is_not_the_user(
    ground: Ground, escaped: dict[str, str], mode: str
) -> None:
    """SECURITY.md 0.1: the one cheap step that makes an escape less than the whole account."""
    said = escaped[mode]
    assert ground.token not in said
    assert said.count(f"{ground.home}/secret: Permission denied") == 1
    assert "/leak/secret" in said
    assert ground.sh(f"cat {ground.home}/secret") == ground.token


@pytest.mark.parametrize("mode", IN)
def test_escaped_process_is_the_user_otherwise(
    ground: Ground, escaped: dict[str, str], mode: str
) -> None:
    """Shows that the test above would see it, and what docs/security.md says of an escape."""
    assert ground.token in escaped[mode]


@pytest.mark.parametrize("mode", MODES)
def test_setuid_and_file_capabilities_work(ground: Ground, mode: str) -> None:
    """A program of root's and one with a file capability: what images of others rely on."""
    options = ("--security-opt", "no-new-privileges=false", "--user", "1000:100")
    words = ground.run("--userns", mode, *options, run="/sid; echo; /capped")
    setuid, capped = (json.loads(line) for line in words.splitlines() if line.startswith("{"))
    assert setuid["uids"][:2] == [1000, 0]
    assert int(capped["status"]["CapEff"], 16) == 1 << 10


def test_they_gain_nothing_by_default(ground: Ground) -> None:
    """no_new_privs is on in a container with ids of its own too."""
    words = ground.run("--userns", "nomap", "--user", "1000:100", run="/sid; echo; /capped")
    for line in (line for line in words.splitlines() if line.startswith("{")):
        assert json.loads(line)["uids"][1] == 1000
        assert int(json.loads(line)["status"]["CapEff"], 16) == 0


SERVER = """
set -e
busybox cat /proc/self/uid_map
[ -d /data/pg ] || mkdir -m 700 /data/pg
busybox chown postgres:postgres /data/pg
busybox su -s /bin/sh postgres -c 'umask 077; echo rows >/data/pg/base; busybox id -u'
busybox su -s /bin/sh bob -c 'cat /data/pg/base 2>/dev/null || echo closed'
busybox chown 5:7 /etc/shadow; touch /made; rm -rf /tmp; mkdir -m 1777 /tmp; echo err >/dev/stderr
mv /etc/group /etc/group2; mv /etc/group2 /etc/group
busybox stat -c '%u:%g %a %n' /etc/shadow /data/pg /data/pg/base /made
echo ready
while :; do sleep 1; done
"""


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("mode", LIVES)
def test_whole_life(ground: Ground, mode: str, driver: str) -> None:
    """A server that gives its data to another user, through everything that one does with it."""
    maps = ("--uidmap", "0:1:2000") if mode == "--uidmap" else ("--userns", mode)
    environment = {"RP_STORAGE_DRIVER": driver}
    run = ground.machine.run
    options = ("--network", "none", "--user", "0:0", "-v", "idsdata:/data", *maps)
    run(["rp", "run", "-d", "--name", "life", "--sdnotify", "log:^ready", "--health-cmd",
         "test -e /made", *options, IMAGE, "sh", "-c", SERVER], env=environment)  # fmt: skip
    try:
        said = run(["rp", "logs", "life"])
        lines = said.stdout.splitlines()
        first_map = [line for line in lines if line.startswith(" ")]
        assert lines[len(first_map) :] == [
            "70", "closed", "5:7 640 /etc/shadow", "70:70 700 /data/pg", "70:70 600 /data/pg/base",
            "0:0 644 /made", "ready",
        ]  # fmt: skip
        assert said.stderr == "err\n"
        ground.sh("echo of the host >~/ids/top/f; rp cp ~/ids/top/f life:/copied")
        ground.sh("rp cp life:/data/pg/base ~/ids/top/base && grep -q rows ~/ids/top/base")
        script = "cat /copied; busybox id -u; busybox cat /proc/self/uid_map"
        inside = ground.sh(f"rp exec -u 70 life sh -c '{script}' | cat").splitlines()
        assert inside[:2] == ["of the host", "70"]
        assert inside[2:] == first_map
        assert run(["rp", "healthcheck", "run", "life"]).returncode == 0
        changed = run(["rp", "diff", "life"]).stdout.splitlines()
        assert {"A /copied", "A /made", "C /etc/shadow"} <= set(changed)
        run(["rp", "stop", "-t", "1", "life"])
        # Stopped: other ways to the same files.
        ground.sh("rp cp ~/ids/top/f life:/again; rp cp life:/data/pg/base - | tar tf - | cat")
        assert "A /again" in run(["rp", "diff", "life"]).stdout
        exported = run(["rp", "export", "life"], binary=True).stdout
        with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
            owners = {each.name: (each.uid, each.gid, each.mode) for each in archive}
        assert owners["etc/shadow"] == (5, 7, 0o640)
        assert owners["copied"] == owners["again"] == (0, 0, 0o644)
        assert owners["sid"] == (0, 0, 0o4755)
        run(["rp", "commit", "life", "localhost/committed"])
        script = "busybox stat -c %u:%g /etc/shadow /made /again"
        argv = ["rp", "run", "--rm", "--network", "none", "localhost/committed", "sh", "-c", script]
        assert run(argv).stdout.split() == ["5:7", "0:0", "0:0"]
        run(["rp", "start", "life"])
        run(["rp", "restart", "-t", "1", "life"])
        assert run(["rp", "exec", "life", "cat", "/again"]).stdout == "of the host\n"
    finally:
        run(["rp", "rm", "-f", "life"], check=False)
        run(["rp", "volume", "rm", "idsdata"], check=False)
        run(["rp", "rmi", "localhost/committed"], check=False)
    assert ground.sh("ls -A ~/.local/share/rootlesspy/tmp") == ""


def test_networks_and_pods(ground: Ground) -> None:
    """The network's service and the pod's stay outside of the containers' user namespaces."""
    run = ground.machine.run
    run(["rp", "network", "create", "idsnet"])
    try:
        serve = "mkdir /w; cat /proc/self/uid_map >/w/map; busybox httpd -f -p 80 -h /w"
        run(["rp", "run", "-d", "--name", "first", "--network", "idsnet", "--userns", "auto",
             "--sdnotify", "port:80", IMAGE, "sh", "-c", serve])  # fmt: skip
        form = "{{.NetworkSettings.Networks.idsnet.IPAddress}}"
        address = run(["rp", "inspect", "--format", form, "first"]).stdout.strip()
        for mode in ("nomap", "host-map"):
            argv = ["rp", "run", "--rm", "--network", "idsnet", "--userns", mode, IMAGE, "busybox"]
            said = run([*argv, "wget", "-q", "-O", "-", f"http://{address}/map"]).stdout
            assert said.split()[2] == "1024"
        for option in ("--network", "--userns"):
            argv = ["rp", "run", "--rm", option, "container:first", IMAGE, "cat"]
            assert run([*argv, "/proc/self/uid_map"]).stdout.split()[2] == "1024"
        run(["rp", "pod", "create", "--name", "idspod", "--userns", "auto:size=5000"])
        argv = ["rp", "run", "--rm", "--pod", "idspod", IMAGE, "cat", "/proc/self/uid_map"]
        assert run(argv).stdout.split()[2] == "5000"
        ground.refused("--pod", "idspod", "--userns", "nomap", words="has auto:size=5000")
    finally:
        run(["rp", "rm", "-f", "first"], check=False)
        run(["rp", "pod", "rm", "-f", "idspod"], check=False)
        run(["rp", "network", "rm", "-f", "idsnet"], check=False)


def test_auto_ranges_never_overlap(ground: Ground) -> None:
    """Started at once; a range is free again when its container is removed."""
    names = [f"own{number}" for number in range(effort(5, 30))]
    start = "rp run -d --network none --userns auto --name $0 localhost/ids sleep 1000 >/dev/null"
    started = [ground.machine.popen(["sh", "-c", start, name]) for name in names]
    assert [each.wait(120) for each in started] == [0] * len(names)
    taken: set[int] = set()
    for name in names:
        words = ground.machine.run(["rp", "exec", name, "cat", "/proc/self/uid_map"]).stdout.split()
        assert words[::2] == ["0", "1024"]
        ids = set(range(int(words[1]), int(words[1]) + 1024))
        assert not ids & taken
        assert 1000 not in ids
        taken |= ids
    size = 65536 - len(taken)
    hint = ground.refused(
        "--userns", f"auto:size={size + 1}",
        words=f"{size + 1} uids are needed, {size} of your 65536 are free",
    )  # fmt: skip
    assert "/etc/subuid: enlarge the line alice:100000:65536 by 1 " in hint
    ground.machine.run(["rp", "stop", "-t", "0", *names[:-1]])
    # A stopped one keeps what its files have.
    ground.refused("--userns", f"auto:size={size + 1}", words="are free")
    ground.machine.run(["rp", "rm", "-f", *names])
    assert ground.sh("ls ~/.local/share/rootlesspy/ids") == ""
    assert len(ground.run("--userns", "auto:size=65536", run="cat /proc/self/uid_map").split()) == 3


@pytest.mark.row("CVE-2021-43784", "exit 125 with the number of lines; never another map")
def test_cve_2021_43784_more_lines_than_a_map_has(ground: Ground) -> None:
    lines = [word for n in range(341) for word in ("--uidmap", f"{n}:{2 * n + 1}")]
    hint = ground.refused(*lines, words="341 lines are more than the kernel takes")
    assert "CONTAINER_ID:ID:AMOUNT" in hint
    words = ground.run(*lines[:400], run="cat /proc/self/uid_map").splitlines()
    assert len(words) == 200


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--uidmap", "1:0"), "id 0 of the container is not mapped"),
        (("--uidmap", "0:65537"), "you have no id number 65537"),
        (("--uidmap", "0:@99999"), "id 99999 of the host is not yours"),
        (("--uidmap", "0:0:2", "--uidmap", "1:5"), "id 1 of the container is mapped twice"),
        (("--uidmap", "0:0", "--userns", "auto"), "exclude each other"),
        (("--subuidname", "bob", "--subgidname", "bob"), "has no line for it"),
        (("--uidmap", "0:0:\uff11"), "expected"),
        (("--userns", "auto:size=0"), "expected"),
        (("--userns", "auto:size=70000"), "70000 uids are needed"),
    ],
)
def test_odd_maps_are_refused(ground: Ground, options: tuple[str, ...], words: str) -> None:
    ground.refused(*options, words=words)


HOSTILE = {
    "overlap": ("alice:200000:100\nalice:200050:100\n", [[1, 200000, 100]]),
    "negative": ("alice:-1:65536\nalice:200000:-5\nalice:200000:9\n", [[1, 200000, 9]]),
    "beyond": (
        "alice:4294967296:9\nalice:4294967290:65536\nalice:200000:4294967296\nalice:200000:9\n",
        [[1, 200000, 9]],
    ),
    "twice": ("alice:200000:9\nalice:200000:9\n", [[1, 200000, 9]]),
    "by uid": ("1000:200000:9\nbob:300000:9\n10000:400000:9\n", [[1, 200000, 9]]),
    "words": ("alice:2_0:9\nalice: 20:9\nalice:\uff12:9\nalice:20\n:::\nalice:200000:9\n",
              [[1, 200000, 9]]),
    "long lines": (
        "alice:" + "9" * 1_000_000 + ":9\n#" + "x" * 1_000_000 + "\nalice:200000:9\n",
        [[1, 200000, 9]],
    ),
    "others": ("".join(f"user{n}:{200000 + n}:9\n" for n in range(10_000)) + "alice:200000:9\n",
               [[1, 200000, 9]]),
    "many": ("".join(f"alice:{200000 + 20 * n}:9\n" for n in range(10_000)), []),
    "none": ("", []),
}  # fmt: skip


@pytest.mark.row("CVE-2016-6252", "a line that is odd grants nothing; too many are refused")
@pytest.mark.row("CVE-2024-56433", "rp doctor names the account that has the same ids")
def test_cve_2016_6252_hostile_subid_files(ground: Ground) -> None:
    """Whatever the files say, a map holds the user and what whole lines grant, or none is made."""
    machine = ground.machine
    machine.root(["sh", "-c", "cp /etc/subuid /etc/subuid.kept; cp /etc/subgid /etc/subgid.kept"])
    machine.root(["useradd", "--no-create-home", "--uid", "200003", "faraway"])
    try:
        for name, (content, expected) in HOSTILE.items():
            machine.root(
                ["sh", "-c", "cat >/etc/subuid; cp /etc/subuid /etc/subgid"], input=content
            )
            done = machine.run(["rp", "unshare", "cat", "/proc/self/uid_map"], check=False)
            lines = [[int(word) for word in line.split()] for line in done.stdout.splitlines()]
            if name == "many":
                assert done.returncode == 125
                assert "more lines for alice than an id map can have" in done.stderr
                continue
            assert lines in ([[0, 1000, 1], *expected], []), name
            assert lines or done.returncode == 125, name
            assert "Traceback" not in done.stderr
            if name == "twice":
                said = machine.run(["rp", "doctor"], check=False).stdout
                assert "faraway has 200003, which is one of your subordinate ids" in said
    finally:
        machine.root(["userdel", "faraway"])
        for kind in ("uid", "gid"):
            machine.root(["mv", f"/etc/sub{kind}.kept", f"/etc/sub{kind}"])


@pytest.mark.row(
    "CVE-2018-7169", "closed with keep-groups and with a map of one id: setgroups deny"
)
def test_cve_2018_7169_group_that_is_shut_out(ground: Ground) -> None:
    """A file that its group may not read, and a user of that group.

    By default a container has none of the user's groups, as with podman: docs/security.md says so.
    """
    machine = ground.machine
    make = "mkdir -m 755 /tmp/deny; cd /tmp/deny; echo open >f; chgrp 4242 f; chmod 0707 f"
    machine.root(["sh", "-c", make])
    runtime = f"XDG_RUNTIME_DIR=/run/user/{machine.uid}"
    bus = f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{machine.uid}/bus"
    home = f"HOME={ground.home.removesuffix('/ids')}"
    prefix = ["setpriv", f"--reuid={machine.uid}", f"--regid={machine.uid}", "--groups=4242",
              "env", "-C", "/", runtime, bus, home]  # fmt: skip
    script = (
        "busybox cat /proc/self/setgroups; cat /d/f; /probe values /proc/self/status >/dev/null"
    )
    try:
        for options, expected in (
            (("--group-add", "keep-groups"), "deny\n"),
            (("--uidmap", "0:0", "--gidmap", "0:0"), "deny\n"),
            ((), "allow\nopen\n"),
        ):
            argv = [*prefix, "rp", "run", "--rm", "--network", "none", "-v", "/tmp/deny:/d",
                    *options, IMAGE, "sh", "-c", script]  # fmt: skip
            done = machine.root(argv, check=False)
            assert done.stdout == expected, done.stderr
            assert ("denied" in done.stderr) == bool(options)
    finally:
        machine.root(["rm", "-rf", "/tmp/deny"])
    ground.refused("--group-add", "keep-groups", "--group-add", "5", words="excludes other groups")


def _links(ground: Ground, name: str) -> str:
    """Make a directory whose links lead to a canary; return its path."""
    place = f"{ground.home}/{name}"
    ground.sh(
        f"mkdir -p {place}/sub && cd {place} && echo 1 >f && ln -s {ground.home}/secret link && "
        f"ln -s {ground.home} sub/up && ln -s / root && mkfifo fifo"
    )
    return place


@pytest.mark.row("volume U", "links are given away, what they lead to is not")
@pytest.mark.parametrize("mode", ["nomap", "host-map"])
def test_u_gives_the_source_to_the_user_inside(ground: Ground, mode: str) -> None:
    place = _links(ground, f"u-{mode}")
    owners = "busybox stat -c '%u:%g %n' . f fifo link sub sub/up root"
    said = ground.run(
        "--userns", mode, "--user", "70:70", "-v", f"{place}:/v:U",
        run=f"cd /v; {owners}; cat f; echo 2 >new && rm new",
    )  # fmt: skip
    assert {line.split()[0] for line in said.splitlines()[:7]} == {"70:70"}
    assert said.endswith("1\n")
    before = ground.machine.root(
        ["stat", "-c", "%u:%g %a", f"{ground.home}/secret", "/", ground.home]
    )
    assert before.stdout.splitlines() == ["1000:1000 600", "0:0 755", "1000:1000 700"]
    # And back, from another id map.
    ground.run("--userns", "host-map", "-v", f"{place}:/v:U", run="true")
    assert ground.sh(f"stat -c %u:%g {place}/f").strip() == "1000:1000"


def test_u_takes_nothing_that_is_not_the_users(ground: Ground) -> None:
    place = f"{ground.home}/foreign"
    ground.machine.run(["mkdir", "-p", place])
    ground.machine.root(["sh", "-c", f"echo root >{place}/f; chmod 644 {place}/f"])
    for mode in ("nomap", "host-map"):
        ground.refused("--userns", mode, "-v", f"{place}:/v:U", words="operation not permitted")
    assert ground.sh(f"stat -c %u:%g {place}/f").strip() == "0:0"


SWAP = """
import os, sys, time
os.chdir(sys.argv[1])
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    os.rename("x", "kept"); os.rename("y", "x"); os.rename("x", "y"); os.rename("kept", "x")
"""


@pytest.mark.row("volume U", "a directory that becomes a link meanwhile leads nowhere")
def test_u_while_directories_become_links(ground: Ground) -> None:
    """x is a directory, y a link to the user's other files; they change places all the time."""
    place, outside = f"{ground.home}/race", f"{ground.home}/outside"
    ground.sh(
        f"mkdir -p {place}/x/a/b {outside}/a/b && touch {place}/x/a/b/f {outside}/a/b/f && "
        f"ln -s {outside} {place}/y"
    )
    seconds = effort(5, 60)
    swapping = ground.machine.popen(["python3", "-c", SWAP, place, str(seconds)])
    tries = 0
    while swapping.poll() is None:
        done = ground.attempt("--user", "70:70", "-v", f"{place}:/v:U", run="true")
        assert done.returncode in (0, 125)
        assert "Traceback" not in done.stderr
        # So that whoever swaps may go on: it is not the owner any more.  What is below changes its
        # name while it is gone through, where it has been the owner all the time.
        back = "busybox chown -h -R 0:0 /v 2>/dev/null; busybox chown -h 0:0 /v"
        ground.run("-v", f"{place}:/v", run=back)
        tries += 1
    assert tries
    owners = ground.machine.root(["find", outside, "-printf", "%u:%g\n"]).stdout
    assert set(owners.split()) == {"alice:alice"}


@pytest.mark.row("GHSA-8688", "a start that finds a link in the place of a volume fails with 125")
def test_ghsa_8688_volume_that_became_a_link(ground: Ground) -> None:
    """Another container had the directory around the volume, and plants links there."""
    store = ground.sh("echo ~/.local/share/rootlesspy/volumes").strip()
    run = ground.machine.run
    run(["rp", "create", "--network", "none", "--name", "keeps", "-v", "shared:/v", IMAGE, "sh",
         "-c", "cat /v/secret; ls /v"])  # fmt: skip
    try:
        for victim in ("_data", ""):
            path = f"shared/{victim}".rstrip("/")
            plant = f"cd /s && mv {path} {path}.kept && ln -s {ground.home} {path}"
            ground.run("-v", f"{store}:/s", run=plant)
            for argv in (
                ["rp", "start", "--attach", "keeps"],
                ["rp", "cp", "keeps:/v/secret", "-"],
            ):
                done = run(argv, check=False)
                assert done.returncode == 125, done.stdout
                assert ground.token not in done.stdout
            done = ground.attempt("-v", "shared:/v", run="cat /v/secret")
            assert done.returncode == 125
            ground.run("-v", f"{store}:/s", run=f"cd /s && rm {path} && mv {path}.kept {path}")
        assert run(["rp", "start", "--attach", "keeps"], check=False).returncode == 0
    finally:
        run(["rp", "rm", "-f", "-v", "keeps"], check=False)
        run(["rp", "volume", "rm", "-f", "shared"], check=False)


def test_mount_options(ground: Ground) -> None:
    """ro holds below the source too; named volumes are nosuid and nodev; z does nothing."""
    ground.sh("mkdir -p ~/ids/plain")
    place = f"{ground.home}/plain"
    said = ground.run(
        "-v", "/dev:/d:ro", "-v", f"{place}:/p:z", "-v", f"{place}:/q:ro,noexec,Z", "-v", "opt:/o",
        "-v", f"{place}:/r:rslave,nosuid",
        run="touch /d/shm/x; touch /p/f; touch /q/g; busybox cat /proc/self/mountinfo; ls /p",
    )  # fmt: skip
    options = {line.split()[4]: line.split()[5].split(",") for line in said.splitlines()[:-1]}
    assert said.splitlines()[-1] == "f"
    assert all("ro" in found for target, found in options.items() if target.startswith("/d/"))
    assert "/d/shm" in options
    assert {"nosuid", "nodev"} <= set(options["/o"])
    assert {"ro", "noexec"} <= set(options["/q"])
    assert "nosuid" in options["/r"]
    master = next(line for line in said.splitlines() if line.split()[4] == "/r")
    assert "master:" in master or "shared:" not in master
    hint = ground.refused("-v", f"{place}:/p:idmap", words="the kernel lets only root map the ids")
    assert "U gives the files" in hint
    ground.machine.run(["rp", "volume", "rm", "opt"])


CALLS = ("openat", "flock", "getdents64", "write", "fsync", "rename", "unlinkat", "unlink", "close")
KILLING = """
import json, os, subprocess, sys
calls, step = json.loads(sys.argv[1]), int(sys.argv[2])
store = os.path.expanduser("~/.local/share/rootlesspy/secrets")

def rp(*argv, data=None, trace=()):
    done = subprocess.run([*trace, "rp", *argv], input=data, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr

def look(when):
    for name in os.listdir(store):
        with open(store + "/" + name) as file:
            held = file.read()
        if name != "db.json" and "Y2FuYXJ5" in held:
            return f"{when}: {name} holds the data"
    return ""

def count(argv, data):
    trace = ["strace", "-f", "-o", "/tmp/secret.trace", "-e", "trace=" + ",".join(calls)]
    rp(*argv, data=data, trace=trace)
    lines = open("/tmp/secret.trace").read().splitlines()
    return {call: sum(f" {call}(" in line for line in lines) for call in calls}

problems, points = [], 0
for argv, data in ((["secret", "create", "db", "-"], "canary"), (["secret", "rm", "db"], None)):
    before = argv[1] == "rm"
    rp("secret", "rm", "--ignore", "db")
    if before:
        rp("secret", "create", "db", "-", data="canary")
    for call, number in count(argv, data).items():
        rp("secret", "rm", "--ignore", "db")
        # From the end: what the command is about comes last.
        for n in range(number, 0, -(step if number < 40 else 7)):
            if before:
                rp("secret", "create", "--replace", "db", "-", data="canary")
            inject = f"inject={call}:signal=KILL:when={n}"
            rp(*argv, data=data, trace=["strace", "-f", "-o", "/dev/null", "-e", inject])
            points += 1
            when = f"{argv[1]} {call} {n}"
            code, out, err = rp("secret", "create", "--replace", "other", "-", data="x")
            if code or "Traceback" in err:
                problems.append(f"{when}: create: {err}")
            problems += filter(None, [look(when)])
            code, out, err = rp("secret", "rm", "--ignore", "db")
            if code or "Traceback" in err:
                problems.append(f"{when}: rm: {err}")
rp("secret", "rm", "--all")
print(json.dumps([points, problems, os.listdir(store)]))
"""


@pytest.mark.limit(1800)
@pytest.mark.row("secret create killed", "its data is gone with the next command, or it is whole")
def test_secret_is_there_or_not_whenever_it_is_killed(ground: Ground) -> None:
    """At each call that makes, names or removes something; the nightly run tries all of them."""
    calls = CALLS if nightly() else ("flock", "fsync", "rename", "unlinkat")
    argv = ["python3", "-c", KILLING, json.dumps(calls), str(effort(2, 1))]
    points, problems, left = json.loads(ground.machine.run(argv, timeout=1800).stdout)
    assert problems == []
    assert points > len(calls)
    assert left == []


def test_damaged_secret_is_listed_nowhere_and_can_be_removed(ground: Ground) -> None:
    ground.sh("echo x | rp secret create good -; echo x | rp secret create bad -")
    ground.sh("printf '{' >~/.local/share/rootlesspy/secrets/bad.json")
    assert "bad" not in ground.sh("rp secret ls").split()
    assert ground.sh("rp secret rm bad").strip() == "bad"
    assert ground.sh("rp secret rm --all; ls ~/.local/share/rootlesspy/secrets").count("\n") == 1
