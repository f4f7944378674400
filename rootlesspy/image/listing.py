"""What a registry lists: the tags of a repository, its repositories, and Docker Hub's search.

Source: the OCI distribution specification, "Listing Tags"; the distribution project's catalog.
"""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from rootlesspy.errors import RegistryError, UsageError
from rootlesspy.image.body import finish, read_all
from rootlesspy.image.reference import is_repository, parse
from rootlesspy.image.registry import failure
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.oci import image_spec
from rootlesspy.settings import Source

if TYPE_CHECKING:
    from rootlesspy.image.registry import Client

_MAX_PAGES = 200
_PAGE = 1000
_HUB = "index.docker.io"


class Found(NamedTuple):
    """A repository that a search found."""

    name: str
    description: str
    stars: int
    is_official: bool


def tags(client: Client, source: Source, limit: int | None = None) -> list[str]:
    """Return the tags of a repository.  Raises NotFound, RegistryError."""
    return [
        tag
        for tag in _pages(client, source, f"tags/list?n={_PAGE}", "tags", limit)
        if _is_tag(source, tag)
    ]


def repositories(client: Client, source: Source, limit: int | None = None) -> list[str]:
    """Return the repositories of a registry; source has none.  Raises RegistryError."""
    found = _pages(client, source, f"_catalog?n={_PAGE}", "repositories", limit)
    return [name for name in found if is_repository(name)]


def search_hub(client: Client, term: str, limit: int) -> list[Found]:
    """Ask Docker Hub.  Raises RegistryError."""
    source = Source(_HUB, "", False)
    path = f"https://{_HUB}/v1/search?q={quote(term)}&n={limit}"
    results = _document(client, source, path)[0].get("results")
    if not isinstance(results, list):
        raise RegistryError(f"registry {_HUB} sent no results")
    found = []
    for each in results[:limit]:
        name = each.get("name") if isinstance(each, dict) else None
        if isinstance(name, str) and is_repository(name):
            stars = each.get("star_count")
            found.append(
                Found(
                    parse(name).name,
                    str(each.get("description") or ""),
                    stars if isinstance(stars, int) else 0,
                    each.get("is_official") is True,
                )
            )
    return found


def _pages(client: Client, source: Source, path: str, member: str, limit: int | None) -> list[str]:
    found: list[str] = []
    following: str | None = path
    for _ in range(_MAX_PAGES):
        if following is None or (limit is not None and len(found) >= limit):
            break
        document, following = _document(client, source, following)
        names = document.get(member) or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RegistryError(f"registry {source.registry} sent no list of {member}")
        found += names
    return found[:limit]


def _document(client: Client, source: Source, path: str) -> tuple[dict[str, object], str | None]:
    """Fetch one page; return it and where the next one is.  Raises NotFound, RegistryError."""
    response = client.ask(source, path, {"Accept": "application/json"})
    try:
        if response.status != 200:
            raise failure(source, response, path.partition("?")[0])
        data = read_all(response, image_spec.MAX_DOCUMENT_BYTES, source.registry)
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RegistryError(f"registry {source.registry} sent no JSON") from error
        link = (response.headers.get("Link") or "").strip()
        following = None
        if link.startswith("<") and 'rel="next"' in link:
            following = client.location_of(source, path, link[1:].partition(">")[0])
            base = client.location_of(source, path, "/v2/")
            # A list is where it began.
            if urlsplit(following)[:2] != urlsplit(base)[:2]:
                raise RegistryError(f"registry {source.registry} continues its list elsewhere")
        return document if isinstance(document, dict) else {}, following
    finally:
        finish(response)


def _is_tag(source: Source, tag: str) -> bool:
    try:
        return parse(f"{source.registry}/{source.repository}:{tag}").tag == tag
    except UsageError:
        return False
