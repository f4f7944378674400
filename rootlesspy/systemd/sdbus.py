"""Bind sd-bus of libsystemd with ctypes: declarations, marshalling, reading.

Why not pystemd here: importing it costs 45-75 ms and 7 MB, more than the rest of `rp run`, and its
signature tables know neither PIDs nor Controller.  It wraps this same library.

Types of D-Bus become plain Python: integers int, b bool, s/o/g str, ay bytes, other arrays list,
structs tuple, a{..} dict.  A variant is written as the pair (signature, value) and read as its bare
value.  Manual: sd-bus(3), sd_bus_message_append_basic(3), sd_bus_message_read_basic(3).
"""

from __future__ import annotations

import os

from rootlesspy.errors import Unsupported
from rootlesspy.light_modules import ctypes
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

METHOD_RETURN, METHOD_ERROR, SIGNAL = 2, 3, 4

Handle = ctypes.c_void_p
Value = object

_NUMBERS: dict[str, type[ctypes._SimpleCData[int]]] = {
    "y": ctypes.c_uint8,
    "b": ctypes.c_int,
    "n": ctypes.c_int16,
    "q": ctypes.c_uint16,
    "i": ctypes.c_int32,
    "u": ctypes.c_uint32,
    "x": ctypes.c_int64,
    "t": ctypes.c_uint64,
    "h": ctypes.c_int,
}
_STRINGS = "sog"


class BusErrorStruct(ctypes.Structure):
    """The sd_bus_error of sd-bus.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("message", ctypes.c_char_p),
        ("need_free", ctypes.c_int),
    )


_TEXT, _INT, _U64 = ctypes.c_char_p, ctypes.c_int, ctypes.c_uint64
_OUT = ctypes.POINTER(Handle)
# sd-bus.h: name, result, arguments.
_DECLARATIONS: tuple[tuple[str, object, tuple[object, ...]], ...] = (
    ("sd_bus_new", _INT, (_OUT,)),
    ("sd_bus_set_address", _INT, (Handle, _TEXT)),
    ("sd_bus_set_bus_client", _INT, (Handle, _INT)),
    ("sd_bus_start", _INT, (Handle,)),
    ("sd_bus_is_ready", _INT, (Handle,)),
    ("sd_bus_get_fd", _INT, (Handle,)),
    ("sd_bus_get_events", _INT, (Handle,)),
    ("sd_bus_get_timeout", _INT, (Handle, ctypes.POINTER(_U64))),
    ("sd_bus_get_unique_name", _INT, (Handle, ctypes.POINTER(_TEXT))),
    ("sd_bus_process", _INT, (Handle, _OUT)),
    ("sd_bus_wait", _INT, (Handle, _U64)),
    ("sd_bus_send", _INT, (Handle, Handle, ctypes.POINTER(_U64))),
    ("sd_bus_close_unref", Handle, (Handle,)),
    ("sd_bus_message_new_method_call", _INT, (Handle, _OUT, _TEXT, _TEXT, _TEXT, _TEXT)),
    ("sd_bus_message_unref", Handle, (Handle,)),
    ("sd_bus_message_append_basic", _INT, (Handle, ctypes.c_char, Handle)),
    ("sd_bus_message_append_array", _INT, (Handle, ctypes.c_char, Handle, ctypes.c_size_t)),
    ("sd_bus_message_open_container", _INT, (Handle, ctypes.c_char, _TEXT)),
    ("sd_bus_message_close_container", _INT, (Handle,)),
    ("sd_bus_message_peek_type", _INT, (Handle, ctypes.c_char_p, ctypes.POINTER(_TEXT))),
    ("sd_bus_message_read_basic", _INT, (Handle, ctypes.c_char, Handle)),
    ("sd_bus_message_read_array", _INT, (Handle, ctypes.c_char, _OUT, ctypes.POINTER(_U64))),
    ("sd_bus_message_enter_container", _INT, (Handle, ctypes.c_char, _TEXT)),
    ("sd_bus_message_exit_container", _INT, (Handle,)),
    ("sd_bus_message_get_type", _INT, (Handle, ctypes.POINTER(ctypes.c_uint8))),
    ("sd_bus_message_get_reply_cookie", _INT, (Handle, ctypes.POINTER(_U64))),
    ("sd_bus_message_get_error", ctypes.POINTER(BusErrorStruct), (Handle,)),
    ("sd_bus_message_get_interface", _TEXT, (Handle,)),
    ("sd_bus_message_get_member", _TEXT, (Handle,)),
    ("sd_bus_message_get_path", _TEXT, (Handle,)),
    ("sd_bus_message_get_sender", _TEXT, (Handle,)),
)


def load() -> ctypes.CDLL:
    """Load libsystemd and declare what is called of it; raises Unsupported without it."""
    try:
        library = ctypes.CDLL("libsystemd.so.0")
    except OSError as error:
        raise Unsupported(
            f"libsystemd.so.0 cannot be loaded: {error}", hint="apt install libsystemd0"
        ) from error
    for name, result, arguments in _DECLARATIONS:
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


def check(result: int) -> int:
    """Return result, or raise the OSError that a negative one stands for."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def append(library: ctypes.CDLL, message: Handle, signature: str, value: Value) -> None:
    """Append one complete value; raises OSError, TypeError or ValueError for a misfit."""
    kind, inner = signature[0], signature[1:]
    if kind in _STRINGS:
        _append_text(library, message, kind, value)
    elif kind in _NUMBERS:
        if not isinstance(value, int):
            raise TypeError(f"signature {kind} takes a number, not {type(value).__name__}")
        number = _NUMBERS[kind](value)
        if number.value != value:
            raise ValueError(f"{value} does not fit signature {kind}")
        check(library.sd_bus_message_append_basic(message, kind.encode(), ctypes.addressof(number)))
    elif signature == "ay":
        data = _bytes(value)
        check(library.sd_bus_message_append_array(message, b"y", data, len(data)))
    elif kind == "v":
        contents, inside = _pair(value)
        _append_container(library, message, "v", contents, [(contents, inside)])
    elif kind == "a":
        _append_container(library, message, "a", inner, [(inner, each) for each in _items(value)])
    elif kind == "(":
        members = split(inner[:-1])
        values = _items(value)
        if len(members) != len(values):
            raise ValueError(f"{len(values)} values for signature {signature}")
        _append_container(
            library, message, "r", inner[:-1], list(zip(members, values, strict=True))
        )
    else:
        raise ValueError(f"cannot marshal signature {signature}")


