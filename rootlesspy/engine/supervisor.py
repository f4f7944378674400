"""The process beside a container: starts it, waits for it, records its end, cleans up.

Runs in a child of the CLI (attached) in a session of its own; the CLI is its client and may die or
detach without harm.  It is never inside the container's namespaces or scope.  One poll loop, no
threads.  If it is killed the payload dies with it: by the parent-death signal, and the scope ends
with its last process.
"""

from __future__ import annotations

import os
import select
import signal
import time
from typing import TYPE_CHECKING, NoReturn

from rootlesspy.engine import cancel, control, record, start, storage, tty
from rootlesspy.errors import Error, RuntimeFailure
from rootlesspy.linux import process

if TYPE_CHECKING:
    import socket

    from rootlesspy.systemd import cgroup

_DRAIN_BYTES = 65536
# rt_sigtimedwait of this machine, then of 32-bit programs, with and without 64-bit time.
_SIGTIMEDWAIT = (b"128" if os.uname().machine == "x86_64" else b"137", b"177", b"421")
# signal(7): default action is not to end the process.
_HARMLESS = frozenset(
    (
        signal.SIGCHLD,
        signal.SIGCONT,
        signal.SIGURG,
        signal.SIGWINCH,
        signal.SIGSTOP,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
    )
)


def main(job: start.Job, client: socket.socket) -> NoReturn:
    """Be the supervisor of one container until it has ended; never returns."""
    status = 125
    try:
        os.setsid()
        process.set_child_subreaper()
        status = _supervise(job, client)
    except BaseException as error:  # noqa: BLE001 - the child's last line
        control.send(
            client,
            "failed",
            exit_code=125,
            message=f"internal error in the supervisor: {type(error).__name__}: {error}",
        )
    finally:
        os._exit(status)


def _supervise(job: start.Job, client: socket.socket) -> int:
    # Before the client makes the caller's terminal raw.
    guard = tty.Guard(0) if job.record.tty else None
    if not job.record.interactive:
        _redirect(0)
    undo = start.Undo()
    undo.push(lambda: storage.release(job.paths, job.record))
    try:
        running = start.start(job, client, undo, cancel.Cancellation())
    except BaseException as error:  # noqa: BLE001 - whatever went wrong, nothing may be left
        cancel.ignore_signals()
        undo.unwind(error)
        _report_failure(job, client, error)
        return 125
    supervision = _Supervision(job, client, running, guard)
    supervision.serve()
    supervision.end_network()
    undo.unwind()
    ended = supervision.finish()
    control.send(client, "exited", exit_code=ended.exit_code, message=ended.error)
    return 0


