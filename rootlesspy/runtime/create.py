"""Carry out a spec: make the container's init in its namespaces and lead it to execve.

Runs in the supervisor.  `launch` forks; the methods of Init are the supervisor's half of the
hand-shake drawn in runtime.sync, in the order of calling.  Could serve any caller that has an OCI
spec: reads no settings, no store, no network.
"""

from __future__ import annotations

import errno
import os

from rootlesspy.errors import (
    CommandNotExecutable,
    CommandNotFound,
    RuntimeFailure,
    Unsupported,
)
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import process, userns
from rootlesspy.runtime import init, sync

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.runtime.membership import Membership

FLAGS = {
    "user": process.CLONE_NEWUSER,
    "mount": process.CLONE_NEWNS,
    "pid": process.CLONE_NEWPID,
    "network": process.CLONE_NEWNET,
    "uts": process.CLONE_NEWUTS,
    "ipc": process.CLONE_NEWIPC,
}


class Init:
    """The container's init, from clone3 to execve; owns its pidfd and the channel to it."""

    def __init__(self, pid: int, pidfd: int, channel: sync.Channel, plan: init.Plan | None) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self._channel = channel
        self._wanted_tap = ""
        self._command = ""
        self._confined = False
        self.has_plan = plan is not None
        """Whether it knows what to do; else plan() tells it."""
        self.works = False
        """Whether it was told to begin."""
        self.tap = ""
        """The network device that it has made; wait_tap() knows."""
        self.ruleset_fd = -1
        """The container's Landlock rules, for processes that join it; -1 without."""
        if plan is not None:
            self._note(plan)

    def make_tap(self, name: str) -> None:
        """Have it make a network device, now that its ids are mapped, for wait_tap().

        Not before: in sysfs the device would be nobody's.
        """
        self._wanted_tap = name
        self._send(sync.MAKE_TAP + os.fsencode(name))

    def wait_tap(self) -> None:
        """Wait until it has made that, or could not.  Raises RuntimeFailure."""
        wanted, self._wanted_tap = self._wanted_tap, ""
        if wanted:
            try:
                made, _ = self._channel.receive()
            except sync.FailedError as error:
                raise self._explain(error.failed) from error
            self.tap = wanted if made == sync.TAP else ""

    def plan(self, plan: init.Plan, *, mapped: bool = False) -> None:
        """Say what it is to do, where that was not known when it was born.  Raises OSError.

        mapped: its id maps are written, as ids_mapped() says.
        """
        self._note(plan)
        self.has_plan = True
        self.works = mapped
        fd = init.pack(plan)
        try:
            self._send(sync.PLAN_MAPPED if mapped else sync.PLAN, fd)
        finally:
            os.close(fd)

    def ids_mapped(self, fuse_fd: int = -1) -> None:
        """Say that the id maps are written; fuse_fd is the mount of a FuseOverlay."""
        self.works = True
        self._send(sync.IDS_MAPPED, fuse_fd)

    def placed(self) -> None:
        """Say that the scope holds the process and the network is there."""
        self._send(sync.PLACED)

    def wait_hooks(self) -> None:
        """Wait until the mounts are made and hooks may run.  Raises RuntimeFailure."""
        try:
            self._channel.expect(sync.HOOKS)
        except sync.FailedError as error:
            raise self._explain(error.failed) from error

    def hooks_done(self) -> None:
        """Say that the hooks outside have run."""
        self._send(sync.HOOKS_DONE)

    def wait_ready(self) -> int:
        """Wait until everything but execve is done; return the pty's master, or -1.

        Raises RuntimeFailure with init's own words.
        """
        try:
            if self._confined:
                self.ruleset_fd = self._channel.expect(sync.RULESET)
            return self._channel.expect(sync.READY)
        except sync.FailedError as error:
            raise self._explain(error.failed) from error

    def execute(self) -> None:
        """Let init execute the payload and wait until it did.

        Raises CommandNotFound, CommandNotExecutable, RuntimeFailure.
        """
        self._send(sync.EXEC)
        try:
            self._channel.expect_end()
        except sync.FailedError as error:
            raise self._explain(error.failed) from error
        finally:
            self._channel.close()

    def reported_failure(self) -> RuntimeFailure | Unsupported | None:
        """Return what init said before it died, if it did; never blocks.

        The cause of a step that failed because the process was gone.
        """
        failed = self._channel.pending_failure()
        return None if failed is None else self._explain(failed)

    def _note(self, plan: init.Plan) -> None:
        arguments = plan.spec["process"]["args"]
        self._command = arguments[0] if arguments else ""
        self._confined = plan.landlock is not None

    def _send(self, message: bytes, passed_fd: int = -1) -> None:
        try:
            self._channel.send(message, passed_fd=passed_fd)
        except (BrokenPipeError, ConnectionResetError):
            # Init died; what it said before is still to be read.
            self.wait_ready()

    def _explain(self, failed: sync.Failed) -> RuntimeFailure | Unsupported:
        return explain(failed, self._command)


