"""podman, buildah and containerd use rp-oci as their runtime; all as an ordinary user."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rig.effort import nightly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

PODMAN = "podman --runtime /usr/bin/rp-oci"
RUN = f"{PODMAN} run --pids-limit=0 --network none"


@pytest.fixture(scope="module", autouse=True)
def _engines(rig: Machine) -> None:
    """Skip where the engines are not installed; pull what they run."""
    for program in ("podman", "buildah", "containerd", "ctr"):
        if rig.run(["which", program], check=False).returncode:
            pytest.skip("the engines are in the trixie rig")
    rig.run(["podman", "pull", "-q", "docker.io/library/alpine:latest"], timeout=120)


@pytest.fixture
def _removed(rig: Machine) -> Iterator[None]:
    yield
    rig.run(["podman", "rm", "--all", "--force", "--time", "0"], timeout=120)


def shell(rig: Machine, script: str, timeout: float = 120) -> list[str]:
    return list(rig.run(["sh", "-ec", script], timeout=timeout, input="").stdout.splitlines())


@pytest.mark.usefixtures("_removed")
def test_podman_in_the_foreground(rig: Machine) -> None:
    """Users, exit codes and podman's words for commands that are not there."""
    lines = shell(
        rig,
        f"""
        {RUN} --rm alpine sh -c 'id -u; exit 0'
        {RUN} --rm --userns=keep-id alpine id -un
        {RUN} --rm --read-only --tmpfs /foo alpine sh -c 'touch /foo/x && ! touch /x 2>&1'
        {RUN} --rm alpine sh -c 'exit 9' || echo code $?
        {RUN} --rm alpine nosuch 2>&1 || echo code $?
        {RUN} --rm alpine /etc/passwd 2>&1 || echo code $?
        {PODMAN} --cgroup-manager=cgroupfs run --rm --pids-limit=0 --network none alpine echo ok
        """,
    )
    assert lines[:2] == ["0", "alice"]
    assert "Read-only file system" in lines[2]
    assert lines[3] == "code 9"
    assert "command that was not found" in lines[4]
    assert lines[5] == "code 127"
    assert "permission denied" in lines[6]
    assert lines[7:] == ["code 126", "ok"]


@pytest.mark.usefixtures("_removed")
def test_podman_detached(rig: Machine) -> None:
    """Run, exec, pause, health, logs, attach by the console's socket, stop."""
    lines = shell(
        rig,
        f"""
        {RUN} -d --name one --health-cmd 'test -e /healthy' alpine \\
            sh -c 'trap "exit 3" TERM; touch /healthy; echo started; while :; do sleep 0.1; done' \\
            >/dev/null
        podman exec one sh -c 'while ! [ -e /healthy ]; do sleep 0.1; done; echo exec'
        podman exec one sh -c 'exit 4' || echo code $?
        podman exec -t one sh -c 'test -t 1 && echo terminal' | tr -d '\\r'
        podman exec -d one touch /later >/dev/null
        podman exec one sh -c 'while ! [ -e /later ]; do sleep 0.1; done'
        podman healthcheck run one && echo healthy
        podman pause one >/dev/null
        podman inspect -f '{{{{.State.Status}}}}' one
        podman unpause one >/dev/null
        podman inspect -f '{{{{.State.Status}}}}' one
        grep -c libpod- /proc/$(podman inspect -f '{{{{.State.Pid}}}}' one)/cgroup
        until podman logs one | grep started; do sleep 0.1; done
        podman stop -t 60 one >/dev/null
        podman inspect -f '{{{{.State.ExitCode}}}}' one
        podman start one >/dev/null
        podman rm -f -t 0 one
        """,
    )
    assert lines == [
        *("exec", "code 4", "terminal", "healthy", "paused", "running"),
        *("1", "started", "3", "one"),
    ]


@pytest.mark.usefixtures("_removed")
def test_podman_with_a_terminal(rig: Machine) -> None:
    """In the foreground; left by the detach keys; attached to again until it ends."""
    with rig.pty(["sh", "-c", f"{RUN} -it --detach-keys=ctrl-x --name tty alpine sh"]) as terminal:
        terminal.expect("# ", timeout=60)
        terminal.send("test -t 0 && echo first''ly; x=kept\n")
        terminal.expect("firstly", timeout=60)
        terminal.send("\x18")
        assert terminal.wait(timeout=60) == 0
    with rig.pty(["sh", "-c", f"{PODMAN} attach tty"]) as terminal:
        # Nothing is shown until something is typed.
        terminal.send("\n")
        terminal.expect("# ", timeout=60)
        terminal.resize(33, 77)
        terminal.send("until [ \"$(stty size)\" = '33 77' ]; do sleep 0.1; done; echo $x si''zed\n")
        terminal.expect("kept sized", timeout=60)
        terminal.send("exit 6\n")
        # podman's own code: it does not hand on the container's here.
        assert terminal.wait(timeout=60) == 0
    assert rig.run(["podman", "wait", "tty"]).stdout == "6\n"


