"""`rp manifest`: lists of images for several platforms."""

from __future__ import annotations

import json
import sys

from rootlesspy.cli import completion, image_push, registry_access
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli.image_rows import hexadecimal
from rootlesspy.errors import NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.report import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.cli.session import Session
    from rootlesspy.image.copy import Trip
    from rootlesspy.image.manifest_list import Change

_ALL_HELP = "Of images that are lists themselves, add all that they hold."
_SOURCE_HELP = "An image that is here, or docker://NAME, oci:DIR[:NAME], oci-archive:FILE[:NAME], …"
_LIST = typer.Argument(
    ..., metavar="LIST", help="A manifest list: its name or id.", show_default=False,
    autocompletion=completion.manifest_lists,
)  # fmt: skip
_ANNOTATION = typer.Option(
    None, "--annotation", metavar="NAME=VALUE", help="Annotation of the image.", show_default=False
)
_ARCH = typer.Option(None, "--arch", metavar="ARCH", help="Architecture.", show_default=False)
_OS = typer.Option(None, "--os", metavar="OS", help="Operating system.", show_default=False)
_OS_VERSION = typer.Option(
    None, "--os-version", metavar="VERSION", help="Version of the operating system.",
    show_default=False,
)  # fmt: skip
_VARIANT = typer.Option(
    None, "--variant", metavar="VARIANT", help="Variant of the architecture.", show_default=False
)
_FEATURES = typer.Option(
    None, "--features", metavar="NAMES", help="Features of the processor.", show_default=False
)
_AUTHFILE = typer.Option(
    None, "--authfile", metavar="PATH", help=registry_access.AUTHFILE_HELP, show_default=False
)
_CERT_DIR = typer.Option(
    None, "--cert-dir", metavar="PATH", help=registry_access.CERT_DIR_HELP, show_default=False
)
_CREDS = typer.Option(
    None, "--creds", metavar="USER:PASSWORD", help=registry_access.CREDS_HELP, show_default=False
)
_TLS = typer.Option(
    None, "--tls-verify/--no-tls-verify", help=registry_access.TLS_HELP, show_default=False
)


def create(
    context: typer.Context,
    name: str = typer.Argument(
        ..., metavar="LIST", help="A name; without a registry it is localhost/NAME.",
        show_default=False,
    ),
    images: list[str] = typer.Argument(
        None, metavar="[IMAGE...]", help=_SOURCE_HELP, show_default=False
    ),
    everything: bool = typer.Option(False, "--all", help=_ALL_HELP, show_default=False),
    amend: bool = typer.Option(
        False, "--amend", "-a", help="Add to the list if there is one already.",
        show_default=False,
    ),
    annotation: list[str] = typer.Option(
        None, "--annotation", metavar="NAME=VALUE", help="Annotation of the list.",
        show_default=False,
    ),
    tls_verify: bool | None = _TLS,
) -> int:  # fmt: skip
    """Make a manifest list of images; print its id."""
    from rootlesspy.engine.images import manifest

    made = manifest.create(
        _trip(context.obj, tls_verify),
        name,
        images or (),
        amend=amend,
        everything=everything,
        annotations=_pairs(annotation or ()),
    )
    return _told(made.id)


def add(
    context: typer.Context,
    name: str = _LIST,
    images: list[str] = typer.Argument(
        ..., metavar="IMAGE...", help=_SOURCE_HELP, show_default=False,
        autocompletion=completion.images,
    ),
    everything: bool = typer.Option(False, "--all", help=_ALL_HELP, show_default=False),
    annotation: list[str] = _ANNOTATION,
    arch: str | None = _ARCH,
    features: list[str] = _FEATURES,
    system: str | None = _OS,
    os_version: str | None = _OS_VERSION,
    variant: str | None = _VARIANT,
    authfile: str | None = _AUTHFILE,
    cert_dir: str | None = _CERT_DIR,
    creds: str | None = _CREDS,
    tls_verify: bool | None = _TLS,
) -> int:  # fmt: skip
    """Add images to a manifest list; print its id.

    They are fetched and kept with the list, without being unpacked.
    """
    from rootlesspy.engine.images import manifest

    trip = _trip(context.obj, tls_verify, authfile=authfile, creds=creds, cert_dir=cert_dir)
    change = _change(annotation, arch, system, os_version, variant, features)
    return _told(manifest.add(trip, name, images, everything=everything, change=change).id)


def annotate(
    context: typer.Context,
    name: str = _LIST,
    image: str | None = typer.Argument(
        None, metavar="[IMAGE]", show_default=False,
        help="The image: its digest, or a name it has here.",
    ),
    annotation: list[str] = _ANNOTATION,
    arch: str | None = _ARCH,
    features: list[str] = _FEATURES,
    index: bool = typer.Option(
        False, "--index", help="The annotations are those of the list itself.", show_default=False
    ),
    system: str | None = _OS,
    os_features: list[str] = typer.Option(
        None, "--os-features", metavar="NAMES", help="Features of the operating system.",
        show_default=False,
    ),
    os_version: str | None = _OS_VERSION,
    variant: str | None = _VARIANT,
) -> int:  # fmt: skip
    """Change what a manifest list says of an image; print the list's id."""
    from rootlesspy.engine.images import manifest

    if image is None and not index:
        raise UsageError("rp manifest annotate: name the image, or say --index")
    change = _change(annotation, arch, system, os_version, variant, features)
    change = change._replace(os_features=_words(os_features))
    return _told(manifest.annotate(_trip(context.obj, None), name, image, change, index=index).id)


