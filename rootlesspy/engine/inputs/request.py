"""What one container is asked to be: the command line (or later a definition), parsed to types.

Made by a front end, read by `engine.specgen` and `engine.run`; from config.json on nobody asks it.
Every value is already checked by `values`, `mount_values`, `environment` or the network room's
parsers; nothing here has been looked up on disk, except the files of --env-file and --label-file.
"""

from __future__ import annotations

from rootlesspy.engine.inputs.constants import DEFAULT_DETACH_KEYS
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.network.driver import NetworkRequest

if TYPE_CHECKING:
    from rootlesspy.engine.inputs.health_values import HealthRequest
    from rootlesspy.network.ports import PortMapping

DEFINITION = "io.rootlesspy.definition"
"""Begins the labels of containers that a definition made."""
LABEL_HASH, LABEL_FILE, LABEL_NAME = (f"{DEFINITION}.{each}" for each in ("hash", "file", "name"))
# Of podman: see podman-auto-update(1).
LABEL_AUTO_UPDATE = "io.containers.autoupdate"


class VolumeMount(NamedTuple):
    """One directory or file that is mounted into the container (-v, --mount)."""

    source: str
    """Absolute host path (bind), volume name (volume) or empty (anonymous)."""
    target: str
    """Absolute path inside the container, lexically clean."""
    kind: str = "bind"
    """bind, volume or anonymous."""
    options: tuple[str, ...] = ()
    """As -v spells them: ro, z, Z, U, noexec, rslave…"""


class TmpfsMount(NamedTuple):
    """One tmpfs inside the container (--tmpfs, --mount type=tmpfs)."""

    target: str
    options: tuple[str, ...] = ()
    """As tmpfs(5) spells them, and tmpcopyup, notmpcopyup, U."""


class Ulimit(NamedTuple):
    """One resource limit of the payload."""

    name: str
    """setrlimit(2)'s name, lower case, without RLIMIT_."""
    soft: int
    """-1: unlimited."""
    hard: int


class SecretUse(NamedTuple):
    """One secret that the container gets (--secret)."""

    name: str
    """A name or id of the store, or the name of a systemd credential."""
    kind: str
    """mount or env."""
    target: str
    """Absolute path inside the container, or the name of the variable."""
    uid: int = 0
    gid: int = 0
    mode: int = 0o444
    source: str = "store"
    """store or credential."""
    id: str = ""
    """Its id when the container was made."""


class Device(NamedTuple):
    """One device node of the host that appears in the container."""

    host: str
    container: str
    access: str = "rwm"


