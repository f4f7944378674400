"""What rp knows of a container, on disk: one directory, small files, no database.

    containers/<id>/record.json   what was asked and decided, written once (ContainerRecord)
                    config.json   the OCI runtime spec
                    state.json    the running process: pid, start time, boot id (LiveState)
                    exit.json     how it ended (ExitRecord)
                    upper/ work/ rootfs/
    names/<name>                  a symbolic link whose target is the id: made atomically

Whoever makes or supervises a container holds flock(2) on its directory, for as long as it lives:
the kernel releases it on death, so a free lock proves that nobody is there.

Records and locks are one file: every start needs both, and another module costs it 0.1 ms.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from rootlesspy.engine import names, reservation, statefile
from rootlesspy.errors import Conflict, NotFound
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple
from rootlesspy.paths import private_directory

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.paths import Paths

    Read = Callable[[statefile.Shape, str], Any]

LOST_EXIT_CODE = -1
# How many fields network.ports.PortMapping and inputs.request.SecretUse have, and had.
_PORT_FIELDS, _SECRET_FIELDS = range(4, 5), range(3, 9)
SHARERS = "sharers"
"""Directory with a link per container that shares a namespace of this one."""

EXIT = "exit.json"
_SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_LEAVING_S = 5.0
_LOOKING_S = 5.0
_BRIEF_S = 0.005
POSTSTOP = "poststop"
"""File that is there while the poststop hooks of a run are owed."""


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
    id_maps: list[list[list[int]]] = []  # noqa: RUF012 - never written to
    """Both id maps, line by line, where they do not follow from userns: engine.idmap_choice."""

    def has_own_pids(self) -> bool:
        """Say whether it has a PID namespace of its own, which ends with its first process."""
        return "pid" not in self.shares and self.request.get("pid") != "host"


class Place(NamedTuple):
    """Where a container will be: its directory and its name are taken, lock_fd holds them."""

    container_id: str
    name: str
    lock_fd: int


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


_LOST = LiveState(
    supervisor_pid=0,
    supervisor_start=0,
    pid=0,
    start=0,
    boot_id="",
    started_s=0.0,
    helper_pid=0,
    helper_start=0,
)
RECORD, LIVE_STATE, EXIT_RECORD = map(statefile.shape, (ContainerRecord, LiveState, ExitRecord))


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

    Raises Conflict when the name is in use, OSError.
    """
    lock_fd = reserve(paths, record.id, record.name)
    try:
        write(paths, record, durable=durable)
    except BaseException:
        forget(paths, record.id, record.name)
        os.close(lock_fd)
        raise
    return lock_fd


def reserve(paths: Paths, container_id: str, name: str) -> int:
    """Make the directory of a container and take its name; return the directory, locked.

    Raises Conflict when the name is in use, OSError.
    """
    for directory in (paths.data, paths.containers, paths.names):
        private_directory(directory)
    lock_fd = make_locked(paths.container(container_id))
    try:
        reservation.reserve(paths, name, container_id)
    except BaseException:
        forget(paths, container_id, name)
        os.close(lock_fd)
        raise
    return lock_fd


def find_place(paths: Paths, name: str | None) -> Place:
    """Make the directory of a new container and take a name for it, a random one if None.

    One that only a killed command holds is freed.  Raises Conflict, UsageError, OSError.
    """
    container_id = names.new_id()
    name = names.check_name(name) if name else reservation.free_name(paths)
    try:
        return Place(container_id, name, reserve(paths, container_id, name))
    except Conflict:
        from rootlesspy.engine import leftovers

        leftovers.sweep(paths)
        return Place(container_id, name, reserve(paths, container_id, name))


def give_up(paths: Paths, place: Place) -> None:
    """Let go of a place where nothing was made but a record."""
    forget(paths, place.container_id, place.name)
    os.close(place.lock_fd)


def write(paths: Paths, record: ContainerRecord, *, durable: bool) -> None:
    """Write the record of a container whose name is taken."""
    path = f"{paths.container(record.id)}/record.json"
    # config.json, without which it was never made, is still to come: bundle.py.
    statefile.write(path, record._asdict(), durable=durable, named=False)


def forget(paths: Paths, container_id: str, name: str) -> None:
    """Give up a container that has nothing but its name and its record."""
    reservation.release_name(paths, name, container_id)
    _forget(paths.container(container_id))


