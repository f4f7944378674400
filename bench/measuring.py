"""One run of the benchmark: section after section; what fails is told, and the rest goes on."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from subprocess import SubprocessError
from typing import TYPE_CHECKING, Any

from rig.location import RigError

from bench import figures, tables

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from bench.work import Bench, Group, Section


# What may go wrong in a rig; all else is a defect of the benchmark.
FAILURES = (AssertionError, OSError, ValueError, SubprocessError, RigError)
# After so long, on a slow machine, groups get their fewest rounds.
_LATE_S = 14 * 60


class Run:
    """What is asked for, and what has been measured so far."""

    def __init__(self, only: Collection[str], rounds: int) -> None:
        """only has keys of groups and sections; empty means all."""
        self._only = frozenset(only)
        self._rounds = rounds
        self._load_before = load()
        self.began_s = time.monotonic()
        self.outcomes: list[figures.Outcome] = []

    def wanted(self, section: Section) -> tuple[Group, ...]:
        """Return the groups of a section that are asked for, with no more rounds than that."""
        return tuple(
            group._replace(
                rounds=min(group.rounds, self._rounds),
                least_rounds=min(group.least_rounds, self._rounds),
            )
            for group in section.groups
            if not self._only or {group.key, section.key} & self._only
        )

    def measure(self, section: Section, bench: Bench) -> None:
        """Measure a section; what of it cannot be measured is noted as failed."""
        missing = {group.key: group for group in self.wanted(section)}
        if not missing:
            return
        began_s = time.monotonic()
        say(f"{section.title}: {', '.join(missing)}")
        try:
            section.prepare(bench)
            for group, measured in section.measure(bench, self._in_time(missing.values())):
                del missing[group.key]
                self._add(figures.outcome(group, measured))
        except FAILURES as error:
            self._fail(missing.values(), str(error))
        try:
            section.finish(bench)
        except FAILURES as error:
            say(f"after {section.key}: {error}")
        say(f"{section.key} took {time.monotonic() - began_s:.0f} s")

    def fail_rest(self, sections: Iterable[Section], why: str) -> None:
        """Note that what is wanted of sections, and was not measured yet, cannot be."""
        done = {outcome.key for outcome in self.outcomes}
        for section in sections:
            self._fail([group for group in self.wanted(section) if group.key not in done], why)

    def _in_time(self, groups: Iterable[Group]) -> tuple[Group, ...]:
        if time.monotonic() - self.began_s < _LATE_S:
            return tuple(groups)
        return tuple(group._replace(limit_s=0) for group in groups)

    def _fail(self, groups: Iterable[Group], why: str) -> None:
        for group in groups:
            self._add(figures.failure(group, " ".join(why.split())[-600:]))

    def facts(self, versions: dict[str, str]) -> dict[str, Any]:
        """Say what it was measured on, and how busy that was."""
        return figures.machine_facts((self._load_before, load()), versions)

    def _add(self, outcome: figures.Outcome) -> None:
        self.outcomes.append(outcome)
        print("\n".join(tables.lines(outcome)), flush=True)


def load() -> str:
    """Return the load average of the last minute."""
    return Path("/proc/loadavg").read_text(encoding="ascii").split()[0]


def say(text: str) -> None:
    """Tell whoever watches what is going on."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
