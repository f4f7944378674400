"""`rp import`: an image of one layer, made of a tar archive of a file system."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rootlesspy.engine import idmap, image_change
from rootlesspy.image import platforms
from rootlesspy.image.reference import parse_local
from rootlesspy.image.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.image.progress import Progress
    from rootlesspy.image.store import Image
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


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
