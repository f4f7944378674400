"""`rp doctor`: the checks of this machine, one line each, and what cures what is wrong."""

from __future__ import annotations

import sys

from rootlesspy.cli import light_typer as typer
from rootlesspy.cli import output, table
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.report import colours, escape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.engine.doctor.doctor import Report
    from rootlesspy.engine.doctor.doctor_fix import Attempt

_MARKS = {"ok": "✔", "warning": "!", "failed": "✘", "skipped": "-"}
_WORDS = {"ok": "ok  ", "warning": "warn", "failed": "FAIL", "skipped": "skip"}
_COLOURS = {"ok": table.GREEN, "warning": table.YELLOW, "failed": table.RED}
_PLAIN = "\x1b[0m"
_NAME_CELLS = 17


def doctor(
    context: typer.Context,
    fix: bool = typer.Option(
        False, "--fix", help="Repair what you may repair yourself, then look again.",
        show_default=False,
    ),
    form: str | None = typer.Option(
        None, "--format", "-f", metavar="FORMAT", help="json.", show_default=False
    ),
    verbose: bool = typer.Option(
        False, "--verbose", "-v", help="Say what each check is for, and every cure.",
        show_default=False,
    ),
) -> int:  # fmt: skip
    """Look for what keeps containers from running on this machine, and name the cures.

    Tries what containers need: the user manager, user namespaces, id maps, overlay, network.
    Changes nothing without --fix.  Exit code 0: `rp run` works here, whatever the warnings say;
    1: it does not.
    """
    from rootlesspy.engine.doctor import doctor as checks

    if form is not None and not output.is_json(form):
        raise UsageError(f"--format {form!r}: expected json", hint="rp doctor --format json")
    environment = context.obj.environment
    report = checks.examine(environment)
    attempts: list[Attempt] = []
    if fix:
        from rootlesspy.engine.doctor import doctor_fix

        attempts = doctor_fix.repair(environment, report)
        if any(attempt.done for attempt in attempts):
            report = checks.examine(environment)
    if form is not None:
        output.print_json(_as_json(report, attempts))
    else:
        sys.stdout.write("".join(_lines(report, attempts, environment, fix=fix, verbose=verbose)))
    return 0 if checks.would_run(report) else 1


def _as_json(report: Report, attempts: list[Attempt]) -> dict[str, object]:
    from rootlesspy.engine.doctor import doctor as checks

    return {
        "works": checks.would_run(report),
        "checks": [
            {
                "name": name,
                "status": finding.status,
                "message": finding.message,
                "cure": finding.cure,
                "root": finding.root,
                "packages": list(finding.packages),
                "fixable": bool(finding.own),
            }
            for name, finding in report.items()
        ],
        "fixed": [attempt._asdict() for attempt in attempts],
        "rootCommand": checks.root_command(report),
    }


def _lines(
    report: Report,
    attempts: list[Attempt],
    environment: Mapping[str, str],
    *,
    fix: bool,
    verbose: bool,
) -> list[str]:
    from rootlesspy.engine.doctor import doctor as checks

    lines = []
    for attempt in attempts:
        done = "fixed" if attempt.done else "not fixed"
        lines.append(f"{done}: {attempt.check}: {escape(attempt.message)}\n")
    reasons = {check.name: check.why for check in checks.checks()}
    marks = _marks(environment)
    margin = " " * ((5 if marks is _WORDS else 2) + _NAME_CELLS)
    for name, finding in report.items():
        lines.append(f"{marks[finding.status]} {name:<{_NAME_CELLS}}{escape(finding.message)}\n")
        if verbose:
            lines.append(f"{margin}for: {reasons[name]}\n")
        if finding.cure and (verbose or finding.status != checks.OK):
            own = "" if fix or not finding.own else " (or: rp doctor --fix)"
            lines.append(f"{margin}cure: {escape(finding.cure)}{own}\n")
    lines.append("\n" + _verdict(report))
    command = checks.root_command(report)
    if command:
        lines.append(f"all that only root can do, in one line:\n{checks.as_root(command)}\n")
    return lines


def _verdict(report: Report) -> str:
    failed = [name for name, finding in report.items() if finding.status == "failed"]
    if failed:
        return f"rp run does not work here: {', '.join(failed)}\n"
    warnings = [name for name, finding in report.items() if finding.status == "warning"]
    return f"rp run works here{'; less than perfect: ' if warnings else ''}{', '.join(warnings)}\n"


def _marks(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the first column: signs on a terminal that can show them, else words.

    Python takes the C locale for UTF-8 (PEP 538); what the user said is what the terminal shows.
    """
    said = next(filter(None, map(environment.get, ("LC_ALL", "LC_CTYPE", "LANG"))), "")
    if not sys.stdout.isatty() or not said.lower().endswith(("utf-8", "utf8")):
        return _WORDS
    if not colours(1):
        return _MARKS
    return {
        status: f"{_COLOURS[status]}{mark}{_PLAIN}" if status in _COLOURS else mark
        for status, mark in _MARKS.items()
    }
