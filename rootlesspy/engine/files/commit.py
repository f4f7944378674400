"""`rp commit`: an image of what a container has written, above the image that it was made from.

    child: changed files ──▶ tar ──▶ pipe ──▶ image.writer

The layer is stored as it is: compressing it would take several times as long as all the rest, and
a push compresses what it sends.
The layer has owners as the container sees them, .wh. files for what was deleted, and nothing that a
start makes for its mounts.  Only when it is whole in the store does the image get its name.  With
pause the container is frozen meanwhile, by a child that thaws it whatever happens to this process.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

from rootlesspy.engine import lifecycle
from rootlesspy.engine.files import changes, container_root, diff, export
from rootlesspy.engine.files.tree_archive import TreeArchive
from rootlesspy.engine.images import image_change
from rootlesspy.engine.output import events
from rootlesspy.errors import Conflict, Error, ImageError, NotFound
from rootlesspy.image import children, layout, platforms, transfer
from rootlesspy.image.documents import Layer
from rootlesspy.image.reference import parse_local
from rootlesspy.image.store import Store
from rootlesspy.image.writer import Writer
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, NoReturn, cast
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.engine.files.container_root import Held
    from rootlesspy.engine.files.diff import Files
    from rootlesspy.image.progress import Progress
    from rootlesspy.image.store import Image
    from rootlesspy.oci.image_spec import ContainerConfig
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

# Set for every container, and no part of what it is.
_RUNTIME_ENV = ("container", "HOSTNAME", "TERM")


class Request(NamedTuple):
    """What was asked for."""

    name: str | None
    author: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    pause: bool = False
    squash: bool = False
    docker: bool = False


def commit(
    paths: Paths, container: str, request: Request, progress: Progress, reporter: Reporter
) -> Image:
    """Make an image of a container, running or not, and return it.

    Raises NotFound, Conflict, UsageError for a bad change or name, ImageError, Error.
    """
    names = () if request.name is None else (str(parse_local(request.name)),)
    held = container_root.hold(paths, container)
    try:
        base = _base(paths, held, needed=not request.squash)
        config = _config(held, None if base is None else base.config.get("config", {}))
        config = image_change.apply(config, request.changes)
        with Writer(paths, held.maps, reporter, progress) as writer:
            layers = [] if base is None or request.squash else _layers(paths, base)
            layers.append(_add_layer(paths, writer, held, request))
            if not held.exists():
                raise Conflict(f"container {container} was removed while it was committed")
            document = _document(held, base, config, request)
            image = writer.add_image(document, layers, names, docker=request.docker)
    finally:
        held.release()
    events.emit("commit", held.record, image=image.id)
    return image


def write_layer(files: Files, out_fd: int) -> int:
    """Write the changed files as a layer's tar stream; return how many sockets were left out.

    Runs as root of the container's user namespace.  Source: OCI image-spec, layer.md.
    """
    archive = TreeArchive(out_fd, whole_seconds=True)
    for change in diff.own_changes(files):
        head, slash, last = change.path.rpartition("/")
        if change.kind == changes.DELETED:
            # What an opaque directory hides needs no whiteouts of its own.
            if change.entry.dir_fd >= 0 or files.complete:
                archive.add_whiteout(f"{head}{slash}.wh.{last}", change.entry.status.st_mtime_ns)
            continue
        archive.add(change.entry, change.path)
        if change.opaque:
            name = f"{change.path}/.wh..wh..opq"
            archive.add_whiteout(name, change.entry.status.st_mtime_ns)
    archive.close()
    return archive.sockets


def _base(paths: Paths, held: Held, *, needed: bool) -> Image | None:
    """Return the image that the container was made from, None when it is gone and not needed."""
    if not needed and not held.record.image_id:
        return None
    if not held.record.image_id:
        raise Error(
            f"container {held.record.name} was not made from an image",
            hint="rp commit --squash makes one of all its files",
        )
    try:
        return Store(paths).resolve(held.record.image_id)
    except NotFound as error:
        if not needed:
            return None
        raise NotFound(
            f"the image of container {held.record.name} is not here any more",
            hint=f"rp pull {held.record.image}, or --squash",
        ) from error


def _layers(paths: Paths, base: Image) -> list[Layer]:
    manifest = image_spec.parse_manifest(layout.read_blob(paths, base.digest))
    return [
        Layer(descriptor, diff_id)
        for descriptor, diff_id in zip(manifest.layers, base.diff_ids, strict=True)
    ]


def _add_layer(paths: Paths, writer: Writer, held: Held, request: Request) -> Layer:
    """Store the container's changes, or with squash all its files, as a layer."""
    files = diff.files_of(held)
    if request.squash:

        def write(out_fd: int) -> int:
            return export.write(files.merged(), out_fd)
    else:

        def write(out_fd: int) -> int:
            return write_layer(files, out_fd)

    reader, out_fd = transfer.pipe()
    try:

        def body() -> None:
            os.close(reader)
            # Here, so that it goes on while the layer is still unpacked.
            frozen = _Frozen(paths, held) if request.pause and held.is_running() else None
            try:
                container_root.call_with_ids(held.maps, lambda: write(out_fd))
            finally:
                if frozen is not None:
                    frozen.thaw()

        child = children.fork(body)
        os.close(out_fd)
        try:
            layer = writer.add_layer(reader)
        except ImageError:
            # A stream that ended too early: what its writer says is the cause.
            children.wait(child)
            raise
        except BaseException:
            children.kill(child)
            raise
        children.wait(child)
        return layer
    finally:
        os.close(reader)


