"""The service of a supervisor that rp has forked: asked for, joined and ended by it.

systemd would take longer to execute a second Python than a container takes to start, so the
supervisor of `rp run -d` and `rp start` is a fork of theirs, and moves into rp-NAME.service.  Only
of its own children systemd learns how they end: the service's main process is a small shell script
(main_process.sh), which is told.  It is also what systemd executes to start the container again:
then it becomes `rp supervise ID` (supervise.py).
"""

from __future__ import annotations

import os
import select
import time

from rootlesspy.errors import Error, RuntimeFailure, Unsupported
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import procfs
from rootlesspy.systemd import notify, scope
from rootlesspy.systemd import service as unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.paths import Paths
    from rootlesspy.systemd.bus import Bus

_CARD = "forked"
_SHELL = "/bin/sh"
_TIMEOUT_S = 90.0


class OwnService:
    """The service that this process makes for itself."""

    AS_ASKED = "TERM"

    def __init__(self, paths: Paths, container_id: str, wanted: unit.Service) -> None:
        self._card = f"{paths.container_runtime(container_id)}/{_CARD}"
        script = f"{os.path.dirname(os.path.abspath(__file__))}/main_process.sh"
        command = (_SHELL, script, self._card, *wanted.command)
        self._wanted = wanted._replace(command=command, admits_others=True)
        self.name = wanted.name
        self.container_id = container_id
        runtime = os.path.dirname(paths.require_runtime())
        self.notifier = notify.Notifier(f"{runtime}/systemd/notify")
        self._status_fds = os.pipe2(os.O_CLOEXEC)
        self._here_fds = os.pipe2(os.O_CLOEXEC)
        self._connection: Bus | None = None
        self._cookie = self._joining = -1
        self._job = ""
        self._is_here = False

    def ask(self, connection: Bus) -> None:
        """Ask systemd for it; its job has begun after wait_queued().  Raises Error, OSError."""
        started = procfs.start_time(os.getpid())
        words = f"{os.getpid()} {started} {self._status_fds[0]} {self._here_fds[1]}\n"
        os.makedirs(os.path.dirname(self._card), 0o700, exist_ok=True)
        fd = os.open(self._card, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, words.encode())
        finally:
            os.close(fd)
        self._connection = connection
        self._cookie = unit.request_transient(connection, self._wanted)

    def wait_queued(self) -> None:
        """Wait until systemd has it: what is bound to it may be asked for.

        One of the same name that is about to end is waited for.  Raises Error.
        """
        # The last supervisor of that name let go of the lock, which is ours, and is about to exit.
        self._job = unit.enqueued_when_free(self._asked(), self._wanted, self._cookie)

    def join(self, pids: Sequence[int]) -> None:
        """Have systemd move processes into it, this one among them.

        Raises RuntimeFailure when the service has ended, Unsupported when it does not begin.
        """
        self._await_main_process()
        self._joining = scope.request_attach(self._asked(), self.name, "", pids)

    def wait_joined(self) -> None:
        """Wait until they are in it.  Raises Error."""
        if self._joining >= 0:
            scope.wait_attached(self._asked(), self.name, self._joining)
            self._joining = -1

    def result(self, timeout_s: float) -> str | None:
        """Return how its start ended, "done" if it is ready; None if it goes on after that time."""
        connection = self._asked()
        if timeout_s:
            try:
                return connection.wait_job(self._job, timeout_s)
            except Unsupported:
                return None
        return connection.job_result(self._job)

    def end(self, status: str) -> None:
        """Have it end, with an exit status or AS_ASKED: the last thing that this process does."""
        try:
            os.write(self._status_fds[1], f"{status}\n".encode())
        except BrokenPipeError:
            # Its main process was killed, and so it has ended.
            return

    def call_off(self) -> None:
        """Have it end, unless its main process is there, which end() tells."""
        connection, self._connection = self._connection, None
        if self._is_here or connection is None:
            return
        self.end(self.AS_ASKED)
        self._remove_card()
        try:
            if not self._job:
                self._job = unit.enqueued(connection, self.name, self._cookie)
            connection.wait_job(unit.stop(connection, self.name), _TIMEOUT_S)
            unit.reset_failed(connection, self.name)
        except Error:
            # It is another's, or no unit any more, or there is no manager: nothing runs.
            return

    def _remove_card(self) -> None:
        try:
            os.unlink(self._card)
            os.rmdir(os.path.dirname(self._card))
        except OSError:
            # It is gone, or others have files there, which go with the container.
            return

    def _asked(self) -> Bus:
        if self._connection is None:
            raise Error("internal error: nobody has asked for the service")
        return self._connection

    def _await_main_process(self) -> None:
        if self._is_here:
            return
        connection = self._asked()
        poller = select.poll()
        poller.register(self._here_fds[0], select.POLLIN)
        deadline = time.monotonic() + _TIMEOUT_S
        while not self._is_here:
            poller.register(connection.fileno(), connection.poll_events())
            for fd, _ in poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                self._is_here = self._is_here or fd == self._here_fds[0]
            connection.process()
            if connection.lost is not None and not self._is_here:
                raise Unsupported(
                    f"the connection to the user manager was lost: {connection.lost}",
                    hint="systemctl --user status",
                )
            result = connection.job_result(self._job)
            if result is not None:
                raise RuntimeFailure(
                    f"{self.name} ended before the container began: job {result}",
                    step="service",
                    hint=f"journalctl --user -n 20 -u {self.name}",
                )
            if time.monotonic() > deadline:
                raise Unsupported(
                    f"systemd did not execute {self.name} within {_TIMEOUT_S:g} s",
                    hint="systemctl --user list-jobs",
                )
        # When systemd starts the service again there is no supervisor yet.
        os.unlink(self._card)
        for fd in (*self._here_fds, self._status_fds[0]):
            os.close(fd)
