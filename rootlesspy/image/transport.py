"""Requests to registries over urllib3: connections, redirects, proxies, and what goes wrong there.

The only module that speaks HTTP.  Nothing is trusted: redirects are followed by hand and never
carry credentials to another origin, TLS is always verified unless registries.conf or the command
line says insecure.

Bounds: 10 s to connect per address, 30 s without progress, five attempts, five redirects; waits
that a registry asks for are cut at 60 s.
"""

from __future__ import annotations

import os
import time
import warnings
from urllib.parse import urljoin, urlsplit, urlunsplit

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
from rootlesspy.errors import NotFound, RegistryError, UsageError
from rootlesspy.image import auth, http_rules, tls
from rootlesspy.image.body import Body, finish, reason
from rootlesspy.image.http_rules import origin
from rootlesspy.image.transfer import Interrupted
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, cast
from rootlesspy.settings import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from ssl import SSLContext

    from rootlesspy.image.body import Response
    from rootlesspy.report import Reporter

_TIMEOUT = urllib3.Timeout(connect=10, read=30)
_ATTEMPTS = 5
_REDIRECTS = 5
_TRANSIENT = frozenset((408, 429, 500, 502, 503, 504))
_MOVED = frozenset((301, 302, 303, 307, 308))
_API_HOSTS = {"docker.io": "registry-1.docker.io"}


class NoTls(Exception):
    """A registry that is configured as insecure does not speak TLS."""


class Content(NamedTuple):
    """What is sent with a request: its length, and a maker of its pieces for each attempt."""

    length: int
    pieces: Callable[[], Iterator[bytes]]


