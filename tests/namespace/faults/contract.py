"""Check the fault contract S1-S6 in the rig, as root: the same after each fault that was injected.

S1 any later command ends by itself; S2 each state file is wholly old or wholly new; S3 an image is
listed where all of it is there; S4 after `rp rm -fa; rp system prune -f` nothing is left; S5 exit
codes 125, 126, 127, 128+n and one line with its cure, never a traceback; S6 what is dead is never
said to run, and an end that nobody saw is never 0.

Sent into the rig by its text (faults/driving.py): standard library and rig/snapshot.py only.
"""

from __future__ import annotations

import glob
import json
import os
import pwd
import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

from rig import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

COMMAND_LIMIT_S = 120
SETTLE_LIMIT_S = 120.0
# Made by the first use and kept on purpose.
_KEPT = ("cache", "images", "layers")
_NOT_BEGUN = (
    "Fatal Python error: ",
    "No module named 'rootlesspy'",
    "    from rootlesspy.__main__ import main\n",
)
# What of it has ended since is no leak.
_PASSING = frozenset(("processes", "units", "runtime", "cgroups", "locks"))
_SESSION = re.compile(r"/session-[^/]+\.scope$")
_PAYLOAD = re.compile(r"/rp-([^/]+)\.scope/payload$")


def most_calls(directory: str, calls: Iterable[str]) -> dict[str, int]:
    """Return how often the busiest process made each call, of a directory that strace -ff filled.

    The directory is removed.
    """
    most = dict.fromkeys(calls, 0)
    for name in os.listdir(directory):
        with open(f"{directory}/{name}", errors="replace") as file:
            found = [line.partition("(")[0] for line in file]
        for call in most:
            most[call] = max(most[call], found.count(call))
    shutil.rmtree(directory)
    return most


# Kinds of what fsck finds.
_LEFT = ("orphan ", "half-made ")


