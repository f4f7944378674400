"""A container takes the place of one of the same name, and its unit file and enablement."""

from __future__ import annotations

from rootlesspy.engine import autostart, ending, lifecycle, record, run
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.image.progress import Progress
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


def replace(
    paths: Paths,
    name: str,
    request: RunRequest,
    reporter: Reporter,
    make_progress: Callable[[], Progress] | None,
) -> None:
    """Stop and remove a container and make the one that request asks for; it is not started.

    Raises Error.
    """
    old = lifecycle.get(paths, name).record
    installed = autostart.is_installed(paths, old)
    enabled = autostart.is_enabled(paths, old)
    remove(paths, old.id, reporter)
    made = run.create(request, paths, reporter, make_progress)
    if installed:
        found = record.load_record(paths.container(made))
        autostart.install(paths, found, link=enabled)


def remove(paths: Paths, name: str, reporter: Reporter, *, volumes: bool = False) -> None:
    """Stop a container politely and remove it, its unit file too.  Raises Error."""
    ending.stop(paths, name, None, reporter)
    found = lifecycle.get(paths, name)
    autostart.forget(paths, found.record)
    ending.remove(paths, [found.record.id], force=True, reporter=reporter, volumes=volumes)
