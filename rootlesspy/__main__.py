"""The command rp: fast path, else typer; error → message → exit code."""

from __future__ import annotations

import gc
import os
import sys
import time

from rootlesspy import light_importer
from rootlesspy.errors import Error
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.report import Reporter

if TYPE_CHECKING:
    from rootlesspy.cli.session import Session

_FAILURE = 125
_INTERRUPTED = 130
_BROKEN_PIPE = 141
# A start makes 15,000 objects that stay; at 2,000 each the collector looks for garbage.
_OBJECTS_OF_A_START = 20_000


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; return the exit code, whatever happens.

    Without arguments it is the program's own command line, and the process ends here.
    """
    if arguments is None:
        light_importer.install()
        _wait_for_children()
        code = main(sys.argv[1:])
        _flush()
        # To take the interpreter down module by module would cost 10 ms.
        os._exit(code)
    gc.set_threshold(_OBJECTS_OF_A_START)
    words = arguments
    reporter = _reporter(words)
    _open_standard_descriptors()
    os.umask(0o077)
    try:
        code = _dispatch(words, reporter)
        sys.stdout.flush()
    except Error as error:
        reporter.error(error.message, error.hint)
        return _with_traceback(reporter, error.exit_code)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return _BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 the last line of defence
        return _unexpected(reporter, error)
    reporter.done()
    return code


def oci() -> None:
    """Be the program rp-oci, a runtime that engines name by its path."""
    sys.argv[1:] = ["oci", *sys.argv[1:]]
    main()


def _reporter(words: list[str]) -> Reporter:
    debug, began_ns = False, 0
    for word in words:
        if word == "--debug":
            debug = True
        elif word == "--debug-timing":
            # What this process has computed so far: Python's start and the imports.
            began_ns = time.monotonic_ns() - time.process_time_ns()
        else:
            break
    return Reporter(debug=debug, began_ns=began_ns)


def _dispatch(words: list[str], reporter: Reporter) -> int:
    if words[:1] == ["oci"]:
        from rootlesspy.cli import oci as runtime

        return runtime.main(words[1:], os.environ)
    supervisor = None
    # Set by the shell's completion script: typer answers, whatever argv says.
    completes = "_RP_COMPLETE" in os.environ
    if not completes and _looks_like_run(words):
        _hold_signals()
        from rootlesspy.systemd import migration

        migration.prepare()
        from rootlesspy.engine.supervision import forked

        # Before anything else: it imports its half meanwhile.
        supervisor = forked.fork(reporter, detached="-d" in words or "--detach" in words)
    from rootlesspy.cli.session import Session

    session = Session(reporter=reporter, environment=os.environ, supervisor=supervisor)
    try:
        return _carry_out(words, session, completes=completes)
    finally:
        if supervisor is not None:
            supervisor.dismiss()


def _carry_out(words: list[str], session: Session, *, completes: bool) -> int:
    reporter = session.reporter
    if not completes:
        if words[:1] == ["supervise"] and len(words) == 2:
            # Not for people: ExecStart= of rp-NAME.service.
            from rootlesspy.engine.supervision import supervise

            return supervise.supervise(words[1], session.paths(), reporter)
        if words[:1] == ["network-service"] and len(words) == 2:
            # Not for people: ExecStart= of rp-network-NAME.service.
            from rootlesspy.engine.networks import service

            return service.serve(words[1], session.paths(), reporter)
        if words[:1] == ["pod-service"] and len(words) == 2:
            # Not for people: ExecStart= of rp-pod-NAME.service.
            from rootlesspy.engine.pods import holder

            return holder.serve(words[1], session.paths(), reporter)
        from rootlesspy.cli import argv

        invocation = argv.parse(words)
        if invocation is not None:
            from rootlesspy.cli import hot

            return hot.execute(invocation, session)
    if session.supervisor is not None:
        from rootlesspy.engine.supervision import cancel

        session.supervisor.dismiss()
        session = session._replace(supervisor=None)
        cancel.release()
    if not completes:
        from rootlesspy.cli import direct

        code = direct.execute(words, session)
        if code is not None:
            return code
    from rootlesspy.cli import typer_import

    typer_import.load()
    from rootlesspy.cli import app

    return app.main(words, session)


def _hold_signals() -> None:
    """Keep signals that cancel waiting until the request is understood (supervision.cancel).

    Their exception would be lost where modules are imported.
    """
    # In memory since Python began: importing it imports nothing.
    import _signal  # type: ignore[import-not-found]

    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM))


def _wait_for_children() -> None:
    """Be told how children end, whatever the caller ignores: wait(2) would not know them."""
    # In memory since Python began: importing it imports nothing.
    import _signal

    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)


def _looks_like_run(words: list[str]) -> bool:
    """Say whether words that nobody has parsed yet look like an `rp run` that makes a container.

    Whoever is wrong has forked for nothing, or forks later.
    """
    begin = 0
    while words[begin : begin + 1] in (["--debug"], ["--debug-timing"]):
        begin += 1
    if words[begin : begin + 1] != ["run"] or "LISTEN_FDS" in os.environ:
        return False
    before = "-"
    for word in words[begin + 1 :]:
        if not word.startswith("-") and not before.startswith("-"):
            # Two words in a row: the image is behind us.
            return True
        if word == "--help":
            return False
        before = word
    return True


def _open_standard_descriptors() -> None:
    """Fill closed descriptors 0, 1 and 2, so that no file of rp's lands there (CERT POS52)."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            # The lowest free number is fd; the payload inherits it as it would a terminal.
            os.set_inheritable(opened, True)
    for name, fd, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, mode, closefd=False))
    # Bytes that are no text, and locales that lack a character, must not end in a traceback.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _unexpected(reporter: Reporter, error: Exception) -> int:
    """Report a defect of rp, or an OSError that nobody translated."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        # What is opened by its descriptor is named so.
        named = error.filename and not isinstance(error.filename, int)
        where = f"{os.fsdecode(error.filename)}: " if named else ""
        reporter.error(f"{where}{error.strerror.lower()}")
    elif isinstance(error, ImportError):
        # As with too few descriptors, or files that an upgrade has just replaced.
        cure = "try again; then look at ulimit -n, or install rp again"
        reporter.error(f"cannot load {error.name or 'a module'}: {text}", cure)
    else:
        hint = None if reporter.debug else "rp --debug shows where; please report it"
        reporter.error(f"internal error: {type(error).__name__}: {text}", hint)
    return _with_traceback(reporter, _FAILURE)


def _with_traceback(reporter: Reporter, code: int) -> int:
    if reporter.debug:
        import traceback

        for line in traceback.format_exc().splitlines():
            reporter.step(line)
    return code


def _flush() -> None:
    """Write what is still buffered, after an error too."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # Nobody is there to read it, or to be told.
            continue


def _drop_output() -> None:
    """Send what is still buffered nowhere: it is flushed once more at the end."""
    null_fd = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_fd, 1)
    os.close(null_fd)


if __name__ == "__main__":
    sys.exit(main())
