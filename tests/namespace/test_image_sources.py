"""Images that come from no registry: App Container Images, a static busybox, Debian packages."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import signal
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from namespace.living import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rig.machine import Completed, Machine

pytestmark = [pytest.mark.namespace, pytest.mark.usefixtures("leaves_nothing")]

TMP = "$HOME/.local/share/rootlesspy/tmp"
# A package with a shell of its own, and a repository of it, as apt wants it.
REPOSITORY = """
rm -rf repo tree; mkdir -p repo tree/DEBIAN tree/bin tree/dev tree/proc tree/sys tree/etc
cp "$(command -v busybox)" tree/bin/busybox
ln -s busybox tree/bin/sh; ln -s busybox tree/bin/stat
echo root:x:0:0::/root:/bin/sh > tree/etc/passwd
install -m 4755 /dev/null tree/bin/suid
printf '%s\\n' 'Package: tiny' 'Version: 1' "Architecture: $(dpkg --print-architecture)" \
    'Maintainer: x <x@example.org>' 'Description: tiny' 'Essential: yes' 'Priority: required' \
    > tree/DEBIAN/control
dpkg-deb --root-owner-group -b tree repo/tiny.deb >/dev/null
{ dpkg-deb -f repo/tiny.deb; echo Filename: ./tiny.deb
  echo "Size: $(stat -c %s repo/tiny.deb)"
  echo "SHA256: $(sha256sum repo/tiny.deb | cut -d' ' -f1)"; } > repo/Packages
rm -rf tree
"""
MIRROR = '--mirror "deb [trusted=yes] copy:$PWD/repo ./"'


@pytest.fixture(scope="module", autouse=True)
def _needs_a_rig(rig: Machine) -> Iterator[None]:
    if not rig.has_root:
        pytest.skip("empties the store")
    yield
    sh(rig, "rp rmi -af; rm -rf ~/s", check=False)


def sh(rig: Machine, script: str, *, check: bool = True) -> Completed:
    return rig.run(["sh", "-ec", f"mkdir -p ~/s; cd ~/s; {script}"], check=check, timeout=180)


def aci(
    rig: Machine, name: str, *, compress: Callable[[bytes], bytes] = gzip.compress, **app: Any
) -> None:
    """Write an App Container Image of the machine's busybox on the machine."""
    program = rig.run(["cat", "/bin/busybox"], binary=True).stdout
    manifest = {
        "acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/worker",
        "labels": [{"name": "version", "value": "1.0"}, {"name": "os", "value": "linux"}],
        "app": {"exec": ["/bin/sh", "-c", 'id -u; id -g; pwd; echo "$A" "$@"', "sh"],
                "user": "worker", "group": "300", "workingDirectory": "/opt/work",
                "environment": [{"name": "A", "value": "b c"}], **app},
    }  # fmt: skip
    entries: list[tuple[str, bytes, int, str]] = [
        ("manifest", json.dumps(manifest).encode(), 0, ""), ("rootfs", b"", 0, "dir"),
        ("rootfs/bin", b"", 0, "dir"), ("rootfs/bin/busybox", program, 0, ""),
        ("rootfs/bin/sh", b"", 0, "busybox"), ("rootfs/etc", b"", 0, "dir"),
        ("rootfs/etc/passwd", b"worker:x:100:7::/:/bin/sh\n", 0, ""),
        ("rootfs/opt", b"", 0, "dir"), ("rootfs/opt/work", b"", 100, "dir"),
    ]  # fmt: skip
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, data, owner, kind in entries:
            member = tarfile.TarInfo(path)
            member.size, member.mode, member.uid = len(data), 0o755, owner
            if kind:
                member.type = tarfile.DIRTYPE if kind == "dir" else tarfile.SYMTYPE
                member.linkname = "" if kind == "dir" else kind
            archive.addfile(member, io.BytesIO(data))
    rig.run(["sh", "-c", f"mkdir -p ~/s; cat > ~/s/{name}"], input=compress(buffer.getvalue()))


def test_an_app_container_image_runs(rig: Machine) -> None:
    isolators = [{"name": "resource/memory", "value": {"limit": "64Mi"}}]
    aci(rig, "app.aci", isolators=isolators)
    loaded = sh(rig, "rp load app.aci")
    assert loaded.stdout == "Loaded image: example.com/worker:1.0\n"
    assert "not applied by themselves: rp run --memory=67108864" in loaded.stderr
    run = "rp run --rm --network=none example.com/worker:1.0"
    assert sh(rig, f"{run} more words").stdout == "100\n300\n/opt/work\nb c more words\n"
    shown = json.loads(sh(rig, "rp image inspect example.com/worker:1.0").stdout)[0]
    aci(rig, "plain.aci", compress=bytes, isolators=isolators)
    aci(rig, "app.aci.xz", compress=lzma.compress, isolators=isolators)
    for words in ("-i plain.aci", "< app.aci.xz"):
        sh(rig, f"rp rmi example.com/worker:1.0; rp load -q {words}")
        again = json.loads(sh(rig, "rp image inspect example.com/worker:1.0").stdout)[0]
        assert (again["Id"], again["RootFS"]) == (shown["Id"], shown["RootFS"])
    assert sh(rig, "rp fsck").stdout == ""


