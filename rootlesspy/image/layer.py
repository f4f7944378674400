"""One layer, from its registry to its place in the store, as a stream through processes.

    fetch: registry ──▶ size, digest ──▶ blob file
                    └─▶ pipe ──▶ decompress ──▶ pipe ──▶ unpack (in the user namespace)
                                            └─▶ pipe ──▶ diff ID

A layer that is not compressed (its diff ID is its digest) goes from the first to the last at once.
Everything is made in a locked directory below tmp/.  Only when digest, size and diff ID are right,
and what was written is on disk, are blob and layer renamed to where others see them.  A killed
pull leaves nothing but garbage in tmp/, which the next one removes.
"""

from __future__ import annotations

import errno
import os

from rootlesspy.errors import Error, ImageError, Unsupported
from rootlesspy.image import children, layout, locks
from rootlesspy.image.agent import Agent
from rootlesspy.image.decompress import Reader
from rootlesspy.image.events import Events
from rootlesspy.image.hashing import Hasher
from rootlesspy.image.transfer import File, Transfer, pipe, write_all
from rootlesspy.image.unpack import unpack
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, cast
from rootlesspy.linux import userns
from rootlesspy.linux.sync import syncfs

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.image.transfer import Origin
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.oci.image_spec import Descriptor
    from rootlesspy.paths import Paths
    from rootlesspy.settings import Source

_CHUNK = 1 << 18
_REFETCHES = 1


class Job(NamedTuple):
    """A layer to bring in; vouched: a listed image has this blob for this diff ID already."""

    descriptor: Descriptor
    diff_id: str
    vouched: bool
    plain_fd: int = -1
    """An open file that holds it as plain tar, whose digest was taken as it was written."""

    @property
    def is_plain(self) -> bool:
        """Say whether the layer is promised to come uncompressed."""
        return self.descriptor.digest == self.diff_id

    @property
    def id(self) -> str:
        """The short digest that progress shows."""
        return self.descriptor.digest.partition(":")[2][:12]


class Shop(NamedTuple):
    """What all jobs of one pull share; origin is None when nothing may be fetched."""

    paths: Paths
    maps: IdMaps
    origin: Origin | Agent | None
    sources: tuple[Source, ...]
    events_fd: int
    is_for_one: bool
    """No other layer is made at the same time."""


class _Mismatch(Exception):
    """The registry sent other bytes than the digest promises."""


def make(job: Job, shop: Shop) -> None:
    """Bring a layer in; runs in a process of its own.

    Raises ImageError, RegistryError, NotFound, Unsupported, Error for a full disk, OSError.
    """
    events = Events(shop.events_fd, job.id)
    events.start(job.id, job.descriptor.size)
    try:
        lock = locks.lock_blob(
            shop.paths,
            job.descriptor.digest,
            lambda pid: events.notice(f"layer {job.id}: waiting for process {pid}"),
        )
        try:
            _make_locked(job, shop, events)
        finally:
            lock.release()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise layout.no_space(shop.paths, job.descriptor.size) from error
        raise
    events.finish()


def _make_locked(job: Job, shop: Shop, events: Events) -> None:
    paths = shop.paths
    blob = layout.blob_path(paths, job.descriptor.digest)
    target = layout.layer_directory(paths, job.diff_id, layout.maps_suffix(paths, shop.maps))
    has_blob, has_layer = os.path.exists(blob), os.path.exists(target)
    if has_blob and has_layer and (job.vouched or job.plain_fd >= 0):
        return
    for attempt in range(_REFETCHES + 1):
        item = locks.new_item(paths)
        try:
            _Pipeline(job, shop, events, item, has_layer=has_layer).run(blob if has_blob else None)
            if not (has_blob and has_layer):
                events.phase("writing")
                syncfs(item.fd)
            if not has_blob:
                layout.install(f"{item.path}/blob", blob)
            if not has_layer:
                layout.install(f"{item.path}/layer", target)
        except _Mismatch as mismatch:
            if attempt == _REFETCHES:
                raise ImageError(f"layer {job.id}: {mismatch}") from None
            events.start(job.id, job.descriptor.size)
        else:
            return
        finally:
            locks.remove_item(paths, item, shop.maps)


