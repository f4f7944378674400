"""Volumes, binds and tmpfs from the front door: who owns what, what stays, what cannot be reached.

SECURITY.md A (rows of volumes) and J.  Each test runs containers as the unprivileged user and looks
from both sides.
"""

from __future__ import annotations

import base64
import json
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from rig import ociimage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from subprocess import CompletedProcess

    from rig.machine import Machine

# Runs on the machine: pushes Alpine with more layers and another configuration to its registry.
DERIVE = """
import base64, gzip, hashlib, json, sys, urllib.request
BASE, TYPE = "http://localhost:5000/v2/", "application/vnd.oci.image.manifest.v1+json"
def call(url, data=None, method="GET", **headers):
    url = url if url.startswith("http") else BASE + url
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    return urllib.request.urlopen(request)
def push(repository, data):
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    place = call(f"{repository}/blobs/uploads/", b"", "POST").headers["Location"]
    sign = "&" if "?" in place else "?"
    call(f"{place}{sign}digest={digest}", data, "PUT",
         **{"Content-Type": "application/octet-stream"})
    return {"digest": digest, "size": len(data)}
asked = json.load(sys.stdin)
name = asked["repository"]
manifest = json.load(call("library/alpine/manifests/latest", Accept=TYPE))
config = json.load(call("library/alpine/blobs/" + manifest["config"]["digest"]))
for layer in manifest["layers"]:
    push(name, call("library/alpine/blobs/" + layer["digest"]).read())
for encoded in asked["layers"]:
    tar = base64.b64decode(encoded)
    config["rootfs"]["diff_ids"].append("sha256:" + hashlib.sha256(tar).hexdigest())
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    manifest["layers"].append({"mediaType": kind, **push(name, gzip.compress(tar, mtime=0))})
config["config"].update(asked["config"])
manifest["config"].update(push(name, json.dumps(config).encode()))
call(f"{name}/manifests/latest", json.dumps(manifest).encode(), "PUT", **{"Content-Type": TYPE})
"""

# Runs on the machine: starts containers and kills everything of each with SIGKILL ever later.
KILLER = """
import os, subprocess, sys, time
for delay_ms in range(40, 400, 30):
    argv = ["rp", "run", "--rm", "--network=none", "--name=" + sys.argv[1], *sys.argv[2:]]
    started = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(delay_ms / 1000)
    found = True
    # Again until none is found: one may be forked while the others are looked for.
    while found:
        found = False
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if b"--name=" + sys.argv[1].encode() in open(f"/proc/{pid}/cmdline", "rb").read():
                    os.kill(int(pid), 9)
                    found = True
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                pass
    started.wait()
"""

RACER = """
import ctypes, os, sys
libc, one, other = ctypes.CDLL(None), *(os.fsencode(path) for path in sys.argv[1:3])
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1000):
        libc.renameat2(-100, one, -100, other, 2)
"""


class Host(NamedTuple):
    """The machine, a directory of the user's on it, and a name that begins those of volumes."""

    machine: Machine
    directory: str
    prefix: str

    def sh(self, script: str, **more: Any) -> str:
        """Run a shell script in the directory and return what it says."""
        argv = ["sh", "-ec", f"cd {self.directory}\n{script}"]
        return str(self.machine.run(argv, **more).stdout)

    def rp(self, *options: str, image: str = "alpine", run: str = "true", **more: Any) -> str:
        """Run a shell script in a container, with the directory as cwd; return what it says."""
        return str(self.attempt(*options, image=image, run=run, check=True, **more).stdout)

    def attempt(
        self, *options: str, image: str = "alpine", run: str = "true", check: bool = False,
        **more: Any,
    ) -> CompletedProcess[Any]:  # fmt: skip
        """Run a container that may fail."""
        argv = ["rp", "run", "--rm", "--network=none", *options, image, "sh", "-ec", run]
        script = f'cd {self.directory} && exec "$@"'
        return self.machine.run(["sh", "-c", script, "sh", *argv], check=check, **more)

    def volume(self, name: str) -> str:
        """Return the full name of a volume of this test."""
        return f"{self.prefix}.{name}"

    def store(self) -> str:
        """Return where the volumes are."""
        return self.sh('echo "${XDG_DATA_HOME:-$HOME/.local/share}/rootlesspy/volumes"').strip()

    def volumes(self) -> list[str]:
        """Return the names of all volumes."""
        return self.sh(f"ls -A {self.store()} 2>/dev/null || true").split()

    def subordinate(self, number: int) -> int:
        """Return the host's id of a container's id from 1 on."""
        line = self.sh("grep ^$(id -un): /etc/subuid").split(":")
        return int(line[1]) + number - 1


