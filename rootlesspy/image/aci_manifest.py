"""The manifest of an App Container Image, checked strictly, as an OCI configuration.

What OCI has no word for is kept in labels (io.appc.…) and told in notices: with the options of
`rp run` that do the same where there are any.  No I/O.

Source: the App Container specification 0.8.11, spec/aci.md, spec/ace.md, spec/types.md.
"""

from __future__ import annotations

import json
import re

from rootlesspy.errors import ImageError, UsageError
from rootlesspy.image import aci_isolators
from rootlesspy.image.reference import parse_local
from rootlesspy.image.store import parse_time
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Callable

_IDENTIFIER = re.compile(r"[a-z0-9]+([-._~/][a-z0-9]+)*")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)([-+][0-9A-Za-z.+-]+)?", re.ASCII)
_ARCHITECTURES = {
    "amd64": "amd64",
    "i386": "386",
    "aarch64": "arm64",
    "armv6l": "arm/v6",
    "armv7l": "arm/v7",
    "ppc64": "ppc64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
}
_TOP = ("acKind", "acVersion", "name", "labels", "app", "dependencies", "pathWhitelist",
        "annotations")  # fmt: skip
_APP = ("exec", "user", "group", "supplementaryGIDs", "eventHandlers", "workingDirectory",
        "environment", "isolators", "mountPoints", "ports", "userAnnotations",
        "userLabels")  # fmt: skip
_ANNOTATIONS = {
    "authors": "org.opencontainers.image.authors",
    "created": "org.opencontainers.image.created",
    "documentation": "org.opencontainers.image.documentation",
    "homepage": "org.opencontainers.image.url",
}
_PROTOCOLS = ("tcp", "udp", "sctp")
_MAX_PORTS = 65535


class AciManifest(NamedTuple):
    """What an image is called, where it runs, and what `rp run` is to know of it."""

    name: str
    platform: str | None
    """os/architecture[/variant], None for any."""
    config: dict[str, Any]
    user: str
    group: str
    created: str
    author: str
    whitelist: tuple[str, ...]
    notices: tuple[str, ...]


def parse(data: bytes) -> AciManifest:
    """Read a manifest.  Raises ImageError for one that is malformed or asks for other images."""
    try:
        return _Reader(image_spec.parse_document(data, "the ACI manifest")).read()
    except image_spec.MalformedError as error:
        raise ImageError(f"not an App Container Image: {error}") from error


