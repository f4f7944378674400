"""`rp network create`, `update`, `rm`, `prune`, `connect`, `disconnect`, `reload` and `exists`."""

from __future__ import annotations

import sys

from rootlesspy.cli import completion, network_rows
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli.question import agreed
from rootlesspy.cli.removal import Removal
from rootlesspy.engine.inputs import values
from rootlesspy.errors import Error, NotFound, Unsupported, UsageError

_NETWORK = typer.Argument(
    ..., metavar="NETWORK", help="Network, by name or id.", show_default=False,
    autocompletion=completion.networks,
)  # fmt: skip
_NETWORKS = typer.Argument(
    ..., metavar="NETWORK...", help="Networks, by name or id.", show_default=False,
    autocompletion=completion.networks,
)  # fmt: skip
_CONTAINER = typer.Argument(
    ..., metavar="CONTAINER", help="Container, by name or id.", show_default=False,
    autocompletion=completion.containers,
)  # fmt: skip
_UNUSED = "This will remove all networks not used by at least one container."


def create(
    context: typer.Context,
    name: str | None = typer.Argument(
        None, metavar="[NAME]", help="Name; without one it is network1 and so on.",
        show_default=False,
    ),
    disable_dns: bool = typer.Option(
        False, "--disable-dns", help="Answer no names of containers.", show_default=False
    ),
    dns: list[str] = typer.Option(
        None, "--dns", metavar="IP", help="Who is asked for other names, not the host's resolvers.",
        show_default=False,
    ),
    driver: str = typer.Option("bridge", "--driver", "-d", metavar="DRIVER", help="bridge."),
    gateway: list[str] = typer.Option(
        None, "--gateway", metavar="IP", help="The bridge's own address; default the first one.",
        show_default=False,
    ),
    ignore: bool = typer.Option(
        False, "--ignore", help="Do nothing when it exists.", show_default=False
    ),
    interface_name: str | None = typer.Option(
        None, "--interface-name", metavar="NAME", help="Name of the bridge, in its namespace.",
        show_default=False,
    ),
    internal: bool = typer.Option(
        False, "--internal", help="Give no way out to containers of internal networks alone.",
        show_default=False,
    ),
    ip_range: list[str] = typer.Option(
        None, "--ip-range", metavar="RANGE", show_default=False,
        help="Give out only these addresses: ADDRESS/LENGTH or FIRST-LAST.",
    ),
    ipv6: bool = typer.Option(
        False, "--ipv6", help="IPv6 addresses too, of a unique local /64.", show_default=False
    ),
    label: list[str] = typer.Option(
        None, "--label", metavar="KEY=VALUE", help="Set a label.", show_default=False
    ),
    opt: list[str] = typer.Option(
        None, "--opt", "-o", metavar="KEY=VALUE", help="mtu=BYTES.", show_default=False
    ),
    route: list[str] = typer.Option(
        None, "--route", metavar="DESTINATION,GATEWAY[,METRIC]", show_default=False,
        help="A route of every container.",
    ),
    subnet: list[str] = typer.Option(
        None, "--subnet", metavar="ADDRESS/LENGTH", help="Subnet; default a free one.",
        show_default=False,
    ),
) -> int:  # fmt: skip
    """Make a network of containers, which reach each other by name; print its name."""
    from rootlesspy.engine.networks import management
    from rootlesspy.network.attachment import parse_interface

    if driver != "bridge":
        raise Unsupported(
            f"network driver {driver!r} is not supported",
            hint="bridge; macvlan and ipvlan need an interface of root's",
        )
    wanted = management.Wanted(
        name=name or "",
        subnets=tuple(subnet or ()),
        gateways=tuple(gateway or ()),
        ranges=tuple(ip_range or ()),
        ipv6=ipv6,
        internal=internal,
        dns=not disable_dns,
        dns_servers=_words(dns),
        options=tuple(_option(each) for each in opt or ()),
        labels=tuple(values.parse_label(each, "--label") for each in label or ()),
        routes=tuple(route or ()),
        interface_name=parse_interface(interface_name) if interface_name else "",
    )
    made = management.create(context.obj.paths(), wanted, ignore=ignore)
    sys.stdout.write(f"{made.name}\n")
    return 0


def update(
    context: typer.Context,
    network: str = _NETWORK,
    dns_add: list[str] = typer.Option(
        None, "--dns-add", metavar="IP", help="Add a name server.", show_default=False
    ),
    dns_drop: list[str] = typer.Option(
        None, "--dns-drop", metavar="IP", help="Remove a name server.", show_default=False
    ),
) -> int:  # fmt: skip
    """Change whom a network asks for names that are not its containers'; print its name."""
    from rootlesspy.engine.networks import management

    if not dns_add and not dns_drop:
        raise UsageError("nothing to change", hint="--dns-add IP, --dns-drop IP")
    paths = context.obj.paths()
    changed = management.update(paths, network, add=_words(dns_add), drop=_words(dns_drop))
    sys.stdout.write(f"{changed.name}\n")
    return 0


