"""Import typer without rich, which only `--help` needs and which is most of what typer loads."""

from __future__ import annotations

import os
import sys

from rootlesspy.cli import commands
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_HELP = ("-h", "--help", "help")


def load(words: Sequence[str]) -> None:
    """Import typer for an argv; typer takes a rich that cannot be imported for not installed.

    Measured on typer 0.15: 95 ms instead of 260, and 170 for a help text, which needs no Markdown
    and no tracebacks in colours.  Tables and progress bars import rich later.
    """
    if "typer" in sys.modules or "rich" in sys.modules:
        return
    shows_help = _shows_help(words)
    hidden: dict[str, Any] = {"rich": None}
    if shows_help:
        hidden = {"rich.markdown": _empty("Markdown"), "rich.traceback": _empty("Traceback")}
    # None makes an import fail, see importlib.
    sys.modules.update(hidden)
    try:
        import typer.main

        if shows_help:
            import typer.rich_utils  # noqa: F401
    except ImportError:
        if "typer.main" not in sys.modules:
            raise
    finally:
        for name in hidden:
            del sys.modules[name]


def _empty(name: str) -> Any:
    """Return a module in which a name stands for nothing."""
    module: Any = type(sys)(name)
    setattr(module, name, None)
    return module


def _shows_help(words: Sequence[str]) -> bool:
    """Say whether words may end in a help text; without a command it is that of a group."""
    if "_RP_COMPLETE" in os.environ:
        return False
    names = " ".join(word for word in words if not word.startswith("-"))
    groups = (*commands.GROUPS, *commands.INNER_GROUPS)
    return not names or names in groups or any(word in _HELP for word in words)
