"""The groups of images: pull and unpack, save, load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import prepare
from bench.timing import timed
from bench.work import (
    BIG_IMAGE,
    HOME,
    PROGRAMS,
    Bench,
    Contestant,
    Group,
    Measured,
    Section,
    contestant,
    pair,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_SAVED = f"{HOME}/saved.tar"
_STORES = f"{HOME}/stores"
_SKOPEO = (
    "skopeo copy --quiet docker://{image} oci:$store/layout:it &&"
    " umoci unpack --rootless --image $store/layout:it $store/unpacked"
)


def _into_new_store(program: str, line: str) -> Contestant:
    """Return a contestant that fills a store ($store) which is new each time, but in use.

    Nothing is removed in between: ext4 looks long for an inode where thousands were freed within
    the last minutes, which would be charged to whoever comes next.
    """
    used = f"{PROGRAMS[program]['p']} $root images" if program in PROGRAMS else ":"
    root = "root='--root '$store" if program == "podman" else "root="
    made = (
        f"store=$(mktemp -d -p {_STORES}); echo $store >{_STORES}/next;"
        f" export XDG_DATA_HOME=$store; {root}; {used}; sync"
    )
    line = f"store=$(cat {_STORES}/next); export XDG_DATA_HOME=$store; {root}; {line}"
    return contestant(program, line, before=made, shell=True)


def _pulling(image: str) -> tuple[Contestant, ...]:
    line = f"{{p}} $root pull --quiet {image}"
    skopeo = _into_new_store("skopeo + umoci", _SKOPEO.format(image=image))
    return (_into_new_store("rp", line), _into_new_store("podman", line), skopeo)


_LOADING = tuple(
    _into_new_store(program, f"{{p}} $root load --quiet -i {_SAVED}") for program in PROGRAMS
)
# fmt: off
_GROUPS = (
    Group("pull-small", "`pull alpine`",
          _pulling("docker.io/library/alpine"), rounds=8, limit_s=25, warm_up=False),
    Group("pull", "`pull`",
          _pulling(BIG_IMAGE), rounds=5, limit_s=45, warm_up=False, goal=0.70),
    Group("save", "`save`",
          pair(f"{{p}} save --quiet -o {_SAVED} {BIG_IMAGE}", before=f"rm -f {_SAVED}"),
          rounds=5, limit_s=20, warm_up=False),
    Group("load", "`load`", _LOADING, rounds=5, limit_s=35, warm_up=False),
)
# fmt: on


def _measured(bench: Bench, groups: tuple[Group, ...]) -> Iterator[tuple[Group, Measured]]:
    big = ""
    for group in groups:
        if group.key != "pull-small" and not big:
            layer = prepare.big_image(bench)
            big = f" of {layer.bytes / 1e6:.0f} MB, {layer.files:,} files"
        if group.key in ("save", "load"):
            prepare.both(bench.machine, f"{{p}} pull --quiet {BIG_IMAGE}")
        if group.key == "load":
            bench.machine.run(
                ["sh", "-c", f"rm -f {_SAVED}; podman save --quiet -o {_SAVED} {BIG_IMAGE}"],
                timeout=300,
            )
        yield from timed(bench, (group._replace(title=group.title + big),))


IMAGES = Section("images", "Images", _GROUPS, _measured)
