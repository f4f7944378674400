"""The modules that the hot commands load, all of them: what is not listed costs its import.

An import is 0.2 to 5 ms that every `rp run` pays.  Whoever adds one says here that it is worth it,
or moves it into the function that needs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# Names with _ in front, C beside a module that is listed, are left out.
STANDARD = {
    "__future__", "errno", "fcntl", "gc", "math", "resource", "select",
}  # fmt: skip
PARSING = {
    "__main__", "cli.argv", "cli.hot", "cli.session", "engine.inputs.constants",
    "engine.inputs.environment", "engine.inputs.options", "engine.inputs.request", "engine.names",
    "errors", "light_importer", "light_modules", "light_typing", "linux.procfs",
    "network.addresses", "network.driver", "network.process", "paths", "report",
}  # fmt: skip
MAKING = PARSING | {
    "engine.bundle", "engine.bundle_spec", "engine.command", "engine.creation", "engine.idmap",
    "engine.inputs.capabilities", "engine.isolation", "engine.new_record", "engine.output.events",
    "engine.record", "engine.reservation", "engine.root", "engine.run", "engine.seccomp_profile",
    "engine.spec_mounts", "engine.specgen", "engine.statefile", "engine.storage",
    "engine.storage_driver", "engine.supervision.attach", "engine.supervision.cancel",
    "engine.supervision.control", "engine.supervision.forked", "engine.supervision.outlook",
    "engine.supervision.sockets", "engine.supervision.tty", "image.layout", "image.reference",
    "image.store", "light_ctypes", "light_json", "light_socket", "linux.libc", "linux.mount",
    "linux.pathrs", "linux.process", "linux.userns", "oci.checks", "oci.image_spec", "oci.validate",
    "runtime.rootfs", "runtime.terminal", "systemd.cgroup", "systemd.journal", "systemd.migration",
    "systemd.notify",
}  # fmt: skip
# The same for a detached container.
DETACHING = MAKING - {"engine.supervision.attach"} | {
    "engine.supervision.detached", "settings",
}  # fmt: skip
# Until the supervisor of a service has begun with its container.
HEAD_START = {
    "__main__", "engine.definitions.dependencies", "engine.idmap", "engine.inputs.constants",
    "engine.limits", "engine.names", "engine.record", "engine.reservation", "engine.statefile",
    "engine.storage", "engine.storage_driver", "engine.supervision.beginning",
    "engine.supervision.cancel", "engine.supervision.control", "engine.supervision.head_start",
    "engine.supervision.service", "engine.supervision.sockets",
    "engine.supervision.supervise", "errors", "light_ctypes", "light_importer", "light_json",
    "light_modules", "light_socket", "light_typing", "linux.libc", "linux.mount",
    "linux.pathrs", "linux.process", "linux.procfs", "linux.userns", "network.addresses",
    "network.driver", "network.process", "paths", "report", "runtime.caps", "runtime.create",
    "runtime.init", "runtime.kernel_files", "runtime.payload", "runtime.rootfs",
    "runtime.seccomp", "runtime.sources", "runtime.sync", "runtime.terminal", "runtime.user",
    "systemd.bus", "systemd.cgroup", "systemd.notify", "systemd.scope", "systemd.sdbus",
    "systemd.service", "systemd.values",
}  # fmt: skip
SUPERVISING = PARSING | {
    "engine.idmap", "engine.limits", "engine.output.events", "engine.record", "engine.reservation",
    "engine.run", "engine.statefile", "engine.storage", "engine.storage_driver",
    "engine.supervision.announcer", "engine.supervision.beginning", "engine.supervision.cancel",
    "engine.supervision.clients", "engine.supervision.control", "engine.supervision.etc_files",
    "engine.supervision.exit_status", "engine.supervision.failure", "engine.supervision.forked",
    "engine.supervision.job", "engine.supervision.listener", "engine.supervision.loop",
    "engine.supervision.payload_signal", "engine.supervision.sockets", "engine.supervision.start",
    "engine.supervision.stdio", "engine.supervision.supervisor", "engine.supervision.tty",
    "light_ctypes", "light_json", "light_socket", "linux.libc", "linux.mount", "linux.pathrs",
    "linux.process", "linux.userns", "network.resolver", "runtime.caps", "runtime.create",
    "runtime.init", "runtime.kernel_files", "runtime.payload", "runtime.rootfs", "runtime.seccomp",
    "runtime.sources", "runtime.sync", "runtime.terminal", "runtime.user", "systemd.bus",
    "systemd.cgroup", "systemd.journal", "systemd.migration", "systemd.notify", "systemd.scope",
    "systemd.sdbus", "systemd.values",
}  # fmt: skip

# The supervisor of a detached container, a fork of rp, has these too.
SERVING = SUPERVISING | {
    "engine.definitions.dependencies", "engine.supervision.head_start",
    "engine.supervision.own_service", "engine.supervision.pipes", "engine.supervision.service",
    "engine.supervision.supervise", "systemd.service",
}  # fmt: skip

# engine.root imports the store when it looks for the image.
_MAKE = (
    "from rootlesspy.engine import run;"
    "from rootlesspy.engine.supervision import forked, outlook;"
    "from rootlesspy.engine import creation, bundle, bundle_spec, storage;"
    "from rootlesspy.image import store; from rootlesspy.engine.output import events"
)
_ATTEND = "from rootlesspy.engine.supervision import attach"
_DETACH = "from rootlesspy import settings; from rootlesspy.engine.supervision import detached"
_SUPERVISE = (
    "from rootlesspy.engine import run;from rootlesspy.engine.supervision import forked, supervisor"
)
_SERVE = "from rootlesspy.engine.supervision import own_service, pipes, service, supervise"
_HEAD_START = "from rootlesspy import __main__; from rootlesspy.engine.supervision import supervise"
_PARSE = (
    "from rootlesspy import light_importer; light_importer.install();"
    "from rootlesspy import __main__; from rootlesspy.cli import argv, session, hot;"
    "from rootlesspy.engine.inputs import options;"
    "options.run_request(argv.parse(['run', '--rm', 'x']).values, caller_environment={},"
    " directory='/', debug=False)"
)


def loaded(code: str) -> tuple[set[str], set[str]]:
    """Return rp's own modules that code loads, and those of the standard library."""
    script = f"import os, sys; before = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    done = subprocess.run(
        # Without site: what it loads is the machine's affair.
        [sys.executable, "-S", "-c", script],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    names = done.stdout.split()
    ours = {name.partition(".")[2] for name in names if name.startswith("rootlesspy.")}
    packages = {name.rpartition(".")[0] for name in ours}
    standard = {name.partition(".")[0] for name in names if not name.startswith("rootlesspy")}
    return ours - packages, standard


@pytest.mark.parametrize(
    ("code", "listed"),
    [
        pytest.param(_PARSE, PARSING, id="parse"),
        pytest.param(f"{_PARSE}; {_MAKE}; {_ATTEND}", MAKING, id="make"),
        pytest.param(f"{_PARSE}; {_MAKE}; {_DETACH}", DETACHING, id="detach"),
        pytest.param(f"{_PARSE}; {_SUPERVISE}", SUPERVISING, id="supervise"),
        pytest.param(f"{_PARSE}; {_SUPERVISE}; {_SERVE}", SERVING, id="serve"),
        pytest.param(_HEAD_START, HEAD_START, id="head start"),
    ],
)
def test_run_loads_what_is_listed(code: str, listed: set[str]) -> None:
    ours, standard = loaded(code)
    assert ours == listed
    assert {name for name in standard if not name.startswith("_")} - STANDARD == set()
