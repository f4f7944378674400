"""`rp run` from the front door: what the payload is, sees, and hands back."""

from __future__ import annotations

import hashlib
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest
from rig.effort import effort

if TYPE_CHECKING:
    from rig.machine import Machine

pytestmark = pytest.mark.namespace


def _rp(rig: Machine, image: str, *command: str, options: tuple[str, ...] = ()) -> str:
    return str(rig.run(["rp", "run", "--rm", *options, image, *command]).stdout)


def test_alpine_says_who_it_is(rig: Machine, alpine: str, leaves_nothing: None) -> None:
    release = _rp(rig, alpine, "cat", "/etc/os-release")
    assert "NAME=" in release


def test_an_absent_image_is_pulled_with_a_line_per_layer(rig: Machine) -> None:
    rig.run(["rp", "rmi", "-f", "busybox"], check=False)
    done = rig.run(["rp", "run", "--rm", "busybox", "echo", "hello"], timeout=120)
    assert done.stdout == "hello\n"
    assert re.search(r"[0-9a-f]{12}: done", done.stderr)
    quiet = rig.run(["rp", "run", "--rm", "--pull=never", "busybox", "echo", "again"])
    assert (quiet.stdout, quiet.stderr) == ("again\n", "")


def test_only_its_own_processes(rig: Machine, alpine: str, leaves_nothing: None) -> None:
    lines = _rp(rig, alpine, "ps", "-o", "pid,args").split("\n")
    assert [line.split() for line in lines[1:] if line] == [["1", "ps", "-o", "pid,args"]]


def test_own_namespaces(rig: Machine, alpine: str) -> None:
    kinds = ("user", "mnt", "pid", "net", "uts", "ipc", "cgroup")
    script = f"for kind in {' '.join(kinds)}; do readlink /proc/self/ns/$kind; done"
    inside = _rp(rig, alpine, "sh", "-c", script).split()
    outside = rig.run(["readlink", *(f"/proc/self/ns/{kind}" for kind in kinds)]).stdout.split()
    assert len(inside) == len(outside) == len(kinds)
    assert not set(inside) & set(outside)


def test_hostname_is_the_short_id_or_what_was_asked(rig: Machine, alpine: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}\n", _rp(rig, alpine, "hostname"))
    options = ("--hostname", "web.example")
    assert _rp(rig, alpine, "hostname", options=options) == "web.example\n"
    assert "web.example" in _rp(rig, alpine, "cat", "/etc/hosts", "/etc/hostname", options=options)


def test_outside_files_are_unreachable(rig: Machine, alpine: str) -> None:
    rig.run(["sh", "-c", "mkdir -p ~/.canary; echo token-$$ > ~/.canary/secret"])
    script = (
        "cat /home/*/.canary/secret /proc/1/root/../home/*/.canary/secret /oldroot; "
        "find / -xdev -name .canary; ls /proc/1/root/home"
    )
    found = rig.run(
        ["rp", "run", "--rm", alpine, "sh", "-c", script],
        check=False,
    )  # fmt: skip
    assert "token-" not in found.stdout
    assert ".canary" not in found.stdout


def test_owners_inside_and_outside(rig: Machine, alpine: str) -> None:
    rig.run(["sh", "-c", "rm -rf ~/owned; mkdir -m 777 ~/owned"])
    home = rig.run(["sh", "-c", "echo -n ~"]).stdout
    volume = ("-v", f"{home}/owned:/mnt")
    _rp(rig, alpine, "touch", "/mnt/root", options=volume)
    _rp(rig, alpine, "touch", "/mnt/1000", options=(*volume, "-u", "1000"))
    owners = rig.run(["stat", "-c", "%u", f"{home}/owned/root", f"{home}/owned/1000"]).stdout
    first = int(rig.run(["sh", "-c", "grep ^$USER: /etc/subuid"]).stdout.split(":")[1])
    assert [int(owner) for owner in owners.split()] == [rig.uid, first + 999]


def test_keep_id_is_the_user_inside_and_outside(rig: Machine, alpine: str) -> None:
    rig.run(["sh", "-c", "rm -rf ~/kept; mkdir ~/kept"])
    home = rig.run(["sh", "-c", "echo -n ~"]).stdout
    options = ("--userns", "keep-id", "-v", f"{home}/kept:/mnt")
    script = "id -u; stat -c %u / /etc/passwd; touch /mnt/mine"
    said = _rp(rig, alpine, "sh", "-c", script, options=options)
    assert said.split() == [str(rig.uid), "0", "0"]
    assert rig.run(["stat", "-c", "%u", f"{home}/kept/mine"]).stdout.split() == [str(rig.uid)]


