"""`rp image trust` and `rp image verify`: what is accepted, and whether it still is the same."""

from __future__ import annotations

import sys

from rootlesspy.cli import completion, output, table
from rootlesspy.cli import light_typer as typer
from rootlesspy.engine.inputs.values import parse_choice
from rootlesspy.errors import Error
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.report import escape

if TYPE_CHECKING:
    from rootlesspy.image.trust.description import Line

_TYPES = ("accept", "reject", "signedBy", "sigstoreSigned")
_HEADINGS = ("TRANSPORT", "NAME", "TYPE", "ID", "STORE")


def show(
    context: typer.Context,
    registry: str | None = typer.Argument(
        None, metavar="[SCOPE]", help="Only this scope, such as docker.io/library.",
        show_default=False,
    ),
    as_json: bool = typer.Option(False, "--json", "-j", help="Print JSON.", show_default=False),
    noheading: bool = typer.Option(
        False, "--noheading", "-n", help="Leave out the headings.", show_default=False
    ),
    raw: bool = typer.Option(
        False, "--raw", help="Print the file of the policy as it is.", show_default=False
    ),
) -> int:  # fmt: skip
    """Show which images are accepted from where, and who has to have signed them."""
    from rootlesspy.image.trust import description, policy, registries_d

    paths = context.obj.paths()
    path = policy.find(paths)
    if raw:
        data = b'{"default":[{"type":"insecureAcceptAnything"}]}'
        sys.stdout.write((policy.read(path) if path else data).decode("utf-8", "replace") + "\n")
        return 0
    lines = description.lines(policy.load(paths), registries_d.load(paths))
    if registry is not None:
        lines = [each for each in lines if registry in (each.repository, each.name)]
    if as_json:
        output.print_json([_json(each) for each in lines])
        return 0
    rows = [(each.transport, each.repository, each.type, each.keys, each.store) for each in lines]
    look = table.style()._replace(width=None)
    sys.stdout.write(table.render(_HEADINGS, rows, look, heading=not noheading))
    return 0


def set_(
    context: typer.Context,
    scope: str = typer.Argument(
        ..., metavar="SCOPE", show_default=False,
        help="A registry, a namespace or repository in it, *.HOST, or default.",
    ),
    keys: list[str] = typer.Option(
        None, "--pubkeysfile", "-f", metavar="KEY", show_default=False,
        help="File of a public key; of several, all have to have signed.",
    ),
    kind: str = typer.Option(
        "signedBy", "--type", "-t", metavar="TYPE",
        help="accept, reject, signedBy (OpenPGP) or sigstoreSigned.",
    ),
) -> int:  # fmt: skip
    """Set what is required of images of a registry, in ~/.config/containers/policy.json."""
    from rootlesspy.image.trust import change

    parse_choice(kind, "--type", _TYPES)
    change.put(context.obj.paths(), scope, kind, keys or ())
    return 0


def verify(
    context: typer.Context,
    names: list[str] = typer.Argument(
        ..., metavar="IMAGE...", help="Names, ids or unique beginnings of ids.",
        autocompletion=completion.images, show_default=False,
    ),
) -> int:  # fmt: skip
    """Compare images that are here with their digests, down to the unpacked files.

    Each layer is unpacked once more and compared: content, modes, owners, attributes, and that
    nothing was added. Exit code 125: something is not what its digest says.
    """
    from rootlesspy.engine.images import verification

    session = context.obj
    whole = True
    for name in names:
        try:
            image, layers = verification.verify(session.paths(), name)
        except Error as error:
            session.reporter.error(error.message, error.hint)
            whole = False
        else:
            noun = "layer" if layers == 1 else "layers"
            shown = image.names[0] if image.names else image.id
            sys.stdout.write(f"{escape(shown)}: {layers} {noun} verified\n")
    return 0 if whole else Error.exit_code


def _json(line: Line) -> dict[str, str]:
    described = {
        "transport": line.transport,
        "name": line.name,
        "repo_name": line.repository,
        "sigstore": line.store,
        "type": line.type,
        "gpg_id": line.keys,
    }
    return {key: value for key, value in described.items() if value}