class _Pipeline:
    """The processes of one attempt."""

    def __init__(
        self, job: Job, shop: Shop, events: Events, item: locks.Item, *, has_layer: bool
    ) -> None:
        self._job = job
        self._shop = shop
        self._events = events
        self._item = item
        self._unpacks = not has_layer

    def run(self, blob: str | None) -> None:
        """Run the layer through; blob is the file that holds it already, or None to fetch it.

        Raises what its processes raise, _Mismatch.
        """
        fetching: children.Child | None = None
        workers: list[children.Child] = []
        try:
            if blob is None:
                self._events.phase("downloading")
                compressed_fd, writer = pipe()
                fetching = self._start_fetching(writer, compressed_fd)
                workers.append(fetching)
            else:
                self._events.phase("unpacking" if self._unpacks else "verifying")
                compressed_fd = self._open(blob)
            if self._unpacks and (self._job.plain_fd >= 0 or (blob is None and self._job.is_plain)):
                # What was hashed, or is by the first process, is what the diff ID is of, too.
                self._plain_fd = compressed_fd
            else:
                workers.append(self._start_decompressing(compressed_fd))
            unpacked = self._unpack() if self._unpacks else {}
            outcomes = [_outcome(workers.pop(0)) for _ in tuple(workers)]
        except BaseException:
            for worker in workers:
                children.kill(worker)
            raise
        diff_id = outcomes[-1] if outcomes else self._job.diff_id
        self._check(None if fetching is None else outcomes[0], diff_id, unpacked)
        if self._unpacks:
            self._describe(cast("dict[str, object]", unpacked))

    def _open(self, blob: str) -> int:
        """Return the blob open from its beginning: the file that was hashed, if that is at hand."""
        if self._job.plain_fd < 0:
            return os.open(blob, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        fd = os.dup(self._job.plain_fd)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def _fork(
        self, function: Callable[[int], object], fd: int, *, unused_fd: int
    ) -> children.Child:
        """Run function(fd) in a child that does not hold unused_fd; fd is closed here."""

        def body() -> object:
            os.close(unused_fd)
            return function(fd)

        child = children.fork(body)
        os.close(fd)
        return child

    def _start_decompressing(self, compressed_fd: int) -> children.Child:
        if not self._unpacks:
            child = children.fork(lambda: self._decompress(compressed_fd, None))
        else:
            self._plain_fd, writer = pipe()
            child = self._fork(
                lambda fd: self._decompress(compressed_fd, fd), writer, unused_fd=self._plain_fd
            )
        os.close(compressed_fd)
        return child

    def _start_fetching(self, out_fd: int, unused_fd: int) -> children.Child:
        """Start the first process, which returns the digest of what came; out_fd is closed here."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        blob_fd = os.open("blob", flags, 0o600, dir_fd=self._item.fd)
        wanted, origin, sources = self._job.descriptor, self._shop.origin, self._shop.sources
        try:
            if not isinstance(origin, Agent):
                return self._fork(
                    lambda fd: self._fetch(origin, blob_fd, fd), out_fd, unused_fd=unused_fd
                )
            child = origin.transfer(
                wanted,
                sources,
                self._job.id,
                alone=self._shop.is_for_one,
                blob_fd=blob_fd,
                out_fd=out_fd,
                events_fd=self._shop.events_fd,
            )
            os.close(out_fd)
            return child
        finally:
            os.close(blob_fd)

    def _fetch(self, origin: Origin | None, blob_fd: int, out_fd: int) -> str:
        """Be the first process, where there is no agent; see Transfer.run()."""
        if origin is not None:
            origin.forget_connections()
        wanted, sources = self._job.descriptor, self._shop.sources
        return Transfer(wanted, origin, sources, self._events, blob_fd, out_fd).run()

    def _decompress(self, compressed_fd: int, out_fd: int | None) -> object:
        """Run the second process: returns the diff ID of what came."""
        held = (compressed_fd,) if out_fd is None else (compressed_fd, out_fd)
        hasher = Hasher(
            self._job.diff_id.partition(":")[0],
            held_fds=held,
            # Compressed; layers are about twice that.
            expected_bytes=2 * self._job.descriptor.size,
        )
        reader = Reader(File(compressed_fd))
        while data := reader.read(_CHUNK):
            hasher.update(data)
            if out_fd is not None:
                write_all(out_fd, data)
        return hasher.result()

    def _unpack(self) -> object:
        """Run the third process; return its value or its error, which another's may have caused."""
        os.mkdir("layer", 0o700, dir_fd=self._item.fd)
        fd = self._plain_fd
        try:
            answer = userns.call_in_userns(
                self._shop.maps,
                lambda: children.answer(
                    lambda: _unpack_below(self._item.fd, fd, self._shop.maps.is_single())
                ),
            )
        except userns.HelperError as error:
            raise Unsupported(
                f"cannot map ids: {error.filename}: {error.strerror}",
                hint=userns.helper_hint(error),
            ) from error
        except OSError as error:
            # ENOSPC here means user.max_user_namespaces, not the disk.
            raise Unsupported(
                f"cannot unpack in a user namespace: {error.strerror}",
                hint="sysctl user.max_user_namespaces kernel.apparmor_restrict_unprivileged_userns",
            ) from error
        finally:
            os.close(fd)
        try:
            return children.value_of(answer)
        except (Error, OSError) as error:
            return error

    def _check(self, digest: object, diff_id: object, unpacked: object) -> None:
        """Compare what came with what was promised; the first cause in the pipeline counts.

        Raises _Mismatch, ImageError, what the processes raised.
        """
        job = self._job
        if isinstance(digest, BaseException):
            raise digest
        if digest not in (None, job.descriptor.digest):
            raise _Mismatch(f"digest mismatch: got {digest} instead of {job.descriptor.digest}")
        for outcome in (diff_id, unpacked):
            if isinstance(outcome, BaseException) and not isinstance(outcome, children.PipeClosed):
                raise outcome
        if diff_id != job.diff_id:
            raise ImageError(
                f"layer {job.id}: diff ID mismatch: its content is {diff_id}, "
                f"the image says {job.diff_id}"
            )

    def _describe(self, unpacked: dict[str, object]) -> None:
        """Write beside the tree what is known of it, and mark one that hides all below it."""
        description = {
            "version": 1,
            "diff_id": self._job.diff_id,
            "maps": layout.maps_text(self._shop.maps),
            "single_id": self._shop.maps.is_single(),
            **unpacked,
        }
        layout.write_file(
            f"{self._item.path}/layer/layer.json", json.dumps(description).encode(), durable=False
        )
        if unpacked["opaque_root"]:
            os.rename(f"{self._item.path}/layer/diff", f"{self._item.path}/layer/opaque")


def _unpack_below(item_fd: int, fd: int, single_id: bool) -> dict[str, object]:
    """Unpack into layer/diff; runs as root of the user namespace."""
    layer_fd = os.open("layer", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=item_fd)
    os.mkdir("diff", 0o755, dir_fd=layer_fd)
    root_fd = os.open("diff", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=layer_fd)
    os.fchmod(root_fd, 0o755)
    return unpack(fd, root_fd, single_id=single_id)._asdict()


def _outcome(worker: children.Child) -> object:
    """Wait for a worker and return its value or its error."""
    try:
        return children.wait(worker)
    except (Error, OSError) as error:
        return error
