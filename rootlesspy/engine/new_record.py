"""What a new container's record says, from the request and the image's configuration."""

from __future__ import annotations

import time

from rootlesspy.engine import command, idmap, isolation, record
from rootlesspy.engine.inputs.request import DEFINITION, LABEL_AUTO_UPDATE, given
from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.engine.inputs.request import RunRequest, VolumeMount
    from rootlesspy.engine.record import ContainerRecord, Place
    from rootlesspy.engine.root import Root
    from rootlesspy.network.driver import Selection
    from rootlesspy.oci.image_spec import ContainerConfig
    from rootlesspy.paths import Paths


def of_request(
    request: RunRequest,
    root: Root,
    paths: Paths,
    place: Place,
    selection: Selection,
    volumes: tuple[VolumeMount, ...],
    storage_kind: str,
    made_by: str,
) -> ContainerRecord:
    """Return the record of a container that is to be made.

    volumes: as they are planned; made_by as ContainerRecord has it.  Raises UsageError, NotFound.
    """
    config = root.config
    stop_signal = request.stop_signal
    if stop_signal is None:
        stop_signal = _stop_signal(config.get("StopSignal"))
    log_driver, log_options = request.log_driver, request.log_options
    if request.detach or made_by == "create":
        log_driver, log_options = _configured_log(paths, log_driver, log_options)
    stored: dict[str, object] = {"kind": storage_kind, "lower": list(root.layers)}
    if request.rootfs is not None:
        stored["path"] = root.name
    return record.ContainerRecord(
        id=place.container_id,
        name=place.name,
        image=root.name,
        image_id=root.image_id,
        command=command.arguments(request, config),
        created_s=time.time(),
        labels=_labels(config.get("Labels") or {}, request),
        network=dict(selection.request._asdict()),
        ports=[list(mapping) for mapping in selection.ports],
        remove=request.remove,
        tty=request.tty,
        interactive=request.interactive,
        unit=isolation.unit(request, place.name),
        properties=list(request.properties),
        default_limits=isolation.default_limits(request),
        ignore_missing_limits=request.ignore_missing_limits,
        stop_signal=stop_signal,
        stop_timeout_s=isolation.stop_timeout_s(request),
        user=request.user or idmap.default_user(request.userns) or config.get("User", ""),
        group_add=list(request.group_add),
        make_cwd=request.workdir is None,
        storage=stored,
        anonymous_volumes=[each.source for each in volumes if each.kind == "anonymous"],
        userns=request.userns,
        id_maps=[[list(line) for line in lines] for lines in request.id_maps],
        entrypoint=command.entrypoint(request, config),
        restart=request.restart,
        health=_health(request, config),
        sdnotify=request.sdnotify,
        request=_given(request, paths),
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


def _given(request: RunRequest, paths: Paths) -> dict[str, object]:
    """Return what was asked: a pod by its name, and no host name that was taken over from it."""
    asked = given(request)
    if request.pod:
        from rootlesspy.engine.pods import store

        asked["pod"] = store.find(paths, request.pod).name
    if "uts" in dict(request.shares):
        asked.pop("hostname", None)
    return asked


def _labels(images: Mapping[str, str], request: RunRequest) -> dict[str, str]:
    """Add the user's labels to the image's, of which those that rp obeys are left out."""
    harmless = {
        key: value
        for key, value in images.items()
        if key != LABEL_AUTO_UPDATE and not key.startswith(f"{DEFINITION}.")
    }
    return {**harmless, **dict(request.labels)}


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


def _stop_signal(text: str | None) -> int:
    """Return the signal that the image names."""
    if not text:
        return signal.SIGTERM
    from rootlesspy.engine.inputs.values import parse_signal

    return parse_signal(text, "the image's StopSignal")


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
