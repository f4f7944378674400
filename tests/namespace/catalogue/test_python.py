"""What a program written in Python must not do: import, look up or parse the wrong thing.  I."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

pytestmark = pytest.mark.namespace

# Files that say so when somebody imports them, and pipes that hold whoever opens them.
CANARIES = r"""
set -e
rm -rf ~/canary; mkdir -p ~/canary/said; chmod 777 ~/canary/said; cd ~/canary
version=$(python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
say='import os; os.close(os.open("/said/" + str(os.getpid()), os.O_CREAT | os.O_WRONLY))'
home='import os; os.close(os.open("/home/alice/canary/said/cwd", os.O_CREAT | os.O_WRONLY))'
mkdir -p lib/$version/encodings lib/$version/lib-dynload lib/python3/dist-packages/rootlesspy cwd
for module in traceback linecache _strptime tokenize warnings locale pwd grp re encodings/idna \
        encodings/utf_8 encodings/latin_1 encodings/__init__ sitecustomize usercustomize; do
    echo "$say" > lib/$version/$module.py
done
# Where the sources of what runs are, a traceback would open them.
(cd /usr/lib/python3/dist-packages && find rootlesspy -type d) | while read -r each; do
    mkdir -p "lib/python3/dist-packages/$each"
done
(cd /usr/lib/python3/dist-packages && find rootlesspy -name '*.py') | while read -r each; do
    mkfifo "lib/python3/dist-packages/$each"
done
mkdir -p nss nscd; mkfifo nss/libnss_files.so.2 nss/libnss_systemd.so.2 nscd/socket
echo 'passwd: canary files' > nsswitch.conf
for module in json tarfile ctypes socket typing os re sitecustomize usercustomize typer rich; do
    echo "$home" > cwd/$module.py
done
mkdir cwd/rootlesspy cwd/encodings; echo "$home" > cwd/rootlesspy/__init__.py
echo "$home" > cwd/encodings/__init__.py
chmod -R a+rX .
"""
MOUNTS = (
    "-v", "/home/alice/canary/lib:/usr/lib", "-v", "/home/alice/canary/said:/said",
    "-v", "/home/alice/canary/nsswitch.conf:/etc/nsswitch.conf",
    "-v", "/home/alice/canary/nss:/lib/x86_64-linux-gnu",
    "-v", "/home/alice/canary/nscd:/var/run/nscd",
)  # fmt: skip
NUMBERS = (
    ("-p", "1_0:80"), ("-p", "\uff11\uff10:80"), ("-p", " 10:80"), ("-p", "+10:80"),
    ("--memory", "1_0m"), ("--memory", "\uff11m"), ("--pids-limit", "1_0"), ("--cpus", "1_0"),
    ("--cpus", "\u0661"), ("--stop-timeout", "\uff11"), ("--ulimit", "nofile=1_0"),
    ("--shm-size", "1_0m"), ("--cpu-shares", "1_00"), ("--user", "1_000"), ("--user", "\u0661"),
    ("--umask", "0_22"), ("--health-retries", "1_0"), ("--cpuset-cpus", "\uff10"),
    ("--sysctl", "net.ipv4.ip_unprivileged_port_start=\n1"), ("--oom-score-adj", "1_0"),
)  # fmt: skip
ODD_NAMES = r"""cd /tmp && printf 1 > "$(printf 'a\377b')" && printf 2 > "$(printf 'new\nline')" &&
    printf 3 > '"quoted"\' && printf 4 > '-dash' && sleep 1000"""


@pytest.fixture(scope="module")
def canaries(rig: Machine, alpine: str) -> Iterator[None]:
    """Lay them out; nobody may touch one."""
    rig.run(["sh", "-c", CANARIES])
    # They can be heard.
    place = {"PYTHONPATH": "/home/alice/canary/cwd"}
    rig.run(["python3", "-c", "import json"], env=place, check=False)
    assert touched(rig) == ["cwd"]
    rig.run(["rm", "/home/alice/canary/said/cwd"])
    yield
    rig.run(["rm", "-rf", "/home/alice/canary"])


def touched(rig: Machine) -> list[str]:
    said: str = rig.run(["ls", "/home/alice/canary/said"]).stdout
    return said.split()


@pytest.mark.row("lazy import", "nothing is imported from the container's tree")
@pytest.mark.row("traceback after pivot", "no source is opened there; one line, the right code")
@pytest.mark.row("CVE-2019-14271, NSS", "users are looked up by rp's own reader")
def test_nothing_of_python_or_nss_is_taken_from_the_container(
    rig: Machine, canaries: None, alpine: str, leaves_nothing: None
) -> None:
    base = ["rp", "run", "--rm", "--network=none", *MOUNTS]
    for options, command, code in (
        ((), ("true",), 0), ((), ("nonesuch",), 127), ((), ("/etc",), 126),
        (("--user", "nobody"), ("true",), 0), (("--user", "nonesuch"), ("true",), 125),
        (("--workdir", "/etc/passwd/x"), ("true",), 127), (("-t",), ("nonesuch",), 127),
        (("--group-add", "nonesuch"), ("true",), 125),
        (("--ulimit", "nofile=1:1"), ("true",), None),
    ):  # fmt: skip
        done = rig.run([*base, *options, alpine, *command], check=False, timeout=60)
        assert "Traceback" not in done.stderr
        assert code is None or done.returncode == code, (options, command, done.stderr)
    rig.run([*base[:2], "-d", "--name", "nss", *base[3:], alpine, "sleep", "1000"])
    for words, code in (
        (("exec", "nss", "true"), 0), (("exec", "nss", "nonesuch"), 127),
        (("exec", "--user", "nobody", "nss", "true"), 0),
        (("exec", "-u", "no", "nss", "true"), 125),
        (("exec", "-w", "/none", "nss", "true"), 127), (("top", "nss"), 0), (("diff", "nss"), 0),
        (("cp", "nss:/etc/passwd", "/tmp/nss-passwd"), 0), (("stats", "--no-stream", "nss"), 0),
    ):  # fmt: skip
        done = rig.run(["rp", *words], check=False, timeout=60)
        assert done.returncode == code, (words, done.stderr)
        assert "Traceback" not in done.stderr
    rig.run(["sh", "-c", "rm -f /tmp/nss-passwd; rp rm -f nss"])
    assert touched(rig) == []


@pytest.mark.row("cwd on sys.path", "the working directory and PYTHONPATH are no places of modules")
def test_modules_of_the_working_directory_are_not_imported(
    rig: Machine, canaries: None, alpine: str
) -> None:
    script = f"""cd ~/canary/cwd; export PYTHONPATH=$PWD PYTHONSTARTUP=$PWD/json.py PYTHONHOME=
        set -e
        rp run --rm --network=none {alpine} true; rp run -d --name here --network=none {alpine} \
            sleep 100
        rp exec here true; rp ps -q; rp images -q; rp logs here; rp top here; rp inspect here
        rp cp here:/etc/passwd ../passwd; rp save -o ../save.tar {alpine}; rp doctor || true
        rp healthcheck run here || true; rp stop here; rp start here; rp enable here
        rp disable here; rp rm -f here; rp version; rp --help"""
    done = rig.run(["sh", "-c", script], timeout=300)
    assert "Traceback" not in done.stderr
    assert touched(rig) == []


@pytest.mark.row("numbers and text", "numbers are ASCII digits alone, else 125")
def test_numbers_are_ascii_digits(rig: Machine, alpine: str) -> None:
    for option, value in NUMBERS:
        done = rig.run(["rp", "run", "--rm", option, value, alpine, "true"], check=False)
        assert done.returncode == 125, (option, value, done.stderr)
        assert 1 <= len(done.stderr.splitlines()) <= 2, done.stderr


@pytest.mark.row("numbers and text", "names that are no UTF-8 survive cp, diff and export")
def test_names_of_any_bytes(rig: Machine, alpine: str) -> None:
    argv = ["rp", "run", "-d", "--name", "bytes", "--network=none", alpine, "sh", "-c", ODD_NAMES]
    rig.run(argv)
    script = r"""rm -rf ~/bytes; mkdir ~/bytes; cd ~/bytes
        until rp exec bytes test -s /tmp/-dash; do :; done
        rp diff --format json bytes > diff.json; rp inspect bytes > inspect.json
        rp cp bytes:/tmp out; rp cp out bytes:/back; rp exec bytes sh -c 'cd /back && cat ./*'
        rp export bytes | tar -x -C . tmp; cat tmp/*; ls out | wc -l"""
    done = rig.run(["sh", "-c", script])
    digits = "".join(done.stdout.split())[:8]
    assert sorted(digits) == list("11223344"), done.stdout
    changed = json.loads(rig.run(["cat", "/home/alice/bytes/diff.json"]).stdout)
    assert any("new\nline" in name for name in changed["added"])
    json.loads(rig.run(["cat", "/home/alice/bytes/inspect.json"]).stdout)
    rig.run(["sh", "-c", "rp rm -f bytes; rm -rf ~/bytes"])
