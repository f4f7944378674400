"""`rp auto-update`: detached containers are made anew when their image has changed.

Those that carry the label io.containers.autoupdate, podman's own (podman-auto-update(1)):
`registry` compares with what the image's name leads to in its registry, `local` with what it leads
to here.  A container whose new image does not start goes back to the one that it had.
"""

from __future__ import annotations

from rootlesspy.engine import idmap, lifecycle, record, root
from rootlesspy.engine.definitions import definition_export, replacement
from rootlesspy.engine.inputs.request import LABEL_AUTO_UPDATE
from rootlesspy.engine.supervision.cancel import CancelledError
from rootlesspy.errors import Error, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.engine.record import Container
    from rootlesspy.image.progress import Progress
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

_POLICIES = {"registry": "registry", "image": "registry", "local": "local"}
_OFF = ("", "disabled")
UPDATED, CURRENT, PENDING, ROLLED_BACK, FAILED = "true", "false", "pending", "rolled back", "failed"


class Update(NamedTuple):
    """What became of one container."""

    unit: str
    container_id: str
    """Of the container as it was."""
    name: str
    image: str
    policy: str
    updated: str
    """true, false, pending, rolled back or failed."""


class Updater:
    """One run over all containers."""

    def __init__(
        self,
        paths: Paths,
        reporter: Reporter,
        make_progress: Callable[[], Progress] | None,
        *,
        dry_run: bool,
        rollback: bool,
    ) -> None:
        """dry_run: say what would be done; rollback: go back to the old image after a failure."""
        self._paths = paths
        self._reporter = reporter
        self._make_progress = make_progress
        self._dry_run = dry_run
        self._rollback = rollback

    def run(self) -> list[Update]:
        """Update what has to be; a failure is reported, and the others have their turn."""
        return [
            self._one(each, policy)
            for each in reversed(lifecycle.containers(self._paths))
            if each.state == "running" and self._unit(each) and (policy := _policy(each))
        ]

    def _unit(self, found: Container) -> str:
        live = record.live_state(self._paths.container(found.record.id))
        return live.service if live is not None else ""

    def _one(self, found: Container, policy: str) -> Update:
        told = Update(
            unit=self._unit(found),
            container_id=found.record.id,
            name=found.record.name,
            image=found.record.image,
            policy=policy,
            updated=FAILED,
        )
        try:
            return told._replace(updated=self._update(found, policy))
        except CancelledError:
            raise
        except Error as error:
            self._reporter.error(f"container {told.name}: {error.message}", error.hint)
            return told

    def _update(self, found: Container, policy: str) -> str:
        request = definition_export.restore(found.record.request, found.record.name)
        if self._newest(request, policy) == found.record.image_id:
            return CURRENT
        if self._dry_run:
            return PENDING
        # Before anything is stopped.
        pull = "always" if policy == "registry" else "never"
        maps = idmap.before_choice(request)
        wanted = request._replace(pull=pull)
        root.find(wanted, self._paths, maps, self._reporter, self._make_progress).release()
        try:
            self._restart_with(request)
        except CancelledError:
            raise
        except Error as error:
            if not self._rollback:
                raise
            self._reporter.error(f"container {found.record.name}: {error.message}", error.hint)
            self._name_again(found)
            self._restart_with(request)
            return ROLLED_BACK
        return UPDATED

    def _restart_with(self, request: RunRequest) -> None:
        name = request.name or ""
        replacement.replace(
            self._paths, name, request._replace(pull="missing"), self._reporter, None
        )
        lifecycle.start(self._paths, name, self._reporter)

    def _newest(self, request: RunRequest, policy: str) -> str:
        """Return the id of the image that the container's would be now."""
        if policy == "local":
            from rootlesspy.image.store import Store

            return Store(self._paths).resolve(request.image).id
        from rootlesspy import settings
        from rootlesspy.image import pull

        return pull.newest(
            request.image,
            paths=self._paths,
            settings=settings.load(self._paths),
            maps=idmap.before_choice(request),
            platform=request.platform,
            reporter=self._reporter,
        )

    def _name_again(self, found: Container) -> None:
        """Let the image's name lead to the one that the container had."""
        from rootlesspy.image import naming
        from rootlesspy.image.store import Store

        old = Store(self._paths).resolve(found.record.image_id)
        naming.tag(self._paths, old, [found.record.image])


def _policy(found: Container) -> str:
    """Return registry or local, "" for a container that is left alone.  Raises UsageError."""
    text = found.record.labels.get(LABEL_AUTO_UPDATE, "")
    if text in _OFF:
        return ""
    if text not in _POLICIES:
        raise UsageError(
            f"container {found.record.name}: label {LABEL_AUTO_UPDATE}={text} is not registry, "
            "local or disabled"
        )
    return _POLICIES[text]