class _Reader:
    """Reads one manifest; gathers what there is to tell."""

    def __init__(self, document: dict[str, object]) -> None:
        self._document = document
        self._notices: list[str] = []
        self._labels: dict[str, str] = {}

    def read(self) -> AciManifest:
        document = self._document
        if document.get("acKind") != "ImageManifest":
            raise _bad(f"acKind is {document.get('acKind')!r}, not ImageManifest")
        if not _VERSION.fullmatch(_string(document, "acVersion", "manifest")):
            raise _bad(f"acVersion {document['acVersion']!r} is not a version")
        name = _identifier(document.get("name"), "name")
        labels = _pairs(document, "labels", _identifier)
        if "name" in labels:
            raise _bad("labels: a label cannot be called name")
        annotations = _pairs(document, "annotations", _identifier)
        self._refuse_dependencies()
        self._unknown(document, _TOP, "")
        if "created" in annotations and parse_time(annotations["created"]) == 0:
            raise _bad(f"annotations: created {annotations['created']!r} is not a time")
        self._labels["io.appc.name"] = name
        self._labels.update({f"io.appc.label.{key}": value for key, value in labels.items()})
        if "version" in labels:
            self._labels["org.opencontainers.image.version"] = labels["version"]
        for key, value in annotations.items():
            self._labels[_ANNOTATIONS.get(key, f"io.appc.annotation.{key}")] = value
        app = document.get("app")
        config = self._app(_object(app, "app"), name) if app is not None else {}
        config["Labels"] = dict(sorted(self._labels.items()))
        return AciManifest(
            name=_reference(name, labels.get("version", "")),
            platform=_platform(labels),
            config=config,
            user=str(app["user"]) if isinstance(app, dict) else "",
            group=str(app["group"]) if isinstance(app, dict) else "",
            created=annotations.get("created", ""),
            author=annotations.get("authors", ""),
            whitelist=_whitelist(document),
            notices=tuple(self._notices),
        )

    def _refuse_dependencies(self) -> None:
        found = _list(self._document, "dependencies", "manifest")
        names = [
            _identifier(_object(each, "dependencies").get("imageName"), "dependencies: imageName")
            for each in found
        ]
        if names:
            raise ImageError(
                f"this image stands on others, which rp does not fetch: {', '.join(names)}",
                hint="render it to one image first (rkt image render), then rp import",
            )

    def _app(self, app: dict[str, object], name: str) -> dict[str, Any]:
        self._unknown(app, _APP, "app: ")
        command = _strings(app.get("exec"), "app: exec")
        if not command or not command[0].startswith("/"):
            raise _bad("app: exec does not begin with an absolute path")
        for member in ("user", "group"):
            if not _string(app, member, "app"):
                raise _bad(f"app: {member} is empty")
        directory = app.get("workingDirectory", "/")
        if not isinstance(directory, str) or not directory.startswith("/"):
            raise _bad("app: workingDirectory is not an absolute path")
        config: dict[str, Any] = {
            "Entrypoint": command,
            "Env": self._environment(app, name),
            "WorkingDir": directory,
        }
        volumes, ports = self._mount_points(app), self._ports(app)
        if volumes:
            config["Volumes"] = volumes
        if ports:
            config["ExposedPorts"] = ports
        self._event_handlers(app)
        self._groups(app)
        for member, prefix in (("userAnnotations", "annotation"), ("userLabels", "label")):
            for key, value in _object(app.get(member) or {}, f"app: {member}").items():
                if not isinstance(value, str):
                    raise _bad(f"app: {member}: {key} is not a string")
                self._labels[f"io.appc.{prefix}.{key}"] = value
        self._isolators(app)
        return config

    def _environment(self, app: dict[str, object], name: str) -> list[str]:
        found = _pairs(app, "environment", _variable)
        # The specification has the executor set it.
        return [f"{key}={value}" for key, value in {"AC_APP_NAME": name, **found}.items()]

    def _mount_points(self, app: dict[str, object]) -> dict[str, object]:
        paths: dict[str, object] = {}
        points = _list(app, "mountPoints", "app")
        names = set()
        for each in points:
            point = _object(each, "mountPoints")
            name = _name(point.get("name"), "mountPoints: name")
            path = point.get("path")
            if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/"):
                raise _bad(f"mountPoints: {name} has no absolute path")
            if name in names:
                raise _bad(f"mountPoints: {name} stands there twice")
            names.add(name)
            paths[path] = {}
            if _flag(point, "readOnly", "mountPoints"):
                self._notices.append(
                    f"mount point {name} is meant to be read-only: rp run -v SOURCE:{path}:ro"
                )
        if points:
            self._labels["io.appc.mountPoints"] = _compact(points)
        return paths

    def _ports(self, app: dict[str, object]) -> dict[str, object]:
        exposed: dict[str, object] = {}
        ports = _list(app, "ports", "app")
        names = set()
        for each in ports:
            port = _object(each, "ports")
            name = _name(port.get("name"), "ports: name")
            protocol = port.get("protocol")
            number, count = _port(port.get("port")), _port(port.get("count", 1))
            if name in names:
                raise _bad(f"ports: {name} stands there twice")
            names.add(name)
            if protocol not in _PROTOCOLS:
                raise _bad(f"ports: {name} has the protocol {protocol!r}, not tcp, udp or sctp")
            if not number or not count or number + count - 1 > _MAX_PORTS:
                raise _bad(f"ports: {name} is not a port from 1 to {_MAX_PORTS}, or a range of it")
            exposed.update({f"{number + offset}/{protocol}": {} for offset in range(count)})
            if _flag(port, "socketActivated", "ports"):
                self._notices.append(
                    f"port {name} wants socket activation, which is not set up by itself"
                )
        if ports:
            self._labels["io.appc.ports"] = _compact(ports)
        return exposed

    def _event_handlers(self, app: dict[str, object]) -> None:
        handlers = _list(app, "eventHandlers", "app")
        names = set()
        for each in handlers:
            handler = _object(each, "eventHandlers")
            name = handler.get("name")
            if name not in ("pre-start", "post-stop") or name in names:
                raise _bad(f"eventHandlers: {name!r} is not pre-start or post-stop, each once")
            names.add(name)
            command = _strings(handler.get("exec"), "eventHandlers: exec")
            if not command:
                raise _bad(f"eventHandlers: {name} has no command")
            self._notices.append(f"event handler {name} is not run: {' '.join(command)}")
        if handlers:
            self._labels["io.appc.eventHandlers"] = _compact(handlers)

    def _groups(self, app: dict[str, object]) -> None:
        groups = _list(app, "supplementaryGIDs", "app")
        if not all(isinstance(each, int) and not isinstance(each, bool) for each in groups):
            raise _bad("app: supplementaryGIDs holds something else than numbers")
        if groups:
            options = " ".join(f"--group-add={each}" for each in groups)
            self._notices.append(f"supplementary groups are not applied: rp run {options}")

    def _isolators(self, app: dict[str, object]) -> None:
        found: list[tuple[str, object]] = []
        for each in _list(app, "isolators", "app"):
            isolator = _object(each, "isolators")
            name = _identifier(isolator.get("name"), "isolators: name")
            if "value" not in isolator:
                raise _bad(f"isolators: {name} has no value")
            found.append((name, isolator["value"]))
            self._labels[f"io.appc.isolator.{name}"] = _compact(isolator["value"])
        try:
            self._notices += aci_isolators.notices(found)
        except ValueError as error:
            raise _bad(f"isolators: {error}") from error

    def _unknown(self, members: dict[str, object], known: tuple[str, ...], where: str) -> None:
        unknown = sorted(set(members) - set(known))
        self._notices += [f"{where}{each} is not known and has no effect" for each in unknown]


