"""`rp oci` and the program rp-oci: runc's command line, for engines that drive a runtime by it.

Words and exit codes are runc's: 1 for every failure (255 for exec), with the message on stderr and,
with --log, as a line of the log file.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from rootlesspy import __version__
from rootlesspy.cli import oci_flags
from rootlesspy.errors import Error, Unsupported, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rootlesspy.cli.oci_flags import Parsed
    from rootlesspy.engine.oci_runtime import create as creation
    from rootlesspy.engine.oci_runtime.state import Place

_FAILURE, _EXEC_FAILURE, _INTERRUPTED = 1, 255, 130


class Log:
    """Where messages go: the file of --log in its format, errors to stderr too."""

    def __init__(self, path: str, log_format: str, *, debug: bool) -> None:
        if log_format not in ("", "text", "json"):
            raise UsageError(f"invalid log-format {log_format!r}")
        self._path = path
        self._json = log_format == "json"
        self.debug = debug

    def failure(self, message: str) -> None:
        """Say why the command failed."""
        self._write("error", message)
        self._say(f"rp-oci: {message}")

    def warn(self, message: str) -> None:
        """Say what was done otherwise than asked."""
        self._write("warning", message)
        if not self._path:
            self._say(f"rp-oci: warning: {message}")

    def _say(self, text: str) -> None:
        try:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            # Nobody is there to read it.
            return

    def _write(self, level: str, message: str) -> None:
        if not self._path:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._json:
            line = json.dumps({"level": level, "msg": message, "time": now})
        else:
            line = f"time={json.dumps(now)} level={level} msg={json.dumps(message)}"
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            self._say(f"rp-oci: --log {self._path}: {error.strerror}")


class Call(NamedTuple):
    """One command, parsed."""

    given: Parsed
    general: Parsed
    log: Log
    environment: Mapping[str, str]

    @property
    def id(self) -> str:
        """The container that is named."""
        return self.given.operands[0]

    def root(self) -> str:
        """Return the directory of all containers."""
        from rootlesspy.engine.oci_runtime import state

        root = self.general.text("root")
        return os.path.abspath(root) if root else state.default_root(self.environment)

    def place(self) -> Place:
        """Return it with what it holds."""
        from rootlesspy.engine.oci_runtime import state

        return state.Place(self.root())


def main(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run one command line; return its exit code.  Reports errors itself."""
    log = Log("", "", debug=False)
    name = ""
    try:
        general = oci_flags.parse(words, oci_flags.GLOBAL)
        name = next(iter(general.operands), "")
        if general.on("version"):
            return _version()
        if general.on("help") or name in ("", "help"):
            return _print(oci_flags.usage(None))
        log = Log(general.text("log"), general.text("log-format"), debug=general.on("debug"))
        return _command(name, general, log, environment)
    except Error as error:
        log.failure(error.message + (f" ({error.hint})" if error.hint else ""))
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        log.failure(f"{where}{(error.strerror or str(error)).lower()}")
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:
        if log.debug:
            raise
        log.failure(f"internal error: {type(error).__name__}: {error}")
    return _EXEC_FAILURE if name == "exec" else _FAILURE


def _command(name: str, general: Parsed, log: Log, environment: Mapping[str, str]) -> int:
    command = oci_flags.COMMANDS.get(name)
    if command is None:
        raise UsageError(f"no such command: {name}")
    help_flag = oci_flags.Flag("help", oci_flags.SWITCH, "h")
    given = oci_flags.parse(general.operands[1:], (*command.flags, help_flag))
    if given.on("help"):
        return _print(oci_flags.usage(command))
    if not command.least <= len(given.operands) <= command.most:
        raise UsageError(f"{name!r} requires {command.operands or 'no operands'}")
    return _RUN[name](Call(given, general, log, environment))


def _print(text: str) -> int:
    sys.stdout.write(text)
    return 0


def _print_json(value: object, indent: int | None = 2) -> int:
    return _print(json.dumps(value, indent=indent) + "\n")


def _version() -> int:
    from rootlesspy.engine.oci_runtime import features

    return _print(f"rp-oci version {__version__}\nspec: {features.SPEC_VERSION}\n")


def _create_options(call: Call) -> creation.Options:
    from rootlesspy.engine.oci_runtime import create

    given = call.given
    return create.Options(
        root=call.root(),
        systemd_cgroup=call.general.on("systemd-cgroup"),
        console_socket=given.text("console-socket"),
        pid_file=given.text("pid-file"),
        preserve_fds=given.number("preserve-fds") or 0,
        no_pivot=given.on("no-pivot"),
        no_new_keyring=given.on("no-new-keyring"),
        debug=call.log.debug,
    )


