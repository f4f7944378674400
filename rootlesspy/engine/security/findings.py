"""What a container could do, check by check, as numbers and words: pure.

As systemd-analyze security does: each check has a weight, and how bad its answer is from 0 to 1;
the score is what all come to on a scale from 0 (nothing) to 10 (everything).  The weights say what
stands between a container and its user's account, not what the container does: they are an order,
not a measurement.
"""

from __future__ import annotations

from rootlesspy.engine.inputs import capabilities
from rootlesspy.engine.security import exposed_paths
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# What a file of secrets would hold; those of an image are in its registry, too.
_SECRET_WORDS = ("PASSWORD", "PASSWD", "SECRET", "TOKEN", "APIKEY", "API_KEY", "PRIVATE_KEY")
_SHOWN = 4

WEIGHTS = {
    "capabilities": 2000,
    "seccomp": 2000,
    "mounts": 1100,
    "no_new_privs": 1000,
    "masked paths": 1000,
    "network": 800,
    "user": 700,
    "user namespace": 600,
    "namespaces": 500,
    "devices": 300,
    "root file system": 300,
    "memory limit": 300,
    "process limit": 200,
    "environment": 200,
    "landlock": 200,
    "cpu limit": 100,
    "ports": 100,
}
# systemd-analyze's words, from the worst on (analyze-security.c): at least so much.
LEVELS = (
    (10.0, "DANGEROUS"),
    (9.0, "UNSAFE"),
    (7.5, "EXPOSED"),
    (5.0, "MEDIUM"),
    (1.0, "OK"),
    (0.1, "SAFE"),
    (0.0, "PERFECT"),
)
# Each opens much of the kernel, or other processes, even if only over the container's namespaces.
_DANGEROUS = frozenset(
    f"CAP_{name}"
    for name in (
        *("SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "SYS_BOOT", "DAC_READ_SEARCH"),
        *("NET_ADMIN", "BPF", "PERFMON", "MAC_ADMIN", "MAC_OVERRIDE", "CHECKPOINT_RESTORE"),
    )
)


class Port(NamedTuple):
    """A port that is published on the host."""

    address: str
    """Empty: all."""
    number: int


class Facts(NamedTuple):
    """What is known of a container: as it runs, or as it would."""

    capabilities: frozenset[str]
    """What its first process holds."""
    bounding: frozenset[str]
    """What its processes could gain by programs that are set-user-ID, without no_new_privs."""
    seccomp: str
    """default, custom, permissive (a profile that allows what it does not name) or none."""
    no_new_privileges: bool
    unmasked: tuple[str, ...]
    """What is neither masked nor read-only although it is by default."""
    user: str
    is_root: bool
    maps_caller: bool
    """The caller's own uid is one of the ids inside."""
    mounts: tuple[exposed_paths.Bind, ...]
    devices: tuple[str, ...]
    network: str
    """The driver, or what the network namespace is shared with."""
    ports: tuple[Port, ...]
    shared: tuple[tuple[str, str], ...]
    """Kind of namespace, and whose it is."""
    read_only: bool
    limits: frozenset[str]
    """Which are set, by their controllers: memory, pids, cpu."""
    enforced: frozenset[str]
    """The controllers that the machine has for it."""
    environment: tuple[str, ...]
    """Names."""
    landlock: tuple[str, ...]


class Finding(NamedTuple):
    """The answer to one check, or one of its answers."""

    check: str
    badness: float
    """From 0 to 1."""
    exposure: float
    """What it adds to the score."""
    text: str
    advice: str
    """One line with the option that cures it; empty when nothing has to be."""


def judge(facts: Facts) -> list[Finding]:
    """Return all findings, the worst first."""
    found = [
        Finding(check, badness, WEIGHTS[check] * badness / sum(WEIGHTS.values()) * 10, text, advice)
        for check, badness, text, advice in _all(facts)
    ]
    return sorted(found, key=lambda each: -each.exposure)


def score(found: Sequence[Finding]) -> float:
    """Return the score, from 0 to 10 with one digit: of a check with many answers the worst one."""
    worst: dict[str, float] = {}
    for each in found:
        worst[each.check] = max(each.exposure, worst.get(each.check, 0.0))
    return round(sum(worst.values()), 1)


def level(points: float) -> str:
    """Return systemd-analyze's word for a score."""
    return next(word for least, word in LEVELS if points >= least)


_Row = tuple[str, float, str, str]


def _all(facts: Facts) -> Iterator[_Row]:
    yield _capabilities(facts)
    yield _seccomp(facts)
    yield _no_new_privileges(facts)
    yield _unmasked(facts)
    yield _user(facts)
    yield _own_id(facts)
    yield from _mounts(facts)
    yield from _devices(facts)
    yield _network(facts)
    yield _ports(facts)
    yield from _shared(facts)
    yield _plain(
        "root file system", facts.read_only, "is read-only", "can be changed", "--read-only"
    )
    yield _limit(facts, "memory limit", "memory", "--memory 512m")
    yield _limit(facts, "process limit", "pids", "leave out --pids-limit -1")
    yield _limit(facts, "cpu limit", "cpu", "--cpus 1")
    yield _environment(facts)
    yield _landlock(facts)


def _plain(check: str, good: bool, fine: str, bad: str, advice: str) -> _Row:
    return (check, 0.0, fine, "") if good else (check, 1.0, bad, advice)


def _capabilities(facts: Facts) -> _Row:
    held = facts.capabilities
    if not held:
        return "capabilities", 0.0, "holds none", ""
    dangerous = sorted(held & _DANGEROUS)
    beyond = sorted(held - set(capabilities.DEFAULT))
    drop = "--cap-drop ALL, and --cap-add what it needs"
    if "CAP_SYS_ADMIN" in held:
        return "capabilities", 1.0, f"holds {len(held)}, SYS_ADMIN among them", drop
    if dangerous:
        return "capabilities", 0.7, f"holds {_names(dangerous)}, {len(held)} in all", drop
    if beyond:
        return "capabilities", 0.5, f"holds {_names(beyond)} beyond the default ones", drop
    if len(held) == len(capabilities.DEFAULT):
        return "capabilities", 0.3, f"holds the {len(held)} default ones", drop
    return "capabilities", 0.15, f"holds {_names(sorted(held))}", drop


def _seccomp(facts: Facts) -> _Row:
    return {
        "default": ("seccomp", 0.0, "the default profile filters system calls", ""),
        "custom": ("seccomp", 0.2, "a profile of your own filters system calls", ""),
        "permissive": (
            "seccomp",
            0.7,
            "the profile allows what it does not name",
            "leave out --security-opt seccomp=FILE, or have it name what is allowed",
        ),
    }.get(
        facts.seccomp,
        (
            "seccomp",
            1.0,
            "no system call is filtered",
            "leave out seccomp=unconfined, --privileged",
        ),
    )


def _no_new_privileges(facts: Facts) -> _Row:
    return _plain(
        "no_new_privs",
        facts.no_new_privileges,
        "set-user-ID programs gain nothing",
        "set-user-ID programs gain what they have",
        "leave out --privileged and no-new-privileges=false",
    )


def _unmasked(facts: Facts) -> _Row:
    if not facts.unmasked:
        return "masked paths", 0.0, "what tells of the machine is masked", ""
    badness = 1.0 if len(facts.unmasked) > _SHOWN else 0.5
    text = f"{_names(facts.unmasked)} can be seen or written"
    return "masked paths", badness, text, "leave out --privileged and unmask="


def _user(facts: Facts) -> _Row:
    if not facts.is_root:
        return "user", 0.0, f"runs as {facts.user}", ""
    return "user", 1.0, "runs as root of the container", "--user 1000, or USER in the image"


def _own_id(facts: Facts) -> _Row:
    return _plain(
        "user namespace",
        not facts.maps_caller,
        "your own uid is nobody's inside: an escape is not you",
        "your own uid is one of those inside: an escape is you",
        "--userns nomap, where it owns none of your files",
    )


def _mounts(facts: Facts) -> Iterator[_Row]:
    if not facts.mounts:
        yield "mounts", 0.0, "sees no file of the host", ""
    for each in facts.mounts:
        yield ("mounts", *exposed_paths.judge(each))


def _devices(facts: Facts) -> Iterator[_Row]:
    if not facts.devices:
        yield "devices", 0.0, "sees no device of the host", ""
    for each in facts.devices:
        yield "devices", 0.5, f"sees {each}", f"leave out --device {each}"


def _network(facts: Facts) -> _Row:
    if facts.network == "none":
        return "network", 0.0, "reaches nothing", ""
    if facts.network == "host":
        text = "is the host's: its loopback and abstract sockets too"
        return "network", 1.0, text, "leave out --network host; --publish what it serves"
    if facts.network.startswith(("container:", "pod:", "ns:")):
        return "network", 0.6, f"is shared with {facts.network}", "a network of its own"
    text = f"reaches what you reach, but the host's loopback ({facts.network})"
    return "network", 0.5, text, "--network none, or an internal network: rp network create"


def _ports(facts: Facts) -> _Row:
    if not facts.ports:
        return "ports", 0.0, "publishes none", ""
    numbers = ", ".join(str(each.number) for each in facts.ports[:_SHOWN])
    if all(each.address in ("127.0.0.1", "::1") for each in facts.ports):
        return "ports", 0.3, f"publishes {numbers} for this machine", ""
    return "ports", 1.0, f"publishes {numbers} for everybody", "--publish 127.0.0.1:PORT:PORT"


def _shared(facts: Facts) -> Iterator[_Row]:
    if not facts.shared:
        yield "namespaces", 0.0, "has all namespaces of its own", ""
    for kind, owner in facts.shared:
        badness = {"host": 1.0 if kind in ("pid", "ipc") else 0.6}.get(owner, 0.3)
        yield "namespaces", badness, f"shares the {kind} namespace of {owner}", f"--{kind} private"


def _limit(facts: Facts, check: str, controller: str, advice: str) -> _Row:
    if controller in facts.limits and controller not in facts.enforced:
        cure = f"delegate the {controller} controller: rp doctor"
        return check, 1.0, "is set and not enforced on this machine", cure
    return _plain(check, controller in facts.limits, "is set", "is not set", advice)


def _environment(facts: Facts) -> _Row:
    secret = [
        name
        for name in facts.environment
        if any(word in name.upper() for word in _SECRET_WORDS) and not name.endswith("_FILE")
    ]
    if not secret:
        return "environment", 0.0, "has no variable with the name of a secret", ""
    return "environment", 1.0, f"holds {_names(secret)}", "rp secret create, and --secret NAME"


def _landlock(facts: Facts) -> _Row:
    if not facts.landlock:
        cure = "--landlock ro=/,rw=/tmp, and what it writes"
        return "landlock", 1.0, "no rules for files and TCP", cure
    return "landlock", 0.0, f"is held to {_names(facts.landlock)}", ""


def _names(names: Sequence[str]) -> str:
    short = [name.removeprefix("CAP_") for name in names]
    more = f" and {len(short) - _SHOWN} more" if len(short) > _SHOWN else ""
    return ", ".join(short[:_SHOWN]) + more


def as_json(found: Sequence[Finding]) -> list[Mapping[str, object]]:
    """Return findings as `--format json` prints them."""
    return [
        {
            "Check": each.check,
            "Exposure": round(each.exposure, 1),
            "Good": each.badness == 0.0,
            "Description": each.text,
            "Advice": each.advice,
        }
        for each in found
    ]
