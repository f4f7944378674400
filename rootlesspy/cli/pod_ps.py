"""`rp pod ps` and `rp pod inspect`: which pods there are, and what they are."""

from __future__ import annotations

import sys
import time

from rootlesspy.cli import human, output, table
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli.pod_choice import chosen, flag, names, value
from rootlesspy.errors import NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import re
    from collections.abc import Callable

    from rootlesspy.cli.session import Session
    from rootlesspy.engine.pods.store import Pod

_SHORT_ID = 12
_HEADERS = {
    "Id": "POD ID", "ID": "POD ID", "InfraID": "INFRA ID", "InfraId": "INFRA ID",
    "NumberOfContainers": "# OF CONTAINERS", "ContainerIds": "IDS", "ContainerNames": "NAMES",
    "ContainerStatuses": "STATUS",
}  # fmt: skip
_SORTS = ("created", "id", "name", "number", "status")


class _Shown(NamedTuple):
    """A pod, and what podman's JSON has of it."""

    pod: Pod
    fields: dict[str, Any]

    @property
    def members(self) -> list[dict[str, Any]]:
        """Its containers."""
        found: list[dict[str, Any]] = self.fields["Containers"]
        return found


def list_(
    context: typer.Context,
    ctr_ids: bool = flag("Show the ids of the members.", "--ctr-ids"),
    ctr_names: bool = flag("Show the names of the members.", "--ctr-names"),
    ctr_status: bool = flag("Show the states of the members.", "--ctr-status"),
    filters: list[str] = value(
        "KEY=VALUE",
        "id, name, status, label, network, until, ctr-ids, ctr-names, ctr-number or ctr-status.",
        "--filter", "-f",
    ),
    form: str | None = value("FORMAT", "json, a Go template, or table and one.", "--format"),
    latest: bool = flag("Show the newest one.", "--latest", "-l"),
    noheading: bool = flag("Leave out the headings.", "--noheading", "-n"),
    no_trunc: bool = flag("Do not shorten ids.", "--no-trunc"),
    ns: bool = flag("Show the slice and what is shared.", "--ns"),
    quiet: bool = flag("Print ids only.", "--quiet", "-q"),
    sort: str = typer.Option("created", "--sort", metavar="KEY", help=", ".join(_SORTS) + "."),
) -> int:  # fmt: skip
    """List pods."""
    from rootlesspy.engine.pods import store, views

    paths = context.obj.paths()
    pods = store.everything(paths)
    if latest:
        pods = pods[:1]
    found = _sorted([_Shown(pod, views.listed(paths, pod)) for pod in pods], sort)
    for test in _tests(filters or ()):
        found = [each for each in found if test(each)]
    length = None if no_trunc else _SHORT_ID
    if quiet:
        sys.stdout.write("".join(f"{each.pod.id[:length]}\n" for each in found))
        return 0
    now_s = time.time()
    if form:
        output.show(
            form,
            _HEADERS,
            rows=lambda: [_row(each, now_s, length) for each in found],
            json_rows=lambda: [each.fields for each in found],
            heading=not noheading,
        )
        return 0
    fields = ["ID", "Name", "Status", "Created", "InfraID"]
    fields += ["Cgroup", "Namespaces"] if ns else []
    members = {
        "ContainerIds": ctr_ids,
        "ContainerNames": ctr_names,
        "ContainerStatuses": ctr_status,
    }
    fields += [key for key, wanted in members.items() if wanted] or ["NumberOfContainers"]
    rows = [_row(each, now_s, length) for each in found]
    cells = [tuple(str(row[field]) for field in fields) for row in rows]
    header = tuple(_HEADERS.get(field, field.upper()) for field in fields)
    sys.stdout.write(table.render(header, cells, table.style(), heading=not noheading))
    return 0


def _sorted(found: list[_Shown], key: str) -> list[_Shown]:
    """Sort pods as podman does; by default the newest is the first, as they come."""
    if key not in _SORTS:
        raise UsageError(f"--sort {key!r} is unknown", hint=", ".join(_SORTS))
    keys: dict[str, Callable[[_Shown], Any]] = {
        "created": lambda each: -each.pod.created_s,
        "id": lambda each: each.pod.id,
        "name": lambda each: each.pod.name,
        "number": lambda each: len(each.members),
        "status": lambda each: each.fields["Status"],
    }
    return sorted(found, key=keys[key])


