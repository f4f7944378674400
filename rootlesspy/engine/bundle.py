"""Make a container on disk: record, writable layer, /etc files and config.json.

Everything that was asked for is decided here for good: whoever starts the container reads only what
is written here.
"""

from __future__ import annotations

import json
import os
import resource
import time
from typing import TYPE_CHECKING, NamedTuple

from rootlesspy.engine import (
    idmap,
    names,
    record,
    reservation,
    seccomp_profile,
    spec_mounts,
    specgen,
    storage,
    storage_driver,
)
from rootlesspy.engine.inputs import values
from rootlesspy.engine.inputs.request import given
from rootlesspy.engine.supervision import tty
from rootlesspy.errors import Conflict, Error, Unsupported, UsageError
from rootlesspy.oci import validate

if TYPE_CHECKING:
    from rootlesspy.engine.inputs.request import RunRequest, VolumeMount
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.engine.root import Root
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.network.driver import Selection
    from rootlesspy.oci.image_spec import ContainerConfig
    from rootlesspy.oci.runtime_spec import LinuxSeccomp, Mount, Spec
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

_STOP_TIMEOUT_S = 10
_INIT_PROGRAMS = ("/usr/libexec/podman/catatonit", "/usr/bin/catatonit", "/usr/bin/tini-static")


class Created(NamedTuple):
    """A container on disk; lock_fd holds it until the supervisor does."""

    record: ContainerRecord
    spec: Spec
    lock_fd: int


def create(
    request: RunRequest,
    root: Root,
    paths: Paths,
    maps: IdMaps,
    selection: Selection,
    reporter: Reporter,
    made_by: str = "run",
) -> Created:
    """Write the container's record, bundle and spec; made_by as ContainerRecord has it."""
    container_id = names.new_id()
    planned = _plan_volumes(request, root)
    kind = "directory" if request.rootfs else storage_driver.choose(paths, maps, reporter)
    found = _record(request, root, paths, container_id, selection, planned, kind, made_by)
    lock_fd = _reserve(paths, found)
    try:
        directory = paths.container(container_id)
        if kind == "copy":
            storage.copy_layers(directory, root.layers, maps)
        elif kind != "directory":
            storage.prepare_overlay(directory, root.layers)
        volumes = _volumes(planned, found, root, paths, maps)
        if request.secrets:
            from rootlesspy.engine.supervision import secret_files

            volumes += secret_files.mounts(request.secrets, paths.container_runtime(container_id))
        files = _files(request, found, paths)
        spec = specgen.generate(
            request,
            root.config,
            container_id=container_id,
            maps=maps,
            volumes=volumes,
            files=files,
            caller=_caller(request),
            seccomp=_seccomp(request),
        )
        _validate(spec)
        _write_spec(f"{directory}/config.json", spec)
        if found.shares or found.pod:
            from rootlesspy.engine.pods import sharing

            sharing.enlist(paths, found)
        if request.cidfile:
            _write_cidfile(request.cidfile, container_id)
    except BaseException:
        storage.remove(paths, found)
        os.close(lock_fd)
        raise
    return Created(found, spec, lock_fd)


def _reserve(paths: Paths, found: ContainerRecord) -> int:
    """Write the record and take the name; a name that only a killed command holds is freed."""
    try:
        return record.create(paths, found, durable=not found.remove)
    except Conflict:
        storage.sweep(paths)
        return record.create(paths, found, durable=not found.remove)


def _record(
    request: RunRequest,
    root: Root,
    paths: Paths,
    container_id: str,
    selection: Selection,
    volumes: tuple[VolumeMount, ...],
    storage_kind: str,
    made_by: str,
) -> ContainerRecord:
    config = root.config
    name = names.check_name(request.name) if request.name else reservation.free_name(paths)
    stop_signal = request.stop_signal
    if stop_signal is None:
        stop_signal = values.parse_signal(
            config.get("StopSignal") or "SIGTERM", "the image's StopSignal"
        )
    log_driver, log_options = request.log_driver, request.log_options
    if request.detach or made_by == "create":
        log_driver, log_options = _configured_log(paths, log_driver, log_options)
    stored: dict[str, object] = {"kind": storage_kind, "lower": list(root.layers)}
    if request.rootfs is not None:
        stored["path"] = root.name
    return record.ContainerRecord(
        id=container_id,
        name=name,
        image=root.name,
        image_id=root.image_id,
        command=specgen.arguments(request, config),
        created_s=time.time(),
        labels={**(config.get("Labels") or {}), **dict(request.labels)},
        network=dict(selection.request._asdict()),
        ports=[list(mapping) for mapping in selection.ports],
        remove=request.remove,
        tty=request.tty,
        interactive=request.interactive,
        unit=f"rp-{name}.scope" if request.cgroups == "enabled" else "",
        properties=list(request.properties),
        default_limits=["TasksMax"] if request.pids_limit is None else [],
        ignore_missing_limits=request.ignore_missing_limits,
        stop_signal=stop_signal,
        stop_timeout_s=(
            _STOP_TIMEOUT_S if request.stop_timeout_s is None else request.stop_timeout_s
        ),
        user=request.user or idmap.default_user(request.userns) or config.get("User", ""),
        group_add=list(request.group_add),
        make_cwd=request.workdir is None,
        storage=stored,
        anonymous_volumes=[each.source for each in volumes if each.kind == "anonymous"],
        userns=request.userns,
        entrypoint=specgen.entrypoint(request, config),
        restart=request.restart,
        health=_health(request, config),
        sdnotify=request.sdnotify,
        request=given(request),
        log_driver=log_driver,
        log_options=dict(log_options),
        resolver={
            "add_hosts": [list(pair) for pair in request.add_hosts],
            "dns": list(request.dns),
            "dns_search": list(request.dns_search),
            "dns_options": list(request.dns_options),
        },
        made_by=made_by,
        shares=dict(request.shares),
        pod=request.pod,
        secrets=_secrets(request, paths),
    )


