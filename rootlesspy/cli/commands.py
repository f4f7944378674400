"""The table of commands: what is typed, where it is, and under which heading `--help` lists it."""

from __future__ import annotations

import sys

from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONTAINERS, IMAGES, NETWORKS, SYSTEM = "Containers", "Images", "Networks", "System"
PANELS = (CONTAINERS, IMAGES, NETWORKS, SYSTEM)
GROUPS = {
    "container": "Commands for containers; each is a command of rp too.",
    "image": "Commands for images.",
    "manifest": "Commands for manifest lists: one name for the images of several platforms.",
    "volume": "Commands for volumes.",
    "network": "Commands for networks of containers.",
    "secret": "Commands for secrets: small data that only containers see.",
    "pod": "Commands for pods: containers that share namespaces and limits.",
    "healthcheck": "Check whether containers are healthy.",
    "system": "Commands for this machine and the store.",
}
# Groups within a group.
INNER_GROUPS = {
    "image trust": "Which images are accepted from where.",
}
# `rp container run` is `rp run`, as in podman; the same for images.
_ALSO_IN = {CONTAINERS: "container", IMAGES: "image"}


class Entry(NamedTuple):
    """One command; a name of several words is one of a group."""

    name: str
    module: str
    """Below rootlesspy.cli; imported when the command is typed."""
    function: str
    panel: str

    @property
    def has_payload(self) -> bool:
        """Whether everything after its first operand belongs to another program."""
        return (self.module, self.function) in _PAYLOADS


_PAYLOADS = (
    ("run", "run"),
    ("lifecycle", "create"),
    ("lifecycle", "execute"),
    ("top", "top"),
    ("pod_usage", "top"),
    ("unshare", "unshare"),
    ("oci_command", "oci"),
)

