"""The files that are bound over /etc/hosts, /etc/resolv.conf and /etc/hostname of a container.

They live in its runtime directory and are written anew at each start: the host's own may have
changed, and the directory does not survive a reboot.
"""

from __future__ import annotations

import os

from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network import addresses, resolver

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.network.driver import Selection
    from rootlesspy.paths import Paths

_HOST_FILE_BYTES = 1 << 20


def write(paths: Paths, found: ContainerRecord, hostname: str, selection: Selection) -> str:
    """Write a container's files for this start; return its resolv.conf, when it is of the host's.

    Raises UsageError, Unsupported, OSError.
    """
    directory = paths.container_runtime(found.id)
    os.makedirs(directory, 0o700, exist_ok=True)
    if "network" in found.shares and (elsewhere := _shared_directory(paths, found)):
        _write_all(directory, _shared(elsewhere, hostname, found.name))
        return ""
    contents = _contents(found.resolver, found.name, hostname, selection)
    _write_all(directory, contents)
    return contents.get("resolv.conf", "")


def write_pod(
    paths: Paths,
    pod_id: str,
    names: tuple[str, str],
    asked: dict[str, list[object]],
    selection: Selection,
) -> str:
    """Write the files of a pod, which its members take over; names are its host name and its own.

    Return its resolv.conf.  Raises as write() does.
    """
    directory = paths.container_runtime(pod_id)
    os.makedirs(directory, 0o700, exist_ok=True)
    hostname, name = names
    contents = _contents(asked, name, hostname, selection)
    _write_all(directory, contents)
    return contents.get("resolv.conf", "")


def refresh_pod(
    paths: Paths,
    pod_id: str,
    names: tuple[str, str],
    asked: dict[str, list[object]],
    selection: Selection,
) -> None:
    """Write the files of a running pod anew, as write_pod() does."""
    hostname, name = names
    _replace_all(paths.container_runtime(pod_id), _contents(asked, name, hostname, selection))


def refresh_shared(paths: Paths, found: ContainerRecord, hostname: str) -> None:
    """Take over the files of a shared network anew, those of a running container's.

    Raises OSError.
    """
    if elsewhere := _shared_directory(paths, found):
        contents = _shared(elsewhere, hostname, found.name)
        _replace_all(paths.container_runtime(found.id), contents)


def _contents(
    asked: dict[str, list[object]], name: str, hostname: str, selection: Selection
) -> dict[str, str]:
    chosen = selection.request.driver
    hosts = resolver.hosts(
        _read_host_file("/etc/hosts"),
        driver=chosen,
        addresses=selection.addresses,
        hostname=hostname,
        name=name,
        add_hosts=tuple((host, address) for host, address in _pairs(asked.get("add_hosts"))),
    )
    contents = {"hosts": hosts, "hostname": hostname + "\n"}
    found = resolv_conf(asked, selection)
    if found is not None:
        contents["resolv.conf"] = found
    return contents


def resolv_conf(asked: dict[str, list[object]], selection: Selection) -> str | None:
    """Return what resolv.conf is by the host's of this moment; None: the image's own."""
    return resolver.resolv_conf(
        _read_host_file("/etc/resolv.conf"),
        driver=selection.request.driver,
        addresses=selection.addresses,
        is_host_address=addresses.is_host_address,
        dns=_words(asked.get("dns")),
        dns_search=_words(asked.get("dns_search")),
        dns_options=_words(asked.get("dns_options")),
    )


def refresh(paths: Paths, found: ContainerRecord, hostname: str, selection: Selection) -> None:
    """Write the files of a running container anew, whose networks are others now.

    Raises as write() does.
    """
    contents = _contents(found.resolver, found.name, hostname, selection)
    _replace_all(paths.container_runtime(found.id), contents)


def replace(path: str, text: str) -> None:
    """Change a file that is bound into a container, which sees the old text or the new one.

    So it stays the same file, and is never empty or half of it.  Raises OSError.
    """
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        encoded = text.encode()
        os.pwrite(fd, encoded.ljust(os.fstat(fd).st_size, b"\n"), 0)
        os.ftruncate(fd, len(encoded))
    finally:
        os.close(fd)


def _shared_directory(paths: Paths, found: ContainerRecord) -> str:
    """Return where the files of a network's owner are; "" for one that is no container's."""
    from rootlesspy.engine.pods import sharing

    return sharing.etc_directory(paths, found)


def _shared(directory: str, hostname: str, name: str) -> dict[str, str]:
    """Take over the files of a shared network, with the container's own names (as podman)."""
    own = " ".join(dict.fromkeys(word for word in (hostname, name) if word))
    return {
        "hosts": f"{_read_host_file(f'{directory}/hosts')}127.0.0.1\t{own}\n",
        "hostname": hostname + "\n",
        "resolv.conf": _read_host_file(f"{directory}/resolv.conf"),
    }


def _write_all(directory: str, contents: dict[str, str]) -> None:
    for name, content in contents.items():
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(f"{directory}/{name}", flags, 0o600)
        os.fchmod(fd, 0o644)
        os.write(fd, content.encode())
        os.close(fd)


def _replace_all(directory: str, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        if name != "hostname":
            replace(f"{directory}/{name}", text)


def _words(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _pairs(value: object) -> list[list[str]]:
    return value if isinstance(value, list) else []


def _read_host_file(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_HOST_FILE_BYTES)
    except FileNotFoundError:
        return ""