def launch(
    kinds: Iterable[str],
    plan: init.Plan | None,
    memberships: tuple[Membership, ...] = (),
) -> Init:
    """Fork the container's init into namespaces of these kinds.

    plan: None when it is yet to be made, for Init.plan().  memberships: namespaces that exist
    already; the others are made.  Raises Unsupported when user namespaces are forbidden,
    RuntimeFailure otherwise.
    """
    flags = 0
    joined = {kind for each in memberships for kind in each.kinds}
    for kind in kinds:
        # The cgroup namespace is made by init itself, once it is in its scope.
        if kind not in joined:
            flags |= FLAGS.get(kind, 0)
    ours, theirs = sync.channel_pair()
    try:
        pid, pidfd = _clone(memberships, flags)
    except RuntimeFailure:
        ours.close()
        theirs.close()
        raise
    except OSError as error:
        ours.close()
        theirs.close()
        raise _explain_clone(error) from error
    if pid == 0:
        ours.close()
        init.run(plan, theirs)
    theirs.close()
    return Init(pid, pidfd, ours, plan)


def _clone(memberships: tuple[Membership, ...], flags: int) -> tuple[int, int]:
    if not memberships:
        return process.clone3(flags)
    # Imported here: most containers have all namespaces to themselves.
    from rootlesspy.runtime import membership

    return membership.clone_inside(memberships, flags)


def explain(failed: sync.Failed, command: str) -> RuntimeFailure | Unsupported:
    """Turn init's report into the error that a person can act on."""
    step, number, path = failed.step, failed.errno, failed.path
    reason = failed.text or os.strerror(number)
    if step == "exec":
        return _explain_exec(number, command)
    if step == "change to the working directory":
        kind = CommandNotExecutable if number == errno.EACCES else CommandNotFound
        return kind(
            f"working directory {path!r} cannot be entered: {reason}",
            step=step,
            errno=number,
            path=path,
        )
    if step == "hand-shake":
        return RuntimeFailure(
            "the container's init ended without a word",
            step=step,
            errno=number,
            hint="was it killed? see: journalctl --user -n 20; dmesg",
        )
    if step == "join the container's namespaces" and number == errno.ESRCH:
        # setns(2) to a pidfd, of somebody who is gone.
        return RuntimeFailure("the container has ended", step=step, errno=number)
    if step == "look up the user":
        message = failed.text or f"{path}: {reason}"
    elif path:
        message = f"cannot {step} {path}: {reason}"
    else:
        message = f"cannot {step}: {reason}"
    return RuntimeFailure(message, step=step, errno=number, path=path, hint=_hint(step, number))


def _explain_exec(number: int, command: str) -> RuntimeFailure:
    if number in (errno.ENOENT, errno.ENOTDIR):
        return CommandNotFound(
            f"command {command!r} is not found in the image (or its interpreter is not)",
            step="exec",
            errno=number,
            path=command,
        )
    reason = {
        errno.ENOEXEC: "wrong architecture or no interpreter line",
        errno.EACCES: "permission denied",
    }.get(number, os.strerror(number))
    return CommandNotExecutable(
        f"command {command!r} cannot be executed: {reason}",
        step="exec",
        errno=number,
        path=command,
    )


def _explain_clone(error: OSError) -> Unsupported | RuntimeFailure:
    if error.errno in (errno.EPERM, errno.ENOSPC, errno.EACCES):
        return Unsupported(
            "user namespaces are forbidden on this machine",
            hint=userns_hint(),
        )
    if error.errno == errno.ENOSYS:
        return Unsupported("clone3 is forbidden: kernel before 5.3, or a seccomp filter around rp")
    return RuntimeFailure(
        f"cannot make the container's process: {error.strerror}",
        step="clone",
        errno=error.errno or 0,
        hint="see the limits: ulimit -u; systemctl show user-$UID.slice -p TasksMax",
    )


def userns_hint() -> str:
    """Name the setting that forbids user namespaces, and its cure."""
    for path, bad in (
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ):
        try:
            with open(path, encoding="ascii") as file:
                value = file.read().strip()
        except OSError:
            continue
        if value == bad:
            key = path.removeprefix("/proc/sys/").replace("/", ".")
            good = {"max_user_namespaces": "15000", "unprivileged_userns_clone": "1"}
            return f"as root: sysctl -w {key}={good.get(path.rpartition('/')[2], '0')}"
    return "see user_namespaces(7); is rp itself inside a container or a sandbox?"


def _hint(step: str, number: int) -> str | None:
    if number == errno.ENOSPC and step.startswith(("mount", "make")):
        return "the limit of mounts is reached: sysctl fs.mount-max"
    if number == errno.EDQUOT and step == "make a session keyring":
        return "the user has too many keys: sysctl kernel.keys.maxkeys"
    if number == errno.ENOMEM and step == "fork into the PID namespace":
        # So says the kernel where its first process is gone, too.
        return "if the container has not just ended: free"
    if step == "mount the root file system":
        return "see: rp info (storage)"
    return None


def write_id_maps(pid: int, maps: IdMaps, *, keeps_groups: bool = False) -> userns.MapHelpers:
    """Begin to write init's id maps; finish_id_maps() waits for them.  Raises Unsupported."""
    try:
        return userns.start_map_helpers(pid, maps, keeps_groups=keeps_groups)
    except userns.HelperError as error:
        raise _explain_helper(error) from error


def finish_id_maps(helpers: userns.MapHelpers) -> None:
    """Wait until the id maps are written.  Raises Unsupported with the helper's words."""
    try:
        userns.wait_map_helpers(helpers)
    except userns.HelperError as error:
        raise _explain_helper(error) from error


def _explain_helper(error: userns.HelperError) -> Unsupported:
    hint = userns.helper_hint(error)
    if error.errno == errno.ENOENT:
        return Unsupported(f"{error.filename} is not installed", hint=hint)
    return Unsupported(f"cannot map ids: {error.filename}: {error.strerror}", hint=hint)
