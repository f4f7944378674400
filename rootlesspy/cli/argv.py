"""The fast parser: argv of the hot commands, from one table, without typer (90 to 220 ms).

`parse` declines by returning None whatever it is not sure of: help, unknown options, missing
arguments, other commands.  Then typer parses the same argv and reports.  The rules are those of
podman's flag package (pflag): clusters of short options, `-eVALUE`, `-e=VALUE`, `--opt=VALUE`,
`--flag=false`, the last value wins, and options end at `--` or, for run, at the image.
The command modules make typer's options from the same table; a test runs many an argv through both.
"""

from __future__ import annotations

from rootlesspy.light_typing import NamedTuple

FLAG, SWITCH, VALUE, LIST = "flag", "switch", "value", "list"


class Option(NamedTuple):
    """One option of a command."""

    dest: str
    kind: str
    """FLAG: no argument; SWITCH: the same, on unless it is switched off by --name=false; VALUE: one
    argument, the last given wins; LIST: one, all of them count.
    """
    names: tuple[str, ...]


class Command(NamedTuple):
    """One command: its options and what may follow them."""

    name: str
    options: tuple[Option, ...]
    operand: str | None
    """Where the first operand goes; None: the command takes none."""
    rest: str | None = None
    """Where everything after the first operand goes."""
    operands: str | None = None
    """Where all operands go, any number of them."""
    interspersed: bool = True
    """Whether options may stand between operands."""


class Values:
    """What the options of one command were given, typed or not at all."""

    __slots__ = ("_given",)

    def __init__(self, given: dict[str, object]) -> None:
        self._given = given

    def flag(self, dest: str, *, default: bool = False) -> bool:
        """Whether a flag is on; default: when it was not given (True for a SWITCH)."""
        return self._given.get(dest, default) is True

    def value(self, dest: str) -> str | None:
        """The text of an option, None when it was not given."""
        text = self._given.get(dest)
        return text if isinstance(text, str) else None

    def values(self, dest: str) -> tuple[str, ...]:
        """All texts of an option that may be repeated."""
        texts = self._given.get(dest)
        return tuple(texts) if isinstance(texts, (list, tuple)) else ()


class Invocation(NamedTuple):
    """An argv that was understood."""

    command: Command
    values: Values


