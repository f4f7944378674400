"""The supervisor as a child of `rp run`, forked before there is a container, or of `rp start`.

While `rp` looks at the image and writes the container to disk, the supervisor imports what it
needs, on another processor.  Then it is handed the container (its id, and the lock of its
directory) and starts what is on disk, as that of a service does (supervise.py).  That of a detached
container has a service, into which it moves (own_service.py), and outlives rp.
"""

from __future__ import annotations

import os
import select

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
from rootlesspy.systemd import cgroup, migration, notify  # noqa: F401

if TYPE_CHECKING:
    import socket

    from rootlesspy.engine.bundle import Created
    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.engine.supervision import job
    from rootlesspy.engine.supervision.beginning import Beginning, Begun
    from rootlesspy.engine.supervision.own_service import OwnService
    from rootlesspy.engine.supervision.sockets import Listening
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

_SIGKILL, _SIGTERM = 9, 15
_DYING_S = 2.0
_SLOW_MS = 30_000
_DESCRIPTORS = 2**31 - 1


class Supervisor:
    """The child, as `rp` sees it."""

    def __init__(self, reporter: Reporter, listening: Listening, *, detached: bool) -> None:
        self._end, self._pid = _fork(reporter, listening, detached=detached)
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
        control.tell(self._end, "bye")
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
            self.start(created.record.id, created.lock_fd, detached=False)
        except BaseException:
            from rootlesspy.engine import storage

            storage.remove(paths, created.record)
            self.dismiss()
            raise
        finally:
            os.close(created.lock_fd)

    def start(self, container_id: str, lock_fd: int, *, detached: bool) -> socket.socket:
        """Have it start a container on disk, whose lock it takes over; return the connection.

        Raises SupervisorLostError.
        """
        self._idle = False
        self._dismissed = detached
        fields = {"id": container_id, "detached": detached}
        if not control.send(self._end, "start", (lock_fd,), fields):
            from rootlesspy.engine.supervision.attach import SupervisorLostError

            raise SupervisorLostError(
                "the container's supervisor was killed", hint="journalctl --user -n 20"
            )
        self._dismissed = True
        return self._end

    def cancel(self) -> bool:
        """Have it end, and the container with it that it was told to start.

        Say whether it has undone what it made; one that was killed has not.
        """
        if not self._dismissed:
            self.dismiss()
            return True
        try:
            os.kill(self._pid, _SIGTERM)
            return os.WIFEXITED(os.waitpid(self._pid, 0)[1])
        except (ProcessLookupError, ChildProcessError):
            return False

    def attend(
        self, request: RunRequest, paths: Paths, found: ContainerRecord, reporter: Reporter
    ) -> int:
        """Be its client; if it is killed, do its last duties.  Returns the container's exit code.

        Raises Error with its words.
        """
        from rootlesspy.engine.supervision import attach

        migration.finish()
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


def fork(
    reporter: Reporter, listening: Listening = NO_SOCKETS, *, detached: bool = False
) -> Supervisor:
    """Fork the supervisor of a container that is yet to be made; signals are held afterwards.

    detached: the container will probably be.
    """
    cancel.hold()
    return Supervisor(reporter, listening, detached=detached)


def _fork(
    reporter: Reporter, listening: Listening, *, detached: bool = False
) -> tuple[socket.socket, int]:
    ours, theirs = control.socket_pair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _supervise(reporter, theirs, listening, detached=detached)
    theirs.close()
    return ours, pid


def _supervise(
    reporter: Reporter, client: socket.socket, listening: Listening, *, detached: bool
) -> NoReturn:
    """Be the supervisor until the container has ended, or there is none to come."""
    status = 125
    try:
        os.setsid()
        reporter.be("supervisor")
        # Whatever else the caller has open is nothing to the container's processes.
        _close_all_but(client.fileno(), listening.end)
        # Until it has a container nobody waits for it but `rp`.
        process.set_parent_death_signal(_SIGKILL)
        _serve(reporter, client, listening, detached=detached)
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


