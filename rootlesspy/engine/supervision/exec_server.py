"""`rp exec` on the supervisor's side: from a client's packet to a session and its exit code.

A client that dies hangs up: SIGHUP, and SIGKILL when that was not enough; one that detaches leaves
the process running.
"""

from __future__ import annotations

import os

from rootlesspy.engine.output import events
from rootlesspy.engine.supervision.exec_request import Wish
from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.engine.supervision.clients import Client
    from rootlesspy.engine.supervision.control import Message
    from rootlesspy.engine.supervision.loop import Loop
    from rootlesspy.engine.supervision.sessions import Session, Sessions
    from rootlesspy.errors import Error

_HANG_UP_S = 10.0


def serve(sessions: Sessions, client: Client, message: Message, found: ContainerRecord) -> None:
    """Begin what a client asks for; message's descriptors are the caller's to close.

    Raises Error.
    """
    wish = _wish(message)
    # A name for events and for whoever asked; nothing is kept of a session.
    session_id = os.urandom(32).hex()

    def started(session: Session, master_fd: int) -> None:
        fds = (master_fd,) if master_fd >= 0 else ()
        client.send("started", {"pid": session.pid, "tty": wish.tty, "session": session_id}, fds)
        events.emit("exec", found, command=" ".join(wish.args), exec_id=session_id)

    def failed(error: Error) -> None:
        client.session = None
        client.tell(
            "failed", exit_code=error.exit_code, message=error.message, hint=error.hint or ""
        )

    def ended(code: int) -> None:
        client.session = None
        client.tell("exited", exit_code=code)
        events.emit("exec_died", found, exit_code=code, exec_id=session_id)

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


def detach(sessions: Sessions, session: Session, _turns: Loop) -> None:
    """The client went, and leaves its session running."""
    sessions.detach(session)


def hang_up(sessions: Sessions, session: Session, turns: Loop) -> None:
    """End a session whose client has died."""
    session.signal(signal.SIGHUP)
    sessions.close_terminal(session)
    turns.after(f"hang up {session.pid}", _HANG_UP_S, lambda: session.signal(signal.SIGKILL))


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