def test_a_bad_app_container_image_leaves_nothing(rig: Machine) -> None:
    sh(rig, "rp rmi -af", check=False)
    before = sh(rig, f"find {TMP}/../images {TMP} -type f | sort").stdout
    for app, words in (
        ({"user": ""}, "user is empty"), ({"user": "/nosuch"}, "/nosuch"),
        ({"ports": [{"name": "x", "port": 0, "protocol": "tcp"}]}, "ports"),
    ):  # fmt: skip
        aci(rig, "bad.aci", **app)
        failed = sh(rig, "rp load bad.aci", check=False)
        assert failed.returncode == 125
        assert words in failed.stderr
        assert len(failed.stderr.splitlines()) == 1
        assert sh(rig, f"find {TMP}/../images {TMP} -type f | sort").stdout == before


def test_busybox_is_an_image_of_its_own(rig: Machine) -> None:
    made = sh(rig, "rp bootstrap -q busybox own").stdout
    script = 'whoami; awk "BEGIN { print 6 * 7 }"; stat -c "%a %n" /tmp /root /etc/shadow'
    ran = rig.run(["rp", "run", "--rm", "--network=none", "own", "sh", "-c", script]).stdout
    assert ran == "root\n42\n1777 /tmp\n700 /root\n600 /etc/shadow\n"
    sh(rig, "rp rmi own")
    assert sh(rig, "rp bootstrap -q busybox again:1").stdout == made
    for words, told in (
        ("busybox UPPER", "lower case"), ("fedora x", "neither debian:SUITE nor busybox"),
        ("busybox --include=bash x", "no options"), ("debian:-x x", "not a suite"),
    ):  # fmt: skip
        failed = sh(rig, f"rp bootstrap {words}", check=False)
        assert failed.returncode == 125
        assert told in failed.stderr


def test_debian_from_a_repository_of_our_own(rig: Machine) -> None:
    sh(rig, REPOSITORY)
    sh(rig, f"rp bootstrap debian:trixie --variant=extract --include=tiny {MIRROR} deb:1")
    script = 'stat -c "%u:%g %a" /bin/suid /etc; cat /etc/passwd'
    ran = rig.run(["rp", "run", "--rm", "--network=none", "deb:1", "sh", "-c", script]).stdout
    assert ran == "0:0 4755\n0:0 755\nroot:x:0:0::/root:/bin/sh\n"
    shown = json.loads(sh(rig, "rp image inspect deb:1").stdout)[0]
    assert shown["Config"]["Cmd"] == ["bash"]
    assert shown["Config"]["Env"][0].startswith("PATH=/usr/local/sbin:")
    assert len(shown["RootFS"]["Layers"]) == 1
    failed = sh(rig, f"rp bootstrap debian:trixie --variant=extract --include=nosuch {MIRROR} d:2",
                check=False)  # fmt: skip
    assert failed.returncode == 125
    assert "mmdebstrap ended with exit code" in failed.stderr
    assert sh(rig, f"ls -A {TMP}; rp images -q d").stdout == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bootstrap_leaves_nothing(rig: Machine, number: signal.Signals) -> None:
    # A mirror that never answers: apt reads from a pipe that nobody writes to.
    sh(rig, "rm -rf slow; mkdir slow; mkfifo slow/Packages slow/Release slow/InRelease")
    mirror = '"deb [trusted=yes] file:$PWD/slow ./"'
    script = f"""
        cd ~/s; set -m
        rp bootstrap debian:trixie --variant=extract --mirror {mirror} never > out 2>&1 &
        pid=$!
        until grep -q 'apt-get update' out; do
            kill -0 $pid 2>/dev/null || break
            sleep 0.1
        done
        kill -{number.value} $pid
        wait $pid
        echo $?
    """
    code = rig.run(["bash", "-c", script], timeout=180).stdout.strip().splitlines()[-1]
    assert code == str(128 + number), sh(rig, "cat out").stdout
    assert sh(rig, f"ls -A {TMP}; rp images -q never").stdout == ""
    # Its children had the signal too, and nobody but itself waits for them.
    pgrep = ["pgrep", "mmdebstrap"]
    until(lambda: rig.run(pgrep, check=False).stdout == "", "mmdebstrap goes on")
