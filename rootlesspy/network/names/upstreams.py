"""The resolvers of the host: /etc/resolv.conf, read again when it is another one.

It is looked at whenever somebody asks, as glibc does it: nothing has to be watched, and a VPN that
comes or goes is followed at once.  Source: resolv.conf(5).
"""

from __future__ import annotations

import os

_PATH = "/etc/resolv.conf"
_MAX_BYTES = 1 << 20
# MAXNS of resolv.h.
_MAX_SERVERS = 3

Identity = tuple[int, int, int, int]


class HostResolvers:
    """The nameservers of resolv.conf; called, it returns those of this moment."""

    def __init__(self, path: str = _PATH, *, without: tuple[str, ...] = ()) -> None:
        """Leave out the addresses in without: our own ones, which would ask us again."""
        self._path = path
        self._without = without
        self._identity: Identity | None = None
        self._servers: tuple[str, ...] = ()

    def __call__(self) -> tuple[str, ...]:
        """Return the addresses in the order in which they are to be asked."""
        identity = self._look()
        if identity is None or identity != self._identity:
            self._identity = identity
            found = nameservers(self._read())
            self._servers = tuple(each for each in found if each not in self._without)
        return self._servers

    def _look(self) -> Identity | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size

    def _read(self) -> str:
        try:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                return file.read(_MAX_BYTES)
        except OSError:
            return ""


def nameservers(text: str) -> tuple[str, ...]:
    """Return the nameservers of a resolv.conf; one without any means 127.0.0.1."""
    found = [
        words[1]
        for words in (line.split() for line in text.splitlines())
        if len(words) > 1 and words[0] == "nameserver"
    ]
    return tuple(dict.fromkeys(found))[:_MAX_SERVERS] or ("127.0.0.1",)
