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
    "__future__", "array", "collections", "contextlib", "copyreg", "ctypes", "enum", "errno",
    "fcntl", "functools", "itertools", "json", "keyword", "math", "operator", "re", "reprlib",
    "resource", "select", "selectors", "signal", "socket", "struct", "termios", "tty", "types",
    "typing", "warnings",
}  # fmt: skip
PARSING = {
    "__main__", "cli.argv", "cli.hot", "cli.session", "engine.inputs.environment",
    "engine.inputs.isolation_values", "engine.inputs.mount_values", "engine.inputs.options",
    "engine.inputs.request", "engine.inputs.values", "engine.names",
    "engine.supervision.readiness", "errors", "linux.procfs", "network.addresses",
    "network.driver", "network.ports", "network.process", "paths", "report",
}  # fmt: skip
RUNNING = PARSING | {
    "engine.bundle", "engine.idmap", "engine.inputs.capabilities", "engine.limits",
    "engine.output.events", "engine.record", "engine.root", "engine.run",
    "engine.reservation", "engine.seccomp_profile", "engine.spec_mounts", "engine.specgen",
    "engine.statefile", "engine.storage", "engine.storage_driver",
    "engine.supervision.announcer", "engine.supervision.attach",
    "engine.supervision.cancel", "engine.supervision.clients", "engine.supervision.control",
    "engine.supervision.etc_files", "engine.supervision.exec_request",
    "engine.supervision.exec_server", "engine.supervision.exit_status",
    "engine.supervision.failure", "engine.supervision.job", "engine.supervision.listener",
    "engine.supervision.loop", "engine.supervision.payload_signal", "engine.supervision.sessions",
    "engine.supervision.sockets", "engine.supervision.start", "engine.supervision.stdio",
    "engine.supervision.supervisor", "engine.supervision.tty", "image.layout", "image.reference",
    "image.store", "linux.libc", "linux.mount", "linux.pathrs", "linux.process", "linux.userns",
    "network.resolver", "oci.image_spec", "oci.validate", "runtime.caps", "runtime.create",
    "runtime.fuse", "runtime.init", "runtime.join", "runtime.payload", "runtime.rootfs",
    "runtime.seccomp", "runtime.sync", "runtime.terminal", "runtime.user", "systemd.bus",
    "systemd.cgroup", "systemd.journal", "systemd.notify", "systemd.properties", "systemd.scope",
    "systemd.sdbus", "systemd.values",
}  # fmt: skip

# engine.root imports the store when it looks for the image.
_RUN = "from rootlesspy.engine import run; from rootlesspy.image import store"
_PARSE = (
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
        pytest.param(f"{_PARSE}; {_RUN}", RUNNING, id="run"),
    ],
)
def test_run_loads_what_is_listed(code: str, listed: set[str]) -> None:
    ours, standard = loaded(code)
    assert ours == listed
    assert {name for name in standard if not name.startswith("_")} - STANDARD == set()