class Transport:
    """One user's connections to registries.

    After a fork the child calls forget_connections(): a TLS session cannot be shared.
    """

    def __init__(
        self,
        reporter: Reporter,
        *,
        environment: Mapping[str, str] | None = None,
        config_directory: str = "/nonexistent",
        certificates: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """certificates is a directory as in certs.d that is used for every registry."""
        self._reporter = reporter
        self._environment = dict(os.environ if environment is None else environment)
        self._config_directory = config_directory
        self._certificates = certificates
        self._sleep = sleep
        self._pools: dict[tuple[str | None, str, str, bool], urllib3.PoolManager] = {}
        self._plain_http: set[str] = set()

    def forget_connections(self) -> None:
        """Close this process's copies of all connections, but keep the tokens."""
        for pool in self._pools.values():
            pool.clear()
        self._pools = {}

    def pause(self, attempt: int) -> None:
        """Wait before trying again: half a second, doubled each time, eight at most."""
        self._sleep(http_rules.backoff_s(attempt))

    def fetch(self, url: str) -> Body:
        """Open what a URL that somebody typed leads to, without any credentials.

        Raises UsageError for what is no URL of a server, NotFound, RegistryError.
        """
        parts = urlsplit(url) if url.isascii() and url.isprintable() else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url!r} is not an http or https URL")
        if parts.username is not None:
            raise UsageError("a URL with a password in it would be seen by everybody")
        if parts.scheme == "http":
            self._plain_http.add(parts.netloc)
        source = Source(parts.netloc, "", parts.scheme == "http")
        response, answered = self._follow(source, url.partition("#")[0], {}, None)
        if response.status != 200:
            status = response.status
            finish(response)
            kind = NotFound if status == 404 else RegistryError
            raise kind(f"{parts.netloc} answers {status} to {parts.path}")
        return Body(response, urlsplit(answered).netloc, 0)

    def _follow(
        self,
        source: Source,
        url: str,
        headers: dict[str, str],
        authorization: str | None,
        *,
        method: str = "GET",
        content: Content | None = None,
    ) -> tuple[Response, str]:
        """Send a request and follow its redirects; return the response and who gave it.

        authorization goes to the registry's own origin and nowhere else, whatever url is.
        """
        first = origin(self._base(source))
        for _ in range(_REDIRECTS + 1):
            sent = dict(headers)
            if authorization is not None and origin(url) == first:
                sent["Authorization"] = authorization
            response = self._send(source, url, sent, method=method, content=content)
            location = response.headers.get("Location")
            if response.status not in _MOVED or location is None:
                return response, origin(url)
            finish(response)
            url = self._location(source, url, location)
        raise RegistryError(f"registry {source.registry} redirects more than {_REDIRECTS} times")

    def _location(self, source: Source, url: str, location: str) -> str:
        """Return where a Location header leads.  Raises RegistryError where it may not lead."""
        following = urljoin(url, location)
        self._check_redirect(source, url, following)
        return following.partition("#")[0]

    def _send(
        self,
        source: Source,
        url: str,
        headers: dict[str, str],
        *,
        method: str = "GET",
        content: Content | None = None,
    ) -> Response:
        """Send one request, again after failures that may pass.  Raises RegistryError.

        What changes something in the registry (all but GET and HEAD) is sent once, unless it was
        refused as too early: the caller knows how to go on.
        """
        repeatable = method in ("GET", "HEAD")
        for attempt in range(_ATTEMPTS):
            is_last = attempt == _ATTEMPTS - 1
            try:
                response = self._request(source, url, headers, method, content)
            except (HTTPError, OSError) as error:
                if self._has_no_tls(source, url, error):
                    raise NoTls from error
                passing = isinstance(error, (ProtocolError, ReadTimeoutError))
                if passing and not repeatable:
                    raise Interrupted(f"registry {source.registry}: {reason(error)}") from error
                if is_last or not passing:
                    raise self._unreachable(source, error) from error
                self.pause(attempt)
                continue
            if response.status not in _TRANSIENT or is_last:
                return response
            if not repeatable and response.status != 429:
                return response
            wait = http_rules.retry_after_s(
                response.headers.get("Retry-After"), http_rules.backoff_s(attempt)
            )
            finish(response)
            self._reporter.step(
                f"{urlsplit(url).netloc}: status {response.status}, in {wait:.1f} s"
            )
            self._sleep(wait)
        raise RegistryError(f"registry {source.registry} does not answer")

    def _request(
        self,
        source: Source,
        url: str,
        headers: dict[str, str],
        method: str,
        content: Content | None,
    ) -> Response:
        self._reporter.step(f"{method} {url.partition('?')[0]}")
        all_headers = {
            "User-Agent": f"rootlesspy/{__version__}",
            "Accept-Encoding": "identity",
            **headers,
        }
        if content is not None:
            all_headers["Content-Length"] = str(content.length)
        with warnings.catch_warnings():
            # Somebody wrote "insecure" into registries.conf: that is notice enough.
            warnings.simplefilter("ignore", InsecureRequestWarning)
            response = self._pool(source, url).request(
                method,
                url,
                headers=all_headers,
                body=content.pieces() if content is not None and content.length else None,
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
                timeout=_TIMEOUT,
            )
        return cast("Response", response)

    def _base(self, source: Source) -> str:
        scheme = "http" if source.registry in self._plain_http else "https"
        return f"{scheme}://{_API_HOSTS.get(source.registry, source.registry)}"

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

    def _pool(self, source: Source, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        # Only the registry itself is excused from TLS, never a server that it points to.
        insecure = source.insecure and origin(url) == origin(self._base(source))
        proxy = self._proxy(url)
        key = (proxy, parts.scheme, parts.netloc, insecure)
        if key not in self._pools:
            context = self._context(parts.netloc, insecure) if parts.scheme == "https" else None
            if proxy is None:
                self._pools[key] = urllib3.PoolManager(num_pools=4, ssl_context=context)
            else:
                self._pools[key] = _proxy_manager(proxy, context)
        return self._pools[key]

    def _context(self, host: str, insecure: bool) -> SSLContext:
        return tls.context(
            host,
            insecure=insecure,
            config_directory=self._config_directory,
            certificates=self._certificates,
            # urllib3 1.26 leaves addresses out of the handshake and compares names itself.
            compares_names=hasattr(urllib3, "BaseHTTPResponse"),
        )

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


def _proxy_manager(proxy: str, context: SSLContext | None) -> urllib3.PoolManager:
    parts = urlsplit(proxy)
    headers = None
    if parts.username is not None:
        pair = f"{parts.username}:{parts.password or ''}"
        headers = urllib3.make_headers(proxy_basic_auth=pair)
        bare = parts.netloc.rpartition("@")[2]
        proxy = urlunsplit(parts._replace(netloc=bare))
    return urllib3.ProxyManager(proxy, num_pools=4, ssl_context=context, proxy_headers=headers)
