"""Hostile images, commands that meet them, and what changed outside while they ran.

The canaries are files of the user's that an escape would reach: ~/.canary/secret and /tmp/rig hold
a random token; directories, links and a FIFO wait for whoever follows a link out of a container.
Every command is run between two looks at them (`Outcome.changed`), with the token in its
environment: what it printed must not hold it.
"""

from __future__ import annotations

import io
import itertools
import json
import secrets
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any, NamedTuple

from namespace import probe_box
from rig.ociimage import Entry, directory, symlink

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from rig.machine import Machine
    from rig.ociimage import Image

OUT = "/tmp/rig/out"
APPLETS = ("sh", "cat", "ls", "sleep", "dd", "mkdir", "ln", "mv", "rm", "touch", "chmod")
TOKEN_FILE = "/tmp/rig/secret"
UP = "../../../../../../.."

_MAKE = """
umask 077
rm -rf /tmp/rig ~/.canary
mkdir -p /tmp/rig/out /tmp/rig/full/sub ~/.canary/out
printf %s "$1" | tee /tmp/rig/secret /tmp/rig/f /tmp/rig/full/file >~/.canary/secret
mkfifo /tmp/rig/fifo
ln -s out /tmp/rig/link
chmod 4755 /tmp/rig/f
"""

# Runs on the machine, as the user: commands one after the other, each between two looks.
_RUNNER = """
import hashlib, json, os, resource, stat, subprocess, sys, time
order = json.load(sys.stdin)
HOME = os.path.expanduser("~")

def look(path):
    found = os.lstat(path)
    line = [path, oct(found.st_mode), found.st_uid, found.st_gid, found.st_nlink, found.st_ino]
    if stat.S_ISREG(found.st_mode):
        line += [found.st_size, found.st_mtime_ns]
        line.append(hashlib.sha256(open(path, "rb").read()).hexdigest())
        line += [(name, os.getxattr(path, name).hex()) for name in os.listxattr(path)]
    elif stat.S_ISLNK(found.st_mode):
        line.append(os.readlink(path))
    return str(line)

def canaries():
    lines = []
    for top in ("/tmp/rig", HOME + "/.canary"):
        lines.append(look(top))
        for path, directories, files in os.walk(top):
            lines += [look(os.path.join(path, name)) for name in directories + files]
    for name in os.listdir(HOME):
        path = os.path.join(HOME, name)
        lines.append(look(path) if os.path.isfile(path) else path)
    for top in ("/", "/tmp", "/var/tmp", "/etc", "/home"):
        lines += [f"{top}/{name}" for name in os.listdir(top) if not name.startswith("systemd-")]
    with open("/proc/self/mountinfo") as mounts:
        lines += [line.split(" ", 2)[2] for line in mounts]
    return sorted(lines)

def run(argv):
    into = [subprocess.PIPE, subprocess.PIPE]
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=into[0], stderr=into[1])
    try:
        out, err = child.communicate(timeout=order["timeout_s"])
    except subprocess.TimeoutExpired:
        child.kill()
        out, err = child.communicate()
        return -1000, out, err
    return child.returncode, out, err

def attempt(argv):
    # In a process of its own, whose children's peak is this command's alone.
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        code, out, err = run(argv)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        told = [code, out.decode("latin-1"), err.decode("utf-8", "replace"), peak]
        with open(writer, "w") as file:
            json.dump(told, file)
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        told = json.load(file)
    os.waitpid(pid, 0)
    return told

answers = []
before = canaries()
end = time.monotonic() + order["for_s"]
while not answers or time.monotonic() < end:
    for argv in order["commands"]:
        code, out, err, peak = attempt(argv)
        after = canaries()
        changed = ["- " + line for line in before if line not in after]
        changed += ["+ " + line for line in after if line not in before]
        answers.append([code, out, err, peak, changed])
        before = after
json.dump(answers, sys.stdout)
"""


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    """-1000: it had to be killed."""
    stdout: str
    """Each byte a character."""
    stderr: str
    peak_kib: int
    """The largest process that it waited for, and that those waited for."""
    changed: tuple[str, ...]
    """What differs outside of containers."""

    def report(self) -> Any:
        """Return what the probe printed."""
        return json.loads(self.stdout)


