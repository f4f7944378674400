"""What tests see of a rig: run commands as the user and as root, drive terminals, find leaks."""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from rig import enter, instance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SNAPSHOT = Path(__file__).with_name("snapshot.py").read_text(encoding="utf-8")
_SETTLE_LIMIT_S = 60.0
_RUNTIME = re.compile(r" /run/user/(\d+)(?:/| )")
# The session that logged the user in.
_SESSION = re.compile(r"/session-[^/]+\.scope$")
# Kinds of the snapshot in which things end by themselves (another user's manager and its sockets).
_PASSING = frozenset(("processes", "units", "runtime", "cgroups", "sockets"))

Completed = subprocess.CompletedProcess[Any]
Snapshot = dict[str, list[str]]


class Door(Protocol):
    """How argv becomes the argv of a local process that runs it on the machine."""

    @property
    def uid(self) -> int:
        """Return the user id of the unprivileged user."""

    @property
    def has_root(self) -> bool:
        """Tell whether commands can be run as root."""

    @property
    def held_signals(self) -> frozenset[signal.Signals]:
        """Return the signals that the local process wants blocked when it starts."""

    def argv(self, argv: Sequence[str], user: str, env: Mapping[str, str]) -> list[str]:
        """Return the local argv. `user` is alice, bob or root."""


class RigDoor(NamedTuple):
    """The namespace rig, entered from outside."""

    instance: instance.Instance
    uid: int = 1000
    has_root: bool = True
    held_signals: frozenset[signal.Signals] = frozenset(enter.FORWARDED)

    def argv(self, argv: Sequence[str], user: str, env: Mapping[str, str]) -> list[str]:
        """Return the command line that enters the rig."""
        entry = instance.entry(self.instance, list(argv), user=user)
        entry.environment.update(env)
        return [sys.executable, "-I", "-S", enter.__file__, *enter.encode(entry)]


class DirectDoor(NamedTuple):
    """This machine itself: an ordinary user with a user manager needs no rig."""

    uid: int
    has_root: bool = False
    held_signals: frozenset[signal.Signals] = frozenset()

    def argv(self, argv: Sequence[str], user: str, env: Mapping[str, str]) -> list[str]:
        """Return the command line itself."""
        if user != "alice":
            # Not at the top: the command `rig` runs where pytest is not installed.
            import pytest

            pytest.skip(f"no way to be {user} on this machine without the rig")
        return ["env", *(f"{name}={value}" for name, value in env.items()), *argv]


class Machine:
    """A machine with a user manager, by whatever door it is reached."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self.uid = door.uid
        self.has_root = door.has_root

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        input: str | bytes | None = None,
        timeout: float = 120,
        user: str = "alice",
        env: Mapping[str, str] | None = None,
        binary: bool = False,
    ) -> Completed:
        """Run a command as the unprivileged user and return what it said.

        Output is text unless `binary` or bytes are put in. With `check` a failure is an
        AssertionError that shows everything. After `timeout` seconds it is killed, and the
        error shows what it had said.
        """
        as_bytes = binary or isinstance(input, bytes)
        process = self.popen(
            argv,
            user=user,
            env=env,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=not as_bytes,
        )
        with process:
            try:
                out, err = process.communicate(input, timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                raise AssertionError(
                    f"{_text(argv)}: still running after {timeout} s\n{_both(out, err)}"
                ) from None
            except BaseException:
                process.kill()
                raise
        if check and process.returncode != 0:
            raise AssertionError(f"{_text(argv)}: exit {process.returncode}\n{_both(out, err)}")
        return subprocess.CompletedProcess(list(argv), process.returncode, out, err)

    def popen(
        self,
        argv: Sequence[str],
        *,
        user: str = "alice",
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[Any]:
        """Start a command; signals sent to the Popen reach it. Options are subprocess's."""
        # Until the local process can forward signals they wait: see enter.py.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._door.held_signals)
        try:
            return subprocess.Popen(self._door.argv(argv, user, env or {}), **options)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def root(self, argv: Sequence[str], **options: Any) -> Completed:
        """Run a command as root of the machine; takes what `run` takes."""
        return self.run(argv, user="root", **options)

    def pty(self, argv: Sequence[str], *, user: str = "alice", **env: str) -> Terminal:
        """Start a command on a terminal of 24 rows and 80 columns."""
        return Terminal(self._door.argv(argv, user, {"TERM": "xterm", **env}))

    def snapshot(self) -> Snapshot:
        """Return what the user has on the machine now: processes, units, mounts, files…"""
        user = "root" if self.has_root else "alice"
        argv = ["python3", "-I", "-", str(self.uid)]
        return dict(json.loads(self.run(argv, input=_SNAPSHOT, user=user).stdout))

    def assert_same(
        self,
        before: Snapshot,
        *,
        ignore: Sequence[str] = (),
        settle_limit_s: float = _SETTLE_LIMIT_S,
    ) -> None:
        """Fail unless the machine is (or in time becomes) as it was.

        `ignore` names kinds of the snapshot, for instance "home" after a pull.
        """
        limit_s = time.monotonic() + settle_limit_s
        pause_s = 0.05
        while True:
            after = self.snapshot()
            lines: list[str] = []
            for kind in before:
                if kind not in ignore:
                    lines += _difference(kind, before[kind], after[kind], self.uid)
            if not lines:
                return
            if time.monotonic() > limit_s:
                raise AssertionError("left behind:\n" + "\n".join(lines))
            time.sleep(pause_s)
            pause_s = min(1.0, pause_s * 2)


