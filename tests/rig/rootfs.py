"""Build and cache the Debian root file system of a suite, by mmdebstrap from packages alone."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rig import location, recipe
from rig.location import RigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

# Documentation and translations are a third of the files; nothing in a rig reads them.
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")
_KEPT_S = 7 * 24 * 3600.0


def ensure(suite: str, say: Callable[[str], None]) -> Path:
    """Return the cached root file system of a suite, building it when it is missing.

    Safe with other builders at the same time: one builds, the others wait and use the result.
    Half-built trees are never used and are removed by the next build.
    """
    if suite not in recipe.SUITES:
        raise RigError(f"suite {suite!r} is unknown (one of {', '.join(recipe.SUITES)})")
    finished = location.cache() / f"rootfs-{suite}-{_key(suite, recipe.packages(suite))}"
    with locked(location.cache() / f"{suite}.lock"):
        if finished.is_dir():
            os.utime(finished)
            return finished
        started_s = time.monotonic()
        _remove_stale(suite)
        half = location.cache() / f"half-{finished.name}"
        bootstrap(suite, recipe.packages(suite), half)
        half.rename(finished)
        say(f"root file system {suite} built in {time.monotonic() - started_s:.0f} s")
    return finished


def bootstrap(
    suite: str, packages: Sequence[str], target: Path, *, variant: str = "minbase"
) -> None:
    """Run mmdebstrap into a new directory. Raises RigError with the end of its log."""
    if os.geteuid() != 0:
        raise RigError("building a root file system needs root (cure: sudo)")
    if shutil.which("mmdebstrap") is None:
        raise RigError("mmdebstrap is not installed (cure: apt-get install mmdebstrap)")
    argv = ["mmdebstrap", "--mode=root", "--format=directory", "--quiet"]
    argv += [f"--variant={variant}"]
    argv += [f"--include={','.join(packages)}"]
    argv += ['--aptopt=Acquire::Languages "none"', "--dpkgopt=force-unsafe-io"]
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    argv += [suite, os.fspath(target)]
    with tempfile.TemporaryFile() as log:
        status = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
        ).returncode
        if status != 0:
            log.seek(max(0, log.tell() - 2000))
            tail = log.read().decode(errors="replace")
            shutil.rmtree(target, ignore_errors=True)
            raise RigError(f"mmdebstrap {suite} failed with {status}:\n{tail}")
    target.chmod(0o755)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; death releases it. The holder may unlink the file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                break
        except FileNotFoundError:
            pass
        os.close(descriptor)
    try:
        yield
    finally:
        os.close(descriptor)


def _key(suite: str, packages: Sequence[str]) -> str:
    text = "\n".join((suite, *packages, *_LEFT_OUT))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _remove_stale(suite: str) -> None:
    for half in location.cache().glob(f"half-rootfs-{suite}-*"):
        shutil.rmtree(half)
    # One of another recipe may be in use by a rig of another checkout.
    for finished in location.cache().glob(f"rootfs-{suite}-*"):
        if time.time() - finished.stat().st_mtime > _KEPT_S:
            shutil.rmtree(finished)
