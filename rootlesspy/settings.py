"""What the administrator and the user configured for all container tools: one read, one record.

containers-registries.conf(5), version 2, with its drop-in directories, and the parts of
containers.conf(5) that concern rp.  tomli is imported only when there is a file to read.

unqualified-search-registries is not used: a short name means docker.io unless [aliases] says
otherwise.  A search list is how people come to run a stranger's image of the same name.
"""

from __future__ import annotations

import os

from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.paths import drop_ins

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rootlesspy.paths import Paths

_MAX_FILE_BYTES = 4 * 1024 * 1024
_PULL_FROM_MIRROR = ("all", "digest-only", "tag-only")
_SYSTEM = "/etc/containers"


class Mirror(NamedTuple):
    """Another place for the same content; pull_for is all, digest-only or tag-only."""

    location: str
    insecure: bool
    pull_for: str


class Registry(NamedTuple):
    """One [[registry]] table: which names it is for, and where their content is."""

    prefix: str
    location: str
    insecure: bool
    blocked: bool
    mirrors: tuple[Mirror, ...]


class Source(NamedTuple):
    """A place to ask for an image: host[:port], repository there, whether TLS may fail."""

    registry: str
    repository: str
    insecure: bool


class LogDefaults(NamedTuple):
    """log_driver and log_size_max of containers.conf, as they are written there."""

    driver: str = ""
    size_max: int | None = None
    path: str = ""
    """The file that said so, for messages."""


