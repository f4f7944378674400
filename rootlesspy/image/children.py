"""Work done in forked children of a pull, whose values and errors come back typed."""

from __future__ import annotations

import errno
import os

from rootlesspy import errors
from rootlesspy.light_modules import json, signal
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import process

if TYPE_CHECKING:
    from collections.abc import Callable

_TYPES: dict[str, type[errors.Error]] = {
    kind.__name__: kind
    for kind in (
        errors.Error,
        errors.UsageError,
        errors.NotFound,
        errors.Conflict,
        errors.ImageError,
        errors.RegistryError,
        errors.Unsupported,
    )
}


class PipeClosed(errors.Error):
    """A neighbour in the pipeline left first; its own error says why."""


class Child(NamedTuple):
    """A forked child and the pipe on which its answer comes.

    pid is 0 for a child of somebody else, who sees to its end.
    """

    pid: int
    result_fd: int


def fork(function: Callable[[], object]) -> Child:
    """Run function in a child that dies with this process; wait() returns its JSON-able value."""
    parent = os.getpid()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            process.set_parent_death_signal(signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            # Ctrl-C reaches the whole foreground group: the parent reports it and cleans up.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # A neighbour that leaves is an error to be reported, not a reason to die silently.
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            with open(writer, "wb") as file:
                file.write(json.dumps(answer(function)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    return Child(pid, reader)


def wait(child: Child) -> object:
    """Wait for a child and return what its function returned, or raise what it raised."""
    with open(child.result_fd, "rb") as file:
        data = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) if child.pid else -9
    if not data:
        raise errors.Error(f"a process that did part of the work ended with status {status}")
    return value_of(json.loads(data))


def kill(child: Child) -> None:
    """End a child and forget its answer."""
    if child.pid:
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
    os.close(child.result_fd)


def answer(function: Callable[[], object]) -> dict[str, object]:
    """Call function and describe its value or its error so that JSON can carry it."""
    try:
        return {"value": function()}
    except (BrokenPipeError, PipeClosed):
        return {"type": "PipeClosed"}
    except errors.Error as error:
        kinds = [name for name, kind in _TYPES.items() if isinstance(error, kind)]
        return {"type": kinds[-1], "message": error.message, "hint": error.hint}
    except OSError as error:
        return {"errno": error.errno or errno.EIO, "strerror": error.strerror or str(error)}
    except Exception as error:  # noqa: BLE001 - the child's last line; the parent raises it
        import traceback  # 3 ms

        text = traceback.format_exc()
        return {"internal": f"{type(error).__name__}: {error}", "traceback": text}


def value_of(described: dict[str, object]) -> object:
    """Return the value, or raise the error, that answer() described.

    Raises rootlesspy.errors types, PipeClosed, OSError; RuntimeError for what nobody foresaw.
    """
    if "value" in described:
        return described["value"]
    if described.get("type") == "PipeClosed":
        raise PipeClosed("the process that reads this one's output is gone")
    if "type" in described:
        hint = described["hint"]
        raise _TYPES[str(described["type"])](
            str(described["message"]), hint=None if hint is None else str(hint)
        )
    if "errno" in described:
        raise OSError(int(str(described["errno"])), str(described["strerror"]))
    raise RuntimeError(f"{described['internal']}\n{described['traceback']}")
