"""The strict parser of --landlock: RULE[,RULE]…, what the payload may still do.

    ro=PATH, ro-noexec=PATH    read and list; execute too, without -noexec
    rw=PATH, rw-noexec=PATH    all that ro allows, and change
    net=connect:PORT           connect by TCP to this port; with any net= rule, to no other
    net=bind:PORT              listen on this port; with any net= rule, on no other
    net=none                   no TCP at all
    scope=signals              signal nothing that is not under the same rules
    scope=abstract-sockets     connect to no abstract socket from elsewhere

With one path rule, what no path rule names is out of reach.
"""

from __future__ import annotations

from rootlesspy.engine.inputs.values import has_control, parse_integer, reject
from rootlesspy.errors import UsageError

_PATHS = ("ro", "ro-noexec", "rw", "rw-noexec")
_SCOPES = ("abstract-sockets", "signals")
_EXPECTED = "ro=PATH, rw=PATH, ro-noexec=, rw-noexec=, net=connect:PORT, net=bind:PORT, net=none"


def parse(text: str, option: str) -> str:
    """Check one rule; return it in its one spelling.  Raises UsageError."""
    kind, equals, value = text.partition("=")
    if not equals or has_control(text):
        reject(option, text, f"{_EXPECTED} or scope=…")
    if kind in _PATHS:
        if not value.startswith("/") or ".." in value.split("/"):
            reject(option, text, f"{kind}=/PATH without '..'")
        return f"{kind}=/" + "/".join(word for word in value.split("/") if word not in ("", "."))
    if kind == "scope":
        if value not in _SCOPES:
            reject(option, text, " or ".join(f"scope={each}" for each in _SCOPES))
        return text
    what, colon, port = value.partition(":")
    if kind != "net" or what not in ("connect", "bind", "none") or bool(colon) == (what == "none"):
        reject(option, text, f"{_EXPECTED} or scope=…")
    return f"net={what}:{parse_integer(port, option, 0, 65535)}" if colon else text


def check(rules: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse rules that cannot hold beside others, as Landlock's only add up.  Raises UsageError.

    Links are not looked at: a path is what it is called.
    """
    paths = [rule.partition("=")[::2] for rule in rules if rule.partition("=")[0] in _PATHS]
    for kind, path in paths:
        for wider_kind, wider in paths:
            beyond = _beyond(wider_kind, kind)
            if beyond and (path == wider or path.startswith(wider.rstrip("/") + "/")):
                raise UsageError(
                    f"--landlock {kind}={path} lies in {wider_kind}={wider}, which allows to "
                    f"{beyond}: Landlock's rules only add up",
                    hint="give the outer path less, and more to what is inside",
                )
    if "net=none" in rules and any(rule.startswith("net=") and ":" in rule for rule in rules):
        raise UsageError("--landlock net=none excludes other net= rules")
    return rules


def _beyond(wider: str, narrower: str) -> str:
    """Say what the wider rule allows that the narrower one does not."""
    if wider.startswith("rw") and narrower.startswith("ro"):
        return "write"
    if narrower.endswith("-noexec") and not wider.endswith("-noexec"):
        return "execute"
    return ""