def inspect(
    context: typer.Context,
    name: str = typer.Argument(
        ..., metavar="IMAGE", help="A list that is here, or a name in a registry.",
        show_default=False, autocompletion=completion.manifest_lists,
    ),
    authfile: str | None = _AUTHFILE,
    tls_verify: bool | None = _TLS,
) -> int:  # fmt: skip
    """Print a manifest list as JSON."""
    from rootlesspy.engine.images import manifest

    document = manifest.inspect(_trip(context.obj, tls_verify, authfile=authfile), name)
    sys.stdout.write(json.dumps(document, indent=4) + "\n")
    return 0


def push(
    context: typer.Context,
    name: str = _LIST,
    destination: str | None = typer.Argument(
        None, metavar="[DESTINATION]", show_default=False,
        help="A name in a registry, or a place as rp copy knows it; default: the list's name.",
    ),
    everything: bool = typer.Option(
        True, "--all/--no-all", help="Send the images too, not the list alone."
    ),
    authfile: str | None = _AUTHFILE,
    cert_dir: str | None = _CERT_DIR,
    creds: str | None = _CREDS,
    compression: str | None = typer.Option(
        None, "--compression-format", metavar="FORMAT", help="gzip or zstd, for plain layers.",
        show_default=False,
    ),
    level: int | None = typer.Option(
        None, "--compression-level", metavar="N", help="How hard to compress.", show_default=False
    ),
    force: bool = typer.Option(
        False, "--force-compression", help="Compress layers anew that are in another form.",
        show_default=False,
    ),
    digestfile: str | None = typer.Option(
        None, "--digestfile", metavar="PATH", help="Write the digest there.", show_default=False
    ),
    form: str | None = typer.Option(
        None, "--format", "-f", metavar="KIND", help=image_push.FORMAT_HELP, show_default=False
    ),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", help="Do not show progress.", show_default=False
    ),
    remove: bool = typer.Option(
        False, "--rm", help="Remove the list when it has been sent.", show_default=False
    ),
    tls_verify: bool | None = _TLS,
) -> int:  # fmt: skip
    """Send a manifest list and its images to a registry or another place."""
    from rootlesspy.engine.images import image_removal, manifest
    from rootlesspy.image.copy import ALL, INDEX_ONLY

    session = context.obj
    trip = _trip(
        session, tls_verify, authfile=authfile, creds=creds, cert_dir=cert_dir, quiet=quiet,
        form=form,
    )._replace(
        compression=image_push.compression_of(compression or "", level, force=force),
        multi_arch=ALL if everything else INDEX_ONLY,
    )  # fmt: skip
    found, digest = manifest.push(trip, name, destination)
    if digestfile is not None:
        image_push.write_digest(digestfile, digest)
    if remove:
        image_removal.remove_list(session.paths(), found, name, force=True)
    return 0


def remove(
    context: typer.Context,
    name: str = _LIST,
    digest: str = typer.Argument(
        ..., metavar="DIGEST", help="The digest of the image.", show_default=False
    ),
) -> int:  # fmt: skip
    """Take an image out of a manifest list; print the list's id."""
    from rootlesspy.engine.images import manifest

    return _told(manifest.take_out(_trip(context.obj, None), name, digest).id)


def rm(
    context: typer.Context,
    names: list[str] = typer.Argument(
        ..., metavar="LIST...", help="Names or ids.", show_default=False,
        autocompletion=completion.manifest_lists,
    ),
    ignore: bool = typer.Option(
        False, "--ignore", "-i", help="Do not mind lists that do not exist.", show_default=False
    ),
) -> int:  # fmt: skip
    """Remove manifest lists; images that have a name of their own stay."""
    from rootlesspy.engine.images import image_removal
    from rootlesspy.image import lists

    session = context.obj
    code = 0
    for name in names:
        try:
            found = lists.resolve(session.paths(), name)
        except NotFound as error:
            if not ignore:
                session.reporter.error(error.message, error.hint)
                code = 1
            continue
        removed = image_removal.remove_list(session.paths(), found, name, force=False)
        for untagged in removed.untagged:
            sys.stdout.write(f"Untagged: {escape(untagged)}\n")
        if removed.deleted is not None:
            sys.stdout.write(f"Deleted: {hexadecimal(removed.deleted)}\n")
    return code


def exists(context: typer.Context, name: str = _LIST) -> int:
    """Say by the exit code whether a manifest list is here: 0 yes, 1 no."""
    from rootlesspy.image import lists

    try:
        lists.resolve(context.obj.paths(), name)
    except NotFound:
        return 1
    return 0


def _trip(
    session: Session,
    tls_verify: bool | None,
    *,
    authfile: str | None = None,
    creds: str | None = None,
    cert_dir: str | None = None,
    quiet: bool = False,
    form: str | None = None,
) -> Trip:
    client = registry_access.client(session, authfile=authfile, creds=creds, cert_dir=cert_dir)
    insecure = registry_access.insecure(tls_verify)
    return image_push.trip(session, client, quiet=quiet, form=form)._replace(
        insecure=insecure, insecure_source=insecure
    )


def _change(
    annotation: Sequence[str] | None,
    arch: str | None,
    system: str | None,
    os_version: str | None,
    variant: str | None,
    features: Sequence[str] | None,
) -> Change:
    from rootlesspy.image.manifest_list import Change

    return Change(
        architecture=arch,
        system=system,
        variant=variant,
        os_version=os_version,
        features=_words(features),
        annotations=_pairs(annotation or ()),
    )


def _words(texts: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(word for text in texts or () for word in text.split(",") if word)


def _pairs(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--annotation {text!r}: expected NAME=VALUE")
        pairs.append((name, value))
    return tuple(pairs)


def _told(list_id: str) -> int:
    sys.stdout.write(f"{hexadecimal(list_id)}\n")
    return 0
