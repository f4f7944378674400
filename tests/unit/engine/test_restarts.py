"""NRestarts, and when nobody needs to be asked for it."""

from __future__ import annotations

import pytest

from rootlesspy.engine import record
from rootlesspy.engine.record import Container
from rootlesspy.engine.views import restarts
from rootlesspy.errors import Unsupported
from rootlesspy.paths import Paths
from rootlesspy.systemd import bus

PATHS = Paths(data="/d", runtime="/run/nobody/rootlesspy", config="/c")


def container(identity: str, restart: str) -> Container:
    return Container(record._unknown(identity)._replace(restart=restart), "running", 1, 0.0, None)


@pytest.mark.parametrize(
    ("number", "policy", "expected"),
    [(3, "on-failure:2", 2), (1, "on-failure:2", 1), (9, "always", 9), (9, "on-failure:0", 9)],
)
def test_the_refused_restart_is_no_restart(number: int, policy: str, expected: int) -> None:
    assert restarts.capped(number, policy) == expected


def test_nobody_is_asked_about_what_is_never_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "connect", lambda runtime: pytest.fail("asked systemd"))
    assert restarts.counts(PATHS, {"a": "a.service"}, [container("a", "no")]) == {"a": 0}
    assert restarts.counts(PATHS, {}, [container("a", "always")]) == {"a": 0}


def test_a_silent_manager_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(_runtime: str) -> None:
        raise Unsupported("no bus")

    monkeypatch.setattr(bus, "connect", connect)
    monkeypatch.setattr(Paths, "require_runtime", lambda self: "/run/nobody/rootlesspy")
    assert restarts.counts(PATHS, {"a": "a.service"}, [container("a", "always")]) == {"a": 0}


def test_one_connection_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    class Connection:
        closed = 0

        def unit_properties(self, unit: str, interface: str, names: object) -> dict[str, object]:
            assert (interface, names) == (bus.SERVICE, ("NRestarts",))
            return {"NRestarts": {"a.service": 7, "b.service": 9}[unit]}

        def close(self) -> None:
            Connection.closed += 1

    monkeypatch.setattr(bus, "connect", lambda runtime: Connection())
    monkeypatch.setattr(Paths, "require_runtime", lambda self: "/run/nobody/rootlesspy")
    found = restarts.counts(
        PATHS,
        {"a": "a.service", "b": "b.service", "c": "c.service"},
        [container("a", "always"), container("b", "on-failure:5"), container("c", "no")],
    )
    assert found == {"a": 7, "b": 5, "c": 0}
    assert Connection.closed == 1
