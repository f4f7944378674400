"""Install the project in a running rig as a Debian package would, and keep it up to date."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

from rig import enter, instance, location, rootfs

if TYPE_CHECKING:
    from pathlib import Path

_DIST_PACKAGES = "usr/lib/python3/dist-packages"


def sync(rig: instance.Instance) -> bool:
    """Copy what changed since the last time; return whether anything did.

    Files are replaced by rename, so that a process which is importing them sees whole ones.
    """
    with rootfs.locked(rig.directory / "install.lock"):
        files = _sources()
        key = _key(files)
        stamp = rig.directory / "installed"
        if stamp.exists() and stamp.read_text(encoding="ascii") == key:
            return False
        target = rig.root / _DIST_PACKAGES
        _copy(files, target)
        _write_metadata(target)
        _compile(rig)
        stamp.write_text(key, encoding="ascii")
    return True


def _sources() -> dict[str, Path]:
    package = location.REPOSITORY / "rootlesspy"
    found = (path for pattern in ("*.py", "*.json") for path in package.rglob(pattern))
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
    for present_file in (target / "rootlesspy").rglob("*"):
        if "__pycache__" in present_file.parts or present_file.is_dir():
            continue
        if os.fspath(present_file.relative_to(target)) not in files:
            present_file.unlink()


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


def _compile(rig: instance.Instance) -> None:
    argv = ["python3", "-I", "-m", "compileall", "-q", f"/{_DIST_PACKAGES}/rootlesspy"]
    # In a process of its own: entering a rig is for good.
    status = subprocess.run(
        [sys.executable, enter.__file__, enter.encode(instance.entry(rig, argv, user="root"))],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        check=False,
    ).returncode
    if status != 0:
        # A file that is being edited: the rest works.
        print("rig: some files of rootlesspy do not compile", file=sys.stderr)
