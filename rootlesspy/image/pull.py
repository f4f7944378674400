"""Making an image present: policy, sources, manifest, layers, and last of all its name.

`rp pull` and, when something is missing, `rp run` (there in a forked child).  An image enters
index.json only when all its blobs are verified and all its layers are unpacked and on disk.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from rootlesspy.errors import Error, ImageError, NotFound, RegistryError
from rootlesspy.image import layout, platforms
from rootlesspy.image.documents import Described, has_digest
from rootlesspy.image.reference import Reference, is_image_id, parse
from rootlesspy.image.store import Image, Store, find_typed
from rootlesspy.image.writer import Writer, jobs_for
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from rootlesspy.image.progress import Progress
    from rootlesspy.image.registry import Client, Document
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.oci.image_spec import Descriptor, ImageConfig, Manifest
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter
    from rootlesspy.settings import Settings, Source


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
    with Writer(paths, maps, reporter, progress) as writer:
        work = _Pull(paths, settings, maps, writer, reporter)
        return work.ensure(reference_text, policy, platform)


class _Pull:
    """One call of ensure()."""

    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        maps: IdMaps,
        writer: Writer,
        reporter: Reporter,
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._maps = maps
        self._writer = writer
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
        diff_ids = remote.config["rootfs"]["diff_ids"]
        jobs = jobs_for(remote.manifest.layers, diff_ids, self._writer.vouched())
        self._writer.make_layers(jobs, client, remote.sources)
        described = Described(
            remote.data, remote.digest, remote.manifest.media_type, remote.config_data
        )
        return self._writer.commit(
            described,
            [str(reference)],
            index_digest=remote.index_digest,
            alias=str(typed) if typed != reference else None,
        )

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
        names = (text, self._settings.resolve_alias(text))
        return any(find_typed(entries, name) is not None for name in names)

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
        jobs = jobs_for(manifest.layers, image.diff_ids, self._writer.vouched())
        self._writer.make_layers(jobs, client, sources)
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
        data = self._writer.document_here(descriptor.digest)
        if data is not None:
            return data
        failure: Error | None = None
        for source in sources:
            try:
                data = client.small_blob(source, descriptor.digest, descriptor.size)
            except (NotFound, RegistryError) as error:
                failure = failure or error
                continue
            if has_digest(data, descriptor.digest):
                return data
            failure = ImageError(f"image configuration from {source.registry}: digest mismatch")
        raise failure or ImageError("image configuration has no source")