class Host(NamedTuple):
    """The machine with its canaries."""

    machine: Machine
    token: str

    def attempt(
        self, commands: Sequence[Sequence[str]], *, timeout_s: float = 200, for_s: float = 0
    ) -> list[Outcome]:
        """Run commands one after the other; fail where one tells the token or breaks.

        They are all run again and again until for_s seconds are over.
        """
        argvs = [list(each) for each in commands]
        order = {"commands": argvs, "timeout_s": timeout_s, "for_s": for_s}
        done = self.machine.run(
            ["python3", "-I", "-c", _RUNNER],
            input=json.dumps(order),
            timeout=30 + for_s + timeout_s * len(commands),
            env={"HOSTSECRET": self.token},
        )
        found = [
            Outcome(code, out, err, peak, tuple(changed))
            for code, out, err, peak, changed in json.loads(done.stdout)
        ]
        for argv, each in zip(itertools.cycle(commands), found, strict=False):
            assert self.token not in each.stdout + each.stderr, argv
            assert "Traceback" not in each.stderr, each.stderr
            assert "internal error" not in each.stderr, each.stderr
        return found

    def one(self, *argv: str, timeout_s: float = 200) -> Outcome:
        """Run one command."""
        return self.attempt([argv], timeout_s=timeout_s)[0]

    def holders_of_the_token(self) -> str:
        """Return the files of rp, units and logs of the user in which the token is."""
        script = """
            grep -rlF --devices=skip -e "$1" ~/.local/share/rootlesspy ~/.config \
                "$XDG_RUNTIME_DIR/rootlesspy" 2>/dev/null
            journalctl --user --no-pager -q 2>/dev/null | grep -F -e "$1"
            systemctl --user show '*' 2>/dev/null | grep -F -e "$1"; :"""
        return str(self.machine.run(["sh", "-c", script, "sh", self.token]).stdout)


def prepare(machine: Machine) -> Iterator[Host]:
    """Put the canaries out; take them in afterwards."""
    token = f"token-{secrets.token_hex(16)}"
    machine.run(["sh", "-c", _MAKE, "sh", token])
    yield Host(machine, token)
    machine.run(["sh", "-c", "chmod -R u+rwX /tmp/rig ~/.canary; rm -rf /tmp/rig ~/.canary"])


def racer(build_directory: Path) -> Entry:
    """Return /racer, the program that attacks where speed matters."""
    binary = probe_box.compiled(probe_box.SOURCE.with_name("racer.c"), build_directory)
    return Entry("racer", data=binary.read_bytes(), mode=0o755)


def base(machine: Machine, build_directory: Path) -> list[Entry]:
    """Return the layer below every trap: a shell and the probe, both static, and accounts."""
    busybox = machine.run(["cat", "/bin/busybox"], binary=True).stdout
    probe = probe_box.compiled(probe_box.SOURCE, build_directory).read_bytes()
    return [
        directory("bin"),
        Entry("bin/busybox", data=busybox, mode=0o755),
        *(symlink(f"bin/{name}", "busybox") for name in APPLETS),
        Entry("probe", data=probe, mode=0o755),
    ]


ACCOUNTS = (
    directory("etc"),
    Entry("etc/passwd", data=b"root:x:0:0::/:/bin/sh\nbob:x:1000:100::/home/bob:/bin/sh\n"),
    Entry("etc/group", data=b"root:x:0:\nusers:x:100:\nextra:x:300:bob\n"),
)


def layout(images: Mapping[str, Image]) -> bytes:
    """Return an OCI archive that holds images under their names."""
    manifests, blobs = [], {}
    for name, image in images.items():
        annotations = {"org.opencontainers.image.ref.name": name}
        manifests.append(image.manifest.descriptor(annotations=annotations))
        blobs.update(
            {each.digest: each.data for each in (image.manifest, image.config, *image.layers)}
        )
    members = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": manifests}).encode(),
        **{f"blobs/{digest.replace(':', '/')}": data for digest, data in blobs.items()},
    }
    return packed(members)


def packed(members: Mapping[str, bytes]) -> bytes:
    """Return an ordinary tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def load(
    machine: Machine, images: Mapping[str, Image], *, check: bool = True, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Load images into the user's store in one go."""
    argv = ["rp", "load", "--quiet"]
    done = machine.run(argv, input=layout(images), check=check, timeout=timeout)
    return subprocess.CompletedProcess(
        argv, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def harmless(outcome: Outcome, codes: Sequence[int] = (0, 125)) -> Outcome:
    """Check that a command has harmed nothing, and failed in one line and a hint if at all."""
    assert outcome.changed == ()
    assert outcome.code in codes, (outcome.code, outcome.stderr)
    if outcome.code == 125:
        assert outcome.stderr.startswith("rp: ")
        assert len(outcome.stderr.splitlines()) <= 2
    return outcome
