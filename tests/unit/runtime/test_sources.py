"""What a container mounts of its caller's: where links are followed, and where not."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.runtime import sources

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def _bind(source: Path) -> dict[str, object]:
    return {"type": "bind", "source": str(source), "destination": "/x", "options": ["rbind"]}


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    (tmp_path / "volumes/db/_data").mkdir(parents=True)
    (tmp_path / "outside/_data").mkdir(parents=True)
    # The user's own way to the store may be a link.
    os.symlink(tmp_path / "volumes", tmp_path / "way")
    return tmp_path / "way"


def test_binds_are_opened_once_each(tmp_path: Path) -> None:
    os.symlink(tmp_path, tmp_path / "link")
    mounts: list[Mapping[str, object]] = [
        _bind(tmp_path),
        _bind(tmp_path / "link"),
        _bind(tmp_path),
        {"type": "tmpfs", "source": "tmpfs", "destination": "/t", "options": ["nosuid"]},
    ]
    opened = sources.open_all(mounts)
    assert list(opened) == [str(tmp_path), str(tmp_path / "link")]
    inodes = {os.fstat(fd).st_ino for fd in opened.values()}
    assert inodes == {tmp_path.stat().st_ino}
    for fd in opened.values():
        assert not os.get_inheritable(fd)
        os.close(fd)
    with pytest.raises(FileNotFoundError) as raised:
        sources.open_all([_bind(tmp_path / "gone")])
    assert raised.value.filename == str(tmp_path / "gone")


@pytest.mark.parametrize("planted", ["db/_data", "db"])
def test_ghsa_8688_no_link_leads_to_a_volume(volumes: Path, tmp_path: Path, planted: str) -> None:
    mounts = [_bind(volumes / "db/_data")]
    opened = sources.open_all(mounts, str(volumes))
    assert os.fstat(opened[mounts[0]["source"]]).st_ino == (volumes / "db/_data").stat().st_ino  # type: ignore[index]
    for fd in opened.values():
        os.close(fd)
    os.rename(volumes / planted, tmp_path / "kept")
    os.symlink(tmp_path / "outside" / ("_data" if "/" in planted else ""), volumes / planted)
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the number is what counts
        sources.open_all(mounts, str(volumes))
    assert raised.value.errno in (errno.ENOTDIR, errno.ELOOP)
    assert raised.value.filename == mounts[0]["source"]
    # What shows that it would have led outside.
    for fd in sources.open_all(mounts).values():
        assert os.fstat(fd).st_ino == (tmp_path / "outside/_data").stat().st_ino
        os.close(fd)
