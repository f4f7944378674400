"""Everything that is known of one container, in the shape and words of `podman inspect`.

Nothing is kept for it: the document is computed from the record, config.json, the state files, the
scope's cgroup, and, where a restart policy counts, systemd.  Keys of podman that have no meaning
here hold what they hold for a plain podman container.  HostConfig is in inspect_host.py.
"""

from __future__ import annotations

import time

from rootlesspy.engine import record, statefile
from rootlesspy.engine.output import logs
from rootlesspy.engine.supervision import healthcheck
from rootlesspy.engine.views import inspect_host, restarts, stats, usage
from rootlesspy.errors import Error, NotFound
from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rootlesspy.engine.record import Container, ContainerRecord, LiveState
    from rootlesspy.paths import Paths

_NEVER = "0001-01-01T00:00:00Z"
_BY_USER = ("stop", "kill", "systemctl")
_INIT_WORDS = ["/run/rp-init", "--"]
# What podman has and no container of rp can have, with the value that means so.
_FIXED: dict[str, Any] = {
    "OCIRuntime": "rootlesspy",
    "ConmonPidFile": "",
    "PidFile": "",
    "MountLabel": "",
    "ProcessLabel": "",
    "AppArmorProfile": "",
    "ExecIDs": [],
    "Namespace": "",
    "IsInfra": False,
    "IsService": False,
    "UseImageHosts": False,
    "UseImageHostname": False,
}
_CONFIG_FIXED: dict[str, Any] = {
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "StdinOnce": False,
    "Volumes": None,
    "OnBuild": None,
    "CreateCommand": [],
    "Timeout": 0,
    "Passwd": False,
    "HealthLogDestination": "local",
}
_HEALTHCHECK = (
    "Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries", "Startup",
)  # fmt: skip


_PARTS = (("process", dict), ("root", dict), ("linux", dict), ("mounts", list), ("hooks", dict))


class Facts(NamedTuple):
    """What a document is computed from."""

    paths: Paths
    found: Container
    spec: dict[str, Any]
    """config.json; empty where it cannot be read."""
    live: LiveState | None
    directory: str | None
    """The scope's cgroup; None when it does not run, or has none."""
    paused: bool
    health: healthcheck.Health | None


def container(paths: Paths, name: str, *, size: bool = False) -> dict[str, Any]:
    """Return the document of the container with this name, id or unique id prefix.

    size: with SizeRw and SizeRootFs, for which all its files are visited.  Raises NotFound,
    Conflict.
    """
    container_id = record.find(paths, name)
    found = record.load(paths, container_id)
    if found is None:
        raise NotFound(f"no container with name or id {name!r}", hint="rp ps -a lists them")
    return document(facts(paths, found), size=size)


def facts(paths: Paths, found: Container) -> Facts:
    """Read what there is to know of a container; what is damaged counts as not there."""
    directory = paths.container(found.record.id)
    try:
        live = record.live_state(directory) if found.pid else None
    except (statefile.DamagedError, OSError):
        live = None
    scope = None
    if live is not None:
        scope = stats.scope_directory(found.pid)
    try:
        health = healthcheck.read(paths, found.record.id) if found.record.health else None
    except (statefile.DamagedError, OSError):
        health = None
    return Facts(
        paths=paths,
        found=found,
        spec=load_spec(directory),
        live=live,
        directory=scope,
        paused=stats.is_frozen(scope),
        health=health,
    )


