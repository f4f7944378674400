"""`rp diff`, `export`, `commit`, `rename` and `container prune` from the front door.

SECURITY.md J and P11.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

BOX = "commit-box"
IMAGE = "commit-image"
CHANGE = """
mkdir /new; echo 1 > /new/f; ln /new/f /new/g; chown 33:44 /new/f; chmod 4755 /new/f
rm -r /etc/apk; mkdir /etc/apk; echo q > /etc/apk/q; rm /etc/motd; rm -r /media
chmod 600 /etc/passwd; mkfifo /fifo; ln -s /nowhere /link; touch -d '2020-01-02 03:04:05' /root/.x
truncate -s 1G /holes; rm -r /srv; echo file > /srv; rm /etc/shells; mkdir /etc/shells
printf x > "/$(printf 'a\\n\\377')"; touch /ready; exec sleep 1000
"""
LIST = """find / -xdev \\( -path /proc -o -path /sys -o -path /dev \\) -prune -o -print |
    grep -Ev '^/etc/(hosts|hostname|resolv.conf)$|^/run' | sort |
    xargs -d '\\n' stat -c '%N %F %a %u:%g %h %Y' | grep -v ' directory.* 1[0-9]*$' | md5sum"""
DATA = "$HOME/.local/share/rootlesspy"


def _sh(rig: Machine, script: str, *, check: bool = True, timeout: float = 120) -> str:
    done = rig.run(["sh", "-ec", script], check=check, timeout=timeout)
    return str(done.stdout)


@pytest.fixture
def changed(rig: Machine, alpine: str) -> Iterator[str]:
    """Run a container that has changed its files."""
    rig.run(["rp", "rm", "-f", BOX], check=False)
    rig.run(["rp", "run", "-d", "--name", BOX, "--network=none", "-e", "A=b", "--label", "x=y",
             "-w", "/var", alpine, "sh", "-c", CHANGE])  # fmt: skip
    _sh(rig, f"until rp exec {BOX} test -e /ready; do sleep 0.05; done")
    yield BOX
    rig.run(["rp", "rm", "-f", BOX])
    rig.run(["rp", "rmi", "-f", IMAGE], check=False)


WANTED = """\
A /a
\\xff
C /etc
C /etc/apk
D /etc/apk/arch
D /etc/apk/keys
D /etc/apk/protected_paths.d
A /etc/apk/q
D /etc/apk/repositories
D /etc/apk/world
D /etc/motd
C /etc/passwd
C /etc/shells
A /fifo
A /holes
A /link
D /media
A /new
A /new/f
A /new/g
A /ready
C /root
A /root/.x
C /srv
"""


def test_diff(rig: Machine, changed: str) -> None:
    shown = rig.run(["rp", "diff", changed], binary=True).stdout
    assert shown.decode("ascii", "backslashreplace") == WANTED
    groups = json.loads(rig.run(["rp", "diff", "--format", "json", changed]).stdout)
    assert sorted(groups) == ["added", "changed", "deleted"]
    assert "/new/f" in groups["added"]
    assert rig.run(["rp", "diff", "--format", "{{.}}", changed], check=False).returncode == 125
    rig.run(["rp", "stop", "-t", "0", changed])
    assert rig.run(["rp", "diff", changed], binary=True).stdout == shown


def test_a_fresh_container_has_no_changes(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "rm", "-f", BOX], check=False)
    rig.run(["rp", "run", "--name", BOX, "--network=none", "-v", "/new/volume", alpine, "true"])
    assert rig.run(["rp", "diff", BOX]).stdout in ("", "A /new\n")
    rig.run(["rp", "rm", "-v", BOX])


def test_the_committed_image_has_the_same_files(rig: Machine, changed: str) -> None:
    before = rig.run(["rp", "exec", changed, "sh", "-c", LIST]).stdout
    image_id = rig.run(["rp", "commit", "-q", changed, IMAGE]).stdout.strip()
    assert len(image_id) == 64
    run = ["rp", "run", "--rm", "--network=none", IMAGE, "sh", "-c"]
    assert rig.run([*run, LIST]).stdout == before
    assert rig.run([*run, "du -k /holes | cut -f1; ls /etc/apk; pwd; echo $A"]).stdout == (
        "0\nq\n/var\nb\n"
    )
    assert rig.run(["rp", "diff", IMAGE], binary=True).stdout == (
        rig.run(["rp", "diff", changed], binary=True).stdout
    )


def test_the_committed_configuration(rig: Machine, changed: str) -> None:
    rig.run(["rp", "commit", "-q", "-a", "me", "-m", "why", "--iidfile", "/tmp/iid", "-c",
             'CMD ["cat", "/new/f"]', "-c", "ENV C=d", changed, IMAGE])  # fmt: skip
    assert rig.run(["rp", "run", "--rm", IMAGE]).stdout == "1\n"
    (found,) = json.loads(rig.run(["rp", "image", "inspect", IMAGE]).stdout)
    assert _sh(rig, "cat /tmp/iid") == found["Id"].removeprefix("sha256:")
    assert found["Author"] == "me"
    assert found["Config"]["Labels"]["x"] == "y"
    assert found["Config"]["WorkingDir"] == "/var"
    names = [each.partition("=")[0] for each in found["Config"]["Env"]]
    assert names == ["PATH", "A", "C"]
    assert found["History"][-1]["comment"] == "why"
    bad = rig.run(["rp", "commit", "-c", "RUN x", changed, IMAGE], check=False)
    assert bad.returncode == 125


def test_others_read_the_committed_image(rig: Machine, changed: str) -> None:
    rig.run(["rp", "commit", "-q", changed, IMAGE])
    seen = json.loads(_sh(rig, f"skopeo inspect oci:{DATA}/images:localhost/{IMAGE}:latest"))
    assert seen["Env"][-1] == "A=b"
    script = f"podman pull -q oci:{DATA}/images:localhost/{IMAGE}:latest >&2; "
    script += "podman run --rm --pids-limit=0 --network=none localhost/commit-image sh -c "
    script += "'ls /etc/apk /etc/shells; stat -c %u:%g:%a:%h /new/f; cat /srv; ls -d /media'"
    done = rig.run(["sh", "-c", f"{script}; podman rmi -f localhost/{IMAGE} >&2"], check=False)
    assert done.stdout == "/etc/apk:\nq\n\n/etc/shells:\n33:44:4755:2\nfile\n"


def test_squash_leaves_one_layer(rig: Machine, changed: str) -> None:
    before = rig.run(["rp", "exec", changed, "sh", "-c", LIST]).stdout
    rig.run(["rp", "commit", "-q", "-s", changed, IMAGE])
    (found,) = json.loads(rig.run(["rp", "image", "inspect", IMAGE]).stdout)
    assert len(found["RootFS"]["Layers"]) == 1
    run = ["rp", "run", "--rm", "--network=none", IMAGE, "sh", "-c", LIST]
    assert rig.run(run).stdout == before


def test_export_is_the_same_every_time(rig: Machine, changed: str) -> None:
    rig.run(["rp", "stop", "-t", "0", changed])
    rig.run(["rp", "export", "-o", "/tmp/one.tar", changed])
    _sh(rig, f"rp export {changed} > /tmp/two.tar; cmp /tmp/one.tar /tmp/two.tar")
    listed = _sh(rig, "tar tvf /tmp/one.tar --numeric-owner --full-time | tr -s ' '")
    assert "-rwsr-xr-x 33/44 2 " in listed
    assert "new/g link to new/f" in listed
    assert "link -> /nowhere" in listed
    assert " etc/motd" not in listed
    assert " media/" not in listed
    names = _sh(rig, "tar tf /tmp/one.tar").splitlines()
    assert names[:2] == [r"a\n\377", "bin/"]
    assert int(_sh(rig, "stat -c %s /tmp/one.tar")) < 64 << 20
    done = rig.run(["script", "-qec", f"rp export {changed}", "/dev/null"], check=False)
    assert done.returncode == 125
    _sh(rig, "rm /tmp/*.tar")


def test_p11_a_failed_export_leaves_no_file(rig: Machine) -> None:
    done = rig.run(["rp", "export", "-o", "/tmp/none.tar", "nobody"], check=False)
    assert done.returncode == 125
    assert _sh(rig, "ls /tmp | grep none.tar || echo gone") == "gone\n"


@pytest.mark.row("commit and diff", "a directory that is swapped meanwhile leads nowhere")
def test_j_a_layer_holds_no_data_of_the_host(rig: Machine, alpine: str) -> None:
    """Links are kept as links, sockets left out, overlay's attributes stripped, swaps harmless."""
    rig.run(["rp", "rm", "-f", BOX], check=False)
    _sh(rig, "mkdir -p /tmp/out; echo token-7f3a > /tmp/out/secret")
    swap = """mkdir /d.real; ln -s /tmp/out /d.link; nc -lU /socket & mkfifo /fifo; while :; do
        mv /d.real /d; mv /d /d.real; mv /d.link /d; mv /d /d.link; done 2>/dev/null"""
    rig.run(["rp", "run", "-d", "--name", BOX, "--network=none", alpine, "sh", "-c", swap])
    for _ in range(5):
        rig.run(["rp", "commit", "-q", BOX, IMAGE], timeout=120)
        listed = rig.run(["rp", "run", "--rm", IMAGE, "sh", "-c", "cat /d/* /d.*/* || :; ls /"])
        assert "token" not in listed.stdout
    rig.run(["rp", "rm", "-f", BOX])
    _sh(rig, f"rp rmi -f {IMAGE}; rp image prune -f")


