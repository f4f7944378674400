"""The rows of `rp images`: one per name of an image, with podman's field names."""

from __future__ import annotations

from datetime import UTC, datetime

from rootlesspy.cli import human
from rootlesspy.cli.gotemplate_functions import Record
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.image.store import Image

_NONE = "<none>"
_SHORT_ID = 12
HEADERS = {"ID": "IMAGE ID", "CreatedSince": "CREATED", "CreatedTime": "CREATED TIME"}


class Line(NamedTuple):
    """One line of the list."""

    image: Image
    repository: str
    tag: str

    @property
    def name(self) -> str:
        """The name as one text, empty for an image without names."""
        return f"{self.repository}:{self.tag}" if self.repository != _NONE else ""

    def short_id(self, *, full: bool) -> str:
        """The id as it is shown."""
        return self.image.id if full else hexadecimal(self.image.id)[:_SHORT_ID]


def lines(images: Sequence[Image]) -> list[Line]:
    """Return a line per name, and one for an image that has none."""
    return [Line(image, *split(name)) for image in images for name in (image.names or (_NONE,))]


def row(line: Line, now_s: float, users: int, *, full: bool) -> Record:
    """Return the fields a template may use."""
    image = line.image
    since = human.ago(image.created_s, now_s)
    digests = repo_digests(image)
    return Record(
        Containers=users,
        Created=since,
        CreatedAt=str(datetime.fromtimestamp(image.created_s, UTC)),
        CreatedSince=since,
        CreatedTime=str(datetime.fromtimestamp(image.created_s, UTC)),
        Dangling=not image.names,
        Digest=image.digest,
        History=list(image.names),
        ID=line.short_id(full=full),
        Id=hexadecimal(image.id),
        Labels=labels(image),
        Names=list(image.names),
        ReadOnly=False,
        RepoDigests=digests,
        RepoTags=list(image.names),
        Repository=line.repository,
        Size=human.size(image.size_bytes),
        Tag=line.tag,
        VirtualSize=human.size(image.size_bytes),
    )


def json_row(image: Image, users: int) -> dict[str, Any]:
    """Return one element of `--format json`."""
    operating_system, _, architecture = str(image.platform).partition("/")
    # A manifest list has no platform.
    is_image = bool(image.platform)
    return {
        "Id": hexadecimal(image.id),
        "ParentId": "",
        "RepoTags": (list(image.names) if is_image else None) or None,
        "RepoDigests": repo_digests(image),
        "Size": image.size_bytes,
        "SharedSize": 0,
        "VirtualSize": image.size_bytes,
        "Labels": labels(image) or None,
        "Containers": users,
        "Arch": architecture.partition("/")[0],
        "Digest": image.digest,
        "History": list(image.names),
        "Names": list(image.names),
        "Os": operating_system,
        "Created": int(image.created_s),
        "CreatedAt": datetime.fromtimestamp(image.created_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def labels(image: Image) -> dict[str, str]:
    """Return the labels of an image's configuration."""
    settings: Any = image.config.get("config") or {}
    return dict(settings.get("Labels") or {})


def hexadecimal(digest: str) -> str:
    """Return a digest without its algorithm."""
    return digest.rpartition(":")[2]


def split(name: str) -> tuple[str, str]:
    """Cut a name into repository and tag, <none> for what it lacks."""
    plain = name.partition("@")[0]
    repository, colon, tag = plain.rpartition(":")
    if not colon or "/" in tag:
        return plain, _NONE
    return repository, tag


def repo_digests(image: Image) -> list[str]:
    """Return name@digest for each repository that the image has a name in."""
    repositories = dict.fromkeys(split(name)[0] for name in image.names)
    return [f"{repository}@{image.digest}" for repository in repositories]
