"""Which network a container gets, and the one place where the drivers are chosen.

A driver is a file of this room; its helper process is a child of the supervisor, an ordinary
process of the user outside the container's namespaces (process.py).  The order of calls:

    parse_network    --network           → NetworkRequest
    select           before anything is made: programs, ports, addresses → Selection
    start            once the network namespace exists and its id maps are written → Pending
    Pending.wait     while the scope is being made → NetworkStatus
    Pending.cancel   at the end; when status.helper.pidfd says that it died: cancel and start again

pasta and slirp4netns bring `lo` up themselves; when the selected driver is none, the container's
init has to.
"""

from __future__ import annotations

import os

from rootlesspy.errors import Error, RuntimeFailure, Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.network import process
from rootlesspy.network.addresses import Addresses, outbound_addresses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.network.attachment import Attachment
    from rootlesspy.network.ports import PortMapping

READY_TIMEOUT_S = 10.0

DRIVERS = ("pasta", "slirp4netns", "host", "none", "container", "ns")
SHARED = ("container", "ns", "pod")
"""The network namespace of somebody else: its one option says whose."""
SELF_CONTAINED = frozenset(("pasta", "none", "host"))
"""Those that need no file beside the container: they can begin before it is on disk."""


_WHOSE = {"container": "a name, container:NAME", "ns": "a path, ns:/PATH"}


class NetworkRequest(NamedTuple):
    """The value of --network, parsed."""

    driver: str = "pasta"
    options: tuple[str, ...] = ()
    """What stood behind the colon, cut at the commas."""
    chosen: bool = False
    """The user named the driver: no other one may stand in for it."""
    networks: tuple[Attachment, ...] = ()
    """User-defined networks, beside the driver, which is the way out."""


class Selection(NamedTuple):
    """A network that can be started here: program found, ports free."""

    request: NetworkRequest
    ports: tuple[PortMapping, ...] = ()
    addresses: Addresses = Addresses()
    notice: str = ""
    """One line for the user, when what was asked for is not quite what they get."""


class NetworkStatus(NamedTuple):
    """A started network."""

    driver: str
    ports: tuple[PortMapping, ...] = ()
    helper: process.Helper | None = None

    @property
    def helper_pid(self) -> int | None:
        """The helper's process id, None where there is no helper."""
        return self.helper.pid if self.helper else None

    @property
    def helper_start_time(self) -> int | None:
        """Clock ticks after boot: tells the helper from a reused process id."""
        return self.helper.start_time if self.helper else None

    def record(self) -> dict[str, object]:
        """Return what the container's record keeps, as JSON takes it."""
        return {
            "driver": self.driver,
            "ports": [mapping._asdict() for mapping in self.ports],
            "helper_pid": self.helper_pid,
            "helper_start_time": self.helper_start_time,
        }


class Pending:
    """A network being configured, then a running one; it owns the helper until `cancel`."""

    def __init__(self, selection: Selection, helper: process.Helper | None, api: str) -> None:
        self._selection = selection
        self._helper = helper
        self._killed: process.Helper | None = None
        self._api = api

    def fileno(self) -> int:
        """Return a descriptor that is readable once `wait` will not block; -1: it never blocks."""
        return self._helper.ready_fd if self._helper else -1

    def pids(self) -> tuple[int, ...]:
        """Return the process of the helper, if there is one."""
        return (self._helper.pid,) if self._helper else ()

    def wait(self, timeout_s: float = READY_TIMEOUT_S) -> NetworkStatus:
        """Return when the namespace has its addresses and routes and the ports are open.

        Raises Conflict (a port was taken meanwhile), Unsupported or RuntimeFailure; the helper is
        ended then.
        """
        request, ports = self._selection.request, self._selection.ports
        status = NetworkStatus(driver=request.driver, ports=ports, helper=self._helper)
        if self._helper is None:
            return status
        try:
            _await(self._helper, self._selection, timeout_s)
            if request.driver == "slirp4netns":
                from rootlesspy.network import slirp4netns

                slirp4netns.publish(self._api, ports, self._selection.addresses.container[0])
        except BaseException:
            self.cancel()
            raise
        return status

    def cancel(self) -> None:
        """End the helper, waited for or not; harmless the second time."""
        helper, self._helper = self._helper, None
        if helper is not None:
            process.stop(helper)

    def kill(self) -> None:
        """Kill the helper, which the kernel takes 20 ms to take apart; reap() waits for that.

        There is nothing to cancel then.
        """
        self._killed, self._helper = self._helper, None
        if self._killed is not None:
            process.kill(self._killed)

    def reap(self) -> None:
        """Wait until a helper that was killed is gone; harmless the second time."""
        killed, self._killed = self._killed, None
        if killed is not None:
            process.reap(killed)


