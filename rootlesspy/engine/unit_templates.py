"""Units that are not of one container: rp@.service, timers that update and prune.

units/ has them for a package, with rp in /usr/bin; `install` writes them for one user, with the rp
that runs.  A test holds the two together.
"""

from __future__ import annotations

import os

from rootlesspy.engine import autostart
from rootlesspy.engine.supervision import service
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.systemd import bus as buses
from rootlesspy.systemd import service as services
from rootlesspy.systemd import unitfile
from rootlesspy.systemd.service import Service

if TYPE_CHECKING:
    from rootlesspy.paths import Paths

# Becomes the specifier %i, which render() would escape.
_INSTANCE = "INSTANCE"
_TARGET = ("default.target",)

_PRUNE_SERVICE = """\
# Removes images that nothing uses and no name leads to. Started by rp-prune.timer.

[Unit]
Description=Prune images of rootless containers
Documentation=man:rp-image-prune(1)

[Service]
Type=oneshot
ExecStart={program} image prune --force
"""
_PRUNE_TIMER = """\
# systemctl --user enable --now rp-prune.timer

[Unit]
Description=Prune images of rootless containers once a week
Documentation=man:rp-image-prune(1)

[Timer]
OnCalendar=weekly
RandomizedDelaySec=1h
Persistent=true

[Install]
WantedBy=timers.target
"""
_UPDATE_SERVICE = """\
# Makes containers anew whose image has changed and that are labelled io.containers.autoupdate.
# Started by rp-auto-update.timer.

[Unit]
Description=Update rootless containers
Documentation=man:rp-auto-update(1)

[Service]
Type=oneshot
ExecStart={program} auto-update
ExecStartPost={program} image prune --force
"""
_UPDATE_TIMER = """\
# systemctl --user enable --now rp-auto-update.timer

[Unit]
Description=Update rootless containers once a day
Documentation=man:rp-auto-update(1)

[Timer]
OnCalendar=daily
RandomizedDelaySec=900
Persistent=true

[Install]
WantedBy=timers.target
"""


def texts(program: tuple[str, ...], environment: tuple[str, ...], version: int) -> dict[str, str]:
    """Return the units by name; program: the argv of rp."""
    template = Service(
        name="rp@.service",
        description=f"Container {_INSTANCE}",
        documentation=("man:rp(1)",),
        command=(*program, "supervise", _INSTANCE),
        # Of a template the container's own policy is not known: a drop-in says what is wanted.
        stop_timeout_us=90_000_000,
        environment=environment,
        identifier=f"rp-{_INSTANCE}",
    )
    header = (
        "Starts a container that exists: systemctl --user enable --now rp@NAME",
        "rp enable NAME writes one with the container's own timeouts and restart policy.",
    )
    text = unitfile.render(template, version=version, header=header, wanted_by=_TARGET)
    written = " ".join(unitfile.word(each) for each in program)
    return {
        "rp@.service": text.replace(_INSTANCE, "%i"),
        "rp-auto-update.service": _UPDATE_SERVICE.format(program=written),
        "rp-auto-update.timer": _UPDATE_TIMER,
        "rp-prune.service": _PRUNE_SERVICE.format(program=written),
        "rp-prune.timer": _PRUNE_TIMER,
    }


def install(paths: Paths) -> list[str]:
    """Write the units for the caller and have the user manager read them; return their paths.

    Raises Unsupported, OSError.
    """
    program, environment = service.program()
    bus = buses.connect(os.path.dirname(paths.require_runtime()))
    try:
        written = []
        for name, text in texts(program, environment, services.version(bus)).items():
            path = unitfile.path(paths.config, name)
            autostart.write(path, text)
            written.append(path)
        bus.call("Reload")
        autostart.check_path(bus, os.path.dirname(written[0]))
    finally:
        bus.close()
    return written
