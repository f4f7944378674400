"""Foreign functions by the C half of the package ctypes, which makes much that we do not use: 3 ms.

What is here is what our modules use.  Type checkers see the package.
"""

from __future__ import annotations

from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctypes import *  # noqa: F403
else:
    from _ctypes import (
        FUNCFLAG_CDECL,
        FUNCFLAG_PYTHONAPI,
        FUNCFLAG_USE_ERRNO,
        POINTER,  # noqa: F401
        CFuncPtr,
        Structure,  # noqa: F401
        _SimpleCData,
        _string_at_addr,
        addressof,  # noqa: F401
        byref,  # noqa: F401
        dlopen,
        get_errno,  # noqa: F401
        set_errno,  # noqa: F401
        sizeof,
    )

    def _simple(name, code):
        return type(_SimpleCData)(name, (_SimpleCData,), {"_type_": code})

    def _functions(flags, result):
        return type(CFuncPtr)("_FuncPtr", (CFuncPtr,), {"_flags_": flags, "_restype_": result})

    c_char = _simple("c_char", "c")
    c_uint8 = _simple("c_ubyte", "B")
    c_int16 = _simple("c_short", "h")
    c_ushort = c_uint16 = _simple("c_ushort", "H")
    c_int = c_int32 = _simple("c_int", "i")
    c_uint = c_uint32 = _simple("c_uint", "I")
    c_long = _simple("c_long", "l")
    c_ulong = c_size_t = _simple("c_ulong", "L")
    c_int64 = c_long if sizeof(c_long) == 8 else _simple("c_longlong", "q")
    c_uint64 = c_ulong if sizeof(c_long) == 8 else _simple("c_ulonglong", "Q")
    c_char_p = _simple("c_char_p", "z")
    c_void_p = _simple("c_void_p", "P")

    class CDLL:
        """A loaded library; its functions are attributes, looked up when they are used first."""

        _flags = FUNCFLAG_CDECL

        def __init__(self, name, *, use_errno=False):
            flags = self._flags | FUNCFLAG_USE_ERRNO if use_errno else self._flags
            self._function = _functions(flags, c_int)
            # What CFuncPtr asks a library for.
            self._handle = dlopen(name, 0)

        def __getattr__(self, name):
            function = self._function((name, self))
            function.__name__ = name
            setattr(self, name, function)
            return function

    class PyDLL(CDLL):
        """A library whose functions keep the interpreter's lock."""

        _flags = FUNCFLAG_CDECL | FUNCFLAG_PYTHONAPI

    pythonapi = PyDLL(None)

    def create_string_buffer(init, size=None):
        """Return an array of as many characters as asked for, or of some bytes and a NUL."""
        if isinstance(init, int):
            return (c_char * init)()
        buffer = (c_char * (len(init) + 1 if size is None else size))()
        buffer.value = init
        return buffer

    def string_at(address, size=-1):
        """Return so many bytes at an address, or those up to a NUL."""
        return _string_at(address, size)

    _string_at = _functions(PyDLL._flags, _simple("py_object", "O"))(_string_at_addr)
    _string_at.argtypes = (c_void_p, c_int)