def parse_network(text: str) -> NetworkRequest:
    """Parse --network: pasta[:OPTION,…], slirp4netns[:KEY=VALUE,…], host, none, "" for the default.

    Raises UsageError.
    """
    if not text:
        return NetworkRequest()
    name, colon, option_text = text.partition(":")
    if name in ("container", "ns"):
        if not option_text or (name == "ns" and not option_text.startswith("/")):
            raise UsageError(f"network {text!r}: {name} needs {_WHOSE[name]}")
        return NetworkRequest(driver=name, options=(option_text,), chosen=True)
    if name not in DRIVERS:
        raise UsageError(f"network {text!r} is unknown", hint=f"one of {', '.join(DRIVERS)}")
    options = tuple(option_text.split(",")) if colon else ()
    if colon and (name in ("host", "none") or not all(options)):
        raise UsageError(f"network {text!r}: {name} takes no such options")
    if name == "pasta":
        from rootlesspy.network import pasta

        pasta.check_options(options)
    elif name == "slirp4netns":
        from rootlesspy.network import slirp4netns

        slirp4netns.parse_options(options)
    return NetworkRequest(driver=name, options=options, chosen=True)


def restore(fields: Mapping[str, object]) -> NetworkRequest:
    """Make a request of what a container's record keeps of it."""
    options, networks = fields.get("options"), fields.get("networks")
    found = NetworkRequest(
        driver=str(fields.get("driver", "pasta")),
        # Tuples in a record that was not written yet.
        options=tuple(map(str, options)) if isinstance(options, (list, tuple)) else (),
        chosen=bool(fields.get("chosen")),
    )
    if not isinstance(networks, (list, tuple)) or not networks:
        return found
    from rootlesspy.network import attachment

    return found._replace(networks=tuple(map(attachment.restore, networks)))


def select(
    request: NetworkRequest, ports: tuple[PortMapping, ...], *, now: bool = True
) -> Selection:
    """Find out what can be started on this machine, before anything is made.

    now: False when it is started later, and a port may be free by then.

    Raises Conflict (a port is in use), Unsupported (a program is missing, a port is privileged) and
    UsageError.
    """
    if request.driver in ("host", "none", *SHARED):
        notice = f"-p has no effect with --network {request.driver}" if ports else ""
        if ports and request.networks:
            notice = "-p has no effect: the container has no way out"
        shared = Addresses(host="127.0.0.1") if request.driver == "host" else Addresses()
        return Selection(request=request, addresses=shared, notice=notice)
    notice = ""
    if request.driver == "pasta":
        request, notice = _pasta_or_else(request, published=bool(ports))
    elif process.find_program("slirp4netns") is None:
        raise Unsupported("slirp4netns is not installed", hint="sudo apt install slirp4netns")
    if request.driver == "pasta":
        from rootlesspy.network import pasta

        addresses = pasta.addresses(request.options)
        pasta.check_ports(ports)
    elif request.driver == "slirp4netns":
        from rootlesspy.network import slirp4netns

        addresses = slirp4netns.addresses(request.options)
        slirp4netns.check_ports(ports)
    else:
        addresses = Addresses()
    if ports:
        from rootlesspy.network.ports import check_free

        ports = check_free(ports, now=now)
    return Selection(request=request, ports=ports, addresses=addresses, notice=notice)


def interface(selection: Selection) -> str:
    """Return the device that can be made in the namespace for the helper to attach to, or "".

    Where that is said with options it is the helper's to make.
    """
    request = selection.request
    if request.driver != "pasta" or request.options or request.networks:
        return ""
    from rootlesspy.network import pasta

    return pasta.template_interface()


def remove_interface(pid: int, name: str) -> None:
    """Remove the device that a helper which is gone leaves in the namespace of a process.

    It still has the addresses that another helper wants to give it.  Raises OSError.
    """
    from rootlesspy.linux import tun
    from rootlesspy.network import namespace

    def inside() -> tuple[int, ...]:
        tun.remove_tap(name)
        return ()

    found = namespace.of(pid)
    try:
        namespace.call(found, inside)
    finally:
        found.close()