COMMANDS = (
    Entry("run", "run", "run", CONTAINERS),
    Entry("create", "lifecycle", "create", CONTAINERS),
    Entry("exec", "lifecycle", "execute", CONTAINERS),
    Entry("start", "lifecycle", "start", CONTAINERS),
    Entry("stop", "lifecycle", "stop", CONTAINERS),
    Entry("restart", "lifecycle", "restart", CONTAINERS),
    Entry("kill", "lifecycle", "kill", CONTAINERS),
    Entry("pause", "lifecycle", "pause", CONTAINERS),
    Entry("unpause", "lifecycle", "unpause", CONTAINERS),
    Entry("wait", "lifecycle", "wait", CONTAINERS),
    Entry("attach", "lifecycle", "attach", CONTAINERS),
    Entry("ps", "containers", "ps", CONTAINERS),
    Entry("rm", "containers", "rm", CONTAINERS),
    Entry("logs", "logs_command", "logs", CONTAINERS),
    Entry("enable", "units", "enable", CONTAINERS),
    Entry("disable", "units", "disable", CONTAINERS),
    Entry("unit", "units", "unit", CONTAINERS),
    Entry("update", "update", "update", CONTAINERS),
    Entry("auto-update", "auto_update", "auto_update", SYSTEM),
    Entry("plan", "definitions", "plan", CONTAINERS),
    Entry("apply", "definitions", "apply", CONTAINERS),
    Entry("delete", "definitions", "delete", CONTAINERS),
    Entry("lock", "lock", "lock", CONTAINERS),
    Entry("export-definition", "definitions", "export_definition", CONTAINERS),
    Entry("cp", "cp", "cp", CONTAINERS),
    Entry("diff", "files", "diff", CONTAINERS),
    Entry("export", "files", "export", CONTAINERS),
    Entry("commit", "files", "commit", CONTAINERS),
    Entry("rename", "container_names", "rename", CONTAINERS),
    Entry("container exists", "container_names", "exists", CONTAINERS),
    Entry("container prune", "container_names", "prune", CONTAINERS),
    Entry("inspect", "inspect_command", "inspect", CONTAINERS),
    Entry("stats", "stats", "stats", CONTAINERS),
    Entry("why", "why", "why", CONTAINERS),
    Entry("security", "security", "security", CONTAINERS),
    Entry("top", "top", "top", CONTAINERS),
    Entry("port", "port", "port", CONTAINERS),
    Entry("pod create", "pods", "create", CONTAINERS),
    Entry("pod ps", "pod_ps", "list_", CONTAINERS),
    Entry("pod ls", "pod_ps", "list_", CONTAINERS),
    Entry("pod list", "pod_ps", "list_", CONTAINERS),
    Entry("pod inspect", "pod_ps", "inspect", CONTAINERS),
    Entry("pod exists", "pod_ps", "exists", CONTAINERS),
    Entry("pod start", "pod_lifecycle", "start", CONTAINERS),
    Entry("pod stop", "pod_lifecycle", "stop", CONTAINERS),
    Entry("pod restart", "pod_lifecycle", "restart", CONTAINERS),
    Entry("pod kill", "pod_lifecycle", "kill", CONTAINERS),
    Entry("pod pause", "pod_lifecycle", "pause", CONTAINERS),
    Entry("pod unpause", "pod_lifecycle", "unpause", CONTAINERS),
    Entry("pod rm", "pod_lifecycle", "rm", CONTAINERS),
    Entry("pod prune", "pod_lifecycle", "prune", CONTAINERS),
    Entry("pod logs", "pod_usage", "logs", CONTAINERS),
    Entry("pod top", "pod_usage", "top", CONTAINERS),
    Entry("pod stats", "pod_usage", "stats", CONTAINERS),
    Entry("healthcheck run", "healthcheck", "run", CONTAINERS),
    Entry("container inspect", "inspect_command", "container_inspect", CONTAINERS),
    Entry("container ls", "containers", "ps", CONTAINERS),
    Entry("container list", "containers", "ps", CONTAINERS),
    Entry("pull", "images", "pull", IMAGES),
    Entry("images", "images", "images", IMAGES),
    Entry("rmi", "images", "rmi", IMAGES),
    Entry("tag", "image_names", "tag", IMAGES),
    Entry("untag", "image_names", "untag", IMAGES),
    Entry("history", "image_history", "history", IMAGES),
    Entry("save", "image_transfer", "save", IMAGES),
    Entry("load", "image_transfer", "load", IMAGES),
    Entry("import", "image_transfer", "import_", IMAGES),
    Entry("bootstrap", "bootstrap", "bootstrap", IMAGES),
    Entry("push", "image_push", "push", IMAGES),
    Entry("copy", "image_push", "copy", IMAGES),
    Entry("login", "login", "login", SYSTEM),
    Entry("logout", "login", "logout", SYSTEM),
    Entry("search", "login", "search", IMAGES),
    Entry("image mount", "unshare", "mount", IMAGES),
    Entry("image unmount", "unshare", "unmount", IMAGES),
    Entry("image umount", "unshare", "unmount", IMAGES),
    Entry("image diff", "files", "diff", IMAGES),
    Entry("image exists", "image_names", "exists", IMAGES),
    Entry("image inspect", "image_inspect", "inspect", IMAGES),
    Entry("image prune", "image_prune", "prune", IMAGES),
    Entry("manifest create", "manifest", "create", IMAGES),
    Entry("manifest add", "manifest", "add", IMAGES),
    Entry("manifest annotate", "manifest", "annotate", IMAGES),
    Entry("manifest inspect", "manifest", "inspect", IMAGES),
    Entry("manifest push", "manifest", "push", IMAGES),
    Entry("manifest remove", "manifest", "remove", IMAGES),
    Entry("manifest rm", "manifest", "rm", IMAGES),
    Entry("manifest exists", "manifest", "exists", IMAGES),
    Entry("image trust show", "trust", "show", IMAGES),
    Entry("image trust set", "trust", "set_", IMAGES),
    Entry("image verify", "trust", "verify", IMAGES),
    Entry("image tree", "image_history", "tree", IMAGES),
    Entry("image ls", "images", "images", IMAGES),
    Entry("image list", "images", "images", IMAGES),
    Entry("image rm", "images", "rmi", IMAGES),
    Entry("volume create", "volumes", "create", SYSTEM),
    Entry("volume ls", "volumes", "ls", SYSTEM),
    Entry("volume list", "volumes", "ls", SYSTEM),
    Entry("volume inspect", "volumes", "inspect", SYSTEM),
    Entry("volume rm", "volumes", "rm", SYSTEM),
    Entry("volume remove", "volumes", "rm", SYSTEM),
    Entry("volume prune", "volumes", "prune", SYSTEM),
    Entry("volume exists", "volumes", "exists", SYSTEM),
    Entry("network create", "networks", "create", NETWORKS),
    Entry("network ls", "network_ls", "ls", NETWORKS),
    Entry("network list", "network_ls", "ls", NETWORKS),
    Entry("network inspect", "network_ls", "inspect", NETWORKS),
    Entry("network rm", "networks", "rm", NETWORKS),
    Entry("network remove", "networks", "rm", NETWORKS),
    Entry("network connect", "networks", "connect", NETWORKS),
    Entry("network disconnect", "networks", "disconnect", NETWORKS),
    Entry("network exists", "networks", "exists", NETWORKS),
    Entry("network prune", "networks", "prune", NETWORKS),
    Entry("network reload", "networks", "reload", NETWORKS),
    Entry("network update", "networks", "update", NETWORKS),
    Entry("secret create", "secrets", "create", SYSTEM),
    Entry("secret ls", "secrets", "ls", SYSTEM),
    Entry("secret list", "secrets", "ls", SYSTEM),
    Entry("secret inspect", "secrets", "inspect", SYSTEM),
    Entry("secret rm", "secrets", "rm", SYSTEM),
    Entry("secret exists", "secrets", "exists", SYSTEM),
    Entry("doctor", "doctor", "doctor", SYSTEM),
    Entry("events", "events", "events", SYSTEM),
    Entry("system install-units", "units", "install_units", SYSTEM),
    Entry("fsck", "store", "fsck", SYSTEM),
    Entry("system df", "store", "df", SYSTEM),
    Entry("system prune", "store", "prune", SYSTEM),
    Entry("system check", "store", "fsck", SYSTEM),
    Entry("unshare", "unshare", "unshare", SYSTEM),
    Entry("oci", "oci_command", "oci", SYSTEM),
    Entry("info", "system", "info", SYSTEM),
    Entry("version", "system", "version", SYSTEM),
)


