"""Install the project in a rig as a Debian package would, and keep it up to date.

The package with its byte code is staged once per suite in the cache, compiled by that suite's
own Python; rigs get copies.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rig import instance, location, rootfs

if TYPE_CHECKING:
    from collections.abc import Iterator

DIST_PACKAGES = "usr/lib/python3/dist-packages"
PROGRAMS = ("rp", "rp-oci")
_KINDS = (".py", ".json", ".sh")


def sync(rig: instance.Instance) -> bool:
    """Copy what changed since the last time into a running rig; return whether anything did."""
    stamp = rig.directory / "installed"
    key = _key(_sources() | {name: launcher(name) for name in PROGRAMS})
    if stamp.exists() and stamp.read_text(encoding="ascii") == key:
        return False
    tree = Path(rig.tree) if rig.tree else rootfs.ensure(rig.suite, lambda _text: None)
    with staged(rig.suite, tree) as package:
        files = {
            os.fspath(path.relative_to(package)): path
            for path in sorted(package.rglob("*"))
            if path.is_file()
        }
        _copy(files, rig.root / DIST_PACKAGES)
        for name in PROGRAMS:
            program = rig.root / "usr/bin" / name
            half = program.with_name(f"{name}.half")
            shutil.copy(launcher(name), half)
            half.rename(program)
        stamp.write_text(key, encoding="ascii")
    return True


def launcher(name: str) -> Path:
    """Return the file that a package installs as /usr/bin/rp or /usr/bin/rp-oci."""
    return location.REPOSITORY / "packaging" / name


@contextmanager
def staged(suite: str, tree: Path) -> Iterator[Path]:
    """Hold a directory with the package, its byte code and its metadata, all up to date."""
    package = location.cache() / f"staged-{suite}"
    with rootfs.locked(location.cache() / f"staged-{suite}.lock"):
        files = _sources()
        stamp = location.cache() / f"staged-{suite}.key"
        key = _key(files)
        if not stamp.exists() or stamp.read_text(encoding="ascii") != key:
            package.mkdir(exist_ok=True)
            stamp.unlink(missing_ok=True)
            _copy(files, package)
            _write_metadata(package)
            _compile(tree, package)
            stamp.write_text(key, encoding="ascii")
        yield package


def _sources() -> dict[str, Path]:
    package = location.REPOSITORY / "rootlesspy"
    found = (path for kind in _KINDS for path in package.rglob(f"*{kind}"))
    return {os.fspath(path.relative_to(location.REPOSITORY)): path for path in sorted(found)}


def _key(files: dict[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in files.items():
        status = path.stat()
        digest.update(f"{name} {status.st_mtime_ns} {status.st_size}\n".encode())
    return digest.hexdigest()


def _copy(files: dict[str, Path], target: Path) -> None:
    for name, source in files.items():
        destination = target / name
        wanted = source.stat()
        if destination.exists():
            present = destination.stat()
            if (present.st_mtime_ns, present.st_size) == (wanted.st_mtime_ns, wanted.st_size):
                continue
        destination.parent.mkdir(parents=True, exist_ok=True)
        half = destination.with_name(destination.name + ".half")
        shutil.copyfile(source, half)
        os.utime(half, ns=(wanted.st_atime_ns, wanted.st_mtime_ns))
        half.chmod(0o644)
        half.rename(destination)
    _remove_others(files, target)


def _remove_others(files: dict[str, Path], target: Path) -> None:
    sources = {name for name in files if name.endswith(_KINDS)}
    for present in (target / "rootlesspy").rglob("*"):
        name = present.relative_to(target)
        # Byte code belongs to the source beside whose directory it lies.
        if name.parent.name == "__pycache__":
            stem = present.name.partition(".")[0]
            name = name.parent.parent / f"{stem}.py"
        if present.is_file() and os.fspath(name) not in sources:
            present.unlink()


def _write_metadata(target: Path) -> None:
    with (location.REPOSITORY / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    text = (location.REPOSITORY / "rootlesspy" / "__init__.py").read_text(encoding="utf-8")
    namespace: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            namespace[name.split(":")[0].strip()] = value.strip().strip('"')
    version = namespace["__version__"]
    for old in target.glob("rootlesspy-*.dist-info"):
        shutil.rmtree(old)
    information = target / f"rootlesspy-{version}.dist-info"
    information.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    (information / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    scripts = [f"{name} = {target}" for name, target in project["scripts"].items()]
    (information / "entry_points.txt").write_text(
        "\n".join(["[console_scripts]", *scripts]) + "\n", encoding="utf-8"
    )


def _compile(tree: Path, package: Path) -> None:
    script = """
        mount --bind "$1" "$2/mnt"
        exec chroot "$2" python3 -I -B -m compileall -q -s /mnt -p "/$3" /mnt/rootlesspy
    """
    status = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", package, tree, DIST_PACKAGES],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        check=False,
    ).returncode
    if status != 0:
        # A file that is being edited: the rest works.
        print("rig: some files of rootlesspy do not compile", file=sys.stderr)
