"""Who talks to the service of a pod, and has it started when it does not run."""

from __future__ import annotations

import os
import time

from rootlesspy.engine.supervision import control
from rootlesspy.errors import Conflict
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import socket

    from rootlesspy.engine.pods.store import Pod
    from rootlesspy.network.namespace import Namespace
    from rootlesspy.paths import Paths

MEMBER = "member"
"""Said by a member's supervisor, which holds the connection as long as it lives."""
# A pod whose last member has ended may be about to end with it (--exit-policy stop).
_START_TIMEOUT_S = 60.0
_POLL_S = 0.05


class Handed(NamedTuple):
    """The namespaces that a pod's service hands out; the descriptors are the caller's."""

    fds: dict[str, int]
    """By kind, user and mount among them."""
    pid: int
    """Who is in them, and its start in clock ticks after boot."""
    start: int

    def close(self, *kept: str) -> None:
        """Let go of those that are not kept."""
        for kind, fd in self.fds.items():
            if kind not in kept:
                os.close(fd)


def running(paths: Paths, pod: Pod) -> Handed | None:
    """Return the namespaces of a pod that runs, else None."""
    end = control.connect(paths, pod.id)
    if end is None:
        return None
    try:
        return _handed(end)
    finally:
        end.close()


def started(paths: Paths, pod: Pod) -> Handed:
    """Return the namespaces of a pod, started where it does not run.  Raises Conflict, Error."""
    handed, end = _started(paths, pod)
    end.close()
    return handed


def enter(paths: Paths, pod: Pod) -> int:
    """Say that a member is about to run; return the connection, which says so until it is closed.

    Raises Conflict, Error.
    """
    handed, end = _started(paths, pod)
    handed.close()
    control.tell(end, MEMBER)
    return end.detach()


def network_namespace(paths: Paths, pod: Pod) -> Namespace | None:
    """Return the network namespace of a pod that runs, with its user namespace; else None."""
    from rootlesspy.network.namespace import Namespace

    handed = running(paths, pod)
    if handed is None or "network" not in handed.fds:
        return None
    handed.close("user", "network")
    return Namespace(handed.fds["user"], handed.fds["network"])


def _started(paths: Paths, pod: Pod) -> tuple[Handed, socket.socket]:
    from rootlesspy.engine.pods import actions

    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        actions.start_service(paths, pod)
        end = control.connect(paths, pod.id)
        if end is not None:
            handed = _handed(end)
            if handed is not None:
                return handed, end
            end.close()
        if time.monotonic() > deadline:
            raise Conflict(f"pod {pod.name} is not running", hint=f"rp pod start {pod.name}")
        time.sleep(_POLL_S)


def _handed(end: socket.socket) -> Handed | None:
    message = control.receive(end)
    if message is None:
        return None
    kinds = message.fields.get("kinds")
    if not isinstance(kinds, list) or len(kinds) != len(message.fds):
        message.close()
        return None
    fds = dict(zip(map(str, kinds), message.fds, strict=True))
    return Handed(fds, message.number("pid"), message.number("start"))
