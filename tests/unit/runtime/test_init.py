"""The plan of a container's first process that was born before it: through a file in memory."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.linux import process, tun
from rootlesspy.runtime import create, init, rootfs, sync

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOTS = (
    rootfs.Overlay(lower=("/a", "/b"), upper="/u", work="/w", volatile=True),
    rootfs.FuseOverlay(program="/f", lower=("/a",), upper="/u", work="/w"),
    rootfs.Directory("/r"),
)


def plan(root: object) -> init.Plan:
    return init.Plan(
        spec={"process": {"args": ["a\udcff", ""], "terminal": False}, "mounts": []},  # type: ignore[typeddict-item]
        root=root,  # type: ignore[arg-type]
        merged="/m",
        user="1:2",
        group_add=("3",),
        make_cwd=True,
        owns_root=True,
        set_groups=False,
        loopback=True,
        filter=bytes(range(256)),
        own_stdio=False,
        debug=False,
        began_ns=2**62,
    )


@pytest.mark.parametrize("root", ROOTS, ids=lambda each: type(each).__name__)
def test_a_plan_arrives_as_it_was(root: object) -> None:
    sent = plan(root)
    fd = init.pack(sent)
    assert not os.get_inheritable(fd)
    received = init.unpack(fd)
    assert received == sent
    assert type(received.root) is type(root)


def test_a_plan_with_functions_is_not_sent() -> None:
    with pytest.raises(ValueError, match="unmarshallable"):
        init.pack(plan(ROOTS[2])._replace(hooks=print))  # type: ignore[arg-type]


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[create.Init, sync.Channel]]:
    """Yield the supervisor's view of an init whose other end is the test."""
    monkeypatch.setattr(process, "set_parent_death_signal", lambda number: None)
    ours, theirs = sync.channel_pair()
    yield create.Init(0, -1, ours, None), theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize("fails", [False, True])
def test_the_device_is_made_and_then_the_plan_comes(
    supervisor: tuple[create.Init, sync.Channel], monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    made: list[str] = []

    def make_tap(name: str) -> None:
        made.append(name)
        if fails:
            raise PermissionError(errno.EPERM, "not here")

    monkeypatch.setattr(tun, "make_tap", make_tap)
    leader, channel = supervisor
    leader.make_tap("eth0")
    leader.plan(plan(ROOTS[0]), mapped=True)
    assert leader.works
    assert init._await_maps(None, channel) == (plan(ROOTS[0]), -1)
    leader.wait_tap()
    assert (made, leader.tap) == (["eth0"], "" if fails else "eth0")


def test_a_plan_alone_is_no_go(supervisor: tuple[create.Init, sync.Channel]) -> None:
    leader, channel = supervisor
    leader.plan(plan(ROOTS[1]))
    assert not leader.works
    leader.ids_mapped()
    assert init._await_maps(None, channel) == (plan(ROOTS[1]), -1)


def test_a_supervisor_that_has_gone_is_noticed(
    supervisor: tuple[create.Init, sync.Channel],
) -> None:
    leader, channel = supervisor
    leader._channel.close()
    with pytest.raises(sync.FailedError):
        init._await_maps(None, channel)


def test_what_it_said_last_is_found_behind_what_nobody_read(
    supervisor: tuple[create.Init, sync.Channel],
) -> None:
    leader, channel = supervisor
    channel.send(sync.TAP)
    channel.send_failure(sync.Failed("mount", errno.EPERM, "/x", ""))
    found = leader.reported_failure()
    assert found is not None
    assert "cannot mount /x" in found.message
    assert leader.reported_failure() is None
