"""What a container runs: its entrypoint and its arguments, the image's or what was asked for."""

from __future__ import annotations

from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.oci.image_spec import ContainerConfig


def arguments(request: RunRequest, config: ContainerConfig) -> list[str]:
    """Return the payload's argv: entrypoint and command, as podman combines them."""
    if request.entrypoint is None:
        command = list(request.command) or config.get("Cmd") or []
    else:
        # Another entrypoint makes the image's command meaningless.
        command = list(request.command)
    argv = [*entrypoint(request, config), *command]
    if request.init:
        argv = ["/run/rp-init", "--", *argv] if argv else []
    if not argv:
        raise UsageError("no command: the image has none", hint="name one: rp run IMAGE COMMAND")
    return argv


def entrypoint(request: RunRequest, config: ContainerConfig) -> list[str]:
    """Return the entrypoint's words, with which the payload's argv begins: asked for or image's."""
    if request.entrypoint is None:
        return config.get("Entrypoint") or []
    return [word for word in request.entrypoint if word]
