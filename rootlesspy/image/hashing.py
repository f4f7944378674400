"""The digest of a stream that another process hashes, once the stream turns out to be long."""

from __future__ import annotations

import os

from rootlesspy.image import children
from rootlesspy.image.transfer import Input, pipe, write_all
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_CHUNK = 1 << 18
# Below this a process costs more than it saves.
_ALONE_BYTES = 4 << 20


class Hasher:
    """Hashes what is given to it; from a certain length on in a forked child, beside the caller.

    That is from the first piece on where so much is expected.  A child begins with a copy of the
    state so far.  It ends when its input does, or its parent.
    """

    def __init__(
        self, algorithm: str, *, held_fds: Sequence[int] = (), expected_bytes: int = 0
    ) -> None:
        """held_fds are the caller's ends of pipes, which a child must not keep open.

        expected_bytes are about what will come, 0 where nobody knows.
        """
        import hashlib

        self._digest = hashlib.new(algorithm)
        self._held_fds = held_fds
        self._alone_bytes = 0 if expected_bytes >= _ALONE_BYTES else _ALONE_BYTES
        self._seen = 0
        self._child: children.Child | None = None
        self._fd = -1

    def update(self, data: bytes) -> None:
        """Take the next piece.  Raises Error when the child was killed, OSError."""
        if self._child is not None:
            try:
                write_all(self._fd, data)
            except BrokenPipeError:
                children.wait(self._child)
                raise
            return
        self._digest.update(data)
        self._seen += len(data)
        if self._seen >= self._alone_bytes:
            self._start_child()

    def result(self) -> str:
        """Return the digest, algorithm first; nothing more may come.  Raises as update()."""
        if self._child is None:
            encoded = self._digest.hexdigest()
        else:
            os.close(self._fd)
            encoded = str(children.wait(self._child))
        return f"{self._digest.name}:{encoded}"

    def _start_child(self) -> None:
        reader, writer = pipe()

        def hash_rest() -> str:
            for fd in (writer, *self._held_fds):
                os.close(fd)
            source = Input(reader)
            while data := source.read(_CHUNK):
                self._digest.update(data)
            return self._digest.hexdigest()

        self._child = children.fork(hash_rest)
        os.close(reader)
        self._fd = writer