@pytest.mark.row("frozen by cp", "a commit with --pause that is killed thaws the container")
def test_p11_a_killed_commit_thaws_and_moves_no_name(rig: Machine, changed: str) -> None:
    first = rig.run(["rp", "commit", "-q", changed, IMAGE]).stdout
    rig.run(["rp", "exec", changed, "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=300"])
    _sh(
        rig,
        f"""
        status() {{ rp inspect -f '{{{{.State.Status}}}}' {changed}; }}
        pid=$(rp inspect -f '{{{{.State.Pid}}}}' {changed})
        events=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$pid/cgroup)/cgroup.events
        rp commit -p -q {changed} {IMAGE} & commit=$!
        until grep -qx 'frozen 1' $events; do kill -0 $commit; done
        # However fast it is, it does not get to its end.
        kill -STOP $commit
        [ "$(status)" = paused ]
        kill -9 $commit; wait
        until [ "$(status)" = running ]; do sleep 0.1; done
        rp exec {changed} true""",
    )
    assert rig.run(["rp", "images", "-q", "--no-trunc", IMAGE]).stdout.endswith(first)


def test_commits_of_what_is_not_there(rig: Machine) -> None:
    done = rig.run(["rp", "commit", "nobody"], check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert "no container with name or id 'nobody'" in done.stderr


# --- names -------------------------------------------------------------------------------------


def test_rename(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "rm", "-f", "old", "new", "other"], check=False)
    rig.run(["rp", "run", "-d", "--rm", "--name", "old", "--network=none", alpine, "sleep", "1000"])
    rig.run(["rp", "create", "--name", "other", alpine, "true"])
    assert rig.run(["rp", "rename", "old", "new"]).stdout == ""
    assert [rig.run(["rp", "container", "exists", each], check=False).returncode
            for each in ("new", "old")] == [0, 1]  # fmt: skip
    assert rig.run(["rp", "exec", "new", "echo", "here"]).stdout == "here\n"
    taken = rig.run(["rp", "rename", "other", "new"], check=False)
    assert taken.returncode == 125
    assert "name 'new' is in use" in taken.stderr
    assert rig.run(["rp", "rename", "other", "a b"], check=False).returncode == 125
    assert rig.run(["rp", "rename", "nobody", "x"], check=False).returncode == 125
    rig.run(["rp", "stop", "-t", "0", "new"])
    _sh(rig, "while rp container exists new; do sleep 0.05; done")
    assert _sh(rig, f"ls {DATA}/names | grep -xE 'old|new' || echo free") == "free\n"
    rig.run(["rp", "rename", "other", "old"])
    rig.run(["rp", "rm", "old"])


