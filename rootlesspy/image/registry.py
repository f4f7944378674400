"""Client of the OCI distribution API, on urllib3: manifests and blobs, and what goes wrong there.

The only module that speaks HTTP.  Nothing is trusted: every body has a limit, redirects are
followed by hand and never carry credentials to another origin, TLS is always verified unless
registries.conf says insecure.  What a registry may make us do is decided in auth.py.

Bounds: 10 s to connect per address, 30 s without progress, five attempts, five redirects, two
rounds of authentication; waits that a registry asks for are cut at 60 s.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InsecureRequestWarning,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from rootlesspy import __version__
from rootlesspy.errors import NotFound, RegistryError
from rootlesspy.image import auth, http_rules, tls
from rootlesspy.image.body import Body, finish, read_all, reason
from rootlesspy.image.http_rules import origin
from rootlesspy.image.reference import is_registry, is_repository
from rootlesspy.image.transfer import Interrupted
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rootlesspy.image.body import Response
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
_TIMEOUT = urllib3.Timeout(connect=10, read=30)
_ATTEMPTS = 5
_REDIRECTS = 5
_AUTH_ROUNDS = 2
_MAX_TOKEN_BYTES = 1 << 20
_MAX_ERROR_BYTES = 1 << 16
_TRANSIENT = frozenset((408, 429, 500, 502, 503, 504))
_MOVED = frozenset((301, 302, 303, 307, 308))
_API_HOSTS = {"docker.io": "registry-1.docker.io"}


class _NoTls(Exception):
    """A registry that is configured as insecure does not speak TLS."""


class Document(NamedTuple):
    """A manifest or index as the registry sent it; digest is that of data."""

    data: bytes
    media_type: str
    digest: str


class Client:
    """One user's view of registries: connections, tokens and credentials of this process.

    After a fork the child calls forget_connections(): a TLS session cannot be shared.
    """

    def __init__(
        self,
        reporter: Reporter,
        *,
        environment: Mapping[str, str] | None = None,
        config_directory: str = "/nonexistent",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._reporter = reporter
        self._environment = dict(os.environ if environment is None else environment)
        self._config_directory = config_directory
        self._sleep = sleep
        self._pools: dict[tuple[str | None, str, bool], urllib3.PoolManager] = {}
        self._authorizations: dict[tuple[str, str], str] = {}
        self._plain_http: set[str] = set()

    def forget_connections(self) -> None:
        """Close this process's copies of all connections, but keep the tokens."""
        for pool in self._pools.values():
            pool.clear()
        self._pools = {}

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
        response = self._get(source, path, {"Accept": _ACCEPT})
        try:
            if response.status != 200:
                raise self._failure(source, response, path)
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
        response = self._get(source, path, headers)
        if response.status not in (200, 206):
            try:
                raise self._failure(source, response, path)
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

    def pause(self, attempt: int) -> None:
        """Wait before trying again: half a second, doubled each time, eight at most."""
        self._sleep(http_rules.backoff_s(attempt))

    # --- one request -------------------------------------------------------------------------

    def _get(self, source: Source, path: str, headers: dict[str, str]) -> Response:
        """GET below /v2/REPOSITORY/, authenticating when asked to.  Raises RegistryError."""
        if not is_registry(source.registry) or not is_repository(source.repository):
            raise RegistryError(f"{source.registry}/{source.repository} is not a repository")
        key = (source.registry, source.repository)
        rounds = 0
        while True:
            base = self._base(source)
            url = f"{base}/v2/{source.repository}/{path}"
            try:
                response, answered = self._follow(
                    source, url, headers, self._authorizations.get(key)
                )
            except _NoTls:
                self._plain_http.add(source.registry)
                continue
            rounds += 1
            if response.status != 401 or answered != origin(base) or rounds > _AUTH_ROUNDS:
                return response
            challenges = auth.parse_challenges(response.headers.getlist("WWW-Authenticate"))
            finish(response)
            self._authorizations[key] = self._authorize(source, challenges)

    def _base(self, source: Source) -> str:
        scheme = "http" if source.registry in self._plain_http else "https"
        return f"{scheme}://{_API_HOSTS.get(source.registry, source.registry)}"

    def _follow(
        self, source: Source, url: str, headers: dict[str, str], authorization: str | None
    ) -> tuple[Response, str]:
        """Send a request and follow its redirects; return the response and who gave it."""
        first = origin(url)
        for _ in range(_REDIRECTS + 1):
            sent = dict(headers)
            if authorization is not None and origin(url) == first:
                sent["Authorization"] = authorization
            response = self._send(source, url, sent)
            location = response.headers.get("Location")
            if response.status not in _MOVED or location is None:
                return response, origin(url)
            finish(response)
            following = urljoin(url, location)
            self._check_redirect(source, url, following)
            url = following.partition("#")[0]
        raise RegistryError(f"registry {source.registry} redirects more than {_REDIRECTS} times")

    def _check_redirect(self, source: Source, url: str, following: str) -> None:
        """Refuse targets that a registry may not send us to.  Raises RegistryError."""
        parts = urlsplit(following) if following.isascii() and following.isprintable() else None
        if parts is None or parts.hostname is None or parts.scheme not in ("http", "https"):
            raise RegistryError(f"registry {source.registry} redirects to {following!r}")
        if parts.scheme == "http" and urlsplit(url).scheme == "https":
            raise RegistryError(f"registry {source.registry} redirects from https to http")
        host = urlsplit(self._base(source)).hostname or ""
        if parts.hostname != host:
            auth.check_not_private(parts.hostname, host, resolve=self._proxy(following) is None)

    def _send(self, source: Source, url: str, headers: dict[str, str]) -> Response:
        """Send one GET, again after failures that may pass.  Raises RegistryError."""
        for attempt in range(_ATTEMPTS):
            is_last = attempt == _ATTEMPTS - 1
            try:
                response = self._request(source, url, headers)
            except (HTTPError, OSError) as error:
                if self._has_no_tls(source, url, error):
                    raise _NoTls from error
                if is_last or not isinstance(error, (ProtocolError, ReadTimeoutError)):
                    raise self._unreachable(source, error) from error
                self.pause(attempt)
                continue
            if response.status not in _TRANSIENT or is_last:
                return response
            wait = http_rules.retry_after_s(
                response.headers.get("Retry-After"), http_rules.backoff_s(attempt)
            )
            finish(response)
            self._reporter.step(
                f"{urlsplit(url).netloc}: status {response.status}, in {wait:.1f} s"
            )
            self._sleep(wait)
        raise RegistryError(f"registry {source.registry} does not answer", hint="try again later")

    def _request(self, source: Source, url: str, headers: dict[str, str]) -> Response:
        self._reporter.step(f"GET {url.partition('?')[0]}")
        all_headers = {
            "User-Agent": f"rootlesspy/{__version__}",
            "Accept-Encoding": "identity",
            **headers,
        }
        with warnings.catch_warnings():
            # Somebody wrote "insecure" into registries.conf: that is notice enough.
            warnings.simplefilter("ignore", InsecureRequestWarning)
            response = self._pool(source, url).request(
                "GET",
                url,
                headers=all_headers,
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
                timeout=_TIMEOUT,
            )
        return cast("Response", response)

    def _pool(self, source: Source, url: str) -> urllib3.PoolManager:
        host = urlsplit(url).netloc
        # Only the registry itself is excused from TLS, never a server that it points to.
        insecure = source.insecure and origin(url) == origin(self._base(source))
        proxy = self._proxy(url)
        key = (proxy, host, insecure)
        if key not in self._pools:
            context = tls.context(
                host,
                insecure=insecure,
                config_directory=self._config_directory,
                # urllib3 1.26 leaves addresses out of the handshake and compares names itself.
                compares_names=hasattr(urllib3, "BaseHTTPResponse"),
            )
            if proxy is None:
                self._pools[key] = urllib3.PoolManager(num_pools=4, ssl_context=context)
            else:
                self._pools[key] = _proxy_manager(proxy, context)
        return self._pools[key]

    def _proxy(self, url: str) -> str | None:
        """Return the proxy that the environment names for url."""
        return http_rules.proxy(url, self._environment)

    def _has_no_tls(self, source: Source, url: str, error: Exception) -> bool:
        """Say whether to go on without TLS: only where registries.conf says insecure."""
        return (
            source.insecure
            and url.startswith(f"{self._base(source)}/v2/")
            and url.startswith("https:")
            and isinstance(error, (SSLError, NewConnectionError, ProtocolError, ProxyError))
        )

    # --- authentication ----------------------------------------------------------------------

    def _authorize(self, source: Source, challenges: list[auth.Challenge]) -> str:
        """Answer a challenge; return an Authorization header.  Raises RegistryError."""
        credentials, path = auth.find_credentials(
            source.registry, source.repository, self._environment, self._config_directory
        )
        if path is not None and auth.is_readable_by_others(path):
            self._reporter.notice(f"{path} can be read by others; cure: chmod 600 {path}")
        for challenge in challenges:
            if challenge.scheme == "bearer":
                return f"Bearer {self._token(source, challenge, credentials)}"
        is_tls = source.registry not in self._plain_http
        if credentials is not None and any(found.scheme == "basic" for found in challenges):
            if not is_tls:
                raise RegistryError(
                    f"registry {source.registry} wants a password over plain http: not sent"
                )
            return credentials.basic()
        raise _denied(source)

    def _token(
        self, source: Source, challenge: auth.Challenge, credentials: auth.Credentials | None
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
        query = [("scope", f"repository:{source.repository}:pull")]
        if challenge.get("service"):
            query.insert(0, ("service", challenge.get("service")))
        headers = {}
        if credentials is not None and auth.may_have_password(realm, host):
            headers["Authorization"] = credentials.basic()
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

    def _failure(self, source: Source, response: Response, path: str) -> NotFound | RegistryError:
        """Say what a status other than 200 means."""
        if response.status == 404:
            return NotFound(f"registry {source.registry} has no {source.repository} {path}")
        words = _error_message(response)
        if response.status in (401, 403):
            return _denied(source, words)
        told = f": {words}" if words else ""
        return RegistryError(f"registry {source.registry} answers {response.status}{told}")

    def _unreachable(self, source: Source, error: Exception) -> RegistryError:
        """Say why no answer came."""
        host = source.registry
        certificate = tls.certificate_problem(error)
        if certificate is not None:
            return RegistryError(certificate.message(host), hint=certificate.hint(host))
        # urllib3 calls refused connections a kind of timeout.
        timed_out = isinstance(error, (ConnectTimeoutError, ReadTimeoutError))
        if timed_out and not isinstance(error, NewConnectionError):
            return RegistryError(
                f"registry {host} does not answer: timed out",
                hint="check the network and a proxy, or configure a mirror in registries.conf",
            )
        if isinstance(error, ProxyError):
            return RegistryError(
                f"registry {host} unreachable: proxy failed: {reason(error)}",
                hint="env | grep -i proxy",
            )
        return RegistryError(
            f"registry {host} unreachable: {reason(error)}",
            hint=None
            if source.insecure
            else "check the name and the network, or configure a mirror",
        )


def _proxy_manager(proxy: str, context: object) -> urllib3.PoolManager:
    parts = urlsplit(proxy)
    headers = None
    if parts.username is not None:
        pair = f"{parts.username}:{parts.password or ''}"
        headers = urllib3.make_headers(proxy_basic_auth=pair)
        bare = parts.netloc.rpartition("@")[2]
        proxy = urlunsplit(parts._replace(netloc=bare))
    return urllib3.ProxyManager(proxy, num_pools=4, ssl_context=context, proxy_headers=headers)


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
        hint="it may not exist, or it needs a login: podman login or docker login writes auth.json",
    )
