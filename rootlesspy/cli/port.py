"""`rp port`: which ports of the host lead into a container."""

from __future__ import annotations

import sys

from rootlesspy.cli import completion, operations
from rootlesspy.cli import light_typer as typer
from rootlesspy.engine.inputs.values import parse_choice, parse_integer
from rootlesspy.errors import NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.cli.session import Session
    from rootlesspy.engine.record import ContainerRecord

_SHORT_ID = 12
_PROTOCOLS = ("tcp", "udp", "sctp")


def port(
    context: typer.Context,
    container: str | None = typer.Argument(
        None, metavar="CONTAINER", help="Name, id or unique beginning of an id.",
        autocompletion=completion.containers, show_default=False,
    ),
    wanted: str | None = typer.Argument(
        None, metavar="[PORT[/PROTOCOL]]", show_default=False,
        help="Only this port of the container; the protocol is tcp unless given.",
    ),
    specs: list[str] = typer.Argument(
        None, metavar="[SPEC]...", show_default=False,
        help="With add or rm in CONTAINER's place, the container and then ports as --publish "
        "takes them.",
    ),
    everything: bool = typer.Option(
        False, "--all", "-a", help="The ports of all containers.", show_default=False
    ),
    latest: bool = typer.Option(
        False, "--latest", "-l", help="The newest container; no CONTAINER is given then.",
        show_default=False,
    ),
) -> int:  # fmt: skip
    """Show the published ports of a container; rp port add|rm CONTAINER SPEC...: change them.

    Each line is PORT/PROTOCOL -> ADDRESS:PORT, container then host; with PORT it is ADDRESS:PORT
    alone. Exit code 125: there is no such container, or it does not publish that port.

    A running container's ports are changed at once; its network helper is started again, so that
    connections that are open end.
    """
    from rootlesspy.engine import lifecycle

    session = context.obj
    if specs:
        return _change(session, container or "", wanted or "", specs)
    if latest and container is not None:
        if wanted is not None:
            raise UsageError("--latest and a container exclude each other")
        container, wanted = None, container
    if everything:
        if container is not None or latest:
            raise UsageError("--all and a container exclude each other")
        for each in reversed(lifecycle.containers(session.paths())):
            for line in _lines(each.record):
                sys.stdout.write(f"{each.record.id[:_SHORT_ID]}\t{line}\n")
        return 0
    names = [] if container is None else [container]
    name = operations.one(session, "port", names, latest=latest)
    found = lifecycle.get(session.paths(), name).record
    lines = _lines(found) if wanted is None else _addresses(found, wanted)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _change(session: Session, verb: str, name: str, specs: list[str]) -> int:
    from rootlesspy.engine.supervision import port_change
    from rootlesspy.network.ports import parse_publish

    verbs = {"add": port_change.add, "rm": port_change.remove}
    if verb not in verbs:
        raise UsageError(f"rp port: {verb!r} is not add or rm", hint="rp port --help")
    mappings = tuple(mapping for text in specs for mapping in parse_publish(text))
    verbs[verb](session.paths(), name, mappings)
    return 0


def _lines(found: ContainerRecord) -> list[str]:
    return [
        f"{inner}/{protocol} -> {_address(address, host)}"
        for address, host, inner, protocol, *_ in found.ports
    ]


def _addresses(found: ContainerRecord, wanted: str) -> list[str]:
    """Return where one port of the container is reached; raises UsageError, NotFound."""
    number, slash, protocol = wanted.partition("/")
    inner = parse_integer(number, "PORT", 1, 65535)
    chosen = parse_choice(protocol.lower(), "PROTOCOL", _PROTOCOLS) if slash else "tcp"
    lines = [
        _address(address, host)
        for address, host, port_, protocol_, *_ in found.ports
        if (port_, protocol_) == (inner, chosen)
    ]
    if not lines:
        raise NotFound(
            f"container {found.name} does not publish port {inner}/{chosen}",
            hint=f"rp port {found.name}",
        )
    return lines


def _address(address: object, port_: object) -> str:
    text = str(address or "0.0.0.0")  # noqa: S104 text
    return f"[{text}]:{port_}" if ":" in text else f"{text}:{port_}"
