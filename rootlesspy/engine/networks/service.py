"""The service of a network: holds its namespaces, connects its members, answers DNS.

Main process of rp-network-NAME.service, an ordinary process of the user in the host's network.  One
poll loop.  It keeps nothing that is not elsewhere too: the namespaces and the DNS sockets are in
systemd's descriptor store, who is in the network is in the leases.  So it may be killed at any time
and goes on where it was.  It ends with the last member.
"""

from __future__ import annotations

import os
import socket

from rootlesspy.engine.networks import client, leases, store
from rootlesspy.engine.supervision import control, sockets
from rootlesspy.engine.supervision.loop import Loop
from rootlesspy.errors import Error, RuntimeFailure
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import process, procfs
from rootlesspy.network import bridge, namespace
from rootlesspy.network.plumbing import Plumber
from rootlesspy.systemd import notify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.engine.networks.leases import Lease
    from rootlesspy.engine.supervision.control import Message
    from rootlesspy.network.names.server import Server
    from rootlesspy.network.namespace import Namespace
    from rootlesspy.network.networks import Network
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

# A container that has its address and is on its way in.
_RECHECK_S = 2.0
# Containers come in groups; somebody who comes later waits 0.3 s for the child.
_PLUMBER_REST_S = 5.0
_USERNS, _NETNS, _DNS = "userns", "netns", "dns"
_PORT_ID_CHARACTERS = 12


class _Member(NamedTuple):
    """A container that is connected."""

    pid: int
    pidfd: int


def serve(name: str, paths: Paths, reporter: Reporter) -> int:
    """Be the service of a network until its last member has left; return the exit code.

    Raises NotFound, RuntimeFailure, OSError.
    """
    listening = sockets.take(os.environ)
    notifier = notify.Notifier(os.environ.pop("NOTIFY_SOCKET", ""))
    process.set_name(f"rp-net-{name}".encode())
    network = store.load(paths, name)
    service = _Service(paths, network, notifier, reporter)
    service.prepare(_by_name(listening))
    service.run()
    return 0