@pytest.mark.row("X3", "125, 126, 127 or the command's own")
@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["true"], 0, ""),
        (["sh", "-c", "exit 3"], 3, ""),
        (["sh", "-c", "exit 125"], 125, ""),
        (["sh", "-c", "kill -9 $$; kill -TERM $$; exit 6"], 6, ""),
        (["nosuch"], 127, "'nosuch' is not found"),
        (["/no/such"], 127, "'/no/such' is not found"),
        (["/etc/passwd"], 126, "permission denied"),
        (["/etc"], 126, "permission denied"),
    ],
)
def test_exit_codes(
    rig: Machine, alpine: str, leaves_nothing: None, command: list[str], code: int, words: str
) -> None:
    done = rig.run(["rp", "run", "--rm", alpine, *command], check=False)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") <= 2


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["-u", "nosuch"], 125, "user 'nosuch' is not in /etc/passwd"),
        (["-u", "4294967296"], 125, "4294967296"),
        (["-w", "/nope"], 127, "working directory '/nope'"),
        (["-v", "/nope:/x"], 125, "volume source /nope"),
        (["--memory", "12x"], 125, "--memory '12x'"),
        (["--nosuch"], 125, "unknown option --nosuch"),
        (["--network", "nosuch"], 125, "network 'nosuch' does not exist"),
        (["-p", "80:80"], 125, "privileged"),
        (["--name", "../x"], 125, "is not valid"),
        (["--property", "Nosuch=1"], 125, "Nosuch"),
        (["--sysctl", "kernel.core_pattern=x"], 125, "core_pattern"),
        (["--sysctl", "net..ipv4=1"], 125, "net..ipv4"),
        (["-v", "/tmp:/proc"], 125, "/proc"),
        (["--device", "/dev/nosuch"], 125, "/dev/nosuch"),
        (["--security-opt", "seccomp=/nope"], 125, "/nope"),
        (["--cap-add", "NOSUCH"], 125, "NOSUCH"),
        (["--ulimit", "nofile=99999999"], 125, "nofile"),
        (["--userns", "nosuch"], 125, "nosuch"),
        (["--cidfile", "/nope/cid"], 125, "/nope/cid"),
        (["--rootfs"], 125, "not a directory"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    rig: Machine, alpine: str, leaves_nothing: None, options: list[str], code: int, words: str
) -> None:
    before = rig.run(["rp", "ps", "-aq"]).stdout
    done = rig.run(["rp", "run", "--rm", *options, alpine, "true"], check=False)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("rp: ")
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: "))
    assert rig.run(["rp", "ps", "-aq"]).stdout == before


@pytest.mark.row("U4", "125 that names what is wrong")
@pytest.mark.row("X5", "125 that names what is wrong")
@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"XDG_RUNTIME_DIR": "/nope"}, "XDG_RUNTIME_DIR"),
        ({"HOME": "relative"}, "HOME"),
        ({"HOME": ""}, "HOME"),
    ],
)
def test_u4_x5_a_bad_environment_is_named(
    rig: Machine, alpine: str, environment: dict[str, str], words: str
) -> None:
    done = rig.run(["rp", "run", "--rm", alpine, "true"], check=False, env=environment)
    assert done.returncode == 125
    assert words in done.stderr


@pytest.mark.row("U4", "the private socket is used")
def test_a_wrong_bus_address_does_no_harm(rig: Machine, alpine: str) -> None:
    wrong = {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nope"}
    rig.run(["rp", "run", "--rm", alpine, "true"], env=wrong)


def test_a_name_in_use_names_its_holder(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "run", "--name", "taken", alpine, "true"])
    holder = rig.run(["rp", "ps", "-aq", "--filter", "name=taken"]).stdout.strip()
    done = rig.run(["rp", "run", "--name", "taken", alpine, "true"], check=False)
    assert (done.returncode, holder in done.stderr) == (125, True)
    rig.run(["rp", "rm", "taken"])
    again = rig.run(["rp", "rm", "taken"], check=False)
    assert (again.returncode, "taken" in again.stderr) == (1, True)


