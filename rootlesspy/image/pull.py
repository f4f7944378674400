"""Making an image present: policy, sources, manifest, layers, and last of all its name.

`rp pull` and, when something is missing, `rp run` (there in a forked child).  An image enters
index.json only when all its blobs are verified and all its layers are unpacked and on disk.
"""

from __future__ import annotations

import hashlib
import os
import select
from typing import TYPE_CHECKING, NamedTuple

from rootlesspy.errors import Error, ImageError, NotFound, RegistryError
from rootlesspy.image import children, layer, layout, locks, platforms
from rootlesspy.image.events import Listener
from rootlesspy.image.reference import Reference, is_image_id, parse
from rootlesspy.image.store import Image, Store, find_entry
from rootlesspy.linux.sync import syncfs
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.image.layout import IndexEntry
    from rootlesspy.image.progress import Progress
    from rootlesspy.image.registry import Client, Document
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.oci.image_spec import Descriptor, ImageConfig, Manifest
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter
    from rootlesspy.settings import Settings, Source

_MIN_JOBS = 2
_MAX_JOBS = 6
_END_OF_CHILDREN_S = 5.0


class _Remote(NamedTuple):
    """What a registry has under a name: the manifest of one platform, and where it was found."""

    data: bytes
    digest: str
    manifest: Manifest
    config_data: bytes
    config: ImageConfig
    index_digest: str | None
    sources: tuple[Source, ...]


def ensure(
    reference_text: str,
    *,
    paths: Paths,
    settings: Settings,
    maps: IdMaps,
    policy: str,
    platform: str | None,
    progress: Progress,
    reporter: Reporter,
) -> Image:
    """Return an image whose layers are all unpacked for maps, pulling it as policy says.

    policy is always, missing, newer or never; platform is os/architecture[/variant], None for this
    machine's.  Raises NotFound, RegistryError, ImageError, UsageError, Unsupported, Error.
    """
    held = None
    # Parents that are made on the way must be as private as the rest (SECURITY.md I8).
    old_umask = os.umask(0o077)
    try:
        layout.prepare(paths)
        held = layout.hold(paths, exclusive=False)
        locks.sweep(paths, maps)
        work = _Pull(paths, settings, maps, progress, reporter)
        image = work.ensure(reference_text, policy, platform)
        # What a killed pull left may have been held by its dying processes before.
        locks.sweep(paths, maps)
    except OSError as error:
        raise _explained(paths, error) from error
    else:
        return image
    finally:
        os.umask(old_umask)
        if held is not None:
            os.close(held)