def _whitelist(document: dict[str, object]) -> tuple[str, ...]:
    paths = _strings(document.get("pathWhitelist") or [], "pathWhitelist")
    for path in paths:
        if not path.startswith("/") or ".." in path.split("/"):
            raise _bad(f"pathWhitelist: {path!r} is not an absolute path")
    return tuple(paths)


def _platform(labels: dict[str, str]) -> str | None:
    system, architecture = labels.get("os"), labels.get("arch")
    if system not in (None, "linux"):
        raise ImageError(f"this image is made for {system}, not for linux")
    if architecture is None:
        return None
    if architecture not in _ARCHITECTURES:
        raise _bad(f"labels: arch {architecture!r} is none of {', '.join(_ARCHITECTURES)}")
    return f"linux/{_ARCHITECTURES[architecture]}"


def _reference(name: str, version: str) -> str:
    """Return the name in OCI's grammar, which has no "~" and no "+"."""
    tag = re.sub(r"[^A-Za-z0-9_.-]", "-", version).lstrip(".-")[:128]
    try:
        return str(parse_local(f"{name.replace('~', '-')}:{tag or 'latest'}".replace("/-", "/")))
    except UsageError as error:
        raise _bad(f"name: {error.message}") from error


def _pairs(
    members: dict[str, object], member: str, check: Callable[[object, str], str]
) -> dict[str, str]:
    """Return a list of objects with name and value; each name stands there once."""
    found: dict[str, str] = {}
    for each in _list(members, member, "manifest"):
        pair = _object(each, member)
        name, value = check(pair.get("name"), f"{member}: name"), pair.get("value")
        if not isinstance(value, str):
            raise _bad(f"{member}: {name} has no text as value")
        if name in found:
            raise _bad(f"{member}: {name} stands there twice")
        found[name] = value
    return found


def _identifier(value: object, where: str) -> str:
    return _matching(value, _IDENTIFIER, where)


def _name(value: object, where: str) -> str:
    return _matching(value, _NAME, where)


def _variable(value: object, where: str) -> str:
    return _matching(value, _VARIABLE, where)


def _matching(value: object, pattern: re.Pattern[str], where: str) -> str:
    if not isinstance(value, str) or len(value) > 255 or not pattern.fullmatch(value):
        raise _bad(f"{where}: {value!r} is not a name")
    return value


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _bad(f"{where} holds something else than an object")
    return value


def _list(members: dict[str, object], member: str, where: str) -> list[object]:
    value = members.get(member)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _bad(f"{where}: {member} is not a list")
    return value


def _strings(value: object, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _bad(f"{where} is not a list of strings")
    return list(value)


def _string(members: dict[str, object], member: str, where: str) -> str:
    value = members.get(member)
    if not isinstance(value, str):
        raise _bad(f"{where}: {member} is not a string")
    return value


def _flag(members: dict[str, object], member: str, where: str) -> bool:
    value = members.get(member, False)
    if not isinstance(value, bool):
        raise _bad(f"{where}: {member} is neither true nor false")
    return value


def _port(value: object) -> int:
    """Return a number from 1 to 65535, 0 for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_PORTS:
        return 0
    return value


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _bad(what: str) -> ImageError:
    return ImageError(f"not a valid App Container Image: {what}")