def _create(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import create

    bundle = call.given.text("bundle") or "."
    create.create(call.id, bundle, _create_options(call), call.environment, call.log.warn)
    return 0


def _run(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import run

    return run.run(
        call.id,
        call.given.text("bundle") or ".",
        _create_options(call),
        call.environment,
        call.log.warn,
        detach=call.given.on("detach"),
        keep=call.given.on("keep"),
    )


def _start(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import lifecycle

    lifecycle.start(call.place(), call.id, call.environment, call.log.warn)
    return 0


def _state(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import state

    directory, container = call.place().load(call.id)
    return _print_json(state.shown(container, container.status(directory)))


def _kill(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import lifecycle

    word = (call.given.operands[1:] or ["SIGTERM"])[0]
    number = lifecycle.signal_number(word)
    lifecycle.kill(call.place(), call.id, number, everything=call.given.on("all"))
    return 0


def _delete(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import lifecycle

    force = call.given.on("force")
    lifecycle.delete(call.place(), call.id, call.environment, call.log.warn, force=force)
    return 0


def _exec(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import execute

    given = call.given
    if given.lists.get("cgroup"):
        raise Unsupported("--cgroup is not supported: a process joins the container's own cgroup")
    gids = given.lists.get("additional-gids", [])
    if not all(gid.isascii() and gid.isdigit() for gid in gids):
        raise UsageError("--additional-gids must be numbers")
    options = execute.Options(
        process_file=given.text("process"),
        arguments=tuple(given.operands[1:]),
        terminal=given.on("tty"),
        cwd=given.text("cwd"),
        environment=tuple(given.lists.get("env", ())),
        user=given.text("user"),
        additional_gids=tuple(int(gid) for gid in gids),
        capabilities=tuple(given.lists.get("cap", ())),
        no_new_privileges=given.on("no-new-privs"),
        apparmor=given.text("apparmor"),
        process_label=given.text("process-label"),
        detach=given.on("detach"),
        console_socket=given.text("console-socket"),
        pid_file=given.text("pid-file"),
        preserve_fds=given.number("preserve-fds") or 0,
        ignore_paused=given.on("ignore-paused"),
        debug=call.log.debug,
    )
    return execute.execute(call.place(), call.id, options, call.environment, call.log.warn)


def _list(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import state

    found = [
        state.shown(container, container.status(directory))
        for directory, container in call.place().all()
    ]
    if call.given.on("quiet"):
        return _print("".join(f"{each['id']}\n" for each in found))
    if call.given.text("format") == "json":
        return _print_json(found or None, indent=None)
    rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
    keys = ("id", "pid", "status", "bundle", "created", "owner")
    rows += [tuple(str(each[key]) for key in keys) for each in found]  # type: ignore[misc]
    return _print_table(rows)


def _print_table(rows: Sequence[tuple[str, ...]]) -> int:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = ("   ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return _print("".join(f"{line}\n" for line in lines))


def _ps(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import lifecycle, stats

    _, container = call.place().load(call.id)
    pids = lifecycle.processes(container)
    if call.given.text("format") == "json":
        return _print_json(pids, indent=None)
    return _print(stats.process_table(pids, call.given.operands[1:]))


def _pause(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import lifecycle

    lifecycle.pause(call.place(), call.id)
    return 0


def _resume(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import lifecycle

    lifecycle.resume(call.place(), call.id)
    return 0


def _update(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import update

    numbers = {
        name: number
        for name in call.given.values
        if name not in ("resources", "cpuset-cpus", "cpuset-mems")
        and (number := call.given.number(name)) is not None
    }
    texts = {name: call.given.text(name) for name in ("cpuset-cpus", "cpuset-mems")}
    wanted = update.resources(call.given.text("resources"), numbers, texts)
    update.update(call.place(), call.id, wanted, call.environment)
    return 0


def _events(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import stats

    place = call.place()
    if call.given.on("stats"):
        return _print_json(stats.event(place, call.id), indent=None)
    for event in stats.follow(place, call.id, call.given.text("interval") or "5s"):
        _print_json(event, indent=None)
        sys.stdout.flush()
    return 0


def _features(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import features

    del call
    return _print_json(features.document())


def _spec(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import default_spec

    default_spec.write(call.given.text("bundle") or ".")
    return 0


def _refuse(call: Call) -> int:
    del call
    raise Unsupported("checkpoint and restore are not supported: CRIU needs privileges of root")


_RUN: dict[str, Callable[[Call], int]] = {
    "create": _create,
    "start": _start,
    "run": _run,
    "state": _state,
    "kill": _kill,
    "delete": _delete,
    "exec": _exec,
    "list": _list,
    "ps": _ps,
    "pause": _pause,
    "resume": _resume,
    "update": _update,
    "events": _events,
    "features": _features,
    "spec": _spec,
    "checkpoint": _refuse,
    "restore": _refuse,
}