class _Service:
    """One network at work."""

    def __init__(
        self, paths: Paths, network: Network, notifier: notify.Notifier, reporter: Reporter
    ) -> None:
        self._paths = paths
        self._network = network
        self._notifier = notifier
        self._reporter = reporter
        self._loop = Loop()
        self._members: dict[str, _Member] = {}
        self._ended = False
        self._space: Namespace
        self._netlink: bridge.Netlink
        self._listener: socket.socket
        self._plumber = Plumber()
        self._dns: Server | None = None

    def prepare(self, kept: dict[str, list[int]]) -> None:
        """Take over what systemd kept of the last one, or make it; connect who is there."""
        # It loads what it needs while we do.
        self._plumber.begin()
        spaces = [*kept.get(_USERNS, ()), *kept.get(_NETNS, ())]
        found = len(spaces) == 2
        self._space = namespace.Namespace(*spaces) if found else namespace.make()
        self._netlink = bridge.Netlink(namespace.call(self._space, _open_netlink)[0])
        if self._bridge not in self._netlink.interfaces():
            self._make_bridge()
        if not found:
            self._notifier.store(_USERNS, [self._space.userns_fd])
            self._notifier.store(_NETNS, [self._space.netns_fd])
        if self._network.dns:
            self._answer_names(kept.get(_DNS, []))
        self._rebuild()
        self._listener = control.listen(
            self._paths, client.place(self._network.name), control.CONTROL
        )
        self._listener.setblocking(False)

    def run(self) -> None:
        """Serve until nobody is in the network any more."""
        self._loop.watch(self._listener.fileno(), self._accept)
        self._notifier.send(notify.READY)
        self._loop.after("alone", _RECHECK_S, self._end_if_alone)
        self._loop.after("plumber", _PLUMBER_REST_S, self._plumber.rest)
        while not self._ended:
            self._loop.turn()
        self._plumber.rest()
        if self._dns is not None:
            self._dns.close()

    @property
    def _bridge(self) -> str:
        return self._network.interface_name or bridge.DEFAULT_NAME

    def _make_bridge(self) -> None:
        gateways = [
            f"{each.gateway}/{each.subnet.partition('/')[2]}" for each in self._network.subnets
        ]
        self._plumber.configure(self._netlink.fileno(), "lo", ())
        self._plumber.make_bridge(
            self._netlink.fileno(),
            self._bridge,
            gateways if self._network.dns else (),
            self._network.mtu,
        )

    def _answer_names(self, kept: Sequence[int]) -> None:
        # Here, so that the plumber does not carry them too.
        from rootlesspy.engine.networks.table import LiveTable
        from rootlesspy.network.names import server
        from rootlesspy.network.names.upstreams import HostResolvers

        gateways = tuple(each.gateway for each in self._network.subnets)
        fds = list(kept)
        if not fds:
            fds = namespace.call(
                self._space, lambda: [each.detach() for each in server.listen(gateways)]
            )
            self._notifier.store(_DNS, fds)
        opened = [socket.socket(fileno=fd) for fd in fds]
        for each in opened:
            each.setblocking(False)
        table = LiveTable(self._paths, self._network)
        self._dns = server.Server(self._loop, opened, table, HostResolvers(without=gateways))

    # --- members ----------------------------------------------------------------------------

    def _rebuild(self) -> None:
        """Connect every living member that is not, as after a kill."""
        ports = self._netlink.interfaces()
        for lease in leases.living(self._paths, self._network.name):
            if not lease.pid or lease.container in self._members:
                continue
            if _port(lease.container) in ports:
                self._adopt(lease)
                continue
            opened = self._namespace_of(lease)
            if opened is None:
                # It has ended, or is about to say `join`.
                continue
            try:
                self._connect(lease, opened)
            except OSError as error:
                self._reporter.notice(f"{lease.name} cannot be connected: {error}")
            finally:
                opened.close()

    def _namespace_of(self, lease: Lease) -> Namespace | None:
        """Open the namespaces of a member; nobody but a pod's service may look into its process."""
        if lease.pod:
            from rootlesspy.engine.pods import client as pod_client
            from rootlesspy.engine.pods import store as pods

            try:
                return pod_client.network_namespace(self._paths, pods.find(self._paths, lease.pod))
            except Error:
                return None
        try:
            return namespace.of(lease.pid)
        except OSError:
            return None

    def _connect(self, lease: Lease, opened: Namespace) -> None:
        """Give a container its interface.  Raises OSError."""
        port = bridge.Port(
            name=_port(lease.container),
            interface=lease.interface,
            mac=lease.mac,
            mtu=self._network.mtu,
        )
        self._loop.after("plumber", _PLUMBER_REST_S, self._plumber.rest)
        self._plumber.add_port(self._netlink.fileno(), self._bridge, port, opened.netns_fd)
        try:
            (fd,) = namespace.call(opened, lambda: _enter(lease))
            try:
                self._plumber.configure(fd, lease.interface, lease.addresses, self._network.routes)
            finally:
                os.close(fd)
        except BaseException:
            self._netlink.remove(port.name)
            raise
        self._adopt(lease)

    def _adopt(self, lease: Lease) -> None:
        """Watch a connected container's PID 1; one that has ended leaves at once."""
        self._forget(lease.container)
        try:
            pidfd = os.pidfd_open(lease.pid)
        except ProcessLookupError:
            self._left(lease.container, lease.pid)
            return
        if procfs.start_time(lease.pid) != lease.start:
            os.close(pidfd)
            self._left(lease.container, lease.pid)
            return
        self._members[lease.container] = _Member(lease.pid, pidfd)
        self._loop.watch(pidfd, lambda: self._left(lease.container, lease.pid))

    def _left(self, container_id: str, pid: int) -> None:
        """Notice the end of a container; it may have been started again meanwhile."""
        member = self._members.get(container_id)
        if member is not None and member.pid == pid:
            self._forget(container_id)
            self._netlink.remove(_port(container_id))
        fd = leases.lock(self._paths, self._network.name)
        try:
            lease = leases.load(self._paths, self._network.name, container_id)
            if lease is not None and lease.pid == pid:
                leases.release(self._paths, self._network.name, container_id)
        finally:
            os.close(fd)
        self._loop.after("alone", 0, self._end_if_alone)

    def _forget(self, container_id: str) -> None:
        member = self._members.pop(container_id, None)
        if member is not None:
            self._loop.forget(member.pidfd)
            os.close(member.pidfd)

    def _end_if_alone(self) -> None:
        """End when nobody is connected, nor has an address and is about to be."""
        if self._members:
            return
        name = self._network.name
        fd = leases.lock(self._paths, name)
        try:
            if leases.living(self._paths, name, purge=True):
                self._loop.after("alone", _RECHECK_S, self._end_if_alone)
                return
            # Who comes now finds no socket and has another service started.
            os.unlink(f"{self._paths.network_runtime(name)}/{control.CONTROL}")
            leases.remove_directory(self._paths, name)
            self._ended = True
        finally:
            os.close(fd)

    # --- requests ---------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            end, _ = self._listener.accept()
        except OSError:
            return
        end.setblocking(False)
        self._loop.watch(end.fileno(), lambda: self._read(end))

    def _read(self, end: socket.socket) -> None:
        try:
            message = control.receive(end)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            message = None
        if message is None:
            self._loop.forget(end.fileno())
            end.close()
            return
        try:
            self._carry_out(message)
            control.tell(end, "done")
        except Error as error:
            control.tell(end, "failed", message=error.message, hint=error.hint or "")
        except OSError as error:
            control.tell(end, "failed", message=f"cannot {message.kind}: {error.strerror}")
        except Exception as error:  # noqa: BLE001 - one request must not take the network along
            text = f"internal error: {type(error).__name__}: {error}"
            control.tell(end, "failed", message=text)
        finally:
            message.close()

    def _carry_out(self, message: Message) -> None:
        container_id = message.text("container")
        if message.kind == "join" and len(message.fds) == 2:
            lease = leases.load(self._paths, self._network.name, container_id)
            if lease is None:
                raise RuntimeFailure(f"container {container_id[:12]} has no lease", step="network")
            self._forget(container_id)
            self._connect(lease, namespace.Namespace(*message.fds))
        elif message.kind == "leave":
            self._forget(container_id)
            self._netlink.remove(_port(container_id))
            self._loop.after("alone", 0, self._end_if_alone)
        elif message.kind == "reload":
            self._network = store.load(self._paths, self._network.name)
            if self._dns is not None:
                from rootlesspy.engine.networks.table import LiveTable

                self._dns.update(LiveTable(self._paths, self._network))
            self._rebuild()
        elif message.kind != "names":
            raise Error(f"the network's service knows no request {message.kind!r}")


def _by_name(listening: sockets.Listening) -> dict[str, list[int]]:
    """Return what systemd kept, by the names that it was stored under."""
    found: dict[str, list[int]] = {}
    names = listening.names.split(":")
    for fd, name in zip(range(sockets.FIRST, listening.end), names, strict=False):
        found.setdefault(name, []).append(fd)
    return found


def _port(container_id: str) -> str:
    """Return the name of a container's end at the bridge."""
    return f"rp{container_id[:_PORT_ID_CHARACTERS]}"


def _open_netlink() -> list[int]:
    return [bridge.open_netlink()]


def _enter(lease: Lease) -> list[int]:
    """Runs in a container's namespaces: forbid what others on the bridge could tell it.

    No member is a router (CVE-2020-13401); without an IPv6 address IPv6 stays off there.
    """
    ipv6 = any(":" in each for each in lease.addresses)
    values = [("accept_ra", "0"), ("autoconf", "0"), ("disable_ipv6", "0" if ipv6 else "1")]
    settings = [(f"ipv6/conf/{lease.interface}/{key}", value) for key, value in values]
    namespace.write_sysctls(settings)
    return _open_netlink()
