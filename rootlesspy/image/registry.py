"""Client of the OCI distribution API: manifests, blobs, uploads, tags, and who may be told what.

Nothing is trusted: every body has a limit, and what a registry may make us do is decided in
auth.py.  Requests themselves are transport.py's.  Two rounds of authentication at most.
"""

from __future__ import annotations

import hashlib
from urllib.parse import urlencode, urlsplit

from rootlesspy.errors import NotFound, RegistryError
from rootlesspy.image import auth, credentials, http_rules
from rootlesspy.image.body import Body, finish, read_all
from rootlesspy.image.documents import Document
from rootlesspy.image.http_rules import origin
from rootlesspy.image.reference import is_registry, is_repository
from rootlesspy.image.transfer import Interrupted
from rootlesspy.image.transport import NoTls, Transport
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rootlesspy.image.body import Response
    from rootlesspy.image.transport import Content
    from rootlesspy.report import Reporter
    from rootlesspy.settings import Source

_ACCEPT = ", ".join(
    (
        image_spec.INDEX,
        image_spec.MANIFEST,
        image_spec.DOCKER_LIST,
        image_spec.DOCKER_MANIFEST,
    )
)
_ATTEMPTS = 5
_AUTH_ROUNDS = 2
_MAX_TOKEN_BYTES = 1 << 20
_MAX_ERROR_BYTES = 1 << 16


