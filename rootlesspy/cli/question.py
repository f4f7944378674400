"""The question before something is removed that cannot be brought back."""

from __future__ import annotations

import sys

from rootlesspy.errors import Error


def agreed(warning: str) -> bool:
    """Show a warning and ask; only y or yes is consent.  Raises Error when nobody answers."""
    sys.stdout.write(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    answer = sys.stdin.readline()
    if not answer:
        sys.stdout.write("\n")
        raise Error("no answer on stdin", hint="--force asks nothing")
    return answer.strip().lower() in ("y", "yes")
