"""Sockets by the C half of the package socket, which builds enums and imports selectors: 4 ms.

What is here is what descends from it; the constants and functions of the C half are here as well.
"""

from __future__ import annotations

from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    import _socket
    from types import TracebackType
    from typing import Self
else:
    import _socket
    from _socket import *  # noqa: F403 - all that a socket may be asked for


class socket(_socket.socket):  # noqa: N801 - its name in the package
    """A socket that can be used with `with`, and accepts others of its kind."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def accept(self) -> tuple[socket, object]:
        """Return a connection and where it comes from."""
        fd, address = self._accept()  # type: ignore[attr-defined]  # what accept() is made of
        return socket(self.family, self.type, self.proto, fileno=fd), address


def socketpair(
    family: int = _socket.AF_UNIX, kind: int = _socket.SOCK_STREAM
) -> tuple[socket, socket]:
    """Return two sockets that are connected with each other."""
    one, other = _socket.socketpair(family, kind)
    return socket(fileno=one.detach()), socket(fileno=other.detach())
