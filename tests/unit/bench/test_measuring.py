"""One run of the benchmark: what fails is told, and the rest goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rig.location import RigError

from bench.measuring import Run
from bench.work import Bench, Group, Measured, Section, pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

BENCH = Bench(cast("Machine", None))
GROUPS = tuple(Group(key, key, pair("{p} ps"), 9, 5, least_rounds=4) for key in ("a", "b"))


def measure(_bench: Bench, groups: tuple[Group, ...]) -> Iterator[tuple[Group, Measured]]:
    for group in groups:
        value = float(group.rounds)
        yield group, Measured({"rp": [value], "podman": [value]}, {}, {}, {})


def measure_one(bench: Bench, groups: tuple[Group, ...]) -> Iterator[tuple[Group, Measured]]:
    yield from measure(bench, groups[:1])
    raise AssertionError("the second one broke")


def broken(_bench: Bench) -> None:
    raise RigError("no disk")


def test_groups_are_measured_in_their_order() -> None:
    run = Run([], 100)
    run.measure(Section("s", "S", GROUPS, measure), BENCH)
    assert [(each.key, each.values["rp"]) for each in run.outcomes] == [("a", [9.0]), ("b", [9.0])]


def test_no_more_rounds_than_are_asked_for() -> None:
    wanted = Run([], 2).wanted(Section("s", "S", GROUPS, measure))
    assert [(group.rounds, group.least_rounds) for group in wanted] == [(2, 2), (2, 2)]


def test_only_some_groups_or_a_section() -> None:
    section = Section("s", "S", GROUPS, measure)
    assert [group.key for group in Run(["b"], 9).wanted(section)] == ["b"]
    assert len(Run(["s"], 9).wanted(section)) == 2
    none = Run(["other"], 9)
    none.measure(section._replace(prepare=broken), BENCH)
    assert none.outcomes == []


def test_what_is_left_of_a_section_that_breaks_has_failed() -> None:
    run = Run([], 9)
    run.measure(Section("s", "S", GROUPS, measure_one, finish=broken), BENCH)
    assert [bool(each.figures) for each in run.outcomes] == [True, False]
    assert set(run.outcomes[1].failed.values()) == {"the second one broke"}


def test_a_section_that_cannot_be_prepared_has_failed() -> None:
    run = Run([], 9)
    run.measure(Section("s", "S", GROUPS, measure, prepare=broken), BENCH)
    assert [each.failed["podman"] for each in run.outcomes] == ["no disk", "no disk"]


def test_without_a_rig_what_is_missing_has_failed() -> None:
    run = Run([], 9)
    section = Section("s", "S", GROUPS, measure)
    run.measure(section._replace(groups=GROUPS[:1]), BENCH)
    run.fail_rest([section], "no  rig\n")
    assert [(each.key, each.failed) for each in run.outcomes] == [
        ("a", {}),
        ("b", {"rp": "no rig", "podman": "no rig"}),
    ]


def test_who_is_late_has_the_fewest_rounds() -> None:
    seen: list[Group] = []

    def note(_bench: Bench, groups: tuple[Group, ...]) -> Iterator[tuple[Group, Measured]]:
        seen.extend(groups)
        return iter(())

    run = Run([], 9)
    run.measure(Section("s", "S", GROUPS, note), BENCH)
    run.began_s -= 24 * 3600
    run.measure(Section("s", "S", GROUPS, note), BENCH)
    assert [group.limit_s for group in seen] == [5, 5, 0, 0]
