"""`rp cp` from the front door: what goes where, who owns it, and what no container can reach.

SECURITY.md J.  What podman 5 does decides about names; containers run, are stopped, or never ran.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

BOX, RUNS = "cp-box", "cp-run"
CLEAN = """
mkdir -p /tmp/cp; chmod -R u+rwX /tmp/cp; rm -rf /tmp/cp /tmp/out; mkdir -p /tmp/cp /tmp/out
cd /tmp/cp
"""
TREE = (
    CLEAN
    + """
mkdir -p tree/sub
echo one > tree/one; chmod 640 tree/one; touch -d '2020-02-03 04:05:06.123456789' tree/one
ln tree/one tree/sub/same; ln -s ../one tree/sub/link; ln -s /nowhere tree/dangling
truncate -s 40M tree/holes; echo end >> tree/holes; chmod 555 tree/sub
mkfifo tree/fifo; printf 'x' > "$(printf 'tree/a\\n\\377b*')"; mkdir -m 700 tree/private
"""
)
LIST = "find . -printf '%p %y %m %T@ %n %l\\n' | sort | tr '\\377' F"


def _sh(rig: Machine, script: str, *, check: bool = True, timeout: float = 120) -> str:
    done = rig.run(["sh", "-ec", script], check=check, timeout=timeout)
    return str(done.stdout)


def _cp(rig: Machine, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    # Paths of the host are meant in /tmp/cp.
    argv = ["sh", "-c", 'cd /tmp/cp && exec rp cp "$@"', "cp", *words]
    return rig.run(argv, check=False, **options)  # type: ignore[arg-type]


def _inside(rig: Machine, script: str, name: str = RUNS) -> str:
    return str(rig.run(["rp", "exec", name, "sh", "-c", script]).stdout)


@pytest.fixture(params=["running", "exited", "created"])
def box(rig: Machine, alpine: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Make a container in each state, whose working directory is /var."""
    rig.run(["rp", "rm", "-f", BOX], check=False)
    options = ["--name", BOX, "--network=none", "-w", "/var", alpine, "sleep", "1000"]
    rig.run(["rp", "create" if request.param == "created" else "run", *options]
            if request.param == "created" else ["rp", "run", "-d", *options])  # fmt: skip
    if request.param == "exited":
        rig.run(["rp", "stop", "-t", "0", BOX])
    yield BOX
    rig.run(["rp", "rm", "-f", BOX])


@pytest.fixture(scope="module")
def runs(rig: Machine, alpine: str) -> Iterator[str]:
    """Run a container for all tests that do not end it."""
    rig.run(["rp", "rm", "-f", RUNS], check=False)
    rig.run(["rp", "run", "-d", "--name", RUNS, "--network=none", alpine, "sleep", "1000"])
    yield RUNS
    rig.run(["rp", "rm", "-f", RUNS])


@pytest.fixture
def running(rig: Machine, runs: str) -> str:
    """Return a running container whose /srv is empty."""
    script = "rm -rf /srv /in /full /x /back /etc/new; mkdir /srv; echo old > /etc/motd"
    rig.run(["rp", "exec", runs, "sh", "-c", script])
    rig.run(["mkdir", "-p", "/tmp/cp"])
    return runs


def test_a_tree_comes_back_as_it_was(rig: Machine, box: str) -> None:
    _sh(rig, TREE)
    assert _cp(rig, "tree", f"{box}:/srv").returncode == 0
    assert _cp(rig, f"{box}:/srv/tree", "back").returncode == 0
    before, after = (_sh(rig, f"cd /tmp/cp/{each}; {LIST}") for each in ("tree", "back"))
    assert before == after
    _sh(rig, "cd /tmp/cp; cmp tree/holes back/holes; test $(du -k back/holes | cut -f1) -lt 4096")
    owners = _sh(rig, "find /tmp/cp/back -printf '%U:%G\\n' | sort -u")
    assert owners == "1000:1000\n"
    rig.run(["rp", "start", box], check=False)
    assert _inside(rig, "stat -c %u:%g:%a /srv/tree/one /srv/tree/sub", box) == "0:0:640\n0:0:555\n"


