"""Modules that are looked up by hand are those that Python would have found."""

from __future__ import annotations

import json
import os
import py_compile
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "rootlesspy"

_DESCRIBE = """
import json, sys
from rootlesspy import light_importer
if sys.argv[1] == "light":
    light_importer.install()
from rootlesspy import room
from rootlesspy.room import module
print(json.dumps([
    [each.__name__, each.__file__, each.__cached__, each.__package__, each.__spec__.name,
     each.__spec__.origin, each.__spec__.cached, each.__spec__.has_location, each.__doc__,
     list(getattr(each, "__path__", [])), each.__loader__.get_source(each.__name__),
     each.VALUE, each.function.__code__.co_filename, type(each.__loader__).__name__]
    for each in (room, module)
]))
"""
_SOURCE = '"""What it is."""\nVALUE = 1\ndef function(): pass\n'


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Return a directory with a package of this name that has one room with one module."""
    target = tmp_path / "library"
    room = target / "rootlesspy" / "room"
    room.mkdir(parents=True)
    for name in ("__init__.py", "light_importer.py", "light_typing.py"):
        shutil.copy(PACKAGE / name, target / "rootlesspy" / name)
    for name in ("__init__.py", "module.py"):
        (room / name).write_text(_SOURCE, encoding="utf-8")
    return target


def run(library: Path, code: str, *words: str, options: tuple[str, ...] = ("-S",)) -> str:
    """Run code with the package on its search path; return what it prints."""
    done = subprocess.run(
        [sys.executable, *options, "-P", "-c", code, *words],
        env={"PYTHONPATH": os.fspath(library), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def described(library: Path, *, options: tuple[str, ...] = ("-S",)) -> list[list[Any]]:
    """Return what describes the two modules; all but their loader is what Python's are."""
    light, pythons = (
        json.loads(run(library, _DESCRIBE, kind, options=options)) for kind in ("light", "python")
    )
    assert [each[:-1] for each in light] == [each[:-1] for each in pythons]
    return [each[-3:] for each in light]


def test_modules_are_what_python_makes_of_them(library: Path) -> None:
    module = os.fspath(library / "rootlesspy" / "room" / "module.py")
    # Compiled by the first, read by the second.
    for _ in range(2):
        room, found = described(library)
        assert found == [1, module, "_Loader"]
        assert room[2] == "_Loader"


def test_a_source_that_has_changed_is_compiled_again(library: Path) -> None:
    described(library)
    source = library / "rootlesspy" / "room" / "module.py"
    source.write_text(_SOURCE.replace("1", "22"), encoding="utf-8")
    assert described(library)[1][0] == 22
    # Of the same size, but another time.
    source.write_text(_SOURCE.replace("1", "33"), encoding="utf-8")
    os.utime(source, (1_000_000_000, 1_000_000_000))
    assert described(library)[1][0] == 33


def test_what_has_moved_names_its_new_place(library: Path) -> None:
    described(library)
    moved = library.with_name("moved")
    library.rename(moved)
    assert described(moved)[1][1] == os.fspath(moved / "rootlesspy" / "room" / "module.py")


def test_byte_code_with_a_hash_is_left_to_python(library: Path) -> None:
    source = library / "rootlesspy" / "room" / "module.py"
    py_compile.compile(
        os.fspath(source), invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
    )
    assert described(library)[1][0] == 1
    status = source.stat()
    source.write_text(_SOURCE.replace("1", "2"), encoding="utf-8")
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert described(library)[1][0] == 2


@pytest.mark.parametrize("left", [0, 10, 16, 40])
def test_byte_code_that_is_cut_off_is_what_it_is_to_python(library: Path, left: int) -> None:
    described(library)
    cached = next((library / "rootlesspy" / "room" / "__pycache__").glob("module.*"))
    whole = cached.read_bytes()
    outcomes = []
    for kind in ("light", "python"):
        cached.write_bytes(whole[:left])
        code = f"try:\n    exec({_DESCRIBE!r})\nexcept EOFError as error: print(error)"
        outcomes.append(run(library, code, kind).replace("_Loader", "SourceFileLoader"))
    assert outcomes[0] == outcomes[1]


def test_optimised_and_packed_ones_are_left_to_python(library: Path, tmp_path: Path) -> None:
    assert described(library, options=("-S", "-O"))[1][2] == "SourceFileLoader"
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in library.rglob("*.py"):
            archive.write(path, path.relative_to(library))
    code = (
        "from rootlesspy import light_importer; light_importer.install();"
        "from rootlesspy.room import module; print(module.VALUE)"
    )
    assert run(packed, code) == "1\n"


def test_a_module_that_is_missing_is_missing(library: Path) -> None:
    code = (
        "from rootlesspy import light_importer; light_importer.install()\n"
        "try:\n    import rootlesspy.nothing\n"
        "except ModuleNotFoundError as error: print(error.name)\n"
        "try:\n    import nothing_at_all\nexcept ModuleNotFoundError as error: print(error.name)"
    )
    assert run(library, code) == "rootlesspy.nothing\nnothing_at_all\n"


def test_site_runs_once_a_package_is_missed(library: Path) -> None:
    code = (
        "import sys; from rootlesspy import light_importer; light_importer.install();"
        "before = 'site' in sys.modules; import pytest;"
        "print(before, 'site' in sys.modules, pytest.__version__)"
    )
    assert run(library, code) == f"False True {pytest.__version__}\n"
    # With site at the start nothing is there to be run.
    code = (
        "import sys; from rootlesspy import light_importer; light_importer.install();"
        "print(sys.meta_path[-1] is light_importer._SitePackages)"
    )
    assert run(library, code, options=()) == "False\n"
    assert run(library, code) == "True\n"