class _Frozen:
    """A container that is frozen until thaw(), or until this process has ended in any way."""

    def __init__(self, paths: Paths, held: Held) -> None:
        """Freeze it, unless it is paused already.  Raises Conflict, Unsupported."""
        reader, self._writer = os.pipe2(os.O_CLOEXEC)
        self._pid = 0
        # Paused: it stays as somebody else wanted it.
        if not lifecycle.is_paused(paths, lifecycle.get(paths, held.record.id)):
            self._pid = os.fork()
            if self._pid == 0:
                self._guard(paths, held, reader)
            try:
                lifecycle.pause(paths, held.record.id)
            except BaseException:
                self.thaw()
                raise
        os.close(reader)

    def thaw(self) -> None:
        """Let the container go on, and wait until it does."""
        os.close(self._writer)
        if self._pid:
            os.waitpid(self._pid, 0)

    def _guard(self, paths: Paths, held: Held, reader: int) -> NoReturn:
        """Wait in a child for the end of the pipe, then thaw."""
        try:
            os.close(self._writer)
            # Not to be interrupted with its parent.
            os.setsid()
            os.read(reader, 1)
            lifecycle.unpause(paths, held.record.id)
        finally:
            os._exit(0)


def _config(held: Held, base: ContainerConfig | None) -> ContainerConfig:
    """Return how to run the image: as the container was run."""
    record = held.record
    spec = container_root.read_spec(held.directory)
    process = cast("dict[str, object]", spec.get("process") or {})
    config: ContainerConfig = {**base} if base is not None else {}
    kept = {each.partition("=")[0] for each in config.get("Env", ())}
    env = [
        entry
        for entry in cast("Sequence[str]", process.get("env") or ())
        if entry.partition("=")[0] in kept or entry.partition("=")[0] not in _RUNTIME_ENV
    ]
    command = list(record.command)
    if command[:2] == ["/run/rp-init", "--"]:
        command = command[2:]
    entrypoint = list(record.entrypoint)
    if command[: len(entrypoint)] == entrypoint:
        command = command[len(entrypoint) :]
    config.update({"Env": env, "Cmd": command, "WorkingDir": str(process.get("cwd") or "/")})
    for member, value in (("Entrypoint", entrypoint), ("Labels", dict(record.labels))):
        if value:
            config[member] = value  # type: ignore[literal-required]  # the two above
        else:
            config.pop(member, None)  # type: ignore[misc]  # as above
    if record.user:
        config["User"] = record.user
    exposed = dict(config.get("ExposedPorts", {}))
    exposed.update({f"{each[2]}/{each[3]}": {} for each in record.ports})
    if exposed:
        config["ExposedPorts"] = exposed
    return config


def _document(
    held: Held, base: Image | None, config: ContainerConfig, request: Request
) -> dict[str, object]:
    created = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    history: dict[str, object] = {
        "created": created,
        "created_by": " ".join(held.record.command),
        "comment": request.message,
        "author": request.author,
    }
    old: dict[str, object] = {}
    if base is not None:
        old = dict(cast("dict[str, object]", base.config))
    else:
        system, _, architecture = platforms.host().partition("/")
        architecture, _, variant = architecture.partition("/")
        old = {"architecture": architecture, "os": system}
        if variant:
            old["variant"] = variant
    # History is that of the layers.
    before = None if request.squash else old.get("history")
    document = {
        **old,
        "created": created,
        "config": dict(config),
        "history": [
            *(before if isinstance(before, list) else ()),
            {key: value for key, value in history.items() if value},
        ],
    }
    if request.author:
        document["author"] = request.author
    if request.docker and request.message:
        document["comment"] = request.message
    return document
