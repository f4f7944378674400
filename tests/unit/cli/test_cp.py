"""[CONTAINER:]PATH as podman reads it."""

from __future__ import annotations

import pytest

from rootlesspy.cli.cp import parse_place
from rootlesspy.engine.files.copy_place import Place
from rootlesspy.errors import UsageError


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("c:/x", Place("c", "/x")),
        ("c:x:y", Place("c", "x:y")),
        ("c:-", Place("c", "-")),
        ("x", Place(None, "x")),
        ("/a:b", Place(None, "/a:b")),
        ("./a:b", Place(None, "./a:b")),
        ("../a:b", Place(None, "../a:b")),
        ("-", Place(None, "-")),
    ],
)
def test_places(text: str, place: Place) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize("text", ["", "c:", ":", ":/x", "c:\0"])
def test_refused_places(text: str) -> None:
    with pytest.raises(UsageError):
        parse_place(text)


@pytest.mark.parametrize(
    ("path", "means"), [("d/.", True), (".", True), ("/.", True), ("d", False), ("d/..", False)]
)
def test_what_means_content(path: str, means: bool) -> None:
    assert Place(None, path).means_content() is means
