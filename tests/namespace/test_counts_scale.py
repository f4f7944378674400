"""What commands do when there are many containers, counted: nothing more, but for listings.

Each command runs beside few containers and beside more.  Counts instead of times: they are the
same on a busy machine.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest
from namespace.tracing import GONE, MEMBER, Trace, trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

_RUN = "rp run --network none"
# Every command is a child of one shell, so that one tracer does for all of them.
_COMMANDS = {
    "ps": "rp ps",
    "ps -a": "rp ps -a",
    "ps -a (json)": "rp ps -a --format json",
    "inspect": "rp inspect counted",
    "inspect (id)": 'rp inspect "$identity"',
    "exec": "rp exec counted true",
    "logs": "rp logs counted",
    "stats": "rp stats --no-stream counted",
    "top": "rp top counted",
    "port": "rp port counted",
    "images": "rp images",
    "run": f'{_RUN} --rm "$image" true',
    "create": 'rp create --name another "$image" true',
    "rm": "rp rm another",
    "stop": "rp stop -t 0 counted",
    "start": f"{GONE}; rp start counted",
}
_LISTINGS = ("ps", "ps -a", "ps -a (json)")
# Ends with a command of its own: else the last one would take the place of the shell.
_LINES = (f'{each} >"$home/out"' for each in _COMMANDS.values())
_SCRIPT = "\n".join(["set -e", "image=$1 identity=$2 home=$3", *_LINES, ":"])
_MORE = f"""\
set -e
for number in $(seq "$2" "$3"); do
    {_RUN} --name "ended-$number" "$1" true &
    [ $((number % 4)) != 0 ] || wait
done
for number in $(seq "$4" "$5"); do
    {_RUN} -d --name "running-$number" "$1" sleep 1000 >/dev/null
done
wait
"""
_ENDED, _RUNNING = (2, 6), (1, 3)
"""How many, beside those that the commands name; few and more."""

_OPENED = re.compile(r'open(?:at)?\((?:\w+, )?"([^"]+)".*= \d+$')
_OF = re.compile(r"/containers/([0-9a-f]{64})(?:/|$)")
# Scopes side by side are named below the descriptor of what they are in.
_HOST = re.compile(r"^(?:/proc/\d+|/sys/fs/cgroup|rp-[^/]+\.scope)/")


class Counts(NamedTuple):
    """What one command did."""

    store: int
    """Files and directories of containers that it opened."""
    others: int
    """How many containers that it did not name it opened files of."""
    host: int
    """Files of processes and of cgroups."""
    messages: list[str]
    """Sent to the bus."""


Table = dict[str, Counts]


@pytest.fixture(scope="module")
def counted(rig: Machine, alpine: str) -> tuple[Table, Table]:
    """Return what each command did beside few containers and beside more."""
    home = rig.run(["mktemp", "-d"]).stdout.strip()
    rig.run(["rp", "run", "-d", "--network", "none", "--name", "counted", alpine, "sleep", "1000"])
    identity = rig.run(["rp", "inspect", "--format", "{{.Id}}", "counted"]).stdout.strip()
    # Warm caches: logs remember what they have read.
    rig.run(["sh", "-c", f"rp logs counted; {_RUN} --rm {alpine} true"])
    found, ended, running = [], 0, 0
    try:
        for more_ended, more_running in zip(_ENDED, _RUNNING, strict=True):
            span = (ended + 1, more_ended, running + 1, more_running)
            rig.run(["sh", "-c", _MORE, "sh", alpine, *map(str, span)], timeout=300)
            ended, running = more_ended, more_running
            argv = ["sh", "-c", _SCRIPT, "sh", alpine, identity, home]
            whole = trace(rig, argv, outlived=True)
            named = {identity, *_made(whole)}
            each = whole.children(whole.command)
            found.append(
                {
                    name: _counts(whole.alone(pid) if name == "start" else whole.of(pid), named)
                    for name, pid in zip(_COMMANDS, each, strict=True)
                }
            )
    finally:
        rig.run(["rp", "rm", "--all", "--force"])
        rig.run(["rm", "-r", home])
    few, more = found
    return few, more


@pytest.mark.parametrize("command", [each for each in _COMMANDS if each not in _LISTINGS])
def test_what_is_named_is_all_that_is_opened(counted: tuple[Table, Table], command: str) -> None:
    few, more = counted
    assert more[command].others == 0
    assert more[command] == few[command]


def test_no_listing_asks_the_bus(counted: tuple[Table, Table]) -> None:
    assert {name: more.messages for name, more in counted[1].items() if name in _LISTINGS} == {
        name: [] for name in _LISTINGS
    }


def test_ps_opens_nothing_of_containers_that_have_ended(counted: tuple[Table, Table]) -> None:
    few, more = (table["ps"] for table in counted)
    # What it is, the lock of its directory, what runs; whether its cgroup is frozen, which cgroup
    # the first one has, and what is beside it.
    assert (few.store, few.host) == (3 * (1 + _RUNNING[0]), 3 + _RUNNING[0])
    assert (more.store, more.host) == (3 * (1 + _RUNNING[1]), 3 + _RUNNING[1])


def test_ps_a_opens_two_files_of_a_container_that_has_ended(
    counted: tuple[Table, Table],
) -> None:
    few, more = (table["ps -a"] for table in counted)
    # What it is and how it ended.
    assert few.store == 3 * (1 + _RUNNING[0]) + 2 * _ENDED[0]
    assert more.store == 3 * (1 + _RUNNING[1]) + 2 * _ENDED[1]
    assert more.host == 3 + _RUNNING[1]


_COPIES = 40
_COPY = """\
set -e
cd ~/.local/share/rootlesspy
origin=$(readlink names/origin)
for number in $(seq "$1"); do
    identity=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n')
    mkdir -m 700 "containers/$identity"
    for file in record config exit; do
        sed "s/$origin/$identity/g; s/\"origin\"/\"copy-$number\"/g" \
            "containers/$origin/$file.json" >"containers/$identity/$file.json"
    done
    ln -s "$identity" "names/copy-$number"
