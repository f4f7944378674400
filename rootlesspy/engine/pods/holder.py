"""The service of a pod: holds its namespaces and its network, and hands them to its members.

Main process of rp-pod-NAME.service, an ordinary process of the user outside of all namespaces; its
child (runtime.hold) is inside.  The members' scopes are bound to the service: if it is killed
systemd stops them, for a network without a way out and a PID namespace without process 1 are of no
use to anybody.
"""

from __future__ import annotations

import os
import signal

from rootlesspy.engine import idmap
from rootlesspy.engine.pods import actions, client, store
from rootlesspy.engine.supervision import control, etc_files
from rootlesspy.engine.supervision.loop import Loop
from rootlesspy.errors import Error, RuntimeFailure
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import process, procfs
from rootlesspy.network import driver
from rootlesspy.network.ports import PortMapping
from rootlesspy.paths import private_directory
from rootlesspy.runtime import create, hold, sync
from rootlesspy.systemd import notify

if TYPE_CHECKING:
    import socket

    from rootlesspy.engine.pods.store import Pod
    from rootlesspy.network.driver import NetworkStatus, Pending, Selection
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

_FILES = {"network": "net", "mount": "mnt"}
_NETWORK_RETRY_S = 1.0
_RECHECK_S = 0.5
_FOLLOWED_AFTER_S = 5.0


def serve(name: str, paths: Paths, reporter: Reporter) -> int:
    """Be the service of a pod until it is stopped; return the exit code.

    Raises Error when it cannot be started; whoever starts it is told too.
    """
    notifier = notify.Notifier(os.environ.pop("NOTIFY_SOCKET", ""))
    process.set_name(f"rp-pod-{name}".encode())
    pod = store.find(paths, name)
    private_directory(paths.container_runtime(pod.id))
    client = control.connect(paths, pod.id, control.STARTER)
    service = _Service(pod, paths, reporter, notifier)
    try:
        service.prepare()
    except (Error, OSError) as error:
        service.end()
        told = error if isinstance(error, Error) else _unexpected(error)
        if client is not None:
            control.tell(client, "failed", message=told.message, hint=told.hint or "",
                         exit_code=told.exit_code)  # fmt: skip
        raise told from error
    if client is not None:
        control.tell(client, "started")
        client.close()
    try:
        return service.run()
    finally:
        service.end()


def _now(paths: Paths, pod: Pod) -> Pod:
    """Return a pod as it is on disk now."""
    try:
        return store.find(paths, pod.name)
    except Error:
        return pod


def _unexpected(error: OSError) -> RuntimeFailure:
    return RuntimeFailure(f"the pod's namespaces cannot be made: {error}", step="pod")


