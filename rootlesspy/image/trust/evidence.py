"""Where signatures are found: beside a registry, in it, or in the directory of an image.

    simple signing   $LOOKASIDE/REPOSITORY@sha256=HEX/signature-1, -2, …; see registries_d.py
                     or the registry's own /extensions/v2/REPOSITORY/signatures/DIGEST
    sigstore         the tag sha256-HEX.sig of the same repository (cosign)
    dir:             signature-1, -2, …

Nothing is judged here; everything has a limit, and whatever cannot be fetched is an error: a policy
is never fulfilled by a server that does not answer.
"""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

from rootlesspy.errors import ImageError, NotFound, RegistryError
from rootlesspy.image.body import finish, read_all
from rootlesspy.image.documents import has_digest
from rootlesspy.image.files import read_document
from rootlesspy.image.reference import Reference
from rootlesspy.image.registry import failure
from rootlesspy.image.trust import sigstore
from rootlesspy.image.trust.payload import Refused
from rootlesspy.image.trust.sigstore import Attachment
from rootlesspy.light_typing import TYPE_CHECKING, Protocol, cast
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rootlesspy.image.files import Files
    from rootlesspy.image.registry import Client
    from rootlesspy.image.transport import Transport
    from rootlesspy.image.trust.registries_d import Places
    from rootlesspy.settings import Source

_MAX_SIGNATURES = 128
_MAX_SIGNATURE_BYTES = 4 << 20
_EXTENSION = "X-Registry-Supports-Signatures"


class Evidence(Protocol):
    """The signatures that come with an image."""

    def simple(self) -> list[bytes]:
        """Return the signatures of simple signing.  Raises RegistryError, ImageError, …"""

    def attachments(self) -> list[Attachment]:
        """Return the signatures of sigstore.  Raises RegistryError, ImageError, …"""


class NoEvidence:
    """Of places that cannot hold signatures: layouts and archives."""

    def simple(self) -> list[bytes]:
        """See Evidence."""
        return []

    def attachments(self) -> list[Attachment]:
        """See Evidence."""
        return []


