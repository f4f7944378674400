"""What rp knows of a container, on disk: one directory, small files, no database.

    containers/<id>/record.json   what was asked and decided, written once (ContainerRecord)
                    config.json   the OCI runtime spec
                    state.json    the running process: pid, start time, boot id (LiveState)
                    exit.json     how it ended (ExitRecord)
                    upper/ work/ rootfs/
    names/<name>                  a symbolic link whose target is the id: made atomically

Whoever makes or supervises a container holds flock(2) on its directory, for as long as it lives:
the kernel releases it on death, so a free lock proves that nobody is there.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from rootlesspy.engine import names, reservation, statefile
from rootlesspy.errors import Conflict, NotFound
from rootlesspy.paths import private_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rootlesspy.paths import Paths

LOST_EXIT_CODE = -1
SHARERS = "sharers"
"""Directory with a link per container that shares a namespace of this one."""


class ContainerRecord(NamedTuple):
    """What one container is; never changes after it was made."""

    id: str
    name: str
    image: str
    image_id: str
    command: list[str]
    created_s: float
    """Seconds since the epoch."""
    labels: dict[str, str]
    network: dict[str, object]
    """driver, options, chosen: network.driver.NetworkRequest."""
    ports: list[list[object]]
    """network.ports.PortMapping, field by field."""
    remove: bool
    tty: bool
    interactive: bool
    unit: str
    """The scope; empty with --cgroups=disabled."""
    properties: list[str]
    """--property, verbatim."""
    ignore_missing_limits: bool
    stop_signal: int
    stop_timeout_s: int
    user: str
    group_add: list[str]
    make_cwd: bool
    storage: dict[str, object]
    """kind (overlay, directory), lower or path."""
    anonymous_volumes: list[str]
    userns: str
    """The mode of --userns, from which the id maps follow."""
    default_limits: list[str]
    """systemd properties that nobody asked for: their absence is no reason to refuse."""
    restart: str = "no"
    """no, always, unless-stopped, on-failure or on-failure:N."""
    log_driver: str = ""
    """journald, json-file, none or passthrough; empty: the default of how it is started."""
    log_options: dict[str, str] = {}  # noqa: RUF012 - never written to
    health: dict[str, object] | None = None
    """What inputs.health_values resolved; None without one."""
    sdnotify: str = "runner"
    """Who says that it is ready: runner, container, healthy, port:N or log:REGEX."""
    entrypoint: list[str] = []  # noqa: RUF012 - never written to
    """The words of command that are the entrypoint, without those of --init."""
    resolver: dict[str, list[object]] = {}  # noqa: RUF012 - never written to
    """add_hosts (pairs), dns, dns_search, dns_options: as asked, for supervision.etc_files."""
    made_by: str = "run"
    """run, or create: one that was never started is left from a killed rp run, or is to stay."""
    request: dict[str, object] = {}  # noqa: RUF012 - never written to
    """What was asked, as inputs.request.given has it: for plans and exports of definitions."""
    shares: dict[str, str] = {}  # noqa: RUF012 - never written to
    """Kinds of namespaces that are another's, and whose: engine.pods.sharing."""
    pod: str = ""
    """The id of its pod."""
    secrets: list[list[object]] = []  # noqa: RUF012 - never written to
    """inputs.request.SecretUse, field by field."""


class LiveState(NamedTuple):
    """A started container's processes, told from strangers by start time and boot id."""

    supervisor_pid: int
    supervisor_start: int
    pid: int
    start: int
    boot_id: str
    started_s: float
    helper_pid: int
    helper_start: int
    unit: str = ""
    """The scope that holds the payload."""
    service: str = ""
    """The service that holds the supervisor; empty for an attached one."""


class ExitRecord(NamedTuple):
    """How a container ended; exit_code -1 means that nobody saw it."""

    exit_code: int
    finished_s: float
    started_s: float
    oom_killed: bool
    error: str
    memory_peak_bytes: int | None = None
    cpu_usage_us: int | None = None
    reason: str = ""
    """Who ended it: "" itself, stop, kill, systemctl, shutdown, timeout, unhealthy, start."""
    signal: int = 0
    """The signal that the payload died of; 0: it exited."""
    usage: dict[str, int] = {}  # noqa: RUF012 - never written to
    """systemd.cgroup.Usage, what was known of it."""


class Container(NamedTuple):
    """One container as it is now."""

    record: ContainerRecord
    state: str
    """created, running, exited or broken."""
    pid: int
    started_s: float
    exit: ExitRecord | None


def create(paths: Paths, record: ContainerRecord, *, durable: bool) -> int:
    """Write a new container and reserve its name; return the locked descriptor of its directory.

    An empty record.name is replaced by a random one: read it back with load().  Raises Conflict
    when the name is in use, OSError.
    """
    for directory in (paths.data, paths.containers, paths.names):
        private_directory(directory)
    directory = paths.container(record.id)
    os.mkdir(directory, 0o700)
    lock_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock_fd, fcntl.LOCK_EX)
    try:
        reservation.reserve(paths, record.name, record.id)
        statefile.write(f"{directory}/record.json", record._asdict(), durable=durable)
    except BaseException:
        reservation.release_name(paths, record.name, record.id)
        _forget(directory)
        os.close(lock_fd)
        raise
    return lock_fd


def release_names(paths: Paths, record: ContainerRecord) -> None:
    """Free the name of a container, also one that it was given since its record was read."""
    if reservation.release_name(paths, record.name, record.id):
        return
    try:
        reservation.release_name(paths, load_record(paths.container(record.id)).name, record.id)
    except (OSError, statefile.DamagedError):
        return


