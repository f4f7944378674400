"""Making an image present: policy, sources, manifest, layers, and last of all its name.

`rp pull` and, when something is missing, `rp run` (there in a forked child).  An image enters
index.json only when all its blobs are verified and all its layers are unpacked and on disk.
"""

from __future__ import annotations

import hashlib
import os

from rootlesspy.errors import NotFound, RegistryError
from rootlesspy.image import layout, lists, platforms
from rootlesspy.image.agent import plain
from rootlesspy.image.documents import Described
from rootlesspy.image.lookup import Finder
from rootlesspy.image.reference import Reference, is_image_id, parse
from rootlesspy.image.store import Image, Store, find_typed
from rootlesspy.image.trust import gate
from rootlesspy.image.writer import Writer, jobs_for
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from rootlesspy.image.agent import Agent
    from rootlesspy.image.progress import Progress
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter
    from rootlesspy.settings import Settings, Source


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
    agent: Agent | None = None,
    insecure: bool | None = None,
    signature_policy: str | None = None,
) -> Image:
    """Return an image whose layers are all unpacked for maps, pulling it as policy says.

    policy is always, missing, newer or never; platform is os/architecture[/variant], None for this
    machine's.  agent, which stays the caller's, and insecure know what was said about passwords and
    TLS on the command line; signature_policy is a file in place of the policy.json that is
    configured.  Raises NotFound, RegistryError, ImageError, UsageError, Unsupported, Error.
    """
    used = agent or plain(paths, reporter)
    try:
        with Writer(paths, maps, reporter, progress) as writer:
            work = _Pull(paths, settings, maps, writer, reporter, used, insecure)
            return work.ensure(reference_text, policy, platform, signature_policy)
    finally:
        if agent is None:
            used.forget_connections()


def newest(
    reference_text: str,
    *,
    paths: Paths,
    settings: Settings,
    maps: IdMaps,
    platform: str | None,
    reporter: Reporter,
) -> str:
    """Return the id of the image that a name leads to in its registry; no layer is fetched.

    Raises NotFound, RegistryError, UsageError.
    """
    with plain(paths, reporter) as agent, Writer(paths, maps, reporter) as writer:
        work = _Pull(paths, settings, maps, writer, reporter, agent, None)
        return work.newest(reference_text, platform)


class _Pull:
    """One call of ensure()."""

    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        maps: IdMaps,
        writer: Writer,
        reporter: Reporter,
        agent: Agent,
        insecure: bool | None,
    ) -> None:
        self._agent = agent
        self._insecure = insecure
        self._paths = paths
        self._settings = settings
        self._maps = maps
        self._writer = writer
        self._reporter = reporter
        self._store = Store(paths)

    def ensure(
        self, text: str, policy: str, platform: str | None, signature_policy: str | None
    ) -> Image:
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
        self._agent.start()
        trust = gate.load(self._paths, self._reporter, signature_policy)
        try:
            return self._pull(reference, parse(text), platform, trust)
        except (NotFound, RegistryError):
            if policy == "newer" and present is not None:
                return self._complete(present)
            raise

    def newest(self, text: str, platform: str | None) -> str:
        """See newest()."""
        reference = parse(self._settings.resolve_alias(text))
        remote = self._finder().look_up(reference, platform)
        return f"sha256:{hashlib.sha256(remote.config_data).hexdigest()}"

    def _finder(self) -> Finder:
        return Finder(
            self._agent,
            self._settings,
            self._reporter,
            self._writer.document_here,
            insecure=self._insecure,
        )

    def _pull(
        self, reference: Reference, typed: Reference, platform: str | None, trust: gate.Gate
    ) -> Image:
        layout.claim_default_maps(self._paths, self._maps)
        remote = self._finder().look_up(reference, platform)
        trust.admit_remote(
            reference, self._agent.make_client, remote.sources[0], remote.data, remote.digest
        )
        diff_ids = remote.config["rootfs"]["diff_ids"]
        jobs = jobs_for(remote.manifest.layers, diff_ids, self._writer.vouched())
        self._writer.make_layers(jobs, self._agent, remote.sources)
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
                image = self._store.resolve(name, platform)
            except NotFound:
                continue
            if platform is None or platforms.fits(image.platform, platform):
                return image
            if lists.named(self._paths, name) is not None:
                # What the list says of an image counts.
                return image
        return None

    def _is_name(self, text: str) -> bool:
        """Say whether text names an image, rather than being an id of one that is here."""
        if is_image_id(text):
            return False
        entries = [*layout.read_index(self._paths), *layout.read_lists(self._paths)]
        names = (text, self._settings.resolve_alias(text))
        return any(find_typed(entries, name) is not None for name in names)

    def _complete(self, image: Image) -> Image:
        """Unpack what is missing of a listed image, from its blobs where they are there."""
        if self._store.layers(image, self._maps) is not None:
            return image
        manifest = image_spec.parse_manifest(layout.read_blob(self._paths, image.digest))
        sources: tuple[Source, ...] = ()
        agent = None
        if image.names and not all(
            os.path.exists(layout.blob_path(self._paths, each.digest)) for each in manifest.layers
        ):
            agent = self._agent
            agent.start()
            sources = self._settings.sources(parse(image.names[0]).name, by_digest=True)
        jobs = jobs_for(manifest.layers, image.diff_ids, self._writer.vouched())
        self._writer.make_layers(jobs, agent, sources)
        return image
