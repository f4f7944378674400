"""The options of ps(1) that `rp top` takes, and its way of writing columns.

podman runs the host's ps in the container's namespaces; here the columns are written the same way
and nothing is run.
"""

from __future__ import annotations

import time

from rootlesspy.cli.top_columns import COLUMNS, Column, cpu_percent
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.cli.top_columns import Scene
    from rootlesspy.engine.views.top import Process

_DAY_S = 86400
_SHORT = ("pid", "tty", "time", "ucmd")
_FULL = ("user:UID", "pid", "ppid", "c", "stime", "tty", "time", "args:CMD")
_BSD = (
    "user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "state:STAT", "stime:START", "bsdtime",
    "args",
)  # fmt: skip
_EVERYTHING = "Aeax"


def columns(words: list[str]) -> list[Column]:
    """Return the columns that ps would show for these arguments; raises UsageError."""
    chosen: tuple[str, ...] = _SHORT
    words = list(words)
    while words:
        word = words.pop(0)
        letters = word.removeprefix("-")
        if "o" in letters and not letters.partition("o")[0].strip(_EVERYTHING + "f"):
            text = letters.partition("o")[2] or (words.pop(0) if words else "")
            return _listed(text)
        if not letters or letters.strip(_EVERYTHING + "fuw"):
            raise UsageError(
                f"rp top: ps option {word!r} is not supported",
                hint="supported are -e, -A, -f, -w, -o LIST, aux and columns; see rp top --help",
            )
        if "u" in letters:
            chosen = _BSD
        elif "f" in letters:
            chosen = _FULL
    return [_find(name) for name in chosen]


def _listed(text: str) -> list[Column]:
    """Parse the list of -o: names separated by commas or blanks, each perhaps with =HEADER."""
    names = [name for name in text.replace(" ", ",").split(",") if name]
    if not names:
        raise UsageError("rp top: -o needs a list of columns", hint="such as -o pid,user,args")
    return [_find(name.replace("=", ":", 1)) for name in names]


def _find(text: str) -> Column:
    name, colon, header = text.partition(":")
    name = _SAME.get(name, name)
    column = _COLUMNS.get(name) or COLUMNS.get(name)
    if column is None:
        known = ", ".join(sorted({*_COLUMNS, *COLUMNS, *_SAME}))
        raise UsageError(f"rp top: unknown column {name!r}", hint=f"known are {known}")
    return column._replace(header=header) if colon else column


def _clock(seconds: float) -> str:
    """Write a CPU time as [DD-]HH:MM:SS."""
    days, rest = divmod(int(seconds), _DAY_S)
    return f"{f'{days}-' if days else ''}{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def _elapsed(seconds: float) -> str:
    """Write a time as [[DD-]HH:]MM:SS."""
    text = _clock(seconds)
    return text if seconds >= 3600 else text[-5:]


def _start(started_s: float) -> str:
    """Write when a process started: the time of today, else the day."""
    form = "%H:%M" if time.time() - started_s < _DAY_S else "%b%d"
    return time.strftime(form, time.localtime(started_s))


def _memory_percent(process: Process, _scene: Scene) -> str:
    from rootlesspy.engine.views import stats

    return f"{100 * process.rss_bytes / stats.machine_memory_bytes():.1f}"


def _text(write: Callable[[Process], str]) -> Callable[[Process, Scene], str]:
    return lambda process, _scene: write(process)


_COLUMNS: dict[str, Column] = {
    "args": Column("COMMAND", _text(lambda process: process.args)),
    "bsdtime": Column(
        "TIME",
        _text(lambda process: f"{int(process.cpu_s) // 60}:{int(process.cpu_s) % 60:02}"),
    ),
    "c": Column("C", _text(lambda process: str(int(cpu_percent(process))))),
    "etime": Column("ELAPSED", _text(lambda process: _elapsed(process.elapsed_s))),
    "etimes": Column("ELAPSED", _text(lambda process: str(int(process.elapsed_s)))),
    "pcpu": Column("%CPU", _text(lambda process: f"{cpu_percent(process):.1f}")),
    "pmem": Column("%MEM", _memory_percent),
    "state": Column("S", _text(lambda process: process.state)),
    "stime": Column("STIME", _text(lambda process: _start(process.started_s))),
    "time": Column("TIME", _text(lambda process: _clock(process.cpu_s))),
    "ucmd": Column("CMD", _text(lambda process: process.comm)),
}
_SAME = {
    "%cpu": "pcpu", "%mem": "pmem", "cmd": "args", "command": "args", "cputime": "time",
    "euid": "uid", "euser": "user", "ucomm": "ucmd", "egroup": "group", "ni": "nice",
    "s": "state", "stat": "state", "start": "stime", "tt": "tty", "tname": "tty", "vsize": "vsz",
    "rssize": "rss",
}  # fmt: skip