class _Supervision:
    """The time from execve to the end of the payload."""

    def __init__(
        self, job: start.Job, client: socket.socket, running: start.Running, guard: tty.Guard | None
    ) -> None:
        self._job = job
        self._client: socket.socket | None = client
        self._running = running
        self._emulated = 0
        self._error = ""
        self._terminal = guard
        helper = running.network.helper
        self._network_fd = helper.pidfd if helper else -1
        self._exit_code = record.LOST_EXIT_CODE
        self._usage: cgroup.Usage | None = None

    def serve(self) -> None:
        """Wait for the payload's end, obeying systemd, the client and signals meanwhile."""
        running = self._running
        # The caller's stdin, stdout and stderr belong to the payload alone now.
        _redirect(0, 1, 2)
        wakeup = self._catch_signals()
        if running.connection is not None:
            running.connection.on_request_stop(self._job.record.unit, self.stop)
        while True:
            ready = self._wait(wakeup)
            running = self._running
            if running.meter is not None:
                self._usage = running.meter.read()
            if running.init.pidfd in ready:
                break
            if running.connection is not None:
                running.connection.process()
            if self._network_fd in ready:
                self._restart_network()
            if self._client is not None and self._client.fileno() in ready:
                self._serve_client()
            if running.master_fd in ready:
                self._drain()
            if wakeup in ready:
                self._serve_signals(wakeup)
        self._exit_code = self._reap()

    def end_network(self) -> None:
        """End the network helper, also a restarted one."""
        self._running.pending.cancel()

    def stop(self) -> None:
        """Ask the payload to end: its stop signal to PID 1 alone; systemd enforces the timeout."""
        self._signal(self._job.record.stop_signal)

    def finish(self) -> record.ExitRecord:
        """Record the end; return what was recorded."""
        job, usage = self._job, self._usage
        oom_killed = bool(usage and usage.oom_kills)
        if oom_killed and not self._error:
            limit = job.spec["linux"].get("resources", {}).get("memory", {}).get("limit")
            self._error = "out of memory" + (f": the limit is {limit} bytes" if limit else "")
        ended = record.ExitRecord(
            exit_code=self._exit_code,
            finished_s=time.time(),
            started_s=self._running.started_s,
            oom_killed=oom_killed,
            error=self._error,
            memory_peak_bytes=usage.memory_peak_bytes if usage else None,
            cpu_usage_us=usage.cpu_usage_us if usage else None,
        )
        if job.record.remove:
            storage.remove(job.paths, job.record)
        else:
            directory = job.paths.container(job.record.id)
            record.write_exit_record(directory, ended, durable=True)
        return ended

    def _wait(self, wakeup: int) -> set[int]:
        running = self._running
        poller = select.poll()
        poller.register(running.init.pidfd, select.POLLIN)
        poller.register(wakeup, select.POLLIN)
        timeout_ms = -1
        if running.connection is not None and running.connection.poll_events():
            poller.register(running.connection.fileno(), running.connection.poll_events())
            timeout_ms = running.connection.timeout_ms()
        if running.meter is not None and running.meter.fileno() >= 0:
            poller.register(running.meter.fileno(), select.POLLPRI)
        if self._client is not None:
            poller.register(self._client.fileno(), select.POLLIN)
        elif running.master_fd >= 0:
            # Nobody reads the terminal: keep the payload from blocking on a full one.
            poller.register(running.master_fd, select.POLLIN)
        if self._network_fd >= 0:
            poller.register(self._network_fd, select.POLLIN)
        return {fd for fd, _ in poller.poll(timeout_ms)}

    def _restart_network(self) -> None:
        """Start the network helper again in the same namespace, with the same ports.

        The container goes on in any case; if it has to go on without network its record says so.
        """
        job, running = self._job, self._running
        running.pending.cancel()
        self._network_fd = -1
        try:
            pending = start.start_network(job, running.init.pid)
            network = pending.wait()
        except (Error, OSError) as error:
            self._error = f"network lost: {running.network.driver} died: {error}"
            return
        self._running = running._replace(pending=pending, network=network)
        self._network_fd = network.helper.pidfd if network.helper else -1
        start.record_start(job, self._running)

    def _serve_client(self) -> None:
        if self._client is None:
            return
        message = control.receive(self._client)
        if message is None or message.kind == "bye":
            if message is None and self._terminal is not None:
                # The client died with the caller's terminal in raw mode.
                self._terminal.restore()
            if self._terminal is not None:
                # A terminal that is held open never hangs up: its window could not close.
                self._terminal.close()
            self._client.close()
            self._client = None
        elif message.kind == "signal":
            self._signal(message.number("number"))

    def _serve_signals(self, wakeup: int) -> None:
        """Signals to the supervisor itself: a logout's SIGTERM means a clean stop.

        SIGINT is the client's, typed at the moment when the payload began.
        """
        for number in os.read(wakeup, 64):
            if number == signal.SIGTERM:
                self.stop()
            elif number == signal.SIGINT:
                self._signal(signal.SIGINT)

    def _signal(self, number: int) -> None:
        """Signal the payload's PID 1, as if the kernel did not shield it.

        A PID namespace's first process ignores every signal that it has no handler for
        (pid_namespaces(7)): `sleep` could not be stopped.  Where the default action would have
        ended any other process the container is killed and its exit code says which signal it was.
        """
        running = self._running
        if number not in _HARMLESS and not _handles(running.init.pid, number):
            self._emulated = number
            number = signal.SIGKILL
        try:
            signal.pidfd_send_signal(running.init.pidfd, number)
        except ProcessLookupError:
            return

    def _drain(self) -> None:
        try:
            os.read(self._running.master_fd, _DRAIN_BYTES)
        except OSError:
            # EIO: no process has the terminal open any more, and none will.
            os.close(self._running.master_fd)
            self._running = self._running._replace(master_fd=-1)

    def _reap(self) -> int:
        _, status = os.waitpid(self._running.init.pid, 0)
        os.close(self._running.init.pidfd)
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGKILL and self._emulated:
            return 128 + self._emulated
        return code if code >= 0 else 128 - code

    def _catch_signals(self) -> int:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        cancel.release()
        return reader


def _handles(pid: int, number: int) -> bool:
    """Say whether a process catches, ignores or waits for a signal (proc_pid_status(5)).

    A blocked one is waited for: init programs and systemd read theirs by sigwait or signalfd.
    """
    bit = 1 << number - 1
    fields = (b"SigCgt:", b"SigIgn:", b"SigBlk:")
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(fields) and int(line[7:], 16) & bit:
                    return True
    except (FileNotFoundError, ProcessLookupError):
        return True
    return _sleeps_in_sigwait(pid)


def _sleeps_in_sigwait(pid: int) -> bool:
    """Say whether a process sleeps in sigwait(3), which lifts the block meanwhile."""
    try:
        with open(f"/proc/{pid}/syscall", "rb") as file:
            return file.read(256).partition(b" ")[0] in _SIGTIMEDWAIT
    except OSError:
        # Gone, or not ours to look at.
        return False


def _report_failure(job: start.Job, client: socket.socket, error: BaseException) -> None:
    """Remove what was made for a container that never ran, and tell the client why."""
    if isinstance(error, OSError):
        error = RuntimeFailure(f"cannot start the container: {error}", step="start")
    elif not isinstance(error, Error):
        text = f"internal error in the supervisor: {type(error).__name__}: {error}"
        error = RuntimeFailure(text, step="start")
    if job.record.remove or not isinstance(error, RuntimeFailure):
        storage.remove(job.paths, job.record)
    else:
        now = time.time()
        record.write_exit_record(
            job.paths.container(job.record.id),
            record.ExitRecord(error.exit_code, now, now, oom_killed=False, error=error.message),
            durable=True,
        )
    control.send(
        client,
        "failed",
        exit_code=error.exit_code,
        message=error.message,
        hint=error.hint or "",
    )


def _redirect(*numbers: int) -> None:
    """Put /dev/null in the place of descriptors."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in numbers:
        os.dup2(null, number)
    os.close(null)
