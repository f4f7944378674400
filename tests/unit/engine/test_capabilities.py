"""engine.inputs.capabilities: podman's meaning of --cap-add, --cap-drop and --privileged."""

from __future__ import annotations

import pytest

from rootlesspy.engine.inputs import capabilities
from rootlesspy.engine.inputs.capabilities import ALL, DEFAULT
from rootlesspy.errors import UsageError


def resolve(
    add: tuple[str, ...] = (), drop: tuple[str, ...] = (), *, privileged: bool = False
) -> set[str]:
    return set(capabilities.resolve(add, drop, privileged=privileged))


def test_default_is_podmans() -> None:
    assert resolve() == {
        "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
        "CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_SETFCAP",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        pytest.param(("CAP_NET_RAW",), (), {*DEFAULT, "CAP_NET_RAW"}, id="add"),
        pytest.param((), ("CAP_CHOWN",), set(DEFAULT) - {"CAP_CHOWN"}, id="drop"),
        pytest.param(
            ("CAP_NET_RAW",),
            ("CAP_KILL",),
            {*DEFAULT, "CAP_NET_RAW"} - {"CAP_KILL"},
            id="add and drop",
        ),
        pytest.param(("ALL",), (), set(ALL), id="add all"),
        pytest.param((), ("ALL",), set(), id="drop all"),
        pytest.param(("CAP_CHOWN",), ("ALL",), {"CAP_CHOWN"}, id="drop all add one"),
        pytest.param(("ALL",), ("CAP_SYS_ADMIN",), set(ALL) - {"CAP_SYS_ADMIN"}, id="all but one"),
        pytest.param(("CAP_CHOWN", "CAP_CHOWN"), (), set(DEFAULT), id="twice"),
    ],
)
def test_options(add: tuple[str, ...], drop: tuple[str, ...], expected: set[str]) -> None:
    assert resolve(add, drop) == expected


def test_privileged_is_all_whatever_is_dropped() -> None:
    assert resolve((), ("ALL",), privileged=True) == set(ALL)


def test_only_what_the_caller_may_give() -> None:
    available = tuple(name for name in ALL if name != "CAP_KILL")
    assert "CAP_KILL" not in capabilities.resolve((), (), privileged=False, available=available)


def test_order_is_the_kernels_whatever_the_order_of_options() -> None:
    once = capabilities.resolve(("CAP_BPF", "CAP_NET_RAW"), (), privileged=False)
    again = capabilities.resolve(("CAP_NET_RAW", "CAP_BPF"), (), privileged=False)
    assert once == again == tuple(sorted(once, key=ALL.index))


@pytest.mark.parametrize(
    ("add", "drop", "message"),
    [
        pytest.param(("CAP_FLY",), (), "--cap-add: unknown capability 'CAP_FLY'", id="unknown"),
        pytest.param((), ("chown",), "--cap-drop: unknown capability 'chown'", id="not normal"),
        pytest.param(("CAP_KILL",), ("CAP_KILL",), "CAP_KILL is both added and dropped", id="both"),
        pytest.param(("ALL",), ("ALL",), "ALL is both added and dropped", id="all of both"),
    ],
)
def test_refused(add: tuple[str, ...], drop: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(add, drop)


def test_root_has_nothing_inheritable() -> None:
    sets = capabilities.for_user(DEFAULT, (), root=True)
    assert sets == (DEFAULT, DEFAULT, DEFAULT, (), ())


def test_other_user_has_a_bounding_set_only() -> None:
    assert capabilities.for_user(DEFAULT, (), root=False) == (DEFAULT, (), (), (), ())


def test_other_user_holds_what_was_asked_for() -> None:
    granted = capabilities.resolve(("CAP_NET_RAW",), (), privileged=False)
    sets = capabilities.for_user(granted, ("CAP_NET_RAW",), root=False)
    assert sets.bounding == granted
    assert sets.effective == sets.permitted == sets.inheritable == sets.ambient == ("CAP_NET_RAW",)
