"""`rp supervise ID`: the main process of rp-NAME.service, from the record to the payload's end.

systemd starts it, whoever asked for that; nothing but the record and the spec on disk is needed.
It exits with the payload's own exit code, which Restart= goes by, and with 0 after a stop that was
asked for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rootlesspy.engine import record, storage
from rootlesspy.engine.supervision import (
    cancel,
    control,
    failure,
    job,
    service,
    sockets,
    supervisor,
)
from rootlesspy.errors import Conflict, Error, NotFound
from rootlesspy.linux import process
from rootlesspy.network import driver
from rootlesspy.paths import private_directory
from rootlesspy.systemd import notify

if TYPE_CHECKING:
    import socket

    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.network.driver import NetworkRequest
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

_LOST_STATUS = 125
# Ends after which no policy starts it again: record.ExitRecord.reason.
_ASKED = frozenset(("stop", "kill", "systemctl", "shutdown", "timeout"))


def supervise(text: str, paths: Paths, reporter: Reporter) -> int:
    """Run a container, by id or name, as this service and return the service's exit code.

    Raises Error when it cannot be started; systemd and the caller of `rp start` are both told.
    """
    listening = sockets.take(os.environ)
    cancel.Cancellation()
    # Nothing that is started from here may speak for the service.
    notifier = notify.Notifier(os.environ.pop("NOTIFY_SOCKET", ""))
    private_directory(paths.require_runtime())
    container_id = record.find(paths, text)
    client = control.connect(paths, container_id, control.STARTER)
    journal_fd = os.dup(2)
    try:
        lock_fd = _lock(paths, container_id, client)
        found = record.load_record(paths.container(container_id))
        process.set_name(f"rp-{found.name}".encode())
        task = _job(paths, found, lock_fd, client, reporter, notifier, listening)
        ended = supervisor.supervise(task, client)
    except FileNotFoundError as error:
        raise NotFound(f"no container with id {container_id}", hint="rp ps -a") from error
    except Error as error:
        if client is None:
            raise
        os.dup2(journal_fd, 2)
        reporter.error(error.message, error.hint)
        # Its starter has the answer; a restart policy is for containers that have run.
        service.end_as_asked()
    finally:
        # The payload has had pipes in the place of the service's own standard streams.
        os.dup2(journal_fd, 2)
    if ended.reason in _ASKED:
        service.end_as_asked()
    return ended.exit_code if ended.exit_code >= 0 else _LOST_STATUS


def _lock(paths: Paths, container_id: str, client: socket.socket | None) -> int:
    """Hold the container: with the lock that its starter hands over, else with our own.

    Raises Conflict when somebody else has it.
    """
    if client is not None:
        message = control.receive(client)
        if message is not None and message.fds:
            return message.fd
    fd = record.lock(paths.container(container_id))
    if fd is None:
        raise Conflict(
            f"container {container_id[:12]} is already running, or being changed", hint="rp ps"
        )
    return fd


def _job(
    paths: Paths,
    found: ContainerRecord,
    lock_fd: int,
    client: socket.socket | None,
    reporter: Reporter,
    notifier: notify.Notifier,
    listening: sockets.Listening,
) -> job.Job:
    """Forget the last run and decide how this one is started.  Raises Error, told to client."""
    directory = paths.container(found.id)
    record.forget_run(directory)
    storage.kill_payload(directory)
    try:
        selection = driver.select(_network(paths, found), storage.ports(found))
        return job.prepare(
            paths,
            found,
            job.load_spec(directory),
            selection,
            lock_fd=lock_fd,
            reporter=reporter,
            service=service.own_unit() or service.unit_name(found.name),
            notifier=notifier,
            listening=listening,
        )
    except Error as error:
        failure.report(paths, found, client, error, service=True)
        raise


def _network(paths: Paths, found: ContainerRecord) -> NetworkRequest:
    """Return what the container is connected to; raises NotFound for a network that is gone."""
    request = driver.restore(found.network)
    if not request.networks:
        return request
    from rootlesspy.engine.networks import membership

    return membership.resolve(paths, request)
