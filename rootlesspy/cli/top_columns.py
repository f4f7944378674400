"""The columns of `rp top` that podman has: what each is called and how it is written."""

from __future__ import annotations

from rootlesspy.cli import gotime
from rootlesspy.engine.inputs import capabilities
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.views.top import Names, Process

_TICK_NS = 10_000_000
_SECCOMP = ("disabled", "strict", "filter")


class Scene(NamedTuple):
    """What numbers are called."""

    inside: Names
    host: Names


class Column(NamedTuple):
    """One column."""

    header: str
    write: Callable[[Process, Scene], str]


def find(name: str) -> Column:
    """Return the column of a descriptor; raises UsageError."""
    column = COLUMNS.get(_CODES.get(name, name))
    if column is None:
        raise UsageError(f"rp top: unknown column {name!r}", hint=f"known are {', '.join(COLUMNS)}")
    return column


def cpu_percent(process: Process) -> float:
    """Return the share of one CPU that a process has used since its start."""
    return 100 * process.cpu_s / process.elapsed_s if process.elapsed_s > 0 else 0.0


def _capabilities(key: str) -> Callable[[Process, Scene], str]:
    def write(process: Process, _scene: Scene) -> str:
        mask = process.capabilities.get(key, 0)
        names = [name for bit, name in enumerate(capabilities.ALL) if mask >> bit & 1]
        if len(names) == len(capabilities.ALL):
            return "full"
        return ",".join(name.removeprefix("CAP_") for name in names) or "none"

    return write


def _elapsed(process: Process, _scene: Scene) -> str:
    # The kernel counts in ticks: more digits would be made up.
    return gotime.duration(round(process.elapsed_s * 1e9) // _TICK_NS * _TICK_NS)


def _started(process: Process, _scene: Scene) -> str:
    from rootlesspy.engine.views.inspect import moment

    return gotime.Time(moment(int(process.started_s))).string()


COLUMNS: dict[str, Column] = {
    "args": Column("COMMAND", lambda process, scene: process.args),
    "capamb": Column("AMBIENT CAPS", _capabilities("CapAmb")),
    "capbnd": Column("BOUNDING CAPS", _capabilities("CapBnd")),
    "capeff": Column("EFFECTIVE CAPS", _capabilities("CapEff")),
    "capinh": Column("INHERITED CAPS", _capabilities("CapInh")),
    "capprm": Column("PERMITTED CAPS", _capabilities("CapPrm")),
    "comm": Column("COMMAND", lambda process, scene: process.comm),
    "etime": Column("ELAPSED", _elapsed),
    "group": Column("GROUP", lambda process, scene: scene.inside.group(process.gid.inside)),
    "groups": Column(
        "GROUPS",
        lambda process, scene: ",".join(scene.inside.group(each.inside) for each in process.groups),
    ),
    "hgroup": Column("HGROUP", lambda process, scene: scene.host.group(process.gid.host)),
    "hgroups": Column(
        "HGROUPS",
        lambda process, scene: ",".join(scene.host.group(each.host) for each in process.groups),
    ),
    "hpid": Column("HPID", lambda process, scene: str(process.pid.host)),
    "huid": Column("HUID", lambda process, scene: str(process.uid.host)),
    "huser": Column("HUSER", lambda process, scene: scene.host.user(process.uid.host)),
    "label": Column("LABEL", lambda process, scene: process.label or "?"),
    "nice": Column("NI", lambda process, scene: str(process.nice)),
    "pcpu": Column("%CPU", lambda process, scene: f"{cpu_percent(process):.3f}"),
    "pgid": Column("PGID", lambda process, scene: str(process.pgid)),
    "pid": Column("PID", lambda process, scene: str(process.pid.inside)),
    "ppid": Column("PPID", lambda process, scene: str(process.ppid)),
    "rgroup": Column("RGROUP", lambda process, scene: scene.inside.group(process.real_gid.inside)),
    "rss": Column("RSS", lambda process, scene: str(process.rss_bytes // 1024)),
    "ruser": Column("RUSER", lambda process, scene: scene.inside.user(process.real_uid.inside)),
    "seccomp": Column(
        "SECCOMP",
        lambda process, scene: (
            _SECCOMP[process.seccomp] if process.seccomp < len(_SECCOMP) else "?"
        ),
    ),
    "state": Column("STATE", lambda process, scene: process.state),
    "stime": Column("STIME", _started),
    "time": Column("TIME", lambda process, scene: gotime.duration(int(process.cpu_s) * 10**9)),
    "tty": Column("TTY", lambda process, scene: process.tty),
    "uid": Column("UID", lambda process, scene: str(process.uid.inside)),
    "user": Column("USER", lambda process, scene: scene.inside.user(process.uid.inside)),
    "vsz": Column("VSZ", lambda process, scene: str(process.vsz_bytes // 1024)),
}
# The AIX format descriptors of ps(1).
_CODES = {
    "%C": "pcpu", "%G": "group", "%P": "ppid", "%U": "user", "%a": "args", "%c": "comm",
    "%g": "rgroup", "%n": "nice", "%p": "pid", "%r": "pgid", "%t": "etime", "%u": "ruser",
    "%x": "time", "%y": "tty", "%z": "vsz",
}  # fmt: skip
