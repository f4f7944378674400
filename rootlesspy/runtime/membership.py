"""Namespaces that exist already, for a container's init to be born in (--network container:NAME).

setns(2) moves only children into a PID namespace, and who joined a user namespace can go back to
none: so a process in between joins and makes init as its sibling, by CLONE_PARENT a child of the
supervisor.  Sources: setns(2), clone(2), user_namespaces(7).
"""

from __future__ import annotations

import errno
import os

from rootlesspy.errors import RuntimeFailure
from rootlesspy.light_typing import NamedTuple, NoReturn
from rootlesspy.linux import process
from rootlesspy.runtime.create import FLAGS

_ANSWER_BYTES = 64
_EXPLAINED = {
    errno.EPERM: "it belongs to another user, or to another user namespace",
    errno.ESRCH: "its process has ended",
}


class Membership(NamedTuple):
    """Namespaces to be born in."""

    fd: int
    """Of one namespace (/proc/PID/ns/…), or a pidfd: of the process's own."""
    kinds: tuple[str, ...]
    """user, pid, network, uts, ipc, as the spec names them."""
    title: str = ""
    """Whose they are, for the error."""


def clone_inside(memberships: tuple[Membership, ...], flags: int) -> tuple[int, int]:
    """Fork into existing namespaces and new ones (flags); as process.clone3() returns.

    Raises RuntimeFailure when one cannot be joined, OSError when no process can be made.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        between, pidfd = process.clone3(0)
        if between == 0:
            _join_and_clone(memberships, flags, writer)
            # Only the sibling returns, as clone3's child does.
            return 0, -1
        os.close(pidfd)
        answer = os.read(reader, _ANSWER_BYTES)
        # It ends at once; the sibling is another child.
        os.waitpid(between, 0)
    finally:
        os.close(reader)
        os.close(writer)
    word, _, rest = answer.partition(b" ")
    if word == b"born":
        pid = int(rest)
        # A child that nobody has waited for keeps its number.
        return pid, os.pidfd_open(pid)
    index, _, number = rest.partition(b" ")
    raise _failure(memberships, int(index or b"-1"), int(number or b"3"))


def _join_and_clone(memberships: tuple[Membership, ...], flags: int, writer: int) -> None:
    """Be the process in between: return in the sibling alone."""
    index = -1
    try:
        # The user namespace first: it has the rights over the others.
        ordered = sorted(range(len(memberships)), key=lambda i: "user" not in memberships[i].kinds)
        for index in ordered:
            wanted = 0
            for kind in memberships[index].kinds:
                wanted |= FLAGS[kind]
            process.setns(memberships[index].fd, wanted)
        index = -1
        pid, _ = process.clone3(flags | process.CLONE_PARENT)
        if pid == 0:
            return
        os.write(writer, b"born %d" % pid)
    except OSError as error:
        os.write(writer, b"failed %d %d" % (index, error.errno or errno.EIO))
    except BaseException:  # noqa: BLE001 - the child's last line
        os.write(writer, b"failed -1 %d" % errno.EIO)
    _leave()


def _leave() -> NoReturn:
    os._exit(0)


def _failure(memberships: tuple[Membership, ...], index: int, number: int) -> Exception:
    if index < 0:
        return OSError(number, os.strerror(number))
    found = memberships[index]
    kinds = " and ".join(found.kinds)
    reason = _EXPLAINED.get(number, os.strerror(number))
    return RuntimeFailure(
        f"the {kinds} namespace of {found.title or 'that process'} cannot be joined: {reason}",
        step="join namespaces",
        errno=number,
    )
