"""Who a payload is: SECURITY.md C, users and groups, with a real image."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Completed, Machine


class Ground(NamedTuple):
    """Alpine and a scratch directory on the machine."""

    machine: Machine
    image: str
    directory: str

    def attempt(self, *options: str, run: str) -> Completed:
        """Run a shell command in a container and return whatever came."""
        argv = ["rp", "run", "--rm", "--network", "none", *options, self.image, "sh", "-c", run]
        return self.machine.run(argv, check=False)

    def run(self, *options: str, run: str) -> str:
        done = self.attempt(*options, run=run)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)


@pytest.fixture(scope="module")
def ground(rig: Machine, alpine: str) -> Iterator[Ground]:
    directory = rig.run(["mktemp", "-d", "/tmp/identity.XXXXXX"]).stdout.strip()
    rig.run(["chmod", "755", directory])
    made = Ground(rig, alpine, directory)
    yield made
    made.run("-v", f"{directory}:/d", run="rm -rf /d/*")
    rig.run(["rmdir", directory])


PASSWD = """\
root:x:0:0:root:/root:/bin/sh
bob:x:1000:100:bob:/home/bob:/bin/sh
1001:x:0:0:a name of digits:/:/bin/sh
4294967296:x:0:0:beyond:/:/bin/sh
4294967295:x:0:0:minus one:/:/bin/sh
-1:x:0:0:minus one:/:/bin/sh
0x0:x:0:0:hexadecimal:/:/bin/sh
1_000:x:0:0:python:/:/bin/sh
broken:x:zero:0:no number:/:/bin/sh
far:x:4294967296:0:too far:/:/bin/sh
"""


@pytest.fixture(scope="module")
def passwd(ground: Ground) -> str:
    """Return options that give the container a hostile /etc/passwd."""
    path = f"{ground.directory}/passwd"
    ground.machine.run(["sh", "-c", 'cat >"$0"', path], input=PASSWD)
    return f"--volume={path}:/etc/passwd:ro"


@pytest.mark.row("CVE-2016-3697", "a number is that id, whatever the image calls by it")
@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("0", "0:0"),
        ("root", "0:0"),
        ("bob", "1000:100"),
        ("1000", "1000:100"),
        ("1000:5", "1000:5"),
        ("bob:5", "1000:5"),
        ("1001", "1001:0"),
        ("2000", "2000:0"),
        ("bob:users", "1000:100"),
    ],
)
def test_user_that_is_meant(ground: Ground, passwd: str, user: str, ids: str) -> None:
    """CVE-2016-3697: a name of digits is the number, whatever /etc/passwd makes of it."""
    assert ground.run(passwd, "--user", user, run="echo $(id -u):$(id -g)").strip() == ids


@pytest.mark.row("CVE-2024-40635", "what is odd or out of range is refused with 125")
@pytest.mark.row("CVE-2026-46680", "never uid 0 by accident")
@pytest.mark.row("CVE-2026-30892", "nothing but 0 and root is read as 0")
@pytest.mark.parametrize(
    "user",
    [
        *("4294967296", "4294967295", "-1", "0x0", "1_000", " 1", "\uff11\uff10", "1:", ":1"),
        *("a:b:c", "nobody-here", "bob:nobody-here", "broken", "far", "+0", "0 ", "1000:-1", "1.0"),
    ],
)
def test_odd_user_is_refused(ground: Ground, passwd: str, user: str) -> None:
    """CVE-2024-40635, CVE-2026-46680: never looked up as a name, never uid 0 by accident."""
    done = ground.attempt(passwd, "--user", user, run="id -u")
    assert done.returncode == 125
    assert done.stdout == ""
    assert done.stderr.startswith("rp: ")
    assert "Traceback" not in done.stderr


def test_user_beyond_the_id_map_is_refused(ground: Ground) -> None:
    done = ground.attempt("--user", "4000000", run="id -u")
    assert done.returncode == 125
    assert "4000000" in done.stderr


def test_root_can_become_another_user(ground: Ground) -> None:
    """su from root needs no set-user-ID bit: service managers do it all the time."""
    assert ground.run(run="su -s /bin/sh nobody -c 'id -u'").strip() == "65534"
