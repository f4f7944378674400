"""What ordinary images do, under all that the catalogue asks for: they still work."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from namespace import hostile
from namespace.test_network_servers import MAKE_IMAGE
from rig import ociimage
from rig.effort import effort
from rig.ociimage import Entry, directory

if TYPE_CHECKING:
    from pathlib import Path

    from rig.machine import Machine

pytestmark = pytest.mark.limit(600)

RUN = ("rp", "run", "--rm", "--net=none")
# write(1, "32\n", 3); exit(0): by int 0x80, as programs of i386 do.
I386 = """
.globl _start
_start:
    mov $4, %eax; mov $1, %ebx; mov $text, %ecx; mov $3, %edx; int $0x80
    mov $1, %eax; xor %ebx, %ebx; int $0x80
.data
text: .ascii "32\\n"
"""
# As a virtual machine's: many threads that come and go, locks, signals between them.
THREADS = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile sig_atomic_t stopped;
static long count;

static void stop(int number) { (void)number; stopped++; }

static void *work(void *argument)
{
    char *heap = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE | PROT_EXEC,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (heap == MAP_FAILED)
        abort();
    heap[4096] = 1;
    mprotect(heap, 4096, PROT_NONE);
    pthread_mutex_lock(&lock);
    count++;
    pthread_mutex_unlock(&lock);
    munmap(heap, 1 << 20);
    return argument;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 1;
    pthread_t threads[200];
    signal(SIGUSR2, stop);
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < 200; i++)
            if (pthread_create(&threads[i], NULL, work, NULL))
                return 2;
        pthread_kill(pthread_self(), SIGUSR2);
        for (int i = 0; i < 200; i++)
            pthread_join(threads[i], NULL);
    }
    printf("%ld %d\n", count, stopped == rounds);
    return 0;
}
"""
DATABASE = """
/pg/initdb -D /tmp/data -A trust --no-locale -E UTF8 --no-sync >/tmp/initdb.log
/pg/postgres -D /tmp/data -c fsync=off -c listen_addresses= -c unix_socket_directories=/tmp &
until /pg/psql -h /tmp -U postgres -Atc 'select 6 * 7' 2>/dev/null; do sleep 0.2; done
"""
# systemd of the machine as the payload, with nothing to start but a shell script.
SYSTEMD = r"""
set -eu
root=$1; mkdir -p "$root"; cd "$root"
mkdir -p proc sys dev run tmp var/log etc/systemd/system root usr
for program in /usr/lib/systemd/systemd /usr/lib/systemd/systemd-executor \
    /usr/lib/systemd/systemd-shutdown /usr/bin/systemctl /usr/bin/dash /usr/bin/cat; do
    [ -e $program ] || continue
    ldd $program | grep -o '/[^ ]*' | xargs cp -aL --parents -t . 2>/dev/null || :
    cp -aL --parents $program .
done
for name in bin lib lib64; do
    [ -e "$name" ] && [ ! -L "$name" ] && cp -a "$name/." "usr/$name/" && rm -r "$name"
    ln -s "usr/$name" "$name"
done
echo 'root:x:0:0::/root:/bin/dash' >etc/passwd; echo 'root:x:0:' >etc/group
: >etc/machine-id; echo ID=test >usr/lib/os-release
cat >etc/systemd/system/default.target <<END
[Unit]
Description=Said
Wants=said.service
END
cat >etc/systemd/system/said.service <<END
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
StandardOutput=file:/run/said
ExecStart=/usr/bin/dash -c 'echo systemd is \$\$PPID'
ExecStartPost=/usr/bin/systemctl --force --force exit 7
END
"""