def make_locked(directory: str) -> int:
    """Make a directory and lock it; return the descriptor that holds the lock.

    Until it is locked it looks like one whose maker died: leftovers.sweep() may have removed it.
    """
    while True:
        os.mkdir(directory, 0o700)
        try:
            lock_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
        if os.fstat(lock_fd).st_nlink:
            return lock_fd
        os.close(lock_fd)


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
        if os.path.lexists(paths.container(text)):
            return text
        fitting = [each for each in ids(paths) if each.startswith(text)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise Conflict(f"container id {text} is not unique: {len(fitting)} begin with it")
    raise NotFound(f"no container with name or id {text!r}", hint="rp ps -a lists them")


def ids(paths: Paths) -> list[str]:
    """Return the ids of all containers, also of half-made ones."""
    try:
        return names.id_prefixes(os.listdir(paths.containers))
    except FileNotFoundError:
        return []


def load(paths: Paths, container_id: str, read: Read = statefile.read_shape) -> Container | None:
    """Return a container as it is now, or None when it is half-made or gone.

    read: how its files are read, for listings.  Raises OSError where descriptors or memory do not
    suffice to read it.
    """
    directory = paths.container(container_id)
    try:
        record = load_record(directory, read)
    except FileNotFoundError:
        return None
    except (statefile.DamagedError, OSError) as error:
        _raise_shortage(error)
        return Container(_unknown(container_id), "broken", 0, 0.0, None)
    try:
        ended = exit_record(directory, read)
        if ended is None:
            held = is_locked(directory)
            live = live_state(directory, read)
            if held and live is not None and live.pid:
                return Container(record, "running", live.pid, live.started_s, None)
            # Written before the lock is let go of: it may have ended since the first look.
            ended = exit_record(directory)
            if ended is None and (held or live is None):
                return Container(record, "created", 0, 0.0, None)
            ended = ended or lost(live.started_s if live else 0.0)
    except (statefile.DamagedError, OSError) as error:
        _raise_shortage(error)
        return Container(record, "broken", 0, 0.0, None)
    return Container(record, "exited", 0, ended.started_s, ended)


def load_record(directory: str, read: Read = statefile.read_shape) -> ContainerRecord:
    """Read record.json.  Raises FileNotFoundError, OSError, DamagedError."""
    path = f"{directory}/record.json"
    found: ContainerRecord = read(RECORD, path)
    are_rows = (not found.ports or _are_rows(found.ports, _PORT_FIELDS)) and (
        not found.secrets or _are_rows(found.secrets, _SECRET_FIELDS)
    )
    if not are_rows or not directory.endswith(f"/{found.id}") or not names.is_valid(found.name):
        raise statefile.DamagedError(f"{path} is damaged", hint="remove the object with rp rm -f")
    return found


def _are_rows(listed: list[Any], lengths: range) -> bool:
    return all(isinstance(row, list) and len(row) in lengths for row in listed)


def exit_record(directory: str, read: Read = statefile.read_shape) -> ExitRecord | None:
    """Read exit.json; None when the container has not ended.  Raises OSError, DamagedError."""
    path = f"{directory}/{EXIT}"
    try:
        found: ExitRecord = read(EXIT_RECORD, path)
    except FileNotFoundError:
        return None
    return found


def is_locked(directory: str, dir_fd: int | None = None) -> bool:
    """Say whether somebody makes or supervises this container.

    dir_fd: what a relative directory is below.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    try:
        return not _flocked(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def wait_unlocked(directory: str, timeout_s: float) -> bool:
    """Wait until nobody supervises this container; say whether that happened in time.

    flock(2) has no time limit of its own, so the lock is tried in growing steps of up to 50 ms.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    deadline = time.monotonic() + timeout_s
    pause_s = 0.001
    try:
        # Of one that is gone nobody needs to know who still holds it.
        while not _flocked(fd, fcntl.LOCK_SH) and os.path.lexists(directory):
            if time.monotonic() > deadline:
                return False
            time.sleep(pause_s)
            pause_s = min(0.05, pause_s * 2)
    finally:
        os.close(fd)
    return True


def has_left(paths: Paths, container_id: str) -> bool:
    """Say whether nobody supervises a container that has ended; who recorded its end soon leaves.

    Not so one that is being started again.
    """
    directory = paths.container(container_id)
    deadline = time.monotonic() + _LEAVING_S
    while is_locked(directory):
        found = load(paths, container_id)
        if found is None or found.state != "exited" or time.monotonic() > deadline:
            return False
        time.sleep(_BRIEF_S)
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
    for name in (EXIT, "state.json"):
        try:
            os.unlink(f"{directory}/{name}")
        except FileNotFoundError:
            continue


def lock(directory: str) -> int | None:
    """Lock a container's directory and return the descriptor that holds the lock.

    None when somebody makes, starts or supervises it.  Raises FileNotFoundError, also when it was
    removed between its opening and its locking; OSError.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = 0.0
    while not _flocked(fd, fcntl.LOCK_EX):
        # Somebody may only be looking, as is_locked() does for a moment.
        is_looked_at = _flocked(fd, fcntl.LOCK_SH)
        fcntl.flock(fd, fcntl.LOCK_UN)
        deadline = deadline or time.monotonic() + _LOOKING_S
        if not is_looked_at or time.monotonic() > deadline:
            os.close(fd)
            return None
        time.sleep(_BRIEF_S)
    try:
        if os.path.samestat(os.fstat(fd), os.stat(directory)):
            return fd
    except FileNotFoundError:
        pass
    os.close(fd)
    raise FileNotFoundError(errno.ENOENT, "was removed meanwhile", directory)


def _flocked(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_live_state(directory: str, state: LiveState) -> None:
    """Write state.json."""
    statefile.write(f"{directory}/state.json", state._asdict(), durable=False)


def write_exit_record(directory: str, ended: ExitRecord, *, durable: bool) -> None:
    """Write exit.json."""
    statefile.write(f"{directory}/{EXIT}", ended._asdict(), durable=durable)


def live_state(directory: str, read: Read = statefile.read_shape) -> LiveState | None:
    """Read state.json; None when the container never ran.  Raises OSError, DamagedError."""
    path = f"{directory}/state.json"
    try:
        found: LiveState = read(LIVE_STATE, path)
    except FileNotFoundError:
        return _LOST if _is_empty(path) else None
    return found


def _raise_shortage(error: Exception) -> None:
    """Raise it again where rp has too little to read a file that may well be sound."""
    if isinstance(error, OSError) and error.errno in _SHORTAGE:
        raise error


def _is_empty(path: str) -> bool:
    """Say whether a power loss has left the name of a file alone: a run had begun."""
    try:
        return os.stat(path, follow_symlinks=False).st_size == 0
    except FileNotFoundError:
        return False


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
