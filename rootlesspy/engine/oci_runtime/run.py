"""`rp oci run`: create and start in one, in the foreground unless detached."""

from __future__ import annotations

import os

from rootlesspy.engine.oci_runtime import console, create, execute, lifecycle, state
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def run(
    container_id: str,
    bundle: str,
    options: create.Options,
    environment: Mapping[str, str],
    warn: Callable[[str], None],
    *,
    detach: bool,
    keep: bool,
) -> int:
    """Run a container; return its exit code, or 0 at once when it is detached.

    Afterwards it is removed, unless it is to be kept.  Raises rootlesspy's errors.
    """
    place = state.Place(options.root)
    signals = None if detach else console.Signals()
    made = create.create(container_id, bundle, options, environment, warn, detached=detach)
    try:
        lifecycle.start(place, container_id, environment, warn)
    except BaseException:
        # Its parent is this process: reaped, or it would be a zombie to the end.
        lifecycle.delete(place, container_id, environment, warn, force=True)
        raise
    if signals is None:
        return 0
    console.attend(made.pidfd, made.master_fd, signals)
    code = execute.exit_code(os.waitpid(made.container.pid, 0)[1])
    if not keep:
        lifecycle.delete(place, container_id, environment, warn, force=True)
    return code
