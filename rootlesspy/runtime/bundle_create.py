"""Lead the init of a bundle from a fork to its readiness: the runtime's half of the hand-shake.

`launch`, then the methods of Creation in their order; see runtime.bundle_init.  Reads no settings
and knows no cgroup manager: the caller places the process.
"""

from __future__ import annotations

import errno
import os

from rootlesspy.errors import CommandNotExecutable, CommandNotFound, RuntimeFailure
from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import process, userns
from rootlesspy.runtime import bundle_init, create, sync

if TYPE_CHECKING:
    from rootlesspy.errors import Unsupported
    from rootlesspy.linux.userns import IdMaps


class Creation:
    """A container on its way to `created`; owns its pidfd and the channel to it."""

    def __init__(self, stage: int, stage_fd: int, channel: sync.Channel, command: str) -> None:
        self.stage = stage
        """The process to place in a cgroup; init is born where it is."""
        self.pid = 0
        self.pidfd = -1
        self._stage_fd = stage_fd
        self._at_hooks = False
        self._channel = channel
        self._command = command

    def placed(self, maps: IdMaps | None) -> None:
        """Go on once the stage is in its cgroup, until init is born.

        maps are those of a new user namespace.  Raises Unsupported, RuntimeFailure.
        """
        self._send(bundle_init.PLACED)
        message, passed_fd = self._receive()
        if message == bundle_init.MAP_IDS:
            _write_maps(self.stage, maps)
            self._send(sync.IDS_MAPPED)
            message, passed_fd = self._receive()
        if message == bundle_init.HOOKS:
            # Init was quicker with its mounts than the stage with its last word.
            self._at_hooks = True
            message, passed_fd = self._receive()
        word, _, pid = message.partition(b" ")
        if word != bundle_init.BORN:
            raise self._gone()
        self.pid, self.pidfd = int(pid), passed_fd
        self._reap_stage()

    def devices_moved(self, told: bytes) -> None:
        """Say that the network devices are in the container's namespace."""
        self._send(bundle_init.DEVICES + b" " + told)

    def wait_hooks(self) -> None:
        """Wait until the namespaces and mounts are made: now prestart and createRuntime run."""
        if not self._at_hooks:
            self._expect(bundle_init.HOOKS)

    def hooks_done(self) -> None:
        """Say that they did; init goes on to its pivot."""
        self._send(bundle_init.HOOKS_DONE + b" %d" % self.pid)

    def wait_ready(self) -> int:
        """Wait until only execve is left; return the pty's master, or -1."""
        master = self._expect(sync.READY)
        self._channel.close()
        return master

    def abandon(self) -> None:
        """Kill what there is of it; doing it twice is harmless."""
        for pid, fd in ((self.pid, self.pidfd), (self.stage, self._stage_fd)):
            if not pid or fd < 0:
                continue
            try:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                continue
        self._channel.close()

    def _reap_stage(self) -> None:
        os.waitpid(self.stage, 0)
        os.close(self._stage_fd)
        self.stage, self._stage_fd = 0, -1

    def _send(self, message: bytes) -> None:
        try:
            self._channel.send(message)
        except (BrokenPipeError, ConnectionResetError):
            # It died; what it said before is still to be read.
            self._receive()
            raise self._gone() from None

    def _expect(self, wanted: bytes) -> int:
        message, passed_fd = self._receive()
        if message != wanted:
            raise self._gone()
        return passed_fd

    def _receive(self) -> tuple[bytes, int]:
        try:
            return self._channel.receive()
        except sync.FailedError as error:
            raise explain(error.failed, self._command) from error

    def _gone(self) -> RuntimeFailure:
        return RuntimeFailure("the container's init ended without a word", step="hand-shake")


def launch(plan: bundle_init.Plan) -> Creation:
    """Fork the stage, which waits to be placed.  Raises RuntimeFailure, Unsupported."""
    ours, theirs = sync.channel_pair()
    try:
        pid, pidfd = process.clone3(0)
    except OSError as error:
        ours.close()
        theirs.close()
        raise RuntimeFailure(
            f"cannot make the container's process: {error.strerror}",
            step="clone",
            errno=error.errno or 0,
        ) from error
    if pid == 0:
        ours.close()
        bundle_init.run_stage(plan, theirs)
    theirs.close()
    return Creation(pid, pidfd, ours, plan.spec["process"]["args"][0])


def explain(failed: sync.Failed, command: str) -> RuntimeFailure | Unsupported:
    """Turn a report into an error whose words the field's engines look for."""
    if failed.step in ("find the executable", "exec"):
        reason = os.strerror(failed.errno)
        if failed.errno == errno.ENOENT:
            where = f"stat {command}" if "/" in command else "executable file not found in $PATH"
            return CommandNotFound(
                f'exec: "{command}": {where}: {reason.lower()}',
                step="exec",
                errno=failed.errno,
                path=command,
            )
        return CommandNotExecutable(
            f'exec: "{command}": {reason.lower()}', step="exec", errno=failed.errno, path=command
        )
    return create.explain(failed, command)


def _write_maps(pid: int, maps: IdMaps | None) -> None:
    if maps is None:
        raise RuntimeFailure("a user namespace without id maps", step="map ids")
    if os.geteuid() == 0:
        # Root of a user namespace: the ids are its own to give.
        try:
            userns.write_maps(pid, maps)
        except OSError as error:
            raise RuntimeFailure(
                f"cannot map ids: {error.strerror}", step="map ids", errno=error.errno or 0
            ) from error
        return
    create.finish_id_maps(create.write_id_maps(pid, maps))
