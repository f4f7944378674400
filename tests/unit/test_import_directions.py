"""Hold the table of ARCHITECTURE.md: who imports whom, and what hot modules may load.

Read from the sources by their syntax trees, nothing is imported.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "rootlesspy"

# A room may import the rooms of every lower line, never one of its own line.
RANKS = {
    "__main__": 4,
    "cli": 3,
    "engine": 2,
    "image": 1,
    "network": 1,
    "systemd": 1,
    "runtime": 1,
    "oci": 0,
    "linux": 0,
}
LIGHT = {
    "light_importer", "light_typing", "light_modules", "light_ctypes", "light_json", "light_socket"
}  # fmt: skip
LEAVES = {"errors", "report", "paths", "settings", *LIGHT}
ALLOWED_LEAVES = {"runtime": {"errors", *LIGHT}, "linux": LIGHT, "oci": LIGHT}
FORBIDDEN = {"cli": {"runtime", "linux"}}

# Third parties: where else than behind its door an import is a defect.
DOORS: dict[str, str | tuple[str, ...]] = {
    "typer": "cli/",
    "click": "cli/",
    "rich": "cli/",
    "pystemd": "systemd/manager.py",
    "pyroute2": "network/bridge.py",
    "dns": "network/names/answers.py",
    "tomli": ("settings.py", "engine/definitions/toml.py"),
    "urllib3": "image/transport.py",
    "zstandard": "image/",
    "isal": "image/",
    "cryptography": "image/trust/",
    "yaml": "engine/security/cdi.py",
}

# Modules that `rp run` and the supervisor load. What each would cost is in PERFORMANCE.md.
HOT = (
    "errors.py", "report.py", "paths.py", "cli/argv.py",
    "engine/inputs/request.py", "engine/inputs/values.py", "engine/specgen.py", "engine/record.py",
    "engine/run.py", "engine/supervision/supervisor.py", "runtime/*.py", "linux/*.py",
    "systemd/bus.py", "systemd/scope.py", "systemd/properties.py",
    "network/driver.py", "network/pasta.py", "network/ports.py", "network/resolver.py",
    "image/store.py", "image/reference.py",
)  # fmt: skip
COLD_IMPORTS = {
    "dataclasses", "enum", "re", "subprocess", "pathlib", "logging", "contextlib", "argparse",
    "shutil", "tempfile", "inspect", "asyncio", "threading", "multiprocessing", "uuid", "http",
    "ssl", "typer", "click", "pystemd", "pyroute2", "rich", "urllib3", "zstandard", "tomli",
    "tomllib", "cryptography", "typing", "json", "signal", "socket", "functools", "collections",
}  # fmt: skip


class Import(NamedTuple):
    """One imported module, and how it is imported."""

    module: str
    line: int
    in_function: bool
    for_types: bool


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(tree: ast.AST, package: str) -> list[Import]:
    """Return every import below a node; `package` resolves relative ones."""
    found: list[Import] = []

    def visit(node: ast.AST, in_function: bool, for_types: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(
                Import(alias.name, node.lineno, in_function, for_types) for alias in node.names
            )
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                above = ".".join(parents[: len(parents) - node.level + 1])
                base = f"{above}.{base}".rstrip(".")
            # `from rootlesspy import engine` names rooms: look at each name.
            names = [f"{base}.{alias.name}" for alias in node.names]
            found.extend(Import(name, node.lineno, in_function, for_types) for name in names)
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for statement in node.body:
                visit(statement, inside, True)
            for statement in node.orelse:
                visit(statement, inside, for_types)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, inside, for_types)

    visit(tree, False, False)
    return found


def imports_of(path: Path) -> list[Import]:
    parts = ["rootlesspy", *path.relative_to(PACKAGE).parts[:-1]]
    return imports(ast.parse(path.read_text(encoding="utf-8")), ".".join(parts))


def direction_fault(importer: str, module: str) -> str | None:
    """Return what is wrong with `importer` (a path in the package) importing a module."""
    if not module.startswith("rootlesspy."):
        return None
    source = importer.removesuffix(".py").split("/")[0]
    target = module.split(".")[1]
    if source == target or source == "__init__" or target == "__version__":
        return None
    if target in LEAVES:
        allowed = ALLOWED_LEAVES.get(source, LEAVES)
        return None if target in allowed else f"{source} may not import the leaf {target}"
    if source in LEAVES:
        return f"the leaf {source} may not import the room {target}"
    if source not in RANKS or target not in RANKS:
        return f"{source} or {target} is not a room of ARCHITECTURE.md"
    if target in FORBIDDEN.get(source, ()):
        return f"{source} may not import {target}"
    if RANKS[source] <= RANKS[target]:
        return f"{source} may not import {target}: imports go downward only"
    return None


def door_fault(importer: str, module: str) -> str | None:
    """Return what is wrong with a third-party import."""
    door = DOORS.get(module.split(".")[0])
    if door is None or importer.startswith(door):
        return None
    places = door if isinstance(door, str) else " and ".join(door)
    return f"{module} may be imported in rootlesspy/{places} only"


def heat_fault(importer: str, imported: Import) -> str | None:
    """Return what is wrong with an import at the top of a hot module."""
    cold = imported.module.split(".")[0] in COLD_IMPORTS
    if not cold or imported.in_function or imported.for_types:
        return None
    if any(Path(importer).match(pattern) for pattern in HOT):
        return f"{imported.module} is too slow for the top of a hot module"
    return None


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_of_module(path: Path) -> None:
    name = name_of(path)
    faults = []
    for imported in imports_of(path):
        found = (
            direction_fault(name, imported.module),
            door_fault(name, imported.module),
            heat_fault(name, imported),
        )
        faults += [f"{name}:{imported.line}: {fault}" for fault in found if fault]
    assert faults == []


def test_every_hot_module_is_there() -> None:
    missing = [pattern for pattern in HOT if not list(PACKAGE.glob(pattern))]
    assert missing == []


@pytest.mark.parametrize(
    ("importer", "source", "fault"),
    [
        ("cli/run.py", "from rootlesspy.engine import run", None),
        ("cli/run.py", "from rootlesspy import runtime", "cli may not import runtime"),
        ("cli/run.py", "import rootlesspy.linux.mount", "cli may not import linux"),
        ("engine/run.py", "from rootlesspy.cli import app", "downward only"),
        ("image/pull.py", "from rootlesspy.network import ports", "downward only"),
        ("image/pull.py", "from ..systemd import bus", "downward only"),
        ("runtime/init.py", "from rootlesspy import errors", None),
        ("runtime/init.py", "from rootlesspy.paths import Paths", "leaf paths"),
        ("linux/mount.py", "from rootlesspy.errors import Error", "leaf errors"),
        ("linux/mount.py", "from . import libc", None),
        ("paths.py", "from rootlesspy.engine import run", "leaf paths may not"),
        ("engine/run.py", "import typer", "rootlesspy/cli/ only"),
        (
            "engine/definitions/definition.py",
            "import tomli",
            "settings.py and engine/definitions/toml.py only",
        ),
        ("engine/definitions/toml.py", "import tomli", None),
        ("systemd/scope.py", "def f():\n    import pystemd.dbuslib", "manager.py only"),
        ("systemd/manager.py", "def f():\n    import pystemd.dbuslib", None),
        ("systemd/bus.py", "import pystemd", "too slow"),
        ("runtime/init.py", "import re", "too slow"),
        ("runtime/init.py", "from typing import NamedTuple", "too slow"),
        ("runtime/init.py", "from pathlib import Path", "too slow"),
        ("runtime/init.py", "if TYPE_CHECKING:\n    from pathlib import Path", None),
        ("engine/lifecycle.py", "import subprocess", None),
    ],
)
def test_the_rules_find_what_they_forbid(importer: str, source: str, fault: str | None) -> None:
    package = ".".join(["rootlesspy", *Path(importer).parts[:-1]])
    found = [
        text
        for imported in imports(ast.parse(source), package)
        for text in (
            direction_fault(importer, imported.module),
            door_fault(importer, imported.module),
            heat_fault(importer, imported),
        )
        if text
    ]
    if fault is None:
        assert found == []
    else:
        assert any(fault in text for text in found), found
