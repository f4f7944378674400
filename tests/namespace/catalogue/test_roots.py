"""Names, roots and layers that are not what they should be: SECURITY.md A."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from namespace import hostile
from namespace.hostile import ACCOUNTS, OUT, UP, Host, harmless
from rig import ociimage
from rig.ociimage import Entry, directory, hard_link, symlink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine


@pytest.fixture(scope="module")
def host(rig: Machine, _fresh_start: None) -> Iterator[Host]:
    """Return the machine with canaries."""
    yield from hostile.prepare(rig)


@pytest.fixture(scope="module")
def plain(host: Host, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return an image without a trap."""
    entries = hostile.base(host.machine, tmp_path_factory.mktemp("probe"))
    image = ociimage.image([ociimage.tar([*entries, *ACCOUNTS])], {"Cmd": ["/probe"]})
    hostile.load(host.machine, {"plain": image})
    return "localhost/plain"


@pytest.mark.row("CVE-2019-18837", "the start fails; --rootfs must be a directory itself")
def test_cve_2019_18837_root_that_is_a_link(host: Host, plain: str) -> None:
    """The directory where the overlay is mounted, and others of the container, become links."""
    containers = "~/.local/share/rootlesspy/containers"
    made = host.machine.run(["rp", "create", "--net=none", "--name", "linked", plain, "/bin/ls"])
    directory_of = f"{containers}/{made.stdout.strip()}"
    for name, target in (("rootfs", "/"), ("upper", "$HOME/.canary"), ("work", OUT)):
        swap = f"cd {directory_of} && mv {name} kept && ln -s {target} {name}"
        host.machine.run(["sh", "-c", swap])
        harmless(host.one("rp", "start", "--attach", "linked"), (125,))
        host.machine.run(["sh", "-c", f"cd {directory_of} && rm {name} && mv kept {name}"])
    outcome = harmless(host.one("rp", "start", "--attach", "linked"), (0,))
    assert "probe" in outcome.stdout
    host.machine.run(["rp", "rm", "linked"])
    host.machine.run(["sh", "-c", "ln -s /tmp/rig/full ~/linked-root; ln -s / ~/linked-top"])
    for root in ("linked-root", "linked-top"):
        harmless(host.one("rp", "run", "--rm", "--rootfs", f"/home/alice/{root}", "/x"), (125,))
    host.machine.run(["sh", "-c", "rm ~/linked-root ~/linked-top"])


@pytest.mark.row("CVE-2021-29136", "the layer is refused; the store stays as it is")
def test_cve_2021_29136_entries_for_the_root_itself(host: Host, plain: str) -> None:
    store = ["sh", "-c", "cd ~/.local/share/rootlesspy && find layers images tmp | sort"]
    before = host.machine.run(store).stdout
    for entry in (
        symlink(".", "/tmp/rig/full"), hard_link("./", "etc/passwd"), symlink("/", OUT),
        symlink("", OUT), symlink("..", OUT), Entry("./", kind=ociimage.FIFO), Entry("/."),
        Entry("../x"), hard_link("h", "/"),
    ):  # fmt: skip
        image = ociimage.image([ociimage.tar([*ACCOUNTS, entry])], {"Cmd": ["/x"]})
        done = hostile.load(host.machine, {"root": image}, check=False)
        assert done.returncode == 125, entry
        assert "layer holds" in done.stderr
        assert host.machine.run(store).stdout == before, entry


@pytest.mark.row("CVE-2025-9566", "a second start finds the link inside the container")
def test_cve_2025_9566_links_left_behind_by_the_first_run(host: Host, plain: str) -> None:
    """The container moves the mounts' parents away and leaves links for the second start."""
    move = "for d in run etc l; do /bin/busybox mv /$d /$d.old; /bin/busybox ln -s {} /$d; done"
    host.machine.run(["rp", "secret", "create", "twice", "-"], input="told")
    options = ["--secret", "twice", "--secret", "twice,target=/l/s", "--name", "again"]
    for target in (OUT, UP + OUT, "/proc/self/cwd"):
        run = ["rp", "run", "--net=none", *options, plain, "sh", "-c", move.format(target)]
        harmless(host.one(*run), (0,))
        harmless(host.one("rp", "start", "--attach", "again"))
        host.machine.run(["rp", "rm", "again"])
    host.machine.run(["rp", "secret", "rm", "twice"])


@pytest.mark.row("CVE-2026-24054", "an empty root file system: exit 127 or 125")
def test_cve_2026_24054_image_without_layers(host: Host) -> None:
    configs: tuple[dict[str, Any], ...] = (
        {"Cmd": ["/probe"]},
        {"Cmd": ["sh"], "WorkingDir": "/a/b", "User": "0"},
        {"Entrypoint": [], "Cmd": []},
        {"Cmd": ["/probe"], "Volumes": {"/v": {}}},
    )
    images = {f"empty{number}": ociimage.image([], each) for number, each in enumerate(configs)}
    done = hostile.load(host.machine, images, check=False)
    if done.returncode == 0:
        commands = [["rp", "run", "--rm", "--net=none", f"localhost/{name}"] for name in images]
        for outcome in host.attempt(commands):
            harmless(outcome, (125, 127))
            assert outcome.stdout == ""
    assert "Traceback" not in done.stderr


NAMES = (
    "../../x", "a/b", ".", "..", "-x", "_x", "x" * 129, "a\nb", "a b", "ä", "a\x1b[2J", "a%2fb",
    "a:b", "a@b", "/", "a\\b",
)  # fmt: skip


@pytest.mark.row("container names", "exit 125 unless [a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
def test_crun_1_28_names_of_containers(host: Host, plain: str) -> None:
    store = ["sh", "-c", "cd ~/.local/share/rootlesspy && find . -path ./images -prune -o -print"]
    before = sorted(host.machine.run(store).stdout.splitlines())
    commands = [["rp", "run", "--rm", "--net=none", f"--name={name}", plain, "/bin/ls"]
                for name in NAMES]  # fmt: skip
    commands += [["rp", "create", "--name", name, plain] for name in NAMES[:4]]
    for name, outcome in zip([*NAMES, *NAMES[:4]], host.attempt(commands), strict=True):
        harmless(outcome, (125,))
        assert "\x1b" not in outcome.stderr, name
    assert sorted(host.machine.run(store).stdout.splitlines()) == before
    longest = host.one("rp", "run", "--rm", "--net=none", "--name", "x" * 128, plain, "/bin/ls")
    assert longest.code == 0, longest.stderr


@pytest.mark.row("CVE-2020-1726", "a volume that holds anything is left alone")
def test_cve_2020_1726_a_filled_volume_keeps_its_content(host: Host) -> None:
    image = ociimage.image([ociimage.tar(hostile_volume())], {"Volumes": {"/v": {}}, "Cmd": ["/x"]})
    hostile.load(host.machine, {"filled": image})
    host.machine.run(["rp", "volume", "create", "mine"])
    data = "~/.local/share/rootlesspy/volumes/mine/_data"
    host.machine.run(["sh", "-c", f"echo mine >{data}/f"])
    harmless(host.one("rp", "run", "--rm", "--net=none", "-v", "mine:/v", "localhost/filled"),
             (127,))  # fmt: skip
    assert host.machine.run(["sh", "-c", f"cd {data}; ls -A; cat f"]).stdout == "f\nmine\n"
    host.machine.run(["rp", "volume", "rm", "mine"])


def hostile_volume() -> list[Entry]:
    """Return files below /v, one of them with the name of the user's."""
    return [directory("v"), Entry("v/f", data=b"of the image"), symlink("v/out", OUT)]
