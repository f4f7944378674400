"""How much a test tries: enough for every commit, much more in the nightly run (RP_NIGHTLY=1)."""

from __future__ import annotations

import os
import time

# Lines of a test's output that begin so are repeated at the end of a nightly run.
SEEN = "seen: "


def nightly() -> bool:
    """Tell whether this is the nightly run, which has hours instead of minutes."""
    return os.environ.get("RP_NIGHTLY") == "1"


def effort(each_commit: int, each_night: int) -> int:
    """Return how often, or for how many seconds, to try."""
    return each_night if nightly() else each_commit


def sampled(minutes: float) -> dict[str, float]:
    """Return the fields of a job that has more points than a night has time for.

    seconds: for how long to try points in the nightly run, by RP_NIGHTLY_MINUTES or the minutes; 0
    is for all of them.  seed: of their order, RP_SEED or another one each time, so that many nights
    see all.
    """
    minutes = float(os.environ.get("RP_NIGHTLY_MINUTES", minutes)) if nightly() else 0
    return {"seconds": 60 * minutes, "seed": int(os.environ.get("RP_SEED") or time.time())}


def tell(name: str, **counts: object) -> None:
    """Say how much of a sample was seen, for the summary of the nightly run."""
    words = ", ".join(f"{key} {value}" for key, value in counts.items())
    print(f"{SEEN}{name}: {words}", flush=True)
