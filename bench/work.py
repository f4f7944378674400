"""What is compared with what: the groups, their contestants and each one's best settings.

podman: crun as its runtime, native overlay, no log and no event written (rp writes neither), and no
pids limit, which the namespace rig has no controller for.  It makes a systemd scope, as rp does.
crun carries out rp's own config.json, in a scope too.  bwrap, systemd-run and python3 are floors:
the kernel's, systemd's and the interpreter's share.
"""

from __future__ import annotations

from typing import NamedTuple

HOME = "/home/alice/bench"
TIMER = f"{HOME}/timer.py"
IMAGE = "alpine"
# The rig's registry is the mirror of docker.io.
BIG_IMAGE = "docker.io/bench/debian:latest"
SAVED = f"{HOME}/saved.tar"
STORES = f"{HOME}/stores"
_ROOTFS = f"{HOME}/bundle/rootfs"
_PODMAN = ("podman", "--events-backend=none")


class Contestant(NamedTuple):
    """One command; what is in `before` is run each time, untimed."""

    name: str
    argv: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()


class Group(NamedTuple):
    """Commands that do the same work, or a part of it."""

    key: str
    title: str
    contestants: tuple[Contestant, ...]
    rounds: int
    least_rounds: int
    limit_s: float
    """After this time no further round is begun, once there were least_rounds."""
    warm_up: bool = True
    """Begin with a round that does not count."""


def start(rounds: int, limit_s: float) -> Group:
    """Return the group that starts a container and waits for its end."""
    podman = (*_PODMAN, "run", "--rm", "--pids-limit=0", "--log-driver=none")
    # fmt: off
    contestants = (
        Contestant("rp", ("rp", "run", "--rm", IMAGE, "true")),
        Contestant("rp --network none", ("rp", "run", "--rm", "--network", "none", IMAGE, "true")),
        Contestant("podman", (*podman, IMAGE, "true")),
        Contestant("podman --network none", (*podman, "--network=none", IMAGE, "true")),
        Contestant("crun", ("crun", "--systemd-cgroup", "run", "--bundle", f"{HOME}/bundle",
                            "bench")),
        Contestant("bwrap", ("bwrap", "--unshare-all", "--ro-bind", _ROOTFS, "/", "--proc", "/proc",
                             "--dev", "/dev", "true")),
        Contestant("systemd-run --scope", ("systemd-run", "--user", "--scope", "--quiet", "true")),
        Contestant("python3 -I -S", ("python3", "-I", "-S", "-c", "pass")),
    )
    # fmt: on
    return Group("start", "start a container", contestants, rounds, 5, limit_s)


def listing(count: int, rounds: int, limit_s: float) -> Group:
    """Return the group that lists `count` stopped containers."""
    contestants = (
        Contestant("rp", ("rp", "ps", "-a")),
        Contestant("podman", (*_PODMAN, "ps", "-a")),
    )
    return Group(f"ps-{count}", f"list {count} stopped", contestants, rounds, 5, limit_s)


def pulling(image: str, key: str, rounds: int, limit_s: float) -> Group:
    """Return the group that fetches an image and unpacks it."""
    # fmt: off
    contestants = (
        _into_new_store("rp", f"rp pull --quiet {image}"),
        _into_new_store("podman", f"{' '.join(_PODMAN)} --root $store pull --quiet {image}"),
        _into_new_store(
            "skopeo + umoci",
            f"skopeo copy --quiet docker://{image} oci:$store/layout:it &&"
            " umoci unpack --rootless --image $store/layout:it $store/unpacked",
        ),
    )
    # fmt: on
    return Group(key, f"pull and unpack {image}", contestants, rounds, 3, limit_s, False)


def _into_new_store(name: str, script: str) -> Contestant:
    """Return a contestant that fills a store ($store) which is new each time, but in use.

    Nothing is removed in between: ext4 looks long for an inode where thousands were freed within
    the last minutes, which would be charged to whoever comes next.
    """
    used = {"rp": "rp images", "podman": f"{' '.join(_PODMAN)} --root $store images"}
    prepare = (
        f"store=$(mktemp -d -p {STORES}); echo $store >{STORES}/next; export XDG_DATA_HOME=$store;"
        f" {used.get(name, ':')}; sync"
    )
    run = f"store=$(cat {STORES}/next); export XDG_DATA_HOME=$store; {script}"
    return Contestant(name, ("sh", "-c", run), before=(("sh", "-c", prepare),))


def archives(rounds: int, limit_s: float) -> tuple[Group, Group]:
    """Return the groups that write a large image to an archive and bring it in again."""
    # fmt: off
    saving = (
        Contestant("rp", ("rp", "save", "-o", SAVED, BIG_IMAGE), before=(("rm", "-f", SAVED),)),
        Contestant("podman", (*_PODMAN, "save", "--quiet", "-o", SAVED, BIG_IMAGE),
                   before=(("rm", "-f", SAVED),)),
    )
    loading = (
        _into_new_store("rp", f"rp load --quiet -i {SAVED}"),
        _into_new_store("podman", f"{' '.join(_PODMAN)} --root $store load --quiet -i {SAVED}"),
    )
    # fmt: on
    return (
        Group("save", "write a docker archive", saving, rounds, 3, limit_s, False),
        Group("load", "load a docker archive", loading, rounds, 3, limit_s, False),
    )
