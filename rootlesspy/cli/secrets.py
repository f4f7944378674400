"""`rp secret`: create, ls, inspect, rm, exists."""

from __future__ import annotations

import os
import sys
import time

from rootlesspy import paths as places
from rootlesspy.cli import human, output, table
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli.gotemplate_functions import Record
from rootlesspy.engine import secret
from rootlesspy.engine.inputs.values import parse_label
from rootlesspy.errors import Error, NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any
from rootlesspy.report import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.cli.session import Session
    from rootlesspy.engine.secret import Secret

_COLUMNS = ("ID", "NAME", "DRIVER", "CREATED", "UPDATED")
_HEADERS = {"CreatedAt": "CREATED", "UpdatedAt": "UPDATED"}
_FORMAT = "json, a Go template such as '{{.Name}} {{.ID}}', or table and a Go template."


def names_of(incomplete: str) -> list[str]:
    """Offer the names of secrets to the shell."""
    try:
        found = secret.everything(places.from_environment(os.environ))
    except (Error, OSError):
        return []
    return [each.name for each in found if each.name.startswith(incomplete)]


def _several(metavar: str = "SECRET...") -> Any:
    return typer.Argument(
        None, metavar=metavar, help="Names, ids or unique beginnings of ids.",
        autocompletion=names_of, show_default=False,
    )  # fmt: skip


def create(
    context: typer.Context,
    name: str = typer.Argument(..., metavar="NAME", help="Its name.", show_default=False),
    source: str = typer.Argument(
        ..., metavar="FILE|-", help="A file that holds the data; - reads standard input.",
        show_default=False,
    ),
    env: bool = typer.Option(
        False, "--env", help="FILE is the name of a variable that holds it.", show_default=False
    ),
    label: list[str] = typer.Option(
        None, "--label", "-l", metavar="KEY=VALUE", help="Label it.", show_default=False
    ),
    replace: bool = typer.Option(
        False, "--replace", help="Replace one of the same name.", show_default=False
    ),
) -> int:  # fmt: skip
    """Keep a secret for containers, and print its id.

    They get it by `rp run --secret NAME`, at each start as it is then.
    """
    session: Session = context.obj
    secret.check_name(name)
    labels = dict(parse_label(each, "--label") for each in label or ())
    made = secret.create(
        session.paths(), name, _read(source, from_environment=env), labels, replace=replace
    )
    sys.stdout.write(f"{made.id}\n")
    return 0


def ls(
    context: typer.Context,
    filters: list[str] = typer.Option(
        None, "--filter", "-f", metavar="KEY=VALUE", show_default=False,
        help="Only what fits: name or id (their beginning).",
    ),
    form: str | None = typer.Option(
        None, "--format", metavar="FORMAT", help=_FORMAT, show_default=False
    ),
    noheading: bool = typer.Option(
        False, "--noheading", "-n", help="Leave out the headings.", show_default=False
    ),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Print ids only.", show_default=False),
) -> int:  # fmt: skip
    """List secrets."""
    if quiet and form:
        raise UsageError("--quiet and --format exclude each other", hint="rp secret ls --help")
    session: Session = context.obj
    found = _matching(secret.everything(session.paths()), filters or ())
    now_s = time.time()
    if quiet:
        sys.stdout.write("".join(f"{each.id}\n" for each in found))
    elif form:
        output.show(
            form,
            _HEADERS,
            rows=lambda: [_row(each, now_s) for each in found],
            json_rows=lambda: [_document(each) for each in found],
            heading=not noheading,
        )
    else:
        cells = [tuple(map(escape, map(str, _row(each, now_s).values()))) for each in found]
        text = table.render(_COLUMNS, cells, table.style())
        sys.stdout.write(text.partition("\n")[2] if noheading else text)
    return 0


