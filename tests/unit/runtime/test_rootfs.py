"""How mount options are understood."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.linux import mount
from rootlesspy.runtime.rootfs import parse_options


def test_flags_data_and_propagation_are_sorted() -> None:
    options = parse_options(["rbind", "ro", "nosuid", "rslave", "size=5m", "huge", "rnoexec"])
    assert options.bind
    assert options.recursive_bind
    assert options.set_flags == mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID
    assert options.recursive_set == mount.MOUNT_ATTR_NOEXEC
    assert options.propagation == mount.MS_SLAVE
    assert options.data == ((b"size", b"5m"), (b"huge", None))


def test_recursive_read_only_is_not_the_plain_one() -> None:
    assert parse_options(["rro"]).recursive_set == mount.MOUNT_ATTR_RDONLY
    assert parse_options(["rro"]).set_flags == 0
    assert parse_options(["ro"]).recursive_set == 0


def test_access_time_modes_replace_each_other() -> None:
    options = parse_options(["noatime"])
    assert options.set_flags == mount.MOUNT_ATTR_NOATIME
    # mount_setattr(2) wants the whole field cleared when one mode of it is set.
    assert options.clear_flags == mount.MOUNT_ATTR__ATIME


@given(st.lists(st.sampled_from(["ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec"])))
def test_no_flag_is_both_set_and_cleared(options: list[str]) -> None:
    parsed = parse_options(options)
    assert parsed.set_flags & parsed.clear_flags == 0