def document(known: Facts, *, size: bool = False) -> dict[str, Any]:
    """Compute the document."""
    kept, spec, paths = known.found.record, known.spec, known.paths
    directory = paths.container(kept.id)
    bounding = _process(spec).get("capabilities", {}).get("bounding", [])
    mounts = inspect_host.mount_points(spec, paths, kept.id)
    path, *arguments = kept.command or [""]
    result: dict[str, Any] = {
        "Id": kept.id,
        "Created": moment(kept.created_s),
        "Path": path,
        "Args": arguments,
        "State": _state(known),
        "Image": kept.image_id.removeprefix("sha256:"),
        "ImageDigest": _image_digest(paths, kept),
        "ImageName": kept.image,
        "Rootfs": str(kept.storage.get("path", "")),
        "ResolvConfPath": _source(spec, "/etc/resolv.conf"),
        "HostnamePath": _source(spec, "/etc/hostname"),
        "HostsPath": _source(spec, "/etc/hosts"),
        "StaticDir": directory,
        "OCIConfigPath": f"{directory}/config.json",
        "Name": kept.name,
        "RestartCount": _restart_count(known),
        "Driver": str(kept.storage.get("kind", "")),
        "EffectiveCaps": _effective(kept, spec),
        "BoundingCaps": sorted(bounding),
        "GraphDriver": _graph_driver(kept, directory),
        # As in podman and docker those of --tmpfs are in HostConfig.
        "Mounts": [each for each in mounts if each["Type"] != "tmpfs"],
        "NetworkSettings": inspect_host.network_settings(paths, kept),
        "Config": _config(known),
        "HostConfig": inspect_host.host_config(kept, spec, mounts, known.directory, _log(known)),
        "Systemd": _systemd(known),
        "Usage": usage.document(known.found, known.directory),
        "Pod": kept.pod,
        "Dependencies": [
            text.partition(":")[2]
            for text in dict.fromkeys(kept.shares.values())
            if text.startswith("container:")
        ],
        **_FIXED,
    }
    if size:
        from rootlesspy.engine.views import disk_usage

        result |= disk_usage.sizes(paths, kept)._asdict()
    return result


def moment(seconds: float) -> str:
    """Write a time as RFC 3339 in UTC; 0 is never, as Go writes it."""
    if not seconds:
        return _NEVER
    whole, micro = divmod(round(seconds * 1_000_000), 1_000_000)
    fraction = f"{micro:06}".rstrip("0")
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"


def status(known: Facts) -> str:
    """Return the state in podman's words, and broken."""
    return "paused" if known.paused else known.found.state


def load_spec(directory: str) -> dict[str, Any]:
    """Return a container's config.json; empty where it cannot be read."""
    try:
        found = statefile.read_spec(directory)
    except (OSError, ValueError):
        return {}
    # What somebody else wrote there is not shown, nor does it end the command.
    return found if all(isinstance(found.get(k, t()), t) for k, t in _PARTS) else {}


def load_mounts(directory: str) -> dict[str, Any]:
    """Return of a container's config.json what inspect_host.mount_points() looks at."""
    try:
        found = statefile.read_spec_parts(directory, {"root": "{", "mounts": "["})
    except (OSError, ValueError):
        found = None
    return load_spec(directory) if found is None else found


def _restart_count(known: Facts) -> int:
    if known.live is None or not known.live.service:
        return 0
    identity = known.found.record.id
    return restarts.counts(known.paths, {identity: known.live.service}, (known.found,))[identity]


def _state(known: Facts) -> dict[str, Any]:
    found, ended, live = known.found, known.found.exit, known.live
    return {
        "OciVersion": str(known.spec.get("ociVersion", "")),
        "Status": status(known),
        "Running": found.state == "running" and not known.paused,
        "Paused": known.paused,
        "Restarting": False,
        "OOMKilled": bool(ended and ended.oom_killed),
        "Dead": found.state == "broken",
        "Pid": found.pid,
        "ConmonPid": live.supervisor_pid if live else 0,
        "ExitCode": ended.exit_code if ended else 0,
        "Error": ended.error if ended else "",
        "StartedAt": moment(found.started_s),
        "FinishedAt": moment(ended.finished_s if ended else 0),
        "Health": _health(known),
        "CgroupPath": _below_mount(known.directory),
        "CheckpointedAt": _NEVER,
        "RestoredAt": _NEVER,
        "StoppedByUser": bool(ended and ended.reason in _BY_USER),
    }


def _log(known: Facts) -> inspect_host.Log:
    paths, kept = known.paths, known.found.record
    driver = logs.driver(paths, kept)
    if driver != "json-file":
        return inspect_host.Log(driver, "")
    from rootlesspy.engine.output import log_file

    return inspect_host.Log(driver, log_file.location(paths, kept))


def _health(known: Facts) -> dict[str, Any] | None:
    if not known.found.record.health:
        return None
    health = known.health or healthcheck.Health()
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": moment(each.start_s),
                "End": moment(each.end_s),
                "ExitCode": each.exit_code,
                "Output": each.output,
            }
            for each in health.log
        ],
    }


