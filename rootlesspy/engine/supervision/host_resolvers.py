"""Follows the host's /etc/resolv.conf: a VPN that comes or goes changes who answers names.

Links, addresses and routes need nothing: pasta's sockets are the host's own.  Only what was copied
when the container started has to be written anew, and the resolver that pasta forwards to is the
one that it found when it started.  Containers in user-defined networks ask their network's server,
which looks for itself.

Loaded by the supervisor some seconds after the start.  The user's number of inotify instances is
limited; a container that gets none keeps the resolvers it has.
"""

from __future__ import annotations

import os

from rootlesspy.engine.supervision import etc_files
from rootlesspy.errors import Error
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import inotify

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.supervision.job import Job
    from rootlesspy.engine.supervision.loop import Loop
    from rootlesspy.network.driver import Selection

_HOST_FILE = "/etc/resolv.conf"
_REPLACED = inotify.IN_ATTRIB | inotify.IN_MOVE_SELF | inotify.IN_DELETE_SELF
_APPEARED = inotify.IN_CREATE | inotify.IN_MOVED_TO | inotify.IN_CLOSE_WRITE
# Files are written in several steps, and by several programs: the last one counts.
_SETTLED_S = 0.5
_TIMER = "resolv.conf"

Targets = tuple[str, str]


def follow(task: Job, turns: Loop, restart_helper: Callable[[], None]) -> None:
    """Keep a container's resolv.conf as the host's is, until the loop ends."""
    record, addresses = task.record, task.selection.addresses
    own = bool(record.resolver.get("dns")) or "network" in record.shares
    if own or addresses.name_servers or task.selection.request.driver == "none":
        return
    path = f"{task.paths.container_runtime(task.record.id)}/resolv.conf"
    files = Files(path, task.resolv_conf, list)
    Follower(record.resolver, task.selection, files, turns, restart_helper).begin()


class Files(NamedTuple):
    """What is kept as the host's file is."""

    path: str
    written: str
    """What rp wrote there."""
    copies: Callable[[], list[str]]
    """Files of others that were made of it."""


class Follower:
    """The resolv.conf of one container or pod."""

    def __init__(
        self,
        asked: dict[str, list[object]],
        selection: Selection,
        files: Files,
        turns: Loop,
        restart_helper: Callable[[], None],
    ) -> None:
        self._asked = asked
        self._selection = selection
        self._path = files.path
        self._copies = files.copies
        self._loop = turns
        self._restart_helper = restart_helper
        self._fd = -1
        self._written = files.written
        self._targets: Targets | None = None

    def begin(self) -> None:
        """Begin to watch, and make up for what happened since the container's files were made."""
        if self._text() == self._written:
            self._targets = _targets()
        self._watch()
        self._update()

    def _text(self) -> str:
        try:
            return etc_files.resolv_conf(self._asked, self._selection) or ""
        except Error:
            # Something that cannot stand there, as in a file that is half written.
            return self._written

    def _watch(self) -> None:
        """Watch the file, and the link that it may be; where it will appear while there is none."""
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
        wanted = [
            (_HOST_FILE, inotify.IN_DONT_FOLLOW | _REPLACED),
            # When it is no link the same watch, with more events.
            (_HOST_FILE, inotify.IN_CLOSE_WRITE | _REPLACED),
        ]
        if not os.path.exists(_HOST_FILE):
            places = (os.path.realpath(_HOST_FILE), _HOST_FILE)
            wanted += [(os.path.dirname(each), _APPEARED) for each in places]
        self._fd = -1
        for path, events in wanted:
            try:
                if self._fd < 0:
                    self._fd = inotify.watch(path, events)
                else:
                    inotify.add(self._fd, path, events)
            except OSError:
                continue
        if self._fd >= 0:
            self._loop.watch(self._fd, self._notice)

    def _notice(self) -> None:
        inotify.drain(self._fd)
        self._loop.after(_TIMER, _SETTLED_S, self._look_again)

    def _look_again(self) -> None:
        self._watch()
        self._update()

    def _update(self) -> None:
        text = self._text()
        if text != self._written:
            if not self._replace(self._path, text):
                return
            for path in self._copies():
                self._replace(path, text)
            self._written = text
        targets = _targets()
        addresses = self._selection.addresses
        words = text.split()
        if targets != self._targets and (addresses.dns in words or addresses.dns6 in words):
            # It reads the host's file when it starts.
            self._targets = targets
            self._restart_helper()

    def _replace(self, path: str, text: str) -> bool:
        """Write the new text, unless the container has written its own: it is asked no more."""
        try:
            if _read(path) != self._written:
                return False
            etc_files.replace(path, text)
        except OSError:
            return False
        return True


def _targets() -> Targets:
    """Return whom pasta and slirp4netns forward to: the first resolver of each IP version."""
    try:
        text = _read(_HOST_FILE)
    except OSError:
        return "", ""
    found = [
        words[1]
        for words in (line.split() for line in text.splitlines())
        if len(words) > 1 and words[0] == "nameserver"
    ]
    ipv4 = next((each for each in found if ":" not in each), "")
    return ipv4, next((each for each in found if ":" in each), "")


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(1 << 20)
