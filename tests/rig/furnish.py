"""Prepare the directories of an instance: what is written over the cached root file system."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from rig import images, recipe


def prepare(tree: Path, directory: Path) -> str:
    """Make the directory of an instance over a root file system: upper layer, real directories.

    Returns one line about the images in its registry.
    """
    for name in ("root", "work"):
        (directory / name).mkdir(parents=True)
    os.mkfifo(directory / "ready")
    (directory / "ready").chmod(0o622)
    note = furnish(tree, directory / "upper", recipe.files(), recipe.symlinks())
    for path, mode in (("home", 0o755), ("var/tmp", 0o1777), ("var/lib/containers", 0o755)):
        real = directory / "real" / path
        real.mkdir(parents=True)
        real.chmod(mode)
    make_homes(tree, directory / "real" / "home")
    return note


def furnish(tree: Path, upper: Path, files: dict[str, str], symlinks: dict[str, str]) -> str:
    """Write the files of a rig below `upper`, which will lie over `tree`.

    Returns one line about the images in its registry.
    """
    upper.mkdir()
    for path, text in files.items():
        target = _place(tree, upper, path)
        target.write_text(text, encoding="utf-8")
        target.chmod(0o755 if path.startswith("/usr/bin/") else 0o644)
    for path, link in symlinks.items():
        _place(tree, upper, path).symlink_to(link)
    for user in recipe.USERS:
        for path, line in recipe.account_lines(user).items():
            target = _place(tree, upper, path)
            if not target.exists():
                shutil.copy2(tree / path.lstrip("/"), target)
            with target.open("a", encoding="utf-8") as database:
                database.write(line)
        if user.linger:
            _place(tree, upper, f"/var/lib/systemd/linger/{user.name}").touch()
    # Only a persistent journal is split by user, and only then has `journalctl --user` anything.
    journal = _place(tree, upper, "/var/log/journal/x").parent
    journal.chmod(0o2755)
    # Newer than /usr: nothing is left to update at boot.
    for path in ("/etc/.updated", "/var/.updated"):
        _place(tree, upper, path).touch()
    return _fill_registry(tree, upper)


def make_homes(tree: Path, homes: Path) -> None:
    """Make the users' home directories below `homes`."""
    for user in recipe.USERS:
        home = homes / user.name
        shutil.copytree(tree / "etc" / "skel", home)
        home.chmod(0o700)
        for path, _directories, files in os.walk(home):
            for entry in (path, *(os.path.join(path, file) for file in files)):
                os.chown(entry, user.uid, user.uid)


def _fill_registry(tree: Path, upper: Path) -> str:
    storage = _place(tree, upper, "/var/lib/docker-registry/x").parent
    note = images.fill_registry(tree, storage)
    owner = next(
        line.split(":")
        for line in (tree / "etc/passwd").read_text(encoding="utf-8").splitlines()
        if line.startswith("docker-registry:")
    )
    for path, _directories, files in os.walk(storage):
        for entry in (path, *(os.path.join(path, file) for file in files)):
            os.chown(entry, int(owner[2]), int(owner[3]))
    return note


def _place(tree: Path, upper: Path, path: str) -> Path:
    """Return the path below upper, with the directories above it as the lower tree has them."""
    below = Path(path.lstrip("/"))
    for parent in reversed(below.parents[:-1]):
        made = upper / parent
        if made.is_dir():
            continue
        made.mkdir(mode=0o755)
        if (tree / parent).is_dir():
            shutil.copystat(tree / parent, made)
            owner = (tree / parent).stat()
            os.chown(made, owner.st_uid, owner.st_gid)
    return upper / below
