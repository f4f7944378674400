"""`rp version` and `rp info`."""

from __future__ import annotations

import os
import sys

from rootlesspy import __version__
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli import output
from rootlesspy.cli.gotemplate_functions import Record
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.light_typing import Any

# Fields of podman's structs that are not their JSON names with a capital.
_FIELDS = {
    "os": "OS",
    "cpus": "CPUs",
    "cgroupVersion": "CgroupsVersion",
    "idMappings": "IDMappings",
    "uidmap": "UIDMap",
    "gidmap": "GIDMap",
}


def version(
    context: typer.Context,
    form: str | None = typer.Option(
        None, "--format", "-f", metavar="FORMAT", help="json or a Go template.", show_default=False
    ),
) -> int:  # fmt: skip
    """Print the versions of rp, Python and the kernel."""
    from rootlesspy.image import platforms

    client = {
        "Version": __version__,
        "PythonVersion": ".".join(map(str, sys.version_info[:3])),
        "Kernel": os.uname().release,
        "Os": "linux",
        "OsArch": platforms.host(),
    }
    if form:
        # There is no server; podman without one answers for itself, too.
        _formatted({"Client": client, "Server": client, **client}, form)
        return 0
    titles = {"PythonVersion": "Python", "OsArch": "OS/Arch"}
    for name in ("Version", "PythonVersion", "Kernel", "OsArch"):
        sys.stdout.write(f"{titles.get(name, name) + ':':<10}{client[name]}\n")
    return 0


def info(
    context: typer.Context,
    form: str | None = typer.Option(
        None, "--format", "-f", metavar="FORMAT", help="json or a Go template.", show_default=False
    ),
) -> int:  # fmt: skip
    """Describe this machine, the user manager and the store, as rp sees them."""
    from rootlesspy.engine.doctor import health

    facts = health.info(context.obj.paths())
    if form:
        _formatted(facts, form)
    else:
        sys.stdout.write("".join(_tree(facts, 0)))
    return 0


def _formatted(facts: dict[str, Any], form: str) -> None:
    if output.is_json(form):
        output.print_json(facts)
    else:
        output.show_one(_fields(facts), form)


def _fields(facts: Any) -> Any:
    """Name facts for templates, as podman does: {{.Host.OS}} is os of host in JSON."""
    if not isinstance(facts, dict):
        return facts
    return Record(
        {_FIELDS.get(key, key[:1].upper() + key[1:]): _fields(facts[key]) for key in facts}
    )


def _tree(facts: dict[str, Any], depth: int) -> list[str]:
    """Return nested facts as indented lines, in the style of podman info."""
    from rootlesspy.report import escape

    lines = []
    for name, value in facts.items():
        margin = "  " * depth
        if isinstance(value, dict):
            lines.append(f"{margin}{escape(name)}:\n")
            lines += _tree(value, depth + 1)
        elif isinstance(value, (list, tuple)) and value:
            lines.append(f"{margin}{escape(name)}:\n")
            lines += [f"{margin}  - {escape(_scalar(each))}\n" for each in value]
        else:
            lines.append(f"{margin}{escape(name)}: {escape(_scalar(value))}\n")
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ((), []):
        return "none"
    return str(value)
