"""Small rules of HTTP as registries use it: origins, proxies, waits, tokens, error documents.

Sources: RFC 9110, RFC 6454, the OCI distribution specification.
"""

from __future__ import annotations

import json
import time
from urllib.parse import urlsplit

from rootlesspy.errors import RegistryError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_WAIT_S = 60.0
_MAX_BACKOFF_S = 8.0


def origin(url: str) -> str:
    """Return scheme, host and port of a URL: what credentials are bound to."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def proxy(url: str, environment: Mapping[str, str]) -> str | None:
    """Return the proxy that the environment names for url."""
    names = {name.lower(): value for name, value in environment.items()}
    if "REQUEST_METHOD" in environment:
        # httpoxy: in a CGI program HTTP_PROXY is what the client sent.
        names.pop("http_proxy", None)
    parts = urlsplit(url)
    found = names.get(f"{parts.scheme}_proxy") or names.get("all_proxy")
    if not found or _is_exempt(parts.netloc, names.get("no_proxy", "")):
        return None
    return found if "://" in found else f"http://{found}"


def backoff_s(attempt: int) -> float:
    """Return how long to wait before trying again: half a second, doubled each time, up to 8."""
    import random

    scatter = random.uniform(0.75, 1.25)  # noqa: S311 - not a secret
    return min(0.5 * 2.0**attempt, _MAX_BACKOFF_S) * scatter


def retry_after_s(value: str | None, default: float) -> float:
    """Return the wait that a Retry-After header asks for, a minute at most."""
    if not value:
        return default
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), _MAX_WAIT_S)
    from email.utils import parsedate_to_datetime

    try:
        wait = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return default
    return min(max(wait, 0.0), _MAX_WAIT_S)


def parse_token(data: bytes, registry: str) -> str:
    """Return the token in a token server's answer.  Raises RegistryError."""
    try:
        document = json.loads(data)
        token = document.get("token") or document.get("access_token")
    except (ValueError, RecursionError, AttributeError):
        token = None
    # It becomes a header line.
    if not isinstance(token, str) or not token or " " in token or not _is_visible(token):
        raise RegistryError(f"token server of registry {registry} sent no token")
    return token


def error_message(data: bytes) -> str:
    """Return the first message of an error document, shortened; nothing for anything else."""
    try:
        first = json.loads(data)["errors"][0]
        return str(first.get("message") or first.get("code") or "")[:200]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return ""


def _is_exempt(place: str, no_proxy: str) -> bool:
    import urllib.request  # 6 ms

    return bool(urllib.request.proxy_bypass_environment(place, {"no": no_proxy}))  # type: ignore[attr-defined]  # typeshed has it for macOS only


def _is_visible(text: str) -> bool:
    return text.isascii() and text.isprintable()