@pytest.fixture(scope="module", autouse=True)
def leaves_nothing_at_all(rig: Machine, derived: str) -> Iterator[None]:
    """Compare the machine once, as a look at everything takes as long as a container."""
    # The first container of a session starts its D-Bus daemon, which stays.
    rig.run(["rp", "run", "--rm", derived, "true"])
    before = rig.snapshot()
    yield
    rig.assert_same(before, ignore=("home",))


@pytest.fixture
def host(rig: Machine, alpine: str, request: pytest.FixtureRequest) -> Iterator[Host]:
    assert alpine == "alpine"
    directory = rig.run(["mktemp", "-d", "/tmp/volumes.XXXXXX"]).stdout.strip()
    box = Host(rig, directory, "rp-" + directory[-6:])
    yield box
    if any(name.startswith(box.prefix) for name in box.volumes()):
        box.rp("-v", f"{box.store()}:/v", run=f"rm -rf /v/{box.prefix}*")
    if box.sh('find . ! -user "$(id -un)"'):
        box.rp("-v", f"{directory}:/d", run="rm -rf /d/*")
    rig.run(["rm", "-rf", directory])


@pytest.fixture(scope="module")
def derived(rig: Machine, alpine: str) -> str:
    """Return an image with a directory for volumes, links to it and links out of it."""
    assert alpine == "alpine"
    directory, entry = ociimage.directory, ociimage.Entry
    return derive(
        rig,
        "rptest/volumes",
        layers=[
            [
                directory("srv"),
                directory("srv/data", mode=0o1770, uid=33, gid=44),
                entry("srv/data/base", data=b"base\n", mode=0o4640, uid=1000, gid=1000),
                entry("srv/data/gone", data=b"gone\n"),
                directory("srv/data/sub", mode=0o500),
                ociimage.symlink("srv/data/link", "/etc/os-release"),
                ociimage.hard_link("srv/data/sub/hard", "srv/data/base"),
                ociimage.symlink("absolute", "/etc"),
                ociimage.symlink("upward", "../../../../../../../etc"),
                ociimage.symlink("top", "/"),
                directory("srv/many"),
                *(entry(f"srv/many/{number}") for number in range(500)),
            ],
            [
                directory("srv/data", mode=0o1770, uid=33, gid=44),
                entry("srv/data/top", data=b"top\n"),
                entry("srv/data/.wh.gone"),
            ],
        ],
        config={"Volumes": {"/srv/data": {}, "/cache": {}}},
    )


def derive(
    rig: Machine,
    repository: str,
    *,
    layers: Sequence[Sequence[ociimage.Entry]] = (),
    config: dict[str, Any],
) -> str:
    """Push Alpine with more layers and configuration to the machine's registry; pull it."""
    tars = [base64.b64encode(ociimage.tar(entries)).decode() for entries in layers]
    asked = {"repository": repository, "layers": tars, "config": config}
    done = rig.run(["python3", "-c", DERIVE], input=json.dumps(asked), check=False)
    if "Connection refused" in done.stderr:
        pytest.skip("no registry on localhost:5000 (the rig has one)")
    assert done.returncode == 0, done.stderr
    name = f"docker.io/{repository}"
    rig.run(["rp", "pull", "--quiet", name])
    return name


