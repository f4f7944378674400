"""Definitions, from the front door: planned, applied twice, changed, deleted, exported."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from namespace.living import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Completed, Machine

pytestmark = pytest.mark.usefixtures("alpine", "leaves_nothing")

TWO = """
[defaults]
image = "alpine"
ignore_missing_limits = true
stop_timeout = 1
[volume.definition-data]
labels = { story = "two" }
[container.d-web]
command = ["sleep", "1000"]
requires = ["d-db"]
[container.d-db]
command = ["sleep", "1000"]
volumes = ["definition-data:/data"]
"""


class Definition:
    """One TOML file on the machine."""

    def __init__(self, rig: Machine, path: str) -> None:
        self._rig = rig
        self.path = path

    def write(self, text: str) -> None:
        self._rig.run(["tee", self.path], input=text)

    def rp(self, command: str, *options: str, check: bool = True) -> Completed:
        return self._rig.run(["rp", command, *options, self.path], check=check, timeout=120)

    def actions(self) -> dict[str, str]:
        """Return what rp plan says of each name."""
        done = self.rp("plan", "--format", "json", check=False)
        found = {step["Name"]: step["Action"] for step in json.loads(done.stdout)}
        assert done.returncode == (0 if set(found.values()) == {"nothing"} else 2)
        return found

    def containers(self) -> dict[str, str]:
        """Return the names of the definition's containers that run, and their ids."""
        label = f"label=io.rootlesspy.definition.file={self.path}"
        form = "{{.Names}} {{.ID}}"
        done = self._rig.run(["rp", "ps", "--filter", label, "--format", form])
        return dict(line.split() for line in done.stdout.splitlines())


@pytest.fixture
def file(rig: Machine) -> Iterator[Definition]:
    directory = rig.run(["sh", "-c", 'mktemp -d "$HOME/definition.XXXXXX"']).stdout.strip()
    made = Definition(rig, f"{directory}/f.toml")
    yield made
    if made.rp("delete", "--volumes", check=False).returncode:
        made.rp("delete", check=False)
    rig.run(["rm", "-r", directory])


def test_apply_makes_it_so_once_and_changes_only_what_changed(
    rig: Machine, file: Definition
) -> None:
    file.write(TWO)
    assert file.actions() == {"definition-data": "create", "d-db": "create", "d-web": "create"}
    done = file.rp("apply", "--quiet")
    assert (done.stdout, done.stderr) == ("", "")
    first = file.containers()
    assert set(first) == {"d-db", "d-web"}
    # The second time nothing happens.
    assert file.rp("apply").stdout == ""
    assert file.containers() == first
    assert set(file.actions().values()) == {"nothing"}

    # A change of the one that nothing requires leaves the other alone.
    file.write(TWO.replace("[container.d-db]", 'env = { A = "1" }\n[container.d-db]'))
    assert "change   d-web" in (planned := file.rp("plan", check=False).stdout)
    assert "env.A: added" in planned
    assert file.rp("apply").stdout == "changed d-web\n"
    second = file.containers()
    assert second["d-db"] == first["d-db"]
    assert second["d-web"] != first["d-web"]

    # A change of the required one restarts the other, which stays the same container.
    file.write(
        TWO.replace(
            "[container.d-db]", 'env = { A = "1" }\n[container.d-db]\ninit = false'
        ).replace('"definition-data:/data"]', '"definition-data:/data"]\nhostname = "h"')
    )
    assert 'hostname: nothing → "h"' in file.rp("plan", check=False).stdout
    assert file.rp("apply").stdout == "changed d-db\nrestarted d-web\n"
    third = file.containers()
    assert third["d-db"] != second["d-db"]
    assert third["d-web"] == second["d-web"]
    assert set(file.actions().values()) == {"nothing"}

    # What the file has no more goes, but volumes stay until they are named.
    file.write(
        "[volume.definition-data]\n"
        + TWO.partition("[container.d-web]")[0].replace(
            '[volume.definition-data]\nlabels = { story = "two" }', ""
        )
        + '[container.d-db]\ncommand = ["sleep", "1000"]\nhostname = "h"\n'
        'volumes = ["definition-data:/data"]\n'
    )
    assert file.actions()["d-web"] == "remove"
    assert file.rp("apply").stdout == "removed d-web\n"
    assert file.containers() == {"d-db": third["d-db"]}
    assert file.rp("delete").stdout == "removed d-db\n"
    assert file.rp("delete", "--volumes").stdout == "removed volume definition-data\n"
    gone = file.rp("delete", check=False)
    assert gone.returncode == 125
    assert "there is no container of" in gone.stderr


