"""Have groups timed inside the rig, by timer.py."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bench import work

if TYPE_CHECKING:
    from collections.abc import Iterable

_LIMIT_S = 900


def timed(
    bench: work.Bench, groups: tuple[work.Group, ...]
) -> Iterable[tuple[work.Group, work.Measured]]:
    """Time each group; whoever fails is said to have failed."""
    for group in groups:
        done = bench.machine.run(
            ["python3", "-I", "-S", work.TIMER], input=json.dumps(as_json(group)), timeout=_LIMIT_S
        )
        yield group, work.Measured(**json.loads(done.stdout))


def as_json(group: work.Group) -> dict[str, object]:
    """Return what timer.py reads."""
    return {**group._asdict(), "contestants": [each._asdict() for each in group.contestants]}
