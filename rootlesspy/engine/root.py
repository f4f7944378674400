"""The root file system that a container is made of: an image of the store, pulled when missing, or
a directory of the user's.
"""

from __future__ import annotations

import os

from rootlesspy.engine.supervision.cancel import CancelledError
from rootlesspy.errors import Error, NotFound
from rootlesspy.light_modules import json, signal
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.image.progress import Progress
    from rootlesspy.image.store import Image, Store
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.oci.image_spec import ContainerConfig
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


class Root(NamedTuple):
    """What a container is made of."""

    name: str
    """The image's name, or the directory of --rootfs."""
    image_id: str
    """Empty with --rootfs."""
    config: ContainerConfig
    layers: tuple[str, ...]
    """Unpacked layers, base first; none with --rootfs."""
    hold_fd: int = -1
    """Keeps the layers from being removed until it is closed."""

    def release(self) -> None:
        """Let go of the store: the container is on record now."""
        if self.hold_fd >= 0:
            os.close(self.hold_fd)


def find(
    request: RunRequest,
    paths: Paths,
    maps: IdMaps,
    reporter: Reporter,
    make_progress: Callable[[], Progress] | None,
) -> Root:
    """Return the root that was asked for, pulling its image when the policy says so.

    Raises NotFound, Error with the words of the pull.
    """
    found = present(request, paths, maps)
    if found is not None:
        return found
    from rootlesspy.image.store import Store

    _pull_in_child(request, paths, maps, reporter, make_progress)
    pulled = _present(Store(paths), request.image, maps, request.platform)
    if pulled is None:
        raise NotFound(f"image {request.image} was removed while it was pulled")
    return _of(request, *pulled)


def present(request: RunRequest, paths: Paths, maps: IdMaps) -> Root | None:
    """Return the root that was asked for; None where its image is to be pulled.

    Raises NotFound for a directory that is not there.
    """
    if request.rootfs is not None:
        path = os.path.abspath(request.rootfs)
        if os.path.islink(path) or not os.path.isdir(path):
            raise NotFound(f"--rootfs {request.rootfs} is not a directory", hint=f"ls -ld {path}")
        return Root(name=path, image_id="", config={}, layers=())
    if request.pull != "missing" or request.platform is not None:
        return None
    from rootlesspy.image.store import Store

    found = _present(Store(paths), request.image, maps)
    return None if found is None else _of(request, *found)


def _of(request: RunRequest, image: Image, layers: tuple[str, ...], hold_fd: int) -> Root:
    return Root(
        hold_fd=hold_fd,
        name=image.names[0] if image.names else request.image,
        image_id=image.id,
        config=image.config.get("config", {}),
        layers=layers,
    )


def _present(
    store: Store, reference: str, maps: IdMaps, platform: str | None = None
) -> tuple[Image, tuple[str, ...], int] | None:
    """Return an image of the store with its layers and a hold on them; None if not all there."""
    hold_fd = store.hold()
    if hold_fd is None:
        return None
    try:
        image = store.resolve(reference, platform)
        layers = store.layers(image, maps)
    except NotFound:
        os.close(hold_fd)
        return None
    except BaseException:
        os.close(hold_fd)
        raise
    if layers is None:
        os.close(hold_fd)
        return None
    return image, layers, hold_fd


def _pull_in_child(
    request: RunRequest,
    paths: Paths,
    maps: IdMaps,
    reporter: Reporter,
    make_progress: Callable[[], Progress] | None,
) -> None:
    """Pull in a forked child, so that what it imports is gone before the container is started."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _serve_pull(request, paths, maps, reporter, make_progress, writer)
    os.close(writer)
    try:
        with open(reader, "rb") as file:
            answer = file.read()
    except BaseException:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        raise
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if answer:
        message, hint = json.loads(answer)
        raise Error(message, hint=hint)
    if status != 0:
        error = Error("the pull was interrupted")
        error.exit_code = 128 - status if status < 0 else status
        raise error


def _serve_pull(
    request: RunRequest,
    paths: Paths,
    maps: IdMaps,
    reporter: Reporter,
    make_progress: Callable[[], Progress] | None,
    writer: int,
) -> NoReturn:
    """Be the child of _pull_in_child(); never returns."""
    status = 0
    try:
        _pull(request, paths, maps, reporter, make_progress)
    except CancelledError as error:
        status = error.exit_code
    except Error as error:
        os.write(writer, json.dumps([error.message, error.hint]).encode())
    except Exception as error:  # noqa: BLE001 - the child's last line; the parent raises it
        if reporter.debug:
            import traceback

            traceback.print_exc()
        text = f"internal error while pulling: {type(error).__name__}: {error}"
        os.write(writer, json.dumps([text, None]).encode())
    finally:
        os._exit(status)


def _pull(
    request: RunRequest,
    paths: Paths,
    maps: IdMaps,
    reporter: Reporter,
    make_progress: Callable[[], Progress] | None,
) -> None:
    from rootlesspy.image import agent

    with agent.plain(paths, reporter) as asking:
        if request.pull != "never":
            # It imports what it needs while the rest is imported here.
            asking.start()
        from rootlesspy import settings
        from rootlesspy.engine.output import events
        from rootlesspy.image.progress import NoProgress
        from rootlesspy.image.pull import ensure

        silent = make_progress is None or request.quiet
        image = ensure(
            request.image,
            paths=paths,
            settings=settings.load(paths),
            maps=maps,
            policy=request.pull,
            platform=request.platform,
            progress=NoProgress() if silent or make_progress is None else make_progress(),
            reporter=reporter,
            agent=asking,
            signature_policy=request.signature_policy,
        )
    events.emit_image("pull", image.names[0] if image.names else request.image, image.id)