class Client(Transport):
    """One user's view of registries: connections, tokens and credentials of this process."""

    def __init__(
        self,
        reporter: Reporter,
        *,
        environment: Mapping[str, str] | None = None,
        config_directory: str = "/nonexistent",
        certificates: str | None = None,
        given: auth.Credentials | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        """given is told instead of what auth.json holds; see Transport."""
        more = {} if sleep is None else {"sleep": sleep}
        super().__init__(
            reporter,
            environment=environment,
            config_directory=config_directory,
            certificates=certificates,
            **more,
        )
        self._given = given
        self._authorizations: dict[tuple[str, str, str], str] = {}

    def manifest(self, source: Source, reference: str) -> Document:
        """Fetch a manifest or index by tag or digest.

        Raises NotFound, RegistryError.
        """
        attempt = 0
        while True:
            try:
                return self._manifest(source, reference)
            except Interrupted:
                if attempt == _ATTEMPTS - 1:
                    raise
                self.pause(attempt)
                attempt += 1

    def _manifest(self, source: Source, reference: str) -> Document:
        path = f"manifests/{reference}"
        response = self.ask(source, path, {"Accept": _ACCEPT})
        try:
            if response.status != 200:
                raise failure(source, response, path)
            data = read_all(response, image_spec.MAX_DOCUMENT_BYTES, source.registry)
            return self._document(source, reference, response, data)
        finally:
            finish(response)

    def blob(self, source: Source, digest: str, *, offset: int, size: int) -> Body:
        """Open a blob from offset on; Body.offset says where it really begins (0 or offset).

        Raises NotFound, RegistryError; Interrupted when trying again may help.
        """
        path = f"blobs/{digest}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = self.ask(source, path, headers)
        if response.status not in (200, 206):
            try:
                raise failure(source, response, path)
            finally:
                response.close()
        problem = None
        start = 0
        if response.status == 206:
            start = offset
            if not (response.headers.get("Content-Range") or "").startswith(f"bytes {offset}-"):
                problem = "sent another part than was asked for"
        length = response.headers.get("Content-Length")
        if length is not None and length != str(size - start):
            problem = f"announced {length} bytes instead of {size - start}"
        if response.headers.get("Content-Encoding") not in (None, "identity"):
            problem = "sent a blob in another encoding"
        if problem is not None:
            response.close()
            raise Interrupted(f"registry {source.registry} {problem}")
        return Body(response, source.registry, start)

    def small_blob(self, source: Source, digest: str, size: int) -> bytes:
        """Return a whole blob of a few megabytes at most; its digest is the caller's to verify.

        Raises NotFound, RegistryError.
        """
        attempt = 0
        while True:
            try:
                body = self.blob(source, digest, offset=0, size=size)
                try:
                    return body.whole(size)
                finally:
                    body.close()
            except Interrupted:
                if attempt == _ATTEMPTS - 1:
                    raise
                self.pause(attempt)
                attempt += 1

    def ask(
        self,
        source: Source,
        path: str,
        headers: Mapping[str, str],
        *,
        method: str = "GET",
        content: Content | None = None,
        scope: str = "pull",
        mount_from: str = "",
    ) -> Response:
        """Send a request below /v2/REPOSITORY/, or to a whole URL, authenticating when asked to.

        scope is pull or pull,push; mount_from another repository that is to be read.  Raises
        RegistryError, Interrupted.
        """
        if not is_registry(source.registry) or not (
            not source.repository or is_repository(source.repository)
        ):
            raise RegistryError(f"{source.registry}/{source.repository} is not a repository")
        key = (source.registry, source.repository, f"{scope} {mount_from}")
        rounds = 0
        while True:
            base = self._base(source)
            url = f"{base}/v2/{source.repository}{'/' if source.repository else ''}{path}"
            if "://" in path:
                url = path
            try:
                response, answered = self._follow(
                    source,
                    url,
                    dict(headers),
                    self._authorizations.get(key),
                    method=method,
                    content=content,
                )
            except NoTls:
                self._plain_http.add(source.registry)
                continue
            rounds += 1
            if response.status != 401 or answered != origin(base) or rounds > _AUTH_ROUNDS:
                return response
            challenges = auth.parse_challenges(response.headers.getlist("WWW-Authenticate"))
            finish(response)
            self._authorizations[key] = self._authorize(source, challenges, scope, mount_from)

    def location_of(self, source: Source, path: str, location: str) -> str:
        """Return the URL that a Location header of an answer to path means.

        Raises RegistryError where a registry may not send us there.
        """
        asked = path if "://" in path else f"{self._base(source)}/v2/{source.repository}/{path}"
        return self._location(source, asked, location)

    # --- authentication ----------------------------------------------------------------------

    def _authorize(
        self, source: Source, challenges: list[auth.Challenge], scope: str, mount_from: str
    ) -> str:
        """Answer a challenge; return an Authorization header.  Raises RegistryError."""
        known, path = self._given, None
        if known is None:
            known, path = credentials.find(
                source.registry, source.repository, self._environment, self._config_directory
            )
        if path is not None and credentials.is_readable_by_others(path):
            self._reporter.notice(f"{path} can be read by others; cure: chmod 600 {path}")
        for challenge in challenges:
            if challenge.scheme == "bearer":
                scopes = [f"repository:{source.repository}:{scope}"] if source.repository else []
                if mount_from:
                    scopes.append(f"repository:{mount_from}:pull")
                return f"Bearer {self._token(source, challenge, known, scopes)}"
        is_tls = source.registry not in self._plain_http
        if known is not None and any(found.scheme == "basic" for found in challenges):
            if not is_tls:
                raise RegistryError(
                    f"registry {source.registry} wants a password over plain http: not sent"
                )
            return known.basic()
        raise _denied(source)

    def _token(
        self,
        source: Source,
        challenge: auth.Challenge,
        known: auth.Credentials | None,
        scopes: list[str],
    ) -> str:
        """Ask the token server that the registry names.  Raises RegistryError."""
        realm = challenge.get("realm")
        host = urlsplit(self._base(source)).hostname or ""
        auth.check_realm(
            realm,
            host,
            insecure=source.registry in self._plain_http,
            resolve=self._proxy(realm) is None,
        )
        query = [("scope", scope) for scope in scopes]
        if challenge.get("service"):
            query.insert(0, ("service", challenge.get("service")))
        headers = {}
        if known is not None and auth.may_have_password(realm, host):
            headers["Authorization"] = known.basic()
        url = realm.partition("#")[0]
        url += ("&" if "?" in url else "?") + urlencode(query)
        response = self._send(source, url, headers)
        try:
            if response.status != 200:
                raise _denied(source, f"token server {urlsplit(realm).netloc}: {response.status}")
            data = read_all(response, _MAX_TOKEN_BYTES, source.registry)
            return http_rules.parse_token(data, source.registry)
        finally:
            finish(response)

    # --- answers -----------------------------------------------------------------------------

    def _document(
        self, source: Source, reference: str, response: Response, data: bytes
    ) -> Document:
        announced = response.headers.get("Docker-Content-Digest")
        if announced is not None and not image_spec.is_digest(announced):
            raise RegistryError(f"registry {source.registry} sent the digest {announced!r}")
        expected = reference if image_spec.is_digest(reference) else announced
        algorithm = "sha256" if expected is None else expected.partition(":")[0]
        digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        if digest != (expected or digest):
            raise RegistryError(
                f"digest mismatch: registry {source.registry} sent {digest} for {expected}"
            )
        media_type = (response.headers.get("Content-Type") or "").partition(";")[0].strip()
        return Document(data, media_type, digest)


def failure(source: Source, response: Response, path: str) -> NotFound | RegistryError:
    """Say what a status that means failure means."""
    if response.status == 404:
        return NotFound(f"registry {source.registry} has no {source.repository} {path}")
    words = _error_message(response)
    if response.status in (401, 403):
        return _denied(source, words)
    told = f": {words}" if words else ""
    return RegistryError(f"registry {source.registry} answers {response.status}{told}")


def _error_message(response: Response) -> str:
    """Return what an error document of the distribution API says."""
    try:
        return http_rules.error_message(read_all(response, _MAX_ERROR_BYTES, ""))
    except RegistryError:
        return ""


def _denied(source: Source, words: str = "") -> RegistryError:
    told = f" ({words})" if words else ""
    return RegistryError(
        f"registry {source.registry} denies access to {source.repository}{told}",
        hint=f"it may not exist, or it needs a login: rp login {source.registry}",
    )
