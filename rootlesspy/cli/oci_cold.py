"""Commands of rp-oci that are not called for every container: see oci."""

from __future__ import annotations

import json
import sys

from rootlesspy import __version__
from rootlesspy.cli.oci import create_options, print_text
from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootlesspy.cli.oci import Call


def print_json(value: object, indent: int | None = 2) -> int:
    """Print a document; return the exit code."""
    return print_text(json.dumps(value, indent=indent) + "\n")


def version() -> int:
    """Print the version; return the exit code."""
    from rootlesspy.engine.oci_runtime import support

    return print_text(f"rp-oci version {__version__}\nspec: {support.VERSION}\n")


def _run(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import run

    return run.run(
        call.id,
        call.given.text("bundle") or ".",
        create_options(call),
        call.environment,
        call.log.warn,
        detach=call.given.on("detach"),
        keep=call.given.on("keep"),
    )


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


def _is_json(call: Call) -> bool:
    word = call.given.text("format") or "table"
    if word not in ("table", "json"):
        raise UsageError("invalid format option")
    return word == "json"


def _list(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import state

    found = [
        state.shown(container, container.status(directory))
        for directory, container in call.place().all()
    ]
    as_json = _is_json(call)
    if call.given.on("quiet"):
        return print_text("".join(f"{each['id']}\n" for each in found))
    if as_json:
        return print_json(found or None, indent=None)
    rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
    keys = ("id", "pid", "status", "bundle", "created", "owner")
    rows += [tuple(str(each[key]) for key in keys) for each in found]  # type: ignore[misc]
    return _print_table(rows)


def _print_table(rows: Sequence[tuple[str, ...]]) -> int:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = ("   ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return print_text("".join(f"{line}\n" for line in lines))


def _ps(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import lifecycle, stats

    as_json = _is_json(call)
    _, container = call.place().load(call.id)
    pids = lifecycle.processes(container)
    if as_json:
        return print_json(pids, indent=None)
    return print_text(stats.process_table(pids, call.given.operands[1:]))


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
        return print_json(stats.event(place, call.id), indent=None)
    for event in stats.follow(place, call.id, call.given.text("interval") or "5s"):
        print_json(event, indent=None)
        sys.stdout.flush()
    return 0


def _features(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import features

    del call
    return print_json(features.document())


def _spec(call: Call) -> int:
    from rootlesspy.engine.oci_runtime import default_spec

    default_spec.write(call.given.text("bundle") or ".")
    return 0


def _refuse(call: Call) -> int:
    del call
    raise Unsupported("checkpoint and restore are not supported: CRIU needs privileges of root")


COMMANDS: dict[str, Callable[[Call], int]] = {
    "run": _run,
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
