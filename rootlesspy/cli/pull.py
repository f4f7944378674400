"""What `rp pull` does, behind both parsers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rootlesspy.cli import progress, registry_access
from rootlesspy.engine.inputs.values import parse_choice, parse_platform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.cli.session import Session
    from rootlesspy.image.store import Image


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
    from rootlesspy import settings
    from rootlesspy.engine import idmap
    from rootlesspy.image import place
    from rootlesspy.image.pull import ensure

    parse_choice(policy, "--policy", ("always", "missing", "never", "newer"))
    if platform is not None:
        parse_platform(platform, "--platform")
    paths = session.paths()
    configuration = settings.load(paths)
    client = registry_access.client(session, authfile=authfile, creds=creds, cert_dir=cert_dir)
    insecure = registry_access.insecure(tls_verify)
    display = progress.make(quiet=quiet, debug=session.reporter.debug)
    places = [place.parse_place(name, plain=place.REGISTRY) for name in names]
    if all_tags:
        places = [
            each._replace(name=name)
            for each in places
            for name in registry_access.all_tags(client, configuration, each.name, insecure)
        ]
    maps = idmap.default_maps()
    for each in places:
        if each.transport == place.REGISTRY:
            image = ensure(
                each.name,
                paths=paths,
                settings=configuration,
                maps=maps,
                policy=policy,
                platform=platform,
                progress=display,
                reporter=session.reporter,
                client=client,
                insecure=insecure,
                signature_policy=signature_policy,
            )
            _tell(str(each), [image])
        else:
            from rootlesspy.image import load

            found = load.pull(
                each,
                paths=paths,
                maps=maps,
                platform=platform,
                progress=display,
                reporter=session.reporter,
                signature_policy=signature_policy,
            )
            _tell(str(each), found)
    return 0


def _tell(typed: str, images: Sequence[Image]) -> None:
    from rootlesspy.engine.output.events import emit_image

    for image in images:
        emit_image("pull", image.names[0] if image.names else typed, image.id)
        sys.stdout.write(f"{image.id.partition(':')[2]}\n")