class DirectoryEvidence(NoEvidence):
    """What stands in the directory of a dir: image."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def simple(self) -> list[bytes]:
        """See Evidence."""
        found = []
        for number in range(1, _MAX_SIGNATURES + 1):
            data = read_document(self._files, f"signature-{number}")
            if data is None:
                break
            # Signatures of sigstore lie there too, marked by their first line.
            if data[:1] != b"\0":
                found.append(data)
        return found


class RegistryEvidence:
    """What there is for one manifest of a registry's repository."""

    def __init__(
        self,
        client: Client,
        source: Source,
        digest: str,
        places: Places,
        make_transport: Callable[[], Transport],
    ) -> None:
        """make_transport returns a connection without credentials, for lookaside servers."""
        self._client = client
        self._source = source
        self._digest = digest
        self._places = places
        self._make_transport = make_transport
        # Where the content really is asked for, a mirror perhaps: that is whose signatures count.
        self._reference = Reference(source.registry, source.repository, None, digest)

    def simple(self) -> list[bytes]:
        """See Evidence."""
        found = self._of_extension()
        return self._of_lookaside() if found is None else found

    def attachments(self) -> list[Attachment]:
        """See Evidence."""
        if not self._places.uses_attachments(self._reference):
            return []
        tag = f"{self._digest.replace(':', '-')}.sig"
        try:
            document = self._client.manifest(self._source, tag)
        except NotFound:
            return []
        try:
            return list(self._attached(image_spec.parse_document(document.data, tag)))
        except image_spec.MalformedError as error:
            raise ImageError(f"signatures {self._source.repository}:{tag}: {error}") from error

    def _attached(self, manifest: dict[str, object]) -> Iterator[Attachment]:
        layers = manifest.get("layers")
        if not isinstance(layers, list) or len(layers) > _MAX_SIGNATURES:
            raise image_spec.MalformedError("it has no layers, or too many")
        for each in layers:
            if not isinstance(each, dict):
                raise image_spec.MalformedError("a layer is not a table")
            if each.get("mediaType") != sigstore.PAYLOAD_TYPE:
                continue
            digest = image_spec.check_digest(each.get("digest"), "a layer")
            size, annotations = each.get("size"), each.get("annotations", {})
            if type(size) is not int or not 0 < size <= _MAX_SIGNATURE_BYTES:
                raise image_spec.MalformedError(f"layer {digest} has the size {size!r}")
            if not isinstance(annotations, dict) or not all(
                isinstance(text, str) for text in annotations.values()
            ):
                raise image_spec.MalformedError(f"annotations of layer {digest} are malformed")
            data = self._client.small_blob(self._source, digest, size)
            if not has_digest(data, digest):
                raise image_spec.MalformedError(f"layer {digest} is another one")
            yield Attachment(data, cast("dict[str, str]", annotations))

    # --- simple signing ----------------------------------------------------------------------

    def _of_extension(self) -> list[bytes] | None:
        """Return what the registry itself keeps; None where it does not."""
        try:
            response = self._client.ask(self._source._replace(repository=""), "", {})
        except RegistryError:
            # Some let nobody in there without a password, and no registry of today has it.
            return None
        supported = response.headers.get(_EXTENSION) == "1"
        finish(response)
        if not supported:
            return None
        path = f"/extensions/v2/{self._source.repository}/signatures/{self._digest}"
        url = self._client.location_of(self._source, "", path)
        response = self._client.ask(self._source, url, {})
        try:
            if response.status != 200:
                raise failure(self._source, response, path)
            data = read_all(response, image_spec.MAX_DOCUMENT_BYTES, self._source.registry)
            return _entries(data)
        except (image_spec.MalformedError, Refused) as error:
            raise ImageError(f"signatures from {self._source.registry}: {error}") from error
        finally:
            finish(response)

    def _of_lookaside(self) -> list[bytes]:
        base = self._places.lookaside(self._reference)
        below = lookaside_path(self._source.repository, self._digest)
        transport = None
        found: list[bytes] = []
        try:
            for number in range(1, _MAX_SIGNATURES + 1):
                url = f"{base}/{below}/signature-{number}"
                if base.startswith("file://"):
                    data = _file(file_path(url))
                else:
                    transport = transport or self._make_transport()
                    data = _fetched(transport, url)
                if data is None:
                    break
                found.append(data)
        finally:
            if transport is not None:
                transport.forget_connections()
        return found


def lookaside_path(repository: str, digest: str) -> str:
    """Return where below a lookaside the signatures of a manifest lie."""
    return f"{repository}@{digest.replace(':', '=')}"


def file_path(url: str) -> str:
    """Return the path of a file URL."""
    return unquote(urlsplit(url).path)


def _entries(data: bytes) -> list[bytes]:
    """Return the signatures in an answer of the extension.  Raises MalformedError, Refused."""
    entries = image_spec.parse_document(data, "the answer").get("signatures")
    if not isinstance(entries, list) or len(entries) > _MAX_SIGNATURES:
        raise image_spec.MalformedError("there are none, or too many")
    return [
        sigstore.decode(each.get("content"), "the content")
        for each in entries
        if isinstance(each, dict) and (each.get("schemaVersion"), each.get("type")) == (2, "atomic")
    ]


def _file(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            data = file.read(_MAX_SIGNATURE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ImageError(f"cannot read signature {path}: {error.strerror}") from error
    return _limited(data, path)


def _fetched(transport: Transport, url: str) -> bytes | None:
    try:
        body = transport.fetch(url)
    except NotFound:
        return None
    try:
        data = b""
        while len(data) <= _MAX_SIGNATURE_BYTES and (piece := body.read(1 << 16)):
            data += piece
    finally:
        body.close()
    length = body.length()
    if length not in (None, len(data)):
        raise RegistryError(f"signature {url}: it broke off")
    return _limited(data, url)


def _limited(data: bytes, where: str) -> bytes:
    if len(data) > _MAX_SIGNATURE_BYTES:
        raise ImageError(f"signature {where} is longer than {_MAX_SIGNATURE_BYTES} bytes")
    return data