def test_of_simultaneous_renames_to_one_name_one_wins(rig: Machine, alpine: str) -> None:
    done = _sh(
        rig,
        f"""
        for i in $(seq 12); do rp create --name race-$i {alpine} true; done >/dev/null
        for i in $(seq 12); do (rp rename race-$i winner 2>/dev/null && echo won) & done; wait
        rp ps -a --format '{{{{.Names}}}}' | grep -cE '^(race-[0-9]+|winner)$'
        rp rm winner >/dev/null; rp rm $(rp ps -aq --filter name=race-) >/dev/null""",
    )
    assert done == "won\n12\n"


def test_container_prune(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "rm", "-f", "kept", "gone", "runs"], check=False)
    ids = {}
    for name, label in (("kept", "keep=1"), ("gone", "keep=0")):
        argv = ["rp", "create", "--name", name, "--label", label, alpine, "true"]
        ids[name] = rig.run(argv).stdout
    rig.run(["rp", "run", "-d", "--name", "runs", "--network=none", alpine, "sleep", "1000"])
    prune = ["rp", "container", "prune", "-f"]
    assert rig.run([*prune, "--filter", "until=1h"]).stdout == ""
    assert rig.run(["rp", "container", "prune", "--filter", "label=keep=0"], input="n\n").stdout
    assert rig.run([*prune, "--filter", "label=keep=0"]).stdout == ids["gone"]
    assert rig.run([*prune, "--filter", "label!=keep=1"]).stdout == ""
    assert rig.run([*prune, "--filter", "colour=red"], check=False).returncode == 125
    assert rig.run(prune).stdout == ids["kept"]
    assert rig.run(["rp", "container", "exists", "runs"]).returncode == 0
    rig.run(["rp", "rm", "-f", "runs"])


