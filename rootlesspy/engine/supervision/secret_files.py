"""The secrets of a container at its start: files in its runtime directory, or variables.

The runtime directory is a tmpfs that ends with the session; nothing of a secret is in the spec on
disk.  Loaded for containers that have one.
"""

from __future__ import annotations

import os

from rootlesspy.engine import idmap, secret
from rootlesspy.engine.inputs import secret_values
from rootlesspy.engine.inputs.request import SecretUse
from rootlesspy.errors import Error, NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import pathrs, userns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.oci.runtime_spec import Mount, Spec
    from rootlesspy.paths import Paths

_DIRECTORY = "secrets"
_CREDENTIALS = "CREDENTIALS_DIRECTORY"


def resolve(paths: Paths, uses: Sequence[SecretUse]) -> list[SecretUse]:
    """Return the uses with their secrets' ids.  Raises NotFound, Conflict."""
    return [
        use._replace(id=secret.find(paths, use.name).id) if use.source == "store" else use
        for use in uses
    ]


def mounts(uses: Sequence[SecretUse], directory: str) -> tuple[Mount, ...]:
    """Return the mounts of files below a container's runtime directory, /run/secrets as one."""
    found: list[Mount] = []
    files = [use for use in uses if use.kind == "mount"]
    if any(_below_directory(use) for use in files):
        found.append(_bind(f"{directory}/{_DIRECTORY}", secret_values.DIRECTORY))
    found += [
        _bind(_source(directory, number), use.target)
        for number, use in enumerate(files)
        if not _below_directory(use)
    ]
    return tuple(found)


def provide(paths: Paths, found: ContainerRecord, spec: Spec, maps: IdMaps) -> None:
    """Write the files of a container's secrets and put variables into the spec in memory.

    Raises NotFound when a secret is gone, UsageError for an id that is not mapped, OSError.
    """
    uses = [SecretUse(*each) for each in found.secrets]  # type: ignore[arg-type]  # as kept
    directory = paths.container_runtime(found.id)
    os.makedirs(directory, 0o700, exist_ok=True)
    for name in os.listdir(directory):
        if name == _DIRECTORY or name.startswith(f"{_DIRECTORY}-"):
            _remove(directory, name)
    _directory(f"{directory}/{_DIRECTORY}")
    owned: list[tuple[str, SecretUse]] = []
    files = [use for use in uses if use.kind == "mount"]
    for number, use in enumerate(files):
        _check_ids(use, maps)
        path = _source(directory, number)
        if _below_directory(use):
            path = f"{directory}/{_DIRECTORY}/{use.target[len(secret_values.DIRECTORY) + 1 :]}"
        _write(path, f"{directory}/{_DIRECTORY}", _data(paths, use))
        owned.append((path, use))
    if owned:
        _give(owned, maps)
    for use in uses:
        if use.kind == "env":
            # As the kernel takes them: what is no text stays the bytes that it is.
            value = os.fsdecode(_data(paths, use))
            if "\0" in value:
                raise UsageError(
                    f"--secret {use.name}: a variable cannot hold a NUL byte",
                    hint="use it as a file: without type=env",
                )
            spec["process"]["env"] = [*spec["process"]["env"], f"{use.target}={value}"]


def _data(paths: Paths, use: SecretUse) -> bytes:
    if use.source == "store":
        try:
            return secret.data(paths, secret.find(paths, use.name).name)
        except NotFound as error:
            raise NotFound(
                f"{error.message}, which the container was made with",
                hint=f"rp secret create {use.name} FILE",
            ) from None
    directory = os.environ.get(_CREDENTIALS, "")
    try:
        with open(f"{directory}/{use.name}", "rb") as file:
            return file.read(secret.LIMIT_BYTES)
    except OSError as error:
        reason = error.strerror if directory else "the service was given none"
        raise Error(
            f"--secret {use.name}: no such systemd credential: {reason}",
            hint=f"LoadCredential={use.name}:FILE in a drop-in: systemctl --user edit SERVICE",
        ) from error


def _write(path: str, base: str, content: bytes) -> None:
    if path.startswith(f"{base}/"):
        below = os.path.relpath(os.path.dirname(path), base).split("/")
        for depth in range(len(below)):
            _directory(os.path.join(base, *below[: depth + 1]))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(fd)


def _give(owned: Sequence[tuple[str, SecretUse]], maps: IdMaps) -> None:
    def change() -> None:
        for path, use in owned:
            os.chown(path, use.uid, use.gid, follow_symlinks=False)
            os.chmod(path, use.mode)

    if idmap.owns_root(maps) and all(use.uid == use.gid == 0 for _, use in owned):
        for path, use in owned:
            os.chmod(path, use.mode)
        return
    userns.call_in_userns(maps, change)


def _check_ids(use: SecretUse, maps: IdMaps) -> None:
    for kind, number, mappings in (("uid", use.uid, maps.uids), ("gid", use.gid, maps.gids)):
        if idmap.to_host(mappings, number) is None:
            raise UsageError(
                f"--secret {use.name}: {kind} {number} is not mapped in the container",
                hint="rp unshare cat /proc/self/uid_map shows which are",
            )


def _directory(path: str) -> None:
    """Make a directory that everybody in the container may enter, whatever the umask is."""
    os.makedirs(path, exist_ok=True)
    os.chmod(path, 0o755)  # noqa: S103 - the directory around it is the user's alone


def _remove(directory: str, name: str) -> None:
    # Each directory in it is the user's own, so files of other owners can be removed.
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        pathrs.remove_tree(fd, name)
    finally:
        os.close(fd)


def _below_directory(use: SecretUse) -> bool:
    return use.target.startswith(f"{secret_values.DIRECTORY}/")


def _source(directory: str, number: int) -> str:
    return f"{directory}/{_DIRECTORY}-{number}"


def _bind(source: str, destination: str) -> Mount:
    return {
        "destination": destination,
        "type": "bind",
        "source": source,
        "options": ["bind", "rprivate", "ro", "nosuid", "nodev", "noexec"],
    }
