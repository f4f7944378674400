"""The command itself: exit codes, one line per error, closed descriptors, hot modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rootlesspy import __main__, __version__
from rootlesspy.cli import app, hot
from rootlesspy.errors import CommandNotExecutable, CommandNotFound, Error, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).resolve().parents[2]
COLD = {
    "typer", "click", "rich", "pystemd", "lxml", "pyroute2", "urllib3", "ssl", "http", "zstandard",
    "subprocess", "pathlib", "logging", "dataclasses", "inspect", "argparse", "shutil", "tempfile",
    "asyncio", "threading", "uuid", "unicodedata", "datetime", "tomli", "tomllib", "traceback",
}  # fmt: skip


def rp(
    *words: str, home: Path, shell: str = 'exec "$@"', **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run rp in its own process; shell sets descriptors up."""
    command = ["sh", "-c", shell, "sh", sys.executable, "-m", "rootlesspy", *words]
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "HOME": str(home), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Let `rp ps` raise something."""

    def prepare(error: BaseException) -> None:
        def fail(*_: object) -> int:
            raise error

        monkeypatch.setattr(hot, "execute", fail)

    monkeypatch.setattr(os, "umask", lambda mask: 0)
    return prepare


@pytest.mark.parametrize(
    ("error", "code", "stderr"),
    [
        (NotFound("image x not found", hint="rp pull x"), 125,
         "rp: image x not found\nhint: rp pull x\n"),
        (Error("evil \x1b[2J\nline"), 125, "rp: evil \\x1b[2J\\nline\n"),
        (CommandNotFound("no sh", step="exec"), 127, "rp: no sh\n"),
        (CommandNotExecutable("not sh", step="exec"), 126, "rp: not sh\n"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 141, ""),
        (ValueError("odd"), 125, ("rp: internal error: ValueError: odd\n"
         "hint: rp --debug shows where; please report it\n")),
        (RecursionError(), 125, ("rp: internal error: RecursionError: RecursionError\n"
         "hint: rp --debug shows where; please report it\n")),
        (PermissionError(13, "Permission denied", "/x"), 125, "rp: /x: permission denied\n"),
        (OSError(28, "No space left on device"), 125, "rp: no space left on device\n"),
        (IsADirectoryError(21, "Is a directory", 7), 125, "rp: is a directory\n"),
        (ImportError("/lib/_x.so: Too many open files", name="_x"), 125,
         ("rp: cannot load _x: /lib/_x.so: Too many open files\n"
         "hint: try again; then look at ulimit -n, or install rp again\n")),
    ],
)  # fmt: skip
def test_errors_become_exit_codes(
    error: BaseException,
    code: int,
    stderr: str,
    raising: Callable[[BaseException], None],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(__main__, "_drop_output", lambda: None)
    raising(error)
    assert __main__.main(["ps"]) == code
    assert capfd.readouterr() == ("", stderr)


def test_debug_adds_the_traceback(
    raising: Callable[[BaseException], None], capfd: pytest.CaptureFixture[str]
) -> None:
    raising(ValueError("odd"))
    assert __main__.main(["--debug", "ps"]) == 125
    stderr = capfd.readouterr().err
    assert stderr.startswith("rp: internal error: ValueError: odd\n")
    assert "rp: debug: Traceback (most recent call last):" in stderr


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["qqqq"], "unknown command 'qqqq'", "rp --help"),
        (["runn"], "unknown command 'runn'", "did you mean rp run?  rp --help lists all"),
        (["run"], "rp run: IMAGE is missing", "rp run --help"),
        (["run", "-e"], "option -e needs an argument", "rp run --help"),
        (["run", "-Z", "alpine"], "unknown option -Z", "rp run --help"),
        (["run", "-itZ", "alpine"], "unknown option -Z", "rp run --help"),
        (["run", "--detached", "alpine"], "unknown option --detached", None),
        (["run", "--rm=maybe", "alpine"], "--rm 'maybe': expected true or false", None),
        (["run", "--memory", "1_0", "alpine"], "--memory '1_0': expected a size such as 512m",
         "a number and b, k, m or g"),
        (["ps", "--bogus"], "unknown option --bogus", "rp ps --help"),
        (["--bogus"], "unknown option --bogus", "rp --help"),
        (["rm"], "rp rm: name the containers, or say --all or --latest", "rp rm --help"),
        (["rmi", "-a", "x"], "rp rmi: name the images, or say --all", "rp rmi --help"),
        (["pull"], "rp pull: IMAGE is missing", "rp pull --help"),
        (["pull", "--policy", "odd", "x"],
         "--policy 'odd': expected one of always, missing, never, newer", None),
    ],
)  # fmt: skip
def test_usage_errors_are_one_line_and_a_hint(
    words: list[str],
    message: str,
    hint: str | None,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "umask", lambda mask: 0)
    assert __main__.main(words) == 125
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == f"rp: {message}"
    assert len(lines) <= 2
    if hint is not None:
        assert lines[1:] == [f"hint: {hint}"]


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_the_commands(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(words) == 0
    out = capfd.readouterr().out
    assert all(name in out for name in app.command().commands)


def test_help_has_headings_and_whole_sentences(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    headings = []
    for words in (["--help"], ["run", "--help"], ["image", "--help"]):
        assert __main__.main(words) == 0
        lines = capfd.readouterr().out.splitlines()
        assert max(map(len, lines)) < 100
        assert not [line for line in lines[1:] if line.endswith("...")]
        headings.append([line for line in lines if line.endswith(":") and line[0] != " "])
    whole, run, image = headings
    assert [whole[0], *whole[-2:]] == ["Containers:", "Groups:", "Options:"]
    assert [*run[:3], run[-1]] == ["Arguments:", "Container:", "Files:", "Options:"]
    assert image == ["Commands:", "Options:"]


@pytest.mark.parametrize("words", [["run", "--help"], ["help", "run"], ["ps", "-h"], ["rm", "-h"]])
def test_help_of_a_command(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(words) == 0
    assert "Usage: rp " in capfd.readouterr().out


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["--version"]) == 0
    assert __main__.main(["version", "--format", "{{.Client.Version}}"]) == 0
    assert capfd.readouterr().out == f"rp version {__version__}\n{__version__}\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_are_filled(closed: str, tmp_path: Path) -> None:
    script = (
        "import os, sys; from rootlesspy import __main__; __main__._open_standard_descriptors();"
        "import json; fds = {fd: os.readlink(f'/proc/self/fd/{fd}') for fd in (0, 1, 2)};"
        "inherited = [os.get_inheritable(fd) for fd in (0, 1, 2)];"
        "print('x', file=sys.stdout); print('x', file=sys.stderr); sys.stdin.read();"
        f"open({str(tmp_path / 'seen')!r}, 'w').write(json.dumps([fds, inherited]))"
    )
    subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", script],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=True,
    )
    seen = (tmp_path / "seen").read_text()
    assert seen.count("/dev/null") >= closed.count("-")
    assert seen.endswith("[true, true, true]]")


@pytest.mark.parametrize(
    ("closed", "words", "code"),
    [(">&-", ["ps"], 0), ("<&- >&- 2>&-", ["ps"], 0), ("2>&-", ["bogus"], 125), ("<&-", ["ps"], 0)],
)
def test_rp_runs_with_closed_descriptors(
    closed: str, words: list[str], code: int, tmp_path: Path
) -> None:
    done = rp(*words, home=tmp_path, shell=f'exec "$@" {closed}')
    assert (done.returncode, done.stderr) == (code, "")


def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    done = rp("pull", "--policy=never", "nothing", home=tmp_path, shell='umask 0; exec "$@"')
    assert done.returncode == 125
    made = [path for path in tmp_path.rglob("*") if not path.is_symlink()]
    assert made
    assert [path for path in made if path.stat().st_mode & 0o077] == []


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    shell = '{ "$@"; echo $? >&2; } | :'
    done = rp("ps", "--help", home=tmp_path, shell=shell)
    assert done.stderr in ("141\n", "0\n")


def test_what_was_printed_before_an_error_arrives(tmp_path: Path) -> None:
    script = (
        "import sys; from rootlesspy import __main__; from rootlesspy.cli import hot\n"
        "def fail(*_):\n    print('printed'); raise SystemError\n"
        "hot.execute = fail; sys.argv = ['rp', 'ps']; __main__.main(); print('never')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (125, "printed\n")
    assert done.stderr.startswith("rp: internal error: SystemError")


def test_home_that_is_no_path(tmp_path: Path) -> None:
    done = rp("ps", home=Path("relative"))
    assert (done.returncode, done.stderr) == (
        125,
        "rp: HOME is not an absolute path\nhint: export HOME=/home/YOU\n",
    )


def test_completion_answers(tmp_path: Path) -> None:
    environment = {"_RP_COMPLETE": "complete_bash", "COMP_WORDS": "rp run --mem", "COMP_CWORD": "2"}
    done = rp(home=tmp_path, **environment)
    assert done.stdout.split() == ["--memory", "--memory-reservation", "--memory-swap"]


def loaded(code: str, home: Path) -> set[str]:
    """Return the modules, and their top levels, that code loads in a fresh interpreter."""
    script = f"import sys; before = set(sys.modules); {code}; print(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    names = done.stdout.split("\n")[-2].split()
    return {*names, *(name.partition(".")[0] for name in names)}


@pytest.mark.parametrize("words", [["ps"], ["ps", "-a", "-q"], ["ps", "-a", "--noheading"]])
def test_ps_loads_nothing_cold(words: list[str], tmp_path: Path) -> None:
    modules = loaded(f"from rootlesspy.__main__ import main; main({words!r})", tmp_path)
    assert "rootlesspy" in modules
    assert modules & COLD == set()


@pytest.mark.parametrize("words", [["kill", "x"], ["network", "ls"], ["secret", "ls"]])
def test_declared_commands_load_no_other_and_no_typer(words: list[str], tmp_path: Path) -> None:
    modules = loaded(f"from rootlesspy.__main__ import main; main({words!r})", tmp_path)
    assert "rootlesspy.cli.direct" in modules
    assert modules & {"typer", "rich", "rootlesspy.cli.pods"} == set()


@pytest.mark.parametrize(
    "words",
    [["kill", "--nosuch"], ["--store=/x", "version"], ["cp", "x"], [], ["--help"], ["rm", "-h"],
     ["run", "--help"], ["network", "--help"]],
)  # fmt: skip
def test_help_and_what_is_not_understood_is_typers(words: list[str], tmp_path: Path) -> None:
    modules = loaded(f"from rootlesspy.__main__ import main; main({words!r})", tmp_path)
    assert {"typer", "rootlesspy.cli.app"} <= modules
    assert modules & {"rich", "rootlesspy.cli.pods"} == set()


def test_parsing_run_loads_nothing_cold(tmp_path: Path) -> None:
    argv_ = ["run", "--rm", "-it", "-e", "A", "-v", "/a:/b", "-p", "80:80", "--cap-add", "ALL", "x"]
    code = (
        "from rootlesspy.cli import argv; from rootlesspy.engine.inputs import options;"
        f"options.run_request(argv.parse({argv_!r}).values, caller_environment={{}},"
        " directory='/', debug=False)"
    )
    modules = loaded(code, tmp_path)
    assert "rootlesspy" in modules
    assert modules & (COLD | {"json", "ctypes", "socket"}) == set()


@pytest.mark.parametrize(
    ("line", "likely"),
    [
        ("run alpine", True),
        ("run --rm alpine ls -d", True),
        ("run --rm -it --name web alpine", True),
        ("--debug --debug-timing run alpine true", True),
        ("run -e A=b -p 80:80 alpine sh -c date --detach", True),
        ("run", True),
        ("run -d alpine", True),
        ("run --rm -itd alpine", True),
        ("run --help", False),
        ("ps", False),
        ("start -a run", False),
        ("", False),
    ],
)
def test_what_looks_like_a_run(line: str, likely: bool) -> None:
    assert __main__._looks_like_run(line.split()) is likely


def test_sockets_of_a_service_manager_are_taken_before_the_fork(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert not __main__._looks_like_run(["run", "alpine"])
