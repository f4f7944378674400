"""`rp login`, `rp logout` and `rp search`."""

from __future__ import annotations

import os
import sys

from rootlesspy.cli import light_typer as typer
from rootlesspy.cli import output, registry_access, table
from rootlesspy.cli.gotemplate_functions import Record
from rootlesspy.errors import Error, NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any
from rootlesspy.report import escape

if TYPE_CHECKING:
    from rootlesspy.cli.session import Session
    from rootlesspy.image.auth import Credentials
    from rootlesspy.image.listing import Found
    from rootlesspy.settings import Settings, Source

_DEFAULT = "docker.io"
_SEARCH_LIMIT = 25
_REGISTRY_HELP = "Host, or host:port; default: docker.io."
_HEADERS = {"Official": "OFFICIAL", "Tag": "TAG"}


def login(
    context: typer.Context,
    registry: str | None = typer.Argument(
        None, metavar="[REGISTRY]", help=_REGISTRY_HELP, show_default=False
    ),
    authfile: str | None = typer.Option(
        None, "--authfile", metavar="PATH", help="File to write.", show_default=False
    ),
    cert_dir: str | None = typer.Option(
        None, "--cert-dir", metavar="PATH", help=registry_access.CERT_DIR_HELP, show_default=False
    ),
    get_login: bool = typer.Option(
        False, "--get-login", help="Print the user who is logged in.", show_default=False
    ),
    password: str | None = typer.Option(
        None, "--password", "-p", metavar="TEXT", show_default=False,
        help="Password; seen in ps and in the shell's history: better --password-stdin.",
    ),
    password_stdin: bool = typer.Option(
        False, "--password-stdin", help="Read the password from stdin.", show_default=False
    ),
    tls_verify: bool | None = typer.Option(
        None, "--tls-verify/--no-tls-verify", help=registry_access.TLS_HELP, show_default=False
    ),
    username: str | None = typer.Option(
        None, "--username", "-u", metavar="NAME", help="User name.", show_default=False
    ),
) -> int:  # fmt: skip
    """Store credentials for a registry, once it has accepted them."""
    from rootlesspy.image import credentials

    session = context.obj
    source = _source(session, registry, tls_verify)
    environment, path = _files(session, authfile)
    config = session.paths().config
    known, _ = credentials.find(source.registry, "", environment, config)
    if get_login:
        if known is None:
            raise _not_logged_in(source.registry)
        sys.stdout.write(f"{escape(known.username)}\n")
        return 0
    from rootlesspy.image import login as logging_in
    from rootlesspy.image.registry import Client

    given = _typed(username, password, known, from_stdin=password_stdin)
    client = Client(
        session.reporter,
        environment=environment,
        config_directory=config,
        certificates=cert_dir,
        given=given,
    )
    logging_in.check(client, source)
    credentials.store(path, source.registry, given, environment)
    sys.stdout.write("Login Succeeded!\n")
    return 0


def logout(
    context: typer.Context,
    registry: str | None = typer.Argument(
        None, metavar="[REGISTRY]", help=_REGISTRY_HELP, show_default=False
    ),
    everything: bool = typer.Option(
        False, "--all", "-a", help="Forget all registries.", show_default=False
    ),
    authfile: str | None = typer.Option(
        None, "--authfile", metavar="PATH", help="File to write.", show_default=False
    ),
) -> int:  # fmt: skip
    """Forget the credentials for a registry."""
    from rootlesspy.image import credentials

    if everything and registry is not None:
        raise UsageError("rp logout: name a registry, or say --all", hint="rp logout --help")
    session = context.obj
    environment, path = _files(session, authfile)
    name = None if everything else _source(session, registry, None).registry
    had_any = credentials.forget(path, name, environment)
    if name is None:
        sys.stdout.write("Removed login credentials for all registries\n")
        return 0
    if not had_any:
        raise _not_logged_in(name)
    sys.stdout.write(f"Removed login credentials for {name}\n")
    return 0


