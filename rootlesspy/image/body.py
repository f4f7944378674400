"""Bodies of HTTP answers: read with limits, as they arrive, noticing when they do not.

Read through the http.client object below urllib3's response: urllib3's own read() waits until all
that was asked for is there, so that one byte per second would never look stalled, and its read1()
exists only from 2.1 on.
"""

from __future__ import annotations

import http.client
import time

from rootlesspy.errors import RegistryError
from rootlesspy.image.transfer import Interrupted
from rootlesspy.light_typing import Protocol

# A body slower than this on average over 30 s counts as stalled.
_MIN_BYTES_PER_S = 128
_STALL_S = 30.0
_READ_ERRORS = (OSError, http.client.HTTPException)


class Headers(Protocol):
    """What is used of urllib3's headers; names are case-insensitive."""

    def get(self, key: str, /) -> str | None: ...

    def getlist(self, key: str, /) -> list[str]: ...


class Response(Protocol):
    """What is used of urllib3's response."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Headers: ...

    @property
    def _fp(self) -> http.client.HTTPResponse: ...

    def close(self) -> None: ...

    def release_conn(self) -> None: ...


class Body:
    """The rest of a blob, from `offset` on, as it arrives."""

    def __init__(self, response: Response, host: str, offset: int) -> None:
        self._response = response
        self._host = host
        self.offset = offset
        self.where = f"registry {host}"
        self._window_start = time.monotonic()
        self._window_bytes = 0

    def length(self) -> int | None:
        """Return how many bytes were announced."""
        text = self._response.headers.get("Content-Length") or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None

    def read(self, size: int) -> bytes:
        """Return what has arrived, at most size bytes; nothing at the end.  Raises Interrupted."""
        try:
            data = _read_some(self._response, size)
        except _READ_ERRORS as error:
            raise Interrupted(f"transfer from {self._host} broke: {reason(error)}") from error
        now = time.monotonic()
        self._window_bytes += len(data)
        if now - self._window_start >= _STALL_S:
            if self._window_bytes < _MIN_BYTES_PER_S * _STALL_S:
                raise Interrupted(f"transfer from {self._host} stalled")
            self._window_start, self._window_bytes = now, 0
        return data

    def whole(self, size: int) -> bytes:
        """Return all size bytes.  Raises Interrupted, RegistryError when there are more."""
        data = b""
        while chunk := self.read(size - len(data) + 1):
            data += chunk
            if len(data) > size:
                raise RegistryError(f"registry {self._host} sent more than {size} bytes")
        if len(data) < size:
            raise Interrupted(f"transfer from {self._host} ended after {len(data)} bytes")
        return data

    def close(self) -> None:
        """Keep the connection when everything was read, else drop it."""
        finish(self._response)


def _read_some(response: Response, size: int) -> bytes:
    """Read what one receive brings."""
    return response._fp.read1(size)


def read_all(response: Response, limit: int, host: str) -> bytes:
    """Read a whole body of at most limit bytes.  Raises RegistryError, Interrupted."""
    chunks, total = [], 0
    deadline = time.monotonic() + 2 * _STALL_S
    try:
        while chunk := _read_some(response, 65536):
            total += len(chunk)
            if total > limit:
                raise RegistryError(f"registry {host} sent a document longer than {limit} bytes")
            if time.monotonic() > deadline:
                raise RegistryError(f"registry {host} is too slow")
            chunks.append(chunk)
    except _READ_ERRORS as error:
        raise Interrupted(f"transfer from {host} broke: {reason(error)}") from error
    if response.headers.get("Content-Length") not in (None, str(total)):
        raise Interrupted(f"transfer from {host} ended after {total} bytes")
    return b"".join(chunks)


def finish(response: Response) -> None:
    """Keep the connection when its answer was read to the end, else drop it."""
    raw = response._fp
    if raw.isclosed() or raw.length == 0:
        # http.client only calls a response closed after one more read than read1() makes.
        raw.close()
        response.release_conn()
    else:
        response.close()


def reason(error: BaseException) -> str:
    """Return the innermost reason of a urllib3 error in a few words."""
    inner: BaseException = error
    for _ in range(8):
        following = getattr(inner, "reason", None) or inner.__cause__
        if not isinstance(following, BaseException):
            break
        inner = following
    for argument in inner.args:
        if isinstance(argument, OSError) and argument.strerror:
            return argument.strerror.lower()
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror.lower()
    text = str(inner)
    # urllib3 puts the repr of its connection object in front.
    text = text.partition(": ")[2] if text.startswith(("<", "HTTP")) else text
    return (text or type(inner).__name__)[:200]
