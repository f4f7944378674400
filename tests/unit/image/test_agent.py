"""The process that asks registries: what it answers, and what is left when it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from unit.image import evilregistry
from unit.image.evilregistry import Answer

from rootlesspy.errors import Error, ImageError, NotFound
from rootlesspy.image import children
from rootlesspy.image.agent import Agent
from rootlesspy.image.documents import sha256
from rootlesspy.image.registry import Client
from rootlesspy.image.transfer import pipe
from rootlesspy.oci import image_spec
from rootlesspy.oci.image_spec import Descriptor
from rootlesspy.report import Reporter
from rootlesspy.settings import Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANIFEST = b'{"schemaVersion": 2}\n{}\n'
BLOB = os.urandom(1 << 20)
LAYER = Descriptor("layer", sha256(BLOB), len(BLOB))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[evilregistry.Running]:
    answers = {
        "/v2/a/b/manifests/latest": Answer(200, MANIFEST, (("Content-Type", image_spec.MANIFEST),)),
        f"/v2/a/b/blobs/{LAYER.digest}": Answer(200, BLOB),
    }
    with evilregistry.serve(
        tmp_path / "log", lambda _: lambda request: answers.get(request.path, Answer(404))
    ) as running:
        yield running


@pytest.fixture
def source(server: evilregistry.Running) -> Source:
    return Source(server.host, "a/b", insecure=True)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    reporter = Reporter(quiet=True)
    with Agent(reporter, lambda: Client(reporter, config_directory=str(tmp_path))) as made:
        yield made


def child_pids(pid: int) -> set[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return set(map(int, file.read().split()))


def begin(
    agent: Agent, source: Source, blob_fd: int, *, alone: bool = False
) -> tuple[children.Child, int]:
    """Begin a transfer; return it and the end of the pipe that the layer comes through."""
    reader, writer = pipe()
    events_fd = os.memfd_create("events")
    try:
        transfer = agent.transfer(
            LAYER,
            (source,),
            "layer",
            alone=alone,
            blob_fd=blob_fd,
            out_fd=writer,
            events_fd=events_fd,
        )
    finally:
        os.close(writer)
        os.close(events_fd)
    return transfer, reader


def test_documents(agent: Agent, source: Source) -> None:
    document = agent.manifest(source, "latest")
    assert (document.data, document.media_type) == (MANIFEST, image_spec.MANIFEST)
    assert document.digest == sha256(MANIFEST)
    assert agent.small_blob(source, LAYER.digest, LAYER.size) == BLOB


@pytest.mark.parametrize("alone", [False, True])
def test_a_layer_comes_through_the_pipe_and_to_the_file(
    agent: Agent, source: Source, tmp_path: Path, alone: bool
) -> None:
    before = child_pids(os.getpid())
    agent.manifest(source, "latest")
    (pid,) = child_pids(os.getpid()) - before
    with open(tmp_path / "blob", "wb") as blob:
        transfer, reader = begin(agent, source, blob.fileno(), alone=alone)
        with open(reader, "rb") as file:
            first = file.read(1)
            # The pipe is full: whoever fills it waits.
            assert len(child_pids(pid)) == (0 if alone else 1)
            assert first + file.read() == BLOB
        assert children.wait(transfer) == LAYER.digest
    assert (tmp_path / "blob").read_bytes() == BLOB
    assert agent.manifest(source, "latest").data == MANIFEST


def test_errors_keep_their_types(agent: Agent, source: Source) -> None:
    with pytest.raises(NotFound, match="has no a/b manifests/other"):
        agent.manifest(source, "other")
    assert agent.manifest(source, "latest").data == MANIFEST


def test_a_client_that_cannot_be_made_is_the_answer_to_everything() -> None:
    def make() -> Client:
        raise ImageError("no client", hint="a cure")

    nowhere = Source("nowhere.invalid", "a/b", insecure=False)
    with Agent(Reporter(quiet=True), make) as agent:
        for _ in range(2):
            with pytest.raises(ImageError, match="no client") as raised:
                agent.manifest(nowhere, "latest")
            assert raised.value.hint == "a cure"
        with pytest.raises(ImageError, match="no client"):
            children.wait(begin(agent, nowhere, 0)[0])


def test_a_killed_agent_is_told_and_can_be_made_again(agent: Agent, source: Source) -> None:
    before = child_pids(os.getpid())
    agent.start()
    (pid,) = child_pids(os.getpid()) - before
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(Error, match="process that asks registries was killed"):
        agent.manifest(source, "latest")
    with pytest.raises(Error, match="ended with status -9"):
        children.wait(begin(agent, source, 0)[0])
    agent.forget_connections()
    assert agent.manifest(source, "latest").data == MANIFEST


@pytest.mark.parametrize("alone", [False, True])
def test_transfers_die_with_the_agent(
    agent: Agent, source: Source, tmp_path: Path, alone: bool
) -> None:
    before = child_pids(os.getpid())
    with open(tmp_path / "blob", "wb") as blob:
        transfer, reader = begin(agent, source, blob.fileno(), alone=alone)
        with open(reader, "rb") as file:
            file.read(1)
            # It waits for somebody to read the rest: the pipe is full.
            agent.forget_connections()
            assert len(file.read()) < len(BLOB) - 1
    with pytest.raises(Error, match="ended with status -9"):
        children.wait(transfer)
    assert child_pids(os.getpid()) <= before


def test_nothing_runs_unless_something_is_asked(agent: Agent) -> None:
    before = child_pids(os.getpid())
    agent.forget_connections()
    assert child_pids(os.getpid()) <= before


_IMPORTED = """\
import sys
from rootlesspy.image.agent import MetadataLater
with MetadataLater():
    from importlib.metadata import version
    import rootlesspy.image.registry, urllib3
print("importlib.metadata" in sys.modules, end=" ")
print(version("urllib3") == urllib3.__version__, "importlib.metadata" in sys.modules)
"""
_USED = """\
import sys
from rootlesspy.image.agent import MetadataLater
with MetadataLater():
    from importlib.metadata import PackageNotFoundError, version
    try:
        version("nothing-of-this-name")
    except PackageNotFoundError:
        print(type(sys.modules["importlib.metadata"]).__name__, PackageNotFoundError.__module__)
"""


@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param(_IMPORTED, "False True True", id="not imported until it is used"),
        pytest.param(_USED, "module importlib.metadata", id="imported when it is used at once"),
    ],
)
def test_importlib_metadata_is_imported_by_its_users(script: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == said.split()
