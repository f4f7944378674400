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
    "__main__", "errors", "report", "paths", "cli.argv", "cli.session", "cli.hot",
    "engine.options", "engine.request", "engine.values", "engine.environment",
    "engine.mount_values", "engine.isolation_values", "engine.names", "engine.readiness",
    "network.driver", "network.ports", "network.addresses", "network.process", "linux.procfs",
}  # fmt: skip
RUNNING = PARSING | {
    "engine.attach", "engine.bundle", "engine.cancel", "engine.capabilities", "engine.control",
    "engine.idmap", "engine.limits", "engine.record", "engine.root", "engine.run",
    "engine.seccomp_profile", "engine.sockets", "engine.specgen", "engine.start",
    "engine.clients", "engine.etc_files", "engine.job", "engine.loop", "engine.stdio",
    "engine.events", "engine.failure", "engine.payload_signal", "engine.announcer",
    "systemd.journal", "engine.sessions", "engine.exec_request", "engine.exec_server",
    "runtime.join", "runtime.payload",
    "engine.statefile",
    "engine.storage", "engine.storage_driver", "engine.supervisor", "engine.tty",
    "image.layout", "image.reference", "image.store",
    "linux.libc", "linux.mount", "linux.pathrs", "linux.process", "linux.userns",
    "network.resolver", "oci.image_spec", "oci.validate",
    "runtime.caps", "runtime.create", "runtime.fuse", "runtime.init", "runtime.rootfs",
    "runtime.seccomp", "runtime.sync", "runtime.terminal", "runtime.user",
    "systemd.bus", "systemd.cgroup", "systemd.notify", "systemd.properties", "systemd.scope",
    "systemd.sdbus", "systemd.values",
}  # fmt: skip

# engine.root imports the store when it looks for the image.
_RUN = "from rootlesspy.engine import run; from rootlesspy.image import store"
_PARSE = (
    "from rootlesspy import __main__; from rootlesspy.cli import argv, session, hot;"
    "from rootlesspy.engine import options;"
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
    rooms = {name.partition(".")[0] for name in ours}
    standard = {name.partition(".")[0] for name in names if not name.startswith("rootlesspy")}
    return ours - (rooms - {"__main__", "errors", "report", "paths"}), standard


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
