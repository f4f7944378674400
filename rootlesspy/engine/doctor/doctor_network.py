"""Checks of the network: by connecting one, with the helper that a container would get."""

from __future__ import annotations

import os

from rootlesspy.engine.doctor.doctor import (
    FAILED,
    OK,
    WARNING,
    Check,
    Finding,
    Machine,
    Report,
    command_for_root,
    skipped,
)
from rootlesspy.engine.doctor.doctor_ids import single_id
from rootlesspy.errors import Error
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import process, userns
from rootlesspy.network import driver, pasta, ports
from rootlesspy.network.process import find_program

if TYPE_CHECKING:
    from rootlesspy.network.driver import Selection

_PACKAGES = ("passt",)
_COMMON_PORT = 80


def network(_machine: Machine, report: Report) -> Finding:
    """Connect a network namespace by the helper that a container would get."""
    if (missing := skipped(report, "user-namespaces")) is not None:
        return missing
    try:
        selection = driver.select(driver.NetworkRequest(), ())
    except Error as error:
        return Finding(
            FAILED,
            error.message,
            cure=error.hint or "",
            packages=() if find_program("pasta") else _PACKAGES,
        )
    if selection.request.driver == "none":
        return Finding(
            WARNING, selection.notice, cure="install pasta, or a newer one", packages=_PACKAGES
        )
    problem = _try(selection)
    if problem is not None:
        return Finding(
            FAILED,
            problem.message,
            cure=problem.hint or "",
            root=command_for_root(problem.hint),
        )
    if selection.notice:
        return Finding(
            WARNING,
            f"{selection.notice}, which works",
            cure="install pasta: faster, and with IPv6",
            packages=_PACKAGES,
        )
    if selection.request.driver == "pasta" and pasta.joins_loopbacks(find_program("pasta") or ""):
        return Finding(
            OK,
            "pasta connects a container; being of before October 2024, it lets the host's loopback "
            "reach the container's at published ports",
            cure="a newer passt, or --network slirp4netns, where a service trusts its loopback",
        )
    return Finding(OK, f"{selection.request.driver} connects a container")


def low_ports(_machine: Machine, _report: Report) -> Finding:
    """See which ports may be published without root; that some may not is how it should be."""
    start = ports.unprivileged_start()
    cure = ""
    if start > _COMMON_PORT:
        setting = f"net.ipv4.ip_unprivileged_port_start={_COMMON_PORT}"
        cure = f"for port {_COMMON_PORT}, as root: sysctl -w {setting}"
    return Finding(OK, f"ports from {start} on can be published", cure=cure)


def _try(selection: Selection) -> Error | None:
    """Start the helper for a namespace of our own and end it; return what went wrong."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = process.clone3(process.CLONE_NEWUSER | process.CLONE_NEWNET)
    if pid == 0:
        # Until the other end is closed, or its owner is dead.
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    try:
        userns.wait_map_helpers(userns.start_map_helpers(pid, single_id()))
        pending = driver.start(
            selection,
            netns_path=f"/proc/{pid}/ns/net",
            userns_path=f"/proc/{pid}/ns/user",
            runtime_dir="",
        )
        pending.wait()
        pending.cancel()
    except Error as error:
        return error
    except OSError as error:
        return Error(f"{selection.request.driver} cannot be started: {error}")
    finally:
        os.close(writer)
        os.waitpid(pid, 0)
        os.close(pidfd)
    return None


CHECKS = (
    Check("network", "the container's own network, by pasta or slirp4netns", network),
    Check("low-ports", "-p 80:80 and other ports below 1024", low_ports),
)
