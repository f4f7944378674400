"""What a container begins with before it is on disk: which can, and with what."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from rootlesspy.engine import record
from rootlesspy.engine.inputs.request import RunRequest
from rootlesspy.engine.supervision import beginning, outlook
from rootlesspy.engine.supervision.control import Message
from rootlesspy.errors import UsageError
from rootlesspy.network import driver
from rootlesspy.network.attachment import Attachment
from rootlesspy.network.driver import NetworkRequest
from rootlesspy.network.ports import PortMapping
from rootlesspy.paths import Paths
from rootlesspy.report import Reporter

if TYPE_CHECKING:
    from pathlib import Path

PLACE = record.Place("a" * 64, "web", -1)
PLAIN = RunRequest(image="alpine", network=NetworkRequest(driver="none"))


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    conf = tmp_path / "containers.conf"
    conf.write_text("# hooks_dir = []\n", encoding="ascii")
    monkeypatch.setenv("CONTAINERS_CONF", str(conf))
    return Paths(data=str(tmp_path), runtime=None, config=str(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"tty": True, "interactive": True},
        {"network": NetworkRequest()},
        {"network": NetworkRequest(driver="host")},
        {"cgroups": "disabled"},
        {"memory_bytes": 2**20, "properties": ("CPUWeight=5",)},
        {"pid": "host", "ipc": "host", "uts": "host", "cgroupns": "host"},
        {"log_driver": "none"},
        {"rootfs": "/r"},
    ],
)
def test_begins_early(paths: Paths, change: dict[str, Any]) -> None:
    assert outlook.can_be_given(PLAIN._replace(**change), paths)


@pytest.mark.parametrize(
    "change",
    [
        {"shares": (("ipc", "container:a"),)},
        {"pod": "p"},
        {"userns": "keep-id"},
        {"id_maps": (((0, 1, 1),),)},
        {"network": NetworkRequest(driver="slirp4netns")},
        {"network": NetworkRequest(driver="container", options=("a",))},
        {"network": NetworkRequest(networks=(Attachment("n"),))},
        {"log_driver": "journald"},
        {"verify_always": True},
        {"landlock": ("ro=/",)},
        {"cdi_devices": ("a/b=c",)},
        {"publish_all": True},
        {"hooks_dirs": ("/h",)},
    ],
)
def test_begins_on_disk(paths: Paths, change: dict[str, Any]) -> None:
    assert not outlook.can_be_given(PLAIN._replace(**change), paths)


def test_hooks_of_the_settings_are_not_forgotten(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "containers.conf").write_text("[engine]\nhooks_dir = ['/h']\n", encoding="ascii")
    assert not outlook.can_be_given(PLAIN, paths)


def terms(request: RunRequest) -> beginning.Terms:
    """Return what the supervisor understands of an outlook that went through a packet."""
    selection = driver.Selection(request=request.network, ports=request.publish)
    packet = json.dumps(outlook.of(request, PLACE, selection))
    return beginning._terms(json.loads(packet), Reporter())


def test_the_supervisor_understands_it() -> None:
    found = terms(PLAIN)
    assert found.container_id == PLACE.container_id
    assert (found.unit, found.description) == ("rp-web.scope", "Container web (alpine)")
    assert set(found.namespaces) == {"user", "mount", "pid", "uts", "ipc", "cgroup", "network"}
    assert found.limits is not None
    assert [each.name for each in found.limits.properties] == ["TasksMax"]
    assert found.selection.request == PLAIN.network
    assert found.stop_timeout_s == 10


def test_nothing_that_was_asked_is_lost() -> None:
    # 0: any free port, which nobody has to have free here.
    port = PortMapping("127.0.0.1", 0, 80, "tcp")
    found = terms(
        PLAIN._replace(
            network=NetworkRequest(driver="host"),
            publish=(port,),
            cgroups="disabled",
            uts="host",
            stop_timeout_s=3,
            group_add=("keep-groups",),
        )
    )
    assert (found.unit, found.limits, found.keeps_groups) == ("", None, True)
    assert not {"uts", "network"} & set(found.namespaces)
    assert found.stop_timeout_s == 3


def test_what_makes_no_sense_is_told_when_it_is_on_disk(paths: Paths) -> None:
    with pytest.raises(UsageError):
        terms(PLAIN._replace(properties=("Nosuch=1",)))
    selection = driver.Selection(request=PLAIN.network)
    fields = outlook.of(PLAIN._replace(properties=("Nosuch=1",)), PLACE, selection)
    assert beginning.early(Message("begin", fields), paths, Reporter(), None) is None