class _Pull:
    """One call of ensure()."""

    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        maps: IdMaps,
        progress: Progress,
        reporter: Reporter,
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._maps = maps
        self._progress = progress
        self._reporter = reporter
        self._store = Store(paths)

    def ensure(self, text: str, policy: str, platform: str | None) -> Image:
        """See ensure()."""
        present = self._find(text, platform)
        if present is not None and (policy in ("missing", "never") or not self._is_name(text)):
            return self._complete(present)
        if policy == "never" or is_image_id(text):
            raise NotFound(
                f"no image {text} here, and --pull=never"
                if policy == "never"
                else f"no image with id {text} here",
                hint=f"rp pull {text}" if policy == "never" else "rp images",
            )
        reference = parse(self._settings.resolve_alias(text))
        from rootlesspy.image.registry import Client

        client = Client(self._reporter, config_directory=self._paths.config)
        try:
            return self._pull(client, reference, parse(text), platform)
        except (NotFound, RegistryError):
            if policy == "newer" and present is not None:
                return self._complete(present)
            raise
        finally:
            client.forget_connections()

    def _pull(
        self, client: Client, reference: Reference, typed: Reference, platform: str | None
    ) -> Image:
        remote = self._look_up(client, reference, platform)
        jobs = _jobs(remote.manifest, remote.config, self._vouched())
        self._make_layers(jobs, client, remote.sources)
        self._store_document(remote.manifest.config.digest, remote.config_data)
        self._store_document(remote.digest, remote.data)
        # One wait for everything that the index is about to promise, renames included.
        held = os.open(self._paths.images, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(held)
        finally:
            os.close(held)
        self._list(reference, typed, remote)
        return self._store.resolve(str(reference))

    def _find(self, text: str, platform: str | None) -> Image | None:
        """Return the image that is here under this name, alias or id, if it fits the platform."""
        for name in dict.fromkeys((text, self._settings.resolve_alias(text))):
            try:
                image = self._store.resolve(name)
            except NotFound:
                continue
            if platform is None or platforms.fits(image.platform, platform):
                return image
        return None

    def _is_name(self, text: str) -> bool:
        """Say whether text names an image, rather than being an id of one that is here."""
        if is_image_id(text):
            return False
        entries = layout.read_index(self._paths)
        names = (parse(text), parse(self._settings.resolve_alias(text)))
        return any(find_entry(entries, name) is not None for name in names)

    def _complete(self, image: Image) -> Image:
        """Unpack what is missing of a listed image, from its blobs where they are there."""
        if self._store.layers(image, self._maps) is not None:
            return image
        manifest = image_spec.parse_manifest(layout.read_blob(self._paths, image.digest))
        sources: tuple[Source, ...] = ()
        client = None
        if image.names and not all(
            os.path.exists(layout.blob_path(self._paths, each.digest)) for each in manifest.layers
        ):
            from rootlesspy.image.registry import Client

            client = Client(self._reporter, config_directory=self._paths.config)
            sources = self._settings.sources(parse(image.names[0]).name, by_digest=True)
        self._make_layers(_jobs(manifest, image.config, self._vouched()), client, sources)
        return image

    # --- the registry ------------------------------------------------------------------------

    def _look_up(self, client: Client, reference: Reference, platform: str | None) -> _Remote:
        """Find the manifest of one platform and its configuration.  Raises NotFound, …"""
        wanted = reference.digest or reference.tag or ""
        sources = self._settings.sources(reference.name, by_digest=reference.digest is not None)
        document, sources = self._first_manifest(client, sources, wanted, reference)
        index_digest = None
        try:
            if document.media_type in image_spec.INDEX_TYPES:
                entry = platforms.choose(
                    image_spec.parse_index(document.data, document.media_type), platform, reference
                )
                index_digest = document.digest
                document, sources = self._first_manifest(client, sources, entry.digest, reference)
                if (document.media_type, len(document.data)) != (entry.media_type, entry.size):
                    raise ImageError(f"{reference}: its index describes another manifest")
            manifest = image_spec.parse_manifest(document.data, document.media_type)
            config_data = self._config_data(client, sources, manifest.config)
            config = image_spec.parse_config(config_data)
        except image_spec.MalformedError as error:
            raise ImageError(f"image {reference} from {sources[0].registry}: {error}") from error
        if len(config["rootfs"]["diff_ids"]) != len(manifest.layers):
            raise ImageError(f"image {reference}: layers and diff IDs differ in number")
        platforms.check(image_spec.platform_of(config), platform, reference, self._reporter)
        return _Remote(
            document.data, document.digest, manifest, config_data, config, index_digest, sources
        )

    def _first_manifest(
        self, client: Client, sources: tuple[Source, ...], wanted: str, reference: Reference
    ) -> tuple[Document, tuple[Source, ...]]:
        """Ask one source after the other; return the answer and the sources from there on."""
        failures: list[Error] = []
        for number, source in enumerate(sources):
            try:
                self._reporter.step(f"looking for {reference} in {source.registry}")
                return client.manifest(source, wanted), sources[number:]
            except (NotFound, RegistryError) as error:
                failures.append(error)
        if all(isinstance(error, NotFound) for error in failures):
            places = ", ".join(source.registry for source in sources)
            raise NotFound(
                f"no image {reference.familiar()} in {places}",
                hint="check the name and the tag",
            )
        others = "".join(f"; {error.message}" for error in failures[:-1])
        last = failures[-1]
        raise RegistryError(f"image {reference.familiar()}: {last.message}{others}", hint=last.hint)

    def _config_data(
        self, client: Client, sources: tuple[Source, ...], descriptor: Descriptor
    ) -> bytes:
        """Return the configuration document, verified.  Raises ImageError, RegistryError."""
        if descriptor.size > image_spec.MAX_DOCUMENT_BYTES:
            raise ImageError(f"image configuration is {descriptor.size} bytes long")
        data = self._document_here(descriptor.digest)
        if data is not None:
            return data
        failure: Error | None = None
        for source in sources:
            try:
                data = client.small_blob(source, descriptor.digest, descriptor.size)
            except (NotFound, RegistryError) as error:
                failure = failure or error
                continue
            if _has_digest(data, descriptor.digest):
                return data
            failure = ImageError(f"image configuration from {source.registry}: digest mismatch")
        raise failure or ImageError("image configuration has no source")

    # --- the store ---------------------------------------------------------------------------

    def _vouched(self) -> frozenset[tuple[str, str]]:
        """Return the (blob, diff ID) pairs of listed images: those were verified."""
        pairs: set[tuple[str, str]] = set()
        for image in self._store.images():
            manifest = image_spec.parse_manifest(layout.read_blob(self._paths, image.digest))
            digests = [each.digest for each in manifest.layers]
            pairs.update(zip(digests, image.diff_ids, strict=False))
        return frozenset(pairs)

    def _make_layers(
        self, jobs: Sequence[layer.Job], client: Client | None, sources: tuple[Source, ...]
    ) -> None:
        """Run the jobs, some at a time, each in a process of its own."""
        layout.claim_default_maps(self._paths, self._maps)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        listener = Listener(reader, self._progress, self._reporter)
        shop = layer.Shop(self._paths, self._maps, client, sources, writer)
        pending = list(jobs)
        running: dict[int, children.Child] = {}
        limit = min(max(len(os.sched_getaffinity(0)), _MIN_JOBS), _MAX_JOBS)
        try:
            while pending or running:
                while pending and len(running) < limit:
                    child = _start(pending.pop(0), shop)
                    running[child.result_fd] = child
                ready = select.select([reader, *running], [], [])[0]
                if reader in ready:
                    listener.receive()
                for fd in ready:
                    if fd in running:
                        children.wait(running.pop(fd))
            os.close(writer)
            while listener.receive():
                pass
        except BaseException:
            os.close(writer)
            self._abandon(running, reader)
            raise
        finally:
            os.close(reader)

    def _abandon(self, running: dict[int, children.Child], reader: int) -> None:
        """End what still runs, wait until it is gone, and remove what it leaves."""
        for child in running.values():
            children.kill(child)
        # Every descendant holds the other end of this pipe; they die with the jobs.
        while select.select([reader], [], [], _END_OF_CHILDREN_S)[0] and os.read(reader, 65536):
            pass
        locks.sweep(self._paths, self._maps)

    def _document_here(self, digest: str) -> bytes | None:
        """Return a document of the store if it is whole: a crash may have left an empty file."""
        try:
            data = layout.read_blob(self._paths, digest)
        except ImageError:
            return None
        return data if _has_digest(data, digest) else None

    def _store_document(self, digest: str, data: bytes) -> None:
        """Put a verified manifest or configuration among the blobs."""
        if self._document_here(digest) is not None:
            return
        path = layout.blob_path(self._paths, digest)
        item = locks.new_item(self._paths)
        try:
            layout.write_file(f"{item.path}/blob", data, durable=False)
            layout.install(f"{item.path}/blob", path)
        finally:
            locks.remove_item(self._paths, item, self._maps)

    def _list(self, reference: Reference, typed: Reference, remote: _Remote) -> None:
        """Give the image its name in index.json, taking it from the one that had it."""
        suffix = layout.maps_suffix(self._paths, self._maps)
        diff_ids = dict.fromkeys(remote.config["rootfs"]["diff_ids"])
        size = sum(layout.layer_size(self._paths, diff_id, suffix) for diff_id in diff_ids)
        annotations = {image_spec.REF_NAME: str(reference), layout.SIZE: str(size)}
        if remote.index_digest is not None:
            annotations[layout.INDEX_DIGEST] = remote.index_digest
        if typed != reference:
            annotations[layout.ALIAS] = str(typed)
        entry: IndexEntry = {
            "mediaType": remote.manifest.media_type,
            "digest": remote.digest,
            "size": len(remote.data),
            "annotations": annotations,
        }
        layout.update_index(self._paths, lambda entries: layout.with_entry(entries, entry))


def _has_digest(data: bytes, digest: str) -> bool:
    algorithm = digest.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}" == digest


def _start(job: layer.Job, shop: layer.Shop) -> children.Child:
    return children.fork(lambda: layer.make(job, shop))


def _jobs(
    manifest: Manifest, config: ImageConfig, vouched: frozenset[tuple[str, str]]
) -> list[layer.Job]:
    """Pair the layers with their diff IDs, each pair once."""
    pairs = dict.fromkeys(zip(manifest.layers, config["rootfs"]["diff_ids"], strict=True))
    return [
        layer.Job(descriptor, diff_id, (descriptor.digest, diff_id) in vouched)
        for descriptor, diff_id in pairs
    ]


def _explained(paths: Paths, error: OSError) -> Error:
    """Turn what the kernel refused into words with a cure."""
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return layout.no_space(paths, 0)
    if error.errno == errno.EROFS:
        return Error(f"{paths.data} is on a read-only file system", hint="set XDG_DATA_HOME")
    where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return Error(f"image store: {where}{error.strerror}", hint=f"ls -la {paths.data}")
