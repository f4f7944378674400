"""`rp bootstrap`: images made without a registry, of Debian packages or of a static busybox.

mmdebstrap runs as root of the user's own namespace, in a directory of the store that goes with it:
what is killed on the way is garbage that the next command removes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from datetime import UTC, datetime

from rootlesspy.engine import idmap
from rootlesspy.engine.images import busybox
from rootlesspy.engine.supervision.cancel import CancelledError
from rootlesspy.errors import Error, Unsupported, UsageError
from rootlesspy.image import layout, locks, platforms
from rootlesspy.image.reference import parse_local
from rootlesspy.image.writer import Writer, explained
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from rootlesspy.linux import userns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rootlesspy.image.progress import Progress
    from rootlesspy.image.store import Image
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_EPOCH = "1970-01-01T00:00:00Z"
# What Python ignores or handles, and a program must get as it comes.
_DEFAULTS = (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM,
             signal.SIGHUP)  # fmt: skip
_SUITE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/")


class Debian(NamedTuple):
    """What mmdebstrap is asked for; mirrors are URLs or whole lines of sources.list."""

    suite: str
    variant: str = "minbase"
    include: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    keyrings: tuple[str, ...] = ()
    architecture: str | None = None


class Shop(NamedTuple):
    """What every bootstrap needs."""

    paths: Paths
    environment: Mapping[str, str]
    progress: Progress
    reporter: Reporter
    quiet: bool = False


def busybox_image(shop: Shop, name: str) -> Image:
    """Make an image of this machine's static busybox.

    Raises UsageError, Unsupported where there is none, Error, OSError.
    """
    reference = _name(name)
    program = busybox.find()
    config = _config("busybox", _EPOCH, ["sh"])
    config["config"]["Labels"] = {"org.opencontainers.image.version": program.version}
    return _image(shop, reference, config, lambda fd: busybox.write_layer(fd, program))


def debian_image(shop: Shop, name: str, asked: Debian) -> Image:
    """Make an image of a Debian suite.

    Raises UsageError, Unsupported without mmdebstrap or a user namespace, Error when it fails,
    CancelledError, KeyboardInterrupt, OSError.
    """
    reference = _name(name)
    if not asked.suite or not _SUITE.issuperset(asked.suite) or asked.suite.startswith("-"):
        raise UsageError(f"{asked.suite!r} is not a suite", hint="rp bootstrap debian:trixie NAME")
    program = shutil.which("mmdebstrap", path=shop.environment.get("PATH", os.defpath))
    if program is None:
        raise Unsupported("mmdebstrap is not installed", hint="as root: apt-get install mmdebstrap")
    stamp = shop.environment.get("SOURCE_DATE_EPOCH", "")
    when = datetime.now(UTC)
    if stamp.isascii() and stamp.isdigit() and len(stamp) < 12:
        when = datetime.fromtimestamp(int(stamp), UTC)
    created = when.isoformat(timespec="seconds").replace("+00:00", "Z")
    config = _config(f"debian:{asked.suite}", created, ["bash"])
    if asked.architecture is not None:
        config["architecture"] = {"i386": "386"}.get(asked.architecture, asked.architecture)
    command = [program, *_options(asked, quiet=shop.quiet)]
    return _image(shop, reference, config, lambda fd: _run(shop, command, fd))


def _options(asked: Debian, *, quiet: bool) -> list[str]:
    words = ["--mode=root", "--format=tar", f"--variant={asked.variant}", "--skip=output/dev"]
    for option, values in (("include", asked.include), ("components", asked.components)):
        if values:
            words.append(f"--{option}={','.join(values)}")
    words += [f"--keyring={each}" for each in asked.keyrings]
    if asked.architecture is not None:
        words.append(f"--architectures={asked.architecture}")
    if quiet:
        words.append("--quiet")
    return [*words, "--", asked.suite, "-", *asked.mirrors]


def _image(
    shop: Shop, reference: str, config: dict[str, Any], write: Callable[[int], None]
) -> Image:
    """Make an image of what write puts into a descriptor, a tar archive."""
    paths = shop.paths
    try:
        layout.prepare(paths)
        flags = os.O_RDWR | os.O_TMPFILE | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(paths.tmp, flags, 0o600)
    except OSError as error:
        raise explained(paths, error) from error
    try:
        write(fd)
        os.lseek(fd, 0, os.SEEK_SET)
        with Writer(paths, idmap.default_maps(), shop.reporter, shop.progress) as writer:
            layer = writer.add_layer(fd)
            return writer.add_image(config, [layer], [reference])
    finally:
        os.close(fd)


def _config(what: str, created: str, command: Sequence[str]) -> dict[str, Any]:
    system, _, architecture = platforms.host().partition("/")
    architecture, _, variant = architecture.partition("/")
    config: dict[str, Any] = {
        "created": created,
        "architecture": architecture,
        "os": system,
        "config": {"Env": [_PATH], "Cmd": list(command)},
        "history": [{"created": created, "created_by": f"rp bootstrap {what}"}],
    }
    if variant:
        config["variant"] = variant
    return config


def _name(text: str) -> str:
    reference = parse_local(text)
    if reference.digest is not None:
        raise UsageError(f"a name that rp gives cannot hold a digest: {text}")
    return str(reference)


def _run(shop: Shop, command: Sequence[str], out_fd: int) -> None:
    """Run mmdebstrap; its archive goes to out_fd.  Raises as debian_image()."""
    maps = idmap.default_maps()
    item = locks.new_item(shop.paths)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    variables = {**shop.environment, "TMPDIR": item.path}

    def execute() -> NoReturn:
        # A group of its own: what interrupts rp reaches apt too, and each of them once.
        os.setpgid(0, 0)
        os.write(writer, b"%d" % os.getpid())
        for number in _DEFAULTS:
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o022)
        os.dup2(out_fd, 1)
        os.execve(command[0], list(command), variables)  # noqa: S606 - a program of the machine

    try:
        code = _attended(maps, execute, reader)
    finally:
        os.close(reader)
        os.close(writer)
        locks.remove_item(shop.paths, item, maps)
    if code != 0:
        how = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
        raise Error(f"mmdebstrap {how}", hint="its own words are above")


def _attended(maps: IdMaps, execute: Callable[[], NoReturn], pid_fd: int) -> int:
    """Wait for a program in the user's namespace, which cleans up when it is interrupted.

    It leads a process group, to which signals are passed on; pid_fd tells which.
    """
    caught: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        caught.append(number)
        if len(caught) == 1:
            with contextlib.suppress(BlockingIOError, ProcessLookupError):
                os.killpg(int(os.read(pid_fd, 16)), number)

    os.set_blocking(pid_fd, False)
    before = {
        number: signal.signal(number, pass_on)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        code = userns.execute_in_userns(maps, execute)
    except userns.HelperError as error:
        raise Unsupported(
            f"cannot map ids: {error.filename}: {error.strerror}", hint=userns.helper_hint(error)
        ) from error
    except OSError as error:
        raise Unsupported(
            f"cannot run mmdebstrap in a user namespace: {error.strerror}",
            hint="sysctl user.max_user_namespaces kernel.apparmor_restrict_unprivileged_userns",
        ) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signal.SIGINT in caught:
        raise KeyboardInterrupt
    if caught:
        raise CancelledError(caught[0])
    return code
