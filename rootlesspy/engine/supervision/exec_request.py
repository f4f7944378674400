"""`rp exec`: one more process in a running container; what is asked, and the client.

The client hands over its own stdin, stdout and stderr, or is handed the master of the terminal that
the process gets: nothing is copied by the supervisor, whose side is engine.supervision.exec_server.
"""

from __future__ import annotations

import os

from rootlesspy.engine.supervision import control
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


class Wish(NamedTuple):
    """What is to run."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    """KEY=VALUE each, over the container's own."""
    cwd: str = ""
    user: str = ""
    """Empty: the container's."""
    tty: bool = False
    privileged: bool = False
    rows: int = 0
    columns: int = 0


class ExecRequest(NamedTuple):
    """What was asked."""

    wish: Wish
    interactive: bool = False
    detach: bool = False
    detach_keys: bytes = b""


def run(paths: Paths, text: str, request: ExecRequest, reporter: Reporter) -> int | str:
    """Run a process in a container; return its exit code or, detached, the id of its session.

    Raises Conflict when the container does not run or is paused, CommandNotFound and the like.
    """
    from rootlesspy.engine import lifecycle
    from rootlesspy.engine.supervision import attach, tty
    from rootlesspy.errors import Conflict, RuntimeFailure

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
        if not control.send(end, "exec", fds, wish._asdict()):
            raise RuntimeFailure("the request did not reach the supervisor", step="exec")
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
        try:
            return client.run_until_started() if request.detach else client.run()
        except attach.SupervisorLostError:
            if client.started:
                raise
            name = found.record.name
            raise Conflict(
                f"container {name} ended before the process began", hint=f"rp why {name}"
            ) from None
    finally:
        end.close()


def _descriptors(request: ExecRequest) -> tuple[int, ...]:
    """Return what becomes the process's 0, 1 and 2; none with a terminal."""
    if request.wish.tty or request.detach:
        return ()
    if request.interactive:
        return (0, 1, 2)
    return (os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 1, 2)
