"""A client of registries in a process of its own: urllib3 is imported while its user prepares.

    who pulls ── request, descriptors ──▶ agent ── fork ──▶ the transfer of one layer
              ◀─────── answer on a pipe ───┘ ◀──────────────┘

The import takes longer than all the rest of a small pull; so it is done on another processor, and a
layer goes from the agent's child straight to the file and the pipe that came with the request.  The
agent dies with its user, its transfers die with it.  What it answers is verified by who asked.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from rootlesspy.errors import Error
from rootlesspy.image import children
from rootlesspy.image.documents import Document
from rootlesspy.image.events import Events
from rootlesspy.image.transfer import Transfer, write_all
from rootlesspy.light_modules import json, signal, socket, struct
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, cast
from rootlesspy.linux import process
from rootlesspy.oci.image_spec import Descriptor
from rootlesspy.settings import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Self

    from rootlesspy.image.registry import Client
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

_REQUEST_BYTES = 1 << 16
_MOST_FDS = 4
_END_FD = 3
_METADATA = "importlib.metadata"


class Agent:
    """Asks registries in a process of its own, which the first request makes, or start()."""

    def __init__(self, reporter: Reporter, make_client: Callable[[], Client]) -> None:
        """make_client makes the agent's client, in its process; whoever needs another may call it.

        It is where everything slow is imported.
        """
        self.make_client = make_client
        self._reporter = reporter
        self._running: _Running | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget_connections()

    def start(self) -> None:
        """Make the process, unless there is one.  Raises OSError."""
        if self._running is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def serve() -> None:
            # No pipe of the caller's stays open for ever because a copy of it is here.
            end_fd = os.dup2(theirs.fileno(), _END_FD, inheritable=False)
            process.close_from(_END_FD + 1)
            self._reporter.be("agent")
            _serve(socket.socket(fileno=end_fd), self.make_client)

        self._running = _Running(_fork(serve), ours)
        theirs.close()

    def manifest(self, source: Source, reference: str) -> Document:
        """See Client.manifest()."""
        (media_type, digest), data = self._ask(["manifest", source, reference])
        return Document(data, media_type, digest)

    def small_blob(self, source: Source, digest: str, size: int) -> bytes:
        """See Client.small_blob()."""
        return self._ask(["small_blob", source, digest, size])[1]

    def transfer(
        self,
        descriptor: Descriptor,
        sources: tuple[Source, ...],
        blob_id: str,
        *,
        alone: bool,
        blob_fd: int,
        out_fd: int,
        events_fd: int,
    ) -> children.Child:
        """Begin what transfer.Transfer does; children.wait() returns the digest of what came.

        alone says that nothing else will be asked meanwhile: the agent does it itself, over the
        connection that it has.  The descriptors stay the caller's; out_fd is to be closed, so that
        its reader sees the end.
        """
        wanted = [descriptor.media_type, descriptor.digest, descriptor.size]
        request: list[object] = ["transfer", wanted, sources, blob_id, alone]
        return children.Child(0, self._send(request, (blob_fd, out_fd, events_fd)))

    def forget_connections(self) -> None:
        """End the process and its transfers; a later request makes a new one."""
        if self._running is not None:
            self._running.end.close()
            os.kill(self._running.pid, signal.SIGKILL)
            os.waitpid(self._running.pid, 0)
            self._running = None

    def _ask(self, request: list[object]) -> tuple[list[str], bytes]:
        """Return what was answered to a request: its fields and the bytes after them."""
        with open(self._send(request, ()), "rb") as file:
            head, _, data = file.read().partition(b"\n")
        if not head:
            raise Error("the process that asks registries was killed")
        fields = children.value_of(json.loads(head))
        return (fields if isinstance(fields, list) else []), data

    def _send(self, request: list[object], fds: Sequence[int]) -> int:
        """Send a request; return where its answer comes: nothing at all from a dead agent."""
        self.start()
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            if self._running is not None:
                packed = struct.pack(f"{len(fds) + 1}i", writer, *fds)
                passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)]
                self._running.end.sendmsg([json.dumps(request).encode()], passed)
        except (BrokenPipeError, ConnectionResetError):
            pass
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        return reader


def plain(paths: Paths, reporter: Reporter) -> Agent:
    """Return an agent that knows what is configured, and no more."""

    def make_client() -> Client:
        from rootlesspy.image.registry import Client

        return Client(reporter, config_directory=paths.config)

    return Agent(reporter, make_client)


class MetadataLater:
    """While this is entered, importlib.metadata is imported by whoever uses it, not by imports.

    urllib3 2 imports it for the version of a library that it is never asked for here, a fifth of
    its own import.  What stands in its place has version(), and becomes the module for all else.
    """

    def __enter__(self) -> None:
        self._module = ModuleType(_METADATA)
        self._module.version = self._version  # type: ignore[attr-defined]  # modules take anything
        self._module.__getattr__ = self._attribute  # type: ignore[method-assign]
        sys.modules.setdefault(_METADATA, self._module)

    def __exit__(self, *_: object) -> None:
        self._remove()

    def _version(self, name: str) -> str:
        version: str = self._attribute("version")(name)
        return version

    def _attribute(self, name: str) -> Any:
        if name.startswith("__"):
            # Asked by the import system itself.
            raise AttributeError(name)
        self._remove()
        return getattr(importlib.import_module(_METADATA), name)

    def _remove(self) -> None:
        if sys.modules.get(_METADATA) is self._module:
            del sys.modules[_METADATA]


class _Running(NamedTuple):
    pid: int
    end: socket.socket


def _serve(end: socket.socket, make_client: Callable[[], Client]) -> None:
    """Be the agent until nobody can ask any more."""
    with MetadataLater():
        made = children.answer(make_client)
    # Transfers tell who wanted them how they end.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while (received := _receive(end)) is not None:
        (name, *arguments), fds = received
        if "value" not in made:
            _reply(fds[0], made)
        elif name == "transfer":
            *wanted, alone = arguments
            client = cast("Client", made["value"])
            if alone:
                _transfer(client, wanted, fds)
            else:
                _fork_transfer(client, wanted, fds, end)
        else:
            _answer(cast("Client", made["value"]), name, arguments, fds[0])
        for fd in fds:
            os.close(fd)


def _answer(client: Client, name: str, arguments: list[Any], reply_fd: int) -> None:
    """Answer what is answered with a document."""
    data = b""

    def ask() -> list[str]:
        nonlocal data
        source = Source(*arguments[0])
        if name == "small_blob":
            data = client.small_blob(source, *arguments[1:])
            return []
        document = client.manifest(source, *arguments[1:])
        data = document.data
        return [document.media_type, document.digest]

    described = children.answer(ask)
    _reply(reply_fd, described, data)


def _transfer(client: Client, wanted: list[Any], fds: list[int]) -> None:
    """Fetch a layer and tell its digest."""
    described, sources, blob_id = wanted
    reply_fd, blob_fd, out_fd, events_fd = fds
    transfer = Transfer(
        Descriptor(*described),
        client,
        tuple(Source(*each) for each in sources),
        Events(events_fd, blob_id),
        blob_fd,
        out_fd,
    )
    _reply(reply_fd, children.answer(transfer.run))


def _fork_transfer(client: Client, wanted: list[Any], fds: list[int], end: socket.socket) -> None:
    """Have a layer fetched by a child, which dies with the agent."""

    def run() -> None:
        end.close()
        client.forget_connections()
        _transfer(client, wanted, fds)

    _fork(run)


def _fork(function: Callable[[], None]) -> int:
    """Run function in a child that dies with this process; return its pid."""
    parent = os.getpid()
    pid = os.fork()
    if pid != 0:
        return pid
    try:
        process.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() == parent:
            # As children.fork() does.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            function()
    finally:
        os._exit(0)


def _reply(fd: int, described: dict[str, object], data: bytes = b"") -> None:
    try:
        write_all(fd, json.dumps(described).encode() + b"\n" + data)
    except BrokenPipeError:
        # Who asked is gone.
        pass


def _receive(end: socket.socket) -> tuple[list[Any], list[int]] | None:
    """Return a request and what came with it, None at the end."""
    size = struct.calcsize(f"{_MOST_FDS}i")
    try:
        data, ancillary, _, _ = end.recvmsg(
            _REQUEST_BYTES, socket.CMSG_SPACE(size), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        return None
    fds = [fd for _, _, packed in ancillary for (fd,) in struct.iter_unpack("i", packed)]
    return (json.loads(data), fds) if data else None
