"""What a signature policy says, line by line: `rp image trust show`, in podman's words."""

from __future__ import annotations

from rootlesspy.errors import Error
from rootlesspy.image.trust import gpg, policy
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootlesspy.image.trust.policy import Policy, Requirement, Requirements
    from rootlesspy.image.trust.registries_d import Places

_WORDS = {policy.ACCEPT: "accept", policy.REJECT: "reject", policy.SIGNED_BY: "signed",
          policy.SIGSTORE: "sigstoreSigned"}  # fmt: skip


class Line(NamedTuple):
    """One requirement of one scope."""

    transport: str
    name: str
    repository: str
    type: str
    keys: str
    """Whose they are: addresses, N/A where keys have no owner."""
    store: str


def lines(found: Policy, places: Places) -> list[Line]:
    """Describe a policy.  Raises Unsupported where keys are to be read and gpg is missing."""
    described = list(_lines(found.default, "all", "default", "* (default)", places.configured("")))
    for transport, scopes in sorted(found.transports.items()):
        shown = "repository" if transport == policy.DOCKER else transport
        for scope, requirements in sorted(scopes.items()):
            described += _lines(requirements, shown, scope, scope, places.configured(scope))
    return described


def _lines(
    requirements: Requirements, transport: str, repository: str, name: str, store: str
) -> Iterator[Line]:
    for each in requirements:
        kind = _WORDS.get(each.type, each.type)
        yield Line(transport, name, repository, kind, _owners(each), store)


def _owners(requirement: Requirement) -> str:
    if requirement.type == policy.SIGSTORE:
        return "N/A"
    if requirement.type != policy.SIGNED_BY:
        return ""
    owners = []
    keys: tuple[str | bytes, ...] = (*requirement.keys.paths, *requirement.keys.data)
    for key in keys:
        try:
            owners += _users(key)
        except Error:
            # A key that is not there must not hide the rest of the policy.
            owners.append("unreadable")
    return ",".join(owners)


def _users(key: str | bytes) -> list[str]:
    data = key if isinstance(key, bytes) else policy.read(key)
    with gpg.keyring() as ring:
        ring.add(data, "key")
        return [_address(each) for each in ring.users()]


def _address(user: str) -> str:
    before, opening, after = user.rpartition("<")
    return after.partition(">")[0] if opening else before or user
