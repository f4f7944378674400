"""One QEMU process: start it from a disk or from a saved state, talk to it, save its state.

States are files of their own beside disks that are never written again: every start gets a new
copy-on-write disk over them, so any number of machines can start from one state at once.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rig import wire
from rig.location import RigError

if TYPE_CHECKING:
    from collections.abc import Sequence

_READY_LIMIT_S = 1200.0
_SAVE_LIMIT_S = 400.0
# qcow2 refers to its backing files by absolute name.
_KERNEL_ARGUMENTS = (
    "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 mitigations=off panic=-1 "
    "systemd.show_status=no systemd.getty_auto=no"
)
# Left out is what is dear to emulate and no test looks at: a fifth level of page tables, long
# vectors, checks at each access.
_PROCESSOR = "max,la57=off,avx=off,avx2=off,smap=off,smep=off,pku=off"
_READY = "systemctl start rig-ready.service && until [ -s /run/rig/ready ]; do sleep 0.1; done"


class Kernel(NamedTuple):
    """What the machine boots."""

    vmlinuz: Path
    initrd: Path


class Qemu:
    """A running virtual machine. Stop it, or use it in `with`."""

    def __init__(
        self, directory: Path, kernel: Kernel, backing: Path, token: str, state: Path | None = None
    ) -> None:
        """Start the machine over a backing disk, from a saved state or from the beginning."""
        self.directory = directory
        self._token = token
        self.disk = directory / "disk.qcow2"
        form = "qcow2" if backing.suffix == ".qcow2" else "raw"
        create_overlay(backing, form, self.disk)
        # Bound for as long as the machine runs: nobody else is given its port meanwhile, and QEMU
        # listens on it all the same, as both may share an address (SO_REUSEADDR).
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port = int(self._reserved.getsockname()[1])
        self._process = self._start(kernel, state)
        try:
            self._monitor = self._connect()
            self._wait_ready(from_state=state is not None)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Qemu:
        return self

    def __exit__(self, *_details: object) -> None:
        self.stop()

    def argv(
        self, argv: Sequence[str], uid: int, environment: dict[str, str], *, in_session: bool
    ) -> list[str]:
        """Return the local command line that runs a command inside."""
        command = wire.Command(
            token=self._token,
            uid=uid,
            environment=environment,
            directory=environment["HOME"],
            in_session=in_session,
            terminal=False,
            argv=list(argv),
        )
        return ["python3", "-I", "-S", wire.__file__, "run", json.dumps([self.port, command])]

    def root(self, script: str, *, data: bytes = b"", timeout_s: float = 400) -> str:
        """Run a shell script as root inside and return its output; raise RigError when it fails."""
        environment = {"HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        argv = self.argv(["sh", "-c", script], 0, environment, in_session=False)
        try:
            done = subprocess.run(
                argv, input=data, capture_output=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            console = self.console()
            raise RigError(f"{script!r} took more than {timeout_s} s:\n{console}") from None
        if done.returncode != 0:
            shown = (done.stdout + done.stderr).decode(errors="replace")
            raise RigError(f"{script!r} failed with {done.returncode}:\n{shown}\n{self.console()}")
        return done.stdout.decode()

    def reboot(self, *, power_loss: bool = False) -> None:
        """Reboot the machine and wait until its user manager is up again.

        power_loss: at once, nothing is ended or written.
        """
        mark = "/run/rig/not-rebooted"
        self.root(f"touch {mark}")
        if power_loss:
            # The processors are reset; what is in the memory alone is lost.
            self._command("system_reset")
        else:
            self.root("systemctl --no-block reboot")
        limit_s = time.monotonic() + _READY_LIMIT_S
        while time.monotonic() < limit_s:
            try:
                self.root(f"test ! -e {mark}", timeout_s=20)
            except RigError:
                time.sleep(0.5)
                continue
            self.root(_READY, timeout_s=_READY_LIMIT_S)
            return
        raise RigError(f"the machine did not reboot in {_READY_LIMIT_S} s:\n{self.console()}")

    def save(self, state: Path) -> None:
        """Stop the machine for good and write its memory to a file; its disk is then complete."""
        self._command("stop")
        limits = {"max-bandwidth": 1 << 40, "downtime-limit": 100_000}
        self._command("migrate-set-parameters", **limits)
        self._command("migrate", uri=f"exec:cat > '{state}'")
        limit_s = time.monotonic() + _SAVE_LIMIT_S
        while True:
            status = self._command("query-migrate")
            if status.get("status") == "completed":
                break
            if status.get("status") == "failed" or time.monotonic() > limit_s:
                raise RigError(f"the machine's state could not be saved: {status}")
            # The migration has no event that one could wait for in every version.
            time.sleep(0.1)
        self.stop()

    def console(self) -> str:
        """Return the end of what the machine wrote to its console."""
        log = self.directory / "console.log"
        return log.read_text(encoding="utf-8", errors="replace")[-2000:] if log.exists() else ""

    def stop(self) -> None:
        """Kill the machine, and wait for that."""
        if self._process.poll() is None:
            # Ended in order where it answers: the disk of a saved state must be complete.
            try:
                self._command("quit")
                self._process.wait(timeout=120)
            except (OSError, RigError, AttributeError, subprocess.TimeoutExpired):
                self._process.kill()
        self._process.wait()
        self._reserved.close()
        if hasattr(self, "_monitor"):
            self._monitor.close()

    def _start(self, kernel: Kernel, state: Path | None) -> subprocess.Popen[bytes]:
        drive = f"file={self.disk},if=none,id=root,format=qcow2,cache=unsafe,discard=unmap"
        forward = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-10.0.2.15:{wire.PORT}"
        # fmt: off
        argv = [
            # Whatever kills us kills the machine.
            "setpriv", "--pdeathsig", "KILL",
            "qemu-system-x86_64", "-machine", "q35", "-accel", _acceleration(), "-cpu", _PROCESSOR,
            "-smp", "2", "-m", "2G", "-nodefaults", "-no-user-config", "-display", "none",
            "-kernel", os.fspath(kernel.vmlinuz), "-initrd", os.fspath(kernel.initrd),
            "-append", _KERNEL_ARGUMENTS,
            "-drive", drive, "-device", "virtio-blk-pci,drive=root",
            "-netdev", forward, "-device", "virtio-net-pci,netdev=net,romfile=",
            "-chardev", f"file,id=console,path={self.directory}/console.log",
            "-serial", "chardev:console",
            "-qmp", f"unix:{self.directory}/monitor,server=on,wait=off",
        ]
        # fmt: on
        if state is not None:
            argv += ["-incoming", f"exec:cat '{state}'"]
        with (self.directory / "qemu.log").open("wb") as log:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _connect(self) -> socket.socket:
        path = self.directory / "monitor"
        limit_s = time.monotonic() + 120
        monitor = socket.socket(socket.AF_UNIX)
        monitor.settimeout(60)
        while True:
            try:
                monitor.connect(os.fspath(path))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if self._process.poll() is not None or time.monotonic() > limit_s:
                    monitor.close()
                    log = (self.directory / "qemu.log").read_text(errors="replace")
                    raise RigError(f"qemu did not start:\n{log}") from None
                time.sleep(0.02)
        self._monitor = monitor
        self._buffer = b""
        self._message()
        self._command("qmp_capabilities")
        return monitor

    def _command(self, name: str, **arguments: object) -> Any:
        text = json.dumps({"execute": name, "arguments": arguments})
        self._monitor.sendall(text.encode() + b"\n")
        while True:
            message = self._message()
            if "error" in message:
                raise RigError(f"qemu: {name}: {message['error'].get('desc')}")
            if "return" in message:
                return message["return"]

    def _message(self) -> Any:
        while b"\n" not in self._buffer:
            data = self._monitor.recv(65536)
            if not data:
                raise RigError("qemu ended unexpectedly")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def _wait_ready(self, *, from_state: bool) -> None:
        if from_state:
            limit_s = time.monotonic() + _SAVE_LIMIT_S
            while self._command("query-status")["status"] == "inmigrate":
                if time.monotonic() > limit_s:
                    raise RigError("the machine's state was not loaded in time")
                time.sleep(0.02)
            # It was saved while it stood still.
            self._command("cont")
            # The clock inside stands at that moment.
            self.root(f"date -s @{time.time():.3f}")
        else:
            self._wait_listening()
            self.root(_READY, timeout_s=_READY_LIMIT_S)

    def _wait_listening(self) -> None:
        # QEMU accepts for the guest: a connection counts when the agent answers.
        limit_s = time.monotonic() + _READY_LIMIT_S
        while time.monotonic() < limit_s:
            pidfd = os.pidfd_open(self._process.pid)
            dead = select.select([pidfd], [], [], 0.5)[0]
            os.close(pidfd)
            if dead:
                raise RigError(f"qemu ended while booting:\n{self.console()}")
            try:
                self.root("true", timeout_s=20)
            except RigError:
                continue
            return
        raise RigError(f"the machine did not boot in {_READY_LIMIT_S} s:\n{self.console()}")


def create_overlay(backing: Path, form: str, disk: Path) -> None:
    """Create a copy-on-write disk over a backing file that will never be written again."""
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", form, "-b", backing, disk], check=True
    )


def missing_programs() -> list[str]:
    """Return which programs the virtual machine needs and this machine lacks."""
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    wanted = ("qemu-system-x86_64", "qemu-img", "mke2fs", "mmdebstrap", "setpriv")
    return [program for program in wanted if shutil.which(program, path=search) is None]


def _acceleration() -> str:
    # A /dev/kvm that opens is not enough: nested machines have one that cannot run a kernel.
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    flags = set(text.split())
    if flags & {"vmx", "svm"} and os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "kvm"
    return "tcg,thread=multi"
