"""`rp inspect`: everything about containers and images.  Hot: scripts ask it in loops."""

from __future__ import annotations

from rootlesspy.engine.inputs.values import parse_choice
from rootlesspy.errors import Error, NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.cli.argv import Values
    from rootlesspy.cli.session import Session

TYPES = ("all", "container", "image")


def show(given: Values, session: Session) -> int:
    """Print what is asked for of each name; return 125 when one of them is not there."""
    kind = parse_choice(given.value("type") or "all", "--type", TYPES)
    names = _names(given, session)
    found, failures = [], []
    for name in names:
        try:
            found.append(_document(session, name, kind, size=given.flag("size")))
        except Error as error:
            failures.append(error)
    _print(found, given.value("format"))
    for failure in failures:
        session.reporter.error(failure.message, failure.hint)
    return max((failure.exit_code for failure in failures), default=0)


def _names(given: Values, session: Session) -> Sequence[str]:
    names = given.values("names")
    if not given.flag("latest"):
        if not names:
            raise UsageError("rp inspect: no name given", hint="rp inspect --help")
        return names
    if names:
        raise UsageError("--latest and names exclude each other")
    from rootlesspy.engine import lifecycle

    newest = lifecycle.containers(session.paths())[:1]
    if not newest:
        raise NotFound("there is no container", hint="rp run makes one")
    return [newest[0].record.id]


def _document(session: Session, name: str, kind: str, *, size: bool) -> dict[str, Any]:
    """Return the document of a container, else of an image; raises NotFound and others."""
    paths = session.paths()
    if kind != "image":
        from rootlesspy.engine.views import inspect

        try:
            return inspect.container(paths, name, size=size)
        except NotFound:
            if kind == "container":
                raise
    from rootlesspy.cli import image_inspect

    try:
        return image_inspect.document(paths, name)
    except (NotFound, UsageError):
        if kind == "image":
            raise
        raise NotFound(
            f"no such object: {name!r}", hint="rp ps -a and rp images list them"
        ) from None


def _print(found: list[dict[str, Any]], form: str | None) -> None:
    from rootlesspy.cli import output

    if form is None or form.strip() in ("", "json"):
        output.print_json(found)
        return
    from rootlesspy.cli.inspect_fields import record

    for each in found:
        output.show_one(record(each), form)