def _row(shown: _Shown, now_s: float, length: int | None) -> Any:
    from rootlesspy.cli.gotemplate_functions import Record

    pod = shown.pod
    return Record(
        Cgroup=pod.slice,
        ContainerIds=",".join(each["Id"][:length] for each in shown.members),
        ContainerNames=",".join(each["Names"] for each in shown.members),
        ContainerStatuses=",".join(each["Status"] for each in shown.members),
        Containers=shown.members,
        Created=human.ago(pod.created_s, now_s),
        ID=pod.id[:length],
        Id=pod.id[:length],
        InfraID="",
        InfraId="",
        Labels=pod.labels,
        Name=pod.name,
        Namespaces=",".join(shown.fields["SharedNamespaces"]),
        Networks=",".join(shown.fields["Networks"]),
        NumberOfContainers=len(shown.members),
        Restarts="",
        Status=shown.fields["Status"],
    )


def _tests(texts: list[str] | tuple[()]) -> list[Callable[[_Shown], bool]]:
    """Return one test per key: any of its values does, but all labels have to fit, as podman's."""
    by_key: dict[str, list[str]] = {}
    for text in texts:
        key, equals, wanted = text.partition("=")
        if not equals or key not in _FILTERS:
            raise UsageError(f"--filter {text!r} is unknown", hint=", ".join(_FILTERS))
        by_key.setdefault(key, []).append(wanted)
    tests = []
    for key, values in by_key.items():
        made = [_FILTERS[key](each) for each in values]
        tests += made if key == "label" else [_any(made)]
    return tests


def _any(tests: list[Callable[[_Shown], bool]]) -> Callable[[_Shown], bool]:
    return lambda shown: any(test(shown) for test in tests)


def _pattern(text: str, key: str) -> re.Pattern[str]:
    import re

    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"--filter {key}={text!r} is no regular expression: {error}") from error


def _id(text: str) -> Callable[[_Shown], bool]:
    return lambda shown: shown.pod.id.startswith(text)


def _name(text: str) -> Callable[[_Shown], bool]:
    pattern = _pattern(text, "name")
    return lambda shown: pattern.search(shown.pod.name) is not None


def _status(text: str) -> Callable[[_Shown], bool]:
    return lambda shown: bool(shown.fields["Status"].lower() == text.lower())


def _label(text: str) -> Callable[[_Shown], bool]:
    name, equals, wanted = text.partition("=")

    def fits(shown: _Shown) -> bool:
        found = shown.pod.labels.get(name)
        return found is not None and (not equals or found == wanted)

    return fits


def _network(text: str) -> Callable[[_Shown], bool]:
    return lambda shown: text in shown.fields["Networks"]


def _until(text: str) -> Callable[[_Shown], bool]:
    from rootlesspy.cli.moment import parse_moment

    until_s = parse_moment(text, "--filter until")
    return lambda shown: shown.pod.created_s < until_s


def _member_id(text: str) -> Callable[[_Shown], bool]:
    return lambda shown: any(each["Id"].startswith(text) for each in shown.members)


def _member_name(text: str) -> Callable[[_Shown], bool]:
    pattern = _pattern(text, "ctr-names")
    return lambda shown: any(pattern.search(each["Names"]) for each in shown.members)


def _member_status(text: str) -> Callable[[_Shown], bool]:
    return lambda shown: any(each["Status"] == text.lower() for each in shown.members)


def _number(text: str) -> Callable[[_Shown], bool]:
    from rootlesspy.engine.inputs.values import parse_integer

    number = parse_integer(text, "--filter ctr-number", 0, 2**31 - 1)
    return lambda shown: len(shown.members) == number


_FILTERS: dict[str, Callable[[str], Callable[[_Shown], bool]]] = {
    "ctr-ids": _member_id,
    "ctr-names": _member_name,
    "ctr-number": _number,
    "ctr-status": _member_status,
    "id": _id,
    "label": _label,
    "name": _name,
    "network": _network,
    "status": _status,
    "until": _until,
}


def inspect(
    context: typer.Context,
    pods: list[str] = names(),
    form: str | None = value("FORMAT", "json or a Go template.", "--format", "-f"),
    latest: bool = flag("The newest.", "--latest", "-l"),
) -> int:
    """Show what pods are, as JSON."""
    from rootlesspy.engine.pods import store, views

    session: Session = context.obj
    paths = session.paths()
    found = chosen(session, "inspect", pods, latest=latest)
    shown = [views.inspected(paths, store.find(paths, name)) for name in found]
    if form and not output.is_json(form):
        from rootlesspy.cli.gotemplate_functions import Record

        for each in shown:
            output.show_one(Record(each), form)
        return 0
    output.print_json(shown)
    return 0


def exists(
    context: typer.Context,
    name: str = typer.Argument(..., metavar="POD", help="Name, id or unique beginning of an id."),
) -> int:
    """Say by the exit code whether a pod exists: 0, or 1."""
    from rootlesspy.engine.pods import store

    try:
        store.find(context.obj.paths(), name)
    except NotFound:
        return 1
    return 0
