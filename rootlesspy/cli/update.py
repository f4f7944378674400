"""`rp update`: limits and restart policy of containers that exist."""

from __future__ import annotations

from rootlesspy.cli import completion, operations
from rootlesspy.cli import light_typer as typer
from rootlesspy.engine.inputs import values
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.cli.session import Session

T = TypeVar("T")


def _value(metavar: str, text: str, *names: str) -> str | None:
    option: str | None = typer.Option(None, *names, metavar=metavar, help=text, show_default=False)
    return option


def update(
    context: typer.Context,
    names: list[str] = typer.Argument(
        ..., metavar="CONTAINER...", help="Names, ids or unique beginnings of ids.",
        autocompletion=completion.containers, show_default=False,
    ),
    blkio_weight: str | None = _value(
        "NUMBER", "Share of block I/O, 10 to 1000 (IOWeight).", "--blkio-weight"
    ),
    cpu_shares: str | None = _value(
        "NUMBER", "Share of CPU time, 1024 is usual (CPUWeight).", "--cpu-shares", "-c"
    ),
    cpus: str | None = _value("NUMBER", "Number of CPUs, such as 1.5 (CPUQuota).", "--cpus"),
    cpuset_cpus: str | None = _value(
        "LIST", "CPUs to run on, such as 0-2,4 (AllowedCPUs).", "--cpuset-cpus"
    ),
    cpuset_mems: str | None = _value(
        "LIST", "Memory nodes to use (AllowedMemoryNodes).", "--cpuset-mems"
    ),
    memory: str | None = _value("SIZE", "Limit of memory (MemoryMax).", "--memory", "-m"),
    memory_reservation: str | None = _value(
        "SIZE", "Memory that is left to it when memory is short (MemoryLow).",
        "--memory-reservation",
    ),
    memory_swap: str | None = _value(
        "SIZE", "Limit of memory and swap together, -1: unlimited (MemorySwapMax).",
        "--memory-swap",
    ),
    pids_limit: str | None = _value(
        "NUMBER", "Limit of processes and threads, -1: unlimited (TasksMax).", "--pids-limit"
    ),
    restart: str | None = _value(
        "POLICY", "no, on-failure[:N], always or unless-stopped (Restart=).", "--restart"
    ),
) -> int:  # fmt: skip
    """Change the limits and the restart policy of containers.

    Running ones are changed at once, and all keep it for their next start. 0 takes a limit away.
    What this machine would not enforce is refused.
    """
    from rootlesspy.engine import update as engine

    change = engine.Change(
        memory_bytes=_parsed(memory, "--memory", values.parse_size),
        memory_swap_bytes=_parsed(memory_swap, "--memory-swap", values.parse_size_or_unlimited),
        memory_reservation_bytes=_parsed(
            memory_reservation, "--memory-reservation", values.parse_size
        ),
        cpu_quota_us=_parsed(cpus, "--cpus", values.parse_cpus),
        cpu_shares=_parsed(cpu_shares, "--cpu-shares", _weight(2, 262144)),
        cpuset_cpus=_parsed(cpuset_cpus, "--cpuset-cpus", values.parse_cpuset),
        cpuset_mems=_parsed(cpuset_mems, "--cpuset-mems", values.parse_cpuset),
        pids_limit=_pids(_parsed(pids_limit, "--pids-limit", values.parse_pids_limit)),
        blkio_weight=_parsed(blkio_weight, "--blkio-weight", _weight(10, 1000)),
        restart=_parsed(restart, "--restart", values.parse_restart),
    )
    if change == engine.Change():
        raise UsageError("rp update: nothing to change", hint="rp update --help")
    session: Session = context.obj
    paths = session.paths()
    return operations.each(
        session,
        names,
        lambda name: engine.update(paths, name, change),
        show=lambda _name, container_id: str(container_id),
    )


def _parsed(text: str | None, option: str, parse: Callable[[str, str], T]) -> T | None:
    return None if text is None else parse(text, option)


def _weight(low: int, high: int) -> Callable[[str, str], int]:
    """Return a parser of weights in this range; 0 is the default weight."""
    return lambda text, option: 0 if text == "0" else values.parse_integer(text, option, low, high)


def _pids(limit: int | None) -> int | None:
    """0 or less means unlimited, as rp run has it; in a spec 0 would mean: none was set."""
    return -1 if limit is not None and limit <= 0 else limit
