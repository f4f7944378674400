"""The supervisor of an attached container: a child of `rp run`, forked before there is a container.

While `rp` looks at the image and writes the container to disk, the supervisor imports what it
needs, on another processor.  Then it is handed the container (its id, and the lock of its
directory) and starts what is on disk, as that of a service does (supervise.py).
"""

from __future__ import annotations

import os

# Both processes need what is here: imported by each of them it would be computed twice.
from rootlesspy.engine import idmap, record, storage  # noqa: F401
from rootlesspy.engine.output import events  # noqa: F401
from rootlesspy.engine.supervision import cancel, control, tty  # noqa: F401
from rootlesspy.engine.supervision.sockets import NO_SOCKETS
from rootlesspy.errors import Error
from rootlesspy.light_typing import TYPE_CHECKING, NoReturn
from rootlesspy.linux import process
from rootlesspy.network import driver  # noqa: F401
from rootlesspy.paths import from_environment
from rootlesspy.systemd import notify  # noqa: F401

if TYPE_CHECKING:
    import socket

    from rootlesspy.engine.bundle import Created
    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.engine.supervision import job
    from rootlesspy.engine.supervision.beginning import Beginning
    from rootlesspy.engine.supervision.sockets import Listening
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

_SIGKILL = 9
_DESCRIPTORS = 2**31 - 1


class Supervisor:
    """The child, as `rp` sees it."""

    def __init__(self, reporter: Reporter, listening: Listening) -> None:
        self._end, self._pid = _fork(reporter, listening)
        self._reporter = reporter
        self._listening = listening
        self._idle = True
        """It has made nothing that is to be undone."""
        self._dismissed = False

    def close_others(self) -> None:
        """Close what else the caller has open: it is nothing to the container's processes."""
        _close_all_but(self._end.fileno(), 3)

    def begin(self, outlook: dict[str, object]) -> None:
        """Have it begin with what does not need the container on disk."""
        self._idle = False
        control.tell(self._end, "begin", **outlook)

    def begin_anew(self) -> None:
        """Undo what it has begun with, and be another one that has nothing yet."""
        self.dismiss()
        held = cancel.hold()
        self._end, self._pid = _fork(self._reporter, self._listening)
        self._idle, self._dismissed = True, False
        cancel.restore(held)

    def dismiss(self) -> None:
        """End one that has no container; harmless once it has one."""
        if self._dismissed:
            return
        self._dismissed = True
        self._end.close()
        if self._idle:
            # It may be importing, and has nothing to undo.
            os.kill(self._pid, _SIGKILL)
        os.waitpid(self._pid, 0)

    def hand_over(self, paths: Paths, created: Created, cancellation: cancel.Cancellation) -> None:
        """Hand it a container, which is removed when it cannot be; signals are held from now on.

        Raises CancelledError, SupervisorLostError.
        """
        try:
            cancel.hold()
            cancellation.check()
            self._send(created)
        except BaseException:
            from rootlesspy.engine import storage

            storage.remove(paths, created.record)
            self.dismiss()
            raise
        finally:
            os.close(created.lock_fd)
        self._dismissed = True

    def _send(self, created: Created) -> None:
        self._idle = False
        if not control.send(self._end, "start", (created.lock_fd,), {"id": created.record.id}):
            from rootlesspy.engine.supervision.attach import SupervisorLostError

            raise SupervisorLostError(
                "the container's supervisor was killed", hint="journalctl --user -n 20"
            )

    def attend(
        self, request: RunRequest, paths: Paths, found: ContainerRecord, reporter: Reporter
    ) -> int:
        """Be its client; if it is killed, do its last duties.  Returns the container's exit code.

        Raises Error with its words.
        """
        from rootlesspy.engine.supervision import attach

        client = attach.Client(
            self._end,
            self._pid,
            interactive=request.interactive,
            detach_keys=request.detach_keys,
            reporter=reporter,
            forwards=request.sig_proxy,
        )
        cancel.release()
        try:
            return client.run()
        except attach.SupervisorLostError:
            _bury(paths, found)
            raise
        finally:
            self._end.close()


