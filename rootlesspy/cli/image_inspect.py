"""`rp image inspect`: one image as a JSON object with podman's members."""

from __future__ import annotations

from rootlesspy.cli import completion, output
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli.image_rows import hexadecimal, labels, repo_digests
from rootlesspy.errors import Error, ImageError
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootlesspy.image.store import Image
    from rootlesspy.paths import Paths

# The order of podman's members.
_CONFIG = (
    "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels",
    "StopSignal", "OnBuild", "Shell",
)  # fmt: skip


def inspect(
    context: typer.Context,
    names: list[str] = typer.Argument(
        ..., metavar="IMAGE...", help="Names, ids or unique beginnings of ids.",
        autocompletion=completion.images, show_default=False,
    ),
    form: str | None = typer.Option(
        None, "--format", "-f", metavar="FORMAT", help="json or a Go template.", show_default=False
    ),
) -> int:  # fmt: skip
    """Describe images in every detail."""
    session = context.obj
    found, failures = [], []
    for name in names:
        try:
            found.append(document(session.paths(), name))
        except Error as error:
            failures.append(error)
    if form is None or output.is_json(form):
        output.print_json(found)
    else:
        for each in found:
            output.show_one(each, form)
    for failure in failures:
        session.reporter.error(failure.message, failure.hint)
    return max((failure.exit_code for failure in failures), default=0)


def document(paths: Paths, name: str) -> dict[str, Any]:
    """Return what is known of an image; members as podman has them.

    Raises NotFound, UsageError, ImageError for a damaged store.
    """
    from rootlesspy.image.store import Store

    image = Store(paths).resolve(name)
    config: dict[str, Any] = dict(image.config)
    settings: dict[str, Any] = config.get("config") or {}
    history: list[dict[str, Any]] = config.get("history") or []
    operating_system, _, architecture = image.platform.partition("/")
    manifest = _manifest(paths, image)
    described = {
        "Id": hexadecimal(image.id),
        "Digest": image.digest,
        "RepoTags": list(image.names),
        "RepoDigests": repo_digests(image),
        "Parent": "",
        "Comment": str(history[0].get("comment") or "") if history else "",
        "Created": config.get("created"),
        "Config": {key: settings[key] for key in _CONFIG if settings.get(key)},
        "Version": str(config.get("docker_version", "")),
        "Author": config.get("author", ""),
        "Architecture": architecture.partition("/")[0],
        "Os": operating_system,
        "Size": image.size_bytes,
        "VirtualSize": image.size_bytes,
        "GraphDriver": {"Name": "overlay", "Data": _layers(paths, image)},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Labels": labels(image) or None,
        "Annotations": manifest.get("annotations") or {},
        "ManifestType": manifest.get("mediaType", ""),
        "User": settings.get("User", ""),
        "History": history or None,
        "NamesHistory": list(image.names),
    }
    if settings.get("Healthcheck"):
        described["Healthcheck"] = settings["Healthcheck"]
    return described


def _manifest(paths: Paths, image: Image) -> dict[str, Any]:
    """Return the manifest with a media type, which OCI allows to be left out."""
    from rootlesspy.image import layout
    from rootlesspy.oci import image_spec

    data = layout.read_blob(paths, image.digest)
    try:
        found: dict[str, Any] = image_spec.parse_document(data, "manifest")
        return {**found, "mediaType": image_spec.parse_manifest(data).media_type}
    except image_spec.MalformedError as error:
        raise ImageError(f"blob {image.digest} of the store: {error}") from error


def _layers(paths: Paths, image: Image) -> dict[str, str]:
    """Return where the layers lie, top first, in overlayfs's words; nothing if not unpacked."""
    from rootlesspy.engine import idmap
    from rootlesspy.image.store import Store

    directories = Store(paths).layers(image, idmap.default_maps())
    if not directories:
        return {}
    *lower, upper = directories
    found = {"LowerDir": ":".join(reversed(lower))} if lower else {}
    return {**found, "UpperDir": upper}
