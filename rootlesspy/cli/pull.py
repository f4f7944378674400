"""What `rp pull` does, behind both parsers."""

from __future__ import annotations

import sys

from rootlesspy.cli import registry_access
from rootlesspy.image.place import REGISTRY, parse_place
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.cli.session import Session
    from rootlesspy.image.agent import Agent
    from rootlesspy.image.place import Place
    from rootlesspy.image.progress import Progress
    from rootlesspy.image.store import Image
    from rootlesspy.settings import Settings


def pull(
    session: Session,
    names: Sequence[str],
    *,
    policy: str,
    platform: str | None,
    quiet: bool,
    all_tags: bool = False,
    authfile: str | None = None,
    cert_dir: str | None = None,
    creds: str | None = None,
    signature_policy: str | None = None,
    tls_verify: bool | None = None,
) -> int:
    """Pull images and print their ids; see the options of the command."""
    from rootlesspy.image.agent import Agent

    make_client = registry_access.client_maker(
        session, authfile=authfile, creds=creds, cert_dir=cert_dir
    )
    places = [parse_place(name, plain=REGISTRY) for name in names]
    insecure = registry_access.insecure(tls_verify)
    with Agent(session.reporter, make_client) as agent:
        if policy in ("always", "newer") and any(_is_remote(each) for each in places):
            # It imports what it needs while the rest is imported here.
            agent.start()
        from rootlesspy import settings
        from rootlesspy.cli import progress
        from rootlesspy.engine.inputs.values import parse_choice, parse_platform

        parse_choice(policy, "--policy", ("always", "missing", "never", "newer"))
        if platform is not None:
            parse_platform(platform, "--platform")

        configuration = settings.load(session.paths())
        display = progress.make(quiet=quiet, debug=session.reporter.debug)
        if all_tags:
            client = make_client()
            places = [
                each._replace(name=name)
                for each in places
                for name in registry_access.all_tags(client, configuration, each.name, insecure)
            ]
        wish = _Wish(configuration, policy, platform, insecure, signature_policy)
        for each in places:
            _tell(str(each), _pull(each, wish, session, agent, display))
    return 0


class _Wish(NamedTuple):
    """What was configured and asked for, of all images."""

    settings: Settings
    policy: str
    platform: str | None
    insecure: bool | None
    signature_policy: str | None


def _is_remote(place: Place) -> bool:
    return place.transport == REGISTRY


def _pull(
    place: Place, wish: _Wish, session: Session, agent: Agent, display: Progress
) -> Sequence[Image]:
    """Pull an image of a registry, or those of an archive or directory."""
    from rootlesspy.engine import idmap

    if not _is_remote(place):
        from rootlesspy.image import load

        return load.pull(
            place,
            paths=session.paths(),
            maps=idmap.default_maps(),
            platform=wish.platform,
            progress=display,
            reporter=session.reporter,
            signature_policy=wish.signature_policy,
        )
    from rootlesspy.image.pull import ensure

    image = ensure(
        place.name,
        paths=session.paths(),
        settings=wish.settings,
        maps=idmap.default_maps(),
        policy=wish.policy,
        platform=wish.platform,
        progress=display,
        reporter=session.reporter,
        agent=agent,
        insecure=wish.insecure,
        signature_policy=wish.signature_policy,
    )
    return [image]


def _tell(typed: str, images: Sequence[Image]) -> None:
    from rootlesspy.engine.output.events import emit_image

    for image in images:
        emit_image("pull", image.names[0] if image.names else typed, image.id)
        sys.stdout.write(f"{image.id.partition(':')[2]}\n")