def inspect(
    context: typer.Context,
    names: list[str] = _several(),
    form: str | None = typer.Option(
        None, "--format", "-f", metavar="FORMAT", help=_FORMAT, show_default=False
    ),
    show: bool = typer.Option(
        False, "--showsecret", help="Show the data too.", show_default=False
    ),
) -> int:  # fmt: skip
    """Describe secrets, as podman secret inspect does."""
    session: Session = context.obj
    if not names:
        raise UsageError("rp secret inspect needs a name", hint="rp secret ls")
    paths, code = session.paths(), 0
    found = []
    for name in names:
        try:
            one = secret.find(paths, name)
            document = _document(one)
            if show:
                document["SecretData"] = secret.data(paths, one.name).decode("utf-8", "replace")
        except Error as error:
            session.reporter.error(error.message, error.hint)
            code = error.exit_code
        else:
            found.append(document)
    if form is None or output.is_json(form):
        output.print_json(found)
    else:
        for document in found:
            from rootlesspy.cli.inspect_fields import record

            output.show_one(record(document), form)
    return code


def rm(
    context: typer.Context,
    names: list[str] = _several("[SECRET...]"),
    everything: bool = typer.Option(
        False, "--all", "-a", help="Remove all secrets.", show_default=False
    ),
    ignore: bool = typer.Option(
        False, "--ignore", "-i", help="Do not mind what is gone already.", show_default=False
    ),
) -> int:  # fmt: skip
    """Remove secrets; print their ids.

    A container that was made with one does not start again without it.
    """
    session: Session = context.obj
    if everything == bool(names):
        raise UsageError("rp secret rm takes names or --all", hint="rp secret rm --help")
    paths = session.paths()
    code = 0
    for name in names or secret.names(paths):
        try:
            shown = secret.remove(paths, name)
        except Error as error:
            if not (ignore and isinstance(error, NotFound)):
                session.reporter.error(error.message, error.hint)
                code = error.exit_code
        else:
            sys.stdout.write(f"{shown}\n")
    return code


def exists(
    context: typer.Context,
    name: str = typer.Argument(
        ..., metavar="SECRET", help="Its name or id.", autocompletion=names_of, show_default=False
    ),
) -> int:  # fmt: skip
    """Exit with 0 if there is such a secret, with 1 if there is none."""
    try:
        secret.find(context.obj.paths(), name)
    except NotFound:
        return 1
    return 0


def _read(source: str, *, from_environment: bool) -> bytes:
    limit = secret.LIMIT_BYTES + 1
    if from_environment:
        value = os.environb.get(os.fsencode(source))
        if value is None:
            raise UsageError(f"--env: the variable {source} is not set", hint=f"export {source}=…")
        return value
    if source == "-":
        if os.isatty(0):
            raise UsageError(
                "the secret is to come from standard input, which is a terminal",
                hint="printf %s SECRET | rp secret create NAME -",
            )
        return sys.stdin.buffer.read(limit)
    try:
        with open(source, "rb") as file:
            return file.read(limit)
    except OSError as error:
        raise UsageError(
            f"{source}: {error.strerror}", hint="name a file, or - for stdin"
        ) from error


def _matching(found: Sequence[Secret], filters: Sequence[str]) -> list[Secret]:
    chosen = list(found)
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals or key not in ("name", "id"):
            raise UsageError(f"--filter {text!r}: expected KEY=VALUE", hint="keys: name, id")
        chosen = [each for each in chosen if str(getattr(each, key)).startswith(value)]
    return chosen


def _row(each: Secret, now_s: float) -> Record:
    return Record(
        ID=each.id,
        Name=each.name,
        Driver="file",
        CreatedAt=human.ago(each.created_s, now_s),
        UpdatedAt=human.ago(each.updated_s, now_s),
    )


def _document(each: Secret) -> dict[str, object]:
    from rootlesspy.engine.views.inspect import moment

    return {
        "ID": each.id,
        "CreatedAt": moment(each.created_s),
        "UpdatedAt": moment(each.updated_s),
        "Spec": {
            "Name": each.name,
            "Driver": {"Name": "file", "Options": {}},
            "Labels": each.labels,
        },
    }
