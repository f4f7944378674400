"""The gate in front of the store: an image passes when the policy's requirements are fulfilled.

Asked before a layer is fetched and before anything has a name: by `rp pull`, the pull of `rp run`,
`rp load` and `rp copy`.  What is judged is the manifest of the image itself, also where an index
led to it, as other container tools do.
"""

from __future__ import annotations

import os

from rootlesspy.errors import ImageError, UsageError
from rootlesspy.image.files import read_document
from rootlesspy.image.trust import identity, policy
from rootlesspy.image.trust.payload import Refused, Subject
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.image.files import Files
    from rootlesspy.image.reference import Reference
    from rootlesspy.image.registry import Client
    from rootlesspy.image.transport import Transport
    from rootlesspy.image.trust.evidence import Evidence
    from rootlesspy.image.trust.policy import Keys, Policy, Requirement
    from rootlesspy.image.trust.sigstore import Key
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter
    from rootlesspy.settings import Source

_MAX_KEY_BYTES = 1 << 20


class Gate:
    """A policy that was read, and the way to signatures."""

    def __init__(self, paths: Paths, reporter: Reporter, found: Policy) -> None:
        self._paths = paths
        self._reporter = reporter
        self._policy = found

    def admit_remote(
        self,
        asked: Reference,
        make_client: Callable[[], Client],
        source: Source,
        manifest: bytes,
        digest: str,
    ) -> None:
        """Judge an image of a registry: the name that was asked for, and where it was found.

        make_client is called where signatures are to be asked for.
        Raises ImageError for one that is refused, UsageError for keys that cannot be read,
        Unsupported, RegistryError.
        """
        if asked.digest is not None:
            # The digest decides; the tag beside it is a remark, as with podman.
            asked = asked._replace(tag=None)
        place, requirements = self._policy.requirements(
            policy.DOCKER, tuple(identity.namespaces(asked))
        )

        def find() -> Evidence:
            from rootlesspy.image.trust import evidence, registries_d

            if not _needs_signatures(requirements):
                return evidence.NoEvidence()
            places = registries_d.load(self._paths)
            return evidence.RegistryEvidence(make_client(), source, digest, places, self._transport)

        self._judge(f"image {asked}", place, requirements, Subject(manifest, digest, asked), find)

    def admit_files(
        self, transport: str, path: str | None, files: Files, manifest: bytes, digest: str
    ) -> None:
        """Judge an image of a directory or archive; path is None for one that came by a pipe.

        Raises as admit_remote() does.
        """
        scopes: tuple[str, ...] = ()
        if path is not None and transport != "docker-archive":
            scopes = tuple(identity.path_scopes(os.path.realpath(path)))
        place, requirements = self._policy.requirements(transport, scopes)

        def find() -> Evidence:
            from rootlesspy.image.trust import evidence

            return (
                evidence.DirectoryEvidence(files) if transport == "dir" else evidence.NoEvidence()
            )

        subject = Subject(manifest, digest, None)
        self._judge(f"image of {files.where}", place, requirements, subject, find)

    def admit_saved(self, path: str | None, files: Files, manifest: bytes, digest: str) -> None:
        """Judge an image as admit_files() does, from a place whose kind its files tell."""
        self.admit_files(_kind_of(files, path), path, files, manifest, digest)

    def _judge(
        self,
        what: str,
        place: str,
        requirements: tuple[Requirement, ...],
        subject: Subject,
        find: Callable[[], Evidence],
    ) -> None:
        """Hold a subject against requirements; find loads what knows of signatures."""
        found: Evidence | None = None
        for each in requirements:
            if each.type == policy.ACCEPT:
                continue
            found = found or find()
            self._reporter.step(f"{what} has to fulfil {place}: {each.type}")
            try:
                _check(each, subject, found)
            except Refused as reason:
                told = f": {reason}" if str(reason) else ""
                raise ImageError(
                    f"{what} is refused by the signature policy ({place}: {each.type}){told}",
                    hint=f"rp image trust show, or edit {self._policy.path}",
                ) from None

    def _transport(self) -> Transport:
        from rootlesspy.image.transport import Transport

        return Transport(self._reporter, config_directory=self._paths.config)


def load(paths: Paths, reporter: Reporter, chosen: str | None = None) -> Gate:
    """Read the policy: chosen, the user's or the system's.  Raises UsageError."""
    return Gate(paths, reporter, policy.load(paths, chosen))


def _kind_of(files: Files, path: str | None) -> str:
    """Return the transport that a directory or archive is, by what it holds.  Raises ImageError."""
    manifest = read_document(files, "manifest.json")
    if manifest is not None and manifest.lstrip()[:1] == b"[":
        return "docker-archive"
    if manifest is not None:
        return "dir"
    return "oci" if path is not None and os.path.isdir(path) else "oci-archive"


def _needs_signatures(requirements: tuple[Requirement, ...]) -> bool:
    return any(each.type in (policy.SIGNED_BY, policy.SIGSTORE) for each in requirements)


def _check(wanted: Requirement, subject: Subject, found: Evidence) -> None:
    """Raise Refused unless a requirement is fulfilled."""
    if wanted.type == policy.REJECT:
        raise Refused
    if wanted.unsupported:
        raise Refused(f"rp cannot verify {wanted.unsupported}")
    if wanted.type == policy.SIGNED_BY:
        _check_simple(wanted, subject, found.simple())
        return
    from rootlesspy.image.trust import sigstore

    keys, logs = _loaded(wanted.keys), _loaded(wanted.rekor)
    reasons: list[str] = []
    for attachment in found.attachments():
        try:
            sigstore.check(attachment, keys, logs, subject, wanted.identity)
        except Refused as reason:
            reasons.append(str(reason))
        else:
            return
    raise Refused(_summary(reasons))


def _check_simple(wanted: Requirement, subject: Subject, signatures: list[bytes]) -> None:
    from rootlesspy.image.trust import gpg, payload

    reasons: list[str] = []
    with gpg.keyring() as ring:
        for data, where in _contents(wanted.keys):
            ring.add(data, where)
        for signature in signatures:
            try:
                content = ring.content(signature)
                payload.check(content, payload.SIMPLE, subject, wanted.identity)
            except Refused as reason:
                reasons.append(str(reason))
            else:
                return
    raise Refused(_summary(reasons))


def _summary(reasons: list[str]) -> str:
    """Say why none of the signatures counts."""
    if not reasons:
        return "it has no signature"
    if len(reasons) == 1:
        return f"its signature does not count: {reasons[0]}"
    different = "; ".join(dict.fromkeys(reasons))
    return f"none of its {len(reasons)} signatures counts: {different}"


def _loaded(keys: Keys) -> list[Key]:
    from rootlesspy.image.trust import sigstore

    return [sigstore.load(data, where) for data, where in _contents(keys)]


def _contents(keys: Keys) -> list[tuple[bytes, str]]:
    """Return the keys, each with the place that it is from.  Raises UsageError."""
    found = [(each, "a key in the signature policy") for each in keys.data]
    for path in keys.paths:
        try:
            with open(path, "rb") as file:
                found.append((file.read(_MAX_KEY_BYTES), path))
        except OSError as error:
            raise UsageError(f"key {path} of the signature policy: {error.strerror}") from error
    return found
