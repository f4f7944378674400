"""What the commands that talk to registries have in common: TLS, passwords, certificates."""

from __future__ import annotations

import os

from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.cli.session import Session
    from rootlesspy.image.registry import Client
    from rootlesspy.settings import Settings

AUTHFILE_HELP = "File of credentials; default: $REGISTRY_AUTH_FILE, auth.json, Docker's."
CREDS_HELP = "Credentials in place of stored ones; the password is seen in ps: better rp login."
CERT_DIR_HELP = "Directory of certificates in place of certs.d."
SIGNATURE_POLICY_HELP = "File of the signature policy in place of policy.json."
TLS_HELP = "Require TLS with a valid certificate; default: what registries.conf says."


def client(
    session: Session,
    *,
    authfile: str | None = None,
    creds: str | None = None,
    cert_dir: str | None = None,
) -> Client:
    """Return a client of registries.  Raises UsageError for credentials without a colon."""
    return client_maker(session, authfile=authfile, creds=creds, cert_dir=cert_dir)()


def client_maker(
    session: Session,
    *,
    authfile: str | None = None,
    creds: str | None = None,
    cert_dir: str | None = None,
) -> Callable[[], Client]:
    """Return what makes such a client; nothing is imported before.  Raises as client() does."""
    environment = dict(session.environment)
    if authfile is not None:
        if not os.path.isfile(authfile):
            raise UsageError(f"--authfile {authfile}: there is no such file")
        environment["REGISTRY_AUTH_FILE"] = authfile
    username, colon, password = (creds or "").partition(":")
    if creds is not None and (not colon or not username):
        raise UsageError("--creds: expected USERNAME:PASSWORD")
    config_directory = session.paths().config

    def make() -> Client:
        from rootlesspy.image.auth import Credentials
        from rootlesspy.image.registry import Client

        return Client(
            session.reporter,
            environment=environment,
            config_directory=config_directory,
            certificates=cert_dir,
            given=None if creds is None else Credentials(username, password),
        )

    return make


def insecure(tls_verify: bool | None) -> bool | None:
    """Return whether TLS may fail: None leaves it to registries.conf."""
    return None if tls_verify is None else not tls_verify


def all_tags(client: Client, settings: Settings, name: str, insecure: bool | None) -> list[str]:
    """Return a name with each tag that its repository has.

    Raises UsageError for a name with a tag, NotFound, RegistryError.
    """
    from rootlesspy.image import listing
    from rootlesspy.image.copy import target_of
    from rootlesspy.image.reference import parse

    reference = parse(settings.resolve_alias(name))
    if name.endswith(f":{reference.tag}") or reference.digest is not None:
        raise UsageError(f"{name} has a tag already", hint="leave it out with --all-tags")
    source = target_of(reference, settings, insecure)
    return [f"{reference.name}:{tag}" for tag in listing.tags(client, source)]
