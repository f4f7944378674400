"""The groups of OCI runtimes: create, start and delete of a bundle by rp-oci, crun, runc."""

from __future__ import annotations

from typing import TYPE_CHECKING

from namespace import bundles

from bench.timing import timed
from bench.work import Bench, Contestant, Group, Section, contestant

if TYPE_CHECKING:
    from collections.abc import Iterator

_RUNTIMES = ("rp-oci", "crun", "runc")
_CREATE = f"{{name}} create --bundle {bundles.HOME}/bundle bench </dev/null >/dev/null"
_START = "{name} start bench"
_DELETE = "{name} delete --force bench"
_CLEAN = f"{_DELETE} 2>/dev/null; :"


def _each(line: str, before: str = "") -> Iterator[Contestant]:
    before = f"{_CLEAN}; {before}" if before else _CLEAN
    for runtime in _RUNTIMES:
        yield contestant(runtime, line, before, _CLEAN, shell=True)


_FLOOR = contestant("python3 -I", "python3 -I -c pass")
# fmt: off
_GROUPS = (
    Group("oci", "create, start and delete",
          (*_each(f"{_CREATE} && {_START} && {_DELETE}"), _FLOOR), rounds=15, limit_s=30),
    Group("oci-create", "create", tuple(_each(_CREATE)), rounds=10, limit_s=15),
    Group("oci-start", "start", tuple(_each(_START, _CREATE)), rounds=10, limit_s=15),
    Group("oci-delete", "delete --force of a running one",
          tuple(_each(_DELETE, f"{_CREATE} && {_START}")), rounds=10, limit_s=15),
)
# fmt: on


def _prepared(bench: Bench) -> None:
    made = bundles.Bundles(bench.machine)
    made.write(made.spec("sleep", "1000"))


RUNTIMES = Section("oci", "OCI runtimes", _GROUPS, timed, _prepared)
