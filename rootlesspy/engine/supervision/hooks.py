"""The hooks of one run of a container, which stand in its config.json (engine.inputs.hooks_dir).

Runs in the supervisor; createContainer and startContainer are init's (runtime.hooks.Inside).  One
that fails ends the start, whatever it is; a poststop hook that fails is a warning.

poststop hooks run once for each run whose first hook began.  A file in the container's directory
says that they are owed, and whoever removes it runs them: the supervisor; if that was killed, the
client that is left, the next start, the removal, or the next command that lists containers.
"""

from __future__ import annotations

import os

from rootlesspy.engine import record, statefile
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, cast
from rootlesspy.report import Reporter
from rootlesspy.runtime import hooks

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.oci.runtime_spec import Spec


class Hooks:
    """The hooks of a container, to be run at the moments that the methods are named after."""

    def __init__(self, directory: str, spec: Spec) -> None:
        self._directory = directory
        self._spec = spec
        self.warnings: list[str] = []
        """What poststop hooks that failed have said."""

    def inside(self, *, traceable: bool, inherited_fds: int) -> hooks.Inside:
        """Return those that the container's init runs."""
        named = self._spec["hooks"]
        return hooks.Inside(
            create_container=hooks.prepare(named.get("createContainer", ())),
            start_container=hooks.prepare(named.get("startContainer", ())),
            creating=self._state("creating"),
            created=self._state("created"),
            traceable=traceable,
            inherited_fds=inherited_fds,
        )

    def created(self, pid: int) -> None:
        """Run those between the mounts and the pivot.  Raises RuntimeFailure."""
        with open(f"{self._directory}/{record.POSTSTOP}", "wb"):
            pass
        state = hooks.with_pid(self._state("creating"), pid)
        named = self._spec["hooks"]
        _at_root(lambda: hooks.run_stage("prestart", named.get("prestart", ()), state))
        _at_root(lambda: hooks.run_stage("createRuntime", named.get("createRuntime", ()), state))

    def started(self, pid: int) -> None:
        """Run those that follow the payload's execve.  Raises RuntimeFailure."""
        state = hooks.with_pid(self._state("running"), pid)
        named = self._spec["hooks"]
        _at_root(lambda: hooks.run_stage("poststart", named.get("poststart", ()), state))

    def stopped(self) -> None:
        """Run the poststop hooks, if they are owed."""
        if _claim(self._directory):
            self.run_poststop()

    def run_poststop(self) -> None:
        """Run the poststop hooks; the duty to do so has been claimed."""
        named, state = self._spec["hooks"].get("poststop", ()), self._state("stopped")
        _at_root(lambda: self.warnings.extend(hooks.run_poststop(named, state)))

    def _state(self, status: str) -> bytes:
        """Return the state that hooks are given, without a pid (runtime-spec runtime.md, State)."""
        annotations = self._spec.get("annotations")
        return json.dumps(
            {
                "ociVersion": self._spec["ociVersion"],
                "id": os.path.basename(self._directory),
                "status": status,
                "bundle": self._directory,
                **({"annotations": annotations} if annotations else {}),
            }
        ).encode()


def finish(directory: str) -> None:
    """Run the poststop hooks that a killed supervisor owes; warn on stderr of those that fail."""
    if _claim(directory):
        _pay(directory)


def finish_unattended(directory: str) -> None:
    """Do so for a container that the caller does not hold, unless somebody has started it."""
    lock_fd = record.lock(directory)
    if lock_fd is None:
        return
    try:
        claimed = _claim(directory)
    finally:
        # Whoever wants to start it need not wait for the hooks.
        os.close(lock_fd)
    if claimed:
        _pay(directory)


def _claim(directory: str) -> bool:
    """Take over the duty to run the poststop hooks of a container; say whether it was there."""
    try:
        os.unlink(f"{directory}/{record.POSTSTOP}")
    except FileNotFoundError:
        return False
    return True


def _pay(directory: str) -> None:
    try:
        spec = cast("Spec", statefile.read_spec(directory))
    except (OSError, ValueError):
        # A damaged container is to be removed all the same.
        return
    if "hooks" not in spec:
        return
    owed = Hooks(directory, spec)
    owed.run_poststop()
    for warning in owed.warnings:
        Reporter().notice(warning)


def _at_root(action: Callable[[], None]) -> None:
    """Do something in the host's "/", where hooks start, and come back."""
    try:
        before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        before = -1
    os.chdir("/")
    try:
        action()
    finally:
        if before >= 0:
            os.fchdir(before)
            os.close(before)
