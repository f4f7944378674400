"""Whose namespaces a container shares: what is asked, and what the record keeps."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rootlesspy.engine.inputs import isolation_values
from rootlesspy.engine.pods import sharing
from rootlesspy.engine.pods.store import Pod
from rootlesspy.errors import UsageError
from rootlesspy.network import driver
from rootlesspy.network.ports import parse_publish, with_exposed


@pytest.mark.parametrize(
    ("text", "kind", "option"),
    [("container:web", "container", "web"), ("ns:/proc/1/ns/net", "ns", "/proc/1/ns/net")],
)
def test_a_network_of_somebody_else(text: str, kind: str, option: str) -> None:
    request = driver.parse_network(text)
    assert (request.driver, request.options, request.chosen) == (kind, (option,), True)


@pytest.mark.parametrize("text", ["container", "container:", "ns", "ns:", "ns:relative"])
def test_a_network_of_nobody(text: str) -> None:
    with pytest.raises(UsageError, match="needs"):
        driver.parse_network(text)


def test_ports_of_somebody_elses_network_have_no_effect() -> None:
    selection = driver.select(driver.parse_network("container:web"), parse_publish("80:80"))
    assert selection.ports == ()
    assert selection.notice == "-p has no effect with --network container"


@pytest.mark.parametrize(
    ("text", "option", "expected"),
    [
        ("private", "--pid", "private"),
        ("host", "--uts", "host"),
        ("shareable", "--ipc", ""),
        ("none", "--ipc", "none"),
        ("container:a", "--uts", "container:a"),
        ("ns:/x", "--uts", "ns:/x"),
    ],
)
def test_namespaces(text: str, option: str, expected: str) -> None:
    assert isolation_values.parse_namespace(text, option) == expected


@pytest.mark.parametrize("text", ["", "none", "shareable", "container:", "ns:x", "pod:x"])
def test_namespaces_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError):
        isolation_values.parse_namespace(text, "--pid")


def test_containers_needed() -> None:
    shares = {"network": "container:a", "ipc": "container:a", "uts": "ns:/x", "pid": "pod:p"}
    assert sharing.containers_needed(SimpleNamespace(shares=shares)) == ("a",)  # type: ignore[arg-type]  # the one field that is read


def test_a_dash_in_a_pods_name_is_escaped() -> None:
    """rp-pod-a-b.slice would be a part of rp-pod-a.slice, another pod's perhaps."""
    fields = dict.fromkeys(Pod._fields, "")
    pod = Pod(**{**fields, "name": "a-b"})  # type: ignore[arg-type]  # only the name is read
    assert (pod.slice, pod.unit) == ("rp-pod-a\\x2db.slice", "rp-pod-a-b.service")


def test_exposed_ports_are_added_once() -> None:
    given = parse_publish("8080:80")
    found = with_exposed(given, ("80/tcp", "53/udp", "90-91"))
    assert [str(each) for each in found] == ["8080:80/tcp", ":53/udp", ":90/tcp", ":91/tcp"]
