"""Who talks to the service of a network, and has systemd start it when it does not run."""

from __future__ import annotations

import importlib.util
import os
import time

from rootlesspy.engine.supervision import control, service
from rootlesspy.errors import Conflict, Error, RuntimeFailure, Unsupported
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.systemd import bus
from rootlesspy.systemd import service as unit

if TYPE_CHECKING:
    import socket

    from rootlesspy.network.namespace import Namespace
    from rootlesspy.paths import Paths

# The service of a network that nobody is in any more may be about to end.
_START_TIMEOUT_S = 60.0
_ANSWER_TIMEOUT_S = 60.0
_POLL_S = 0.02
# Its namespaces, and four sockets for each of so many gateways.
_STORED_FDS = 64
# A service that cannot start must not be started for ever; one that was killed may come back often.
_MOST_STARTS, _STARTS_INTERVAL_US = 10, 60_000_000


def unit_name(network: str) -> str:
    """Return the unit of a network's service."""
    return f"rp-network-{network}.service"


def place(network: str) -> str:
    """Return the directory of its socket, as control's functions take it."""
    return f"networks/{network}"


def ask(
    paths: Paths, network: str, kind: str, opened: Namespace | None = None, **fields: object
) -> None:
    """Have the service do something, started if need be; returns when it is done.

    Raises RuntimeFailure with the service's words, Unsupported without a user manager.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        end = control.connect(paths, place(network)) if _has_socket(paths, network) else None
        if end is None:
            _start(paths, network)
        elif _carried_out(end, network, kind, opened, fields):
            return
        if time.monotonic() > deadline:
            raise _failure(network, "its service does not answer")
        time.sleep(_POLL_S if end is None else 0)


def tell(paths: Paths, network: str, kind: str, *, wait: bool = False, **fields: object) -> bool:
    """Tell the service something if it runs; say whether it does.

    wait: until it is done.  Raises RuntimeFailure then.
    """
    if not _has_socket(paths, network):
        return False
    end = control.connect(paths, place(network))
    if end is None:
        return False
    if wait:
        return _carried_out(end, network, kind, None, fields)
    sent = control.tell(end, kind, **fields)
    end.close()
    return sent


def stop(paths: Paths, network: str) -> None:
    """Have systemd stop the service; one that does not run is no harm."""
    connection = bus.connect(os.path.dirname(paths.require_runtime()))
    try:
        connection.wait_job(unit.stop(connection, unit_name(network)), _START_TIMEOUT_S)
    except Error:
        # There is no such unit.
        pass
    finally:
        connection.close()


def _has_socket(paths: Paths, network: str) -> bool:
    return os.path.exists(f"{paths.network_runtime(network)}/{control.CONTROL}")


def _carried_out(
    end: socket.socket,
    network: str,
    kind: str,
    opened: Namespace | None,
    fields: dict[str, object],
) -> bool:
    """Send a request and wait for the answer; False when the service ended instead."""
    try:
        end.settimeout(_ANSWER_TIMEOUT_S)
        fds = () if opened is None else tuple(opened)
        if not control.send(end, kind, fds, fields):
            return False
        message = control.receive(end)
    except TimeoutError:
        raise _failure(network, "its service does not answer") from None
    finally:
        end.close()
    if message is None:
        return False
    if message.kind == "failed":
        raise _failure(network, message.text("message"), message.text("hint"))
    return True


def _start(paths: Paths, network: str) -> None:
    """Have systemd start the service; whoever else does it at the same time, no harm."""
    if importlib.util.find_spec("pyroute2") is None:
        raise Unsupported("pyroute2 is not installed", hint="sudo apt install python3-pyroute2")
    connection = bus.connect(os.path.dirname(paths.require_runtime()))
    name = unit_name(network)
    try:
        if unit.is_restarting(connection, name):
            job = unit.start(connection, name)
        else:
            job = unit.start_transient(connection, _service(paths, network))
        unit.wait(connection, name, job, _START_TIMEOUT_S)
    except Conflict:
        # It runs, is being started, or is about to end: seen when the socket is tried again.
        return
    finally:
        connection.close()


def _service(paths: Paths, network: str) -> unit.Service:
    argv, environment = service.program()
    return unit.Service(
        name=unit_name(network),
        description=f"Network {network} of containers",
        documentation=("man:rp(1)",),
        command=(*argv, "network-service", network),
        restart="on-failure",
        environment=(*service.directories(paths), *environment),
        start_limit_burst=_MOST_STARTS,
        start_limit_interval_us=_STARTS_INTERVAL_US,
        identifier=f"rp-network-{network}",
        keep_failed=False,
        stored_fds=_STORED_FDS,
    )


def _failure(network: str, text: str, hint: str = "") -> RuntimeFailure:
    shown = hint or f"journalctl --user -n 20 -u {unit_name(network)}"
    return RuntimeFailure(f"network {network}: {text}", step="network", hint=shown)
