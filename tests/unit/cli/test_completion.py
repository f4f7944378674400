"""What the shell's completion scripts hand over."""

from __future__ import annotations

import pytest

from rootlesspy.cli import completion


@pytest.mark.parametrize(
    ("environment", "typed"),
    [
        ({}, []),
        ({"COMP_WORDS": "rp"}, []),
        ({"COMP_WORDS": "rp netw"}, []),
        ({"COMP_WORDS": "rp rm "}, ["rm"]),
        ({"COMP_WORDS": "rp network ls --f"}, ["network", "ls"]),
        ({"_TYPER_COMPLETE_ARGS": "rp rm --volumes b"}, ["rm", "--volumes"]),
    ],
)
def test_words_before_the_one_to_complete(environment: dict[str, str], typed: list[str]) -> None:
    assert completion.typed_words(environment) == typed