def top_level() -> tuple[Entry, ...]:
    """Return the commands that are one word."""
    return tuple(entry for entry in COMMANDS if " " not in entry.name)


def of_group(group: str) -> tuple[Entry, ...]:
    """Return the commands of a group under the word that follows it, its own before shared ones."""
    found: dict[str, Entry] = {}
    for entry in COMMANDS:
        first, _, last = entry.name.rpartition(" ")
        if first == group:
            found[last] = entry._replace(name=last)
    for entry in top_level():
        if _ALSO_IN.get(entry.panel) == group:
            found.setdefault(entry.name, entry)
    return tuple(found.values())


def typed(words: Sequence[str]) -> tuple[Entry, int] | None:
    """Return the command that words begin with, and of how many words its name is."""
    group = ""
    for count, word in enumerate(words, 1):
        name = f"{group} {word}".lstrip()
        if name in GROUPS or name in INNER_GROUPS:
            group = name
            continue
        entries = of_group(group) if group else top_level()
        found = next((entry for entry in entries if entry.name == word), None)
        return None if found is None else (found, count)
    return None


def function(entry: Entry) -> Callable[..., Any]:
    """Import what carries a command out."""
    module = f"rootlesspy.cli.{entry.module}"
    __import__(module)
    return cast("Callable[..., Any]", getattr(sys.modules[module], entry.function))


def docstrings(entries: Sequence[Entry]) -> list[str]:
    """Return what the functions of commands say they do, without running their modules (PEP 302).

    To import all modules for one line of each takes 100 ms.
    """
    path = sys.modules[__package__].__path__
    constants: dict[str, Any] = {}
    for module in {entry.module for entry in entries}:
        name = f"{__package__}.{module}"
        specs = (finder.find_spec(name, path) for finder in sys.meta_path)
        loader: Any = next(spec for spec in specs if spec is not None).loader
        constants[module] = loader.get_code(name).co_consts
    found = []
    for entry in entries:
        codes = (each for each in constants[entry.module] if hasattr(each, "co_name"))
        code: Any = next(code for code in codes if code.co_name == entry.function)
        found.append(cast("str", code.co_consts[0]))
    return found


def documented() -> tuple[str, ...]:
    """Return the names that have a manual page: of each command the first one in the table."""
    places: dict[tuple[str, str], str] = {}
    for entry in COMMANDS:
        places.setdefault((entry.module, entry.function), entry.name)
    return tuple(places.values())
