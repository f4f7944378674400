"""`rp save`, `rp load` and `rp import`: images and file systems as archives."""

from __future__ import annotations

import os
import sys

from rootlesspy.cli import completion, progress, registry_access
from rootlesspy.cli import light_typer as typer
from rootlesspy.engine.inputs.values import parse_choice, parse_platform
from rootlesspy.errors import Conflict, NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.report import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.image.save import Copyable
    from rootlesspy.paths import Paths

_ARCHIVES = ("docker-archive", "oci-archive")
_FORMATS = (*_ARCHIVES, "docker-dir", "oci-dir")
_MESSAGE = "imported from tarball"


def save(
    context: typer.Context,
    names: list[str] = typer.Argument(
        ..., metavar="IMAGE [NAME...]", show_default=False, autocompletion=completion.images,
        help="An image and more names for it in the archive; with -m, images.",
    ),
    form: str = typer.Option(
        "docker-archive", "--format", metavar="FORMAT",
        help="docker-archive, oci-archive, docker-dir or oci-dir.",
    ),
    several: bool = typer.Option(
        False, "--multi-image-archive", "-m", help="All names are images.", show_default=False
    ),
    output: str | None = typer.Option(
        None, "--output", "-o", metavar="PATH", help="Write there, not to stdout.",
        show_default=False,
    ),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", help="Accepted for scripts: nothing is shown anyway.",
        show_default=False,
    ),
    uncompressed: bool = typer.Option(
        False, "--uncompressed", help="Accepted for scripts: layers stay as they are.",
        show_default=False,
    ),
) -> int:  # fmt: skip
    """Write images to an archive that podman, docker and skopeo can read."""
    from rootlesspy.engine.output import events
    from rootlesspy.image import save as saving

    paths = context.obj.paths()
    parse_choice(form, "--format", _FORMATS)
    chosen = _chosen(paths, names, several=several)
    if form not in _ARCHIVES:
        if output is None:
            raise UsageError(f"--format {form} makes a directory", hint="name it: -o DIRECTORY")
        target = saving.DirectoryTarget(output)
        if form == "oci-dir":
            saving.oci_layout(target, chosen)
        elif len(chosen) > 1:
            raise UsageError("docker-dir holds one image", hint="--format docker-archive")
        else:
            saving.directory(target, chosen[0][0], docker=True)
    elif output is None:
        if os.isatty(1):
            raise UsageError("an archive is not written to a terminal", hint="-o FILE")
        _write(1, form, chosen)
    else:
        if form == "docker-archive" and os.path.isfile(output) and os.path.getsize(output):
            raise Conflict(f"{output} exists already", hint=f"rm {output}")
        saving.write_file(output, lambda fd: _write(fd, form, chosen))
    for image, _ in chosen:
        events.emit_image("save", output or "-", image.original.manifest.config.digest)
    return 0


def load(
    context: typer.Context,
    archive: str | None = typer.Argument(
        None, metavar="[PATH]", help="The archive or directory, as with --input.",
        show_default=False,
    ),
    input_: str | None = typer.Option(
        None, "--input", "-i", metavar="PATH", show_default=False,
        help="Read this archive or directory, not stdin.",
    ),
    platform: str | None = typer.Option(
        None, "--platform", metavar="OS/ARCH", help="Platform, such as linux/arm64.",
        show_default=False,
    ),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", help="Do not show progress.", show_default=False
    ),
    signature_policy: str | None = typer.Option(
        None, "--signature-policy", metavar="PATH", show_default=False,
        help=registry_access.SIGNATURE_POLICY_HELP,
    ),
) -> int:  # fmt: skip
    """Bring the images of an archive into the store; print their names.

    Archives of docker save and podman save, OCI archives and directories; also compressed by gzip,
    zstd, xz or bzip2. An App Container Image (ACI) becomes an OCI image.
    """
    from rootlesspy.engine import idmap
    from rootlesspy.engine.output import events
    from rootlesspy.image import aci, files, saved
    from rootlesspy.image.documents import sha256
    from rootlesspy.image.load import load as load_image
    from rootlesspy.image.trust import gate
    from rootlesspy.image.writer import Writer

    session = context.obj
    paths = session.paths()
    if platform is not None:
        parse_platform(platform, "--platform")
    if archive is not None and input_ is not None:
        raise UsageError("rp load: name one archive")
    input_ = archive if input_ is None else input_
    if input_ is None and os.isatty(0):
        raise UsageError("an archive is not read from a terminal", hint="rp load -i FILE")
    display = progress.make(quiet=quiet, debug=session.reporter.debug)
    source = None if input_ in (None, "/dev/stdin") else input_
    with (
        Writer(paths, idmap.default_maps(), session.reporter, display) as writer,
        files.Opened(paths, source) as opened,
    ):
        trust = gate.load(paths, session.reporter, signature_policy)
        if (manifest := aci.manifest_of(opened.files)) is not None:
            trust.admit_saved(source, opened.files, manifest, sha256(manifest))
            image = aci.load(writer, paths, opened.files, manifest, session.reporter)
            events.emit_image("loadfromarchive", opened.files.where, image.id)
            sys.stdout.write(f"Loaded image: {escape(image.names[0])}\n")
            return 0
        found = saved.images(opened.files, platform)
        for original in found:
            trust.admit_saved(source, opened.files, original.data, original.digest)
        for original in found:
            image = load_image(writer, opened.files, original, original.names)
            events.emit_image("loadfromarchive", opened.files.where, image.id)
            for name in original.names or (image.id,):
                sys.stdout.write(f"Loaded image: {escape(name)}\n")
    return 0