@pytest.mark.parametrize(
    ("source", "target", "there"),
    [
        pytest.param("f", ":new", "/var/new", id="relative to the working directory"),
        pytest.param("link", ":/srv/", "/srv/link", id="a link means its target"),
        pytest.param("d", ":/srv", "/srv/d/x", id="a directory into one"),
        pytest.param("d/.", ":/srv", "/srv/x", id="the content of a directory"),
        pytest.param("./a:b", ":/srv", "/srv/a:b", id="a colon in a name"),
        pytest.param("[*", ":/srv", "/srv/[*", id="CVE-2019-18466: no pattern is a pattern"),
    ],
)
def test_where_it_goes(rig: Machine, running: str, source: str, target: str, there: str) -> None:
    _sh(rig, CLEAN + "echo f > f; ln -s f link; mkdir d; echo x > d/x; cp f a:b;"
             "cp f '[*'; cp f '[x'")  # fmt: skip
    done = _cp(rig, source, f"{running}{target}".replace(":new", ":/var/new"))
    assert (done.returncode, done.stderr) == (0, "")
    wanted = "x" if there.endswith("/x") else "f"
    assert _inside(rig, f"test ! -L '{there}' && cat '{there}'") == f"{wanted}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("f", ":/no/x"), "'/no/x' could not be found on container cp-run"),
        (("no", ":/"), "'no' could not be found on the host"),
        ((":/etc/passwd", "no/"), "'no/' could not be found on the host"),
        (("d", ":/etc/passwd"), "destination must be a directory when copying a directory"),
        ((":/etc/passwd", "/dev/null"), "must be a directory or a regular file"),
        (("d", ":/full"), "cannot overwrite non-directory d with a directory"),
        (("f", ":/full"), "cannot overwrite directory f with a non-directory"),
        ((":/etc", ":/etc/x"), "into itself"),
        (("f", "g"), "neither 'f' nor 'g' is in a container"),
        (("f", "nobody:/x"), "no container with name or id 'nobody'"),
    ],
)
def test_refusals(rig: Machine, running: str, words: tuple[str, str], message: str) -> None:
    _sh(rig, CLEAN + "echo f > f; mkdir d")
    _inside(rig, "mkdir -p /full/f; touch /full/d")
    typed = [running + word if word.startswith(":") else word for word in words]
    done = _cp(rig, *typed)
    assert done.returncode == 125
    assert message in done.stderr


def test_overwriting_what_is_of_another_kind(rig: Machine, running: str) -> None:
    _sh(rig, CLEAN + "echo f > f; mkdir d")
    _inside(rig, "mkdir -p /full/f/sub; touch /full/d")
    for name in ("f", "d"):
        assert _cp(rig, "--overwrite", name, f"{running}:/full").returncode == 0
    assert _inside(rig, "cd /full; stat -c '%n %F' *") == "d directory\nf regular file\n"


def test_archives_in_and_out(rig: Machine, running: str) -> None:
    _sh(
        rig,
        CLEAN + f"echo f > f; mkdir d; echo x > d/x; tar cz f d | rp cp - {running}:/srv",
    )
    assert _sh(rig, f"rp cp {running}:/srv/d - | tar t") == "d/\nd/x\n"
    assert _sh(rig, f"rp cp {running}:/srv/d/. - | tar t") == "x\n"
    assert _sh(rig, f"rp cp {running}:/srv/f - | tar xO") == "f\n"
    for script, message in (
        (f"echo text | rp cp - {running}:/srv", "archive"),
        (f"rp cp - {running}:/srv </dev/null", "source must be a (compressed) tar archive"),
        (f"tar c f | rp cp - {running}:/srv/f", "must be a directory when copying from standard"),
    ):
        done = rig.run(["sh", "-c", f"cd /tmp/cp; {script}"], check=False)
        assert done.returncode == 125
        assert message in done.stderr


def test_no_archive_is_written_to_a_terminal(rig: Machine, running: str) -> None:
    done = rig.run(["script", "-qec", f"rp cp {running}:/etc/motd -", "/dev/null"], check=False)
    assert done.returncode == 125
    assert "terminal" in done.stdout