RUN = Command(
    name="run",
    operand="image",
    rest="command",
    options=(
        Option("add_host", LIST, ("--add-host",)),
        Option("annotation", LIST, ("--annotation",)),
        Option("cap_add", LIST, ("--cap-add",)),
        Option("cap_drop", LIST, ("--cap-drop",)),
        Option("cgroupns", VALUE, ("--cgroupns",)),
        Option("cgroups", VALUE, ("--cgroups",)),
        Option("cidfile", VALUE, ("--cidfile",)),
        Option("cpu_shares", VALUE, ("--cpu-shares", "-c")),
        Option("cpus", VALUE, ("--cpus",)),
        Option("cpuset_cpus", VALUE, ("--cpuset-cpus",)),
        Option("detach", FLAG, ("--detach", "-d")),
        Option("detach_keys", VALUE, ("--detach-keys",)),
        Option("device", LIST, ("--device",)),
        Option("device_cgroup_rule", LIST, ("--device-cgroup-rule",)),
        Option("dns", LIST, ("--dns",)),
        Option("dns_option", LIST, ("--dns-option", "--dns-opt")),
        Option("dns_search", LIST, ("--dns-search",)),
        Option("entrypoint", VALUE, ("--entrypoint",)),
        Option("env", LIST, ("--env", "-e")),
        Option("env_file", LIST, ("--env-file",)),
        Option("gpus", LIST, ("--gpus",)),
        Option("gidmap", LIST, ("--gidmap",)),
        Option("group_add", LIST, ("--group-add",)),
        Option("health_cmd", VALUE, ("--health-cmd",)),
        Option("health_interval", VALUE, ("--health-interval",)),
        Option("health_max_log_count", VALUE, ("--health-max-log-count",)),
        Option("health_max_log_size", VALUE, ("--health-max-log-size",)),
        Option("health_on_failure", VALUE, ("--health-on-failure",)),
        Option("health_retries", VALUE, ("--health-retries",)),
        Option("health_start_interval", VALUE, ("--health-start-interval",)),
        Option("health_start_period", VALUE, ("--health-start-period",)),
        Option("health_startup_cmd", VALUE, ("--health-startup-cmd",)),
        Option("health_startup_interval", VALUE, ("--health-startup-interval",)),
        Option("health_startup_retries", VALUE, ("--health-startup-retries",)),
        Option("health_startup_success", VALUE, ("--health-startup-success",)),
        Option("health_startup_timeout", VALUE, ("--health-startup-timeout",)),
        Option("health_timeout", VALUE, ("--health-timeout",)),
        Option("hooks_dir", LIST, ("--hooks-dir",)),
        Option("hostname", VALUE, ("--hostname", "-h")),
        Option("ignore_missing_limits", FLAG, ("--ignore-missing-limits",)),
        Option("init", FLAG, ("--init",)),
        Option("interactive", FLAG, ("--interactive", "-i")),
        Option("ip", VALUE, ("--ip",)),
        Option("ip6", VALUE, ("--ip6",)),
        Option("ipc", VALUE, ("--ipc",)),
        Option("label", LIST, ("--label", "-l")),
        Option("label_file", LIST, ("--label-file",)),
        Option("landlock", LIST, ("--landlock",)),
        Option("log_driver", VALUE, ("--log-driver",)),
        Option("log_opt", LIST, ("--log-opt",)),
        Option("mac_address", VALUE, ("--mac-address",)),
        Option("memory", VALUE, ("--memory", "-m")),
        Option("memory_reservation", VALUE, ("--memory-reservation",)),
        Option("memory_swap", VALUE, ("--memory-swap",)),
        Option("mount", LIST, ("--mount",)),
        Option("name", VALUE, ("--name",)),
        Option("network", LIST, ("--network", "--net")),
        Option("network_alias", LIST, ("--network-alias",)),
        Option("no_healthcheck", FLAG, ("--no-healthcheck",)),
        Option("pid", VALUE, ("--pid",)),
        Option("pids_limit", VALUE, ("--pids-limit",)),
        Option("platform", VALUE, ("--platform",)),
        Option("privileged", FLAG, ("--privileged",)),
        Option("property", LIST, ("--property",)),
        Option("pod", VALUE, ("--pod",)),
        Option("publish", LIST, ("--publish", "-p")),
        Option("publish_all", FLAG, ("--publish-all", "-P")),
        Option("pull", VALUE, ("--pull",)),
        Option("quiet", FLAG, ("--quiet", "-q")),
        Option("read_only", FLAG, ("--read-only",)),
        Option("restart", VALUE, ("--restart",)),
        Option("rm", FLAG, ("--rm",)),
        Option("rootfs", FLAG, ("--rootfs",)),
        Option("sdnotify", VALUE, ("--sdnotify",)),
        Option("secret", LIST, ("--secret",)),
        Option("security_opt", LIST, ("--security-opt",)),
        Option("shm_size", VALUE, ("--shm-size",)),
        Option("sig_proxy", SWITCH, ("--sig-proxy",)),
        Option("signature_policy", VALUE, ("--signature-policy",)),
        Option("stop_signal", VALUE, ("--stop-signal",)),
        Option("stop_timeout", VALUE, ("--stop-timeout",)),
        Option("subgidname", VALUE, ("--subgidname",)),
        Option("subuidname", VALUE, ("--subuidname",)),
        Option("sysctl", LIST, ("--sysctl",)),
        Option("tmpfs", LIST, ("--tmpfs",)),
        Option("tty", FLAG, ("--tty", "-t")),
        Option("uidmap", LIST, ("--uidmap",)),
        Option("ulimit", LIST, ("--ulimit",)),
        Option("umask", VALUE, ("--umask",)),
        Option("user", VALUE, ("--user", "-u")),
        Option("userns", VALUE, ("--userns",)),
        Option("uts", VALUE, ("--uts",)),
        Option("verify_always", FLAG, ("--verify-always",)),
        Option("volume", LIST, ("--volume", "-v")),
        Option("workdir", VALUE, ("--workdir", "-w")),
    ),
)