def test_containers_start_when_what_they_require_is_ready(rig: Machine, file: Definition) -> None:
    file.write("""
        [defaults]
        image = "alpine"
        stop_timeout = 1
        sdnotify = "healthy"
        volumes = ["definition-data:/data"]
        healthcheck = { interval = "100ms", retries = 100 }
        [volume.definition-data]
        [container.d-web]
        requires = ["d-db"]
        command = ["sh", "-c", "cp /data/state /data/seen; exec sleep 1000"]
        healthcheck.command = "test -e /data/seen"
        [container.d-db]
        command = ["sh", "-c", "sleep 0.5; echo ready >/data/state; exec sleep 1000"]
        healthcheck.command = "test -e /data/state"
        """)
    file.rp("apply")
    read = ["rp", "run", "--rm", "-v", "definition-data:/data", "alpine", "cat", "/data/seen"]
    assert rig.run(read).stdout == "ready\n"
    rig.run(["rp", "stop", "d-web", "d-db"])
    assert file.actions() == {"definition-data": "nothing", "d-db": "start", "d-web": "start"}
    # Who starts one by hand gets what it requires.
    rig.run(["rp", "start", "d-web"])
    assert set(file.containers()) == {"d-db", "d-web"}


def test_one_that_fails_leaves_the_others_as_planned(rig: Machine, file: Definition) -> None:
    text = """
        [defaults]
        image = "alpine"
        command = ["sleep", "1000"]
        stop_timeout = 1
        [container.d-bad]
        command = ["nosuch"]
        [container.d-needs]
        requires = ["d-bad"]
        [container.d-wants]
        wants = ["d-bad"]
        [container.d-unpulled]
        image = "localhost:1/nosuch"
        """
    file.write(text)
    done = file.rp("apply", check=False)
    assert done.returncode == 125
    assert done.stdout == "created d-wants\n"
    lines = [line for line in done.stderr.splitlines() if not line.startswith("hint:")]
    assert len(lines) == 3
    assert lines[0].startswith("rp: container d-unpulled: image localhost:1/nosuch")
    assert lines[1].startswith("rp: container d-bad: command 'nosuch' is not found")
    assert lines[2] == "rp: container d-needs: it requires d-bad, which failed"
    assert set(file.containers()) == {"d-wants"}

    # What cannot be fetched stops nothing that runs.
    text = text.replace('command = ["nosuch"]', "").partition("[container.d-unpulled]")[0]
    file.write(text)
    file.rp("apply")
    before = file.containers()
    assert set(before) == {"d-bad", "d-needs", "d-wants"}
    file.write(text.replace("[container.d-bad]", '[container.d-bad]\nimage = "localhost:1/nosuch"'))
    done = file.rp("apply", check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert file.containers() == before


def test_one_that_systemd_restarts_is_left_to_systemd(rig: Machine, file: Definition) -> None:
    file.write("""
        [container.d-loop]
        image = "alpine"
        command = ["false"]
        restart = "always"
        """)
    file.rp("apply")
    show = ["systemctl", "--user", "show", "rp-d-loop.service", "--value", "-p"]
    until(lambda: int(rig.run([*show, "NRestarts"]).stdout) >= 5, "it is not restarted")
    assert file.actions() == {"d-loop": "nothing"}
    assert file.rp("apply").stdout == ""


def test_containers_of_others_are_not_touched(rig: Machine, file: Definition) -> None:
    file.write('[container.d-web]\nimage = "alpine"\ncommand = ["sleep", "1000"]\n')
    rig.run(["rp", "create", "--name", "d-web", "alpine"])
    for command in ("plan", "apply"):
        done = file.rp(command, check=False)
        assert done.returncode == 125
        assert done.stderr.startswith("rp: container d-web exists and was not made from")
    rig.run(["rp", "rm", "d-web"])
    file.rp("apply", "--no-start")
    assert file.containers() == {}
    assert file.actions() == {"d-web": "start"}
    assert file.rp("apply").stdout == "started d-web\n"
    other = Definition(rig, f"{file.path}.other.toml")
    other.write('[container.d-web]\nimage = "alpine"\n')
    assert f"belongs to the definition {file.path}" in other.rp("plan", check=False).stderr


def test_enabled_units_follow_the_definition(rig: Machine, file: Definition) -> None:
    file.write(TWO)
    file.rp("apply")
    rig.run(["rp", "enable", "d-web"])
    file.write(TWO.replace('"1000"', '"1001"'))
    file.rp("apply")
    for name, identity in file.containers().items():
        shown = rig.run(["systemctl", "--user", "cat", f"rp-{name}.service"]).stdout
        assert f"Container={identity}" in shown
        assert ("Requires=rp-d-db.service\n" in shown) == (name == "d-web")
    # systemd itself starts and stops them together now.
    systemctl = ["systemctl", "--user"]
    rig.run([*systemctl, "stop", "rp-d-db.service"])
    assert file.containers() == {}
    rig.run([*systemctl, "start", "rp-d-web.service"])
    assert set(file.containers()) == {"d-web", "d-db"}
    file.rp("delete")
    listed = rig.run([*systemctl, "list-unit-files", "rp-d-*", "--no-legend"], check=False)
    assert listed.stdout == ""


def test_an_exported_container_is_made_again(rig: Machine, file: Definition) -> None:
    options = (
        "--env A=B --volume definition-data:/data:ro --workdir /tmp --user 1:1 --label l=m "
        "--cap-drop ALL --read-only --tmpfs /run:size=1m --hostname box --restart on-failure:2 "
        "--memory 64m --ignore-missing-limits --stop-timeout 1 --network none --ulimit nofile=64:64"
    )
    rig.run(["rp", "run", "-d", "--name", "d-web", *options.split(), "alpine", "sleep", "1000"])
    first = described(rig)
    file.write(rig.run(["rp", "export-definition", "d-web"]).stdout)
    rig.run(["rp", "rm", "-f", "d-web"])
    file.rp("apply")
    assert described(rig) == first
    rig.run(["rp", "rm", "-f", "d-web"])
    rig.run(["rm", "-r", f"{store(rig)}/definition-data"])


def store(rig: Machine) -> str:
    facts = json.loads(rig.run(["rp", "info", "--format", "json"]).stdout)
    return str(facts["store"]["volumePath"])


def described(rig: Machine) -> dict[str, Any]:
    """Return config.json of d-web, without what differs between two of the same."""
    (found,) = json.loads(rig.run(["rp", "inspect", "d-web"]).stdout)
    path = f"{store(rig)}/../containers/{found['Id']}/config.json"
    text = rig.run(["cat", path]).stdout.replace(found["Id"], "ID")
    spec: dict[str, Any] = json.loads(text)
    assert spec["process"]["args"] == ["sleep", "1000"]
    spec.pop("annotations", None)
    return spec


def test_wrong_files_are_refused_with_their_line(file: Definition) -> None:
    file.write('[container.web]\nimage = "alpine"\nmemry = "1g"\n')
    for command in ("plan", "apply"):
        done = file.rp(command, check=False)
        assert done.returncode == 125
        assert done.stderr == (
            f"rp: {file.path}:3: [container.web]: unknown key 'memry'\nhint: did you mean memory?\n"
        )


def test_two_at_once_are_refused(rig: Machine, file: Definition) -> None:
    file.write('[container.d-web]\nimage = "alpine"\ncommand = ["sleep", "1000"]\n')
    argv = ["flock", file.path, "sh", "-c", "echo; exec cat"]
    with rig.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        done = file.rp("apply", check=False)
        holder.communicate()
    assert done.returncode == 125
    assert "is being applied by another rp" in done.stderr
