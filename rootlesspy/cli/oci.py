"""`rp oci` and the program rp-oci: runc's command line, for engines that drive a runtime by it.

Here is what an engine calls for every container; the other commands are in oci_cold.  Each import
is paid by every call, so that it stands where it is needed.

Words and exit codes are runc's: 1 for every failure (255 for exec), with the message on stderr and,
with --log, as a line of the log file.
"""

from __future__ import annotations

import os
import sys
import time

from rootlesspy.cli import oci_flags
from rootlesspy.errors import Error, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

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
        from rootlesspy.engine.oci_runtime import jsontext

        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._json:
            line = jsontext.dumps({"level": level, "msg": message, "time": now})
        else:
            line = f"time={jsontext.dumps(now)} level={level} msg={jsontext.dumps(message)}"
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
            from rootlesspy.cli import oci_cold

            return oci_cold.version()
        if general.on("help") or name in ("", "help"):
            return print_text(oci_flags.usage(None))
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
        return print_text(oci_flags.usage(command))
    if not command.least <= len(given.operands) <= command.most:
        raise UsageError(f"{name!r} requires {command.operands or 'no operands'}")
    run = _HOT.get(name)
    if run is None:
        from rootlesspy.cli import oci_cold

        run = oci_cold.COMMANDS[name]
    return run(Call(given, general, log, environment))


def print_text(text: str) -> int:
    sys.stdout.write(text)
    return 0


def create_options(call: Call) -> creation.Options:
    """Return the flags that create and run have in common."""
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
    create.create(call.id, bundle, create_options(call), call.environment, call.log.warn)
    return 0


def _start(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import lifecycle

    lifecycle.start(call.place(), call.id, call.environment, call.log.warn)
    return 0


def _state(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import jsontext, state

    directory, container = call.place().load(call.id)
    shown = state.shown(container, container.status(directory))
    return print_text(jsontext.dumps(shown, "  ") + "\n")


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


_HOT: dict[str, Callable[[Call], int]] = {
    "create": _create,
    "start": _start,
    "state": _state,
    "kill": _kill,
    "delete": _delete,
}