def split(signature: str) -> list[str]:
    """Split a signature into its complete types: "sa(sv)u" gives ["s", "a(sv)", "u"]."""
    parts: list[str] = []
    start = depth = 0
    for index, character in enumerate(signature):
        depth += (character in "({") - (character in ")}")
        if depth == 0 and character != "a":
            parts.append(signature[start : index + 1])
            start = index + 1
    return parts


def read_all(library: ctypes.CDLL, message: Handle) -> list[Value]:
    """Read what is left in the message or in its open container."""
    values: list[Value] = []
    kind = ctypes.create_string_buffer(2)
    contents = ctypes.c_char_p()
    while check(library.sd_bus_message_peek_type(message, kind, ctypes.byref(contents))) > 0:
        values.append(_read(library, message, kind.raw[:1], contents.value or b""))
    return values


def unit_path(unit: str) -> str:
    """Return the object path of a unit (sd_bus_path_encode(3))."""
    encoded = "".join(
        character
        if character.isascii() and (character.isalpha() or (character.isdigit() and index > 0))
        else "".join(f"_{byte:02x}" for byte in character.encode())
        for index, character in enumerate(unit)
    )
    return f"/org/freedesktop/systemd1/unit/{encoded or '_'}"


def address(path: str) -> bytes:
    """Write a unix socket path as a D-Bus address (D-Bus specification, "Server Addresses")."""
    escaped = "".join(
        chr(byte)
        if chr(byte).isascii() and (chr(byte).isalnum() or byte in b"-_/.\\*")
        else f"%{byte:02x}"
        for byte in os.fsencode(path)
    )
    return f"unix:path={escaped}".encode()


def _append_text(library: ctypes.CDLL, message: Handle, kind: str, value: Value) -> None:
    if not isinstance(value, str):
        raise TypeError(f"signature {kind} takes text, not {type(value).__name__}")
    text = value.encode("utf-8")
    if b"\0" in text:
        raise ValueError("D-Bus text cannot hold a NUL character")
    check(library.sd_bus_message_append_basic(message, kind.encode(), text))


def _append_container(
    library: ctypes.CDLL,
    message: Handle,
    kind: str,
    contents: str,
    members: Sequence[tuple[str, Value]],
) -> None:
    check(library.sd_bus_message_open_container(message, kind.encode(), contents.encode()))
    for signature, value in members:
        append(library, message, signature, value)
    check(library.sd_bus_message_close_container(message))


def _read(library: ctypes.CDLL, message: Handle, kind: bytes, contents: bytes) -> Value:
    name = kind.decode()
    if name in _STRINGS:
        text = ctypes.c_char_p()
        check(library.sd_bus_message_read_basic(message, kind, ctypes.addressof(text)))
        return (text.value or b"").decode("utf-8", "surrogateescape")
    if name in _NUMBERS:
        number = _NUMBERS[name]()
        check(library.sd_bus_message_read_basic(message, kind, ctypes.addressof(number)))
        return bool(number.value) if name == "b" else number.value
    if kind == b"a" and contents == b"y":
        pointer, length = Handle(), ctypes.c_uint64()
        check(
            library.sd_bus_message_read_array(
                message, b"y", ctypes.byref(pointer), ctypes.byref(length)
            )
        )
        return ctypes.string_at(pointer.value, length.value) if pointer.value else b""
    check(library.sd_bus_message_enter_container(message, kind, contents))
    members = read_all(library, message)
    check(library.sd_bus_message_exit_container(message))
    if kind == b"v":
        return members[0]
    if kind == b"a":
        return dict(_pairs(members)) if contents.startswith(b"{") else members
    return tuple(members)


def _pairs(members: list[Value]) -> list[tuple[Value, Value]]:
    return [(pair[0], pair[1]) for pair in members if isinstance(pair, tuple)]


def _items(value: Value) -> list[Value]:
    if isinstance(value, (list, tuple)):
        return list(value)
    raise TypeError(f"an array or struct takes a list or tuple, not {type(value).__name__}")


def _pair(value: Value) -> tuple[str, Value]:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        return value[0], value[1]
    raise TypeError("a variant takes (signature, value)")


def _bytes(value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    raise TypeError(f"signature ay takes bytes, not {type(value).__name__}")
