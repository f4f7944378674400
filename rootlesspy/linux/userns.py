"""User namespaces: subordinate ids, id maps, and "run this function in a user namespace".

Sources: user_namespaces(7), subuid(5), newuidmap(1).  Raises OSError only; the messages for people
are made by the callers, which know what the maps were wanted for.
"""

from __future__ import annotations

import errno
import os
import stat

from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeVar
from rootlesspy.linux import process

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_HELPER_DIRECTORIES = ("/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin")
_ID_LIMIT = 2**32 - 1
SPARE_ID = 2**32 - 2
"""The largest id: what the caller's own are in namespaces for work on files (call_in_userns)."""
MOST_LINES = 340
"""Lines that an id map can have (user_namespaces(7), since Linux 4.15)."""
_DIGITS = 10
_SUBID_FILE_LIMIT = 4 * 1024 * 1024


class IdMapping(NamedTuple):
    """One line of /proc/PID/uid_map or gid_map: `size` ids from two starts on."""

    container_id: int
    host_id: int
    size: int


class IdMaps(NamedTuple):
    """The uid map and the gid map of a user namespace."""

    uids: tuple[IdMapping, ...]
    gids: tuple[IdMapping, ...]

    def is_single(self) -> bool:
        """Say whether only one id is mapped, which needs neither helper nor subordinate ids."""
        return all(len(ids) == 1 and ids[0].size == 1 for ids in self)

    def needs_helpers(self) -> bool:
        """Say whether the maps hold more than one id of the caller's own each."""
        own = os.getuid(), os.getgid()
        return not self.is_single() or any(
            ids[0].host_id != number for ids, number in zip(self, own, strict=True)
        )


class HelperError(OSError):
    """newuidmap or newgidmap is missing or refused; filename is the program, strerror its words."""


class ForeignError(OSError):
    """A function that ran in a user namespace failed with something else than an OSError."""


class MapHelpers(NamedTuple):
    """newuidmap and newgidmap at work: (pid, program, read end of its stderr)."""

    running: tuple[tuple[int, str, int], ...]


def subordinate_ranges(path: str, name: str, number: int) -> tuple[tuple[int, int], ...]:
    """Return the (first id, count) ranges that a subuid(5) file grants to a user.

    Lines that are not name:number:number, that overflow 32 bits or repeat or overlap an earlier
    range are left out: the map must never be wider than what newuidmap would accept.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_SUBID_FILE_LIMIT)
    except FileNotFoundError:
        return ()
    owners = {os.fsencode(name), str(number).encode()}
    ranges: list[tuple[int, int]] = []
    for line in content.split(b"\n"):
        fields = line.split(b":")
        if len(fields) != 3 or fields[0] not in owners:
            continue
        if not all(each.isdigit() and len(each) <= _DIGITS for each in fields[1:]):
            continue
        start, count = int(fields[1]), int(fields[2])
        if count == 0 or start + count > _ID_LIMIT:
            continue
        if all(start + count <= first or first + size <= start for first, size in ranges):
            ranges.append((start, count))
            if len(ranges) > MOST_LINES:
                # More than any map can have: who makes one says so.
                break
    return tuple(ranges)


def start_map_helpers(pid: int, maps: IdMaps, *, keeps_groups: bool = False) -> MapHelpers:
    """Begin to write the id maps of pid's new user namespace; wait_map_helpers() ends it.

    A map of the caller's own ids alone is written directly, with setgroups(2) denied as the kernel
    demands.  keeps_groups: denied in any case, so that nobody inside gets rid of a group that shuts
    the caller out of something (CVE-2018-7169).  Raises HelperError, OSError.
    """
    if keeps_groups or not maps.needs_helpers():
        _write(f"/proc/{pid}/setgroups", "deny")
    if not maps.needs_helpers():
        for name, mappings in (("uid_map", maps.uids), ("gid_map", maps.gids)):
            _write(f"/proc/{pid}/{name}", "{} {} {}".format(*mappings[0]))
        return MapHelpers(())
    programs = (find_helper("newuidmap"), find_helper("newgidmap"))
    running = []
    for program, mappings in zip(programs, maps, strict=True):
        numbers = [str(number) for mapping in mappings for number in mapping]
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            helper = os.posix_spawn(
                program,
                [program, str(pid), *numbers],
                {"LC_ALL": "C"},
                file_actions=[(os.POSIX_SPAWN_DUP2, writer, 2)],
            )
        finally:
            os.close(writer)
        running.append((helper, program, reader))
    return MapHelpers(tuple(running))


def write_maps(pid: int, maps: IdMaps) -> None:
    """Write the id maps of pid's new user namespace without helpers.

    Needs CAP_SETUID and CAP_SETGID in the caller's namespace, as its root has.  Raises OSError.
    """
    for name, mappings in (("uid_map", maps.uids), ("gid_map", maps.gids)):
        _write(f"/proc/{pid}/{name}", "\n".join("{} {} {}".format(*each) for each in mappings))


def fits(mappings: tuple[IdMapping, ...]) -> bool:
    """Say whether the kernel takes a map, with a line for the caller too (with_caller())."""
    lines = (*mappings, IdMapping(SPARE_ID, SPARE_ID, 1))
    text = sum(len("{} {} {}\n".format(*line)) for line in lines)
    return len(lines) <= MOST_LINES and text < os.sysconf("SC_PAGE_SIZE")


def maps_caller(maps: IdMaps) -> bool:
    """Say whether the caller's own uid and gid are among the ids."""
    return _maps(maps.uids, os.getuid()) and _maps(maps.gids, os.getgid())