def fork(reporter: Reporter, listening: Listening = NO_SOCKETS) -> Supervisor:
    """Fork the supervisor of a container that is yet to be made; signals are held afterwards."""
    cancel.hold()
    return Supervisor(reporter, listening)


def _fork(reporter: Reporter, listening: Listening) -> tuple[socket.socket, int]:
    ours, theirs = control.socket_pair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _supervise(reporter, theirs, listening)
    theirs.close()
    return ours, pid


def _supervise(reporter: Reporter, client: socket.socket, listening: Listening) -> NoReturn:
    """Be the supervisor until the container has ended, or there is none to come."""
    status = 125
    try:
        os.setsid()
        reporter.be("supervisor")
        # Whatever else the caller has open is nothing to the container's processes.
        _close_all_but(client.fileno(), listening.end)
        # Until it has a container nobody waits for it but `rp`.
        process.set_parent_death_signal(_SIGKILL)
        _serve(reporter, client, listening)
        status = 0
    except Error:
        # The client knows.
        pass
    except BaseException as error:  # noqa: BLE001 - the child's last line
        from rootlesspy.engine.supervision import failure

        control.tell(client, "failed", exit_code=125, message=failure.words(error))
    finally:
        reporter.done()
        os._exit(status)


def _serve(reporter: Reporter, client: socket.socket, listening: Listening) -> None:
    """Begin what can be begun, and then start what is on disk.  Raises Error, told to client."""
    from rootlesspy.engine.supervision import beginning

    if control.is_silent(client):
        # Else beside newuidmap.
        from rootlesspy.engine.supervision import job

    reporter.step("wait for the container")
    message, begun = control.receive(client), None
    paths = from_environment(os.environ)
    try:
        if message is not None and message.kind == "begin":
            begun = beginning.early(message, paths, reporter)
            reporter.step("import what reads it")
            from rootlesspy.engine.supervision import job  # noqa: F401

            if begun is not None:
                begun.go_on()
            reporter.step("wait until it is on disk")
            message = control.receive(client)
        if message is not None:
            process.set_parent_death_signal(0)
            task = _job(paths, message, client, reporter, listening, begun)
            if begun is not None:
                begun.instruct(task.plan)
            # While the container's first process mounts.
            from rootlesspy.engine.supervision import supervisor

            supervisor.supervise(task, client, begun)
    finally:
        if begun is not None:
            begun.undo.unwind()


def _close_all_but(fd: int, first: int) -> None:
    os.closerange(first, fd)
    os.closerange(fd + 1, _DESCRIPTORS)


def _job(
    paths: Paths,
    message: control.Message,
    client: socket.socket,
    reporter: Reporter,
    listening: Listening,
    begun: Beginning | None,
) -> job.Job:
    """Decide how the container is started; if it cannot be, remove it and tell the client."""
    from rootlesspy.engine.supervision import failure, job

    reporter.step("prepare its start")
    found = record.load_record(paths.container(message.text("id")))
    try:
        return job.load(
            paths,
            found,
            lock_fd=message.fd,
            reporter=reporter,
            listening=listening,
            terms=None if begun is None else begun.terms,
        )
    except BaseException as error:
        if begun is not None:
            # Before its directory goes.
            begun.undo.unwind(error)
        storage.remove(paths, found)
        failure.tell(client, failure.of(error))
        raise


def _bury(paths: Paths, found: ContainerRecord) -> None:
    """Record a container whose supervisor was killed as lost, or remove it with --rm."""

    storage.kill_payload(paths.container(found.id))
    if found.remove:
        storage.remove(paths, found)
        return
    storage.finish_hooks(paths.container(found.id))
    storage.release(paths, found)
    lost = record.lost()
    record.write_exit_record(paths.container(found.id), lost, durable=True)