def find(paths: Paths, text: str) -> str:
    """Return the id of the container with this name, id or unique id prefix.

    Raises NotFound, Conflict when a prefix fits several.
    """
    try:
        return os.readlink(f"{paths.names}/{text}") if "/" not in text else ""
    except OSError:
        pass
    if names.is_id_prefix(text):
        fitting = [each for each in ids(paths) if each.startswith(text)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise Conflict(f"container id {text} is not unique: {len(fitting)} begin with it")
    raise NotFound(f"no container with name or id {text!r}", hint="rp ps -a lists them")


def ids(paths: Paths) -> list[str]:
    """Return the ids of all containers, also of half-made ones."""
    try:
        return [name for name in os.listdir(paths.containers) if names.is_id_prefix(name)]
    except FileNotFoundError:
        return []


def load(paths: Paths, container_id: str) -> Container | None:
    """Return a container as it is now, or None when it is half-made or gone."""
    directory = paths.container(container_id)
    try:
        record = load_record(directory)
    except FileNotFoundError:
        return None
    except (statefile.DamagedError, OSError):
        return Container(_unknown(container_id), "broken", 0, 0.0, None)
    try:
        live = live_state(directory)
        ended = exit_record(directory)
        if ended is None and is_locked(directory):
            if live is None:
                return Container(record, "created", 0, 0.0, None)
            return Container(record, "running", live.pid, live.started_s, None)
    except (statefile.DamagedError, OSError):
        return Container(record, "broken", 0, 0.0, None)
    if ended is None and live is not None:
        ended = lost(live.started_s)
    if ended is None:
        return Container(record, "created", 0, 0.0, None)
    return Container(record, "exited", 0, ended.started_s, ended)


def load_record(directory: str) -> ContainerRecord:
    """Read record.json.  Raises FileNotFoundError, OSError, DamagedError."""
    path = f"{directory}/record.json"
    fields = _fields(ContainerRecord._fields, ContainerRecord._field_defaults, path)
    return ContainerRecord(**fields)


def exit_record(directory: str) -> ExitRecord | None:
    """Read exit.json; None when the container has not ended.  Raises OSError, DamagedError."""
    path = f"{directory}/exit.json"
    try:
        return ExitRecord(**_fields(ExitRecord._fields, ExitRecord._field_defaults, path))
    except FileNotFoundError:
        return None


def is_locked(directory: str) -> bool:
    """Say whether somebody makes or supervises this container."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def wait_unlocked(directory: str, timeout_s: float) -> bool:
    """Wait until nobody supervises this container; say whether that happened in time.

    flock(2) has no time limit of its own, so the lock is tried in growing steps of up to 50 ms.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = 0.001
    while is_locked(directory):
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(0.05, pause_s * 2)
    return True


def lost(started_s: float = 0.0) -> ExitRecord:
    """Return the end of a container that nobody saw."""
    return ExitRecord(
        exit_code=LOST_EXIT_CODE,
        finished_s=0.0,
        started_s=started_s,
        oom_killed=False,
        error="exit status lost: its supervisor was killed, or the machine restarted",
    )


def forget_run(directory: str) -> None:
    """Forget how the last run of a container ended, for the next one begins.  Raises OSError."""
    for name in ("exit.json", "state.json"):
        try:
            os.unlink(f"{directory}/{name}")
        except FileNotFoundError:
            continue


def lock(directory: str) -> int | None:
    """Lock a container's directory and return the descriptor that holds the lock.

    None when somebody makes, starts or supervises it.  Raises FileNotFoundError, OSError.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def write_live_state(directory: str, state: LiveState) -> None:
    """Write state.json."""
    statefile.write(f"{directory}/state.json", state._asdict(), durable=False)


def write_exit_record(directory: str, ended: ExitRecord, *, durable: bool) -> None:
    """Write exit.json."""
    statefile.write(f"{directory}/exit.json", ended._asdict(), durable=durable)


def live_state(directory: str) -> LiveState | None:
    """Read state.json; None when the container never ran.  Raises OSError, DamagedError."""
    path = f"{directory}/state.json"
    try:
        return LiveState(**_fields(LiveState._fields, LiveState._field_defaults, path))
    except FileNotFoundError:
        return None


def _fields(known: Iterable[str], defaults: Mapping[str, object], path: str) -> dict[str, Any]:
    """Read a state file and return the fields that a record of ours has."""
    value = statefile.read(path)
    found = {name: value[name] for name in known if name in value}
    for name in known:
        if name not in found and name not in defaults:
            raise statefile.DamagedError(f"{path} lacks {name!r}")
    return found


def _forget(directory: str) -> None:
    for name in ("record.json",):
        try:
            os.unlink(f"{directory}/{name}")
        except FileNotFoundError:
            continue
    os.rmdir(directory)


def _unknown(container_id: str) -> ContainerRecord:
    """Return the record of a container whose own cannot be read."""
    return ContainerRecord(
        id=container_id,
        name=names.short_id(container_id),
        image="",
        image_id="",
        command=[],
        created_s=0.0,
        labels={},
        network={},
        ports=[],
        remove=False,
        tty=False,
        interactive=False,
        unit="",
        properties=[],
        ignore_missing_limits=False,
        stop_signal=15,
        stop_timeout_s=10,
        user="",
        group_add=[],
        make_cwd=False,
        storage={},
        anonymous_volumes=[],
        userns="host-map",
        default_limits=[],
    )