class TestBinds:
    def test_written_inside_is_there_outside(self, host: Host) -> None:
        host.sh("mkdir data; echo outside >data/in")
        said = host.rp("-v", f"{host.directory}/data:/data", run="cat /data/in; echo x >/data/out")
        assert said == "outside\n"
        assert host.sh("cat data/out") == "x\n"

    def test_owners_both_ways(self, host: Host) -> None:
        """Root inside is the user outside; uid 1000 inside is a subordinate id outside."""
        host.sh("mkdir -m 777 data; touch data/mine")
        look = "stat -c %u:%g /data/mine; touch /data/root"
        assert host.rp("-v", "./data:/data", run=look) == "0:0\n"
        host.rp("-v", "./data:/data", "--user", "1000:1000", run="touch /data/other")
        own = host.sh("id -u; id -g").split()
        mapped = host.subordinate(1000)
        said = host.sh("stat -c %u:%g data/root data/other").split()
        assert said == [":".join(own), f"{mapped}:{mapped}"]
        assert host.rp("-v", "./data:/data", run="stat -c %u:%g /data/other") == "1000:1000\n"

    def test_keep_id_owners(self, host: Host) -> None:
        host.sh("mkdir -m 777 data; touch data/mine")
        uid = host.sh("id -u").strip()
        options = ("--userns=keep-id", "-v", "./data:/data")
        said = host.rp(*options, "--user", uid, run="stat -c %u /data/mine; touch /data/new")
        assert said == f"{uid}\n"
        assert host.sh("stat -c %u data/new") == f"{uid}\n"

    def test_read_only(self, host: Host) -> None:
        host.sh("mkdir data")
        for spelled in ("./data:/data:ro", f"{host.directory}/data:/data:ro"):
            done = host.attempt("-v", spelled, run="touch /data/x")
            assert done.returncode == 1
            assert "Read-only file system" in done.stderr
        mount = f"type=bind,source={host.directory}/data,target=/data,readonly"
        assert host.attempt("--mount", mount, run="touch /data/x").returncode == 1
        assert host.sh("ls data") == ""

    def test_read_only_covers_what_is_mounted_below(self, host: Host) -> None:
        if not host.machine.has_root:
            pytest.skip("needs root to mount below the source")
        host.sh("mkdir -p data/below")
        below = f"{host.directory}/data/below"
        host.machine.root(["mount", "-t", "tmpfs", "-o", "mode=777", "tmpfs", below])
        try:
            done = host.attempt("-v", "./data:/data:ro", run="touch /data/below/x")
            assert (done.returncode, "Read-only" in done.stderr) == (1, True), done.stderr
            host.rp("-v", "./data:/data", run="touch /data/below/x")
            assert host.sh("ls data/below") == "x\n"
        finally:
            host.machine.root(["umount", below])

    def test_file_onto_a_file(self, host: Host) -> None:
        host.sh("echo mine >file")
        said = host.rp("-v", "./file:/etc/motd", "-v", "./file:/new/dir/file", run=(
            "cat /etc/motd /new/dir/file; echo changed >/etc/motd"
        ))  # fmt: skip
        assert said == "mine\nmine\n"
        assert host.sh("cat file") == "changed\n"

    def test_file_onto_a_directory_and_the_other_way_round(self, host: Host) -> None:
        for volume, reason in (
            ("/etc/hostname:/usr", "cannot mount /usr: is a directory, its source is not"),
            ("/etc:/etc/passwd", "cannot mount /etc/passwd: must be a directory"),
        ):
            done = host.attempt("-v", volume)
            assert (done.returncode, done.stderr) == (125, f"rp: {reason}\n")

    @pytest.mark.parametrize(
        "form", ["-v {}/nope:/x", "--mount type=bind,source={}/nope,target=/x"]
    )
    def test_missing_source(self, host: Host, form: str) -> None:
        done = host.attempt(*form.format(host.directory).split())
        assert done.returncode == 125
        assert f"{host.directory}/nope: no such file or directory" in done.stderr
        assert "mkdir -p" in done.stderr
        assert "Traceback" not in done.stderr
        assert host.sh("ls") == ""

    def test_noexec(self, host: Host) -> None:
        host.sh("mkdir data; printf '#!/bin/sh\\necho ran\\n' >data/run; chmod 755 data/run")
        assert host.rp("-v", "./data:/data", run="/data/run") == "ran\n"
        done = host.attempt("-v", "./data:/data:noexec", run="/data/run")
        assert done.returncode == 126
        assert "Permission denied" in done.stderr

    def test_u_gives_the_source_to_the_user(self, host: Host) -> None:
        host.sh("mkdir -p data/sub; touch data/sub/file; ln -s /etc/passwd data/link")
        said = host.rp("-v", "./data:/data:U", "--user", "1000:1001", run=(
            "touch /data/sub/new; stat -c %u:%g /data /data/sub/file /data/link"
        ))  # fmt: skip
        assert said.split() == ["1000:1001"] * 3
        owner = host.sh("stat -c %u data").strip()
        assert owner == str(host.subordinate(1000))

    def test_nothing_of_the_mounts_is_seen_outside(self, host: Host) -> None:
        host.sh("mkdir data")
        before = host.sh("cat /proc/self/mountinfo")
        with host.machine.popen(
            ["rp", "run", "--rm", "-i", "--network=none", "-v", f"{host.directory}/data:/data",
             "alpine", "sh", "-c", "echo up >/data/up; cat"], stdin=-1,
        ) as running:  # fmt: skip
            host.sh("until [ -s data/up ]; do sleep 0.05; done")
            assert host.sh("cat /proc/self/mountinfo") == before
            running.communicate()


