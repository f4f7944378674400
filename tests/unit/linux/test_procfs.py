"""What procfs tells."""

from __future__ import annotations

from rootlesspy.linux import procfs


def test_mounts_below_a_directory() -> None:
    assert "/proc" in procfs.mounts_below("/")
    assert procfs.mounts_below("/proc/self/task") == []
    # Whole names count, and the directory itself is not below itself.
    assert "/proc" not in procfs.mounts_below("/pro")
    assert "/proc" not in procfs.mounts_below("/proc")