def _secrets(request: RunRequest, paths: Paths) -> list[list[object]]:
    if not request.secrets:
        return []
    from rootlesspy.engine.supervision import secret_files

    return [list(use) for use in secret_files.resolve(paths, request.secrets)]


def _health(request: RunRequest, config: ContainerConfig) -> dict[str, object] | None:
    if request.health is None and not config.get("Healthcheck"):
        return None
    # Imported here: most containers have no health check.
    from rootlesspy.engine.inputs import health_values

    return health_values.resolve(request.health, config.get("Healthcheck"), config.get("Shell"))


def _configured_log(
    paths: Paths, driver: str, options: tuple[tuple[str, str], ...]
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Complete how output is kept by what containers.conf says.

    Not for attached containers: their output is the caller's.
    """
    from rootlesspy import settings

    found = settings.log_defaults(paths)
    if not found.path:
        return driver, options
    from rootlesspy.engine.output import log_values

    return log_values.configured(found, driver, options)


def _files(request: RunRequest, found: ContainerRecord, paths: Paths) -> spec_mounts.Files:
    """Name the files of engine.supervision.etc_files, which every start writes."""
    directory = paths.container_runtime(found.id)
    return spec_mounts.Files(
        hosts=f"{directory}/hosts",
        resolv_conf="" if request.dns == ("none",) else f"{directory}/resolv.conf",
        hostname=f"{directory}/hostname",
        init=_init_program() if request.init else "",
        notify=f"{directory}/notify" if request.sdnotify == "container" else "",
    )


def _init_program() -> str:
    for path in _INIT_PROGRAMS:
        if os.access(path, os.X_OK):
            return path
    raise Unsupported(
        "--init: no static init program is installed", hint="as root: apt-get install catatonit"
    )


def _caller(request: RunRequest) -> specgen.Caller:
    found = {
        name: resource.getrlimit(getattr(resource, name))
        for name in dir(resource)
        if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
    }
    return specgen.Caller(
        host_name=os.uname().nodename,
        rlimits=found,
        terminal_size=tty.size_of(0, 1) if request.tty else (0, 0),
    )


def _seccomp(request: RunRequest) -> LinuxSeccomp | None:
    chosen = specgen.parse_security_opts(request).seccomp
    if chosen == "unconfined":
        return None
    machine = os.uname()
    return seccomp_profile.resolve(
        seccomp_profile.load(chosen or None),
        frozenset(specgen.capability_names(request)),
        machine.machine,
        machine.release,
    )


def _validate(spec: Spec) -> None:
    try:
        validate.validate(spec)
    except validate.SpecError as error:
        raise UsageError(f"the container cannot be described: {error}") from error


def _write_spec(path: str, spec: Spec) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(spec, file, separators=(",", ":"))


def _write_cidfile(path: str, container_id: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError as error:
        raise Conflict(f"--cidfile {path} exists", hint=f"rm {path}") from error
    except OSError as error:
        raise Error(f"--cidfile {path}: {error.strerror}") from error
    os.write(fd, container_id.encode())
    os.close(fd)


def _plan_volumes(request: RunRequest, root: Root) -> tuple[VolumeMount, ...]:
    image_volumes = tuple(root.config.get("Volumes", ()))
    if not (request.volumes or image_volumes):
        return ()
    from rootlesspy.engine import volume

    occupied = tuple(each.target for each in request.tmpfs)
    return volume.plan(request.volumes, image_volumes, occupied)


def _volumes(
    planned: tuple[VolumeMount, ...],
    found: ContainerRecord,
    root: Root,
    paths: Paths,
    maps: IdMaps,
) -> tuple[Mount, ...]:
    if not planned:
        return ()
    from rootlesspy.engine import volume

    if found.storage["kind"] == "directory":
        layers: tuple[str, ...] = (root.name,)
    elif found.storage["kind"] == "copy":
        layers = (f"{paths.container(found.id)}/rootfs",)
    else:
        layers = root.layers
    return volume.prepare(
        planned, (), paths=paths, maps=maps, layers=layers, user=found.user
    ).mounts