class Terminal:
    """A command on a pseudo terminal, driven like a person would.

    Close it, or use it in `with`: what still runs is killed.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self.output = b""
        self._seen = 0
        self._status: int | None = None
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                # Before the command can ask for it.
                _set_size(0, 24, 80)
                # As a login has it: what is started with & in a script ignores Ctrl-C.
                for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
                    signal.signal(number, signal.SIG_DFL)
                os.execvp(argv[0], list(argv))
            finally:
                os._exit(127)
        os.set_inheritable(self._fd, False)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size; the foreground process gets SIGWINCH."""
        _set_size(self._fd, rows, columns)

    def send(self, data: str | bytes) -> None:
        """Type something; a line ends with \\r, as the Enter key sends it."""
        remaining = data.encode() if isinstance(data, str) else data
        while remaining:
            remaining = remaining[os.write(self._fd, remaining) :]

    def expect(self, pattern: str, timeout: float = 60) -> re.Match[bytes]:
        """Wait until new output matches a regular expression; what was matched is consumed."""
        limit_s = time.monotonic() + timeout
        while True:
            match = re.compile(pattern.encode(), re.DOTALL).search(self.output, self._seen)
            if match:
                self._seen = match.end()
                return match
            if not self._read(limit_s):
                shown = self.output[self._seen :].decode(errors="replace")
                raise AssertionError(f"no {pattern!r} in {timeout} s; the terminal shows:\n{shown}")

    def wait(self, timeout: float = 60) -> int:
        """Wait for the end and return the exit code, negative for a signal."""
        limit_s = time.monotonic() + timeout
        while self._read(limit_s):
            pass
        if self._status is None:
            pidfd = os.pidfd_open(self.pid)
            ended = select.select([pidfd], [], [], max(0.0, limit_s - time.monotonic()))[0]
            os.close(pidfd)
            if not ended:
                shown = self.output.decode(errors="replace")
                raise AssertionError(f"still running after {timeout} s; it shows:\n{shown}")
            self._status = os.waitpid(self.pid, 0)[1]
        return os.waitstatus_to_exitcode(self._status)

    def attributes(self) -> list[Any]:
        """Return the terminal's attributes (tcgetattr), to see whether they were restored."""
        return termios.tcgetattr(self._fd)

    def close(self) -> None:
        """Close the terminal; kill the command if it still runs."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            self._status = os.waitpid(self.pid, 0)[1]
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read(self, limit_s: float) -> bool:
        remaining_s = max(0.0, limit_s - time.monotonic())
        if not select.select([self._fd], [], [], remaining_s)[0]:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self.output += data
        return bool(data)


def _set_size(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _difference(kind: str, before: Sequence[str], after: Sequence[str], uid: int) -> list[str]:
    """Return what is new or changed; that something of the past has ended is no leak."""
    if kind == "mounts":
        # logind takes another user's runtime directory away seconds after that user's last session.
        before, after = (
            [line for line in lines if _runtime_owner(line) in (None, uid)]
            for lines in (before, after)
        )
    if kind == "cgroups":
        # The login session by which the tests' own commands come in.
        before, after = (
            [line for line in lines if not _SESSION.search(line)] for lines in (before, after)
        )
    if kind in _PASSING:
        before = [line for line in before if line in after]
    return list(difflib.unified_diff(before, after, kind, f"{kind} now", n=0, lineterm=""))


def _runtime_owner(line: str) -> int | None:
    found = _RUNTIME.search(line)
    return int(found[1]) if found else None


def _text(argv: Sequence[str]) -> str:
    return " ".join(argv)


def _both(out: str | bytes, err: str | bytes) -> str:
    def shown(stream: str | bytes) -> str:
        text = stream if isinstance(stream, str) else stream.decode(errors="replace")
        return text[-4000:]

    return f"stdout: {shown(out)}\nstderr: {shown(err)}"
