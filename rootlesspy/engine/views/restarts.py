"""How often systemd has restarted containers: NRestarts of their services."""

from __future__ import annotations

import os

from rootlesspy.errors import Error
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rootlesspy.engine.record import Container
    from rootlesspy.paths import Paths

NEVER = ("", "no")
"""Policies by which systemd restarts nothing."""


def counts(
    paths: Paths, services: Mapping[str, str], containers: Iterable[Container]
) -> dict[str, int]:
    """Return id → restarts, asking systemd on one connection; 0 where it cannot be asked.

    services: id → service.  Nobody is asked about containers that are never restarted.
    """
    policies = {each.record.id: each.record.restart for each in containers}
    found = dict.fromkeys(policies, 0)
    asked = {
        identity: service
        for identity, service in services.items()
        if policies[identity] not in NEVER
    }
    if not asked:
        return found
    from rootlesspy.systemd import bus

    try:
        connection = bus.connect(os.path.dirname(paths.require_runtime()))
    except Error:
        return found
    try:
        for identity, service in asked.items():
            number = connection.unit_properties(service, bus.SERVICE, ("NRestarts",)).get(
                "NRestarts"
            )
            if isinstance(number, int):
                found[identity] = capped(number, policies[identity])
    except Error:
        return found
    finally:
        connection.close()
    return found


def capped(number: int, policy: str) -> int:
    """Return NRestarts without the last one that the limit of on-failure:N refused."""
    limit = policy.partition(":")[2]
    return min(number, int(limit)) if limit.isdigit() and limit != "0" else number