done
"""
_MOUNT_ELSEWHERE = """\
cd ~/.local/share/rootlesspy
sed -i 's#"/data"#"/other"#' "containers/$(readlink names/copy-1)/config.json"
"""
_LISTED = ["rp", "ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}"]


@pytest.fixture
def copies(rig: Machine, alpine: str) -> Iterator[str]:
    """Have many containers that have ended; yield what a listing keeps of them."""
    run = ["rp", "run", "--network", "none", "--name", "origin", "-v", "/tmp:/data"]
    rig.run([*run, alpine, "true"])
    rig.run(["sh", "-c", _COPY, "sh", str(_COPIES)])
    kept = rig.run(["sh", "-c", 'echo "$XDG_RUNTIME_DIR/rootlesspy/listing"']).stdout.strip()
    yield kept
    rig.run(["rp", "rm", "--all", "--force"])
    rig.run(["rm", "-f", kept, f"{kept}-mounts"])


def test_a_listing_of_many_reads_what_has_changed(rig: Machine, copies: str) -> None:
    expected = rig.run(_LISTED).stdout
    limit_s = time.monotonic() + 120
    # What changed a moment ago is not kept.
    while rig.run(["test", "-s", copies], check=False).returncode:
        assert time.monotonic() < limit_s
        assert rig.run(_LISTED).stdout == expected
    # 32 are worth keeping: the last ones may not have been old enough by then.
    read = _counts(trace(rig, _LISTED), set())
    assert read.store == 2 * read.others <= 2 * (1 + _COPIES - 32)
    rig.run(["sh", "-c", "rp rename copy-1 renamed && rp rm copy-2"])
    changed = rig.run(_LISTED).stdout
    rig.run(["rm", copies])
    assert changed == rig.run(_LISTED).stdout
    names = {line.split()[1] for line in changed.splitlines()}
    assert names == {"origin", "renamed", *(f"copy-{n}" for n in range(3, _COPIES + 1))}


def test_mounts_of_many_are_read_where_something_has_changed(rig: Machine, copies: str) -> None:
    listed = ["rp", "ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Mounts}}"]
    kept = f"{copies}-mounts"
    expected = rig.run(listed).stdout
    assert expected.count(" [/data]\n") == 1 + _COPIES
    limit_s = time.monotonic() + 120
    while rig.run(["test", "-s", kept], check=False).returncode:
        assert time.monotonic() < limit_s
        assert rig.run(listed).stdout == expected
    read = trace(rig, listed).found(re.compile(r'"[^"]*/containers/(\w+)/config.json".*= \d+$'))
    assert len(read) <= 1 + _COPIES - 32
    rig.run(["sh", "-c", _MOUNT_ELSEWHERE])
    changed = rig.run(listed).stdout
    assert (changed.count("[/data]"), changed.count("[/other]")) == (_COPIES, 1)
    rig.run(["rm", kept])
    assert rig.run(listed).stdout == changed


def _counts(command: Trace, named: set[str]) -> Counts:
    opened = [
        match[1]
        for lines in command.lines.values()
        for line in lines
        if (match := _OPENED.search(line))
    ]
    of = [match[1] for path in opened if (match := _OF.search(path))]
    return Counts(
        store=len(of),
        others=len(set(of) - named),
        host=sum(_HOST.match(path) is not None for path in opened),
        messages=sorted(command.found(MEMBER)),
    )


def _made(command: Trace) -> set[str]:
    """Return the ids of the containers that were made."""
    return {
        match[1]
        for lines in command.lines.values()
        for line in lines
        if "record.json." in line and "O_CREAT" in line and (match := _OF.search(line))
    }
