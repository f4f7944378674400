"""Isolators of an App Container Image: which options of `rp run` do the same.

An OCI configuration has no place for limits and capabilities, so none is applied by itself; the
notices say so, and how to.

Source: the App Container specification 0.8.11, spec/ace.md, "Isolators".
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_CAPABILITIES = ("os/linux/capabilities-retain-set", "os/linux/capabilities-remove-set")
_SECCOMP = ("os/linux/seccomp-retain-set", "os/linux/seccomp-remove-set")
_POWERS = "KMGTPE"


def notices(isolators: Sequence[tuple[str, object]]) -> list[str]:
    """Return what to tell of isolators.  Raises ValueError for one that is malformed."""
    names = [name for name, _ in isolators]
    for exclusive in (_CAPABILITIES, _SECCOMP):
        if sum(name in exclusive for name in names) > 1:
            raise ValueError(f"{' and '.join(exclusive)} exclude each other")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} stands there twice")
    words: list[str] = []
    unknown: list[str] = []
    for name, value in isolators:
        options = _options(name, value)
        words += options
        if not options:
            unknown.append(name)
    told = [
        f"isolator {name} is not applied: rp run --security-opt seccomp=FILE takes a profile"
        if name in _SECCOMP
        else f"isolator {name} is not applied, and rp run has no option for it"
        for name in unknown
    ]
    if words:
        told.insert(0, f"isolators are not applied by themselves: rp run {' '.join(words)}")
    return told


def _options(name: str, value: object) -> list[str]:
    if name == "resource/cpu":
        limit = _quantity(name, value, "limit")
        return [] if limit is None else [f"--cpus={limit.normalize():f}"]
    if name == "resource/memory":
        limit, request = _quantity(name, value, "limit"), _quantity(name, value, "request")
        found = [] if limit is None else [f"--memory={int(limit)}"]
        return found if request is None else [*found, f"--memory-reservation={int(request)}"]
    if name == _CAPABILITIES[0]:
        return ["--cap-drop=all", *(f"--cap-add={each}" for each in _set(name, value))]
    if name == _CAPABILITIES[1]:
        return [f"--cap-drop={each}" for each in _set(name, value)]
    if name in _SECCOMP:
        # A profile is a file, which the options name.
        _set(name, value)
        return []
    if name == "os/linux/no-new-privileges":
        if not isinstance(value, bool):
            raise ValueError(f"{name} is neither true nor false")
        return ["--security-opt=no-new-privileges"] if value else []
    if name == "os/unix/sysctl":
        if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
            raise ValueError(f"{name} does not map names to texts")
        return [f"--sysctl={key}={text}" for key, text in sorted(value.items())]
    return []


def _set(name: str, value: object) -> list[str]:
    members = value.get("set") if isinstance(value, dict) else None
    if (
        not isinstance(members, list)
        or not members
        or not all(isinstance(each, str) and each for each in members)
    ):
        raise ValueError(f"{name} has no set of names")
    if name in _CAPABILITIES and not all(
        each.startswith("CAP_") and each.replace("_", "").isalpha() and each.isupper()
        for each in members
    ):
        raise ValueError(f"{name} holds something else than capabilities")
    return list(members)


def _quantity(name: str, value: object, member: str) -> Decimal | None:
    """Return an amount in base units: "500m", "0.3", "2G", "123Mi"."""
    amounts = value if isinstance(value, dict) else {member: ""}
    text = amounts.get(member)
    if text is None:
        return None
    text = text if isinstance(text, str) and text.isascii() else ""
    digits, factor = text, Decimal(1)
    if text.endswith("m"):
        digits, factor = text[:-1], Decimal("0.001")
    elif text[-2:-1] and text[-2:-1] in _POWERS and text.endswith("i"):
        digits, factor = text[:-2], Decimal(1024) ** (_POWERS.index(text[-2]) + 1)
    elif text[-1:] and text[-1:] in _POWERS:
        digits, factor = text[:-1], Decimal(1000) ** (_POWERS.index(text[-1]) + 1)
    if not digits or not digits.replace(".", "", 1).isdigit() or len(digits) > 30:
        raise ValueError(f"{name}: {member} {text!r} is not an amount")
    try:
        return Decimal(digits) * factor
    except InvalidOperation:
        raise ValueError(f"{name}: {member} {text!r} is not an amount") from None
