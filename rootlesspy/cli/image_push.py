"""`rp push` and `rp copy`: images to registries, archives and layouts, and between them."""

from __future__ import annotations

from rootlesspy.cli import completion, progress, registry_access
from rootlesspy.cli import light_typer as typer
from rootlesspy.engine.inputs.values import parse_choice, parse_platform
from rootlesspy.errors import Error, UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.cli.session import Session
    from rootlesspy.image.copy import Compression, Trip
    from rootlesspy.image.registry import Client

_LEVELS = {"gzip": range(10), "zstd": range(1, 23)}
FORMAT_HELP = "Kind of manifest: oci or v2s2; default: the one that the image has."
_AUTHFILE = typer.Option(
    None, "--authfile", metavar="PATH", help=registry_access.AUTHFILE_HELP, show_default=False
)
_DIGESTFILE = typer.Option(
    None, "--digestfile", metavar="PATH", help="Write the digest there.", show_default=False
)
_FORMAT = typer.Option(None, "--format", "-f", metavar="KIND", help=FORMAT_HELP, show_default=False)
_QUIET = typer.Option(False, "--quiet", "-q", help="Do not show progress.", show_default=False)


def push(
    context: typer.Context,
    name: str = typer.Argument(
        ..., metavar="IMAGE", help="A name, an id or the beginning of an id.",
        autocompletion=completion.images, show_default=False,
    ),
    destination: str | None = typer.Argument(
        None, metavar="[DESTINATION]", show_default=False,
        help="A name in a registry, or a place as rp copy knows it; default: the image's name.",
    ),
    authfile: str | None = _AUTHFILE,
    cert_dir: str | None = typer.Option(
        None, "--cert-dir", metavar="PATH", help=registry_access.CERT_DIR_HELP, show_default=False
    ),
    creds: str | None = typer.Option(
        None, "--creds", metavar="USER:PASSWORD", help=registry_access.CREDS_HELP,
        show_default=False,
    ),
    compression: str = typer.Option(
        "gzip", "--compression-format", metavar="FORMAT", help="gzip or zstd, for plain layers.",
    ),
    level: int | None = typer.Option(
        None, "--compression-level", metavar="N", help="How hard to compress.", show_default=False
    ),
    force: bool = typer.Option(
        False, "--force-compression", help="Compress layers anew that are in another form.",
        show_default=False,
    ),
    digestfile: str | None = _DIGESTFILE,
    form: str | None = _FORMAT,
    quiet: bool = _QUIET,
    tls_verify: bool | None = typer.Option(
        None, "--tls-verify/--no-tls-verify", help=registry_access.TLS_HELP, show_default=False
    ),
) -> int:  # fmt: skip
    """Send an image to a registry."""
    from rootlesspy.engine.output import events
    from rootlesspy.image import copy, place
    from rootlesspy.image.store import Store

    session = context.obj
    image = Store(session.paths()).resolve(name)
    target = place.parse_place(destination or _own_name(name, image.names), plain=place.REGISTRY)
    client = registry_access.client(session, authfile=authfile, creds=creds, cert_dir=cert_dir)
    journey = trip(session, client, quiet=quiet, form=form)._replace(
        insecure=registry_access.insecure(tls_verify),
        compression=compression_of(compression, level, force=force),
    )
    digest = copy.copy(place.Place(place.STORE, "", name), target, journey)
    events.emit_image("push", str(target).removeprefix("docker://"), image.id)
    if digestfile is not None:
        write_digest(digestfile, digest)
    return 0