@pytest.mark.parametrize(
    ("options", "script", "said"),
    [
        (["-e", "A=b c", "-e", "B="], 'echo "$A|$B|$HOME|$container"', "b c||/root|rootlesspy"),
        (["-w", "/usr"], "pwd", "/usr"),
        (["--read-only"], "touch /x 2>/dev/null || echo ro; touch /tmp/x && echo rw", "ro\nrw"),
        (["--tmpfs", "/x:size=1m"], "df -k /x | awk 'END {print $2}'", "1024"),
        (["--shm-size", "2m"], "df -k /dev/shm | awk 'END {print $2}'", "2048"),
        (["--ulimit", "nofile=64:128"], "ulimit -n; ulimit -Hn", "64\n128"),
        (["--sysctl", "net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward", "1"),
        (["--umask", "077"], "umask", "0077"),
        (["--add-host", "db:10.1.2.3"], "grep -w db /etc/hosts", "10.1.2.3\tdb"),
        (["--dns", "9.9.9.9"], "cat /etc/resolv.conf", "nameserver 9.9.9.9"),
        (["--init"], "tr '\\0' ' ' < /proc/1/cmdline; ps -o comm | sed -n 2p", None),
        (["-u", "1234:55"], "id -u; id -g", "1234\n55"),
        (["--group-add", "audio", "-u", "1234"], "id -G", "0 18"),
        (["--cgroups", "disabled"], "echo fine", "fine"),
    ],
)
def test_options_mean_what_podman_means(
    rig: Machine, alpine: str, options: list[str], script: str, said: str | None
) -> None:
    done = rig.run(["rp", "run", "--rm", *options, alpine, "sh", "-c", script], check=False)
    assert done.returncode == 0, done.stderr
    if said is None:
        assert done.stdout.startswith("/run/rp-init -- sh -c ")
    else:
        assert done.stdout.strip() == said


def test_everything_after_the_image_is_the_containers(rig: Machine, alpine: str) -> None:
    words = ["--rm", "-it", "--", "-v", "--help"]
    said = _rp(rig, alpine, "sh", "-c", 'printf "%s\\n" "$@"', "x", *words)
    assert said.split("\n")[:-1] == words


@pytest.mark.parametrize("word", ["--detach=true", "--detach=1"])
def test_detached_by_a_word_that_looks_attached(
    rig: Machine, alpine: str, leaves_nothing: None, word: str
) -> None:
    done = rig.run(["rp", "run", word, "--rm", alpine, "sleep", "100"])
    assert not done.stderr
    assert len(done.stdout.strip()) == 64
    rig.run(["rp", "rm", "-f", "-t", "0", done.stdout.strip()])


def test_cidfile_holds_the_id(rig: Machine, alpine: str) -> None:
    rig.run(["sh", "-c", "rm -f ~/cid"])
    home = rig.run(["sh", "-c", "echo -n ~"]).stdout
    host_name = _rp(rig, alpine, "hostname", options=("--cidfile", f"{home}/cid"))
    assert rig.run(["cat", f"{home}/cid"]).stdout.startswith(host_name.strip())


def test_without_i_stdin_is_empty(rig: Machine, alpine: str) -> None:
    done = rig.run(["rp", "run", "--rm", alpine, "cat"], input="nothing of this")
    assert done.stdout == ""


@pytest.mark.row("R11", "works")
@pytest.mark.parametrize("closing", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_stdio(rig: Machine, alpine: str, closing: str) -> None:
    script = f"rp run -i --rm {alpine} sh -c 'cat; exit 5' {closing}"
    assert rig.run(["sh", "-c", script], check=False).returncode == 5


def test_binary_data_passes_both_ways_unchanged(rig: Machine, alpine: str) -> None:
    data = os.urandom(16 << 20)
    done = rig.run(["rp", "run", "-i", "--rm", alpine, "cat"], input=data, timeout=120)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_much_data_through_pipes(rig: Machine, alpine: str, leaves_nothing: None) -> None:
    size = effort(1 << 27, 1 << 30)
    wanted = hashlib.sha256(bytes(size)).hexdigest()
    script = (
        f"head -c {size} /dev/zero | tee >(sha256sum > /tmp/in.sum) |"
        f" rp run -i --rm {alpine} sh -c 'cat | cat' | sha256sum > /tmp/out.sum;"
        # Nobody waits for what is in >().
        " until [ -s /tmp/in.sum ]; do sleep 0.1; done;"
        " cat /tmp/in.sum /tmp/out.sum; rm /tmp/in.sum /tmp/out.sum"
    )
    sums = rig.run(["bash", "-c", script], timeout=300).stdout.split()
    assert sums[0] == sums[2] == wanted


@pytest.mark.row("R11", "ends without a word")
def test_r11_a_reader_that_leaves_early(rig: Machine, alpine: str, leaves_nothing: None) -> None:
    script = f"yes | rp run -i --rm {alpine} cat | head -1; echo ${{PIPESTATUS[1]}}"
    done = rig.run(["bash", "-c", script])
    assert done.stdout.split() == ["y", "1"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGQUIT, 131), (signal.SIGUSR1, 138)],
)
def test_a_signal_ends_a_payload_that_does_not_handle_it(
    rig: Machine, alpine: str, leaves_nothing: None, number: int, code: int
) -> None:
    with rig.popen(["rp", "run", "--rm", alpine, "sleep", "617"]) as running:
        # It alone has these words; a shell before it would catch SIGINT, and lose it in its exec.
        rig.run(["sh", "-c", "until pgrep -fx 'sleep 617' >/dev/null; do sleep 0.05; done"])
        running.send_signal(number)
        assert running.wait(120) in (code, code - 128 - 128, -number)


def test_a_signal_reaches_a_payload_that_handles_it(
    rig: Machine, alpine: str, leaves_nothing: None
) -> None:
    script = 'trap "echo got; exit 9" TERM; echo ready; while :; do sleep 0.05; done'
    running = rig.popen(["rp", "run", "--rm", alpine, "sh", "-c", script], stdout=-1, text=True)
    with running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGTERM)
        assert running.stdout.read() == "got\n"
        assert running.wait(120) == 9


def test_debug_timing_shows_where_time_goes(rig: Machine, alpine: str) -> None:
    argv = ["rp", "--debug-timing", "run", "--rm", "--network", "none", alpine, "echo", "hello"]
    result = rig.run(argv)
    assert result.stdout == "hello\n"
    lines = result.stderr.splitlines()
    assert all(line.startswith("rp: timing: ") for line in lines)
    for step in ("rp: make the container", "supervisor: write the id maps", "init: pivot"):
        assert any(line.endswith(f"  {step}") for line in lines), step