def compiled(source: str, directory: Path, *options: str, suffix: str = ".c") -> bytes:
    """Return a program; skip where it cannot be made."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: apt install gcc libc6-dev")
    path = directory / f"program{suffix}"
    path.write_text(source, encoding="ascii")
    argv = [compiler, *options, "-static", "-o", str(directory / "program"), str(path)]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip(f"gcc {' '.join(options)} makes no programs here")
    return (directory / "program").read_bytes()


@pytest.fixture(scope="module")
def base(rig: Machine, _fresh_start: None, tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    """Return the files below all images here."""
    accounts = (*hostile.ACCOUNTS, directory("tmp", 0o1777))
    return [*hostile.base(rig, tmp_path_factory.mktemp("probe")), *accounts]


def load(rig: Machine, base: list[Entry], name: str, *entries: Entry) -> str:
    image = ociimage.image([ociimage.tar(base), ociimage.tar(entries)], {"Cmd": ["/probe"]})
    hostile.load(rig, {name: image})
    return f"localhost/{name}"


@pytest.mark.row("positive Alpine", "accounts, su, mounts, pipes, archives, background jobs")
def test_alpine(rig: Machine, alpine: str) -> None:
    script = """
        set -e; adduser -D -u 1234 carol; su carol -c 'id -u; touch ~/f'; mount | grep -c proc >/n
        mkdir -p /srv/a; cd /srv/a; echo x | tee b >/dev/null; tar cz . | tar tz | sort; df >/n
        chown carol:carol b; stat -c %U b; (sleep 0.1 & wait); hostname | wc -l"""
    done = rig.run([*RUN, alpine, "sh", "-c", script])
    assert done.stdout.split() == ["1234", "./", "./b", "carol", "1"]


@pytest.mark.row(
    "positive setuid",
    "with no-new-privileges=false it becomes its owner; without, it runs as the caller",
)
def test_setuid_program(rig: Machine, base: list[Entry]) -> None:
    probe = next(each.data for each in base if each.name == "probe")
    name = load(rig, base, "setuid", Entry("setuid", data=probe, mode=0o4755))
    options = ("--user", "1000")
    allowed = (*options, "--security-opt", "no-new-privileges=false")
    for more, effective in ((options, 1000), (allowed, 0)):
        report = json.loads(rig.run([*RUN, *more, name, "/setuid"]).stdout)
        assert report["uids"] == [1000, effective, effective]


@pytest.mark.row(
    "positive file capabilities", "with no-new-privileges=false it has the file's capability"
)
def test_file_capabilities(rig: Machine, base: list[Entry]) -> None:
    """CAP_NET_BIND_SERVICE, effective: what the ping and web server packages use."""
    probe = next(each.data for each in base if each.name == "probe")
    attribute = b"\1\0\0\2" + (1 << 10).to_bytes(4, "little") + bytes(12)
    pax = {"SCHILY.xattr.security.capability": attribute}
    name = load(rig, base, "capable", Entry("capable", data=probe, mode=0o755, pax=pax))
    options = ("--user", "1000", "--security-opt", "no-new-privileges=false")
    report = json.loads(rig.run([*RUN, *options, name, "/capable"]).stdout)
    assert int(report["status"]["CapEff"], 16) == 1 << 10


@pytest.mark.row("positive 32-bit", "a program of i386, by int 0x80")
def test_a_32_bit_program(rig: Machine, base: list[Entry], tmp_path: Path) -> None:
    options = ("-m32", "-nostdlib", "-nostartfiles", "-no-pie")
    program = compiled(I386, tmp_path, *options, suffix=".s")
    name = load(rig, base, "i386", Entry("i386", data=program, mode=0o755))
    assert rig.run([*RUN, name, "/i386"]).stdout == "32\n"


@pytest.mark.row("positive threads", "200 threads at a time, signals, executable memory")
def test_many_threads(rig: Machine, base: list[Entry], tmp_path: Path) -> None:
    program = compiled(THREADS, tmp_path, "-O2", "-pthread")
    name = load(rig, base, "threads", Entry("threads", data=program, mode=0o755))
    rounds = effort(5, 200)
    done = rig.run([*RUN, name, "/threads", str(rounds)], timeout=300)
    assert done.stdout == f"{rounds * 200} 1\n"


@pytest.mark.row("positive PostgreSQL", "initdb, the server and a client")
def test_postgresql(rig: Machine) -> None:
    if not rig.has_root or rig.run(["sh", "-c", "ls /usr/lib/postgresql"], check=False).returncode:
        pytest.skip("needs a machine with PostgreSQL, whose programs are copied")
    rig.root(["sh", "-c", MAKE_IMAGE])
    rig.run(["rp", "import", "-q", "/tmp/servers.tar", "localhost/database"], timeout=300)
    options = ("--user", "postgres", "--tmpfs", "/dev/shm:mode=1777")
    done = rig.run([*RUN, *options, "localhost/database", "sh", "-ec", DATABASE], timeout=300)
    rig.root(["rm", "-f", "/tmp/servers.tar"])
    assert "42" in done.stdout.split()


@pytest.mark.row("positive Debian", "its accounts, getent and Perl")
@pytest.mark.nightly
def test_debian(rig: Machine) -> None:
    """Debian's own tools, with the files of the machine's packages."""
    if not rig.has_root:
        pytest.skip("needs a machine that is Debian")
    files = "bin sbin lib lib64 usr/bin usr/lib64 usr/lib/x86_64-linux-gnu usr/share/perl5 etc"
    make = f"tar -C / -c {files}"
    archive = f"{make} --exclude=etc/shadow* --exclude=etc/gshadow* -f /tmp/debian.tar 2>/dev/null"
    rig.root(["sh", "-c", f"{archive}; chmod 644 /tmp/debian.tar"])
    rig.run(["rp", "import", "-q", "/tmp/debian.tar", "localhost/debian"], timeout=500)
    rig.root(["rm", "-f", "/tmp/debian.tar"])
    script = "id -un; getent passwd daemon | cut -d: -f1; perl -e 'print 6*7, qq(\\n)'"
    done = rig.run([*RUN, "localhost/debian", "bash", "-c", script])
    assert done.stdout.split() == ["root", "daemon", "42"]


@pytest.mark.row(
    "positive systemd", "it is PID 1, starts a service and exits with the code it was told"
)
@pytest.mark.nightly
def test_systemd_as_payload(rig: Machine) -> None:
    root = "/home/alice/systemd-root"
    rig.run(["sh", "-c", SYSTEMD, "sh", root], timeout=120)
    # A cgroup that it may divide, and what it wants to be empty.
    options = ("--privileged", "--tmpfs", "/run", "--tmpfs", "/tmp", "--env", "container=rp")
    argv = ["rp", "run", "--net=none", "--name", "systemd", *options, "--rootfs", root]
    done = rig.run(
        [*argv, "/usr/lib/systemd/systemd", "--log-target=console"], check=False, timeout=300
    )
    rig.run(["rp", "rm", "--force", "--time", "0", "systemd"])
    rig.run(["sh", "-c", f"chmod -R u+rwX {root}; rm -rf {root}"])
    assert done.returncode == 7, done.stdout + done.stderr
