"""The service of a container: how systemd starts, restarts and stops its supervisor.

The container's record decides all of it; nothing comes from the image but what the record already
has as plain text, and every writer escapes it.
"""

from __future__ import annotations

import os
import sys

from rootlesspy.engine import names
from rootlesspy.engine.definitions import dependencies
from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING, NoReturn
from rootlesspy.report import escape
from rootlesspy.systemd import cgroup
from rootlesspy.systemd.service import Service

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths

# After the stop timeout the supervisor kills the payload itself and still has the end to record.
_STOP_MARGIN_S = 10
# Delays between restarts, doubling from the first to the longest: what docker does.
_FIRST_DELAY_US = 100_000
_LONGEST_DELAY_US = 60_000_000
_STEPS = 9


def own_unit() -> str:
    """Return the service that this process is of, "" when it is of none.

    rp-NAME.service, or an instance of rp@.service.
    """
    name = cgroup.control_group(os.getpid()).rpartition("/")[2]
    return name if name.endswith(".service") else ""


def of(record: ContainerRecord, paths: Paths) -> Service:
    """Return the service that supervises this container.

    The same for the transient unit of `rp run -d` and for the file of `rp enable`.
    """
    independent = of_new(
        paths,
        container_id=record.id,
        name=record.name,
        image=record.image,
        restart=record.restart,
        stop_timeout_s=record.stop_timeout_s,
        remove=record.remove,
    )
    return independent._replace(dependencies=_dependencies(record))


def of_new(
    paths: Paths,
    *,
    container_id: str,
    name: str,
    image: str,
    restart: str,
    stop_timeout_s: int,
    remove: bool,
) -> Service:
    """Return the service of a container that is perhaps not on disk yet, without dependencies.

    PATH is the caller's, where the helper programs were found; the user manager's own may lack
    them.
    """
    argv, environment = program()
    policed, burst = policy(restart)
    return Service(
        name=names.service(name),
        # The image may be a directory: its path may hold what a unit's description cannot.
        description=escape(f"Container {name} ({image})"),
        documentation=("man:rp(1)",),
        command=(*argv, "supervise", container_id),
        restart=policed,
        restart_delay_us=_FIRST_DELAY_US,
        restart_steps=_STEPS,
        restart_max_delay_us=_LONGEST_DELAY_US,
        start_limit_burst=burst,
        stop_timeout_us=(stop_timeout_s + _STOP_MARGIN_S) * 1_000_000,
        environment=(*directories(paths), *environment),
        identifier=f"rp-{name}",
        keep_failed=not remove,
    )


def end_as_asked() -> NoReturn:
    """End this supervisor so that systemd does not start it again, whatever Restart= says.

    Restart=always, perhaps of a drop-in, means a clean exit too; the way out is
    RestartPreventExitStatus=SIGTERM, which counts as a clean end of a service.  (Asking for a stop
    job instead would cancel a `systemctl restart`.)
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os._exit(0)


def _dependencies(record: ContainerRecord) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return After=, Requires= and Wants= of a container that waits for others (a definition's)."""
    requires, wants, after = (
        tuple(map(names.service, dependencies.names(record, relation)))
        for relation in ("requires", "wants", "after")
    )
    before = tuple(dict.fromkeys((*requires, *wants, *after)))
    found = (("After", before), ("Requires", requires), ("Wants", wants))
    return tuple((key, units) for key, units in found if units)


def policy(restart: str) -> tuple[str, int | None]:
    """Turn no, always, unless-stopped, on-failure[:N] into Restart= and how many starts it allows.

    None: any number.  on-failure:0 is on-failure, as podman and docker have it.
    """
    name, _, number = restart.partition(":")
    if name in ("always", "unless-stopped"):
        return "always", None
    if name == "on-failure":
        retries = int(number or "0")
        return "on-failure", retries + 1 if retries else None
    return "no", None


def program() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the argv that runs this rp again, and the variables that it needs."""
    path = os.path.abspath(sys.argv[0])
    if os.path.basename(path) != "__main__.py" and os.access(path, os.X_OK):
        return (path,), ()
    # python -m rootlesspy, perhaps of a checkout: its directory is on no other search path.
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    variables = (f"PYTHONPATH={os.path.dirname(package)}",)
    return (sys.executable, "-P", "-m", "rootlesspy"), variables


def directories(paths: Paths) -> tuple[str, ...]:
    """Name the directories that this container lives in, whatever the user manager's own are."""
    found = [f"XDG_DATA_HOME={os.path.dirname(paths.data)}", f"XDG_CONFIG_HOME={paths.config}"]
    search = os.environ.get("PATH", "")
    if search:
        found.append(f"PATH={search}")
    return tuple(found)
