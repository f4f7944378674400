"""The flags of rp-oci: one table, and the parser that Go's flag package gives runc's callers.

`--name value`, `--name=value` and `-n` are understood, with one dash or two; flags end at the first
operand or at `--`; a flag that repeats is a list.
"""

from __future__ import annotations

from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

SWITCH, VALUE, NUMBER, LIST = "switch", "value", "number", "list"


class Flag(NamedTuple):
    """One flag of a command."""

    name: str
    kind: str
    short: str = ""
    help: str = ""


class Command(NamedTuple):
    """One command of rp-oci."""

    name: str
    operands: str
    help: str
    flags: tuple[Flag, ...] = ()
    least: int = 1
    most: int = 1


class Parsed(NamedTuple):
    """What was typed, by the flags' long names."""

    values: dict[str, str]
    lists: dict[str, list[str]]
    operands: list[str]

    def text(self, name: str, default: str = "") -> str:
        """Return a flag's value."""
        return self.values.get(name, default)

    def on(self, name: str) -> bool:
        """Say whether a switch is on.  Raises UsageError for a value that is no boolean."""
        word = self.values.get(name, "false").lower()
        if word not in ("true", "false", "1", "0", "t", "f"):
            raise UsageError(f"invalid boolean value {word!r} for --{name}")
        return word in ("true", "1", "t")

    def number(self, name: str) -> int | None:
        """Return a number, None when it was not given.  Raises UsageError."""
        word = self.values.get(name)
        if word is None:
            return None
        digits = word.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()):
            raise UsageError(f"invalid value {word!r} for --{name}")
        return int(word)


GLOBAL = (
    Flag("root", VALUE, help="directory of the containers' state"),
    Flag("log", VALUE, help="file for messages, beside stderr"),
    Flag("log-format", VALUE, help="text (default) or json"),
    Flag("debug", SWITCH, help="print each step of init"),
    Flag("systemd-cgroup", SWITCH, help="cgroupsPath is SLICE:PREFIX:NAME, made by systemd"),
    Flag("rootless", VALUE, help="taken and of no effect: it always is"),
    Flag("help", SWITCH, "h", "print this"),
    Flag("version", SWITCH, "v", "print the version"),
)
_CONSOLE = Flag("console-socket", VALUE, help="socket that is sent the terminal's master")
_PID_FILE = Flag("pid-file", VALUE, help="file for the process's pid")
_PRESERVE = Flag("preserve-fds", NUMBER, help="how many descriptors from 3 on are passed on")
_FORMAT = Flag("format", VALUE, "f", "table (default) or json")
_DETACH = Flag("detach", SWITCH, "d", "do not wait for its end")
_ANY = 1 << 20
_CREATE = (
    Flag("bundle", VALUE, "b", "directory of config.json (default: this one)"),
    _CONSOLE,
    _PID_FILE,
    Flag("no-pivot", SWITCH, help="move the root instead of pivoting, as on a ramdisk"),
    Flag("no-new-keyring", SWITCH, help="keep the caller's session keyring"),
    _PRESERVE,
)
_LIMITS = (
    ("blkio-weight", "weight of block I/O, 10 to 1000"),
    ("cpu-period", "period of the CPU quota, in microseconds"),
    ("cpu-quota", "CPU time per period, in microseconds"),
    ("cpu-burst", "CPU time that may be saved up, in microseconds"),
    ("cpu-share", "shares of the CPU, 2 to 262144"),
    ("cpu-idle", "1 for SCHED_IDLE"),
    ("memory", "bytes of memory"),
    ("memory-reservation", "bytes that are kept for it"),
    ("memory-swap", "bytes of memory and swap together, -1 for no limit"),
    ("pids-limit", "number of processes"),
)
COMMANDS = {
    command.name: command
    for command in (
        Command(
            "create",
            "ID",
            "Make a container from a bundle; its program waits.",
            _CREATE,
        ),
        Command("start", "ID", "Execute the program of a created container."),
        Command(
            "run",
            "ID",
            "Create and start a container.",
            (
                *_CREATE,
                _DETACH,
                Flag("keep", SWITCH, help="do not remove it afterwards"),
                Flag("no-subreaper", SWITCH, help="taken and of no effect"),
            ),
        ),
        Command("state", "ID", "Print a container's state as JSON."),
        Command(
            "kill",
            "ID [SIGNAL]",
            "Send a signal (SIGTERM) to a container's first process.",
            (Flag("all", SWITCH, "a", "to all its processes"),),
            most=2,
        ),
        Command(
            "delete",
            "ID",
            "Remove a stopped container.",
            (Flag("force", SWITCH, "f", "kill it first"),),
        ),
        Command(
            "exec",
            "ID COMMAND [ARG…]",
            "Run one more process in a container.",
            (
                Flag("process", VALUE, "p", "file with the process as JSON"),
                Flag("cwd", VALUE, help="working directory"),
                Flag("env", LIST, "e", "NAME=VALUE, may repeat"),
                Flag("tty", SWITCH, "t", "with a terminal"),
                Flag("user", VALUE, "u", "UID[:GID]"),
                Flag("additional-gids", LIST, "g", "GID, may repeat"),
                _DETACH,
                _CONSOLE,
                _PID_FILE,
                Flag("process-label", VALUE, help="SELinux label"),
                Flag("apparmor", VALUE, help="AppArmor profile"),
                Flag("no-new-privs", SWITCH, help="set no_new_privs"),
                Flag("cap", LIST, "c", "capability to add, may repeat"),
                Flag("cgroup", LIST, help="refused: the container's own is joined"),
                _PRESERVE,
                Flag("ignore-paused", SWITCH, help="also in a paused container"),
            ),
            most=_ANY,
        ),
        Command(
            "list",
            "",
            "List containers.",
            (
                _FORMAT,
                Flag("quiet", SWITCH, "q", "ids"),
            ),
            least=0,
            most=0,
        ),
        Command(
            "ps",
            "ID [ARG…]",
            "List a container's processes, with ps(1)'s options.",
            (_FORMAT,),
            most=_ANY,
        ),
        Command("pause", "ID", "Freeze all processes of a container."),
        Command("resume", "ID", "Let a paused container go on."),
        Command(
            "update",
            "ID",
            "Change limits of a container.",
            (
                Flag("resources", VALUE, "r", "file with linux.resources as JSON, - for stdin"),
                *(Flag(name, NUMBER, help=text) for name, text in _LIMITS),
                Flag("cpuset-cpus", VALUE, help="CPUs, such as 0-2,4"),
                Flag("cpuset-mems", VALUE, help="memory nodes"),
            ),
        ),
        Command(
            "events",
            "ID",
            "Print what a container uses, and when it runs out of memory.",
            (
                Flag("stats", SWITCH, help="once"),
                Flag("interval", VALUE, help="time between two (default 5s)"),
            ),
        ),
        Command("features", "", "Print what this runtime implements as JSON.", least=0, most=0),
        Command(
            "spec",
            "",
            "Write a config.json to start from.",
            (
                Flag("bundle", VALUE, "b", "directory to write to (default: this one)"),
                Flag("rootless", SWITCH, help="taken and of no effect: it always is"),
            ),
            least=0,
            most=0,
        ),
        Command("checkpoint", "ID", "Not supported.", most=_ANY),
        Command("restore", "ID", "Not supported.", most=_ANY),
    )
}


