"""The virtual machine: the namespace rig's root file system with a kernel of its own.

Full cgroup v2, so limits are enforced, and it can be rebooted. It is booted once and saved in
two states: as Debian delegates controllers to users (cpu, memory, pids), and with the drop-in
of units/ (cpuset and io too). Every test module starts from a state.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import secrets
import shutil
import subprocess
import tarfile
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rig import furnish, images, install, instance, location, machine, qemu, recipe, rootfs, wire
from rig.location import RigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

KERNEL_PACKAGE = "linux-image-cloud-amd64"
STATES = ("default", "delegated")

_INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox insmod /virtio_blk.ko
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox mount -o move /dev /root/dev
exec /bin/busybox switch_root /root /lib/systemd/systemd
"""


class Built(NamedTuple):
    """The built machine: a directory with its kernel, disks and states."""

    directory: Path
    token: str

    @property
    def kernel(self) -> qemu.Kernel:
        """Return what it boots."""
        return qemu.Kernel(self.directory / "vmlinuz", self.directory / "initrd")

    def start(self, state: str, run_directory: Path) -> qemu.Qemu:
        """Start a new virtual machine from one of its states."""
        return qemu.Qemu(
            run_directory,
            self.kernel,
            self.directory / f"{state}.qcow2",
            self.token,
            self.directory / f"{state}.state",
        )


class Door:
    """How commands reach a virtual machine; see rig.machine."""

    uid = recipe.ALICE.uid
    has_root = True
    held_signals = frozenset(wire.FORWARDED)

    def __init__(self, running: qemu.Qemu) -> None:
        self._running = running

    def argv(self, argv: Sequence[str], user: str, env: Mapping[str, str]) -> list[str]:
        """Return the local command line that runs a command inside."""
        uid = {"root": 0} | {person.name: person.uid for person in recipe.USERS}
        environment = instance.environment(user) | dict(env)
        in_session = user == recipe.ALICE.name
        return self._running.argv(argv, uid[user], environment, in_session=in_session)


class VirtualMachine(machine.Machine):
    """A running virtual machine, as tests see it."""

    def __init__(self, running: qemu.Qemu) -> None:
        super().__init__(Door(running))
        self._running = running
        self.images: set[str] = set()
        """What has been pulled already: many modules use one machine."""

    def reboot(self, *, power_loss: bool = False) -> None:
        """Reboot the machine, in order or as if it had no power, until its user manager is up."""
        self._running.reboot(power_loss=power_loss)

    def console(self) -> str:
        """Return the end of what the kernel wrote to the console."""
        return self._running.console()


def ensure(suite: str, say: Callable[[str], None]) -> Built:
    """Return the built machine, building it when it is missing; safe with other builders."""
    missing = qemu.missing_programs()
    if missing:
        raise RigError(
            f"{', '.join(missing)} missing (cure: scripts/test vm installs what it needs)"
        )
    if os.geteuid() != 0:
        raise RigError("building the virtual machine needs root (cure: sudo)")
    tree = rootfs.ensure(suite, say)
    kernel = _ensure_kernel(suite, say)
    finished = location.cache() / f"vm-{suite}-{_key(tree, kernel)}"
    with rootfs.locked(location.cache() / f"vm-{suite}.lock"):
        # Built in place, since disks name their backing files by absolute path. The token, which
        # is written last, says that it is whole.
        if not (finished / "token").exists():
            for old in location.cache().glob(f"vm-{suite}-*"):
                shutil.rmtree(old)
            started_s = time.monotonic()
            finished.mkdir()
            _build(tree, kernel, finished, say)
            say(f"virtual machine built in {time.monotonic() - started_s:.0f} s")
        return Built(finished, (finished / "token").read_text(encoding="ascii"))


@contextmanager
def started(suite: str, state: str, say: Callable[[str], None]) -> Iterator[qemu.Qemu]:
    """Hold a new machine, from one of the states, with the project as it is now."""
    built = ensure(suite, say)
    directory = run_directory()
    try:
        with built.start(state, directory) as running:
            install_project(running, suite)
            yield running
    finally:
        shutil.rmtree(directory)


def install_project(running: qemu.Qemu, suite: str) -> None:
    """Put the project into a running machine, as a Debian package would."""
    tree = rootfs.ensure(suite, lambda _text: None)
    archive = io.BytesIO()
    with install.staged(suite, tree) as package, tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(package, arcname=".")
    running.root(f"tar -x -C /{install.DIST_PACKAGES}", data=archive.getvalue())
    for name in install.PROGRAMS:
        program = f"/usr/bin/{name}"
        text = install.launcher(name).read_bytes()
        running.root(f"cat > {program} && chmod 755 {program}", data=text)


def drop_in() -> Path:
    """Return the drop-in that delegates all controllers to users, as the project ships it."""
    for path in sorted((location.REPOSITORY / "units").rglob("*.conf")):
        if "Delegate=" in path.read_text(encoding="utf-8"):
            return path
    raise RigError("units/ has no drop-in with Delegate=")


def run_directory() -> Path:
    """Return a new directory for one running machine; those of dead owners are removed."""
    top = location.cache() / "vm-runs"
    top.mkdir(exist_ok=True)
    for old in top.iterdir():
        if not location.proc(int(old.name.partition("-")[0])).exists():
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=top))


