"""Finding an image in registries: its sources in turn, its manifest for a platform, its config."""

from __future__ import annotations

from rootlesspy.errors import Error, ImageError, NotFound, RegistryError
from rootlesspy.image import platforms
from rootlesspy.image.documents import has_digest
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, Protocol
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.image.documents import Document
    from rootlesspy.image.reference import Reference
    from rootlesspy.oci.image_spec import Descriptor, ImageConfig, Manifest
    from rootlesspy.report import Reporter
    from rootlesspy.settings import Settings, Source


class Remote(NamedTuple):
    """What a registry has under a name: the manifest of one platform, and where it was found."""

    data: bytes
    digest: str
    manifest: Manifest
    config_data: bytes
    config: ImageConfig
    index_digest: str | None
    sources: tuple[Source, ...]


class Documents(Protocol):
    """Who asks registries for documents: registry.Client or agent.Agent."""

    def manifest(self, source: Source, reference: str) -> Document: ...

    def small_blob(self, source: Source, digest: str, size: int) -> bytes: ...


class Finder:
    """Looks images up; here(digest) returns a document that need not be fetched."""

    def __init__(
        self,
        client: Documents,
        settings: Settings,
        reporter: Reporter,
        here: Callable[[str], bytes | None] = lambda digest: None,
        *,
        insecure: bool | None = None,
    ) -> None:
        """insecure overrules what registries.conf says of TLS."""
        self._client = client
        self._settings = settings
        self._reporter = reporter
        self._here = here
        self._insecure = insecure

    def look_up(self, reference: Reference, platform: str | None) -> Remote:
        """Find the manifest of one platform and its configuration.  Raises NotFound, …"""
        document, sources = self.top(reference)
        index_digest = None
        try:
            if document.media_type in image_spec.INDEX_TYPES:
                entry = platforms.choose(
                    image_spec.parse_index(document.data, document.media_type), platform, reference
                )
                index_digest = document.digest
                document, sources = self.first_document(sources, entry.digest, reference)
                if (document.media_type, len(document.data)) != (entry.media_type, entry.size):
                    raise ImageError(f"{reference}: its index describes another manifest")
            manifest = image_spec.parse_manifest(document.data, document.media_type)
            config_data = self.config_data(sources, manifest.config)
            config = image_spec.parse_config(config_data)
        except image_spec.MalformedError as error:
            raise ImageError(f"image {reference} from {sources[0].registry}: {error}") from error
        if len(config["rootfs"]["diff_ids"]) != len(manifest.layers):
            raise ImageError(f"image {reference}: layers and diff IDs differ in number")
        platforms.check(image_spec.platform_of(config), platform, reference, self._reporter)
        return Remote(
            document.data, document.digest, manifest, config_data, config, index_digest, sources
        )

    def top(self, reference: Reference) -> tuple[Document, tuple[Source, ...]]:
        """Return what a name leads to, image or index, and the sources from that one on.

        Raises NotFound, RegistryError.
        """
        wanted = reference.digest or reference.tag or ""
        sources = self._settings.sources(reference.name, by_digest=reference.digest is not None)
        if self._insecure is not None:
            sources = tuple(each._replace(insecure=self._insecure) for each in sources)
        return self.first_document(sources, wanted, reference)

    def first_document(
        self, sources: tuple[Source, ...], wanted: str, reference: Reference
    ) -> tuple[Document, tuple[Source, ...]]:
        """Ask one source after the other; return the answer and the sources from there on."""
        failures: list[Error] = []
        for number, source in enumerate(sources):
            try:
                self._reporter.step(f"looking for {reference} in {source.registry}")
                return self._client.manifest(source, wanted), sources[number:]
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

    def config_data(self, sources: tuple[Source, ...], descriptor: Descriptor) -> bytes:
        """Return the configuration document, verified.  Raises ImageError, RegistryError."""
        if descriptor.size > image_spec.MAX_DOCUMENT_BYTES:
            raise ImageError(f"image configuration is {descriptor.size} bytes long")
        data = self._here(descriptor.digest)
        if data is not None:
            return data
        failure: Error | None = None
        for source in sources:
            try:
                data = self._client.small_blob(source, descriptor.digest, descriptor.size)
            except (NotFound, RegistryError) as error:
                failure = failure or error
                continue
            if has_digest(data, descriptor.digest):
                return data
            failure = ImageError(f"image configuration from {source.registry}: digest mismatch")
        raise failure or ImageError("image configuration has no source")
