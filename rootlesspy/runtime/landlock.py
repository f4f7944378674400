"""The payload's Landlock rules: made before the pivot, where names are still looked up safely.

The descriptor of the ruleset goes to the supervisor too, so that whatever joins the container later
is held to the same files, whatever their names have become.
"""

from __future__ import annotations

import os
import stat

from rootlesspy.light_typing import NamedTuple
from rootlesspy.linux import landlock, pathrs


class PathRule(NamedTuple):
    """Rights for one path of the container and all below."""

    path: str
    access: int
    """landlock.ACCESS_FS_…"""
    optional: bool = False
    """Passed over where it does not exist."""


class Rules(NamedTuple):
    """All rules of a container."""

    handled_fs: int
    """The rights that are taken away where no rule gives them back; so are the next two."""
    handled_net: int
    scoped: int
    paths: tuple[PathRule, ...]
    ports: tuple[tuple[int, int], ...]
    """Port and landlock.ACCESS_NET_…"""


def make_ruleset(root_fd: int, rules: Rules) -> int:
    """Return the descriptor of a ruleset; paths are resolved below root_fd.  Raises OSError."""
    ruleset_fd = landlock.create_ruleset(rules.handled_fs, rules.handled_net, rules.scoped)
    for rule in rules.paths:
        try:
            path_fd = pathrs.open_in_root(root_fd, rule.path, os.O_PATH)
        except OSError as error:
            if rule.optional:
                continue
            raise OSError(error.errno, error.strerror, rule.path) from error
        # The kernel refuses rights that only directories have on what is none.
        is_directory = stat.S_ISDIR(os.fstat(path_fd).st_mode)
        access = rule.access if is_directory else rule.access & landlock.ACCESS_FS_FILE
        landlock.allow_path(ruleset_fd, path_fd, access)
        os.close(path_fd)
    for port, access in rules.ports:
        landlock.allow_port(ruleset_fd, port, access)
    return ruleset_fd
