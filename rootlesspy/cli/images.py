"""`rp pull`, `rp images` and `rp rmi`."""

from __future__ import annotations

import sys
import time

from rootlesspy.cli import (
    completion,
    human,
    image_rows,
    output,
    registry_access,
    table,
)
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli.image_filter import matching
from rootlesspy.cli.image_rows import hexadecimal
from rootlesspy.cli.removal import Removal
from rootlesspy.engine.inputs.values import parse_choice
from rootlesspy.errors import Error, NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.report import escape

if TYPE_CHECKING:
    from rootlesspy.cli.image_rows import Line
    from rootlesspy.paths import Paths

_CUT = ("REPOSITORY", "TAG")
_SORT = ("created", "id", "repository", "size", "tag")


def pull(
    context: typer.Context,
    names: list[str] = typer.Argument(
        ..., metavar="IMAGE...", show_default=False,
        help="Images, such as alpine or ghcr.io/org/app:1.2; or oci:DIR[:NAME], "
        "oci-archive:FILE[:NAME], docker-archive:FILE[:NAME], dir:DIR.",
    ),
    all_tags: bool = typer.Option(
        False, "--all-tags", "-a", help="Pull every tag of the repository.", show_default=False
    ),
    authfile: str | None = typer.Option(
        None, "--authfile", metavar="PATH", help=registry_access.AUTHFILE_HELP, show_default=False
    ),
    cert_dir: str | None = typer.Option(
        None, "--cert-dir", metavar="PATH", help=registry_access.CERT_DIR_HELP, show_default=False
    ),
    creds: str | None = typer.Option(
        None, "--creds", metavar="USER:PASSWORD", help=registry_access.CREDS_HELP,
        show_default=False,
    ),
    platform: str | None = typer.Option(
        None, "--platform", metavar="OS/ARCH", help="Platform, such as linux/arm64.",
        show_default=False,
    ),
    policy: str = typer.Option(
        "always", "--policy", metavar="POLICY", help="always, missing, never or newer.",
    ),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", help="Do not show progress.", show_default=False
    ),
    signature_policy: str | None = typer.Option(
        None, "--signature-policy", metavar="PATH", show_default=False,
        help=registry_access.SIGNATURE_POLICY_HELP,
    ),
    tls_verify: bool | None = typer.Option(
        None, "--tls-verify/--no-tls-verify", help=registry_access.TLS_HELP, show_default=False
    ),
) -> int:  # fmt: skip
    """Pull images from their registries and unpack them; print their ids."""
    from rootlesspy.cli import pull as pulling

    return pulling.pull(
        context.obj,
        names,
        all_tags=all_tags,
        authfile=authfile,
        cert_dir=cert_dir,
        creds=creds,
        platform=platform,
        policy=policy,
        quiet=quiet,
        signature_policy=signature_policy,
        tls_verify=tls_verify,
    )


def images(
    context: typer.Context,
    name: str | None = typer.Argument(
        None, metavar="[IMAGE]", help="Only images of this name; may hold * and ?.",
        show_default=False,
    ),
    everything: bool = typer.Option(
        False, "--all", "-a", help="Accepted for scripts: all images are shown anyway.",
        show_default=False,
    ),
    digests: bool = typer.Option(
        False, "--digests", help="Show the digests of the manifests.", show_default=False
    ),
    filters: list[str] = typer.Option(
        None, "--filter", "-f", metavar="KEY=VALUE", show_default=False,
        help="Show what fits: reference, label, dangling, before, since, until, id, …",
    ),
    form: str | None = typer.Option(
        None, "--format", metavar="FORMAT", show_default=False,
        help="json, a Go template, or table and a Go template.",
    ),
    no_trunc: bool = typer.Option(
        False, "--no-trunc", help="Do not shorten ids.", show_default=False
    ),
    noheading: bool = typer.Option(
        False, "--noheading", "-n", help="Leave out the headings.", show_default=False
    ),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", help="Print ids only.", show_default=False
    ),
    sort: str = typer.Option(
        "created", "--sort", metavar="COLUMN", help="created, id, repository, size or tag.",
    ),
) -> int:  # fmt: skip
    """List images."""
    from rootlesspy.image.lists import all_lists
    from rootlesspy.image.store import Store

    paths = context.obj.paths()
    asked = (*(filters or ()), *((f"reference={name}",) if name else ()))
    known = [*Store(paths).images(), *(each.as_image() for each in all_lists(paths))]
    found = matching(image_rows.lines(known), asked, known=known, used=lambda: _users(paths))
    _sort_lines(found, parse_choice(sort, "--sort", _SORT))
    if form:
        _show_formatted(found, form, _users(paths), no_trunc, heading=not noheading)
    elif quiet:
        ids = dict.fromkeys(line.short_id(full=no_trunc) for line in found)
        sys.stdout.write("".join(f"{each}\n" for each in ids))
    else:
        sys.stdout.write(_table(found, full=no_trunc, digests=digests, heading=not noheading))
    return 0


