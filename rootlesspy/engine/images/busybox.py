"""`rp bootstrap busybox`: an image of one static program, made without any registry.

The same program gives the same image, wherever and whenever it is made.
"""

from __future__ import annotations

import os
import struct
import subprocess

from rootlesspy.errors import Error, Unsupported
from rootlesspy.image import tar
from rootlesspy.image.pax import PaxWriter
from rootlesspy.image.tar import Entry
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAMS = ("/bin/busybox", "/usr/bin/busybox", "/usr/lib/busybox/busybox-static")
_ELF = b"\x7fELF"
_PT_INTERP = 3
_MAX_PROGRAM_BYTES = 64 << 20
_TIMEOUT_S = 30
_DIRECTORIES = (
    ("", 0o755), ("bin", 0o755), ("dev", 0o755), ("etc", 0o755), ("home", 0o755), ("lib", 0o755),
    ("proc", 0o555), ("root", 0o700), ("run", 0o755), ("sbin", 0o755), ("sys", 0o555),
    ("tmp", 0o1777), ("usr", 0o755), ("usr/bin", 0o755), ("usr/sbin", 0o755), ("var", 0o755),
    ("var/spool", 0o755), ("var/tmp", 0o1777), ("var/www", 0o755),
)  # fmt: skip
_FILES = {
    "etc/group": "root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nadm:x:4:\ntty:x:5:\n"
    "disk:x:6:\nmail:x:8:\nwheel:x:10:root\nwww-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    "bin:x:2:2:bin:/bin:/bin/false\nsys:x:3:3:sys:/dev:/bin/false\n"
    "mail:x:8:8:mail:/var/spool/mail:/bin/false\n"
    "www-data:x:33:33:www-data:/var/www:/bin/false\n"
    "nobody:x:65534:65534:nobody:/home:/bin/false\n",
    "etc/shadow": "root:*:::::::\n",
}
_MODES = {"etc/shadow": 0o600}


class Program(NamedTuple):
    """A static busybox: its bytes, what it calls itself, the paths of its applets."""

    data: bytes
    version: str
    applets: tuple[str, ...]


def find(paths: Sequence[str] = PROGRAMS) -> Program:
    """Return the busybox of this machine that needs no library.

    Raises Unsupported where there is none, Error when it does not work.
    """
    dynamic = ""
    for path in paths:
        try:
            with open(path, "rb") as file:
                data = file.read(_MAX_PROGRAM_BYTES)
        except OSError:
            continue
        if is_static(data):
            return Program(data, _version(path), _applets(path))
        dynamic = path
    raise Unsupported(
        f"{dynamic} needs libraries" if dynamic else "there is no busybox on this machine",
        hint="as root: apt-get install busybox-static",
    )


def is_static(data: bytes) -> bool:
    """Say whether a program is an ELF file without an interpreter: elf(5)."""
    if data[:4] != _ELF or len(data) < 64 or data[4] not in (1, 2) or data[5] not in (1, 2):
        return False
    order = "<" if data[5] == 1 else ">"
    is_64 = data[4] == 2
    start: int = struct.unpack_from(
        f"{order}Q" if is_64 else f"{order}I", data, 32 if is_64 else 28
    )[0]
    size: int
    count: int
    size, count = struct.unpack_from(f"{order}HH", data, 54 if is_64 else 42)
    for number in range(count):
        at = start + number * size
        if at + 4 > len(data):
            return False
        if struct.unpack_from(f"{order}I", data, at)[0] == _PT_INTERP:
            return False
    return bool(count)


def write_layer(fd: int, program: Program) -> None:
    """Write a root file system as a tar archive.  Raises OSError."""
    writer = PaxWriter(fd)
    names = {name for name, _ in _DIRECTORIES}
    for name, mode in _DIRECTORIES:
        writer.add(_entry(f"{name or '.'}/", tar.DIRECTORY, mode))
    writer.add(_entry("bin/busybox", tar.REGULAR, 0o755), program.data)
    for applet in program.applets:
        if applet != "bin/busybox" and os.path.dirname(applet) in names - {""}:
            writer.add(_entry(applet, tar.SYMLINK, 0o777, "/bin/busybox"))
    for name, text in sorted(_FILES.items()):
        writer.add(_entry(name, tar.REGULAR, _MODES.get(name, 0o644)), text.encode())
    writer.close()


def _entry(name: str, kind: bytes, mode: int, link: str = "") -> Entry:
    return Entry(
        name=name.encode(),
        kind=kind,
        mode=mode,
        uid=0,
        gid=0,
        size=0,
        mtime_ns=0,
        link=link.encode(),
        device=(0, 0),
        xattrs=(),
    )


def _version(path: str) -> str:
    """Return "1.37.0" of "BusyBox v1.37.0 (Debian 1:1.37.0-6) multi-call binary."."""
    words = _output([path]).partition("\n")[0].split()
    return words[1].removeprefix("v") if len(words) > 1 else ""


def _applets(path: str) -> tuple[str, ...]:
    """Return where applets belong, such as usr/bin/awk, sorted; of one name the first place."""
    found: dict[str, str] = {}
    for line in _output([path, "--list-full"]).splitlines():
        name = line.strip().lstrip("/")
        if name and ".." not in name.split("/"):
            found.setdefault(name, name)
    if not found:
        raise Error(f"{path} --list-full lists no applets")
    return tuple(sorted(found))


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_TIMEOUT_S, env={"LC_ALL": "C"}, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Error(f"cannot run {command[0]}: {error}") from error
    return done.stdout.decode("ascii", "replace")