def _serve(
    reporter: Reporter, client: socket.socket, listening: Listening, *, detached: bool
) -> None:
    """Begin what can be begun, and then start what is on disk.  Raises Error, told to client."""
    from rootlesspy.engine.supervision import beginning

    if detached:
        from rootlesspy.engine.supervision import own_service, service  # noqa: F401

    if control.is_silent(client):
        # Else beside newuidmap.
        from rootlesspy.engine.supervision import job

    reporter.step("wait for the container")
    message, begun, own = control.receive(client), None, None
    paths = from_environment(os.environ)
    try:
        if message is not None and message.kind == "begin":
            if message.number("detach"):
                own = _own_service(paths, message, reporter)
            begun = beginning.early(message, paths, reporter, own)
            reporter.step("import what reads it")
            from rootlesspy.engine.supervision import job  # noqa: F401

            if begun is not None:
                begun.beginning.go_on()
            reporter.step("wait until it is on disk")
            message = _await_container(client, begun)
        if message is None or message.kind == "bye":
            if message is None and own is not None:
                _remove_half_made(paths, own)
            return
        process.set_parent_death_signal(0)
        if message.number("detached"):
            _be_service(paths, message, client, reporter, own, begun)
        else:
            _attend(paths, message, client, reporter, listening, begun)
    finally:
        if begun is not None:
            begun.beginning.undo.unwind()


def _await_container(client: socket.socket, begun: Begun | None) -> control.Message | None:
    """Wait until the container is on disk, which may take longer than systemd waits for a start."""
    poller = select.poll()
    poller.register(client.fileno(), select.POLLIN)
    while begun is not None and not poller.poll(_SLOW_MS):
        begun.beginning.take_longer()
    return control.receive(client)


def _remove_half_made(paths: Paths, own: OwnService) -> None:
    """Remove what rp, which was killed, has perhaps left of a container."""
    record.wait_unlocked(paths.container(own.container_id), _DYING_S)
    from rootlesspy.engine import leftovers

    leftovers.sweep(paths)


def _attend(
    paths: Paths,
    message: control.Message,
    client: socket.socket,
    reporter: Reporter,
    listening: Listening,
    begun: Begun | None,
) -> None:
    """Be the supervisor of an attached container.  Raises Error, told to client."""
    beginning = None if begun is None else begun.beginning
    task = _job(paths, message, client, reporter, listening, beginning)
    if beginning is not None:
        beginning.instruct(task.plan)
    # While the container's first process mounts.
    from rootlesspy.engine.supervision import supervisor

    supervisor.supervise(task, client, beginning)


def _own_service(paths: Paths, message: control.Message, reporter: Reporter) -> OwnService:
    """Prepare to be the service of a container that is still made."""
    from rootlesspy.engine.supervision import own_service, service

    # It sees that rp is gone, and undoes what it has begun.
    process.set_parent_death_signal(0)
    wanted = service.of_new(
        paths,
        container_id=message.text("id"),
        name=message.text("name"),
        image=message.text("image"),
        restart=message.text("restart"),
        stop_timeout_s=message.number("stop_timeout_s"),
        remove=bool(message.number("remove")),
    )
    own = own_service.OwnService(paths, message.text("id"), wanted)
    _leave_caller(reporter)
    return own


def _be_service(
    paths: Paths,
    message: control.Message,
    client: socket.socket,
    reporter: Reporter,
    own: OwnService | None,
    begun: Begun | None,
) -> None:
    """Be the supervisor of a detached container.  Raises Error, told to client."""
    from rootlesspy.engine.supervision import supervise

    found = record.load_record(paths.container(message.text("id")))
    if own is None:
        from rootlesspy.engine.supervision import own_service, service

        own = own_service.OwnService(paths, found.id, service.of(found, paths))
        _leave_caller(reporter)
    process.set_title(("rp", "supervise", found.id))
    supervise.supervise_forked(paths, found, message.fd, client, reporter, own, begun)


def _leave_caller(reporter: Reporter) -> None:
    """Let go of the caller's directory and input; its stderr hears of the start alone."""
    os.chdir("/")
    reporter.keep_stderr()
    # As systemd would have executed it; less is for root alone.
    process.raise_oom_score_adj_to(cgroup.broker_pid(os.getuid()))
    from rootlesspy.engine.supervision.beginning import empty_stdin

    empty_stdin()


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
