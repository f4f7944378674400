"""Hold a container in a virtual machine and look at its cgroup from outside."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Completed
    from rig.vm import VirtualMachine

APP_SLICE = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice"
# Limits need no network, and every second counts twice here.
RUN = ("rp", "run", "--rm", "--network", "none")
# Generous: the machine is emulated and may be slow.
RUN_LIMIT_S = 400


def pull(machine: VirtualMachine) -> None:
    """Have alpine in the machine's store."""
    if "alpine" not in machine.images:
        # systemd has started the registry, but does not know when it is ready.
        answers = "until : </dev/tcp/127.0.0.1/5000; do sleep 0.2; done"
        machine.run(["bash", "-c", answers], timeout=RUN_LIMIT_S)
        machine.run(["rp", "pull", "--quiet", "alpine"], timeout=RUN_LIMIT_S)
        machine.images.add("alpine")


def rp_run(machine: VirtualMachine, *words: str) -> Completed:
    """Run a container to its end, whatever that is."""
    return machine.run([*RUN, *words], check=False, timeout=RUN_LIMIT_S)


@contextmanager
def running(machine: VirtualMachine, name: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Hold a container that runs; kill it afterwards."""
    process = machine.popen(
        [*RUN, "--name", name, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    argv = ["systemctl", "--user", "is-active", f"rp-{name}.scope"]
    limit_s = time.monotonic() + RUN_LIMIT_S
    try:
        while machine.run(argv, check=False).returncode != 0:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < limit_s, "the scope did not become active"
            time.sleep(0.2)
        yield process
    finally:
        machine.run(
            ["systemctl", "--user", "kill", "--signal=KILL", f"rp-{name}.scope"], check=False
        )
        process.communicate(timeout=RUN_LIMIT_S)


def cgroup_file(machine: VirtualMachine, name: str, file: str) -> str:
    """Read a file of a container's scope."""
    return str(machine.run(["cat", f"{APP_SLICE}/rp-{name}.scope/{file}"]).stdout).strip()
