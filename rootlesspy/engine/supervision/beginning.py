"""How a start begins: the container's first process, its scope, its id maps, its network.

None of it needs the container on disk.  An attached container begins while rp still writes it, as
soon as its image is found and its name taken (outlook.py); any other one when its supervisor has
read it.  Runs in the supervisor; start.py goes on from here.
"""

from __future__ import annotations

import os

from rootlesspy.engine import idmap, limits
from rootlesspy.engine.supervision import cancel
from rootlesspy.errors import Error, Undo
from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple
from rootlesspy.network import driver
from rootlesspy.runtime import create, rootfs
from rootlesspy.systemd import bus, scope

if TYPE_CHECKING:
    from rootlesspy.engine.supervision.control import Message
    from rootlesspy.engine.supervision.own_service import OwnService
    from rootlesspy.engine.supervision.pipes import Pipes
    from rootlesspy.linux.userns import IdMaps, MapHelpers
    from rootlesspy.network.driver import Pending, Selection
    from rootlesspy.network.ports import PortMapping
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter
    from rootlesspy.runtime.init import Plan
    from rootlesspy.runtime.membership import Membership


_LONGER_US = 90_000_000


class Terms(NamedTuple):
    """What a container begins with."""

    container_id: str
    unit: str
    """Its scope; empty without one."""
    description: str
    namespaces: tuple[str, ...]
    """Kinds, as the OCI runtime specification calls them."""
    maps: IdMaps | None
    """None where the user namespace is another's."""
    keeps_groups: bool
    """setgroups(2) stays denied."""
    limits: limits.Plan | None
    """None without a scope."""
    selection: Selection
    stop_timeout_s: int
    slice: str = ""
    service: str = ""
    """The service that its scope ends with."""


class Begun(NamedTuple):
    """What has begun, and the pipes that its first process has at 0, 1 and 2 if any."""

    beginning: Beginning
    pipes: Pipes | None


class Beginning:
    """One start that has begun.  Every step but begin() may be called twice."""

    def __init__(
        self, terms: Terms, paths: Paths, reporter: Reporter, own: OwnService | None = None
    ) -> None:
        """Take also the service that this process makes for itself, if it does."""
        self.terms = terms
        self._own = own
        self.undo = Undo()
        self.connection: bus.Bus | None = None
        self.asked = -1
        """For the reply to the request for the scope."""
        self.error: Error | OSError | None = None
        """What went wrong while nobody could be told."""
        self._paths = paths
        self._step = reporter.step
        self._init: create.Init | None = None
        self._helpers: MapHelpers | None = None
        self._mapped = False
        self._pending: Pending | None = None

    @property
    def init(self) -> create.Init:
        """The container's first process.  Raises Error when there is none."""
        if self.error is not None:
            raise self.error
        if self._init is None:
            raise Error("internal error: the container has no process yet")
        return self._init

    def reported_failure(self) -> Error | None:
        """Return what init said before it died, if it did; never blocks."""
        return None if self._init is None else self._init.reported_failure()

    def begin_early(self, pipes: Pipes | None) -> None:
        """Begin before anybody can be told what fails, which init raises.

        pipes: what the first process has at 0, 1 and 2; None: what this one has.
        """
        try:
            if pipes is not None:
                pipes.lend()
            try:
                self.begin()
            finally:
                if pipes is not None:
                    pipes.take_back()
        except (Error, OSError) as error:
            self.error = error
        except BaseException as error:
            self.undo.unwind(error)
            raise

    def begin(self, plan: Plan | None = None, memberships: tuple[Membership, ...] = ()) -> None:
        """Make the first process, ask for its scope, and have its id maps written.

        Raises Error, OSError.
        """
        self._step("connect to the user manager")
        self.connection = self._connect()
        if self._own is not None and self.connection is not None:
            self._step(f"ask for {self._own.name}")
            self._own.ask(self.connection)
            self.undo.push(self._own.call_off)
        self._step("fork the container's init into its namespaces")
        held = cancel.hold()
        init = self._init = create.launch(self.terms.namespaces, plan, memberships)
        self.undo.push(lambda: _kill_and_reap(init))
        cancel.restore(held)
        # Before all else: nothing takes longer.
        if self._own is not None:
            # Its scope is bound to it.
            self._own.wait_queued()
        self._step(f"ask for {self.terms.unit or 'no scope'}")
        self._ask_for_scope(init)
        if self.terms.maps is not None:
            self._step("write the id maps")
            keeps = self.terms.keeps_groups
            self._helpers = create.write_id_maps(init.pid, self.terms.maps, keeps_groups=keeps)

    def go_on(self) -> None:
        """Go on as far as possible, for one that begins early; what fails is raised by init."""
        try:
            self.map_ids()
            self.start_network()
        except (Error, OSError) as error:
            self.error = self.error or error

    def instruct(self, plan: Plan) -> None:
        """Tell the first process what it is to do, if that can be done already."""
        if self.error is None and not isinstance(plan.root, rootfs.FuseOverlay):
            try:
                self.init.plan(plan, mapped=True)
            except (Error, OSError) as error:
                self.error = error

    def map_ids(self) -> None:
        """Wait until the id maps are written.  Raises Unsupported, RuntimeFailure."""
        helpers, self._helpers = self._helpers, None
        if helpers is not None:
            create.finish_id_maps(helpers)
        interface = "" if self._mapped else driver.interface(self.terms.selection)
        self._mapped = True
        if interface:
            self.init.make_tap(interface)

    def start_network(self) -> Pending:
        """Start the network's helper, which works until Pending.wait().  Raises Error, OSError."""
        if self._pending is None:
            pid = self.init.pid
            self._step(f"start the network: {self.terms.selection.request.driver}")
            self.init.wait_tap()
            # A helper that was started and not yet noted would be left behind.
            held = cancel.hold()
            self._pending = driver.start(
                self.terms.selection,
                netns_path=f"/proc/{pid}/ns/net",
                userns_path=f"/proc/{pid}/ns/user",
                runtime_dir=self._paths.container_runtime(self.terms.container_id),
                interface=self.init.tap,
            )
            self.undo.push(self._pending.cancel)
            cancel.restore(held)
        return self._pending

    def join_service(self, others: tuple[int, ...] = ()) -> None:
        """Have this process, the network's helper and others moved into the service that it makes.

        wait_joined() waits for that.  Raises Error.
        """
        if self._own is not None:
            helper = () if self._pending is None else self._pending.pids()
            self._step(f"join {self._own.name}")
            self._own.join((os.getpid(), *helper, *others))

    def take_longer(self) -> None:
        """Have systemd wait longer for the service that this process makes."""
        if self._own is not None and self.error is None:
            try:
                self.join_service()
                self.wait_joined()
                self._own.notifier.extend_timeout(_LONGER_US)
            except (Error, OSError) as error:
                self.error = error

    def wait_joined(self) -> None:
        """Wait until this process is in its own service, if it makes one.  Raises Error."""
        if self._own is not None:
            self._own.wait_joined()

    def _connect(self) -> bus.Bus | None:
        if not self.terms.unit and self._own is None:
            return None
        connection = bus.connect(os.path.dirname(self._paths.require_runtime()))
        self.undo.push(connection.close)
        return connection

    def _ask_for_scope(self, init: create.Init) -> None:
        """Ask for a scope with all limits and init in it, which still is the user's (scope.py)."""
        terms, connection = self.terms, self.connection
        if connection is None or terms.limits is None:
            return
        self.asked = scope.request(
            connection,
            unit=terms.unit,
            description=terms.description,
            documentation=["man:rp(1)"],
            pids=[init.pid],
            controller=connection.unique_name,
            stop_timeout_us=terms.stop_timeout_s * 1_000_000,
            slice=terms.slice or None,
            binds_to=terms.service or None,
            properties=terms.limits.properties,
        )