def _config(known: Facts) -> dict[str, Any]:
    kept, spec = known.found.record, known.spec
    process, health = _process(spec), kept.health
    return {
        "Hostname": str(spec.get("hostname", "")),
        "Domainname": str(spec.get("domainname", "")),
        "User": kept.user,
        "Tty": kept.tty,
        "OpenStdin": kept.interactive,
        "Env": process.get("env", []),
        "Cmd": _arguments(kept),
        "Image": kept.image,
        "WorkingDir": process.get("cwd", "/"),
        "Entrypoint": kept.entrypoint or None,
        "Labels": kept.labels or None,
        "Annotations": spec.get("annotations", {}),
        "StopSignal": _signal_name(kept.stop_signal),
        "Healthcheck": {k: health[k] for k in _HEALTHCHECK if k in health} if health else None,
        "HealthcheckOnFailureAction": str(health["OnFailure"]) if health else "",
        "HealthcheckMaxLogCount": health["MaxLogCount"] if health else 0,
        "HealthcheckMaxLogSize": health["MaxLogSize"] if health else 0,
        "Umask": f"{process.get('user', {}).get('umask', 0o022):04o}",
        "StopTimeout": kept.stop_timeout_s,
        "sdNotifyMode": kept.sdnotify,
        **_secrets(known),
        "ExposedPorts": {name: {} for name in inspect_host.port_bindings(kept)} or None,
        **_CONFIG_FIXED,
    }


def _secrets(known: Facts) -> dict[str, Any]:
    """Return the secrets as podman names them: which, never what."""
    if not known.found.record.secrets:
        return {}
    from rootlesspy.engine.inputs.request import SecretUse

    uses = [SecretUse(*each) for each in known.found.record.secrets]  # type: ignore[arg-type]
    return {
        "Secrets": [
            {"Name": use.name, "ID": use.id, "UID": use.uid, "GID": use.gid, "Mode": use.mode}
            for use in uses
        ]
    }


def _systemd(known: Facts) -> dict[str, str]:
    """Return the names by which systemd knows the container; rp's own section."""
    live = known.live
    return {
        "Scope": (live.unit if live else "") or known.found.record.unit,
        "Service": live.service if live else "",
    }


def _graph_driver(kept: ContainerRecord, directory: str) -> dict[str, Any]:
    kind, lower = str(kept.storage.get("kind", "")), kept.storage.get("lower")
    if kind in ("directory", "copy"):
        return {"Name": kind, "Data": {}}
    layers = [str(each) for each in lower] if isinstance(lower, list) else []
    return {
        "Name": kind,
        "Data": {
            "LowerDir": ":".join(reversed(layers)),
            "MergedDir": f"{directory}/rootfs",
            "UpperDir": f"{directory}/upper",
            "WorkDir": f"{directory}/work",
        },
    }


def _effective(kept: ContainerRecord, spec: dict[str, Any]) -> list[str]:
    """Return the capabilities that the payload starts with: another user than root has few."""
    capabilities = _process(spec).get("capabilities", {})
    is_root = kept.user.partition(":")[0] in ("", "0", "root")
    return sorted(capabilities.get("effective" if is_root else "ambient", []))


def _arguments(kept: ContainerRecord) -> list[str] | None:
    """Return the command without its entrypoint and the words of --init."""
    words = list(kept.command)
    if words[: len(_INIT_WORDS)] == _INIT_WORDS:
        words = words[len(_INIT_WORDS) :]
    if words[: len(kept.entrypoint)] == kept.entrypoint:
        words = words[len(kept.entrypoint) :]
    return words or None


def _process(spec: dict[str, Any]) -> dict[str, Any]:
    process = spec.get("process")
    return process if isinstance(process, dict) else {}


def _source(spec: dict[str, Any], destination: str) -> str:
    for each in spec.get("mounts", []):
        if each["destination"] == destination and each["type"] == "bind":
            return str(each["source"])
    return ""


def _below_mount(directory: str | None) -> str:
    from rootlesspy.systemd import cgroup

    mounted = cgroup.mount_point()
    return "" if directory is None or mounted is None else directory.removeprefix(mounted)


def _image_digest(paths: Paths, kept: ContainerRecord) -> str:
    from rootlesspy.image.store import Store

    if not kept.image_id:
        return ""
    try:
        return Store(paths).resolve(kept.image_id).digest
    except (Error, OSError):
        # Removed by force, or damaged: the container has layers of its own.
        return ""


def _signal_name(number: int) -> str:
    # Of two names for one the first is the usual one: SIGCHLD and SIGCLD, SIGIO and SIGPOLL.
    names = (name for name in sorted(dir(signal)) if name[:3] == "SIG" and name[3:4] != "_")
    return next((name for name in names if getattr(signal, name) == number), str(number))