class _Service:
    """One pod's namespaces, held."""

    def __init__(
        self, pod: Pod, paths: Paths, reporter: Reporter, notifier: notify.Notifier
    ) -> None:
        self._pod = pod
        self._paths = paths
        self._reporter = reporter
        self._notifier = notifier
        self._loop = Loop()
        self._exit_code: int | None = None
        self._pid = 0
        self._start = 0
        self._pidfd = -1
        self._lock_fd = -1
        self._resolv_conf = ""
        self._members: set[socket.socket] = set()
        self._is_left = False
        self._channel: sync.Channel
        self._fds: dict[str, int] = {}
        self._selection: Selection
        self._pending: Pending | None = None
        self._network: NetworkStatus
        self._listener: socket.socket

    def prepare(self) -> None:
        """Make the namespaces and the network.  Raises Error, OSError."""
        pod, paths = self._pod, self._paths
        request = driver.restore(pod.network)
        ports = tuple(PortMapping(*each) for each in pod.ports)  # type: ignore[arg-type]  # as written
        self._lock_fd = store.hold(paths, pod)
        self._selection = driver.select(request, ports)
        if self._selection.notice:
            self._reporter.notice(self._selection.notice)
        if request.networks:
            from rootlesspy.engine.networks import membership

            self._selection = membership.reserve(paths, pod, self._selection, pod=pod.name)
        known_as = pod.hostname, pod.name
        self._resolv_conf = etc_files.write_pod(
            paths, pod.id, known_as, pod.resolver, self._selection
        )
        maps = idmap.of(pod)
        kinds = ("user", "mount", *pod.share)
        place = f"{paths.container_runtime(pod.id)}/root"
        os.makedirs(place, mode=0o700, exist_ok=True)
        plan = hold.Plan(
            place=place,
            hostname=pod.hostname if "uts" in pod.share else "",
            shm_size_bytes=pod.shm_size_bytes,
            set_groups=maps.needs_helpers(),
            loopback="network" in pod.share and request.driver == "none",
            sysctls=tuple(pod.sysctls.items()),
        )
        self._pid, self._pidfd, self._channel = hold.launch(plan, kinds)
        self._start = procfs.start_time(self._pid) or 0
        for kind in kinds:
            path = f"/proc/{self._pid}/ns/{_FILES.get(kind, kind)}"
            self._fds[kind] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        create.finish_id_maps(create.write_id_maps(self._pid, maps))
        self._channel.send(sync.IDS_MAPPED)
        self._expect_ready()
        if "network" in pod.share:
            self._start_network()
            self._join_networks()
        self._channel.send(sync.PLACED)
        self._expect_ready()
        self._listener = control.listen(paths, pod.id, control.CONTROL)
        self._listener.setblocking(False)

    def run(self) -> int:
        """Serve until stopped; return the exit code, 1 when the child was killed."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._loop.watch(reader, lambda: self._stop(0))
        self._loop.watch(self._pidfd, lambda: self._stop(1))
        self._loop.watch(self._listener.fileno(), self._accept)
        self._watch_network()
        self._loop.after("resolv.conf", _FOLLOWED_AFTER_S, self._follow_resolvers)
        self._notifier.send(notify.READY)
        while self._exit_code is None:
            self._loop.turn()
        return self._exit_code

    def end(self) -> None:
        """End the network helper and the child, and wait for both; leave the networks."""
        if self._pending is not None:
            self._pending.cancel()
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                os.waitpid(self._pid, 0)
            except (ProcessLookupError, ChildProcessError):
                # It was killed.
                pass
            finally:
                os.close(self._pidfd)
                self._pidfd = -1
        if self._pod.network.get("networks"):
            from rootlesspy.engine.networks import membership

            # Those that it has been connected with since, too.
            membership.release(self._paths, _now(self._paths, self._pod))
        if self._is_left:
            actions.release_slices(self._paths, self._pod)

    def _stop(self, code: int) -> None:
        self._exit_code = code

    def _expect_ready(self) -> None:
        try:
            self._channel.expect(sync.READY)
        except sync.FailedError as error:
            raise create.explain(error.failed, "") from error

    def _accept(self) -> None:
        """Hand the namespaces to whoever asks: the socket is the user's alone."""
        try:
            end, _ = self._listener.accept()
        except OSError:
            # It left again.
            return
        fields = {"kinds": list(self._fds), "pid": self._pid, "start": self._start}
        control.send(end, "namespaces", list(self._fds.values()), fields)
        if self._pod.exit_policy != "stop":
            end.close()
            return
        end.setblocking(False)
        self._loop.watch(end.fileno(), lambda: self._hear(end))

    # --- --exit-policy stop -------------------------------------------------------------------

    def _hear(self, end: socket.socket) -> None:
        """Count a member while its connection is open."""
        try:
            message = control.receive(end)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            message = None
        if message is not None:
            message.close()
            if message.kind == client.MEMBER:
                self._members.add(end)
            return
        self._loop.forget(end.fileno())
        end.close()
        if end in self._members:
            self._members.remove(end)
            self._loop.after("left", 0, self._end_if_left)

    def _end_if_left(self) -> None:
        """End when the last member has, unless one is started, or systemd is about to."""
        if self._members:
            return
        fd = actions.try_lock(self._paths)
        if fd is None or actions.is_awaited(self._paths, self._pod):
            if fd is not None:
                os.close(fd)
            self._loop.after("left", _RECHECK_S, self._end_if_left)
            return
        # Until this process has ended nobody starts the pod: its slices are stopped first.
        self._is_left = True
        self._stop(0)

    # --- its network --------------------------------------------------------------------------

    def _join_networks(self) -> None:
        """Connect the pod with the networks that it is in.  Raises RuntimeFailure."""
        networks = self._selection.request.networks
        if not networks:
            return
        from rootlesspy.engine.networks import membership
        from rootlesspy.network.namespace import Namespace

        opened = Namespace(self._fds["user"], self._fds["network"])
        for each in networks:
            membership.join_opened(self._paths, each.name, self._pod.id, self._pid, opened)

    def _follow_resolvers(self) -> None:
        """Keep its resolv.conf, and what members have of it, as the host's is."""
        own = bool(self._pod.resolver.get("dns")) or "network" not in self._pod.share
        selection = self._selection
        if own or selection.addresses.name_servers or selection.request.driver == "none":
            return
        from rootlesspy.engine.pods import etc
        from rootlesspy.engine.supervision import host_resolvers

        files = host_resolvers.Files(
            path=f"{self._paths.container_runtime(self._pod.id)}/resolv.conf",
            written=self._resolv_conf,
            copies=lambda: etc.copies(self._paths, self._pod),
        )
        host_resolvers.Follower(
            self._pod.resolver, selection, files, self._loop, self._restart_network
        ).begin()

    def _start_network(self) -> None:
        """Start the helper; the child must be traceable meanwhile, so that it can be attached."""
        self._pending = driver.start(
            self._selection,
            netns_path=f"/proc/{self._pid}/ns/net",
            userns_path=f"/proc/{self._pid}/ns/user",
            runtime_dir=self._paths.container_runtime(self._pod.id),
        )
        self._network = self._pending.wait()

    def _watch_network(self) -> None:
        if self._pending is not None and self._network.helper is not None:
            self._loop.watch(self._network.helper.pidfd, self._restart_network)

    def _restart_network(self) -> None:
        """Start a helper that died again in the same namespace, with the same ports."""
        if self._pending is not None and self._network.helper is not None:
            self._loop.forget(self._network.helper.pidfd)
            self._pending.cancel()
        try:
            self._channel.send(hold.OPEN)
            self._expect_ready()
            try:
                self._start_network()
            finally:
                self._channel.send(sync.PLACED)
                self._expect_ready()
        except (Error, OSError) as error:
            self._reporter.notice(f"pod {self._pod.name} has lost its network: {error}")
            self._loop.after("network", _NETWORK_RETRY_S, self._restart_network)
            return
        self._watch_network()
