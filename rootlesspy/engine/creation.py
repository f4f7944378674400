"""From a request to a container on disk: its image, its ids, its network, its bundle.

Nothing runs yet, unless an image has to be pulled or a pod started.
"""

from __future__ import annotations

from rootlesspy.engine import idmap, record, root
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network import driver
from rootlesspy.paths import private_directory

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.bundle import Created
    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.engine.supervision.forked import Supervisor
    from rootlesspy.image.progress import Progress
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.network.driver import Selection
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


def make(
    request: RunRequest,
    paths: Paths,
    reporter: Reporter,
    make_progress: Callable[[], Progress] | None,
    made_by: str = "run",
    reserved: Callable[[ContainerRecord], None] | None = None,
    supervisor: Supervisor | None = None,
) -> Created:
    """Make a container on disk, locked, with its image pulled when the policy says so.

    reserved: told what it will be as soon as its name is taken and its image is there.
    supervisor: who begins with it, where that can be, while it is made.
    """
    private_directory(paths.require_runtime())
    private_directory(paths.data)
    if request.shares_namespaces():
        from rootlesspy.engine.pods import sharing

        request = sharing.resolve(request, paths, reporter)
        if made_by == "run":
            sharing.start_needed(paths, request, reporter)
    if idmap.is_chosen_late(request):
        return _make_with_own_ids(request, paths, reporter, make_progress, made_by, reserved)
    maps = idmap.of(request)
    if maps.is_single():
        reporter.notice(idmap.missing_ranges_notice())
    if supervisor is not None:
        from rootlesspy.engine.supervision import outlook

        if outlook.can_be_given(request, paths):
            return _make_beside(supervisor, request, paths, maps, reporter, make_progress)
    reporter.step(f"find {request.rootfs or request.image}")
    source = root.find(request, paths, maps, reporter, make_progress)
    return _make_of(request, paths, maps, source, reporter, made_by, reserved)


def _make_beside(
    supervisor: Supervisor,
    request: RunRequest,
    paths: Paths,
    maps: IdMaps,
    reporter: Reporter,
    make_progress: Callable[[], Progress] | None,
) -> Created:
    """Make a container while its supervisor begins with what does not need it on disk."""
    from rootlesspy.engine.supervision import outlook

    selection = _select(request, paths, reporter, now=True)
    place = record.find_place(paths, request.name)
    try:
        # Where pasta does not work it has become another one.
        if selection.request.driver in driver.SELF_CONTAINED:
            supervisor.begin(outlook.of(request, place, selection))
        reporter.step(f"find {request.rootfs or request.image}")
        source = root.present(request, paths, maps)
    except BaseException:
        # First: the scope has the name.
        supervisor.dismiss()
        record.give_up(paths, place)
        raise
    if source is None:
        # A pull takes its time: nothing is to be there, and nobody to wait, meanwhile.
        supervisor.begin_anew()
        record.give_up(paths, place)
        source = root.find(request, paths, maps, reporter, make_progress)
        return _make_of(request, paths, maps, source, reporter, "run")
    return _write(request, paths, maps, source, reporter, selection, place, "run", None)


def _make_with_own_ids(
    request: RunRequest,
    paths: Paths,
    reporter: Reporter,
    make_progress: Callable[[], Progress] | None,
    made_by: str,
    reserved: Callable[[ContainerRecord], None] | None,
) -> Created:
    """Make a container whose id maps are decided now, by what is asked and what the image needs."""
    from rootlesspy.engine import idmap_choice

    source = root.find(request, paths, idmap.default_maps(), reporter, make_progress)
    choice = None
    try:
        user = source.config.get("User", "")
        choice = idmap_choice.choose(paths, request, source.layers, user)
        # What was to be pulled was just now.
        request = request._replace(id_maps=choice.lines(), pull="missing")
        own = root.find(request, paths, choice.maps, reporter, make_progress)
        return _make_of(request, paths, choice.maps, own, reporter, made_by, reserved)
    finally:
        if choice is not None:
            choice.release()
        source.release()


def _make_of(
    request: RunRequest,
    paths: Paths,
    maps: IdMaps,
    source: root.Root,
    reporter: Reporter,
    made_by: str,
    reserved: Callable[[ContainerRecord], None] | None = None,
) -> Created:
    """Make a container of a root that was found."""
    if request.publish_all:
        from rootlesspy.network import ports

        exposed = tuple(source.config.get("ExposedPorts") or ())
        request = request._replace(publish=ports.with_exposed(request.publish, exposed))
    # Before anything is made: what is missing or taken is said at once.
    selection = _select(request, paths, reporter, now=made_by != "create")
    place = record.find_place(paths, request.name)
    return _write(request, paths, maps, source, reporter, selection, place, made_by, reserved)


def _select(request: RunRequest, paths: Paths, reporter: Reporter, *, now: bool) -> Selection:
    reporter.step(f"choose the network: {request.network.driver}")
    network = request.network
    if network.networks:
        from rootlesspy.engine.networks import membership

        network = membership.resolve(paths, network)
    selection = driver.select(network, request.publish, now=now)
    if selection.notice:
        reporter.notice(selection.notice)
    return selection


def _write(
    request: RunRequest,
    paths: Paths,
    maps: IdMaps,
    source: root.Root,
    reporter: Reporter,
    selection: Selection,
    place: record.Place,
    made_by: str,
    reserved: Callable[[ContainerRecord], None] | None,
) -> Created:
    reporter.step("make the container")
    # Now, and not before: the supervisor has begun meanwhile.
    from rootlesspy.engine import bundle

    created = bundle.create(
        request, source, paths, maps, selection, reporter, place, made_by, reserved
    )
    source.release()
    return created
