"""More processes in a running container, on the supervisor's side: exec sessions, health checks.

A session is the supervisor's own child.  It ends with the container, whose PID namespace it is in.
Nothing here waits: the hand-shake of runtime.join is followed from the poll loop.
"""

from __future__ import annotations

import os
import select

from rootlesspy.engine.inputs import capabilities
from rootlesspy.errors import Error, RuntimeFailure
from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.runtime import create, join, sync
from rootlesspy.systemd import cgroup, scope

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.supervision.exec_request import Wish
    from rootlesspy.engine.supervision.job import Job
    from rootlesspy.engine.supervision.loop import Loop
    from rootlesspy.engine.supervision.start import Running
    from rootlesspy.oci.runtime_spec import Process


_CHUNK_BYTES = 65536


class Session:
    """One process: its pid and pidfd once it is in the container."""

    def __init__(
        self,
        wish: Wish,
        joining: join.Joining,
        *,
        started: Callable[[Session, int], None],
        failed: Callable[[Error], None],
        ended: Callable[[int], None],
    ) -> None:
        self.wish = wish
        self.joining = joining
        self.pid = 0
        self.pidfd = -1
        self.master_fd = -1
        self.running = False
        self.failure: Error | None = None
        self.tell_started, self.tell_failed, self.tell_ended = started, failed, ended

    def signal(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                return


class Sessions:
    """All sessions of one container."""

    def __init__(self, task: Job, turns: Loop, running: Running) -> None:
        self._job = task
        self._loop = turns
        self._running = running
        self._sessions: list[Session] = []

    def begin(
        self,
        wish: Wish,
        stdio: tuple[int, int, int],
        *,
        started: Callable[[Session, int], None],
        failed: Callable[[Error], None],
        ended: Callable[[int], None],
    ) -> Session:
        """Begin a session; stdio can be closed when this returns.

        started is called with the session and its terminal's master (or -1) once it runs, or failed
        with the reason; ended with its exit code.  Raises Error when it cannot even be forked.
        """
        try:
            joining = join.launch(
                self._plan(wish, stdio), self._running.init.pidfd, self._running.cgroup_fd
            )
        except OSError as error:
            raise RuntimeFailure(f"cannot fork: {error.strerror}", step="fork") from error
        session = Session(wish, joining, started=started, failed=failed, ended=ended)
        self._sessions.append(session)
        self._loop.watch(joining.channel.fileno(), lambda: self._shake_hands(session))
        self._loop.watch(joining.pidfd, lambda: self._reap_joiner(session))
        try:
            self._place(joining)
            joining.channel.send(sync.PLACED)
        except (Error, OSError):
            signal.pidfd_send_signal(joining.pidfd, signal.SIGKILL)
            self._forget(session)
            raise
        return session

    def detach(self, session: Session) -> None:
        """Read the terminal of a session that is left running, so that it does not block."""
        if session.master_fd >= 0:
            self._loop.watch(session.master_fd, lambda: self._drain(session))

    def close_terminal(self, session: Session) -> None:
        """Let go of a session's terminal; it hangs up when its client has done so too."""
        if session.master_fd >= 0:
            self._loop.forget(session.master_fd)
            os.close(session.master_fd)
            session.master_fd = -1

    def end(self) -> None:
        """Reap what the end of the PID namespace has killed."""
        for session in list(self._sessions):
            # What was said before the end counts.
            while session in self._sessions and not session.running and _has_said_more(session):
                self._shake_hands(session)
            if session.running:
                self._notice_end(session)
            else:
                self._give_up(session, session.failure or Error("the container has ended"))

    def _plan(self, wish: Wish, stdio: tuple[int, int, int]) -> join.Plan:
        spec, plan = self._job.spec, self._job.plan
        linux = spec["linux"]
        return join.Plan(
            process=_process(spec["process"], wish),
            user=wish.user or plan.user,
            group_add=plan.group_add if not wish.user else (),
            namespaces=tuple(each["type"] for each in linux["namespaces"]),
            uid_mappings=list(linux.get("uidMappings", [])),
            gid_mappings=list(linux.get("gidMappings", [])),
            set_groups=plan.set_groups,
            filter=plan.filter,
            stdio=stdio,
            ruleset_fd=self._running.init.ruleset_fd,
        )

    def _place(self, joining: join.Joining) -> None:
        """Have systemd move a process that could not be born in the payload's cgroup."""
        connection = self._running.connection
        if joining.born_in_cgroup or connection is None or not self._job.record.unit:
            return
        # Where the container's first process is now: it may have divided its cgroup.
        _, unit, below = cgroup.control_group(self._running.init.pid).partition(
            self._job.record.unit
        )
        scope.attach(connection, unit or self._job.record.unit, below or "/", [joining.pid])

    def _shake_hands(self, session: Session) -> None:
        channel = session.joining.channel
        try:
            message, fd = channel.receive()
        except sync.FailedError as error:
            # The new process may be faster than the one that says JOINED: both end, and with them
            # the channel.
            session.failure = create.explain(error.failed, session.wish.args[0])
            return
        if message == join.JOINED:
            session.pid, session.pidfd = session.joining.sibling(), fd
        elif message == join.TERMINAL:
            session.master_fd = fd
        elif session.failure is not None or session.pidfd < 0:
            killed = RuntimeFailure("it was killed while it began", step="join")
            self._give_up(session, session.failure or killed)
        else:
            self._loop.forget(channel.fileno())
            channel.close()
            session.running = True
            self._loop.watch(session.pidfd, lambda: self._notice_end(session))
            session.tell_started(session, session.master_fd)

    def _give_up(self, session: Session, error: Error) -> None:
        if session not in self._sessions:
            return
        self._forget(session)
        if session.pidfd >= 0:
            os.close(session.pidfd)
            session.pidfd = -1
        self.close_terminal(session)
        if pid := session.joining.sibling():
            # It may live: without a free descriptor there is no pidfd of it.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        session.tell_failed(error)

    def _forget(self, session: Session) -> None:
        self._sessions.remove(session)
        channel = session.joining.channel
        self._loop.forget(channel.fileno())
        channel.close()

    def _drain(self, session: Session) -> None:
        try:
            os.read(session.master_fd, _CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            # EIO: no process has the terminal open any more.
            self._loop.forget(session.master_fd)

    def _reap_joiner(self, session: Session) -> None:
        self._loop.forget(session.joining.pidfd)
        os.close(session.joining.pidfd)
        os.waitpid(session.joining.pid, 0)

    def _notice_end(self, session: Session) -> None:
        if session not in self._sessions:
            return
        self._sessions.remove(session)
        self._loop.forget(session.pidfd)
        _, status = os.waitpid(session.pid, 0)
        os.close(session.pidfd)
        session.pidfd = -1
        self.close_terminal(session)
        code = os.waitstatus_to_exitcode(status)
        session.tell_ended(code if code >= 0 else 128 - code)


def _has_said_more(session: Session) -> bool:
    poller = select.poll()
    poller.register(session.joining.channel.fileno(), select.POLLIN)
    return bool(poller.poll(0))


def _process(container: Process, wish: Wish) -> Process:
    """Change the container's own OCI process to what is wished."""
    changed = container.copy()
    variables = dict(entry.partition("=")[::2] for entry in container.get("env", []))
    if wish.tty:
        variables.setdefault("TERM", "xterm")
    variables.update(entry.partition("=")[::2] for entry in wish.env)
    changed["env"] = [f"{name}={value}" for name, value in variables.items()]
    changed["args"] = list(wish.args)
    changed["cwd"] = wish.cwd or container["cwd"]
    changed["terminal"] = wish.tty
    if wish.rows and wish.columns:
        changed["consoleSize"] = {"height": wish.rows, "width": wish.columns}
    if wish.privileged:
        names = list(capabilities.resolve((), (), privileged=True))
        changed["capabilities"] = {
            **container.get("capabilities", {}),
            "bounding": names,
            "effective": names,
            "permitted": names,
        }
    return changed
