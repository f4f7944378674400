"""--log-driver and --log-opt, and what a record of them opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rootlesspy.engine import record
from rootlesspy.engine.output import log_values, logging
from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.paths import Paths
from rootlesspy.settings import LogDefaults
from rootlesspy.systemd import journal

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("driver", "options", "expected"),
    [
        pytest.param("journald", [], ("journald", ()), id="journald"),
        pytest.param("k8s-file", [], ("json-file", ()), id="podman-name"),
        pytest.param(None, ["tag=x"], ("", (("tag", "x"),)), id="tag-of-any"),
        pytest.param(None, ["max-size=10m"], ("json-file", (("max-size", "10485760"),)), id="size"),
        pytest.param("json-file", ["max-size=-1"], ("json-file", (("max-size", "-1"),)), id="any"),
        pytest.param(
            "json-file", ["max-file=3", "path=/tmp/a", "max-file=5"],
            ("json-file", (("max-file", "5"), ("path", "/tmp/a"))), id="last-wins",
        ),
        pytest.param(
            "journald", ["tag={{.Name}}/{{.ID}}"],
            ("journald", (("tag", "{{.Name}}/{{.ID}}"),)), id="template",
        ),
        pytest.param("none", [], ("none", ()), id="none"),
        pytest.param("", [], ("", ()), id="empty"),
    ],
)  # fmt: skip
def test_options_become_fields(
    driver: str | None, options: list[str], expected: tuple[str, object]
) -> None:
    assert log_values.parse(driver, options) == expected


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("syslog", []), ("json-file", ["max-size"]), ("json-file", ["max-size="]),
        ("json-file", ["max-size=0"]), ("json-file", ["max-size=1x"]),
        ("json-file", ["max-file=0"]),
        ("json-file", ["max-file=+1"]), ("json-file", ["path=relative"]),
        ("json-file", ["path=/a\nb"]), ("json-file", ["colour=red"]), ("journald", ["max-size=1m"]),
        ("none", ["path=/a"]), ("journald", ["tag={{.Command}}"]), ("journald", ["tag=a\nb"]),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(driver: str, options: list[str]) -> None:
    with pytest.raises(UsageError):
        log_values.parse(driver, options)


@pytest.mark.parametrize(
    ("found", "driver", "options", "expected"),
    [
        (("k8s-file", 5000), "", (), ("json-file", (("max-size", "5000"),))),
        (("journald", 5000), "", (("tag", "x"),), ("journald", (("tag", "x"),))),
        (("journald", 5000), "json-file", (), ("json-file", (("max-size", "5000"),))),
        (("json-file", 5000), "none", (), ("none", ())),
        (("json-file", -1), "", (), ("json-file", (("max-size", "-1"),))),
        (("json-file", 0), "", (), ("json-file", (("max-size", "-1"),))),
        (("", 5000), "", (), ("", ())),
        (
            ("none", 5000), "json-file", (("max-size", "9000"),),
            ("json-file", (("max-size", "9000"),)),
        ),
    ],
)  # fmt: skip
def test_what_was_asked_for_goes_before_containers_conf(
    found: tuple[str, int],
    driver: str,
    options: tuple[tuple[str, str], ...],
    expected: tuple[str, object],
) -> None:
    defaults = LogDefaults(*found, path="/etc/containers/containers.conf")
    assert log_values.configured(defaults, driver, options) == expected


def test_a_wrong_driver_in_containers_conf_is_told_with_its_file() -> None:
    with pytest.raises(UsageError, match=r"^/etc/containers/containers\.conf: .*'syslog'"):
        log_values.configured(
            LogDefaults("syslog", None, "/etc/containers/containers.conf"), "", ()
        )


def test_a_tag_is_filled_in() -> None:
    of = record._unknown("a" * 64)._replace(
        name="web", image="docker.io/library/alpine", log_options={"tag": "x-{{.Name}}-{{.ID}}"}
    )
    assert logging._tag(of) == "x-web-aaaaaaaaaaaa"


def test_a_driver_that_cannot_be_used_is_an_error_only_when_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "socket"))
    paths = Paths(data=str(tmp_path), runtime=None, config="/x")
    of = record._unknown("a" * 64)
    assert logging.default_driver(paths) == "json-file"
    with pytest.raises(Unsupported, match="does not take records"):
        logging.open_sink(paths, of._replace(log_driver="journald"), unit="")
    (tmp_path / "containers" / of.id).mkdir(parents=True)
    logging.open_sink(paths, of, unit="").close()
    assert (tmp_path / "containers" / of.id / "log").exists()
    sink = logging.open_sink(paths, of._replace(log_driver="none"), unit="")
    sink.write("stdout", b"nothing")
    assert (sink.full(), sink.timeout_ms(), sink.lost) == (False, -1, "")
