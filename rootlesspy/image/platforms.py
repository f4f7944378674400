"""Which image of an index runs on this machine, or on the one that was asked for.

Names are Go's (GOOS, GOARCH, variant), as OCI image-spec 1.1 config.md prescribes.
"""

from __future__ import annotations

import os

from rootlesspy.errors import ImageError, NotFound
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.image.reference import Reference
    from rootlesspy.oci.image_spec import Descriptor
    from rootlesspy.report import Reporter

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv8l": "arm/v7",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "i386": "386",
    "i686": "386",
    "loongarch64": "loong64",
}
# Variants that a machine runs besides its own, best first.
_RUNS = {
    "arm/v8": ("arm/v8", "arm/v7", "arm/v6", "arm/v5", "arm"),
    "arm/v7": ("arm/v7", "arm/v6", "arm/v5", "arm"),
    "arm/v6": ("arm/v6", "arm/v5", "arm"),
    "arm64": ("arm64", "arm64/v8"),
    "arm64/v8": ("arm64/v8", "arm64"),
    "amd64": ("amd64", "amd64/v1"),
    "amd64/v1": ("amd64/v1", "amd64"),
}


def host() -> str:
    """Return the platform of this machine."""
    machine = os.uname().machine
    return f"linux/{_ARCHITECTURES.get(machine, machine)}"


def acceptable(wanted: str) -> tuple[str, ...]:
    """Return the platforms that do for the wanted one, best first."""
    system, _, architecture = wanted.partition("/")
    found = _RUNS.get(architecture, (architecture,))
    return tuple(f"{system}/{each}" for each in found)


def fits(platform: str, wanted: str) -> bool:
    """Say whether an image of this platform does for the wanted one."""
    return platform in acceptable(wanted)


def choose(entries: tuple[Descriptor, ...], wanted: str | None, reference: Reference) -> Descriptor:
    """Return the entry of an index for the wanted platform, or this machine's.

    Raises NotFound naming what the index has.
    """
    return choose_from(entries, wanted, f"image {reference.familiar()}")


def choose_from(entries: tuple[Descriptor, ...], wanted: str | None, what: str) -> Descriptor:
    """Do what choose() does for an index that has no reference."""
    platform = wanted or host()
    for acceptable_platform in acceptable(platform):
        for entry in entries:
            if entry.platform == acceptable_platform:
                return entry
    if wanted is None and len(entries) == 1 and entries[0].platform is None:
        return entries[0]
    there = sorted({entry.platform for entry in entries if entry.platform} - {"unknown/unknown"})
    raise NotFound(
        f"{what} is not made for {platform}, only for {', '.join(there)}",
        hint=f"rp run --platform {there[0]} needs an emulator" if there else None,
    )


def check(platform: str, wanted: str | None, reference: Reference, reporter: Reporter) -> None:
    """Compare the platform in a configuration with the one that was wanted.

    Raises ImageError when one was asked for and this is another.
    """
    if fits(platform, wanted or host()):
        return
    if wanted is not None:
        raise ImageError(f"image {reference.familiar()} is made for {platform}, not for {wanted}")
    reporter.notice(f"image {reference.familiar()} is made for {platform}, this is {host()}")
