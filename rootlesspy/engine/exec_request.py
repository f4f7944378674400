"""`rp exec`: one more process in a running container; the request, its two ends.

The client hands over its own stdin, stdout and stderr, or is handed the master of the terminal that
the process gets: nothing is copied by the supervisor.  A client that dies hangs up: SIGHUP, and
SIGKILL when that was not enough; one that detaches leaves the process running.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, NamedTuple

from rootlesspy.engine import control, events
from rootlesspy.engine.sessions import Wish

if TYPE_CHECKING:
    from rootlesspy.engine.clients import Client
    from rootlesspy.engine.control import Message
    from rootlesspy.engine.loop import Loop
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.engine.sessions import Session, Sessions
    from rootlesspy.errors import Error
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

_HANG_UP_S = 10.0


class ExecRequest(NamedTuple):
    """What was asked."""

    wish: Wish
    interactive: bool = False
    detach: bool = False
    detach_keys: bytes = b""


def run(paths: Paths, text: str, request: ExecRequest, reporter: Reporter) -> int:
    """Run a process in a container and return its exit code; 0 once it runs, when detached.

    Raises Conflict when the container does not run or is paused, CommandNotFound and the like.
    """
    from rootlesspy.engine import attach, lifecycle, tty
    from rootlesspy.errors import Conflict

    found = lifecycle.get(paths, text)
    end = lifecycle.running(paths, found)
    try:
        if lifecycle.is_paused(paths, found):
            name = found.record.name
            raise Conflict(f"container {name} is paused", hint=f"rp unpause {name}")
        wish = request.wish
        if wish.tty:
            rows, columns = tty.size_of(0, 1)
            wish = wish._replace(rows=rows, columns=columns)
        fds = _descriptors(request)
        control.send(end, "exec", fds, wish._asdict())
        for fd in fds:
            if fd > 2:
                os.close(fd)
        client = attach.Client(
            end,
            None,
            interactive=request.interactive,
            detach_keys=request.detach_keys,
            reporter=reporter,
        )
        return client.run_until_started() if request.detach else client.run()
    finally:
        end.close()


def serve(sessions: Sessions, client: Client, message: Message, found: ContainerRecord) -> None:
    """Begin what a client asks for; message's descriptors are the caller's to close.

    Raises Error.
    """
    wish = _wish(message)

    def started(session: Session, master_fd: int) -> None:
        fds = (master_fd,) if master_fd >= 0 else ()
        client.send("started", {"pid": session.pid, "tty": wish.tty}, fds)
        events.emit("exec", found, command=" ".join(wish.args))
        if master_fd >= 0:
            # The client's alone: when it goes, the process is hung up on.
            os.close(master_fd)
            session.master_fd = -1

    def failed(error: Error) -> None:
        client.session = None
        client.tell(
            "failed", exit_code=error.exit_code, message=error.message, hint=error.hint or ""
        )

    def ended(code: int) -> None:
        client.session = None
        client.tell("exited", exit_code=code)
        events.emit("exec_died", found, exit_code=code)

    stdio = message.fds[:3]
    null = -1
    if len(stdio) < 3:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        stdio = (null, null, null)
    try:
        client.session = sessions.begin(
            wish, (stdio[0], stdio[1], stdio[2]), started=started, failed=failed, ended=ended
        )
    finally:
        if null >= 0:
            os.close(null)


def hang_up(session: Session, turns: Loop) -> None:
    """End a session whose client has died."""
    session.signal(signal.SIGHUP)
    turns.after(f"hang up {session.pid}", _HANG_UP_S, lambda: session.signal(signal.SIGKILL))


def _descriptors(request: ExecRequest) -> tuple[int, ...]:
    """Return what becomes the process's 0, 1 and 2; none with a terminal."""
    if request.wish.tty or request.detach:
        return ()
    if request.interactive:
        return (0, 1, 2)
    return (os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 1, 2)


def _wish(message: Message) -> Wish:
    fields = message.fields

    def texts(name: str) -> tuple[str, ...]:
        value = fields.get(name)
        return tuple(map(str, value)) if isinstance(value, list) else ()

    return Wish(
        args=texts("args"),
        env=texts("env"),
        cwd=message.text("cwd"),
        user=message.text("user"),
        tty=bool(message.number("tty")),
        privileged=bool(message.number("privileged")),
        rows=message.number("rows"),
        columns=message.number("columns"),
    )