def test_a_layer_unpacked_and_packed_again_has_the_same_diff_id(rig: Machine, alpine: str) -> None:
    script = """
        mkdir -p /d/e; echo x >/d/f; ln /d/f /d/g; ln -s ../f /d/e/l; mkfifo /d/p
        n=$(printf %0200d 7); mkdir /d/$n; echo y >/d/$n/$n; truncate -s 1M /d/sparse
        chown 5:6 /d/f; chmod 4755 /d/f; rm -r /media; touch -d 2001-02-03 /d/f /d/e"""
    rig.run(["rp", "run", "--name", BOX, "--network=none", alpine, "sh", "-ec", script])
    rig.run(["rp", "export", "-o", "first.tar", BOX])
    rig.run(["rp", "import", "-q", "first.tar", IMAGE])
    rig.run(["rp", "rm", BOX])
    rig.run(["rp", "create", "--name", BOX, IMAGE, "true"])
    rig.run(["rp", "export", "-o", "second.tar", BOX])
    first, second = rig.run(["sha256sum", "first.tar", "second.tar"]).stdout.split()[::2]
    layers = rig.run(["rp", "image", "inspect", "-f", "{{json .RootFS.Layers}}", IMAGE]).stdout
    assert layers == f'["sha256:{first}"]\n'
    assert second == first
    rig.run(["rm", "first.tar", "second.tar"])
    rig.run(["rp", "rm", BOX])
    rig.run(["rp", "rmi", IMAGE])