PS = Command(
    name="ps",
    operand=None,
    options=(
        Option("all", FLAG, ("--all", "-a")),
        Option("external", FLAG, ("--external",)),
        Option("filter", LIST, ("--filter", "-f")),
        Option("format", VALUE, ("--format",)),
        Option("last", VALUE, ("--last", "-n")),
        Option("latest", FLAG, ("--latest", "-l")),
        Option("namespaces", FLAG, ("--ns", "--namespace")),
        Option("no_trunc", FLAG, ("--no-trunc",)),
        Option("noheading", FLAG, ("--noheading",)),
        Option("pod", FLAG, ("--pod", "-p")),
        Option("quiet", FLAG, ("--quiet", "-q")),
        Option("size", FLAG, ("--size", "-s")),
        Option("sort", VALUE, ("--sort",)),
        Option("sync", FLAG, ("--sync",)),
        Option("watch", VALUE, ("--watch", "-w")),
    ),
)

INSPECT = Command(
    name="inspect",
    operand=None,
    operands="names",
    options=(
        Option("format", VALUE, ("--format", "-f")),
        Option("latest", FLAG, ("--latest", "-l")),
        Option("size", FLAG, ("--size", "-s")),
        Option("type", VALUE, ("--type", "-t")),
    ),
)

CREATE = RUN._replace(
    name="create",
    options=tuple(
        each for each in RUN.options if each.dest not in ("detach", "detach_keys", "sig_proxy")
    ),
)

EXEC = Command(
    name="exec",
    operand="container",
    rest="command",
    options=(
        Option("detach", FLAG, ("--detach", "-d")),
        Option("detach_keys", VALUE, ("--detach-keys",)),
        Option("env", LIST, ("--env", "-e")),
        Option("env_file", LIST, ("--env-file",)),
        Option("interactive", FLAG, ("--interactive", "-i")),
        Option("latest", FLAG, ("--latest", "-l")),
        Option("privileged", FLAG, ("--privileged",)),
        Option("tty", FLAG, ("--tty", "-t")),
        Option("user", VALUE, ("--user", "-u")),
        Option("workdir", VALUE, ("--workdir", "-w")),
    ),
)

START = Command(
    name="start",
    operand=None,
    operands="names",
    options=(
        Option("all", FLAG, ("--all",)),
        Option("attach", FLAG, ("--attach", "-a")),
        Option("detach_keys", VALUE, ("--detach-keys",)),
        Option("filter", LIST, ("--filter", "-f")),
        Option("interactive", FLAG, ("--interactive", "-i")),
        Option("latest", FLAG, ("--latest", "-l")),
        Option("sig_proxy", SWITCH, ("--sig-proxy",)),
    ),
)

STOP = Command(
    name="stop",
    operand=None,
    operands="names",
    options=(
        Option("all", FLAG, ("--all", "-a")),
        Option("cidfile", LIST, ("--cidfile",)),
        Option("filter", LIST, ("--filter", "-f")),
        Option("ignore", FLAG, ("--ignore", "-i")),
        Option("latest", FLAG, ("--latest", "-l")),
        Option("time", VALUE, ("--time", "-t")),
    ),
)

RM = Command(
    name="rm",
    operand=None,
    operands="names",
    options=(
        Option("all", FLAG, ("--all", "-a")),
        Option("cidfile", LIST, ("--cidfile",)),
        Option("depend", FLAG, ("--depend",)),
        Option("filter", LIST, ("--filter",)),
        Option("force", FLAG, ("--force", "-f")),
        Option("ignore", FLAG, ("--ignore", "-i")),
        Option("latest", FLAG, ("--latest", "-l")),
        Option("time", VALUE, ("--time", "-t")),
        Option("volumes", FLAG, ("--volumes", "-v")),
    ),
)

LOGS = Command(
    name="logs",
    operand=None,
    operands="names",
    options=(
        Option("follow", FLAG, ("--follow", "-f")),
        Option("since", VALUE, ("--since",)),
        Option("until", VALUE, ("--until",)),
        Option("tail", VALUE, ("--tail",)),
        Option("timestamps", FLAG, ("--timestamps", "-t")),
        Option("with_names", FLAG, ("--names", "-n")),
        Option("colour", FLAG, ("--color",)),
        Option("latest", FLAG, ("--latest", "-l")),
    ),
)