class TestNamedVolumes:
    def test_stays_and_is_shared(self, host: Host) -> None:
        name = host.volume("db")
        host.rp("-v", f"{name}:/var/db", run="echo kept >/var/db/file; chown 1000 /var/db/file")
        look = "cat /else/file; stat -c %u /else/file"
        assert host.rp("-v", f"{name}:/else:ro", run=look) == "kept\n1000\n"
        assert name in host.volumes()

    def test_filled_from_the_image_once(self, host: Host, derived: str) -> None:
        option = f"{host.volume('db')}:/srv/data"
        look = """cd /srv/data; stat -c '%n %a %u:%g' . base sub link top; readlink link
            [ base -ef sub/hard ] && echo linked; cat base top; ls; rm base top"""
        assert host.rp("-v", option, image=derived, run=look).splitlines() == [
            ". 1770 33:44",
            "base 4640 1000:1000",
            "sub 500 0:0",
            "link 777 0:0",
            "top 644 0:0",
            "/etc/os-release",
            "linked",
            *("base", "top"),
            *("base", "link", "sub", "top"),
        ]
        assert host.rp("-v", option, image=derived, run="ls /srv/data") == "link\nsub\n"

    def test_nocopy(self, host: Host, derived: str) -> None:
        option = f"{host.volume('db')}:/srv/data:nocopy"
        look = "ls /srv/data; stat -c '%a %u:%g' /srv/data"
        assert host.rp("-v", option, image=derived, run=look) == "1770 33:44\n"

    def test_new_directory_belongs_to_the_user(self, host: Host) -> None:
        option = f"{host.volume('db')}:/not/in/the/image"
        said = host.rp("-v", option, "--user", "nobody", run="touch /not/in/the/image/x; echo ok")
        assert said == "ok\n"

    def test_many_first_mounts_at_once(self, host: Host, derived: str) -> None:
        option = f"{host.volume('db')}:/srv/many"
        one = f"rp run --rm --network=none -v {option} {derived} sh -c 'ls /srv/many | wc -l'"
        script = "\n".join(f"({one}; echo $?) >{number} 2>&1 &" for number in range(6))
        host.sh(f"{script}\nwait", timeout=120)
        assert [host.sh(f"cat {number}") for number in range(6)] == ["500\n0\n"] * 6

    def test_keep_id_fills_with_the_same_owners(self, host: Host, derived: str) -> None:
        options = ("--userns=keep-id", "-v", f"{host.volume('db')}:/srv/data")
        look = "stat -c '%a %u:%g' /srv/data /srv/data/base"
        said = host.rp(*options, "--user", "0", image=derived, run=look)
        assert said == "1770 33:44\n4640 1000:1000\n"

    def test_its_programs_gain_nothing(self, host: Host) -> None:
        said = host.rp("-v", f"{host.volume('db')}:/d", run="grep ' /d ' /proc/self/mountinfo")
        assert {"nosuid", "nodev"} <= set(said.split()[5].split(","))

    @pytest.mark.row("GHSA-8688", "the next start refuses what rp did not make")
    def test_ghsa_8688_replaced_by_a_link(self, host: Host) -> None:
        """A container that could write to the store plants a link; the next start refuses it."""
        name, store = host.volume("db"), host.store()
        host.sh("mkdir home; echo token >home/secret; mkdir home/_data; echo token >home/_data/s")
        for link, path in (("home", name), ("home/_data", f"{name}/_data")):
            host.rp("-v", f"{name}:/d")
            plant = f"rm -r /v/{path}; ln -s {host.directory}/{link} /v/{path}"
            host.rp("-v", f"{store}:/v", run=plant)
            done = host.attempt("-v", f"{name}:/d", run="cat /d/*")
            assert done.returncode == 125
            assert "not what rp made" in done.stderr
            assert "token" not in done.stdout
            host.rp("-v", f"{store}:/v", run=f"rm -r /v/{name}")

    @pytest.mark.parametrize("name", ["a/b", "-x", "_x"])
    def test_odd_names(self, host: Host, name: str) -> None:
        before = host.volumes()
        assert host.attempt("-v", f"{name}:/d").returncode == 125
        assert host.volumes() == before