def parse(words: Sequence[str], flags: Sequence[Flag]) -> Parsed:
    """Parse flags up to the first operand; the rest are operands.  Raises UsageError."""
    known = {flag.name: flag for flag in flags} | {f.short: f for f in flags if f.short}
    parsed = Parsed({}, {}, [])
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            break
        if len(word) < 2 or not word.startswith("-"):
            rest.insert(0, word)
            break
        name, equals, value = word[2 if word.startswith("--") else 1 :].partition("=")
        flag = known.get(name)
        if flag is None:
            _switches(word, known, parsed)
            continue
        if flag.kind == SWITCH:
            value = value if equals else "true"
        elif not equals:
            if not rest:
                raise UsageError(f"flag needs an argument: --{flag.name}")
            value = rest.pop(0)
        parsed.values[flag.name] = value
        parsed.lists.setdefault(flag.name, []).append(value)
    parsed.operands.extend(rest)
    return parsed


def _switches(word: str, known: dict[str, Flag], parsed: Parsed) -> None:
    """Take `-td` as `-t -d`."""
    for letter in word[1:]:
        flag = known.get(letter)
        if word.startswith("--") or flag is None or flag.kind != SWITCH:
            raise UsageError(f"flag provided but not defined: {word}")
        parsed.values[flag.name] = "true"


def usage(command: Command | None) -> str:
    """Return the help of a command, or of the program."""
    if command is None:
        lines = ["usage: rp-oci [FLAGS] COMMAND [FLAGS] [OPERANDS]", "", "Commands:"]
        lines += [f"  {each.name:<11} {each.help}" for each in COMMANDS.values()]
        flags: Sequence[Flag] = GLOBAL
    else:
        lines = [f"usage: rp-oci {command.name} [FLAGS] {command.operands}".rstrip(), ""]
        lines.append(command.help)
        flags = command.flags
    if flags:
        lines += ["", "Flags:"]
    for flag in flags:
        names = f"-{flag.short}, --{flag.name}" if flag.short else f"    --{flag.name}"
        lines.append(f"  {names:<24} {flag.help}")
    return "\n".join(lines) + "\n"
