"""The manual pages are what docs/man/generate writes, and roff that groff understands."""

from __future__ import annotations

import shutil
import subprocess
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rootlesspy.cli import argv

if TYPE_CHECKING:
    from types import ModuleType

MAN = Path(__file__).resolve().parents[2] / "docs/man"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    loader = SourceFileLoader("generate_man", str(MAN / "generate"))
    module = module_from_spec(spec_from_loader(loader.name, loader))  # type: ignore[arg-type]
    loader.exec_module(module)
    return module


def test_pages_are_up_to_date(generator: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "rp-gone.1").touch()
    generator.main(tmp_path)
    written = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text("utf-8") for path in MAN.glob("*.1")}
    assert written == committed, "run docs/man/generate"


def test_every_option_of_run_is_explained() -> None:
    page = (MAN / "rp-run.1").read_text("utf-8").replace("\\-", "-")
    for option in argv.RUN.options:
        for name in option.names:
            assert f"\\fB{name}\\fR" in page


def test_text_is_escaped(generator: ModuleType) -> None:
    assert generator._text(".a\n'b\n-\\n") == "\\&.a\n\\&'b\n\\-\\en"


@pytest.mark.parametrize("page", sorted(MAN.glob("*.1")), ids=lambda path: str(path.name))
def test_groff_has_no_complaint(page: Path) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", page], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