def with_caller(maps: IdMaps) -> IdMaps:
    """Return the maps with the caller's own ids too: as SPARE_ID where they are left out.

    Root of such a namespace may go through the caller's directories and change their owners.
    """
    return IdMaps(
        maps.uids
        if _maps(maps.uids, os.getuid())
        else (*maps.uids, IdMapping(SPARE_ID, os.getuid(), 1)),
        maps.gids
        if _maps(maps.gids, os.getgid())
        else (*maps.gids, IdMapping(SPARE_ID, os.getgid(), 1)),
    )


def _maps(mappings: tuple[IdMapping, ...], host_id: int) -> bool:
    return any(each.host_id <= host_id < each.host_id + each.size for each in mappings)


def wait_map_helpers(helpers: MapHelpers) -> None:
    """Wait until both maps are written; raise HelperError with the first helper's words."""
    failure = None
    for pid, program, reader in helpers.running:
        with open(reader, "rb") as file:
            words = file.read(4096).decode("utf-8", "replace").strip()
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 and failure is None:
            failure = HelperError(errno.EPERM, words or "failed without a message", program)
    if failure is not None:
        raise failure


def find_helper(name: str) -> str:
    """Return the absolute path of newuidmap or newgidmap.

    Raises HelperError: ENOENT when it is not installed, EPERM when it is not root's.
    """
    for directory in _HELPER_DIRECTORIES:
        path = f"{directory}/{name}"
        try:
            status = os.stat(path)
        except OSError:
            continue
        if status.st_uid != 0 or status.st_mode & stat.S_IWOTH:
            raise HelperError(errno.EPERM, "does not belong to root alone", path)
        return path
    raise HelperError(errno.ENOENT, "is not installed", name)


def helper_weakness(program: str) -> tuple[str, str]:
    """Return why a helper has no more rights than its caller, and the cure; ("", "") if it has."""
    status = os.stat(program)
    if status.st_uid != 0 or status.st_mode & stat.S_IWOTH:
        cure = f"as root: chown root:root {program}; chmod 4755 {program}"
        return "does not belong to root alone", cure
    if os.statvfs(program).f_flag & os.ST_NOSUID:
        return "is on a file system that is mounted nosuid", "mount it without nosuid"
    if not status.st_mode & stat.S_ISUID and not _has_capabilities(program):
        cure = f"as root: chmod u+s {program}"
        return "has neither the setuid bit nor file capabilities", cure
    if _no_new_privileges():
        cure = "leave away NoNewPrivileges= or the sandbox that rp runs in"
        return "gains no rights here: this process has no_new_privs set", cure
    return "", ""


