"""Payloads that type into the terminal of whoever started them.  Catalogue F.

What is typed there would be the next command of the user's shell.  The attacker is the mode `type`
of tests/data/probe/probe.c; what arrived is at the beginning of the line that is read afterwards.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from namespace.probe_box import Box

TYPE = ("type", "X")
# Without a filter, and with every capability: what holds is the session alone.
OPEN = ("--privileged", "--security-opt", "seccomp=unconfined")
# A bundle whose program has the caller's streams, with no filter and a hook.
BUNDLE = """
set -e
cd "$1"
rm -rf bundle; mkdir bundle; cd bundle
rp-oci spec
python3 - "$1/root" <<'END'
import json, sys
with open("config.json") as file:
    spec = json.load(file)
spec["process"].update(terminal=False, args=["/probe", "pause"], noNewPrivileges=False)
spec["root"] = {"path": sys.argv[1]}
spec["linux"].pop("seccomp", None)
attack = "probe several type X , report /hooked".split()
spec["hooks"] = {"startContainer": [{"path": "/probe", "args": attack}]}
with open("config.json", "w") as file:
    json.dump(spec, file)
spec["process"]["args"] = ["/probe", "type", "X"]
spec.pop("hooks")
with open("typing.json", "w") as file:
    json.dump(spec, file)
END
"""


class Typing(NamedTuple):
    """What the payload says of its attempts, and what the terminal held afterwards."""

    worked: list[str]
    tries: int  # 0 where it could not say
    line: str


class Session:
    """Commands on one terminal; after each, a line is read from it."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self._shell = box.machine.pty(["sh", "-c", 'while read -r line; do eval "$line"; done'])

    def attack(self, argv: list[str]) -> Typing:
        """Run an attacker in the foreground and return what came of it."""
        begin = len(self._shell.output)
        # Written in two parts: the terminal shows what is typed, too.
        self._shell.send(f"stty -echo; {shlex.join(argv)}; echo as''king; read -r found;")
        self._shell.send(' stty echo; printf "got=<%s>\\n" "$found"\r')
        self._shell.expect("asking\r\n")
        self._shell.send("the user's\r")
        line = self._shell.expect("got=<([^>]*)>\r\n")[1].decode()
        shown = self._shell.output[begin:].decode(errors="replace")
        said = [json.loads(each) for each in re.findall(r'\{"worked".*\}', shown)]
        worked = [way for each in said for way in each["worked"]]
        return Typing(worked, tries=sum(each["tries"] for each in said), line=line)

    def close(self) -> None:
        """End it."""
        self._shell.close()


@pytest.fixture(scope="module")
def session(box: Box) -> Iterator[Session]:
    """Return a terminal with a shell."""
    made = Session(box)
    yield made
    made.close()


@pytest.fixture(scope="module")
def entered(box: Box) -> Iterator[str]:
    """Return a running container without a filter."""
    argv = box.command("root", "/probe", OPEN, ["pause"])
    argv[2:3] = ["-d", "--name", "typed"]
    box.machine.run(argv)
    yield "typed"
    box.machine.run(["rp", "rm", "--force", "--time", "0", "typed"])


def assert_own_alone(found: Typing, streams: tuple[str, ...]) -> None:
    """Into a terminal of its own it may type as it likes."""
    assert found.tries >= 12
    assert bool(found.worked) == ("-t" in streams), found.worked


def test_the_attack_works_where_nothing_is_in_its_way(session: Session) -> None:
    """Else the others show nothing: Linux 6.2 can be told to refuse it for everybody."""
    allowed = session.box.machine.run(["cat", "/proc/sys/dev/tty/legacy_tiocsti"], check=False)
    if allowed.stdout.strip() == "0":
        pytest.skip("this kernel lets nobody type into a terminal")
    found = session.attack([f"{session.box.directory}/root/probe", *TYPE])
    assert {"stdin plain", "stdin high bits", "/dev/tty plain"} <= set(found.worked)
    assert found.line.startswith("XX")


@pytest.mark.row("TIOCSTI", "with and without -t, in exec too: every way is refused")
@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="the output alone"),
        pytest.param(("-i",), id="no terminal of its own"),
        pytest.param(("-i", "--user", "1000"), id="another user"),
        pytest.param(("-i", "-t"), id="a terminal of its own"),
    ],
)
def test_cve_2017_5226_nothing_is_typed_by_default(
    session: Session, options: tuple[str, ...]
) -> None:
    found = session.attack(session.box.argv(*options, run=TYPE))
    assert found.worked == []
    assert found.tries >= 12
    assert found.line == "the user's"


@pytest.mark.row("TIOCSTI", "without a filter and with all capabilities nothing arrives either")
@pytest.mark.parametrize("streams", [("-i",), ("-i", "-t")], ids=["its streams", "its terminal"])
def test_cve_2017_5226_nothing_is_typed_without_a_filter(
    session: Session, streams: tuple[str, ...]
) -> None:
    found = session.attack(session.box.argv(*streams, *OPEN, run=TYPE))
    assert found.line == "the user's"
    assert_own_alone(found, streams)


@pytest.mark.row("CVE-2016-10124", "nor does it from an exec session without a filter")
@pytest.mark.parametrize("streams", [("-i",), ("-i", "-t")], ids=["its streams", "its terminal"])
def test_cve_2016_10124_nothing_is_typed_from_a_session(
    session: Session, entered: str, streams: tuple[str, ...]
) -> None:
    found = session.attack(["rp", "exec", *streams, "--privileged", entered, "/probe", *TYPE])
    assert found.line == "the user's"
    assert_own_alone(found, streams)


@pytest.mark.row("CVE-2023-28100", "rp-oci: program, exec and hook of a bundle type nothing")
def test_cve_2023_28100_nothing_is_typed_from_a_bundle(session: Session) -> None:
    directory = session.box.directory
    session.box.machine.run(["sh", "-c", BUNDLE, "sh", directory])
    bundle = f"{directory}/bundle"
    machine = session.box.machine
    try:
        create = f"rp-oci create --bundle {bundle} typist && rp-oci start typist"
        hook = session.attack(["sh", "-c", create])
        hooked = json.loads(machine.run(["cat", f"{directory}/root/hooked"]).stdout)
        joined = session.attack(["rp-oci", "exec", "typist", "/probe", *TYPE])
        machine.run(["sh", "-c", f"mv {bundle}/typing.json {bundle}/config.json"])
        first = session.attack(["rp-oci", "run", "--bundle", bundle, "typist-too"])
    finally:
        machine.run(["rp-oci", "delete", "--force", "typist"])
    for found in (hook, joined, first):
        assert (found.worked, found.line) == ([], "the user's")
    assert hooked["tty"]["controlling"] == 0
    assert min(joined.tries, first.tries) >= 12
