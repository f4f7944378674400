"""--landlock: its rules as text, and what the kernel is told of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.engine.inputs import landlock_values
from rootlesspy.engine.security import landlock
from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.linux import landlock as kernel

READ = kernel.ACCESS_FS_READ_FILE | kernel.ACCESS_FS_READ_DIR
NEWEST = 99


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("ro=/", "ro=/"),
        ("rw=/data//x/./y/", "rw=/data/x/y"),
        ("ro-noexec=/a=b", "ro-noexec=/a=b"),
        ("net=connect:443", "net=connect:443"),
        ("net=bind:0080", "net=bind:80"),
        ("net=none", "net=none"),
        ("scope=signals", "scope=signals"),
        ("scope=abstract-sockets", "scope=abstract-sockets"),
    ],
)
def test_rules_have_one_spelling(text: str, rule: str) -> None:
    assert landlock_values.parse(text, "--landlock") == rule
    assert landlock_values.parse(rule, "--landlock") == rule


@pytest.mark.parametrize(
    "text",
    [
        *("", "ro", "ro=", "ro=a", "ro=../a", "ro=/a/../b", "rx=/", "ro=/a\n", "=/", "RO=/"),
        *("net=", "net=connect", "net=connect:", "net=bind:65536", "net=none:1", "net=listen:80"),
        *("net=connect:-1", "net=connect: 1", "scope=", "scope=all", "scope"),
    ],
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--landlock"):
        landlock_values.parse(text, "--landlock")


@given(st.text())
def test_no_text_is_anything_but_a_rule_or_refused(text: str) -> None:
    try:
        rule = landlock_values.parse(text, "--landlock")
    except UsageError:
        return
    assert landlock_values.parse(rule, "--landlock") == rule
    assert landlock.compile_rules([rule], init=False, abi=NEWEST)


@pytest.mark.parametrize(
    "rules",
    [
        ("rw=/data", "ro=/data/x"),
        ("rw=/", "ro=/etc"),
        ("ro=/", "ro-noexec=/tmp"),
        ("ro=/", "rw-noexec=/tmp"),
        ("rw-noexec=/a", "ro-noexec=/a"),
        ("net=none", "net=connect:1"),
    ],
)
def test_a_rule_that_would_not_hold_is_refused(rules: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        landlock_values.check(rules)


@pytest.mark.parametrize(
    "rules",
    [
        ("ro=/", "rw=/data"),
        ("ro=/data", "rw=/database"),
        ("ro-noexec=/", "ro=/usr", "rw-noexec=/data", "rw=/data/bin"),
        ("net=connect:1", "net=bind:2", "scope=signals"),
        (),
    ],
)
def test_rules_that_give_more_inside_are_fine(rules: tuple[str, ...]) -> None:
    assert landlock_values.check(rules) == rules


def test_paths() -> None:
    rules = landlock.compile_rules(["ro=/", "rw=/data"], init=False, abi=NEWEST)
    assert rules.handled_fs == (1 << 15) - 1
    assert (rules.handled_net, rules.scoped, rules.ports) == (0, 0, ())
    first, second, *implied = rules.paths
    assert (first.path, first.access) == ("/", READ | kernel.ACCESS_FS_EXECUTE)
    assert (second.path, second.access) == ("/data", (1 << 15) - 1)
    assert all(each.optional and each.path.startswith("/dev/") for each in implied)
    assert not any(each.access & kernel.ACCESS_FS_EXECUTE for each in implied)


def test_init_can_be_executed() -> None:
    rules = landlock.compile_rules(["ro=/bin"], init=True, abi=NEWEST)
    assert rules.paths[-1].path == "/run/rp-init"
    assert rules.paths[-1].access & kernel.ACCESS_FS_EXECUTE


def test_ports() -> None:
    rules = landlock.compile_rules(
        ["net=connect:443", "net=bind:80", "net=connect:80"], init=False, abi=NEWEST
    )
    assert rules.handled_fs == 0
    assert rules.paths == ()
    assert rules.handled_net == 3
    assert rules.ports == ((443, 2), (80, 3))


def test_no_network_has_no_ports() -> None:
    rules = landlock.compile_rules(["net=none"], init=False, abi=NEWEST)
    assert (rules.handled_net, rules.ports) == (3, ())


def test_scopes() -> None:
    rules = landlock.compile_rules(
        ["scope=signals", "scope=abstract-sockets"], init=False, abi=NEWEST
    )
    assert rules.scoped == kernel.SCOPE_SIGNAL | kernel.SCOPE_ABSTRACT_UNIX_SOCKET


@pytest.mark.parametrize(
    ("rule", "abi", "message"),
    [
        ("ro=/", 0, "--landlock ro=/ needs Landlock ABI 3 (Linux 6.2); this one has none"),
        ("ro=/", 2, "--landlock ro=/ needs Landlock ABI 3 (Linux 6.2); this one has ABI 2"),
        ("net=none", 3, "needs Landlock ABI 4 (Linux 6.7)"),
        ("scope=signals", 5, "needs Landlock ABI 6 (Linux 6.12)"),
    ],
)
def test_what_the_kernel_lacks_is_an_error(rule: str, abi: int, message: str) -> None:
    with pytest.raises(Unsupported) as caught:
        landlock.compile_rules([rule], init=False, abi=abi)
    assert message in str(caught.value)
    assert landlock.compile_rules([rule], init=False, abi=6)


def test_version_of_this_kernel_is_a_number() -> None:
    assert kernel.abi() >= 0