def test_owners_with_archive(rig: Machine, running: str) -> None:
    _inside(rig, "echo > /srv/f; chown 33:44 /srv/f; mkdir /back")
    assert _cp(rig, "-a", f"{running}:/srv", "/tmp/cp/kept").returncode == 0
    assert _sh(rig, "stat -c %u /tmp/cp/kept").strip() == "1000"
    assert _sh(rig, "stat -c %u /tmp/cp/kept/f").strip() not in ("1000", "0", "33")
    assert _cp(rig, "-a", "kept/f", f"{running}:/back").returncode == 0
    assert _cp(rig, f"{running}:/srv/f", f"{running}:/back/g").returncode == 0
    assert _inside(rig, "stat -c %u:%g /back/f /back/g") == "33:44\n0:0\n"
    rig.run(["rp", "run", "--rm", "-v", "/tmp/cp:/x", "alpine", "rm", "-rf", "/x/kept"])


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_volumes_are_seen(rig: Machine, alpine: str, state: str) -> None:
    rig.run(["rp", "rm", "-fv", BOX], check=False)
    _sh(rig, CLEAN + "mkdir bound; echo f > f")
    rig.run(["rp", "run", "-d", "--name", BOX, "--network=none", "--read-only", "-v", "cp-vol:/vol",
             "-v", "/tmp/cp/bound:/bound", alpine, "sleep", "1000"])  # fmt: skip
    if state == "stopped":
        rig.run(["rp", "stop", "-t", "0", BOX])
    for place in ("/vol", "/bound"):
        assert _cp(rig, "f", f"{BOX}:{place}/f").returncode == 0
        assert _sh(rig, f"rp cp {BOX}:{place}/f - | tar xO") == "f\n"
    refused = _cp(rig, "f", f"{BOX}:/root/f")
    assert refused.returncode == 125
    assert "ead-only file system" in refused.stderr
    assert _sh(rig, "cat /tmp/cp/bound/f") == "f\n"
    rig.run(["rp", "start", BOX], check=False)
    assert _inside(rig, "cat /vol/f; ls /root", BOX) == "f\n"
    rig.run(["rp", "rm", "-fv", BOX])


@pytest.mark.parametrize("driver", ["copy", "fuse-overlayfs"])
def test_other_storage_drivers(rig: Machine, alpine: str, driver: str) -> None:
    rig.run(["rp", "rm", "-f", BOX], check=False)
    _sh(rig, CLEAN + "echo f > f")
    script = "rm -r /media /etc/motd; mkdir /etc/new; echo 2 > /etc/passwd; sleep 1000"
    rig.run(["rp", "run", "-d", "--name", BOX, "--network=none", alpine, "sh", "-c", script],
            env={"RP_STORAGE_DRIVER": driver})  # fmt: skip
    rig.run(["sh", "-c", f"until rp exec {BOX} pidof sleep; do :; done"])
    assert _cp(rig, "f", f"{BOX}:/root/while").returncode == 0
    rig.run(["rp", "stop", "-t", "0", BOX])
    assert _cp(rig, "f", f"{BOX}:/root/after").returncode == 0
    assert _sh(rig, f"rp cp {BOX}:/root/. - | tar t") == "after\nwhile\n"
    wanted = (
        "C /etc|D /etc/motd|A /etc/new|C /etc/passwd|D /media|C /root|A /root/after|A /root/while|"
    )
    assert rig.run(["rp", "diff", BOX]).stdout.replace("\n", "|") == wanted
    rig.run(["rp", "commit", "-q", BOX, "cp-driver"])
    script = "ls -d /media /etc/motd; ls /root"
    seen = rig.run(["rp", "run", "--rm", "cp-driver", "sh", "-c", script], check=False)
    assert seen.stdout == "after\nwhile\n"
    rig.run(["rp", "rm", "-f", BOX])
    rig.run(["rp", "rmi", "cp-driver"])


def test_many_small_files(rig: Machine, running: str) -> None:
    _sh(rig, CLEAN + "mkdir many; cd many; seq 5000 | xargs -n 500 touch")
    assert _cp(rig, "many", f"{running}:/many").returncode == 0
    assert _inside(rig, "ls /many | wc -l").strip() == "5000"


