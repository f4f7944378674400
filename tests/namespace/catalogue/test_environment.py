"""Variables of the host, of the user's systemd and of other containers stay where they are.

Catalogue F.  A token is in the environment of whoever calls rp and of the user manager, which
starts what is detached; another one belongs to one container.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from namespace.probe_box import Box

TOKEN, OWN = "token-4711-of-the-host", "token-0815-of-the-first"
# What the programs around a container find theirs by, and what changes how programs run.
HOST = dict.fromkeys((
    "HOSTSECRET", "SSH_AUTH_SOCK", "INVOCATION_ID", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY",
    "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "LISTEN_FDNAMES", "PYTHONSTARTUP",
    "LD_LIBRARY_PATH", "BASH_ENV", "GCONV_PATH", "GIT_ASKPASS", "AWS_SECRET_ACCESS_KEY",
    "MANAGERPID", "SYSTEMD_EXEC_PID",
), TOKEN)  # fmt: skip
CALLER = {**HOST, "NOTIFY_SOCKET": f"/run/{TOKEN}", "LISTEN_FDS": "1", "LISTEN_PID": "1"}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USUAL = {"PATH", "HOME", "HOSTNAME", "TERM", "container"}


Environments = dict[str, list[str]]


def detached(box: Box) -> list[str]:
    """Return the command line of a container whose variables and health check tell of their own."""
    command = '["/probe", "report", "/out/health"]'
    options = ["--env", f"OWN={OWN}", "--volume", f"{box.directory}/out:/out"]
    options += ["--health-interval", "disable", "--health-cmd", command]
    argv = box.argv(*options, run=["several", "report", "/out/first", ",", "pause"])
    return ["rp", "run", "-d", "--name", "first", *argv[3:]]


@pytest.fixture(scope="module")
def seen(box: Box) -> Iterator[dict[str, Environments]]:
    """Return the environment of every process that can be seen, by the way in."""
    machine = box.machine

    def told(*argv: str) -> Environments:
        return dict(json.loads(machine.run(argv, env=CALLER).stdout))

    def another(*options: str) -> Environments:
        return told(*box.argv(*options, run=["environ"]))

    def written(name: str) -> Environments:
        wait = f"until [ -s {box.directory}/out/{name} ]; do sleep 0.05; done"
        machine.run(["sh", "-c", wait])
        return {"1": box.written(name)["env"]}

    given = [f"{name}={value}" for name, value in HOST.items()]
    inside = ("rp", "exec", "first", "/probe", "environ")
    machine.run(["systemctl", "--user", "set-environment", *given])
    try:
        found = {"run": another()}
        machine.run(detached(box), env=CALLER)
        found["detached"] = written("first")
        found["exec"] = told(*inside)
        machine.run(["rp", "healthcheck", "run", "first"], env=CALLER)
        found["health check"] = written("health")
        found["another"] = another()
        found["the first's processes"] = another("--pid=container:first")
        found["the host's processes"] = another("--pid=host")
        machine.run(["rm", f"{box.directory}/out/first"])
        machine.run(["systemctl", "--user", "restart", "rp-first.service"])
        found["restart"] = written("first") | told(*inside)
        yield found
    finally:
        machine.run(["rp", "rm", "--force", "--time", "0", "first"], check=False)
        machine.run(["systemctl", "--user", "unset-environment", *HOST])


@pytest.mark.row("host environment", "nothing of the caller's or the user manager's, in no way in")
@pytest.mark.parametrize(
    "way",
    ["run", "detached", "exec", "health check", "another", "the first's processes", "restart"],
)
def test_cve_2021_3602_no_variable_of_the_host(seen: dict[str, Environments], way: str) -> None:
    found = seen[way]
    assert found
    assert TOKEN not in json.dumps(found)
    for entries in found.values():
        names = {entry.partition("=")[0] for entry in entries}
        assert f"PATH={PATH}" in entries
        assert names <= USUAL | {"OWN"}


@pytest.mark.row(
    "CVE-2021-3602", "with --pid=host the variables of the host's processes are closed"
)
def test_cve_2021_3602_processes_of_the_host_are_closed(seen: dict[str, Environments]) -> None:
    found = seen["the host's processes"]
    assert len(found) > 5
    assert TOKEN not in json.dumps(found)
    # Its own are open to it, no other's.
    (own,) = [entries for entries in found.values() if entries]
    assert f"PATH={PATH}" in own


@pytest.mark.row("CVE-2020-14370", "a container's variables are its own, and its sessions'")
def test_cve_2020_14370_variables_of_another_container(seen: dict[str, Environments]) -> None:
    whose = {way for way, found in seen.items() if OWN in json.dumps(found)}
    # Who asks for the first one's processes sees them as they are.
    assert whose == {"detached", "exec", "health check", "the first's processes", "restart"}


@pytest.mark.row("CVE-2021-21334", "the token is in no file, unit or log of rp's")
def test_cve_2021_21334_nothing_is_kept_of_the_callers_variables(
    box: Box, seen: dict[str, Environments]
) -> None:
    del seen
    script = """
        cd; grep -rlF --devices=skip -e "$1" .local/share/rootlesspy .config \
            "$XDG_RUNTIME_DIR/rootlesspy" 2>/dev/null
        systemctl --user show 'rp-*' 2>/dev/null | grep -F -e "$1"
        echo "$1 is what was looked for"; grep -rlF -e "$2" .local/share/rootlesspy"""
    lines = box.machine.run(["sh", "-c", script, "sh", TOKEN, OWN]).stdout.splitlines()
    assert lines[0] == f"{TOKEN} is what was looked for"
    # It would have been found: what was said by --env is in the container's own description.
    assert lines[1:]
