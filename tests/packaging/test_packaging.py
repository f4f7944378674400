"""The command starts however it was installed: pip, pipx, Debian's packages alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
from rig import install, instance, location, recipe
from rig.machine import Machine, RigDoor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT_S = 600
pytestmark = pytest.mark.limit(LIMIT_S)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of what a clone has, so that building leaves nothing in this one."""
    target = tmp_path_factory.mktemp("sources") / "rootlesspy"
    target.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=location.REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in listed.rstrip("\0").split("\0"):
        source = location.REPOSITORY / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    return target


def must(argv: list[str | Path], **environment: str) -> str:
    """Run a command that has to succeed and return what it printed."""
    done = subprocess.run(
        [os.fspath(word) for word in argv],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}\n{done.stderr}"
    return done.stdout


def virtual_environment(path: Path) -> Path:
    """Make an empty virtual environment and return its bin directory."""
    must([sys.executable, "-m", "venv", path])
    return path / "bin"


def assert_starts(rp: Path) -> None:
    assert version() in must([rp, "version"])
    assert "run" in must([rp, "--help"])


def version() -> str:
    text = (location.REPOSITORY / "rootlesspy" / "__init__.py").read_text(encoding="utf-8")
    return next(line.split('"')[1] for line in text.splitlines() if "__version__" in line)


def test_wheel_has_every_file_of_the_package(sources: Path, tmp_path: Path) -> None:
    must([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, sources])
    wheel = next(tmp_path.glob("*.whl"))
    package = sources / "rootlesspy"
    expected = {
        os.fspath(path.relative_to(sources))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = zipfile.ZipFile(wheel).namelist()
    assert expected - set(names) == set()
    # systemd looks there when the prefix is /usr, as a Debian package's is.
    units = {path.name for path in (sources / "units").glob("rp*")}
    assert units == {
        os.path.basename(name) for name in names if ".data/data/lib/systemd/user/" in name
    }


def test_pip_install(sources: Path, tmp_path: Path) -> None:
    bin_directory = virtual_environment(tmp_path / "venv")
    must([bin_directory / "pip", "install", "--quiet", sources])
    assert_starts(bin_directory / "rp")


def test_pipx_install(sources: Path, tmp_path: Path) -> None:
    bin_directory = virtual_environment(tmp_path / "venv")
    must([bin_directory / "pip", "install", "--quiet", "pipx"])
    home, links = tmp_path / "home", tmp_path / "links"
    must(
        [bin_directory / "pipx", "install", sources],
        PIPX_HOME=os.fspath(home),
        PIPX_BIN_DIR=os.fspath(links),
        PIPX_MAN_DIR=os.fspath(tmp_path / "man"),
    )
    assert_starts(links / "rp")


@pytest.fixture(params=recipe.SUITES)
def debian(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Return a machine of each Debian release, with its own python3-* packages and no PyPI."""
    if os.geteuid() != 0:
        pytest.skip("needs root for the namespace rig")
    name = f"packaging-{os.getpid()}"
    try:
        running = instance.up(name, request.param, print, owner_pid=os.getpid())
    except location.RigError as error:
        pytest.skip(str(error))
    install.sync(running)
    yield Machine(RigDoor(running))
    instance.down(name)


def test_debian_packages_suffice(debian: Machine) -> None:
    assert version() in debian.run(["rp", "version"]).stdout
    assert "run" in debian.run(["rp", "--help"]).stdout
    modules = (
        "import typer, pystemd, pyroute2, tomli, rich, urllib3, zstandard as z; print(z.__file__)"
    )
    assert debian.run(["python3", "-I", "-c", modules]).stdout.startswith("/usr/lib/python3/")
