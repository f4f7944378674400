"""The connection to the user manager: the few calls that start, watch and stop a unit.

Hot path: nothing but ctypes on libsystemd (see sdbus.py).  Every call is sent at once and its
reply is picked up by cookie from the ordinary message stream: nothing needs a callback from C,
calls can be pipelined, and the supervisor's poll loop owns the connection by fileno(),
poll_events(), timeout_ms() and process().  The loss of the connection is a fact (`lost`), never an
exception from process().  A Bus belongs to the process that made it: sd-bus refuses to work in a
forked child.

Cold calls that read a whole manager go through pystemd, imported inside the function (manager.py).
"""

from __future__ import annotations

import errno
import os
import time

from rootlesspy.errors import Error, Unsupported
from rootlesspy.light_modules import ctypes
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.systemd import sdbus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootlesspy.systemd.sdbus import Value

SYSTEMD = "org.freedesktop.systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
MANAGER_PATH = "/org/freedesktop/systemd1"
UNIT = "org.freedesktop.systemd1.Unit"
SCOPE = "org.freedesktop.systemd1.Scope"
SERVICE = "org.freedesktop.systemd1.Service"
DBUS = "org.freedesktop.DBus"

# The broker answers hello at once unless it is frozen; the manager may be starting 200 units.
CONNECT_TIMEOUT_S = 4.0
CALL_TIMEOUT_S = 25.0


class Property(NamedTuple):
    """One unit property as the manager takes it on the bus."""

    name: str
    signature: str
    value: Value


