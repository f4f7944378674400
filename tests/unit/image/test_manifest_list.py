"""Indexes as documents: what is said of images, in which order, what Docker's form loses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.errors import NotFound
from rootlesspy.image import manifest_list
from rootlesspy.image.manifest_list import Change
from rootlesspy.oci import image_spec

A, B = (f"sha256:{letter * 64}" for letter in "ab")


def entry(digest: str = A, platform: str | None = "linux/arm64/v8") -> dict[str, Any]:
    return manifest_list.entry(image_spec.MANIFEST, digest, 455, platform)


def a_list(*entries: dict[str, Any]) -> dict[str, Any]:
    return manifest_list.with_entries(manifest_list.empty(), entries)


def test_the_bytes_are_those_of_podman() -> None:
    # What podman 5.4 pushes for the same list.
    described = manifest_list.described(
        entry(platform="linux/arm64"),
        Change(os_version="1.2", annotations=(("a", "b"), ("q", "r"))),
    )
    document = manifest_list.with_annotations(a_list(described), [("top", "level")])
    assert manifest_list.encode(document).decode() == (
        '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":'
        '[{"mediaType":"application/vnd.oci.image.manifest.v1+json",'
        f'"digest":"{A}","size":455,"annotations":{{"a":"b","q":"r"}},'
        '"platform":{"architecture":"arm64","os":"linux","os.version":"1.2"}}],'
        '"annotations":{"top":"level"}}'
    )


def test_dockers_form_has_dockers_order_and_no_annotations() -> None:
    described = manifest_list.described(entry(), Change(annotations=(("a", "b"),)))
    made = manifest_list.as_kind(a_list(described), docker=True)
    assert manifest_list.encode(made).decode() == (
        '{"schemaVersion":2,'
        '"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":'
        f'[{{"mediaType":"{image_spec.MANIFEST}","size":455,"digest":"{A}",'
        '"platform":{"architecture":"arm64","os":"linux","variant":"v8"}}]}'
    )


def test_an_image_stands_in_a_list_once() -> None:
    document = a_list(entry(A), entry(B, "linux/amd64"))
    document = manifest_list.with_entries(document, [entry(A, "linux/riscv64")])
    assert [each["digest"] for each in document["manifests"]] == [B, A]
    assert document["manifests"][1]["platform"] == {"architecture": "riscv64", "os": "linux"}


def test_another_architecture_takes_the_variant_with_it() -> None:
    changed = manifest_list.annotated(a_list(entry()), A, Change(architecture="riscv64"))
    assert changed["manifests"][0]["platform"] == {"architecture": "riscv64", "os": "linux"}
    kept = manifest_list.annotated(a_list(entry()), A, Change(architecture="arm", variant="v7"))
    assert kept["manifests"][0]["platform"]["variant"] == "v7"
    same = manifest_list.annotated(a_list(entry()), A, Change(os_version="2"))
    assert same["manifests"][0]["platform"]["variant"] == "v8"


def test_what_is_not_in_a_list_is_missed() -> None:
    with pytest.raises(NotFound, match=B):
        manifest_list.without(a_list(entry(A)), B)
    with pytest.raises(NotFound, match=B):
        manifest_list.annotated(a_list(entry(A)), B, Change(system="linux"))
    assert manifest_list.without(a_list(entry(A)), A)["manifests"] == []


def test_what_others_said_is_kept() -> None:
    foreign = {**entry(), "annotations": {"x": "y"}, "artifactType": "t", "data": "aGk="}
    document = {**a_list(foreign), "subject": {"digest": B}, "artifactType": "z"}
    again = manifest_list.parse(manifest_list.encode(document))
    assert again == document
    changed = manifest_list.annotated(again, A, Change(annotations=(("n", "v"),)))
    assert changed["manifests"][0]["annotations"] == {"x": "y", "n": "v"}
    assert changed["manifests"][0]["data"] == "aGk="


# NUL and lone surrogates are refused when a list is stored: test_lists.py.
_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
_CHANGES = st.builds(
    Change,
    architecture=st.none() | st.sampled_from(["amd64", "arm64", "s390x"]),
    system=st.none() | st.just("linux"),
    variant=st.none() | st.just("v7"),
    os_version=st.none() | _TEXTS,
    os_features=st.tuples() | st.tuples(_TEXTS),
    features=st.tuples() | st.tuples(_TEXTS),
    annotations=st.tuples() | st.tuples(st.tuples(_TEXTS, _TEXTS)),
)


@given(st.lists(_CHANGES, max_size=4))
def test_whatever_is_changed_it_stays_an_index(changes: list[Change]) -> None:
    document = a_list(entry(A), entry(B, None))
    for change in changes:
        document = manifest_list.annotated(document, B, change)
    data = manifest_list.encode(document)
    found = image_spec.parse_index(data, image_spec.INDEX)
    assert [each.digest for each in found] == [A, B]
    assert found[0].platform == "linux/arm64/v8"
    assert json.loads(data) == json.loads(manifest_list.encode(manifest_list.parse(data)))
