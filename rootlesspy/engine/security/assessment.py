"""Gather what `rp security` judges: of a container as it runs or would run, of an image by default.

The spec is what counts, as it is what would be carried out; of a running container the kernel's own
words about its first process replace what the spec says.
"""

from __future__ import annotations

import os
import stat

from rootlesspy.engine import bundle_spec, idmap, lifecycle, limits, spec_mounts, specgen
from rootlesspy.engine.inputs.request import RunRequest
from rootlesspy.engine.security.exposed_paths import Bind
from rootlesspy.engine.security.findings import Facts, Finding, Port, judge, level, score
from rootlesspy.engine.supervision import job
from rootlesspy.errors import Error, NotFound
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple
from rootlesspy.network.ports import PortMapping
from rootlesspy.runtime import caps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rootlesspy.engine.record import Container, ContainerRecord
    from rootlesspy.paths import Paths

_OWN_NAMESPACES = ("pid", "ipc", "uts", "cgroup")
_DEFAULT = RunRequest(image="")


class Assessment(NamedTuple):
    """What is to be said of one container or image."""

    name: str
    kind: str
    """container or image."""
    state: str
    """running, exited…; of an image empty."""
    findings: tuple[Finding, ...]
    score: float
    level: str


def assess(paths: Paths, text: str) -> Assessment:
    """Judge the container of this name, or else the image.  Raises NotFound, Error."""
    try:
        found = lifecycle.get(paths, text)
    except NotFound:
        return _image(paths, text)
    return of_container(paths, found)


def of_container(paths: Paths, found: Container) -> Assessment:
    """Judge a container.  Raises Error."""
    kept = found.record
    try:
        spec: Any = job.load_spec(paths.container(kept.id))
    except (OSError, ValueError) as error:
        raise Error(f"container {kept.name} is damaged: {error}") from error
    facts = _facts(spec, paths, kept)
    if found.state == "running":
        facts = _as_it_runs(facts, found.pid)
    return _made(kept.name, "container", found.state, facts)


def _image(paths: Paths, text: str) -> Assessment:
    from rootlesspy.image.store import Store

    try:
        image = Store(paths).resolve(text)
    except NotFound as error:
        raise NotFound(
            f"{text!r} is neither a container nor an image", hint="rp ps -a, rp images"
        ) from error
    request = _DEFAULT._replace(image=text)
    config = image.config.get("config", {})
    config = {**config, "Cmd": config.get("Cmd") or config.get("Entrypoint") or ["sh"]}
    spec: Any = specgen.generate(
        request,
        config,
        container_id="0" * 64,
        maps=idmap.maps_for(request.userns),
        volumes=(),
        files=spec_mounts.Files(hosts="", resolv_conf="", hostname="", init=""),
        caller=bundle_spec.caller(request),
        seccomp=bundle_spec.seccomp(request),
    )
    facts = _facts(spec, paths, None, user=config.get("User", ""))
    return _made(image.names[0] if image.names else text, "image", "", facts)


def _made(name: str, kind: str, state: str, facts: Facts) -> Assessment:
    found = judge(facts)
    points = score(found)
    return Assessment(name, kind, state, tuple(found), points, level(points))


def _facts(
    spec: Mapping[str, Any], paths: Paths, kept: ContainerRecord | None, user: str = ""
) -> Facts:
    linux, process = spec["linux"], spec["process"]
    user = user if kept is None else kept.user
    is_root = user.partition(":")[0] in ("", "0", "root")
    sets = process.get("capabilities", {})
    request: Mapping[str, Any] = {} if kept is None else kept.request
    shares = {} if kept is None else dict(kept.shares)
    return Facts(
        capabilities=frozenset(sets.get("permitted" if is_root else "ambient", ())),
        bounding=frozenset(sets.get("bounding", ())),
        seccomp=_seccomp(linux.get("seccomp"), request),
        no_new_privileges=bool(process.get("noNewPrivileges")),
        unmasked=_unmasked(linux),
        user=user or "root",
        is_root=is_root,
        maps_caller=_maps(linux.get("uidMappings", ()), os.getuid()),
        mounts=_binds(spec, paths),
        devices=_devices(spec),
        network=_network(kept, shares),
        ports=() if kept is None else _ports(kept),
        shared=_shared(linux, shares),
        read_only=bool(spec["root"].get("readonly")),
        limits=_limits(linux.get("resources", {}), kept),
        enforced=limits.host().delegated if kept is None or kept.unit else frozenset(),
        environment=tuple(each.partition("=")[0] for each in process.get("env", ())),
        landlock=tuple(request.get("landlock", ())),
    )