class Contract:
    """The user whose containers are looked at, and the machine as it was without any."""

    def __init__(self, user: str = "alice", session: bool = True) -> None:
        account = pwd.getpwnam(user)
        self.user, self.uid, self.home = user, account.pw_uid, account.pw_dir
        self.store = f"{self.home}/.local/share/rootlesspy"
        self.environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": self.home,
            "USER": user,
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": f"/run/user/{self.uid}",
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path=/run/user/{self.uid}/bus",
        }
        if session:
            self._enter_session()
        self.before = self.look()

    def _enter_session(self) -> None:
        """Go where the user's own commands are: into the cgroup of the login session."""
        scopes = f"/sys/fs/cgroup/user.slice/user-{self.uid}.slice/session-*.scope/cgroup.procs"
        with open(min(glob.glob(scopes)), "w", encoding="ascii") as file:
            file.write(str(os.getpid()))

    def run(
        self, argv: list[str], limit_s: float = COMMAND_LIMIT_S, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the user; one that does not end by itself raises TimeoutExpired."""
        return self.traced(argv, limit_s, user=self.uid, group=self.uid, extra_groups=[], **options)

    def traced(
        self, argv: list[str], limit_s: float = COMMAND_LIMIT_S, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root, in the user's environment."""
        options.setdefault("env", self.environment)
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=limit_s, check=False, cwd="/", **options,
        )  # fmt: skip

    def look(self) -> dict[str, list[str]]:
        """Return what the user has on the machine, without images and without himself."""
        found = dict(snapshot.collect(self.uid))
        del found["home"]
        found["cgroups"] = [line for line in found["cgroups"] if not _SESSION.search(line)]
        found["store"] = self._kept_of_store()
        found["locks"] = self._locks()
        return found

    def _kept_of_store(self) -> list[str]:
        found = []
        for top in os.listdir(self.store) if os.path.isdir(self.store) else []:
            if top not in _KEPT:
                found += [f"{top}/{name}" for name in os.listdir(f"{self.store}/{top}")]
        return sorted(found)

    def _locks(self) -> list[str]:
        """Return who holds locks on files of the store."""
        device_inodes = set()
        for path, directories, files in os.walk(self.store):
            if path.startswith(f"{self.store}/layers"):
                directories.clear()
            for name in ("", *files):
                try:
                    status = os.lstat(f"{path}/{name}")
                except FileNotFoundError:
                    continue
                device_inodes.add(status.st_ino)
        with open("/proc/locks", encoding="ascii") as file:
            lines = [line.split() for line in file]
        return sorted(
            f"{words[1]} {words[3]} {words[4]} {words[5]}"
            for words in lines
            if len(words) > 5 and words[5].count(":") == 2
            and int(words[5].rpartition(":")[2]) in device_inodes
        )  # fmt: skip

    # --- while there are containers -------------------------------------------------------------

    def problems(self, *, images: bool = True) -> list[str]:
        """Return what is wrong now: S1, S2, S6, and with images S3."""
        try:
            return [*(self._answers() if images else ()), *self._whole_files(), *self._truth()]
        except subprocess.TimeoutExpired as error:
            return [f"S1: {error.cmd} does not end"]

    def _answers(self) -> list[str]:
        """S1, S3: images are listed, and the store is sound."""
        found = []
        for argv in (["rp", "images"], ["rp", "fsck"]):
            done = self.run(argv)
            lines = done.stdout.splitlines()
            if argv[1] == "fsck" and lines and all(each.startswith(_LEFT) for each in lines):
                # What a killed command had stored before an image needed it, or was still storing.
                self.run([*argv, "--repair"])
                done = self.run(argv)
            if done.returncode or done.stderr:
                found.append(f"S1/S3: {' '.join(argv)}: {done.returncode} {_said(done)}")
        return found

    def _whole_files(self) -> list[str]:
        """S2: every document of the store and of the runtime directory can be read."""
        found = []
        places = (self.store, f"/run/user/{self.uid}/rootlesspy")
        for path in [p for top in places for p in glob.glob(f"{top}/**/*.json", recursive=True)]:
            if "/layers/" in path or "/tmp/" in path or "/upper/" in path or "/_data/" in path:
                continue
            try:
                with open(path, encoding="utf-8") as file:
                    json.load(file)
            except FileNotFoundError:
                continue
            except ValueError as error:
                found.append(f"S2: {path}: {error}")
        return found

    def _truth(self) -> list[str]:
        """S6: what runs is said to run, and only that; it may take a moment to settle."""
        limit_s = time.monotonic() + SETTLE_LIMIT_S
        while found := self._lies():
            if time.monotonic() > limit_s:
                return found
            time.sleep(0.1)
        return []

    def _lies(self) -> list[str]:
        form = "{{.ID}}\t{{.Names}}\t{{.State}}\t{{.Status}}"
        done = self.run(["rp", "ps", "-a", "--no-trunc", "--format", form])
        if done.returncode:
            return [f"S1: rp ps: {_said(done)}"]
        found, alive = [], self.payloads()
        listed = [line.split("\t") for line in done.stdout.splitlines()]
        for identity, name, state, status in listed:
            if state in ("running", "paused") and name not in alive:
                found.append(f"S6: {name} is said to be {state}, and nothing of it runs")
            if state == "exited" and name in alive:
                found.append(f"S6: {name} is said to be exited, and runs: {alive[name]}")
            if status.startswith("Exited (0)"):
                found.append(f"S6: {name} {identity[:12]} is said to have succeeded: {status}")
        names = {name for _identity, name, _state, _status in listed}
        unlisted = sorted(alive.keys() - names)
        return [*found, *(f"S6: {name} runs, unlisted: {alive[name]}" for name in unlisted)]

    def payloads(self) -> dict[str, list[int]]:
        """Return the processes in the cgroups of containers, by the containers' names."""
        found: dict[str, list[int]] = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
                    place = file.read().strip().rpartition("0::")[2]
                with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                    is_zombie = file.read().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                continue
            match = _PAYLOAD.search(place)
            if match and not is_zombie:
                found.setdefault(match[1], []).append(int(pid))
        return found

    # --- afterwards -----------------------------------------------------------------------------

    def clear(self) -> list[str]:
        """Remove everything; return what is wrong with that, or left behind: S1, S4."""
        try:
            return [*self._removed(), *self._left()]
        except subprocess.TimeoutExpired as error:
            return [f"S1: {error.cmd} does not end"]

    def _removed(self) -> list[str]:
        found = []
        for argv in (["rp", "rm", "-fa"], ["rp", "system", "prune", "-f", "--volumes"]):
            done = self.run(argv)
            if done.returncode:
                found.append(f"S4: {' '.join(argv)}: {done.returncode} {_said(done)}")
        return found

    def _left(self) -> list[str]:
        limit_s = time.monotonic() + SETTLE_LIMIT_S
        pause_s = 0.05
        while found := self._differences():
            if time.monotonic() > limit_s:
                return found
            time.sleep(pause_s)
            pause_s = min(1.0, 2 * pause_s)
        return []

    def _differences(self) -> list[str]:
        now = self.look()
        found = []
        for kind, before in self.before.items():
            found += [f"S4: {kind}: {line}" for line in now[kind] if line not in before]
            if kind not in _PASSING:
                found += [f"S4: {kind} gone: {line}" for line in before if line not in now[kind]]
        return found


def wrong_words(done: subprocess.CompletedProcess[str], codes: tuple[int, ...]) -> list[str]:
    """S5: return what is wrong with what a disturbed command said, and how it ended."""
    if any(each in done.stderr for each in _NOT_BEGUN):
        return []  # the interpreter could not start or find rp: nothing of it has run
    if "Traceback" in done.stderr or "internal error" in done.stderr:
        return [f"S5: {_said(done)}"]
    if done.returncode < 0 or done.returncode == 128 + 9:
        return []  # it was killed itself
    lines = done.stderr.splitlines()
    if done.returncode not in codes:
        return [f"S5: exit {done.returncode}: {_said(done)}"]
    if done.returncode == 125 and not any(line.startswith("rp: ") for line in lines):
        return [f"S5: says nothing: {_said(done)}"]
    return []


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stdout + done.stderr)[-2000:]
