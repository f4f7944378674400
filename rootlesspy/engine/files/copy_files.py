"""`rp cp`: files between a container and the host, two containers, or a tar stream.

    sender: resolves the source, writes what it is and a tar stream ──▶ pipe ──▶ receiver: resolves
    the destination, decides on the name, makes the files

Each half runs in a child of its own: in the container (container_root) or as the caller on the
host.  The rules are podman's (podman-cp(1)): a source that is a link means what it points to; a
directory goes into one that exists and becomes one that does not; SOURCE/. means its content.
Nothing is frozen: a file that changes while it is copied is copied as it was read.
"""

from __future__ import annotations

import os

from rootlesspy.engine.files import container_root, copy_place, extract
from rootlesspy.errors import Conflict, Error, ImageError
from rootlesspy.image import children, transfer
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.files.container_root import Held
    from rootlesspy.engine.files.copy_place import Place
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.paths import Paths

_CHUNK = 1 << 18
_ROOT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Options(NamedTuple):
    """What was asked for."""

    archive: bool = False
    """Keep owners, as the container sees them."""
    overwrite: bool = False


class _Half(NamedTuple):
    """One side of the copy: where its child runs and on what."""

    place: Place
    held: Held | None
    maps: IdMaps | None
    """The ids with which files of the host are touched; None: as the caller."""


def copy(paths: Paths, source: Place, target: Place, options: Options) -> int:
    """Copy; return how many device nodes were left out, which nobody but the host's root can make.

    Raises NotFound, Conflict, ImageError for a bad archive, Error.
    """
    holds: dict[str, Held] = {}
    try:
        for place in (source, target):
            if place.container is not None:
                held = container_root.hold(paths, place.container, tuple(holds.values()))
                holds[place.container] = held
        maps = next(iter(holds.values())).maps if options.archive else None
        first, second = (_half(place, holds, maps) for place in (source, target))
        _refuse_into_itself(first, second)
        return _copy(first, second, options)
    finally:
        for held in {each.record.id: each for each in holds.values()}.values():
            held.release()


def _half(place: Place, holds: dict[str, Held], maps: IdMaps | None) -> _Half:
    if place.container is None:
        path = place.path if place.is_stream() else os.path.join(os.getcwd(), place.path)
        return _Half(place._replace(path=path, typed=place.path), None, maps)
    held = holds[place.container]
    path = os.path.join(container_root.working_directory(held), place.path)
    return _Half(place._replace(path=path, typed=place.path), held, None)


def _refuse_into_itself(source: _Half, target: _Half) -> None:
    """Refuse what would never end, as far as names tell it."""
    if source.held is None or source.held != target.held:
        return
    inner, outer = (os.path.normpath(half.place.path) for half in (target, source))
    if f"{inner}/".startswith(f"{outer.rstrip('/')}/"):
        raise Conflict(f"cannot copy {source.place.typed!r} into itself")


def _copy(source: _Half, target: _Half, options: Options) -> int:
    """Run both halves beside each other; the first cause of a failure is what is raised."""

    def send(root_fd: int, out_fd: int) -> object:
        return copy_place.send(root_fd, source.place, out_fd, named=target.place.is_stream())

    def receive(root_fd: int, in_fd: int) -> object:
        wanted = extract.Options(
            top=b"",
            overwrite=options.overwrite,
            keep_owners=options.archive and not _has_one_id(source, target),
            to_host=target.held is None,
        )
        return copy_place.receive(
            root_fd, target.place, in_fd, wanted, archive=source.place.is_stream()
        )

    if source.held is not None and target.held == source.held and not source.held.is_running():
        # One mount of its files for both halves.
        held = source.held
        devices = container_root.call(held, lambda root_fd: _both(root_fd, send, receive))
    else:
        devices = _pipe_between(
            lambda out_fd: _send_from(source, target, out_fd, send),
            lambda in_fd: _receive_at(source, target, in_fd, receive),
        )
    return int(str(devices))


def _both(
    root_fd: int, send: Callable[[int, int], object], receive: Callable[[int, int], object]
) -> object:
    return _pipe_between(lambda out_fd: send(root_fd, out_fd), lambda fd: receive(root_fd, fd))


def _send_from(
    source: _Half, target: _Half, out_fd: int, send: Callable[[int, int], object]
) -> object:
    if source.place.is_stream():
        _decompress(0, out_fd)
        return 0
    if target.place.is_stream():
        # Straight to where it is wanted.
        os.close(out_fd)
        out_fd = 1
    return _run(source, lambda root_fd: send(root_fd, out_fd))


def _receive_at(
    source: _Half, target: _Half, in_fd: int, receive: Callable[[int, int], object]
) -> object:
    if target.place.is_stream():
        os.close(in_fd)
        return 0
    return _run(target, lambda root_fd: receive(root_fd, in_fd))


def _run(half: _Half, function: Callable[[int], object]) -> object:
    """Run one half where its files are."""
    if half.held is not None:
        return container_root.call(half.held, function)

    def on_host() -> object:
        return function(os.open("/", _ROOT))

    return on_host() if half.maps is None else container_root.call_with_ids(half.maps, on_host)


def _pipe_between(produce: Callable[[int], object], consume: Callable[[int], object]) -> object:
    """Run both in children with a pipe between them; return what consume returned."""
    reader, writer = transfer.pipe()

    def producing() -> object:
        os.close(reader)
        return produce(writer)

    def consuming() -> object:
        os.close(writer)
        return consume(reader)

    sending = children.fork(producing)
    receiving = children.fork(consuming)
    os.close(reader)
    os.close(writer)
    # The sender ends first or because the receiver has; either way both answers come.
    outcomes = [_outcome(child) for child in (sending, receiving)]
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, children.PipeClosed):
            raise outcome
    if isinstance(outcomes[1], BaseException):
        raise outcomes[1]
    return outcomes[1]


def _outcome(child: children.Child) -> object:
    try:
        return children.wait(child)
    except ImageError as error:
        # The reader of archives speaks of layers.
        return ImageError(error.message.replace("layer ", "archive ", 1), hint=error.hint)
    except Error as error:
        return error
    except OSError as error:
        return Error(f"{error.strerror}: {error.filename}" if error.filename else str(error))


def _decompress(in_fd: int, out_fd: int) -> None:
    """Pass an archive on as plain tar."""
    from rootlesspy.image.decompress import Reader

    reader = Reader(transfer.File(in_fd))
    while data := reader.read(_CHUNK):
        transfer.write_all(out_fd, data)


def _has_one_id(source: _Half, target: _Half) -> bool:
    held = target.held or source.held
    return held is not None and held.maps.is_single()
