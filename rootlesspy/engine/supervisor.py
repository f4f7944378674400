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
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from rootlesspy.engine import control, record, storage, tty
from rootlesspy.errors import Error, RuntimeFailure
from rootlesspy.linux import process, procfs
from rootlesspy.network import driver
from rootlesspy.runtime import create, fuse, rootfs
from rootlesspy.systemd import bus, cgroup, scope

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from rootlesspy.engine import limits
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.network.driver import NetworkStatus, Pending, Selection
    from rootlesspy.oci.runtime_spec import Spec
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter
    from rootlesspy.runtime.init import Plan

_DRAIN_BYTES = 65536
_CANCELLING = (signal.SIGTERM, signal.SIGINT)
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


class Job(NamedTuple):
    """One container to supervise, all decided."""

    paths: Paths
    record: ContainerRecord
    spec: Spec
    maps: IdMaps
    plan: Plan
    limits: limits.Plan | None
    """None without a scope."""
    selection: Selection
    lock_fd: int
    """Holds the lock of the container's directory, until the supervisor's very end."""
    reporter: Reporter


class CancelledError(Error):
    """SIGTERM or SIGINT came while the container was being started."""

    def __init__(self, number: int) -> None:
        super().__init__(f"cancelled by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class _Undo:
    """What was done so far, undone in reverse; every entry may be called twice."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], None]] = []

    def push(self, step: Callable[[], None]) -> None:
        self._steps.append(step)

    def unwind(self, cause: BaseException | None = None) -> None:
        """Run all steps; what fails is added to cause as a note and stops none of the others."""
        while self._steps:
            try:
                self._steps.pop()()
            except (Error, OSError) as error:
                if cause is not None:
                    cause.add_note(f"while cleaning up: {error}")


class _Running(NamedTuple):
    """A started container."""

    init: create.Init
    connection: bus.Bus | None
    meter: cgroup.Meter | None
    pending: Pending
    network: NetworkStatus
    master_fd: int
    started_s: float


def main(job: Job, client: socket.socket) -> NoReturn:
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


def _supervise(job: Job, client: socket.socket) -> int:
    # Before the client makes the caller's terminal raw.
    guard = tty.Guard(0) if job.record.tty else None
    if not job.record.interactive:
        _redirect(0)
    undo = _Undo()
    undo.push(lambda: storage.release(job.paths, job.record))
    try:
        _cancel_on_signals()
        running = _start(job, client, undo)
    except BaseException as error:  # noqa: BLE001 - whatever went wrong, nothing may be left
        _ignore_signals()
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


def _start(job: Job, client: socket.socket, undo: _Undo) -> _Running:
    """Lead the container from nothing to a running payload: the supervisor's half of the story."""
    job.reporter.step("fork the container's init into its namespaces")
    init = create.launch(job.plan)
    undo.push(lambda: _kill_and_reap(init))
    try:
        return _lead(job, client, undo, init)
    except (Error, OSError) as error:
        # If init died first, what it said is the cause and the rest its consequence.
        reported = init.reported_failure()
        if reported is None:
            raise
        raise reported from error


def _lead(job: Job, client: socket.socket, undo: _Undo, init: create.Init) -> _Running:
    step = job.reporter.step
    step("write the id maps")
    helpers = create.write_id_maps(init.pid, job.maps)
    # While newuidmap and newgidmap run.
    step("connect to the user manager")
    connection = _connect(job, undo)
    create.finish_id_maps(helpers)
    fuse_fd = -1
    if isinstance(job.plan.root, rootfs.FuseOverlay):
        step("start fuse-overlayfs")
        server = fuse.start(job.plan.root, job.plan.merged, init.pid)
        undo.push(server.stop)
        fuse_fd = server.mount_fd
    init.ids_mapped(fuse_fd)
    step(f"start the network: {job.selection.request.driver}")
    pending = _start_network(job, init.pid)
    undo.push(pending.cancel)
    # While the network helper configures the namespace and init mounts.
    step(f"start {job.record.unit or 'no scope'}")
    meter = _place(job, init, connection)
    if meter is not None:
        undo.push(meter.close)
    step("wait for the network")
    network = pending.wait()
    init.placed()
    step("wait until the container is ready")
    master_fd = init.wait_ready()
    running = _Running(init, connection, meter, pending, network, master_fd, time.time())
    step("record it as running")
    _record_start(job, running)
    step("execute the payload")
    # From here on a signal is for the payload.  It waits until serve() knows what to do with it;
    # raised in between it would be an error that nobody undoes.
    signal.pthread_sigmask(signal.SIG_BLOCK, _CANCELLING)
    init.execute()
    control.send(client, "started", pid=init.pid, fd=master_fd)
    return running


def _start_network(job: Job, pid: int) -> Pending:
    """Start the network helper for the namespaces of the container's init."""
    return driver.start(
        job.selection,
        netns_path=f"/proc/{pid}/ns/net",
        userns_path=f"/proc/{pid}/ns/user",
        runtime_dir=job.paths.container_runtime(job.record.id),
    )


def _connect(job: Job, undo: _Undo) -> bus.Bus | None:
    if not job.record.unit:
        return None
    runtime = job.paths.require_runtime()
    connection = bus.connect(os.path.dirname(runtime))
    undo.push(connection.close)
    return connection


def _place(job: Job, init: create.Init, connection: bus.Bus | None) -> cgroup.Meter | None:
    """Put init into its scope with all limits; none without a scope."""
    if connection is None or job.limits is None:
        return None
    scope.start(
        connection,
        unit=job.record.unit,
        description=f"Container {job.record.name} ({job.record.image})",
        documentation=["man:rp(1)"],
        pids=[init.pid],
        controller=connection.unique_name,
        stop_timeout_us=job.record.stop_timeout_s * 1_000_000,
        properties=job.limits.properties,
    )
    directory = cgroup.directory(cgroup.control_group(init.pid))
    cgroup.enter_payload(directory, init.pid)
    if job.limits.affinity:
        os.sched_setaffinity(init.pid, job.limits.affinity)
    return cgroup.Meter(directory)


def _record_start(job: Job, running: _Running) -> None:
    """Write which processes the container has now."""
    pid, network = running.init.pid, running.network
    record.write_live_state(
        job.paths.container(job.record.id),
        record.LiveState(
            supervisor_pid=os.getpid(),
            supervisor_start=procfs.start_time(os.getpid()) or 0,
            pid=pid,
            start=procfs.start_time(pid) or 0,
            boot_id=procfs.boot_id(),
            started_s=running.started_s,
            helper_pid=network.helper_pid or 0,
            helper_start=network.helper_start_time or 0,
        ),
    )


class _Supervision:
    """The time from execve to the end of the payload."""

    def __init__(
        self, job: Job, client: socket.socket, running: _Running, guard: tty.Guard | None
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
            pending = _start_network(job, running.init.pid)
            network = pending.wait()
        except (Error, OSError) as error:
            self._error = f"network lost: {running.network.driver} died: {error}"
            return
        self._running = running._replace(pending=pending, network=network)
        self._network_fd = network.helper.pidfd if network.helper else -1
        _record_start(job, self._running)

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
        """Signals to the supervisor itself, such as a logout's SIGTERM, mean a clean stop."""
        for number in os.read(wakeup, 64):
            if number in (signal.SIGTERM, signal.SIGINT):
                self.stop()

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
        for number in _CANCELLING:
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _CANCELLING)
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


def _cancel_on_signals() -> None:
    def cancel(number: int, _frame: object) -> None:
        raise CancelledError(number)

    for number in _CANCELLING:
        signal.signal(number, cancel)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _kill_and_reap(init: create.Init) -> None:
    """End the container if it still lives; the kernel kills all its processes with the first."""
    try:
        signal.pidfd_send_signal(init.pidfd, signal.SIGKILL)
        os.waitpid(init.pid, 0)
    except (ProcessLookupError, ChildProcessError, OSError):
        return


def _report_failure(job: Job, client: socket.socket, error: BaseException) -> None:
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
