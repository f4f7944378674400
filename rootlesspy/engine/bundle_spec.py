"""config.json of a new container: generated, checked, written.

Imported when systemd has been asked for the service of the container, which takes longer.
"""

from __future__ import annotations

import os
import resource

from rootlesspy.engine import seccomp_profile, spec_mounts, specgen, statefile
from rootlesspy.engine.supervision import tty
from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.oci import checks, validate

if TYPE_CHECKING:
    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.engine.root import Root
    from rootlesspy.engine.security.cdi_edits import Edits
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.oci.runtime_spec import LinuxSeccomp, Mount, Spec
    from rootlesspy.paths import Paths

_INIT_PROGRAMS = ("/usr/libexec/podman/catatonit", "/usr/bin/catatonit", "/usr/bin/tini-static")


def write(
    request: RunRequest,
    found: ContainerRecord,
    root: Root,
    paths: Paths,
    *,
    maps: IdMaps,
    volumes: tuple[Mount, ...],
    described: Edits | None,
) -> Spec:
    """Describe a container, and write that into its directory.

    described: what CDI files say of its devices.  Raises NotFound, UsageError, Unsupported,
    OSError.
    """
    spec = specgen.generate(
        request,
        root.config,
        container_id=found.id,
        maps=maps,
        volumes=volumes,
        files=_files(request, found, paths),
        caller=caller(request),
        seccomp=seccomp(request),
    )
    if request.annotations:
        spec["annotations"] = dict(request.annotations)
    _add_hooks(spec, request, paths)
    if described is not None:
        from rootlesspy.engine.security import cdi_edits

        cdi_edits.apply(spec, described)
    _validate(spec)
    _write(f"{paths.container(found.id)}/config.json", spec, durable=not found.remove)
    return spec


def caller(request: RunRequest) -> specgen.Caller:
    """Return the facts about this process that a spec depends on."""
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


def seccomp(request: RunRequest) -> LinuxSeccomp | None:
    """Return the seccomp section of a container.  Raises NotFound, UsageError, Unsupported."""
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


def _files(request: RunRequest, found: ContainerRecord, paths: Paths) -> spec_mounts.Files:
    """Name the files of engine.supervision.etc_files, which every start writes."""
    directory = paths.container_runtime(found.id)
    return spec_mounts.Files(
        hosts=f"{directory}/hosts",
        resolv_conf="" if request.dns == ("none",) else f"{directory}/resolv.conf",
        hostname=f"{directory}/hostname",
        init=_init_program() if request.init else "",
        notify=f"{directory}/notify" if request.sdnotify == "container" else "",
        mqueue=request.ipc != "host" or os.path.ismount("/dev/mqueue"),
    )


def _init_program() -> str:
    for path in _INIT_PROGRAMS:
        if os.access(path, os.X_OK):
            return path
    raise Unsupported(
        "--init: no static init program is installed", hint="as root: apt-get install catatonit"
    )


def _add_hooks(spec: Spec, request: RunRequest, paths: Paths) -> None:
    """Choose the hooks of a container for all its runs.  Raises UsageError."""
    if request.hooks_dirs or paths.names_hooks(os.environ):
        from rootlesspy.engine.inputs import hooks_dir

        hooks_dir.add(spec, request, paths)


def _validate(spec: Spec) -> None:
    try:
        validate.validate(spec)
    except checks.SpecError as error:
        raise UsageError(f"the container cannot be described: {error}") from error


def _write(path: str, spec: Spec, *, durable: bool) -> None:
    """Write config.json whole or not at all: without it the container is half-made."""
    temporary = f"{path}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb", buffering=0) as file:
        view = memoryview(json.dumps(spec, separators=(",", ":")).encode())
        while view:
            view = view[file.write(view) :]
        if durable:
            os.fsync(fd)
    os.rename(temporary, path)
    if durable:
        # The name of record.json, too.
        statefile.sync_directory(os.path.dirname(path))