def _ensure_kernel(suite: str, say: Callable[[str], None]) -> Path:
    """Return a tree with the kernel in boot/ and its modules in usr/lib/modules/."""
    finished = location.cache() / f"kernel-{suite}"
    with rootfs.locked(location.cache() / f"kernel-{suite}.lock"):
        if finished.is_dir():
            return finished
        started_s = time.monotonic()
        half = location.cache() / f"half-kernel-{suite}"
        shutil.rmtree(half, ignore_errors=True)
        extracted = half / "extracted"
        half.mkdir()
        # Only unpacked: its maintainer scripts would make an initrd that nobody uses.
        rootfs.bootstrap(suite, (KERNEL_PACKAGE,), extracted, variant="extract")
        modules = next(path for path in (extracted / "usr/lib/modules", extracted / "lib/modules")
                       if path.is_dir())  # fmt: skip
        (half / "tree/usr/lib").mkdir(parents=True)
        modules.rename(half / "tree/usr/lib/modules")
        (extracted / "boot").rename(half / "tree/boot")
        (half / "tree").rename(finished)
        shutil.rmtree(half)
        say(f"kernel of {suite} fetched in {time.monotonic() - started_s:.0f} s")
    return finished


def _key(tree: Path, kernel: Path) -> str:
    digest = hashlib.sha256(f"{tree.name} {_version(kernel)}".encode())
    files = recipe.files() | recipe.files_of_vm("")
    del files["/etc/machine-id"]  # a new one each time
    for text in (*files.values(), _INIT):
        digest.update(text.encode())
    sources = [Path(module.__file__) for module in (furnish, images, qemu) if module.__file__]
    sources += [Path(__file__), Path(__file__).with_name("disk.sh"), drop_in()]
    for source in sources:
        digest.update(source.read_bytes())
    digest.update(" ".join(sorted(path.name for path in images.SHARED.glob("*"))).encode())
    return digest.hexdigest()[:12]


def _version(kernel: Path) -> str:
    return next((kernel / "usr/lib/modules").iterdir()).name


def _build(tree: Path, kernel: Path, target: Path, say: Callable[[str], None]) -> None:
    token = secrets.token_hex(16)
    version = _version(kernel)
    shutil.copy(kernel / "boot" / f"vmlinuz-{version}", target / "vmlinuz")
    (target / "initrd").write_bytes(_initrd(tree, kernel / "usr/lib/modules" / version))
    _make_disk(tree, kernel, target, token)
    booted_s = time.monotonic()
    with _fresh(target, "default", target / "root.raw", token, None) as running:
        say(f"virtual machine booted in {time.monotonic() - booted_s:.0f} s")
        running.save(target / "default.state")
        running.disk.rename(target / "default.qcow2")
    state = target / "default.state"
    with _fresh(target, "delegated", target / "default.qcow2", token, state) as running:
        directory = "/etc/systemd/system/user@.service.d"
        running.root(f"mkdir -p {directory} && cat >{directory}/rootlesspy.conf",
                     data=drop_in().read_bytes())  # fmt: skip
        running.root(
            "systemctl daemon-reload && : >/run/rig/ready && systemctl restart user@1000.service "
            "&& systemctl restart rig-ready.service && "
            "until [ -s /run/rig/ready ]; do sleep 0.1; done"
        )
        running.save(target / "delegated.state")
        running.disk.rename(target / "delegated.qcow2")
    (target / "token").write_text(token, encoding="ascii")


def _fresh(target: Path, name: str, backing: Path, token: str, state: Path | None) -> qemu.Qemu:
    directory = target / name
    directory.mkdir()
    kernel = qemu.Kernel(target / "vmlinuz", target / "initrd")
    return qemu.Qemu(directory, kernel, backing, token, state)


def _make_disk(tree: Path, kernel: Path, target: Path, token: str) -> None:
    with tempfile.TemporaryDirectory(dir=location.cache()) as temporary:
        upper, work, merged = (Path(temporary) / name for name in ("upper", "work", "merged"))
        for directory in (work, merged):
            directory.mkdir()
        files = recipe.files() | recipe.files_of_vm(token)
        furnish.furnish(tree, upper, files, recipe.symlinks(vm=True))
        (upper / "usr/lib/rig/token").chmod(0o600)
        (upper / "home").mkdir(mode=0o755)
        furnish.make_homes(tree, upper / "home")
        script = Path(__file__).with_name("disk.sh")
        # fmt: off
        subprocess.run(
            ["unshare", "--mount", "sh", script, tree, kernel, upper, work, merged,
             _version(kernel), target / "root.raw"],
            check=True, stdin=subprocess.DEVNULL,
        )
        # fmt: on


def _initrd(tree: Path, modules: Path) -> bytes:
    """Return a cpio archive that mounts the disk: all other drivers are in the kernel."""
    compressed = next(modules.rglob("virtio_blk.ko*"))
    driver = compressed.read_bytes()
    if compressed.suffix == ".xz":
        driver = lzma.decompress(driver)
    busybox = (tree / "usr/bin/busybox").read_bytes()
    members = [("dev", 0o040755, b""), ("root", 0o040755, b""), ("bin", 0o040755, b"")]
    members += [("bin/busybox", 0o100755, busybox), ("virtio_blk.ko", 0o100644, driver)]
    members += [("init", 0o100755, _INIT.encode()), ("TRAILER!!!", 0, b"")]
    archive = b""
    for number, (name, mode, data) in enumerate(members, start=1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        archive += header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4)
    return archive