# A root file system of the rig's own Debian: a shell, what that needs, and by night everything.
DEBIAN = """
root=~/debian-root; rm -rf $root; mkdir -p $root/usr/bin $root/usr/lib $root/usr/lib64 $root/tmp
for each in bin lib lib64; do ln -s usr/$each $root/$each; done
cd /usr/bin; programs=$(readlink -f bash cat dash env id ls sh sleep touch)
libraries=$(ldd $programs | sed -n 's,^[^/]*\\(/[^ :]*\\) (.*,\\1,p' | sort -u)
cp -L --parents bash cat dash env id ls sh sleep touch $root/usr/bin
cp -L --parents $libraries /etc/os-release /etc/passwd /etc/group $root
"""
WHOLE = "cp -a /usr/bin /usr/lib $root/usr"


@pytest.mark.usefixtures("_removed")
def test_podman_with_a_debian_image(rig: Machine) -> None:
    """Another C library, a shell with job control, users of the image, a whole life detached."""
    lines = shell(
        rig,
        f"""
        {DEBIAN}
        {WHOLE if nightly() else ""}
        tar -C $root -c . | podman import -q - localhost/debian >/dev/null
        run="{RUN}"
        $run --rm debian bash -c '. /etc/os-release; echo $ID; id -u'
        $run --rm --user www-data debian id -un
        $run --rm debian bash -c 'exit 9' || echo code $?
        $run -d --name debian debian bash -c \
            'trap "exit 3" TERM; touch /tmp/up; while :; do sleep 0.1; done' >/dev/null
        podman exec debian bash -c 'until [ -e /tmp/up ]; do sleep 0.1; done; echo exec'
        podman exec -t debian bash -ic 'test -t 0 && echo terminal' | tr -d '\r'
        podman stop -t 60 debian >/dev/null
        podman inspect -f '{{{{.State.ExitCode}}}}' debian
        """,
        timeout=600,
    )
    try:
        assert lines == ["debian", "0", "www-data", "code 9", "exec", "terminal", "3"]
    finally:
        rig.run(["sh", "-c", "podman rmi --force localhost/debian; rm -rf ~/debian-root"])


def test_buildah_builds_with_isolation_oci(rig: Machine) -> None:
    lines = shell(
        rig,
        """
        rm -rf ~/oci-build; mkdir ~/oci-build
        cat > ~/oci-build/Dockerfile <<END
FROM docker.io/library/alpine:latest
RUN echo made > /made && chown guest /made
USER guest
RUN cat /made; id -un
END
        buildah build --runtime /usr/bin/rp-oci --isolation oci --network none -t oci-built \\
            ~/oci-build 2>&1
        rm -rf ~/oci-build
        """,
    )
    assert "guest" in lines
    assert "made" in lines


CONTAINERD = """
set -e
cd /home/alice/containerd
mount -t tmpfs none /run
mkdir -p /run/containerd /run/user/1000
export TMPDIR=/tmp
containerd -c config.toml > log 2>&1 &
served=$!
trap 'kill $served; wait $served' EXIT
ctr="timeout 60 ctr -a $PWD/containerd.sock"
for _ in $(seq 300); do $ctr version >/dev/null 2>&1 && break; kill -0 $served; sleep 0.1; done
$ctr image import alpine.tar >/dev/null
run="$ctr run --snapshotter native --runc-binary /usr/bin/rp-oci"
image=docker.io/library/alpine:latest
$run --rm $image c1 sh -c 'id -u; exit 5' || echo code $?
$run -d $image c2 sleep 1000
$ctr task ls | awk 'NR > 1 {print $3}'
$ctr task exec --exec-id e1 c2 sh -c 'echo exec; exit 3' || echo code $?
$ctr task kill -s KILL c2
until $ctr task ls | grep -q STOPPED; do sleep 0.1; done
$ctr task rm c2 2>/dev/null || echo code $?
$ctr container rm c2
"""
CONFIG = """
version = 2
root = "/home/alice/containerd/root"
state = "/home/alice/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "/home/alice/containerd/containerd.sock"
"""


def test_containerd_as_root_of_a_user_namespace(rig: Machine) -> None:
    """The runc v2 shim, without a user bus and without a cgroup to divide."""
    prepare = (
        "podman unshare rm -rf ~/containerd; mkdir ~/containerd; cat > ~/containerd/config.toml"
    )
    rig.run(["sh", "-c", prepare], input=CONFIG)
    saved = "podman save -q -o ~/containerd/alpine.tar docker.io/library/alpine:latest"
    rig.run(["sh", "-c", saved], timeout=120)
    try:
        # Of its own: podman's user namespace has one mount namespace for all its commands.
        argv = ["podman", "unshare", "unshare", "--mount", "bash", "-c", CONTAINERD]
        done = rig.run(argv, input="", timeout=240)
    finally:
        # The shim of a container that is gone ends by itself, and may still write.
        remove = "until podman unshare rm -rf ~/containerd; do sleep 0.1; done"
        rig.run(["sh", "-c", remove])
    lines = done.stdout.splitlines()
    assert lines[:5] == ["0", "code 5", "RUNNING", "exec", "code 3"]