class RunRequest(NamedTuple):
    """Everything that `rp run` was asked; every field has the default of a bare `rp run IMAGE`."""

    image: str
    """Reference as typed; empty with rootfs."""
    command: tuple[str, ...] = ()
    rootfs: str | None = None
    name: str | None = None
    remove: bool = False
    interactive: bool = False
    tty: bool = False
    detach_keys: bytes = DEFAULT_DETACH_KEYS
    """Empty: detaching by keys is off."""
    sig_proxy: bool = True
    """Signals to rp go to the container."""
    env: tuple[str, ...] = ()
    """KEY=VALUE each, no KEY twice."""
    volumes: tuple[VolumeMount, ...] = ()
    tmpfs: tuple[TmpfsMount, ...] = ()
    workdir: str | None = None
    user: str | None = None
    entrypoint: tuple[str, ...] | None = None
    """None: the image's.  ("",): none at all."""
    hostname: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    read_only: bool = False
    pull: str = "missing"
    """always, missing, never or newer."""
    network: NetworkRequest = NetworkRequest()
    publish: tuple[PortMapping, ...] = ()
    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None
    """Memory and swap together; -1: unlimited swap."""
    memory_reservation_bytes: int | None = None
    cpu_quota_us: int | None = None
    """Microseconds of CPU per second of time."""
    cpu_shares: int | None = None
    cpuset_cpus: str | None = None
    pids_limit: int | None = None
    """None: the default.  0 or less: unlimited."""
    properties: tuple[str, ...] = ()
    """KEY=VALUE as systemd-run takes them, verbatim."""
    stop_signal: int | None = None
    stop_timeout_s: int | None = None
    init: bool = False
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    """CAP_… or ALL."""
    cap_drop: tuple[str, ...] = ()
    security_opts: tuple[str, ...] = ()
    userns: str = "host-map"
    """host-map, keep-id, auto or nomap, with options; private with the maps below."""
    add_hosts: tuple[tuple[str, str], ...] = ()
    """Name and address; the address may be host-gateway."""
    dns: tuple[str, ...] = ()
    """Addresses, or ("none",): the image's resolv.conf stays."""
    dns_search: tuple[str, ...] = ()
    """(".",): no search list at all."""
    dns_options: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    shm_size_bytes: int | None = None
    devices: tuple[Device, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    platform: str | None = None
    quiet: bool = False
    cidfile: str | None = None
    ignore_missing_limits: bool = False
    cgroups: str = "enabled"
    """enabled or disabled (no scope)."""
    group_add: tuple[str, ...] = ()
    umask: int | None = None
    debug: bool = False
    detach: bool = False
    restart: str = "no"
    """no, always, unless-stopped, on-failure or on-failure:N."""
    sdnotify: str = "runner"
    """Who says that it is ready: runner, container, healthy, port:N or log:REGEX."""
    health: HealthRequest | None = None
    """None: the image's own check."""
    after: tuple[str, ...] = ()
    """Names of containers that are started before this one, when both are (a definition's)."""
    requires: tuple[str, ...] = ()
    """Names of containers without which this one is not started, and with which it is stopped."""
    wants: tuple[str, ...] = ()
    """Names of containers that are started with this one, and may fail."""
    log_driver: str = ""
    """journald, json-file, none or passthrough; empty: the default of how it is started."""
    log_options: tuple[tuple[str, str], ...] = ()
    """max-size, max-file, path, tag: engine.output.log_values."""
    signature_policy: str | None = None
    """A file in place of the policy.json that is configured, for the pull."""
    verify_always: bool = False
    """Compare the image's files with their digests before each start."""
    ipc: str = ""
    """Its IPC namespace: host, container:NAME, ns:PATH or its own: empty, private (nobody may share
    it), none (without /dev/shm).  So are pid and uts, which have no none."""
    pid: str = ""
    uts: str = ""
    pod: str = ""
    """Name or id of the pod that it belongs to."""
    publish_all: bool = False
    """Publish what the image exposes on free ports, besides publish."""
    shares: tuple[tuple[str, str], ...] = ()
    """Kind of namespace and whose it is, container:ID, pod:ID or ns:PATH: engine.pods.sharing."""

    secrets: tuple[SecretUse, ...] = ()
    cgroupns: str = "private"
    """private, or host: it sees the host's tree."""

    annotations: tuple[tuple[str, str], ...] = ()
    hooks_dirs: tuple[str, ...] = ()
    """Directories of hook descriptions, later ones first; empty: those of containers.conf."""

    landlock: tuple[str, ...] = ()
    """Rules as engine.inputs.landlock_values returns them."""
    cdi_devices: tuple[str, ...] = ()
    """Qualified names, VENDOR/CLASS=NAME."""

    uidmap: tuple[str, ...] = ()
    """Lines of its own id map, as typed: engine.inputs.id_values.  So is gidmap."""
    gidmap: tuple[str, ...] = ()
    subuidname: str = ""
    """Whose line of /etc/subuid its uids are.  So is subgidname."""
    subgidname: str = ""
    id_maps: tuple[tuple[tuple[int, ...], ...], ...] = ()
    """Both id maps, line by line, once decided on: engine.idmap_choice."""

    def shares_namespaces(self) -> bool:
        """Say whether a namespace of somebody else is asked for."""
        return bool(
            self.network.driver in ("container", "ns")
            or ":" in self.ipc + self.pid + self.uts
            or self.pod
            or self.userns.startswith(("container:", "ns:"))
        )


_OF_THE_INVOCATION = frozenset(
    (
        "name",
        "remove",
        "detach",
        "detach_keys",
        "sig_proxy",
        "quiet",
        "cidfile",
        "debug",
        "id_maps",
        "shares",
        "signature_policy",
    )
)


def given(request: RunRequest) -> dict[str, object]:
    """Return what was asked beyond a bare `rp run IMAGE`, as JSON takes it.

    What concerns one invocation alone, and the name, is left out.
    """
    defaults = RunRequest._field_defaults
    return {
        field: value
        for field, value in request._asdict().items()
        if field not in _OF_THE_INVOCATION and value != defaults.get(field)
    }
