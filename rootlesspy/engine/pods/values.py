"""Strict parsers for what pods alone are asked, on the command line and in definitions."""

from __future__ import annotations

from rootlesspy.engine.pods.store import KINDS
from rootlesspy.errors import UsageError

DEFAULT_SHARE = "ipc,net,uts"
_POLICIES = ("continue", "stop")


def parse_share(text: str | None, *, infra: bool) -> tuple[str, ...]:
    """Return the kinds of namespaces that --share names, of KINDS' values.  Raises UsageError.

    None: podman's default.  +LIST: that and more.  Empty or none: nothing.
    """
    if not infra or text in ("", "none"):
        return ()
    words = (text or DEFAULT_SHARE).removeprefix("+").split(",")
    if text and text.startswith("+"):
        words = [*DEFAULT_SHARE.split(","), *words]
    for word in words:
        if word not in KINDS:
            raise UsageError(
                f"--share {text!r}: {word!r} cannot be shared", hint=f"of {', '.join(KINDS)}"
            )
    return tuple(dict.fromkeys(KINDS[word] for word in words))


def parse_exit_policy(text: str | None) -> str:
    """Check --exit-policy; continue is the default.  Raises UsageError."""
    if not text:
        return _POLICIES[0]
    if text not in _POLICIES:
        raise UsageError(f"--exit-policy {text!r}: expected {' or '.join(_POLICIES)}")
    return text
