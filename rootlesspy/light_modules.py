"""ctypes, json, signal, socket and struct for modules on the way of `rp run`: their C halves.

The packages import enum, re, functools and collections, whose import takes as long as that of
thirty modules of ours, or make much that we do not use.  Type checkers see the packages.
"""

from __future__ import annotations

from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes as ctypes
    import json as json
    import signal as signal
    import socket as socket
    import struct as struct
else:

    def __getattr__(name):
        """Import the one that somebody imports from here, and no other."""
        if name == "ctypes":
            try:
                from rootlesspy import light_ctypes as module
            except ImportError:
                # A Python whose C half has changed.
                import ctypes as module
        elif name == "json":
            from rootlesspy import light_json as module
        elif name == "signal":
            import _signal as module
        elif name == "socket":
            from rootlesspy import light_socket as module
        elif name == "struct":
            import _struct as module
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = module
        return module