def import_(
    context: typer.Context,
    source: str = typer.Argument(
        ..., metavar="PATH", help="A tar archive, compressed or not; - is stdin; or an http URL.",
        show_default=False,
    ),
    name: str | None = typer.Argument(
        None, metavar="[NAME]", help="A name; without a registry it is localhost/NAME.",
        show_default=False,
    ),
    changes: list[str] = typer.Option(
        None, "--change", "-c", metavar="INSTRUCTION", show_default=False,
        help="CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR.",
    ),
    message: str = typer.Option(
        _MESSAGE, "--message", "-m", metavar="TEXT", help="Comment in the history.",
    ),
    architecture: str = typer.Option(
        "", "--arch", metavar="ARCH", help="Architecture.", show_default=False
    ),
    system: str = typer.Option(
        "", "--os", metavar="OS", help="Operating system.", show_default=False
    ),
    variant: str = typer.Option(
        "", "--variant", metavar="VARIANT", help="Variant of the architecture.",
        show_default=False,
    ),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", help="Do not show progress.", show_default=False
    ),
) -> int:  # fmt: skip
    """Make an image of a tar archive of a file system; print its id."""
    from rootlesspy.engine.images import image_import
    from rootlesspy.engine.output import events

    session = context.obj
    display = progress.make(quiet=quiet, debug=session.reporter.debug)
    if source.startswith(("http://", "https://")):
        fd = image_import.download(session.paths(), source, display, session.reporter)
    else:
        fd = _archive(source)
    try:
        image = image_import.import_layer(
            session.paths(),
            fd,
            name=name,
            message=message,
            changes=changes or (),
            platform=(system, architecture, variant),
            progress=display,
            reporter=session.reporter,
        )
    finally:
        os.close(fd)
    events.emit_image("import", image.names[0] if name else "", image.id)
    sys.stdout.write(f"{image.id}\n")
    return 0


def _archive(source: str) -> int:
    """Open what is to be imported.  Raises NotFound, UsageError."""
    if source == "-":
        if os.isatty(0):
            raise UsageError("an archive is not read from a terminal", hint="rp import FILE NAME")
        return os.dup(0)
    try:
        return os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFound(f"cannot open {source}: {error.strerror}") from error


def _chosen(
    paths: Paths, names: Sequence[str], *, several: bool
) -> list[tuple[Copyable, list[str]]]:
    """Return the images to save, each with its names in the archive."""
    from rootlesspy.image import save as saving
    from rootlesspy.image.reference import parse_local
    from rootlesspy.image.store import Store

    found: dict[str, tuple[Copyable, list[str]]] = {}
    for name in names if several else names[:1]:
        image = Store(paths).resolve(name)
        entry = found.setdefault(image.digest, (saving.stored(paths, image), []))
        # Of an image that was named by its id the archive has no name, as podman has it.
        known = [each for each in image.names if each in _texts(name)]
        entry[1].extend(each for each in known[:1] if each not in entry[1])
    if not several:
        _, known = next(iter(found.values()))
        more = [str(parse_local(name)) for name in names[1:]]
        known[:] = dict.fromkeys((*more, *known))
    return list(found.values())


def _texts(name: str) -> list[str]:
    """Return what a typed name may mean, in full; nothing for an id."""
    from rootlesspy.image.reference import candidates

    try:
        return [str(each) for each in candidates(name)]
    except UsageError:
        return []


def _write(fd: int, form: str, chosen: Sequence[tuple[Copyable, Sequence[str]]]) -> None:
    from rootlesspy.image import save as saving
    from rootlesspy.image.tarwrite import TarWriter

    tar = TarWriter(fd)
    if form == "docker-archive":
        saving.docker_archive(tar, chosen)
    else:
        saving.oci_archive(tar, chosen)
