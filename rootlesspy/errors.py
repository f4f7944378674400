"""The errors that rp reports, each with the exit code it ends with.

    Error                        125  rp's own failure
    ├── UsageError               125  what was typed cannot be understood
    ├── NotFound                 125  a container, image or file that was named does not exist
    ├── Conflict                 125  a name, port or object is in use
    ├── ImageError               125  an image or archive is not what it claims to be
    ├── RegistryError            125  a registry cannot be reached, refuses, or breaks the protocol
    ├── Unsupported              125  this machine lacks a kernel feature, a program, a right
    └── RuntimeFailure           125  a step of starting a container failed
        ├── CommandNotExecutable 126
        └── CommandNotFound      127

Exit codes come from the type, never from the text.  A message is lower case, without a full stop,
subject first; the hint is one command or file that cures it.

Undo is what several steps that may fail with one of them are made with.
"""

from __future__ import annotations

from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Error(Exception):
    """What rp reports as one line on stderr: a message and at most one hint."""

    exit_code = 125

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(Error):
    """What was typed cannot be understood."""


class NotFound(Error):
    """A container, image or file that was named does not exist."""


class Conflict(Error):
    """A name, port or object is already in use."""


class ImageError(Error):
    """An image or archive is not what it claims to be."""


class RegistryError(Error):
    """A registry cannot be reached, refuses the request, or breaks the protocol."""


class Unsupported(Error):
    """This machine lacks something that was asked for: kernel, systemd, delegation, a program."""


class RuntimeFailure(Error):
    """A step of starting a container failed with an errno."""

    def __init__(
        self,
        message: str,
        *,
        step: str,
        errno: int = 0,
        path: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.step = step
        self.errno = errno
        self.path = path


class CommandNotExecutable(RuntimeFailure):
    """The container's command exists but cannot be executed."""

    exit_code = 126


class CommandNotFound(RuntimeFailure):
    """The container's command does not exist in the image."""

    exit_code = 127


class Undo:
    """What was done so far, undone in reverse; every entry may be called twice."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], None]] = []

    def push(self, step: Callable[[], None]) -> None:
        """Note what undoes the step that was just done."""
        self._steps.append(step)

    def take_over(self, other: Undo) -> None:
        """Undo what another one would have undone."""
        self._steps += other._steps
        other._steps = []

    def unwind(self, cause: BaseException | None = None) -> None:
        """Run all steps; what fails is added to cause as a note and stops none of the others."""
        while self._steps:
            try:
                self._steps.pop()()
            except (Error, OSError) as error:
                if cause is not None:
                    cause.add_note(f"while cleaning up: {error}")
