"""Make what a definition says so: carry out a plan, container by container.

What is new is fetched before anything that runs is stopped; then everything that has to be is
stopped, dependents first, and started again in order.  A container that fails leaves the others as
the plan says, except those that require it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import time

from rootlesspy.engine import ending, idmap, lifecycle, names, root, run, volume_store
from rootlesspy.engine.definitions import definition_export, others, plan, replacement
from rootlesspy.engine.definitions.plan import (
    CHANGE,
    CREATE,
    NETWORK,
    NOTHING,
    POD,
    REMOVE,
    RESTART,
    START,
    VOLUME,
    Step,
)
from rootlesspy.engine.inputs.request import LABEL_FILE
from rootlesspy.engine.networks import management, store
from rootlesspy.engine.pods import store as pods
from rootlesspy.engine.supervision.cancel import CancelledError
from rootlesspy.errors import Conflict, Error, NotFound
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.paths import private_directory
from rootlesspy.systemd import bus
from rootlesspy.systemd import service as services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rootlesspy.engine.definitions.definition import ContainerDefinition, Definition
    from rootlesspy.engine.record import Container
    from rootlesspy.image.progress import Progress
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


class Observer(NamedTuple):
    """Who is told how it goes, one container or volume at a time."""

    done: Callable[[Step], None]
    failed: Callable[[str, Error], None]
    """With what failed, such as `container web`."""


def compare(definition: Definition, paths: Paths, *, start: bool = True) -> plan.Plan:
    """Return what ensure() would do.  Raises Conflict."""
    volumes = os.listdir(paths.volumes) if os.path.isdir(paths.volumes) else []
    containers = [_seen_by_systemd(each, paths) for each in lifecycle.containers(paths)]
    return plan.plan(
        definition,
        containers,
        volumes,
        networks=store.all_names(paths),
        pods={each.name: each.labels for each in pods.everything(paths)},
        start=start,
    )


def _seen_by_systemd(found: Container, paths: Paths) -> Container:
    """Take a container that systemd starts, or starts again after it ended, for a running one."""
    if found.record.restart == "no" or LABEL_FILE not in found.record.labels:
        return found
    if found.state not in ("created", "exited") or (found.exit and found.exit.reason):
        return found
    connection = bus.connect(os.path.dirname(paths.require_runtime()))
    try:
        name = names.service(found.record.name)
        over = services.is_over(connection, name)
    finally:
        connection.close()
    return found if over else found._replace(state="running")


def ensure(
    definition: Definition,
    paths: Paths,
    reporter: Reporter,
    observer: Observer,
    *,
    start: bool = True,
    make_progress: Callable[[], Progress] | None = None,
) -> bool:
    """Make a definition so; say whether all of it is.

    start: start what does not run.  Raises Conflict when a name belongs to somebody else's
    container, or another rp is at it; what goes wrong with one container is told to the observer.
    """
    with _locked(definition.path):
        decided = compare(definition, paths, start=start)
        work = _Work(decided, paths, reporter, observer, start, make_progress)
        return work.carry_out()


def delete(
    path: str, paths: Paths, reporter: Reporter, observer: Observer, *, volumes: tuple[str, ...]
) -> bool:
    """Stop and remove the containers of the definition at a path; say whether all are gone.

    volumes: names of volumes to be removed with them.  Raises NotFound when there is nothing of it.
    """
    found = plan.owned(lifecycle.containers(paths), path)
    kept = [name for name in volumes if os.path.lexists(f"{paths.volumes}/{name}")]
    made = others.of(paths, path)
    if not found and not kept and not made:
        raise NotFound(f"there is no container of {path}", hint="rp ps -a lists all containers")
    whole = True
    for each in reversed(found):
        step = Step(REMOVE, plan.CONTAINER, each.record.name)
        try:
            replacement.remove(paths, each.record.id, reporter, volumes=bool(volumes))
        except CancelledError:
            raise
        except Error as error:
            observer.failed(step.subject, error)
            whole = False
        else:
            observer.done(step)
    for part in made:
        whole = _remove_part(paths, part, observer, reporter) and whole
    for name in kept:
        try:
            _remove_volume(paths, name)
        except Error as error:
            observer.failed(f"volume {name}", error)
            whole = False
        else:
            observer.done(Step(REMOVE, VOLUME, name))
    return whole


def _remove_part(paths: Paths, part: others.Part, observer: Observer, reporter: Reporter) -> bool:
    """Remove a pod or network that a definition made; say whether that was not refused.

    What others use stays, and that is told.
    """
    try:
        removed = others.remove(paths, part, reporter)
    except CancelledError:
        raise
    except Error as error:
        observer.failed(f"{part.kind} {part.name}", error)
        return False
    if removed:
        observer.done(Step(REMOVE, part.kind, part.name))
    return True


class _Work:
    """One plan being carried out."""

    def __init__(
        self,
        decided: plan.Plan,
        paths: Paths,
        reporter: Reporter,
        observer: Observer,
        start: bool,
        make_progress: Callable[[], Progress] | None,
    ) -> None:
        self._plan = decided
        self._paths = paths
        self._reporter = reporter
        self._observer = observer
        self._start = start
        self._make_progress = make_progress
        self._left: set[str] = set()
        """Containers that nothing is done with, because something failed."""
        self._down: set[str] = set()
        """Containers that do not run although they should."""
        self._whole = True

    def carry_out(self) -> bool:
        for step in self._plan.steps:
            if step.kind == NETWORK and step.action == CREATE:
                self._attempt(step, functools.partial(self._create_network, step.name))
            if step.kind == VOLUME and step.action == CREATE:
                self._attempt(step, functools.partial(self._create_volume, step.name))
            if step.kind == POD and step.action == CREATE:
                self._attempt(step, functools.partial(self._create_pod, step.name))
        wanted = self._plan.definition.containers
        for each in wanted:
            self._prepare(each)
        for step in self._plan.steps:
            if step.action == REMOVE and step.kind == POD:
                part = others.Part(POD, step.name)
                self._attempt(
                    step, functools.partial(others.remove, self._paths, part, self._reporter)
                )
            elif step.action == REMOVE:
                gone = functools.partial(replacement.remove, self._paths, step.name, self._reporter)
                self._attempt(step, gone)
        for each in reversed(wanted):
            if self._action(each) in (CHANGE, RESTART):
                self._stop(each)
        for each in wanted:
            self._bring_up(each)
        return self._whole

    def _action(self, wanted: ContainerDefinition) -> str:
        return NOTHING if wanted.name in self._left else self._plan.of(wanted.name).action

    def _attempt(self, step: Step, action: Callable[[], object]) -> bool:
        """Do something for a step and tell how it went."""
        if not self._try(step.subject, action):
            return False
        self._observer.done(step)
        return True

    def _try(self, subject: str, action: Callable[[], object]) -> bool:
        try:
            action()
        except CancelledError:
            raise
        except Error as error:
            self._fail(subject, error)
            return False
        return True

    def _fail(self, subject: str, error: Error) -> None:
        self._observer.failed(subject, error)
        self._whole = False

    def _prepare(self, wanted: ContainerDefinition) -> None:
        """Fetch what a container needs; leave it alone when that, or what it requires, fails."""
        step = self._plan.of(wanted.name)
        if step.action == NOTHING:
            return
        missing = [name for name in wanted.request.requires if name in self._down]
        if missing and self._start:
            self._fail(step.subject, Error(f"it requires {', '.join(missing)}, which failed"))
        elif step.action in (CREATE, CHANGE):
            if self._try(step.subject, lambda: self._fetch(wanted)):
                return
        elif step.action == START or any(
            self._action(each) in (CREATE, CHANGE, RESTART)
            for each in self._plan.definition.containers
            if each.name in wanted.request.requires
        ):
            return
        self._left.add(wanted.name)
        if step.action in (CREATE, START):
            self._down.add(wanted.name)

    def _fetch(self, wanted: ContainerDefinition) -> None:
        request = wanted.request
        private_directory(self._paths.data)
        maps = idmap.before_choice(request)
        root.find(request, self._paths, maps, self._reporter, self._make_progress).release()

    def _stop(self, wanted: ContainerDefinition) -> None:
        stop = functools.partial(ending.stop, self._paths, wanted.name, None, self._reporter)
        if not self._try(self._plan.of(wanted.name).subject, stop):
            self._left.add(wanted.name)

    def _bring_up(self, wanted: ContainerDefinition) -> None:
        step = self._plan.of(wanted.name)
        action = self._action(wanted)
        if action == NOTHING:
            return
        missing = [name for name in wanted.request.requires if name in self._down]
        if missing and self._start:
            self._down.add(wanted.name)
            self._fail(step.subject, Error(f"it requires {', '.join(missing)}, which failed"))
        elif not self._attempt(step, lambda: self._make(wanted, action)):
            self._down.add(wanted.name)

    def _make(self, wanted: ContainerDefinition, action: str) -> None:
        """Replace or create a container where the action says so, and start it."""
        paths, reporter, progress = self._paths, self._reporter, self._make_progress
        if action == CHANGE:
            replacement.replace(paths, wanted.name, wanted.request, reporter, progress)
        elif action == CREATE:
            run.create(wanted.request, paths, reporter, progress)
        if self._start:
            # What it waits for had its turn.
            lifecycle.start(self._paths, wanted.name, self._reporter, alone=True)

    def _create_network(self, name: str) -> None:
        networks = self._plan.definition.networks
        wanted = next(each for each in networks if each.name == name)
        label = (LABEL_FILE, self._plan.definition.path)
        management.create(self._paths, wanted._replace(labels=(*wanted.labels, label)))

    def _create_pod(self, name: str) -> None:
        from rootlesspy.engine.pods import actions

        wanted = next(each for each in self._plan.definition.pods if each.name == name)
        actions.create(
            self._paths,
            wanted.request,
            wanted.share,
            self._reporter,
            infra=wanted.infra,
            exit_policy=wanted.exit_policy,
        )

    def _create_volume(self, name: str) -> None:
        wanted = next(each for each in self._plan.definition.volumes if each.name == name)
        private_directory(self._paths.data)
        made = volume_store.Volume(name=name, created_s=time.time(), labels=dict(wanted.labels))
        volume_store.create(self._paths, made)


def _remove_volume(paths: Paths, name: str) -> None:
    users = [
        each.record.name
        for each in lifecycle.containers(paths)
        if any(
            mount.kind == "volume" and mount.source == name
            for mount in definition_export.restore(each.record.request, "").volumes
        )
    ]
    if users:
        raise Conflict(f"volume {name} is used by {', '.join(users)}", hint=f"rp rm {users[0]}")
    volume_store.remove(paths, name, idmap.maps_for("host-map"))


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold the lock of a definition's file.  Raises Conflict when another rp has it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Conflict(f"{path} is being applied by another rp") from None
    finally:
        os.close(fd)