class BusError(Error):
    """The other side answered with a D-Bus error; `name` is its D-Bus name."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message or name)
        self.name = name


class Bus:
    """One connection to the user manager, by the user bus or by its private socket."""

    def __init__(self, library: ctypes.CDLL, handle: sdbus.Handle, *, private: bool) -> None:
        self._library = library
        self._handle = handle
        self._pending: set[int] = set()
        self._replies: dict[int, list[Value] | BusError] = {}
        self._finished_jobs: dict[str, str] = {}
        self._stop_requests: dict[str, Callable[[], None]] = {}
        self._watched: set[str] = set()
        self.private = private
        self.lost: str | None = None

    def start(self, socket: str, timeout_s: float) -> int:
        """Connect to a unix socket and say hello; return 0 or the errno of the failure."""
        library, handle = self._library, self._handle
        sdbus.check(library.sd_bus_set_address(handle, sdbus.address(socket)))
        sdbus.check(library.sd_bus_set_bus_client(handle, 0 if self.private else 1))
        result: int = library.sd_bus_start(handle)
        if result < 0:
            return -result
        try:
            ready = self._wait(lambda: library.sd_bus_is_ready(handle) > 0, timeout_s)
        except Unsupported:
            return errno.ECONNRESET
        return 0 if ready else errno.ETIMEDOUT

    # --- in a poll loop ---------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor to poll; it stays owned by the connection."""
        return sdbus.check(self._library.sd_bus_get_fd(self._handle))

    def poll_events(self) -> int:
        """Return the poll(2) events that the connection waits for now; 0 once it is lost."""
        if self.lost is not None:
            return 0
        events: int = self._library.sd_bus_get_events(self._handle)
        return max(0, events)

    def timeout_ms(self) -> int:
        """Return after how many milliseconds process() is due; -1 means never."""
        due = ctypes.c_uint64()
        result = self._library.sd_bus_get_timeout(self._handle, ctypes.byref(due))
        if self.lost is not None or result <= 0 or due.value == 2**64 - 1:
            return -1
        return max(0, due.value // 1000 - time.monotonic_ns() // 1_000_000 + 1)

    def process(self) -> None:
        """Handle everything that has arrived; never blocks, never raises for a lost connection."""
        while self._step():
            pass

    def on_request_stop(self, unit: str, callback: Callable[[], None]) -> None:
        """Call back from process() when systemd asks the controller of scope unit to stop it."""
        self._stop_requests[sdbus.unit_path(unit)] = callback

    # --- calls ------------------------------------------------------------------------------

    @property
    def unique_name(self) -> str:
        """The connection's name on the bus, like ":1.23"."""
        name = ctypes.c_char_p()
        sdbus.check(self._library.sd_bus_get_unique_name(self._handle, ctypes.byref(name)))
        return (name.value or b"").decode()

    def send(
        self,
        member: str,
        signature: str = "",
        *values: Value,
        destination: str = SYSTEMD,
        path: str = MANAGER_PATH,
        interface: str = MANAGER,
    ) -> int:
        """Send a method call and return its cookie for reply()."""
        message = sdbus.Handle()
        sdbus.check(
            self._library.sd_bus_message_new_method_call(
                self._handle,
                ctypes.byref(message),
                destination.encode(),
                path.encode(),
                interface.encode(),
                member.encode(),
            )
        )
        try:
            for each, value in zip(sdbus.split(signature), values, strict=True):
                sdbus.append(self._library, message, each, value)
            cookie = ctypes.c_uint64()
            self._alive(self._library.sd_bus_send(self._handle, message, ctypes.byref(cookie)))
        finally:
            self._library.sd_bus_message_unref(message)
        self._pending.add(cookie.value)
        return cookie.value

    def tell(self, member: str, signature: str = "", *values: Value, **where: str) -> None:
        """Send a method call, as send() does, whose answer nobody waits for."""
        self._pending.discard(self.send(member, signature, *values, **where))

    def reply(self, cookie: int, timeout_s: float = CALL_TIMEOUT_S) -> list[Value]:
        """Wait for the answer to a call; raises BusError, or Unsupported when none comes."""
        try:
            if not self._wait(lambda: cookie in self._replies, timeout_s):
                raise Unsupported(
                    f"the user manager did not answer within {timeout_s:g} s",
                    hint="systemctl --user status",
                )
        finally:
            self._pending.discard(cookie)
        answer = self._replies.pop(cookie)
        if isinstance(answer, BusError):
            raise answer
        return answer

    def call(self, member: str, signature: str = "", *values: Value) -> list[Value]:
        """Call a method of the manager and wait for its answer."""
        return self.reply(self.send(member, signature, *values))

    def start_transient_unit(
        self, name: str, properties: Sequence[Property], mode: str = "fail"
    ) -> str:
        """Enqueue the start of a transient unit and return its job for wait_job()."""
        return str(self.reply(self.send_transient_unit(name, properties, mode))[0])

    def send_transient_unit(
        self, name: str, properties: Sequence[Property], mode: str = "fail"
    ) -> int:
        """Ask for the start of a transient unit; reply() to the cookie returned has its job."""
        self._watch_jobs(name)
        listed = [(each.name, (each.signature, each.value)) for each in properties]
        return self.send("StartTransientUnit", "ssa(sv)a(sa(sv))", name, mode, listed, [])

    def unit_job(self, member: str, name: str) -> str:
        """Enqueue StartUnit, StopUnit, RestartUnit... and return its job for wait_job()."""
        return str(self.reply(self.send_unit_job(member, name))[0])

    def send_unit_job(self, member: str, name: str) -> int:
        """Ask for StartUnit, StopUnit...; reply() to the cookie returned has its job."""
        self._watch_jobs(name)
        return self.send(member, "ss", name, "replace")

    def wait_job(self, job: str, timeout_s: float) -> str:
        """Wait for a job's JobRemoved and return its result: "done", "failed", "timeout"...

        Raises Unsupported when the job is not over in time or the connection is lost.
        """
        if not self._wait(lambda: job in self._finished_jobs, timeout_s):
            raise Unsupported(
                f"the user manager did not finish a job within {timeout_s:g} s",
                hint="systemctl --user list-jobs",
            )
        return self._finished_jobs.pop(job)

    def job_result(self, job: str) -> str | None:
        """Return the result of a job that is over, as wait_job() would; None while it is not."""
        return self._finished_jobs.get(job)

    def unit_properties(self, unit: str, interface: str, names: Sequence[str]) -> dict[str, Value]:
        """Read properties of a loaded unit, all in one round trip.

        Properties that this manager's version does not have are left out.  Asking loads the unit:
        one that does not exist answers with LoadState "not-found".
        """
        cookies = [
            (
                name,
                self.send(
                    "Get",
                    "ss",
                    interface,
                    name,
                    path=sdbus.unit_path(unit),
                    interface=f"{DBUS}.Properties",
                ),
            )
            for name in names
        ]
        found: dict[str, Value] = {}
        for name, cookie in cookies:
            try:
                found[name] = self.reply(cookie)[0]
            except BusError:
                continue
        return found

    def manager_property(self, name: str) -> str:
        """Read a property of the manager itself, as text; raises BusError."""
        interface = f"{DBUS}.Properties"
        return str(self.reply(self.send("Get", "ss", MANAGER, name, interface=interface))[0])

    def close(self) -> None:
        """Close the connection; doing it twice is harmless.

        No sd_bus_flush: with a frozen broker it blocks for 90 s, and send() has already written.
        """
        if self._handle.value is not None:
            self._library.sd_bus_close_unref(self._handle)
            self._handle = sdbus.Handle()
            self.lost = self.lost or "closed"

    # --- the message stream -----------------------------------------------------------------

    def _watch_jobs(self, unit: str) -> None:
        """Ask the broker for the unit's JobRemoved; it obeys before it forwards any later call.

        For this unit alone: else each job of the user would wake every supervisor.
        """
        if self.private or unit in self._watched:
            return
        rule = (
            f"type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved',"
            f"arg2='{_quoted(unit)}'"
        )
        path = "/org/freedesktop/DBus"
        self.tell("AddMatch", "s", rule, destination=DBUS, path=path, interface=DBUS)
        self._watched.add(unit)

    def _wait(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self._step():
                continue
            if self.lost is not None:
                raise Unsupported(
                    f"the connection to the user manager was lost: {self.lost}",
                    hint="systemctl --user status",
                )
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                return False
            result = self._library.sd_bus_wait(self._handle, int(remaining_s * 1_000_000) + 1)
            if result < 0 and result != -errno.EINTR:
                self.lost = os.strerror(-result)
        return True

    def _step(self) -> bool:
        """Handle one message or internal event; say whether there was one."""
        if self.lost is not None:
            return False
        message = sdbus.Handle()
        result = self._library.sd_bus_process(self._handle, ctypes.byref(message))
        if result < 0:
            self.lost = os.strerror(-result)
            return False
        if message.value is not None:
            try:
                self._dispatch(message)
            finally:
                self._library.sd_bus_message_unref(message)
        return bool(result)

    def _dispatch(self, message: sdbus.Handle) -> None:
        kind = ctypes.c_uint8()
        self._library.sd_bus_message_get_type(message, ctypes.byref(kind))
        if kind.value in (sdbus.METHOD_RETURN, sdbus.METHOD_ERROR):
            self._keep_reply(message, failed=kind.value == sdbus.METHOD_ERROR)
            return
        if kind.value != sdbus.SIGNAL:
            return
        member = self._library.sd_bus_message_get_member(message)
        interface = self._library.sd_bus_message_get_interface(message)
        if (interface, member) == (b"org.freedesktop.DBus.Local", b"Disconnected"):
            self.lost = "disconnected"
        elif (interface, member) == (MANAGER.encode(), b"JobRemoved"):
            _, job, _, result = sdbus.read_all(self._library, message)
            self._finished_jobs[str(job)] = str(result)
        elif (interface, member) == (SCOPE.encode(), b"RequestStop"):
            path = self._library.sd_bus_message_get_path(message).decode()
            callback = self._stop_requests.get(path)
            if callback is not None:
                callback()

    def _keep_reply(self, message: sdbus.Handle, *, failed: bool) -> None:
        cookie = ctypes.c_uint64()
        self._library.sd_bus_message_get_reply_cookie(message, ctypes.byref(cookie))
        if cookie.value not in self._pending:
            return
        if failed:
            error = self._library.sd_bus_message_get_error(message).contents
            self._replies[cookie.value] = BusError(
                (error.name or b"").decode(), (error.message or b"").decode("utf-8", "replace")
            )
        else:
            self._replies[cookie.value] = sdbus.read_all(self._library, message)

    def _alive(self, result: int) -> int:
        if result < 0 and self.lost is None:
            self.lost = os.strerror(-result)
        if self.lost is not None:
            raise Unsupported(
                f"the connection to the user manager was lost: {self.lost}",
                hint="systemctl --user status",
            )
        return result


def connect(
    runtime_dir: str | None, timeout_s: float = CONNECT_TIMEOUT_S, *, private: bool = False
) -> Bus:
    """Connect to the user manager whose runtime directory is runtime_dir (XDG_RUNTIME_DIR).

    The address is always the bus in that directory: DBUS_SESSION_BUS_ADDRESS may be missing or name
    a bus on which no user manager listens.  With private, the manager's own socket is used, which
    works without a bus broker but cannot deliver RequestStop.  Raises Unsupported with the cure.
    """
    library = sdbus.load()
    handle = sdbus.Handle()
    sdbus.check(library.sd_bus_new(ctypes.byref(handle)))
    bus = Bus(library, handle, private=private)
    number = errno.ENOENT
    if runtime_dir is not None:
        socket = f"{runtime_dir}/systemd/private" if private else f"{runtime_dir}/bus"
        number = bus.start(socket, timeout_s)
    if number:
        bus.close()
        from rootlesspy.systemd import diagnosis

        raise diagnosis.explain(runtime_dir, number, private=private, timeout_s=timeout_s)
    return bus


def _quoted(value: str) -> str:
    """Write a value for between the quotes of a match rule (D-Bus specification, "Match Rules")."""
    return value.replace("'", "'\\''")