def test_busy_while_files_are_copied(rig: Machine, alpine: str) -> None:
    """Start and rm of a stopped container lose against a copy that has begun, and say so."""
    rig.run(["rp", "rm", "-f", BOX], check=False)
    rig.run(["rp", "create", "--name", BOX, "--network=none", alpine, "sleep", "1000"])
    with rig.popen(["rp", "cp", "-", f"{BOX}:/srv"], stdin=subprocess.PIPE) as slow:
        container_id = rig.run(["rp", "inspect", "-f", "{{.Id}}", BOX]).stdout.strip()
        directory = f"$HOME/.local/share/rootlesspy/containers/{container_id}"
        _sh(rig, f"while flock -n {directory} true; do sleep 0.05; done")
        for words in (("start", BOX), ("rm", BOX)):
            assert rig.run(["rp", *words], check=False).returncode != 0
        slow.communicate(_archive(("file", "")), timeout=120)
        assert slow.returncode == 0
    assert _sh(rig, f"rp cp {BOX}:/srv - | tar t") == "srv/\nsrv/file\n"
    rig.run(["rp", "rm", BOX])


def test_p11_a_killed_copy_leaves_the_old_file(rig: Machine, running: str) -> None:
    _sh(rig, CLEAN + "truncate -s 1 old; head -c 300M /dev/urandom > big")
    assert _cp(rig, "old", f"{running}:/srv/big").returncode == 0
    for delay in ("0.25", "0.35"):
        _sh(rig, f"cd /tmp/cp; timeout -s KILL {delay} rp cp big {running}:/srv/big || true")
        size = _inside(rig, "stat -c %s /srv/big; ls -A /srv | wc -l").split()
        assert size in (["1", "1"], [str(300 << 20), "1"])


# --- SECURITY.md J ------------------------------------------------------------------------------

SWAP = """
mkdir -p /d.real/x; ln -s / /d.link; mkdir -p /tmp/out; echo inside > /tmp/out/secret
while :; do mv /d.real /d 2>/dev/null; mv /d /d.real; mv /d.link /d; mv /d /d.link; done
"""


@pytest.mark.row("CVE-2018-15664", "copies end inside the container or fail; nothing of the host")
def test_cve_2018_15664_swapped_links_lead_nowhere(rig: Machine, alpine: str) -> None:
    """A container swaps /d for a link to / as fast as it can; nothing of the host is touched."""
    rig.run(["rp", "rm", "-f", BOX], check=False)
    _sh(rig, CLEAN + "echo token > /tmp/out/secret")
    rig.run(["rp", "run", "-d", "--name", BOX, "--network=none", alpine, "sh", "-c", SWAP])
    _sh(
        rig,
        f"""cd /tmp/cp; echo f > f; end=$(($(date +%s) + 5))
        while [ $(date +%s) -lt $end ]; do
            rp cp f {BOX}:/d/tmp/out/written || :
            rp cp {BOX}:/d/tmp/out/secret got || :
        done 2>/dev/null""",
    )
    assert _sh(rig, "ls /tmp/out; cat /tmp/out/secret") == "secret\ntoken\n"
    assert _sh(rig, "cat /tmp/cp/got 2>/dev/null || echo inside") == "inside\n"
    rig.run(["rp", "rm", "-f", BOX])


@pytest.mark.row("CVE-2019-10152", "links are resolved inside the container")
def test_cve_2019_10152_links_are_those_of_the_container(rig: Machine, box: str) -> None:
    _sh(
        rig,
        CLEAN + "echo f > /tmp/cp/f; echo t > /tmp/out/t",
    )
    _sh(
        rig,
        "cd /tmp/cp; mkdir l; ln -s /tmp/out l/abs; ln -s ../../../../tmp/out l/rel;"
        f"rp cp l/. {box}:/srv",
    )
    for link in ("abs", "rel"):
        assert _cp(rig, "f", f"{box}:/srv/{link}/f").returncode == 125
        assert _cp(rig, f"{box}:/srv/{link}/t", "got").returncode == 125
    assert _sh(rig, "ls /tmp/out; ls /tmp/cp") == "t\nf\nl\n"