def start(
    selection: Selection,
    *,
    netns_path: str,
    userns_path: str,
    runtime_dir: str,
    interface: str = "",
) -> Pending:
    """Start the helper for a network namespace; the paths are /proc/PID/ns/net and …/ns/user.

    interface: a device that was made there for it.

    The process must stay dumpable until `wait` has returned.  Descriptors of ours as paths do not
    work: pasta opens the second one as a member of the user namespace, from where our /proc/PID/fd
    is closed to it.  runtime_dir is the container's private runtime directory.  Raises Unsupported
    and OSError.
    """
    driver = selection.request.driver
    helper: process.Helper | None = None
    api = ""
    if driver == "pasta":
        from rootlesspy.network import pasta

        helper = process.start(
            _require(driver),
            pasta.arguments(
                _options(selection.request),
                selection.ports,
                guest_address=selection.addresses.host,
                netns_path=netns_path,
                userns_path=userns_path,
                interface=interface,
            ),
            ready_fd=1,
        )
    elif driver == "slirp4netns":
        from rootlesspy.network import slirp4netns

        api = slirp4netns.api_socket(runtime_dir) if selection.ports else ""
        helper = process.start(
            _require(driver),
            slirp4netns.arguments(selection.request.options, api=api, netns_path=netns_path),
            ready_fd=3,
            # Its socket belongs to the container's root, who may be another user (keep-id); the
            # directory is private.
            umask=0,
        )
    return Pending(selection, helper, api)


def _options(request: NetworkRequest) -> tuple[str, ...]:
    """Return pasta's options; eth0, as the host's interface may be called, is a network's then."""
    if not request.networks:
        return request.options
    # The later one counts, so what was asked for stands.
    return ("--ns-ifname", "tap0", *request.options)


def _pasta_or_else(request: NetworkRequest, *, published: bool) -> tuple[NetworkRequest, str]:
    """Return the request, or what stands in for pasta where it is missing or cannot work."""
    from rootlesspy.network import pasta

    program = process.find_program("pasta")
    if program is None:
        problem, cure = "pasta is not installed", "sudo apt install passt"
    elif not outbound_addresses() and pasta.needs_default_route(program):
        problem = "there is no default route, and this pasta does not start without one"
        cure = "install passt of 2024 or newer, or slirp4netns"
    else:
        return request, ""
    if not request.chosen and process.find_program("slirp4netns"):
        return request._replace(driver="slirp4netns"), f"{problem}: using slirp4netns"
    if program is None or request.chosen or published:
        raise Unsupported(problem, hint=cure)
    return request._replace(driver="none"), f"{problem}: the container has only its loopback"


def _tun_hint() -> str:
    """Return what cures a /dev/net/tun that cannot be opened (tuntap.rst: anybody may)."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return "as root: modprobe tun"
    except PermissionError:
        if os.stat("/dev/net/tun").st_mode & 0o006 == 0o006:
            return "a sandbox or security module forbids it: dmesg"
        return "as root: chmod 666 /dev/net/tun"
    except OSError:
        # ENODEV, ENXIO: the node is there, its driver is not.
        return "as root: modprobe tun"
    return "rp run --network none starts without it"


def _require(name: str) -> str:
    program = process.find_program(name)
    if program is None:
        raise Unsupported(f"{name} is not installed any more")
    return program


def _await(helper: process.Helper, selection: Selection, timeout_s: float) -> None:
    if not process.wait_ready(helper, timeout_s):
        raise _failure(helper, selection)


def _failure(helper: process.Helper, selection: Selection) -> Error:
    """Turn a helper's last words into the error that names the cure."""
    text = process.complaint(helper)
    if "/dev/net/tun" in text or "tun socket" in text:
        return Unsupported(f"{helper.name} cannot open /dev/net/tun: {text}", hint=_tun_hint())
    if "bind" in text or "in use" in text:
        from rootlesspy.network.ports import check_free

        # Raises the Conflict that names who was faster.
        check_free(selection.ports)
    if selection.request.options and "option" in text:
        return UsageError(f"{helper.name} refuses its options: {text}")
    return RuntimeFailure(
        f"{helper.name} failed: {text or 'it gave no reason'}",
        step="network",
        hint="rp run --network none starts without it",
    )
