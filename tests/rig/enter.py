"""Run one command inside a rig: `enter.py` with an Entry as its arguments, see encode().

Stands alone and imports little because tests start it for each of thousands of commands, and all
before it enters, as the rig has another Python. The process that was started stays outside as a
relay: it forwards signals, and dies the way the command died. Where stdin is a terminal the
command gets a terminal of the rig's own, relayed raw.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import warnings  # noqa: F401 os.execvpe imports it

if os.isatty(0):
    import fcntl
    import select
    import termios
    import tty

_CLONE_NEWNS = 0x00020000
_CLONE_NEWCGROUP = 0x02000000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000
_ALL = (
    _CLONE_NEWNS | _CLONE_NEWCGROUP | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET
)
_PR_SET_PDEATHSIG = 1
FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1,
              signal.SIGUSR2, signal.SIGCONT)  # fmt: skip


class Entry:
    """All that is needed to enter a rig; cgroup paths are the host's."""

    def __init__(
        self,
        init_pid: int,
        outer_cgroup: str,
        inner_cgroup: str,
        uid: int,
        directory: str,
        environment: dict[str, str],
        argv: list[str],
    ) -> None:
        self.init_pid = init_pid
        self.outer_cgroup = outer_cgroup
        self.inner_cgroup = inner_cgroup
        self.uid = uid
        self.directory = directory
        self.environment = environment
        self.argv = argv


def run(entry: Entry) -> int:
    """Run the command and return its exit code; die of the signal that it died of."""
    cgroup_fd = _prepare_cgroups(entry)
    pidfd = os.pidfd_open(entry.init_pid)
    _setns(pidfd, _ALL)
    os.close(pidfd)
    os.chdir("/")
    with_terminal = os.isatty(0)
    master_fd, slave_fd = os.openpty() if with_terminal else (-1, -1)
    pid = os.fork()
    if pid == 0:
        try:
            _become(entry, cgroup_fd, slave_fd)
        except OSError as error:
            os.write(2, f"rig: {entry.argv[0]}: {error.strerror}\n".encode())
            os._exit(126 if isinstance(error, PermissionError) else 127)
    os.close(cgroup_fd)
    for number in FORWARDED:
        signal.signal(number, lambda number, _frame: _forward(pid, number))
    # Whoever starts us may have blocked them until now, so that none is lost or kills the relay.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if with_terminal:
        os.close(slave_fd)
        _relay_terminal(master_fd)
    return _exit_code(os.waitpid(pid, 0)[1])


def encode(entry: Entry) -> list[str]:
    """Return the entry as the arguments of this program."""
    variables = [f"{name}={value}" for name, value in entry.environment.items()]
    places = [entry.outer_cgroup, entry.inner_cgroup, entry.directory]
    numbers = [str(entry.init_pid), str(entry.uid), str(len(variables))]
    return [*places, *numbers, *variables, *entry.argv]


def _decode(arguments: list[str]) -> Entry:
    outer, inner, directory, init_pid, uid, count = arguments[:6]
    first = 6 + int(count)
    environment = dict(each.split("=", 1) for each in arguments[6:first])
    return Entry(int(init_pid), outer, inner, int(uid), directory, environment, arguments[first:])


def _prepare_cgroups(entry: Entry) -> int:
    # The relay is invisible in the rig's pid namespace; systemd must not meet it in its tree.
    with open(os.path.join(entry.outer_cgroup, "cgroup.procs"), "w", encoding="ascii") as procs:
        procs.write("0")
    os.makedirs(entry.inner_cgroup, exist_ok=True)
    return os.open(os.path.join(entry.inner_cgroup, "cgroup.procs"), os.O_WRONLY | os.O_CLOEXEC)


def _setns(descriptor: int, kinds: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, kinds) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")


def _become(entry: Entry, cgroup_fd: int, slave_fd: int) -> None:
    os.write(cgroup_fd, b"0")
    os.setsid()
    if slave_fd >= 0:
        fcntl.ioctl(slave_fd, termios.TIOCSCTTY, 0)
        os.fchown(slave_fd, entry.uid, 5)
        for standard in (0, 1, 2):
            os.dup2(slave_fd, standard)
        if slave_fd > 2:
            os.close(slave_fd)
    # Each user of the rig has a group of the same number.
    os.setgroups([entry.uid])
    os.setgid(entry.uid)
    os.setuid(entry.uid)
    os.umask(0o022)
    os.chdir(entry.directory)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # A killed test run looks like a terminal that was closed.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGHUP), 0, 0, 0)
    # execvpe searches the PATH of the new environment.
    os.execvpe(entry.argv[0], entry.argv, entry.environment)


def _forward(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _relay_terminal(master_fd: int) -> None:
    # Not in the handler: one that interrupts another would have its size overwritten by an older.
    changes, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGWINCH, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    _copy_size(master_fd)
    before = termios.tcgetattr(0)
    # Not FLUSH: what was typed ahead stays.
    tty.setraw(0, termios.TCSADRAIN)
    try:
        sources = {0: master_fd, master_fd: 1}
        while master_fd in sources:
            for source in select.select([changes, *sources], [], [])[0]:
                if source == changes:
                    os.read(changes, 65536)
                    _copy_size(master_fd)
                    continue
                data = _read(source)
                if data:
                    _write_all(sources[source], data)
                else:
                    del sources[source]
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _copy_size(master_fd: int) -> None:
    size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
    fcntl.ioctl(master_fd, termios.TIOCSWINSZ, size)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # EIO: the last holder of the terminal is gone
        return b""


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code not in (9, 19) else None
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    # Not sys.exit: to take the interpreter down costs as much as the command.
    os._exit(run(_decode(sys.argv[1:])))
