"""A Debian image of many files through every form, beside podman's and skopeo's of the same.

Pulled, pushed, saved, loaded and copied: the same configuration, the same files with owners, modes,
times and capabilities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rig.effort import effort

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Completed, Machine

pytestmark = pytest.mark.namespace

HOST = "localhost:5000"
NAME = f"{HOST}/trip/debian:1"
STORE = "oci:$HOME/.local/share/rootlesspy/images"
# The machine's own programs as a layer, with what packages rarely have; made as root, so that
# owners are real. Sorted, and without times of the moment: one layer, however often it is made.
MAKE = r"""
set -e
rm -rf /tmp/trip; mkdir -p /tmp/trip/odd; cd /tmp/trip
: > odd/suid; chown 1000:33 odd/suid; chmod 6755 odd/suid
cp /bin/true odd/capable; setcap cap_net_raw+ep odd/capable
ln odd/suid odd/hard; ln -s /nowhere odd/link; mkfifo odd/pipe; mkdir -m 1777 odd/sticky
touch -d '2001-02-03 04:05:06.789' odd/suid
python3 - <<'END'
import os
for number in range({count}):
    directory = "many/" + str(number // 200)
    os.makedirs(directory, exist_ok=True)
    with open(directory + "/" + str(number), "w") as file:
        print(number, file=file)
END
tar --create --sort=name --numeric-owner --xattrs --xattrs-include='security.*' --format=pax \
    --pax-option=delete=atime,delete=ctime --exclude='*.so*' --file layer.tar \
    -C /tmp/trip odd many -C / usr/share/{more}
chmod 644 layer.tar
"""
COUNT, MORE = effort(1000, 13000), ("common-licenses", "perl usr/share/doc")[effort(0, 1)]
# usr and usr/share are no entries of the layer: they have the time of whoever makes them.
LISTING = r"""
cd "$root"; find . ! -path . ! -path ./usr ! -path ./usr/share \
    -printf '%p %y %m %U:%G %s %n %l %T@\n' | sort | sha256sum
find . ! -path . | wc -l; find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum
python3 -c 'import os; print(os.getxattr("odd/capable", "security.capability").hex())'; cd /
"""


@pytest.fixture(scope="module")
def debian(rig: Machine) -> Iterator[str]:
    """Push the image with skopeo and pull it with rp and podman; return its id."""
    if not rig.has_root:
        pytest.skip("makes an image as root of the rig")
    script = MAKE.replace("{count}", str(COUNT)).replace("{more}", MORE)
    rig.root(["sh", "-c", script], timeout=300)
    sh(
        rig,
        f"""rp import -q /tmp/trip/layer.tar trip
        rp push -q --tls-verify=false trip {NAME}; rp rmi trip
        rp pull -q --tls-verify=false {NAME}; podman pull -q --tls-verify=false {NAME}""",
    )
    yield image_id(rig, "rp", NAME)
    rig.root(["rm", "-rf", "/tmp/trip"])
    sh(rig, "rp rmi -af; podman rmi -af; rm -rf ~/trip", check=False)


def sh(rig: Machine, script: str, *, check: bool = True) -> Completed:
    return rig.run(["sh", "-ec", f"mkdir -p ~/trip; cd ~/trip; {script}"], check=check, timeout=300)


def image_id(rig: Machine, tool: str, name: str) -> str:
    done = rig.run([tool, "image", "inspect", "-f", "{{.Id}}", name], timeout=120)
    return str(done.stdout).strip()


def files(rig: Machine, tool: str, name: str) -> str:
    """Return a summary of all files of an image, as root of the user's namespace sees them."""
    script = f"root=$({tool} image mount {name}); {LISTING} {tool} image unmount {name} >/dev/null"
    return str(rig.run([tool, "unshare", "sh", "-ec", script], timeout=300).stdout)


def test_pulled(rig: Machine, debian: str) -> None:
    assert image_id(rig, "podman", NAME) == debian
    ours, theirs = files(rig, "rp", NAME), files(rig, "podman", NAME)
    assert ours == theirs
    assert int(ours.splitlines()[1]) > COUNT
    shown = sh(rig, f"skopeo inspect --config --raw {STORE}:{NAME} | sha256sum").stdout
    assert shown.split()[0] == debian


def test_pushed(rig: Machine, debian: str) -> None:
    sh(rig, f"rp push -q --tls-verify=false {NAME} {HOST}/trip/again:1; podman rmi -a -f")
    pulled = sh(rig, f"podman pull -q --tls-verify=false {HOST}/trip/again:1").stdout.strip()
    assert pulled == debian


def test_saved_and_loaded(rig: Machine, debian: str) -> None:
    wanted = files(rig, "rp", NAME)
    sh(rig, f"rm -f *.tar; rp save -q -o docker.tar {NAME}; podman rmi -a -f")
    sh(rig, "podman load -q -i docker.tar")
    assert sh(rig, "podman images -q --no-trunc").stdout.strip() == f"sha256:{debian}"
    sh(rig, f"rp save -q --format oci-archive -o oci.tar {NAME}")
    for archive in ("docker.tar", "oci.tar"):
        sh(rig, f"rp rmi {NAME}; rp load -q -i {archive}")
        assert image_id(rig, "rp", NAME) == debian
    assert files(rig, "rp", NAME) == files(rig, "podman", debian) == wanted


def test_copied(rig: Machine, debian: str) -> None:
    wanted = files(rig, "rp", NAME)
    sh(
        rig,
        f"""rm -rf ours theirs lay bundle
        rp copy -q --src-tls-verify=false docker://{NAME} dir:ours
        skopeo copy -q --src-tls-verify=false docker://{NAME} dir:theirs
        diff -r ours theirs; rm -rf ours theirs
        skopeo copy -q --src-tls-verify=false docker://{NAME} oci:lay:x
        rp rmi {NAME}; rp copy -q --preserve-digests oci:lay:x {NAME}""",
    )
    assert image_id(rig, "rp", NAME) == debian
    assert files(rig, "rp", NAME) == wanted


def test_umoci_unpacks_our_store(rig: Machine, debian: str) -> None:
    # umoci takes names without a colon: the same store, under another name.
    script = f"""rm -rf copy; mkdir copy; cp -r $HOME/.local/share/rootlesspy/images copy/images
        sed -i 's|{NAME}|trip|' copy/images/index.json
        umoci unpack --image copy/images:trip copy/bundle >/dev/null; root=copy/bundle/rootfs
        {LISTING}"""
    theirs = rig.run(["rp", "unshare", "sh", "-ec", f"cd ~/trip; {script}"], timeout=300).stdout
    assert theirs == files(rig, "rp", NAME)
    rig.run(["rp", "unshare", "rm", "-rf", "trip/copy"], check=False)