def early(
    message: Message, paths: Paths, reporter: Reporter, own: OwnService | None
) -> Begun | None:
    """Begin a container that is not on disk yet, as an outlook describes it.

    own: the service that it gets.  None when it cannot be decided how: its start says why.
    """
    fields = message.fields
    try:
        terms = _terms(fields, reporter)
    except Error:
        return None
    pipes = None
    if own is not None:
        terms = terms._replace(service=own.name)
        pipes = pipes_of(tty=bool(fields["tty"]), interactive=bool(fields["interactive"]))
    elif not (fields["tty"] or fields["interactive"]):
        empty_stdin()
    beginning = Beginning(terms, paths, reporter, own)
    beginning.begin_early(pipes)
    return Begun(beginning, pipes)


def pipes_of(*, tty: bool, interactive: bool) -> Pipes | None:
    """Return the pipes between a payload of a service and its supervisor; a terminal needs none."""
    if tty:
        return None
    from rootlesspy.engine.supervision.pipes import Pipes

    return Pipes(interactive=interactive)


def description(name: str, image: str) -> str:
    """Return what systemd calls a container."""
    return f"Container {name} ({image})"


def empty_stdin() -> None:
    """Give the payload nothing to read."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)


def _terms(fields: dict[str, Any], reporter: Reporter) -> Terms:
    maps = idmap.default_maps()
    decided = None
    if fields["unit"]:
        decided = limits.plan(
            fields["resources"],
            fields["properties"],
            host=limits.host(),
            ignore_missing=fields["ignore_missing_limits"],
            defaults=frozenset(fields["default_limits"]),
        )
    published: tuple[PortMapping, ...] = ()
    if fields["ports"]:
        from rootlesspy.network.ports import PortMapping

        published = tuple(PortMapping(*each) for each in fields["ports"])
    selection = driver.select(driver.restore(fields["network"]), published)
    if decided is not None:
        for notice in decided.notices:
            reporter.notice(notice)
    return Terms(
        container_id=fields["id"],
        unit=fields["unit"],
        description=description(fields["name"], fields["image"]),
        namespaces=tuple(fields["namespaces"]),
        maps=maps,
        keeps_groups=fields["keeps_groups"] or not maps.needs_helpers(),
        limits=decided,
        selection=selection,
        stop_timeout_s=fields["stop_timeout_s"],
    )


def _kill_and_reap(init: create.Init) -> None:
    """End the container if it still lives; the kernel kills all its processes with the first."""
    try:
        signal.pidfd_send_signal(init.pidfd, signal.SIGKILL)
        os.waitpid(init.pid, 0)
    except (ProcessLookupError, ChildProcessError, OSError):
        return