def copy(
    context: typer.Context,
    source: str = typer.Argument(
        ..., metavar="SOURCE", show_default=False,
        help="docker://NAME, oci:DIR[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME], "
        "dir:DIR, or an image that is here.",
    ),
    destination: str = typer.Argument(
        ..., metavar="DESTINATION", help="The same; a plain NAME is one here.", show_default=False
    ),
    authfile: str | None = _AUTHFILE,
    source_creds: str | None = typer.Option(
        None, "--src-creds", metavar="USER:PASSWORD", help=registry_access.CREDS_HELP,
        show_default=False,
    ),
    creds: str | None = typer.Option(
        None, "--dest-creds", metavar="USER:PASSWORD", help=registry_access.CREDS_HELP,
        show_default=False,
    ),
    source_cert_dir: str | None = typer.Option(
        None, "--src-cert-dir", metavar="PATH", help=registry_access.CERT_DIR_HELP,
        show_default=False,
    ),
    cert_dir: str | None = typer.Option(
        None, "--dest-cert-dir", metavar="PATH", help=registry_access.CERT_DIR_HELP,
        show_default=False,
    ),
    source_tls_verify: bool | None = typer.Option(
        None, "--src-tls-verify/--no-src-tls-verify", help=registry_access.TLS_HELP,
        show_default=False,
    ),
    tls_verify: bool | None = typer.Option(
        None, "--dest-tls-verify/--no-dest-tls-verify", help=registry_access.TLS_HELP,
        show_default=False,
    ),
    digestfile: str | None = _DIGESTFILE,
    form: str | None = _FORMAT,
    everything: bool = typer.Option(
        False, "--all", "-a", help="Of an index, copy the images of all platforms.",
        show_default=False,
    ),
    multi_arch: str | None = typer.Option(
        None, "--multi-arch", metavar="WHICH", show_default=False,
        help="Of an index: system (this platform's image), all, or index-only.",
    ),
    preserve: bool = typer.Option(
        False, "--preserve-digests", help="Refuse to copy what would get another digest.",
        show_default=False,
    ),
    compress: bool = typer.Option(
        False, "--dest-compress", help="Compress plain layers in a directory too.",
        show_default=False,
    ),
    decompress: bool = typer.Option(
        False, "--dest-decompress", help="Decompress layers.", show_default=False
    ),
    compression: str | None = typer.Option(
        None, "--dest-compress-format", metavar="FORMAT", show_default=False,
        help="Compress layers as gzip or zstd, those too that are in another form.",
    ),
    level: int | None = typer.Option(
        None, "--dest-compress-level", metavar="N", help="How hard to compress.",
        show_default=False,
    ),
    platform: str | None = typer.Option(
        None, "--platform", metavar="OS/ARCH", help="Platform, such as linux/arm64.",
        show_default=False,
    ),
    quiet: bool = _QUIET,
    signature_policy: str | None = typer.Option(
        None, "--signature-policy", metavar="PATH", show_default=False,
        help=registry_access.SIGNATURE_POLICY_HELP,
    ),
) -> int:  # fmt: skip
    """Copy an image between registries, archives, layouts and the store."""
    from rootlesspy.image import copy as copying
    from rootlesspy.image import place

    session = context.obj
    if platform is not None:
        parse_platform(platform, "--platform")
    there, here = place.parse_place(source), place.parse_place(destination)
    client = registry_access.client(session, authfile=authfile, creds=creds, cert_dir=cert_dir)
    journey = trip(session, client, quiet=quiet, form=form)._replace(
        source_client=registry_access.client(
            session, authfile=authfile, creds=source_creds, cert_dir=source_cert_dir
        ),
        insecure_source=registry_access.insecure(source_tls_verify),
        insecure=registry_access.insecure(tls_verify),
        platform=platform,
        signature_policy=signature_policy,
        compression=_written_as(compression, level, compress=compress, decompress=decompress),
        multi_arch=_multi_arch(multi_arch, everything=everything),
        preserve=preserve,
    )
    digest = copying.copy(there, here, journey)
    if digestfile is not None:
        write_digest(digestfile, digest)
    return 0


def trip(session: Session, client: Client, *, quiet: bool, form: str | None) -> Trip:
    from rootlesspy import settings
    from rootlesspy.engine import idmap
    from rootlesspy.image.copy import Trip

    paths = session.paths()
    return Trip(
        paths=paths,
        settings=settings.load(paths),
        maps=idmap.default_maps(),
        progress=progress.make(quiet=quiet, debug=session.reporter.debug),
        reporter=session.reporter,
        source_client=client,
        client=client,
        manifest=parse_choice(form, "--format", ("oci", "v2s2")) if form else "",
    )


def _multi_arch(which: str | None, *, everything: bool) -> str:
    from rootlesspy.image import copy

    if which is None:
        return copy.ALL if everything else copy.SYSTEM
    if everything and which != copy.ALL:
        raise UsageError(f"--all and --multi-arch={which} exclude each other")
    return parse_choice(which, "--multi-arch", copy.MULTI_ARCH)


def _written_as(
    form: str | None, level: int | None, *, compress: bool, decompress: bool
) -> Compression:
    from rootlesspy.image.compress import NONE

    if decompress:
        if form or compress or level is not None:
            raise UsageError("--dest-decompress and --dest-compress exclude each other")
        return compression_of("", None, force=True)._replace(form=NONE)
    return compression_of(form or ("gzip" if compress else ""), level, force=form is not None)


def compression_of(form: str, level: int | None, *, force: bool) -> Compression:
    """Parse how layers are to be compressed; form "" leaves it to the destination."""
    from rootlesspy.image.copy import Compression

    if form:
        parse_choice(form, "--compression-format", tuple(_LEVELS))
    elif level is not None:
        form = "gzip"
    if level is not None and level not in _LEVELS[form]:
        allowed = _LEVELS[form]
        raise UsageError(f"--compression-level {level}: {form} knows {allowed[0]} to {allowed[-1]}")
    return Compression(form, level, force)


def _own_name(typed: str, names: tuple[str, ...]) -> str:
    """Return the name under which an image is pushed when none is given.  Raises UsageError."""
    from rootlesspy.image.reference import candidates, is_image_id

    if not is_image_id(typed):
        for reference in candidates(typed):
            if str(reference) in names:
                return str(reference)
    raise UsageError(f"image {typed} is to be pushed, but where", hint=f"rp push {typed} NAME")


def write_digest(path: str, digest: str) -> None:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(digest)
    except OSError as error:
        raise Error(f"cannot write {path}: {error.strerror}") from error