class Settings(NamedTuple):
    """Everything that was configured."""

    registries: tuple[Registry, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    # default_rootless_network_cmd of containers.conf: "pasta", "slirp4netns" or None.
    rootless_network: str | None = None

    def resolve_alias(self, text: str) -> str:
        """Return text with its short name replaced by the alias that it has, if any."""
        end = min((text.find(mark) for mark in ":@" if mark in text), default=len(text))
        name, rest = text[:end], text[end:]
        return dict(self.aliases).get(name, name) + rest

    def sources(self, name: str, *, by_digest: bool) -> tuple[Source, ...]:
        """Return where to look for registry/repository, mirrors first, its own place last.

        Raises UsageError when the name is blocked.
        """
        match = self._longest_match(name)
        if match is None:
            return (_source(name, False),)
        registry, length = match
        if registry.blocked:
            raise UsageError(
                f"{name} is blocked by registries.conf (prefix {registry.prefix})",
                hint="man containers-registries.conf",
            )
        unwanted = "tag-only" if by_digest else "digest-only"
        found = [
            _source(mirror.location + name[length:], mirror.insecure)
            for mirror in registry.mirrors
            if mirror.pull_for != unwanted
        ]
        own = registry.location + name[length:] if registry.location else name
        return (*found, _source(own, registry.insecure))

    def _longest_match(self, name: str) -> tuple[Registry, int] | None:
        """Return the table with the longest prefix for name, and how much of name it covers."""
        best: tuple[Registry, int] | None = None
        for registry in self.registries:
            length = _match(registry.prefix, name)
            if length is not None and (best is None or len(registry.prefix) > len(best[0].prefix)):
                best = (registry, length)
        return best


def load(paths: Paths, environment: Mapping[str, str] | None = None) -> Settings:
    """Read registries.conf and containers.conf of the system and of the user.

    Raises UsageError naming the file and the key that cannot be understood.
    """
    chosen = os.environ if environment is None else environment
    registries: dict[str, Registry] = {}
    aliases: dict[str, str] = {}
    for path in _registries_files(paths, chosen):
        document = _read(path)
        if "registries" in document:
            raise UsageError(
                f"{path}: version 1 of registries.conf is not supported",
                hint="man containers-registries.conf",
            )
        for table in _tables(path, document.get("registry", [])):
            registry = _registry(path, table)
            registries[registry.prefix] = registry
        for alias, target in _table(path, "aliases", document.get("aliases", {})).items():
            if not isinstance(target, str):
                raise _wrong(path, f"aliases.{alias}", "a string")
            # An empty value takes back the alias of an earlier file.
            aliases[alias] = target
    network = None
    for path in paths.containers_conf(chosen):
        network = _network_command(path) or network
    return Settings(
        registries=tuple(registries.values()),
        aliases=tuple((alias, target) for alias, target in aliases.items() if target),
        rootless_network=network,
    )


def log_defaults(paths: Paths, environment: Mapping[str, str] | None = None) -> LogDefaults:
    """Read how containers.conf wants logs kept.

    Files that say nothing about it, most of them long, are not parsed.  Raises UsageError.
    """
    found = LogDefaults()
    for path in paths.containers_conf(os.environ if environment is None else environment):
        if not _speaks_of(path, (b"log_driver", b"log_size_max")):
            continue
        table = _table(path, "containers", _read(path).get("containers", {}))
        driver, size = table.get("log_driver", found.driver), table.get("log_size_max")
        if not isinstance(driver, str):
            raise _wrong(path, "containers.log_driver", "a string")
        if size is not None and (not isinstance(size, int) or isinstance(size, bool)):
            raise _wrong(path, "containers.log_size_max", "a number of bytes")
        found = LogDefaults(driver, found.size_max if size is None else size, path)
    return found


def hooks_dirs(paths: Paths, environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Read which directories of hooks containers.conf names.  Raises UsageError."""
    found: object = []
    for path in paths.containers_conf(os.environ if environment is None else environment):
        if not _speaks_of(path, (b"hooks_dir",)):
            continue
        found = _table(path, "engine", _read(path).get("engine", {})).get("hooks_dir", found)
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise _wrong(path, "engine.hooks_dir", "an array of directories")
    return tuple(str(each) for each in found) if isinstance(found, list) else ()


def _speaks_of(path: str, keys: tuple[bytes, ...]) -> bool:
    """Say whether a line of a file begins with one of the keys.  Raises UsageError."""
    try:
        with open(path, "rb") as file:
            return any(line.lstrip().startswith(keys) for line in file)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _registries_files(paths: Paths, environment: Mapping[str, str]) -> Iterable[str]:
    """List the files in the order of containers-registries.conf.d(5): later ones win."""
    forced = environment.get("CONTAINERS_REGISTRIES_CONF")
    user = f"{paths.config}/containers/registries.conf"
    system = f"{_SYSTEM}/registries.conf"
    if forced:
        return [forced, *drop_ins(f"{system}.d"), *drop_ins(f"{user}.d")]
    if os.path.exists(user):
        return [user, *drop_ins(f"{user}.d")]
    return [
        *([system] if os.path.exists(system) else []),
        *drop_ins(f"{system}.d"),
        *drop_ins(f"{user}.d"),
    ]


def _read(path: str) -> dict[str, object]:
    import tomli  # 13 ms: only where somebody configured something

    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise UsageError(f"{path} is longer than {_MAX_FILE_BYTES} bytes")
        return tomli.loads(content.decode("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except RecursionError:
        raise UsageError(f"{path} is nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error


def _network_command(path: str) -> str | None:
    network = _table(path, "network", _read(path).get("network", {}))
    command = network.get("default_rootless_network_cmd")
    if command is None:
        return None
    if command not in ("pasta", "slirp4netns"):
        raise _wrong(path, "network.default_rootless_network_cmd", '"pasta" or "slirp4netns"')
    return str(command)


def _registry(path: str, table: dict[str, object]) -> Registry:
    location = _location(path, "registry.location", table.get("location", ""))
    prefix = _location(path, "registry.prefix", table.get("prefix") or location)
    if not prefix:
        raise _wrong(path, "registry", "a table with prefix or location")
    wildcard = prefix.startswith("*.")
    if "*" in prefix[1 if wildcard else 0 :] or (wildcard and "/" in prefix):
        raise _wrong(path, "registry.prefix", "host[:port][/path] or *.host")
    if "@" in prefix or (":" in prefix.rpartition("/")[2] and "/" in prefix):
        # The format allows it; ignoring it would lift a block that somebody wanted.
        raise _wrong(path, "registry.prefix", "a prefix without tag and digest")
    if not location and not wildcard:
        raise _wrong(path, f"registry {prefix}", "a table with location")
    by_digest_only = _flag(path, table, "mirror-by-digest-only")
    return Registry(
        prefix=prefix,
        location=location,
        insecure=_flag(path, table, "insecure"),
        blocked=_flag(path, table, "blocked"),
        mirrors=tuple(
            _mirror(path, mirror, by_digest_only)
            for mirror in _tables(path, table.get("mirror", []))
        ),
    )


def _mirror(path: str, table: dict[str, object], by_digest_only: bool) -> Mirror:
    location = _location(path, "registry.mirror.location", table.get("location", ""))
    if not location or "@" in location:
        raise _wrong(path, "registry.mirror", "a table with location")
    pull_for = table.get("pull-from-mirror") or ("digest-only" if by_digest_only else "all")
    if pull_for not in _PULL_FROM_MIRROR:
        raise _wrong(path, "pull-from-mirror", " or ".join(_PULL_FROM_MIRROR))
    return Mirror(location, _flag(path, table, "insecure"), str(pull_for))


def _location(path: str, key: str, value: object) -> str:
    """Check host[:port][/path] and return it without a slash at the end."""
    if not isinstance(value, str):
        raise _wrong(path, key, "a string")
    if "://" in value:
        raise _wrong(path, key, "host[:port][/path] without a scheme")
    if any(character.isspace() or character in "?#%\\" for character in value):
        raise _wrong(path, key, "host[:port][/path]")
    return value.rstrip("/")


def _flag(path: str, table: dict[str, object], key: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise _wrong(path, key, "true or false")
    return value


def _tables(path: str, value: object) -> list[dict[str, object]]:
    if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
        raise _wrong(path, "registry", "an array of tables")
    return value


def _table(path: str, key: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _wrong(path, key, "a table")
    return value


def _match(prefix: str, name: str) -> int | None:
    """Return how many characters of name the prefix covers, None when it does not match."""
    if prefix.startswith("*."):
        host = name.partition("/")[0]
        end = host.find(prefix[1:])
        if end <= 0:
            return None
        end += len(prefix) - 1
        return end if end == len(host) or host[end] == ":" else None
    if not name.startswith(prefix):
        return None
    boundary = len(name) == len(prefix) or name[len(prefix)] in ":/"
    return len(prefix) if boundary else None


def _source(name: str, insecure: bool) -> Source:
    registry, _, repository = name.partition("/")
    return Source(registry, repository, insecure)


def _wrong(path: str, key: str, expected: str) -> UsageError:
    return UsageError(
        f"{path}: {key} is not {expected}",
        hint=f"edit {path}, or see man containers-registries.conf",
    )
