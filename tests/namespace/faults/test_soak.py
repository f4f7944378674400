"""Random commands by several workers with random kill -9; the contract afterwards (L1).

`bench/soak` does the same for an hour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from namespace.faults import driving
from rig.effort import effort

if TYPE_CHECKING:
    from rig.machine import Machine

SECONDS = effort(8, 600)


@pytest.mark.row("L1", "S1 to S6 hold after each round, nothing is left")
@pytest.mark.row("C3", "no order of commands leaves anything or hangs")
@pytest.mark.limit(4 * SECONDS + 600)
def test_l1_soak(rig: Machine, alpine: str) -> None:
    if not rig.has_root:
        pytest.skip("kills processes as root")
    job = {"seconds": SECONDS, "workers": 4, "round": min(SECONDS, 60), "seed": SECONDS}
    found = driving.drive(rig, "soaker", job, 4 * SECONDS + 500)
    assert found["failures"] == []
    assert found["commands"] > 0
