"""Logging in to a registry: credentials are tried there before they are stored."""

from __future__ import annotations

from rootlesspy.errors import RegistryError
from rootlesspy.image.body import finish
from rootlesspy.image.registry import failure
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.image.registry import Client
    from rootlesspy.settings import Source


def check(client: Client, source: Source) -> None:
    """Ask a registry whether it knows the client's credentials; source has no repository.

    Raises RegistryError when it does not, or cannot be reached.
    """
    response = client.ask(source, "", {})
    try:
        if response.status == 401:
            raise RegistryError(f"registry {source.registry}: wrong user name or password")
        # 404: it has no such API, but whoever may not in is told so by 401 or 403.
        if response.status not in (200, 404):
            raise failure(source, response, "")
    finally:
        finish(response)
