"""Sending an image to a registry: blobs that it lacks, the configuration, the manifest last."""

from __future__ import annotations

from rootlesspy.image import layout, upload
from rootlesspy.image.store import Store
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.image.progress import Progress
    from rootlesspy.image.registry import Client
    from rootlesspy.image.save import Copyable
    from rootlesspy.oci.image_spec import Descriptor
    from rootlesspy.paths import Paths
    from rootlesspy.settings import Source


def push(
    client: Client,
    image: Copyable,
    target: Source,
    reference: str,
    *,
    elsewhere: Mapping[str, str],
    progress: Progress,
) -> str:
    """Send an image to a repository under a tag or its digest; return the manifest's digest.

    elsewhere names, for blobs, other repositories of the registry that may have them.  Raises
    RegistryError, NotFound, ImageError.
    """
    uploader = upload.Uploader(client, target)
    original = image.original
    for layer in dict.fromkeys(original.manifest.layers):
        _send_layer(uploader, image, layer, elsewhere.get(layer.digest), progress)
    config = original.manifest.config
    if not uploader.has(config.digest):
        data = original.config_data
        uploader.blob(config, lambda offset: iter((data[offset:],)), advanced=lambda n_bytes: None)
    uploader.manifest(reference, original.data, original.manifest.media_type)
    return original.digest


def repositories(paths: Paths, registry: str, repository: str) -> dict[str, str]:
    """Return for blobs of images here another repository of registry that their names are in."""
    found: dict[str, str] = {}
    for image in Store(paths).images():
        names = [name.removeprefix(f"{registry}/") for name in image.names
                 if name.startswith(f"{registry}/")]  # fmt: skip
        others = [name.partition("@")[0].rpartition(":")[0] or name for name in names]
        other = next((each for each in others if each != repository), None)
        if other is None:
            continue
        manifest = image_spec.parse_manifest(layout.read_blob(paths, image.digest))
        for layer in manifest.layers:
            found.setdefault(layer.digest, other)
    return found


def _send_layer(
    uploader: upload.Uploader,
    image: Copyable,
    layer: Descriptor,
    mount_from: str | None,
    progress: Progress,
) -> None:
    short = layer.digest.partition(":")[2][:12]
    progress.start(short, short, layer.size)
    if uploader.has(layer.digest):
        progress.phase(short, "already there")
    else:
        progress.phase(short, "uploading")
        how = uploader.blob(
            layer,
            lambda offset: upload.from_offset(image.blob(layer), offset),
            mount_from=mount_from,
            advanced=lambda n_bytes: progress.advance(short, n_bytes),
        )
        if how == "mounted":
            progress.phase(short, f"mounted from {mount_from}")
    progress.finish(short)