def rmi(
    context: typer.Context,
    names: list[str] = typer.Argument(
        None, metavar="IMAGE...", help="Names, ids or unique beginnings of ids.",
        autocompletion=completion.images, show_default=False,
    ),
    everything: bool = typer.Option(
        False, "--all", "-a", help="Remove all images.", show_default=False
    ),
    force: bool = typer.Option(
        False, "--force", "-f", help="Remove the containers that use it first.",
        show_default=False,
    ),
    ignore: bool = typer.Option(
        False, "--ignore", "-i", help="Do not mind names that do not exist.", show_default=False
    ),
) -> int:  # fmt: skip
    """Remove images.

    Exit code 1: one did not exist; 2: one is in use by a container; 125: anything else.
    """
    from rootlesspy.engine.images.image_removal import remove
    from rootlesspy.image.lists import all_lists
    from rootlesspy.image.store import Store

    session = context.obj
    paths = session.paths()
    if everything == bool(names):
        raise UsageError("rp rmi: name the images, or say --all", hint="rp rmi --help")
    chosen = list(names or ())
    if everything:
        found = all_lists(paths)
        chosen = [*(each.id for each in found), *(each.id for each in Store(paths).images())]
    removal = Removal(session.reporter)
    deleted = []
    for name in chosen:
        try:
            removed = remove(paths, name, force=force, reporter=session.reporter)
        except NotFound as error:
            if not (ignore or force):
                removal.failed(error)
        except Error as error:
            removal.failed(error)
        else:
            for untagged in removed.untagged:
                sys.stdout.write(f"Untagged: {escape(untagged)}\n")
            if removed.deleted is not None:
                deleted.append(f"Deleted: {hexadecimal(removed.deleted)}\n")
    # podman tells of all names first.
    sys.stdout.write("".join(deleted))
    return removal.exit_code


def _sort_lines(found: list[Line], order: str) -> None:
    found.sort(key=lambda line: (line.repository, line.tag))
    keys = {
        "created": lambda line: -line.image.created_s,
        "id": lambda line: line.image.id,
        "size": lambda line: line.image.size_bytes,
        "tag": lambda line: line.tag,
    }
    if order in keys:
        found.sort(key=keys[order])


def _users(paths: Paths) -> dict[str, list[str]]:
    from rootlesspy.engine.images.image_removal import users

    return users(paths)


def _show_formatted(
    found: list[Line], form: str, users: dict[str, list[str]], full: bool, *, heading: bool
) -> None:
    now_s = time.time()
    count = {line.image.id: len(users.get(line.image.id, ())) for line in found}
    output.show(
        form,
        image_rows.HEADERS,
        rows=lambda: [
            image_rows.row(line, now_s, count[line.image.id], full=full) for line in found
        ],
        json_rows=lambda: [
            image_rows.json_row(image, count[image.id])
            for image in {line.image.id: line.image for line in found}.values()
        ],
        heading=heading,
    )


def _table(found: list[Line], *, full: bool, digests: bool, heading: bool) -> str:
    now_s = time.time()
    titles = ["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"]
    rows = [
        [
            line.repository,
            line.tag,
            line.image.digest,
            line.short_id(full=full),
            human.ago(line.image.created_s, now_s),
            human.size(line.image.size_bytes),
        ]
        for line in found
    ]
    if not digests:
        for cells in [titles, *rows]:
            del cells[2]
    look = table.style()
    if full:
        look = look._replace(width=None)
    return table.render(
        tuple(titles),
        [tuple(cells) for cells in rows],
        look,
        heading=heading,
        cut=_CUT,
        cut_front=("REPOSITORY",),
    )
