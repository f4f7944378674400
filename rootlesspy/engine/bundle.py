"""Make a container on disk: record, writable layer, /etc files and config.json.

Everything that was asked for is decided here for good: whoever starts the container reads only what
is written here.
"""

from __future__ import annotations

import os

from rootlesspy.engine import idmap, new_record, record, storage_driver
from rootlesspy.errors import Conflict, Error
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.inputs.request import RunRequest, VolumeMount
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.engine.root import Root
    from rootlesspy.engine.security.cdi_edits import Edits
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.network.driver import Selection
    from rootlesspy.oci.runtime_spec import Mount, Spec
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


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
    place: record.Place,
    made_by: str = "run",
    reserved: Callable[[ContainerRecord], None] | None = None,
) -> Created:
    """Write the container's record, bundle and spec; made_by as ContainerRecord has it.

    place: taken already, and given up when that fails.  reserved: told the record once nothing
    that may take long is left.
    """
    container_id, _, lock_fd = place
    try:
        described = _devices(request, paths, reporter)
        planned = _plan_volumes(request, root)
        _tell_of_the_manager(request.volumes, paths, reporter)
        kind = "directory" if request.rootfs else storage_driver.choose(paths, maps, reporter)
        found = new_record.of_request(
            request, root, paths, place, selection, planned, kind, made_by
        )
        if described is not None:
            found = found._replace(group_add=[*found.group_add, *map(str, described.groups)])
        # systemd does not wait for a service as long as a copy may take.
        slow = kind == "copy" or any(each.kind != "bind" for each in planned)
    except BaseException:
        record.give_up(paths, place)
        raise
    try:
        if reserved is not None and not slow:
            reserved(found)
        record.write(paths, found, durable=not found.remove)
        # Imported here: not needed to ask systemd, which has just been done.
        from rootlesspy.engine import bundle_spec, storage

        directory = paths.container(container_id)
        if kind == "copy":
            storage.copy_layers(directory, root.layers, maps)
        elif kind != "directory":
            storage.prepare_overlay(directory, root.layers)
            if idmap.leaves_caller_out(maps):
                storage.give_to_root(directory, kind, maps)
        volumes = _volumes(planned, found, root, paths, maps)
        if reserved is not None and slow:
            reserved(found)
        if request.secrets:
            from rootlesspy.engine.supervision import secret_files

            volumes += secret_files.mounts(request.secrets, paths.container_runtime(container_id))
        spec = bundle_spec.write(
            request, found, root, paths, maps=maps, volumes=volumes, described=described
        )
        if found.shares or found.pod:
            from rootlesspy.engine.pods import sharing

            sharing.enlist(paths, found)
        if request.cidfile:
            _write_cidfile(request.cidfile, container_id)
    except BaseException:
        from rootlesspy.engine import storage

        storage.remove(paths, found)
        os.close(lock_fd)
        raise
    return Created(found, spec, lock_fd)


def _devices(request: RunRequest, paths: Paths, reporter: Reporter) -> Edits | None:
    """Check the devices that are asked for; return what CDI files say of theirs."""
    if request.devices:
        from rootlesspy.engine.security import devices

        devices.check(request.devices, reporter)
    if not request.cdi_devices:
        return None
    from rootlesspy.engine.security import cdi, cdi_edits

    return cdi_edits.collect(cdi.find(request.cdi_devices, cdi.directories(paths)))


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


def _tell_of_the_manager(
    volumes: tuple[VolumeMount, ...], paths: Paths, reporter: Reporter
) -> None:
    """Say so when a volume holds the socket of the user's systemd or bus.

    Whoever speaks to one of them is the user, outside of every container.
    """
    # /run/user/UID
    runtime = os.path.dirname(paths.runtime or "")
    places = (runtime, f"{runtime}/bus", f"{runtime}/systemd", f"{runtime}/systemd/private")
    for each in volumes:
        if each.kind != "bind" or not runtime:
            continue
        source = os.path.realpath(each.source)
        if source in places or runtime.startswith(f"{source.rstrip('/')}/"):
            reporter.notice(
                f"volume {each.source} holds the socket of your user manager: the container can"
                " start programs outside of it, as you"
            )


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
