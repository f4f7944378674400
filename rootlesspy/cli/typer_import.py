"""Import typer without rich, which is most of what typer loads and draws boxes around its help."""

from __future__ import annotations

import sys

from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


def load() -> None:
    """Import typer, which takes a rich that cannot be imported for not installed.

    Measured on typer 0.15: 95 ms instead of 260.  Tables and progress bars import rich later.
    """
    if "typer" in sys.modules or "rich" in sys.modules:
        return
    # None makes an import fail, see importlib.
    missing: Any = None
    sys.modules["rich"] = missing
    try:
        import typer.main  # noqa: F401
    finally:
        del sys.modules["rich"]