def rm(
    context: typer.Context,
    names: list[str] = _NETWORKS,
    force: bool = typer.Option(
        False, "--force", "-f", help="Remove the containers of the network too.",
        show_default=False,
    ),
    time: int | None = typer.Option(
        None, "--time", "-t", metavar="SECONDS", show_default=False,
        help="How long its containers may take to stop; default 10.",
    ),
) -> int:  # fmt: skip
    """Remove networks; print their names."""
    from rootlesspy.engine.networks import management

    session = context.obj
    removal = Removal(session.reporter)
    for name in names:
        try:
            removed = management.remove(
                session.paths(),
                name,
                session.reporter,
                force=force,
                timeout_s=10.0 if time is None else float(time),
            )
        except NotFound as error:
            if not force:
                removal.failed(error)
        except Error as error:
            removal.failed(error)
        else:
            sys.stdout.write(f"{removed}\n")
    return removal.exit_code


def prune(
    context: typer.Context,
    force: bool = typer.Option(False, "--force", "-f", help="Ask nothing.", show_default=False),
    filters: list[str] = typer.Option(
        None, "--filter", metavar="KEY=VALUE", help="Only what fits: label, label!, until.",
        show_default=False,
    ),
) -> int:  # fmt: skip
    """Remove networks that no container is of; print their names."""
    from rootlesspy.engine.networks import management

    fits = network_rows.matching(filters or (), used=frozenset(), keys=network_rows.PRUNE_KEYS)
    if not force and not agreed(_UNUSED):
        return 0
    for name in management.prune(context.obj.paths(), fits):
        sys.stdout.write(f"{name}\n")
    return 0


def connect(
    context: typer.Context,
    network: str = _NETWORK,
    container: str = _CONTAINER,
    alias: list[str] = typer.Option(
        None, "--alias", metavar="NAME", help="One more name of it in this network.",
        show_default=False,
    ),
    ip: str | None = typer.Option(
        None, "--ip", metavar="IP", help="IPv4 address.", show_default=False
    ),
    ip6: str | None = typer.Option(
        None, "--ip6", metavar="IP", help="IPv6 address.", show_default=False
    ),
    mac_address: str | None = typer.Option(
        None, "--mac-address", metavar="MAC", help="MAC address.", show_default=False
    ),
) -> int:  # fmt: skip
    """Connect a container, running or not, with a network."""
    from rootlesspy.engine.networks import connection
    from rootlesspy.network import attachment

    request = attachment.parse_all(
        ("x",), ip=ip or "", ip6=ip6 or "", mac=mac_address or "", aliases=alias or ()
    )
    connection.connect(context.obj.paths(), network, container, request.networks[0])
    return 0


def disconnect(
    context: typer.Context,
    network: str = _NETWORK,
    container: str = _CONTAINER,
    force: bool = typer.Option(
        False, "--force", "-f", help="Also from a network that is gone.", show_default=False
    ),
) -> int:  # fmt: skip
    """Disconnect a container, running or not, from a network."""
    from rootlesspy.engine.networks import connection

    connection.disconnect(context.obj.paths(), network, container, force=force)
    return 0


def reload(
    context: typer.Context,
    names: list[str] = typer.Argument(
        None, metavar="[CONTAINER...]", help="Containers, by name or id.", show_default=False,
        autocompletion=completion.containers,
    ),
    everything: bool = typer.Option(
        False, "--all", "-a", help="All running containers.", show_default=False
    ),
) -> int:  # fmt: skip
    """Connect running containers with their networks again, where they are not."""
    from rootlesspy.engine.networks import connection

    if everything == bool(names):
        raise UsageError("containers or --all are needed, not both")
    for container_id in connection.reload(context.obj.paths(), tuple(names or ())):
        sys.stdout.write(f"{container_id}\n")
    return 0


def exists(context: typer.Context, network: str = _NETWORK) -> int:
    """Exit with 0 if there is such a network, with 1 if not."""
    from rootlesspy.engine.networks import store

    try:
        store.find(context.obj.paths(), network)
    except NotFound:
        return 1
    return 0


def _words(texts: list[str] | None) -> tuple[str, ...]:
    """Return what may stand in one text, parted by commas, as in podman."""
    return tuple(word for text in texts or () for word in text.split(",") if word)


def _option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"--opt {text!r}: expected KEY=VALUE")
    return key, value
