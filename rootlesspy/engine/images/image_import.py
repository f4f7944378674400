"""`rp import`: an image of one layer, made of a tar archive of a file system."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from rootlesspy.engine import idmap
from rootlesspy.engine.images import image_change
from rootlesspy.errors import ImageError
from rootlesspy.image import layout, platforms
from rootlesspy.image.reference import parse_local
from rootlesspy.image.transfer import write_all
from rootlesspy.image.writer import Writer
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.image.body import Body
    from rootlesspy.image.progress import Progress
    from rootlesspy.image.store import Image
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

_CHUNK = 1 << 18


def import_layer(
    paths: Paths,
    fd: int,
    *,
    name: str | None,
    message: str,
    changes: Sequence[str],
    platform: tuple[str, str, str],
    progress: Progress,
    reporter: Reporter,
) -> Image:
    """Make an image of the tar archive in fd, which may be compressed.

    platform is operating system, architecture and variant, empty for this machine's.  Raises
    UsageError, ImageError, Unsupported, Error, OSError.
    """
    settings = image_change.apply({}, changes)
    reference = None if name is None else str(parse_local(name))
    system, _, architecture = platforms.host().partition("/")
    architecture, _, variant = architecture.partition("/")
    with Writer(paths, idmap.default_maps(), reporter, progress) as writer:
        layer = writer.add_layer(fd)
        created = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        config: dict[str, object] = {
            "created": created,
            "architecture": platform[1] or architecture,
            "variant": platform[2] or ("" if platform[1] else variant),
            "os": platform[0] or system,
            "config": dict(settings),
            "history": [
                {
                    "created": created,
                    "created_by": "/bin/sh -c #(nop) ADD file:"
                    f"{layer.diff_id.partition(':')[2]} in /",
                    "comment": message,
                }
            ],
        }
        if not config["variant"]:
            del config["variant"]
        return writer.add_image(config, [layer], () if reference is None else (reference,))


def download(paths: Paths, url: str, progress: Progress, reporter: Reporter) -> int:
    """Fetch an archive into an unlinked file; return its descriptor, at the beginning.

    Raises UsageError, RegistryError, ImageError for one that is too long or cut, OSError.
    """
    from rootlesspy.image.registry import Client

    layout.prepare(paths)
    body = Client(reporter, config_directory=paths.config).fetch(url)
    fd = os.open(paths.tmp, os.O_RDWR | os.O_TMPFILE | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        progress.start(url, url, body.length() or 0)
        _receive(body, fd, url, progress)
        progress.finish(url)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    finally:
        body.close()
    return fd


def _receive(body: Body, fd: int, url: str, progress: Progress) -> None:
    done = 0
    while data := body.read(_CHUNK):
        done += len(data)
        if done > image_spec.MAX_BLOB_BYTES:
            raise ImageError(f"{url} goes on without end")
        write_all(fd, data)
        progress.advance(url, len(data))
    length = body.length()
    if length not in (None, done):
        raise ImageError(f"{url} ended after {done} of {length} bytes")