def helper_hint(error: HelperError) -> str:
    """Return what cures a helper that is missing, powerless, or refuses."""
    if error.errno == errno.ENOENT:
        return "as root: apt-get install uidmap"
    try:
        _, cure = helper_weakness(error.filename)
    except OSError:
        cure = ""
    return cure or "compare /etc/subuid and /etc/subgid with: rp info"


def call_in_userns(maps: IdMaps, function: Callable[[], T]) -> T:
    """Run function as root of a new user and mount namespace and return its JSON-able value.

    The caller's own ids are mapped in any case: see with_caller().  function runs in a forked
    child: nothing that it changes in memory comes back.  Its OSError is raised here again with
    errno and filename; any other exception becomes a ForeignError.
    """
    answer, status = _answer_of(maps, function)
    return _unpack_answer(answer, status)


def execute_in_userns(maps: IdMaps, execute: Callable[[], NoReturn]) -> int:
    """Run execute, which must execve(2), as root of a new user and mount namespace.

    Returns the exit status of the program, negative for the signal that ended it.  Raises as
    call_in_userns() when it was not executed.
    """
    answer, status = _answer_of(maps, execute)
    return _unpack_answer(answer, status) if answer else status


def _answer_of(maps: IdMaps, function: Callable[[], object]) -> tuple[bytes, int]:
    """Run function in a child; return its answer, nothing if it executed, and its exit status."""
    ready_reader, ready_writer = os.pipe2(os.O_CLOEXEC)
    result_reader, result_writer = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = process.clone3(process.CLONE_NEWUSER | process.CLONE_NEWNS)
    if pid == 0:
        os.close(ready_writer)
        _serve_call(ready_reader, result_writer, function)
    os.close(pidfd)
    os.close(ready_reader)
    os.close(result_writer)
    with open(result_reader, "rb") as results:
        try:
            wait_map_helpers(start_map_helpers(pid, with_caller(maps)))
            os.write(ready_writer, b"1")
        finally:
            # Without the byte the child sees end of file and leaves.
            os.close(ready_writer)
            answer = results.read()
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return answer, status


def _serve_call(ready_fd: int, result_fd: int, function: Callable[[], object]) -> None:
    """Be the child of call_in_userns(); never returns."""
    answer: dict[str, object] = {}
    try:
        process.set_parent_death_signal(9)
        if os.read(ready_fd, 1) != b"1":
            os._exit(0)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        process.set_parent_death_signal(9)
        answer["value"] = function()
        payload = json.dumps(answer)
    except OSError as error:
        name = error.filename
        payload = json.dumps(
            {
                "errno": error.errno or errno.EIO,
                "text": error.strerror or str(error),
                "filename": os.fsdecode(name) if isinstance(name, (str, bytes)) else None,
            }
        )
    except BaseException as error:  # noqa: BLE001 - the child's last line; the parent raises it
        payload = json.dumps({"errno": 0, "text": f"{type(error).__name__}: {error}"})
    try:
        with open(result_fd, "wb") as file:
            file.write(payload.encode())
    finally:
        os._exit(0)


def _unpack_answer(answer: bytes, status: int) -> T:  # type: ignore[type-var]  # T is the caller's
    if not answer:
        raise ForeignError(errno.EIO, f"child in the user namespace ended with status {status}")
    parsed = json.loads(answer)
    if "value" in parsed:
        value: T = parsed["value"]
        return value
    if parsed["errno"]:
        raise OSError(parsed["errno"], parsed["text"], parsed["filename"])
    raise ForeignError(errno.EIO, parsed["text"])


def _has_capabilities(program: str) -> bool:
    try:
        return bool(os.getxattr(program, "security.capability"))
    except OSError:
        return False


def _no_new_privileges() -> bool:
    with open("/proc/self/status", "rb") as file:
        return b"\nNoNewPrivs:\t1\n" in file.read()


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
