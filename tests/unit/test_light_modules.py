"""What stands in for ctypes, json and socket does what they do."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy import light_ctypes, light_json, light_modules, light_socket

if TYPE_CHECKING:
    from collections.abc import Callable

TEXTS = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, st.booleans(), st.booleans())
def test_what_is_written_is_what_json_writes(value: Any, compact: bool, plain: bool) -> None:
    separators = (",", ":") if compact else (", ", ": ")
    wanted = json.dumps(value, separators=separators, ensure_ascii=plain)
    assert light_json.dumps(value, separators=separators, ensure_ascii=plain) == wanted
    assert repr(light_json.loads(wanted)) == repr(json.loads(wanted))


ROWS = st.lists(
    st.fixed_dictionaries({"a": VALUES, "%s": TEXTS, "c": st.lists(TEXTS, max_size=2)}), max_size=4
)


@given(VALUES | ROWS | st.lists(ROWS, max_size=2))
def test_what_is_indented_is_what_json_indents(value: Any) -> None:
    assert light_json.indented(value, "  ") == json.dumps(value, indent=2)


@given(st.dictionaries(TEXTS, st.integers(), max_size=5))
def test_keys_are_sorted_when_that_is_asked_for(value: dict[str, int]) -> None:
    assert light_json.dumps(value, sort_keys=True) == json.dumps(value, sort_keys=True)


@pytest.mark.parametrize(
    "document",
    ["", " ", "{", "[1,]", '{"a" 1}', '"\\ud800"', "nul", "1 2", '{"a":1}x', '"\x00"', "\ufeff1",
     b"\xff\xfe1\x00", b'"\xff"', b"[1]", " [1]\n", "[1e999]", "NaN", "\u00a01", '{"a":1,"a":2}'],
)  # fmt: skip
def test_what_is_read_or_refused_is_what_json_reads_or_refuses(document: str | bytes) -> None:
    assert outcome(light_json.loads, document) == outcome(json.loads, document)


def outcome(loads: Callable[[str | bytes], object], document: str | bytes) -> str:
    """Return what a document is, or why it is refused."""
    try:
        return repr(loads(document))
    except ValueError as error:
        return f"refused: {error}"


def test_pairs_and_constants_are_passed_on() -> None:
    def refuse(word: str) -> None:
        raise ValueError(word)

    assert light_json.loads('{"a": [{"b": 1}]}', object_pairs_hook=list) == [("a", [[("b", 1)]])]
    with pytest.raises(ValueError, match="NaN"):
        light_json.loads('{"a": NaN}', parse_constant=refuse)


def test_nested_too_deeply_is_a_recursion_error() -> None:
    with pytest.raises(RecursionError):
        light_json.loads("[" * 100_000)


def test_what_json_refuses_to_write_is_refused() -> None:
    with pytest.raises(TypeError):
        light_json.dumps({"a": object()})
    with pytest.raises(ValueError, match="Out of range"):
        light_json.dumps([float("inf")], allow_nan=False)


def test_sockets_accept_and_close() -> None:
    with light_socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(b"\0" + os.urandom(8).hex().encode())
        listener.listen(1)
        with light_socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(listener.getsockname())
            accepted, _ = listener.accept()
            with accepted:
                assert type(accepted) is light_socket.socket
                assert not os.get_inheritable(accepted.fileno())
                client.send(b"hello")
                assert accepted.recv(10) == b"hello"
            assert accepted.fileno() == -1
            assert client.recv(10) == b""


def test_pairs_are_connected() -> None:
    one, other = light_socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        assert one.type == socket.SOCK_SEQPACKET
        assert not os.get_inheritable(one.fileno())
        one.send(b"hello")
        assert other.recv(10) == b"hello"


def test_numbers_are_those_of_the_packages() -> None:
    for name in ("SIGTERM", "SIGKILL", "SIG_BLOCK", "SIG_DFL"):
        assert getattr(light_modules.signal, name) == getattr(signal, name)
    for name in ("AF_UNIX", "SOCK_SEQPACKET", "SCM_RIGHTS", "MSG_CMSG_CLOEXEC"):
        assert getattr(light_socket, name) == getattr(socket, name)


@pytest.mark.parametrize(
    "name",
    ["c_char", "c_uint8", "c_int16", "c_uint16", "c_ushort", "c_int", "c_int32", "c_uint",
     "c_uint32", "c_long", "c_ulong", "c_size_t", "c_int64", "c_uint64", "c_char_p", "c_void_p"],
)  # fmt: skip
def test_types_are_those_of_ctypes(name: str) -> None:
    light, real = getattr(light_ctypes, name), getattr(ctypes, name)
    assert (light._type_, ctypes.sizeof(light)) == (real._type_, ctypes.sizeof(real))


def test_functions_of_a_library_are_called_and_tell_errno() -> None:
    libc = light_ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = light_ctypes.c_long
    assert libc.getpid() == os.getpid()
    assert light_ctypes.PyDLL(None).getpid() == os.getpid()
    assert libc.close(light_ctypes.c_int(-1)) == -1
    assert light_ctypes.get_errno() == ctypes.get_errno() == errno.EBADF
    with pytest.raises(AttributeError, match="no_such_function"):
        libc.no_such_function()
    with pytest.raises(OSError, match="libmissing"):
        light_ctypes.CDLL("libmissing.so.7")


def test_buffers_are_those_of_ctypes() -> None:
    for arguments in ((b"a\0b",), (b"ab", 2), (b"ab", 5), (3,)):
        light = light_ctypes.create_string_buffer(*arguments)
        assert light.raw == ctypes.create_string_buffer(*arguments).raw
    text = light_ctypes.create_string_buffer(b"one\0two")
    address = light_ctypes.addressof(text)
    assert light_ctypes.string_at(address) == b"one"
    assert light_ctypes.string_at(address, 7) == b"one\0two"


def test_modules_are_imported_by_whom_they_are_asked_for() -> None:
    for name in ("ctypes", "json", "signal", "socket", "struct"):
        module = getattr(light_modules, name)
        assert module.__name__ in {f"rootlesspy.light_{name}", f"_{name}"}
    with pytest.raises(AttributeError, match="no attribute 'selectors'"):
        getattr(light_modules, "selectors")  # noqa: B009