def search(
    context: typer.Context,
    term: str = typer.Argument(
        ..., metavar="TERM", show_default=False,
        help="A part of a name; with a registry in front (host/term) in that one.",
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
    filters: list[str] = typer.Option(
        None, "--filter", "-f", metavar="KEY=VALUE", help="stars=NUMBER or is-official[=BOOLEAN].",
        show_default=False,
    ),
    form: str | None = typer.Option(
        None, "--format", metavar="FORMAT", show_default=False,
        help="json, a Go template, or table and a Go template.",
    ),
    limit: int = typer.Option(
        0, "--limit", metavar="N", help="At most so many; default: 25.", show_default=False
    ),
    list_tags: bool = typer.Option(
        False, "--list-tags", help="List the tags of a repository.", show_default=False
    ),
    no_trunc: bool = typer.Option(
        False, "--no-trunc", help="Do not shorten descriptions.", show_default=False
    ),
    tls_verify: bool | None = typer.Option(
        None, "--tls-verify/--no-tls-verify", help=registry_access.TLS_HELP, show_default=False
    ),
) -> int:  # fmt: skip
    """Search a registry for images."""
    from rootlesspy import settings

    session = context.obj
    if not 0 <= limit <= 1000:
        raise UsageError(f"--limit {limit}: expected 1 to 1000")
    client = registry_access.client(session, authfile=authfile, creds=creds, cert_dir=cert_dir)
    configuration = settings.load(session.paths())
    insecure = registry_access.insecure(tls_verify)
    if list_tags:
        rows = _tag_rows(client, configuration, term, insecure, limit or None)
        columns: tuple[str, ...] = ("Name", "Tag")
    else:
        found = _search(client, configuration, term, insecure, limit or _SEARCH_LIMIT)
        rows = [_row(each, full=no_trunc) for each in _filtered(found, filters or ())]
        columns = ("Name", "Description")
    if form:
        output.show(form, _HEADERS, rows=lambda: rows, json_rows=lambda: _json(rows))
        return 0
    cells = [tuple(str(row[column]) for column in columns) for row in rows]
    if cells:
        titles = tuple(column.upper() for column in columns)
        sys.stdout.write(table.render(titles, cells, table.style()._replace(width=None)))
    return 0


def _json(rows: list[Record]) -> list[dict[str, Any]]:
    """Return what `--format json` shows: of tags one element for their repository."""
    if rows and "Tag" in rows[0] and "Index" not in rows[0]:
        return [{"Name": rows[0]["Name"], "Tags": [row["Tag"] for row in rows]}]
    return [dict(row) for row in rows]


def _tag_rows(
    client: Any, configuration: Settings, term: str, insecure: bool | None, limit: int | None
) -> list[Record]:
    from rootlesspy.image import listing
    from rootlesspy.image.copy import target_of
    from rootlesspy.image.reference import parse

    reference = parse(configuration.resolve_alias(term))
    tags = listing.tags(client, target_of(reference, configuration, insecure), limit)
    return [Record(Name=reference.name, Tag=tag) for tag in tags]


def _search(
    client: Any, configuration: Settings, term: str, insecure: bool | None, limit: int
) -> list[Found]:
    """Ask Docker Hub, or the registry in front of the term."""
    from rootlesspy.image import listing
    from rootlesspy.image.reference import is_registry

    host, slash, rest = term.partition("/")
    if not slash or not (is_registry(host) and ("." in host or ":" in host or host == "localhost")):
        return listing.search_hub(client, term, limit)
    if host == _DEFAULT:
        return listing.search_hub(client, rest, limit)
    source = _with_tls(configuration.sources(f"{host}/_", by_digest=False)[-1], insecure)
    names = listing.repositories(client, source._replace(repository=""))
    return [listing.Found(f"{host}/{name}", "", 0, False) for name in names if rest in name][:limit]


def _filtered(found: list[Found], filters: list[str] | tuple[str, ...]) -> list[Found]:
    for text in filters:
        key, _, value = text.partition("=")
        if key == "stars" and value.isascii() and value.isdigit():
            found = [each for each in found if each.stars >= int(value)]
        elif key == "is-official" and value in ("", "true", "false"):
            found = [each for each in found if each.is_official is (value != "false")]
        else:
            raise UsageError(
                f"--filter {text!r}: expected KEY=VALUE", hint="keys: stars, is-official"
            )
    return found


def _row(found: Found, *, full: bool) -> Record:
    description = found.description.replace("\n", " ")
    if not full and len(description) > 44:
        description = f"{description[:44]}..."
    return Record(
        Index=found.name.partition("/")[0],
        Name=found.name,
        Description=description,
        Stars=found.stars,
        Official="[OK]" if found.is_official else "",
        Automated="",
        Tag="",
    )


def _typed(
    username: str | None, password: str | None, known: Credentials | None, *, from_stdin: bool
) -> Credentials:
    """Return what was typed, asking for what is missing.  Raises UsageError, Error."""
    from rootlesspy.image.auth import Credentials

    if from_stdin:
        if password is not None:
            raise UsageError("--password and --password-stdin exclude each other")
        if username is None:
            raise UsageError("--password-stdin needs --username")
        password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    if username is None:
        if not os.isatty(0):
            raise UsageError("rp login asks on a terminal", hint="--username, --password-stdin")
        offered = f" ({escape(known.username)})" if known else ""
        username = input(f"Username{offered}: ").strip() or (known.username if known else "")
    if password is None:
        if not os.isatty(0):
            raise UsageError("rp login asks on a terminal", hint="--password-stdin")
        import getpass

        password = getpass.getpass("Password: ")
    if not username or not password or ":" in username:
        raise Error("a login needs a user name, without a colon, and a password")
    return Credentials(username, password)


def _source(session: Session, registry: str | None, tls_verify: bool | None) -> Source:
    """Return the registry that was typed.  Raises UsageError."""
    from rootlesspy import settings
    from rootlesspy.image.reference import is_registry

    name = (registry or _DEFAULT).removeprefix("https://").rstrip("/")
    name = {"index.docker.io": _DEFAULT, "registry-1.docker.io": _DEFAULT}.get(name, name)
    if not is_registry(name):
        raise UsageError(f"{name!r} is not a registry", hint="such as ghcr.io or host:5000")
    found = settings.load(session.paths()).sources(f"{name}/_", by_digest=False)[-1]
    return _with_tls(found, registry_access.insecure(tls_verify))._replace(
        registry=name, repository=""
    )


def _with_tls(source: Source, insecure: bool | None) -> Source:
    return source if insecure is None else source._replace(insecure=insecure)


def _files(session: Session, authfile: str | None) -> tuple[dict[str, str], str]:
    """Return the environment with the file that was named, and the file that is written."""
    from rootlesspy.image import credentials

    environment = dict(session.environment)
    if authfile is not None:
        environment["REGISTRY_AUTH_FILE"] = authfile
    path = credentials.files(environment, session.paths().config)[0]
    return environment, path


def _not_logged_in(registry: str) -> NotFound:
    return NotFound(f"not logged in to {registry}", hint=f"rp login {registry}")