HOT = (RUN, CREATE, EXEC, START, STOP, RM, PS, INSPECT, LOGS)
# What is mostly asked of a pull; typer, in images.py, knows all its options.
PULL = Command(
    name="pull",
    operand=None,
    operands="names",
    options=(
        Option("platform", VALUE, ("--platform",)),
        Option("policy", VALUE, ("--policy",)),
        Option("quiet", FLAG, ("--quiet", "-q")),
    ),
)


def parse(argv: list[str]) -> Invocation | None:
    """Parse the arguments of rp, the program's name left out; None when typer has to do it."""
    words = argv
    while words and words[0] in ("--debug", "--debug-timing"):
        words = words[1:]
    for command in (*HOT, PULL):
        if words and words[0] == command.name:
            given = parse_command(command, words[1:])
            return None if given is None else Invocation(command, Values(given))
    return None


def parse_command(command: Command, words: list[str]) -> dict[str, object] | None:
    """Parse what follows the name of a command; None when typer has to do it."""
    options = {name: option for option in command.options for name in option.names}
    given: dict[str, object] = {}
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            break
        if len(word) < 2 or word[0] != "-":
            if command.operands is not None and command.interspersed:
                _set_operand(given, command.operands, word)
                continue
            # Options end at the first operand; commands without operands have none to end at.
            position -= 1
            break
        parse_word = _parse_long if word.startswith("--") else _parse_short
        taken = parse_word(options, given, word, words[position : position + 1])
        if taken is None:
            return None
        position += taken
    return _parse_operands(command, given, words[position:])


def _parse_operands(
    command: Command, given: dict[str, object], operands: list[str]
) -> dict[str, object] | None:
    if command.operands is not None:
        for word in operands:
            _set_operand(given, command.operands, word)
        return given
    if command.operand is None:
        return None if operands else given
    if not operands:
        return None
    given[command.operand] = operands[0]
    if command.rest is not None:
        given[command.rest] = operands[1:]
    elif len(operands) > 1:
        return None
    return given


def _set_operand(given: dict[str, object], dest: str, word: str) -> None:
    words = given.setdefault(dest, [])
    if isinstance(words, list):
        words.append(word)


def _parse_long(
    options: dict[str, Option], given: dict[str, object], word: str, following: list[str]
) -> int | None:
    """Take one --option; return how many of the following words it used, None when unsure."""
    name, equals, text = word.partition("=")
    option = options.get(name)
    if option is None:
        return None
    if option.kind in (FLAG, SWITCH):
        return _set_flag(given, option, text if equals else "true")
    if equals:
        return _set_text(given, option, text, 0)
    return _set_text(given, option, following[0], 1) if following else None


def _parse_short(
    options: dict[str, Option], given: dict[str, object], word: str, following: list[str]
) -> int | None:
    """Take a cluster of one-letter options, the last one perhaps with its argument."""
    for index in range(1, len(word)):
        option = options.get(f"-{word[index]}")
        tail = word[index + 1 :]
        if option is None:
            return None
        # As pflag: `=` stands before the argument when something follows it.
        has_equals = len(tail) > 1 and tail[0] == "="
        if option.kind in (FLAG, SWITCH):
            if has_equals:
                return _set_flag(given, option, tail[1:])
            given[option.dest] = True
        elif tail:
            return _set_text(given, option, tail[1:] if has_equals else tail, 0)
        else:
            return _set_text(given, option, following[0], 1) if following else None
    return 0


def _set_flag(given: dict[str, object], option: Option, text: str) -> int | None:
    from rootlesspy.engine.inputs.constants import BOOLEANS

    if text not in BOOLEANS:
        return None
    given[option.dest] = BOOLEANS[text]
    return 0


def _set_text(given: dict[str, object], option: Option, text: str, taken: int) -> int:
    if option.kind == VALUE:
        given[option.dest] = text
    else:
        texts = given.setdefault(option.dest, [])
        if isinstance(texts, list):
            texts.append(text)
    return taken
