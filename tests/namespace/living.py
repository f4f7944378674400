"""Hold detached containers and wait for what they become; shared by the tests of their lives."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rig.machine import Completed, Machine

LIMIT_S = 120.0
# Most of it needs no network.
RUN = ("rp", "run", "-d", "--network=none")
STORE = ".local/share/rootlesspy/containers"
# Ends by itself when asked to, and says so.
POLITE = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
DEAF = "trap '' TERM; echo ready; while :; do sleep 0.1; done"


def rp(machine: Machine, *words: str, **options: Any) -> Completed:
    """Run rp; its failure is the caller's to judge."""
    return machine.run(["rp", *words], check=False, **options)


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that has to come true."""
    limit_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < limit_s, what
        time.sleep(0.05)


def journaled(machine: Machine) -> None:
    """Wait until journald has taken what was sent to it: nobody who sends waits for that."""
    if machine.has_root:
        machine.root(["journalctl", "--sync"])


@contextmanager
def running(machine: Machine, name: str, *command: str, **named: Any) -> Iterator[str]:
    """Hold a detached container; yield its id.  named: options (of rp run), network."""
    options, network = named.get("options", ()), named.get("network", "none")
    argv = ["rp", "run", "-d", f"--network={network}", "--name", name, *options, "alpine"]
    done = machine.run([*argv, *command], timeout=LIMIT_S)
    try:
        yield done.stdout.strip()
    finally:
        rp(machine, "rm", "-f", name)


@contextmanager
def script(machine: Machine, name: str, text: str, *options: str) -> Iterator[str]:
    """Hold a detached container that runs a shell script; yield its id once it said ready."""
    with running(machine, name, "sh", "-c", text, options=options) as identity:
        if "ready" in text:
            until(lambda: "ready" in rp(machine, "logs", name).stdout, f"{name} is not ready")
        yield identity


@contextmanager
def lingering(machine: Machine, user: str) -> Iterator[str]:
    """Let a user have a user manager meanwhile, and wait until it is gone; yield the uid."""
    uid = str(machine.run(["id", "-u"], user=user).stdout).strip()
    machine.root(["loginctl", "enable-linger", user])
    try:
        machine.root(["sh", "-c", f"until [ -S /run/user/{uid}/bus ]; do sleep 0.1; done"])
        yield uid
    finally:
        machine.root(["loginctl", "disable-linger", user])
        # Its mounts and sockets would otherwise go during a test that compares them.
        machine.root(["sh", "-c", f"while [ -e /run/user/{uid} ]; do sleep 0.1; done"])


def state(machine: Machine, name: str) -> str:
    """Return a container's state as rp ps tells it, "" when it is gone."""
    argv = ["ps", "-a", "--filter", f"name=^{name}$", "--format", "{{.State}}"]
    return str(rp(machine, *argv).stdout).strip()


def exit_record(machine: Machine, identity: str) -> dict[str, Any]:
    """Return what is on record about a container's end."""
    done = machine.run(["sh", "-c", f"cat ~/{STORE}/{identity}/exit.json"])
    return dict(json.loads(done.stdout))


def show(machine: Machine, unit: str, *names: str) -> dict[str, str]:
    """Return properties of a unit of the user's."""
    argv = ["systemctl", "--user", "show", unit, *(f"--property={name}" for name in names)]
    lines = machine.run(argv).stdout.splitlines()
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def is_active(machine: Machine, unit: str) -> bool:
    """Say whether a unit of the user's is active."""
    argv = ["systemctl", "--user", "is-active", "--quiet", unit]
    return machine.run(argv, check=False).returncode == 0


def supervisor(machine: Machine, name: str) -> int:
    """Return the pid of a container's supervisor, which need not be its service's main process."""
    return int(rp(machine, "inspect", "--format", "{{.State.ConmonPid}}", name).stdout)


def main_process(machine: Machine, name: str) -> int:
    """Return the pid of a container's first process, as the machine sees it."""
    return int(rp(machine, "inspect", "--format", "{{.State.Pid}}", name).stdout)
