"""The table of groups: what the benchmark compares."""

from __future__ import annotations

import pytest

from bench import __main__ as command
from bench.work import Group, contestant, pair

GROUPS = [group for section in command.ALL for group in section.groups]
_MOST_S = 20 * 60


def test_a_key_names_one_group_or_one_section() -> None:
    groups = [group.key for group in GROUPS]
    assert len(groups) == len(set(groups))
    for section in command.ALL:
        # The group that stands for all of a section may have its name.
        others = {group.key for group in GROUPS} - {group.key for group in section.groups}
        assert section.key not in others


def test_all_limits_together_leave_time_to_prepare() -> None:
    assert sum(group.limit_s for group in GROUPS) < _MOST_S


def test_the_short_table_names_groups() -> None:
    assert set(command.SHORT) <= {group.key for group in GROUPS}


@pytest.mark.parametrize("group", GROUPS, ids=[group.key for group in GROUPS])
def test_each_group_sets_ours_against_a_peer(group: Group) -> None:
    ours, peer = (each.name for each in group.contestants[:2])
    assert ours.startswith("rp")
    assert not peer.startswith("rp")
    assert len({each.name for each in group.contestants}) == len(group.contestants)
    assert "|" not in group.title
    assert 0 < group.least_rounds <= group.rounds
    words = [
        word
        for each in group.contestants
        for argv in (each.argv, *each.before, *each.after)
        for word in argv
    ]
    assert not [word for word in words for name in ("p", "run", "detach", "name")
                if f"{{{name}}}" in word]  # fmt: skip


def test_a_line_is_split_like_a_shell_does_and_programs_are_filled_in() -> None:
    rp, podman = pair("{p} exec c sh -c 'a b'", before="{run} x", after="{detach} y")
    assert rp.argv == ("rp", "exec", "c", "sh", "-c", "a b")
    assert rp.before == (("sh", "-c", "rp run x"),)
    assert podman.argv[:2] == ("podman", "--events-backend=none")
    assert podman.after[0][2].endswith("--log-driver=none -d y")


def test_a_shell_s_line_is_left_as_it_is() -> None:
    found = contestant("crun", "{name} list | wc -c", shell=True)
    assert found.argv == ("sh", "-c", "crun list | wc -c")
    assert found.before == found.after == ()
