"""Where an image is or is to go, as containers-transports(5) writes it.

    docker://registry/repository:tag    a registry
    oci:DIRECTORY[:NAME]                an OCI image layout
    oci-archive:FILE[:NAME]             the same as a tar archive
    docker-archive:FILE[:NAME]          what docker save writes
    dir:DIRECTORY                       blobs and manifest, for looking at
    NAME                                the store of rp

containers-storage: is podman's own store, which rp does not touch.
"""

from __future__ import annotations

from rootlesspy.errors import UsageError
from rootlesspy.light_typing import NamedTuple

REGISTRY, STORE = "docker", ""
TRANSPORTS = ("docker", "oci", "oci-archive", "docker-archive", "dir")


class Place(NamedTuple):
    """One place: its transport ("" is the store), its path, its name there ("" for none)."""

    transport: str
    path: str
    name: str

    def __str__(self) -> str:
        if self.transport == REGISTRY:
            return f"docker://{self.name}"
        parts = (part for part in (self.transport, self.path, self.name) if part)
        return ":".join(parts)


def parse_place(text: str, *, plain: str = STORE) -> Place:
    """Parse a place; plain is the transport of a text that names none.

    Raises UsageError.
    """
    if text.startswith("docker://"):
        return Place(REGISTRY, "", _some(text.removeprefix("docker://"), text))
    transport, colon, rest = text.partition(":")
    if colon and transport in TRANSPORTS and transport != REGISTRY:
        if transport == "dir":
            return Place(transport, _some(rest, text), "")
        path, _, name = rest.partition(":")
        return Place(transport, _some(path, text), name)
    if colon and transport in ("containers-storage", "docker-daemon", "ostree", "sif", "tarball"):
        raise UsageError(
            f"{text}: {transport}: is not a place that rp knows",
            hint=f"docker://, {', '.join(f'{each}:' for each in TRANSPORTS[1:])} or a name",
        )
    return Place(plain, "", _some(text, text))


def _some(part: str, text: str) -> str:
    if not part:
        raise UsageError(f"{text!r} is not a place of an image", hint="such as oci:DIRECTORY:NAME")
    return part
