"""A function in a forked child: what it changes of its process stays there."""

from __future__ import annotations

import json
import os
import traceback
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


def in_child(function: Callable[[], Any]) -> Any:
    """Run the function in a forked child and return its JSON value; fail with its traceback."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = {"value": function()}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        os.write(write_fd, json.dumps(answer).encode())
        os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd) as stream:
        text = stream.read()
    status = os.waitpid(pid, 0)[1]
    assert text, f"the child ended with wait status {status:#x}"
    answer = json.loads(text)
    if "error" in answer:
        pytest.fail(answer["error"])
    return answer["value"]