class TestAnonymousVolumes:
    def test_made_for_the_image_and_removed_with_rm(self, host: Host, derived: str) -> None:
        before = host.volumes()
        store = host.store()
        said = host.rp(
            *("-v", "/more", "-v", f"{store}:/v:ro"), image=derived,
            run="ls /v; cat /srv/data/top; chown 1000 /cache /more; touch /srv/data/x /more/z",
        )  # fmt: skip
        lines = said.splitlines()
        assert lines.pop() == "top"
        made = sorted(set(lines) - set(before))
        assert [len(name) for name in made] == [64, 64, 64]
        assert host.volumes() == before

    def test_removed_when_the_start_fails(self, host: Host, derived: str) -> None:
        before = host.volumes()
        done = host.attempt("-v", "/more", "-v", "./nope:/x", image=derived)
        assert done.returncode == 125
        done = host.machine.run(
            ["rp", "run", "--rm", "--network=none", derived, "/no/such/command"], check=False
        )
        assert done.returncode == 127
        assert host.volumes() == before

    def test_killed_at_any_moment(self, host: Host, derived: str) -> None:
        """What a SIGKILL leaves the next rp ps removes; a named volume is never half full."""
        before = host.volumes()
        named = host.volume("db")
        argv = ["-v", f"{named}:/srv/many", derived, "sleep", "60"]
        host.machine.run(["python3", "-c", KILLER, named, *argv], timeout=120)
        host.machine.run(["rp", "ps"])
        said = host.rp("-v", f"{named}:/srv/many", image=derived, run="ls /srv/many | wc -l")
        assert said == "500\n"
        assert sorted(host.volumes()) == sorted([*before, named])
        assert host.sh(f"ls -A {host.store()}/../tmp {host.store()}/{named}").split()[1:] == [
            f"{host.store()}/{named}:",
            *("_data", "volume.json"),
        ]

    def test_own_mount_in_its_place(self, host: Host, derived: str) -> None:
        host.sh("mkdir data")
        before = host.volumes()
        said = host.rp(
            *("-v", "./data:/srv/data", "--tmpfs", "/cache", "-v", f"{host.store()}:/v:ro"),
            image=derived, run="ls -A /srv/data; ls /v",
        )  # fmt: skip
        assert said.split() == before