def _as_it_runs(facts: Facts, pid: int) -> Facts:
    """Put in place of what was asked for what the kernel says of the first process."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        with open(f"/proc/{pid}/uid_map", encoding="ascii") as file:
            ranges = [[int(word) for word in line.split()] for line in file]
    except (OSError, ValueError):
        # It has just ended.
        return facts
    uid = int(status["Uid"].split()[1])
    inside = [first + uid - start for first, start, size in ranges if start <= uid < start + size]
    is_root = inside == [0]
    return facts._replace(
        capabilities=_names(int(status["CapPrm"], 16)),
        bounding=_names(int(status["CapBnd"], 16)),
        seccomp=facts.seccomp if status.get("Seccomp") == "2" else "none",
        no_new_privileges=status.get("NoNewPrivs") == "1",
        is_root=is_root,
        user=facts.user if not is_root else "root",
        maps_caller=any(start <= os.getuid() < start + size for _, start, size in ranges),
    )


def _names(mask: int) -> frozenset[str]:
    return frozenset(name for name, number in caps.NUMBERS.items() if mask >> number & 1)


def _seccomp(section: Mapping[str, Any] | None, request: Mapping[str, Any]) -> str:
    if section is None:
        return "none"
    if section.get("defaultAction") in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"):
        return "permissive"
    chosen = [each for each in request.get("security_opts", ()) if each.startswith("seccomp=")]
    return "custom" if chosen else "default"


def _limits(wanted: Mapping[str, Any], kept: ContainerRecord | None) -> frozenset[str]:
    given = set() if kept is None else {each.partition("=")[0] for each in kept.properties}
    asked = {
        "memory": bool(wanted.get("memory", {}).get("limit")) or "MemoryMax" in given,
        "pids": wanted.get("pids", {}).get("limit", 0) > 0 or "TasksMax" in given,
        "cpu": bool(wanted.get("cpu", {}).get("quota")) or "CPUQuota" in given,
    }
    return frozenset(name for name, is_set in asked.items() if is_set)


def _unmasked(linux: Mapping[str, Any]) -> tuple[str, ...]:
    normal = specgen.parse_security_opts(_DEFAULT)
    masked, read_only = linux.get("maskedPaths", ()), linux.get("readonlyPaths", ())
    return (
        *(path for path in normal.masked if path not in masked),
        *(path for path in normal.read_only if path not in read_only),
    )


def _maps(mappings: Sequence[Mapping[str, int]], uid: int) -> bool:
    return any(each["hostID"] <= uid < each["hostID"] + each["size"] for each in mappings)


def _binds(spec: Mapping[str, Any], paths: Paths) -> tuple[Bind, ...]:
    """Return what of the host is mounted, but what rp itself puts there."""
    own = (f"{paths.runtime}/", "/usr/libexec/podman/catatonit", "/usr/bin/catatonit")
    volumes = f"{paths.data}/volumes/"
    runtime = os.path.dirname(paths.runtime or f"/run/user/{os.getuid()}/rootlesspy")
    found = []
    for each in spec.get("mounts", ()):
        source = each.get("source", "")
        kind = _mode(source)
        # /sys of the host's network namespace is the kernel's own.
        if not _is_bind(each) or source.startswith(own) or source == "/sys" or _is_device(kind):
            continue
        found.append(
            Bind(
                source=source,
                target=each["destination"],
                read_only=bool({"ro", "rro"} & set(each.get("options", ()))),
                is_socket=stat.S_ISSOCK(kind),
                is_volume=source.startswith(volumes),
                home=os.path.expanduser("~"),
                runtime=runtime,
            )
        )
    return tuple(found)


def _devices(spec: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        each["source"]
        for each in spec.get("mounts", ())
        if _is_bind(each) and _is_device(_mode(each["source"]))
    )


def _is_bind(entry: Mapping[str, Any]) -> bool:
    return entry.get("type") == "bind" or bool({"bind", "rbind"} & set(entry.get("options", ())))


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0


def _is_device(mode: int) -> bool:
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _network(kept: ContainerRecord | None, shares: Mapping[str, str]) -> str:
    if "network" in shares:
        return shares["network"]
    driver = _DEFAULT.network.driver if kept is None else kept.network.get("driver", "")
    return str(driver)


def _shared(linux: Mapping[str, Any], shares: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    own = {each["type"] for each in linux.get("namespaces", ())}
    host = [(kind, "host") for kind in _OWN_NAMESPACES if kind not in own and kind not in shares]
    return (*host, *((kind, owner) for kind, owner in shares.items() if kind in _OWN_NAMESPACES))


def _ports(kept: ContainerRecord) -> tuple[Port, ...]:
    published = [PortMapping(*each) for each in kept.ports]  # type: ignore[arg-type]  # as _asdict
    return tuple(Port(each.host_ip, each.host_port) for each in published)
