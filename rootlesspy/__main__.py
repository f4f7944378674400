"""The command rp: fast path, else typer; error → message → exit code."""

from __future__ import annotations

import os
import sys

from rootlesspy.errors import Error
from rootlesspy.report import Reporter

_FAILURE = 125
_INTERRUPTED = 130
_BROKEN_PIPE = 141


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; return the exit code, whatever happens.

    Without arguments it is the program's own command line, and the process ends here.
    """
    if arguments is None:
        code = main(sys.argv[1:])
        _flush()
        # To take the interpreter down module by module would cost 10 ms.
        os._exit(code)
    words = arguments
    reporter = Reporter(debug=words[:1] == ["--debug"])
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
    return code


def oci() -> None:
    """Be the program rp-oci, a runtime that engines name by its path."""
    sys.argv[1:] = ["oci", *sys.argv[1:]]
    main()


def _dispatch(words: list[str], reporter: Reporter) -> int:
    if words[:1] == ["oci"]:
        from rootlesspy.cli import oci as runtime

        return runtime.main(words[1:], os.environ)
    from rootlesspy.cli import argv
    from rootlesspy.cli.session import Session

    session = Session(reporter=reporter, environment=os.environ)
    # Set by the shell's completion script: typer answers, whatever argv says.
    if "_RP_COMPLETE" not in os.environ:
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
        invocation = argv.parse(words)
        if invocation is not None:
            from rootlesspy.cli import hot

            return hot.execute(invocation, session)
    from rootlesspy.cli import app

    return app.main(words, session)


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
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        reporter.error(f"{where}{error.strerror.lower()}")
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