def test_cve_2019_14271_nothing_is_opened_by_name_in_the_container(
    rig: Machine, running: str
) -> None:
    """Only descriptors of its root are used once the container's user namespace is joined."""
    if rig.run(["sh", "-c", "command -v strace"], check=False).returncode:
        pytest.skip("no strace on this machine")
    _sh(
        rig,
        CLEAN
        + f"""echo f > f
        calls=setns,open,openat,openat2,execve,connect
        strace -f -o trace -e trace=$calls rp cp f {running}:/srv""",
    )
    lines = _sh(rig, "cat /tmp/cp/trace").splitlines()
    joined = {line.split()[0]: number for number, line in enumerate(lines) if "setns(" in line}
    assert len(joined) == 1
    ((pid, number),) = joined.items()
    assert "CLONE_NEWUSER" in lines[number]
    assert "CLONE_NEWNS" not in lines[number]
    after = [line for line in lines[number + 1 :] if line.split()[0] == pid]
    assert any("openat2(" in line for line in after)
    strange = [
        line for line in after if "AT_FDCWD" in line or "execve" in line or "connect" in line
    ]
    assert [line for line in strange if '"/proc/self/fd/' not in line] == []


@pytest.mark.row("CVE-2026-41567", "rp decompresses by itself; no program of the container runs")
def test_cve_2026_41567_no_program_of_the_container_is_run(rig: Machine, running: str) -> None:
    _inside(rig, "cd /bin; for n in tar gzip unpigz xz zstd; do rm -f $n;"
                 "printf '#!/bin/sh\\ntouch /pwned\\n' > $n; chmod +x $n; done")  # fmt: skip
    _sh(rig, CLEAN + f"echo f > f; tar cz f | rp cp - {running}:/srv")
    assert _inside(rig, "ls /srv; ls /pwned 2>/dev/null || :") == "f\n"


def test_copy_out_gives_nobody_rights_and_follows_no_link(rig: Machine, running: str) -> None:
    _sh(
        rig,
        CLEAN + "mkdir dst; ln -s /tmp/out /tmp/cp/dst/way",
    )
    _inside(rig, "mkdir -p /x/way; echo 1 > /x/way/f; cp /bin/busybox /x/suid; chmod 6755 /x/suid;"
                 "ln -s /tmp/out /x/link; mkfifo /x/fifo")  # fmt: skip
    refused = _cp(rig, f"{running}:/x/.", "dst")
    assert refused.returncode == 125
    assert "cannot overwrite non-directory way" in refused.stderr
    assert _cp(rig, f"{running}:/x", "fresh").returncode == 0
    assert _sh(rig, "cd /tmp/cp/fresh; stat -c %a suid; readlink link; ls /tmp/out") == (
        "755\n/tmp/out\n"
    )


def _archive(*members: tuple[str, str]) -> bytes:
    """Return an archive of (name, target of a link, or "" for a file)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, link in members:
            member = tarfile.TarInfo(name)
            if link:
                member.type, member.linkname = tarfile.SYMTYPE, link
            archive.addfile(member)
    return out.getvalue()


@pytest.mark.row("copy-out", "archives that lie end inside the container or are refused")
def test_hostile_archives_stay_below_the_destination(rig: Machine, running: str) -> None:
    _sh(rig, "rm -rf /tmp/out; mkdir -p /tmp/out")
    for members, message in (
        ([("way", "/tmp/out"), ("way/through", "")], b"cannot write way/through"),
        ([("/tmp/out/absolute", "")], b""),
        ([("../../../../tmp/out/up", "")], b"'..'"),
        ([(".", "/tmp/out")], b"cannot overwrite the destination"),
    ):
        put = ["rp", "cp", "-", f"{running}:/srv"]
        done = rig.run(put, input=_archive(*members), check=False)
        assert (done.returncode == 125) == bool(message)
        assert message in done.stderr
    assert _sh(rig, "ls /tmp/out") == ""
    assert _inside(rig, "cd /srv; find . -type f") == "./tmp/out/absolute\n"
