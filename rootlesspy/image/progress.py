"""Progress of a pull as seen by nobody: the shape that the command line's displays have."""

from __future__ import annotations

from rootlesspy.light_typing import Protocol


class Progress(Protocol):
    """What a pull reports while it works; id is a short digest, label what people read."""

    def start(self, id: str, label: str, total_bytes: int) -> None: ...

    def advance(self, id: str, n_bytes: int) -> None: ...

    def phase(self, id: str, text: str) -> None: ...

    def finish(self, id: str) -> None: ...


class NoProgress:
    """Shows nothing."""

    def start(self, id: str, label: str, total_bytes: int) -> None:
        """A blob of total_bytes begins; 0 when the size is not known."""

    def advance(self, id: str, n_bytes: int) -> None:
        """n_bytes more of it have arrived; negative when a broken transfer starts again."""

    def phase(self, id: str, text: str) -> None:
        """What is done with it now: waiting, downloading, unpacking, verifying."""

    def finish(self, id: str) -> None:
        """It is complete."""
