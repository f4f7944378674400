"""Words and keys with a meaning of their own, for those that parse nothing else."""

from __future__ import annotations

BOOLEANS = {
    "1": True, "t": True, "T": True, "true": True, "TRUE": True, "True": True,
    "0": False, "f": False, "F": False, "false": False, "FALSE": False, "False": False,
}  # fmt: skip
"""What Go's flag packages take for a boolean, and so podman and docker."""

DEFAULT_DETACH_KEYS = b"\x10\x11"
"""ctrl-p ctrl-q, as podman and docker have them."""

KEEP_GROUPS = "keep-groups"
"""As a supplementary group: those of the caller, which nobody inside gets rid of (podman)."""
