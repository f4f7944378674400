"""Hooks that the runtime itself runs, in its own namespaces: all but the two of init's."""

from __future__ import annotations

from rootlesspy.engine.oci_runtime import jsontext, state
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootlesspy.oci.runtime_spec import Hook, Spec


def run(spec: Spec, stage: str, container: state.Container, status: str) -> None:
    """Run the hooks of a stage.  Raises RuntimeFailure."""
    named: Sequence[Hook] = spec.get("hooks", {}).get(stage, ())  # type: ignore[assignment]
    if named:
        from rootlesspy.runtime import hooks

        hooks.run_stage(stage, named, _encoded(container, status))


def stop(spec: Spec, container: state.Container, warn: Callable[[str], None]) -> None:
    """Run the poststop hooks, all of them: what fails is a warning (runtime-spec, lifecycle)."""
    named = spec.get("hooks", {}).get("poststop", ())
    if named:
        from rootlesspy.runtime import hooks

        for text in hooks.run_poststop(named, _encoded(container, "stopped")):
            warn(text)


def _encoded(container: state.Container, status: str) -> bytes:
    return jsontext.dumps(state.for_hooks(container, status)).encode()