class TestImagesThatLie:
    @pytest.mark.row("CVE-2026-87766", "links lead inside the container; nothing is made outside")
    @pytest.mark.parametrize(
        ("target", "lands"), [("absolute", "etc"), ("upward", "etc"), ("top/etc", "etc")]
    )
    def test_targets_behind_links_stay_inside(
        self, host: Host, derived: str, target: str, lands: str
    ) -> None:
        """CVE-2026-87766: nothing is made on the host behind a link of the image."""
        host.sh("mkdir data; echo mine >data/f; echo mine >file")
        options = ("-v", f"./data:/{target}/new/dir", "-v", f"./file:/{target}/newfile")
        said = host.rp(*options, image=derived, run=f"cat /{lands}/new/dir/f /{lands}/newfile")
        assert said == "mine\nmine\n"
        assert host.sh("ls -d /etc/new /etc/newfile 2>/dev/null || echo none") == "none\n"

    @pytest.mark.row("CVE-2022-23648", "filled from inside the image alone, or exit 125")
    @pytest.mark.parametrize("dangling", [False, True], ids=["resolves", "dangles"])
    def test_cve_2022_23648_volume_behind_a_link(self, host: Host, dangling: bool) -> None:
        """The links lead to the user's files on the host, and to others inside the image."""
        host.sh("mkdir -p home/x; echo token >home/x/secret; echo token >home/secret")
        inside = host.directory.strip("/")
        entries = [
            ociimage.symlink("l", host.directory + "/home"),
            ociimage.symlink("m", "../../../../../.." + host.directory),
        ]
        if not dangling:
            entries.append(ociimage.directory(f"{inside}/home/x"))
            entries.append(ociimage.Entry(f"{inside}/home/x/harmless"))
        config: dict[str, Any] = {"Volumes": {"/l/x": {}, "/m/home": {}}}
        image = derive(host.machine, "rptest/hostile", layers=[entries], config=config)
        look = "find /l/x/ /m/home/ -type f; touch /l/x/new"
        done = host.attempt(image=image, run=look)
        if dangling:
            assert done.returncode == 125
        else:
            assert sorted(done.stdout.split()) == ["/l/x/harmless", "/m/home/x/harmless"]
        assert "secret" not in done.stdout
        assert host.sh("ls home/x") == "secret\n"

    @pytest.mark.row("CVE-2022-23648", "a VOLUME that is no plain path is refused")
    @pytest.mark.row("CVE-2025-52881", "a mount over /proc is refused")
    @pytest.mark.parametrize(
        "path", ["/", "/proc", "/sys/", "/dev", "/../../../../tmp/rig", "/a\nb"]
    )
    def test_cve_2025_52881_volumes_that_are_refused(self, host: Host, path: str) -> None:
        before = host.volumes()
        image = derive(host.machine, "rptest/refused", config={"Volumes": {path: {}}})
        done = host.attempt(image=image)
        assert done.returncode == 125
        assert "VOLUME" in done.stderr
        assert "\n" not in done.stderr.strip()
        assert host.volumes() == before

    @pytest.mark.row("CVE-2019-19921", "a mount over /proc is refused")
    @pytest.mark.parametrize("target", ["/proc", "/proc/self", "/proc/../proc/sys"])
    def test_cve_2019_19921_own_volume_over_proc(self, host: Host, target: str) -> None:
        host.sh("mkdir data")
        done = host.attempt("-v", f"./data:{target}")
        assert done.returncode == 125
        assert "is not allowed" in done.stderr

    @pytest.mark.row(
        "CVE-2025-52881", "a link of the image that leads a volume into /proc is refused"
    )
    def test_cve_2025_52881_volume_behind_a_link_into_proc(self, host: Host) -> None:
        """It would stand before what rp and others write their labels and settings to."""
        links = {"one": "/proc/sys", "two": "proc/self/attr", "three": "/proc"}
        layers = [[ociimage.symlink(name, link) for name, link in links.items()]]
        image = derive(host.machine, "rptest/into-proc", layers=layers, config={})
        host.sh("mkdir data")
        for name in links:
            done = host.attempt("-v", f"./data:/{name}", image=image)
            assert (done.returncode, done.stdout) == (125, "")
            assert "a mount over /proc is not allowed" in done.stderr

    @pytest.mark.row("CVE-2021-30465", "each start fails with 125 or mounts inside")
    def test_cve_2021_30465_target_swapped_for_a_link(self, host: Host) -> None:
        """Somebody swaps a directory of a shared volume for a link while it is mounted into."""
        host.sh("mkdir -p shared/dir out source; echo mine >source/f; ln -s $PWD/out shared/link")
        mounts = host.sh("cat /proc/self/mountinfo")
        argv = shlex.join(["python3", "-c", RACER, "shared/dir", "shared/link"])
        one = (
            "rp run --rm --network=none -v ./shared:/v -v ./source:/v/dir/a/b alpine "
            "sh -c 'cat /v/dir/a/b/f 2>&1 || true' >said 2>&1"
        )
        said = host.sh(
            f"{argv} & racer=$!\n"
            f"for n in $(seq 30); do {one} && echo 0 || echo $?; done\nkill $racer",
            timeout=180,
        )
        assert set(said.split()) <= {"0", "125"}
        assert host.sh("find out") == "out\n"
        assert host.sh("cat /proc/self/mountinfo") == mounts


class TestTmpfs:
    def test_is_new_and_limited(self, host: Host) -> None:
        look = """stat -f -c %T /scratch; touch /scratch/x; stat -c %a /scratch
            dd if=/dev/zero of=/scratch/big bs=64k count=32 2>/dev/null || echo full"""
        said = host.rp("--tmpfs", "/scratch:size=1m,mode=1770", run=look)
        assert said == "tmpfs\n1770\nfull\n"

    def test_mount_spelling(self, host: Host) -> None:
        mount = "type=tmpfs,target=/scratch,tmpfs-size=1m"
        assert host.rp("--mount", mount, run="stat -f -c %T /scratch") == "tmpfs\n"

    def test_read_only(self, host: Host) -> None:
        done = host.attempt("--tmpfs", "/scratch:ro", run="touch /scratch/x")
        assert done.returncode == 1
