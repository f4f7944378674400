"""Measure networks side by side, with iperf3 and a ping-pong: rp's, podman's, a bare slirp4netns.

PYTHONPATH=tests python3 -m bench.network [--rounds N] [--seconds S] [--dry] boots a rig of its own.
"in" is from another host, over a link, to a published port; "out" the other way; "between" from one
container of a network to another one.  The contestants take turns in a new random order each round,
so that a busy machine is busy for all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rig import install, instance, location, machine, recipe

from bench import figures, network_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rig.machine import Machine

    Values = dict[str, dict[str, list[float]]]

_RESULTS = Path(__file__).parent / "results"
_HOST, _OUTSIDE = recipe.ADDRESS, recipe.OUTSIDE_ADDRESS
_IN_OUTSIDE = ("ip", "netns", "exec", "outside")
_IPERF_PORT, _ECHO_PORT = 5201, 5301
_UDP_BYTES = 1400
# One after the other in the container, in a C library of its own: the machine's whole /usr.
_MOUNTS = ("-v", "/usr:/usr:ro", "-v", "/usr/lib:/lib:ro", "-v", "/usr/lib64:/lib64:ro")
_ECHO = f"""
import select, socket
stream = socket.create_server(("", {_ECHO_PORT}))
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.bind(("", {_ECHO_PORT}))
print("ready", flush=True)
open_ = [stream, datagram]
while True:
    for sock in select.select(open_, [], [])[0]:
        if sock is stream:
            connection, _ = sock.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            open_.append(connection)
        elif sock is datagram:
            data, client = sock.recvfrom(99)
            sock.sendto(data, client)
        else:
            try:
                data = sock.recv(99)
                sock.send(data)
            except OSError:
                data = b""
            if not data:
                open_.remove(sock)
                sock.close()
"""
# Prints microseconds: the median of there and back over TCP, over UDP, and of a new connection.
_PING = """
import json, socket, statistics, sys, time
address, port, limit_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
def timed(step):
    taken, end = [], time.monotonic() + limit_s
    while time.monotonic() < end:
        began = time.perf_counter()
        step()
        taken.append((time.perf_counter() - began) * 1e6)
    return statistics.median(taken)
stream = socket.create_connection((address, port), 30)
stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
def over_tcp():
    stream.send(b"x")
    stream.recv(1)
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.settimeout(0.5)
datagram.connect((address, port))
def over_udp():
    try:
        datagram.send(b"x")
        datagram.recv(1)
    except TimeoutError:
        pass
def connecting():
    with socket.create_connection((address, port), 30) as sock:
        sock.send(b"x")
        sock.recv(1)
print(json.dumps([timed(over_tcp), timed(over_udp), timed(connecting)]))
"""
# Tells slirp4netns what to publish.
_ORDER = """
import socket, sys
for order in sys.argv[2:]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(sys.argv[1])
        sock.send(order.encode())
        sock.shutdown(socket.SHUT_WR)
        print(sock.recv(999))
"""
_SERVE = (
    f"setpriv --pdeathsig KILL iperf3 -s -p {_IPERF_PORT} >/dev/null & exec python3 -I -c '{_ECHO}'"
)
_SERVING = ("sh", "-c", _SERVE)


class Contestant(NamedTuple):
    """A container, or a namespace, with both servers in it."""

    name: str
    inside: tuple[str, ...]
    """Puts a command into it."""
    port: int
    """Of the host, where iperf3 is; the ping-pong is 100 above."""
    peer: str = ""
    """Address of the second one of a network, for "between"."""


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--name", default="bench-network")
    parser.add_argument("--keep", action="store_true", help="leave the rig running")
    parser.add_argument("--dry", action="store_true", help="write no results")
    arguments = parser.parse_args()
    keeper = 0 if arguments.keep else os.getpid()
    try:
        rig = instance.up(arguments.name, recipe.SUITES[0], _say, keeper)
    except location.RigError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    try:
        install.sync(rig)
        _run(machine.Machine(machine.RigDoor(rig)), arguments)
    finally:
        if not arguments.keep:
            instance.down(arguments.name)
    return 0


def _run(rig: Machine, arguments: argparse.Namespace) -> None:
    load_before = _load()
    for program in ("rp", "podman"):
        rig.run([program, "pull", "--quiet", "alpine"], timeout=120)
    with contextlib.ExitStack() as stack:
        contestants, notes = _start(rig, stack)
        mtus = {each.name: _mtu(rig, each) for each in contestants}
        values = _measure(rig, contestants, arguments.rounds, arguments.seconds)
    date = time.strftime("%Y-%m-%d")
    facts = figures.machine_facts((load_before, _load()), {"podman": _version(rig, "podman")})
    report = network_report.Report(date, facts, mtus, _medians(values), tuple(notes))
    text = network_report.table(report)
    print(text)
    if arguments.dry:
        return
    content = json.dumps({**report._asdict(), "values": values}, indent=1)
    (_RESULTS / f"network-{date}.json").write_text(content + "\n", encoding="utf-8")
    (_RESULTS / "network.svg").write_text(network_report.svg(report), encoding="utf-8")
    network_report.insert(Path(__file__).parents[1] / "docs" / "performance.md", text)


def _start(rig: Machine, stack: contextlib.ExitStack) -> tuple[list[Contestant], list[str]]:
    """Start everybody, and the servers on the other host; return also who did not start."""
    _spawn(rig, stack, (*_IN_OUTSIDE, *_SERVING), user="root")
    rig.run(["rp", "network", "create", "bench"])
    stack.callback(rig.run, ["rp", "network", "rm", "-f", "bench"], check=False)
    found, notes = [], []
    for index, (program, network) in enumerate(
        (program, network)
        for program in ("rp", "podman")
        for network in ("pasta", "slirp4netns", "network")
    ):
        try:
            found.append(_container(rig, stack, program, network, 15201 + index))
        except AssertionError as error:
            notes.append(f"{program} {network} does not start here: {str(error)[-300:]}")
            _say(notes[-1])
    found.append(_bare(rig, stack, 15209))
    return found, notes


def _container(
    rig: Machine, stack: contextlib.ExitStack, program: str, network: str, port: int
) -> Contestant:
    name = f"bench-{program}-{network}"
    run = [program, "run", "-d", *(["--pids-limit=0"] if program == "podman" else []), *_MOUNTS]
    peer = ""
    which = network
    if network == "network":
        which = "bench"
        if program == "podman":
            # It would need nft, for the way out; members reach each other without.
            config = '[network]\nfirewall_driver = "none"\n'
            rig.run(["sh", "-c", 'cat >"$HOME/bench.conf"'], input=config)
            run = ["env", "CONTAINERS_CONF_OVERRIDE=/home/alice/bench.conf", *run]
            rig.run([*run[:2], "podman", "network", "create", "--ignore", "bench"])
    ports = [
        f"-p={port + above}:{inside}/{kind}"
        for above, inside in ((0, _IPERF_PORT), (100, _ECHO_PORT))
        for kind in ("tcp", "udp")
    ]
    shown = "" if program == "podman" and network == "network" else ports
    stack.callback(rig.run, [program, "rm", "-f", "-t", "0", name, f"{name}-2"], check=False)
    rig.run([*run, "--name", name, "--network", which, *shown, "alpine", *_SERVING])
    if network == "network":
        rig.run([*run, "--name", f"{name}-2", "--network", which, "alpine", *_SERVING])
        form = "{{.NetworkSettings.Networks.bench.IPAddress}}"
        peer = rig.run([program, "inspect", "--format", form, f"{name}-2"]).stdout.strip()
    return Contestant(f"{program} {network}", (program, "exec", name), port if shown else 0, peer)


def _bare(rig: Machine, stack: contextlib.ExitStack, port: int) -> Contestant:
    """Start slirp4netns without any container, with podman's and rp's MTU."""
    # Started by its parent, whose id is known.
    script = f"echo $$; read -r _; {_SERVE}"
    holder = _spawn(rig, stack, ("unshare", "-Urn", "sh", "-c", script), ready=False)
    pid = holder.stdout.readline().strip()
    api = "/home/alice/bench.api"
    rig.run(["rm", "-f", api])
    argv = ("slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback")
    _spawn(rig, stack, (*argv, "--ready-fd=1", f"--api-socket={api}", pid, "tap0"), ready=False)
    orders = [
        json.dumps({
            "execute": "add_hostfwd",
            "arguments": {
                "proto": kind, "host_addr": "0.0.0.0", "host_port": port + above,
                "guest_addr": "10.0.2.100", "guest_port": inside,
            },
        })
        for above, inside in ((0, _IPERF_PORT), (100, _ECHO_PORT))
        for kind in ("tcp", "udp")
    ]  # fmt: skip
    waiting = f"until test -S {api}; do sleep 0.1; done"
    rig.run(["sh", "-c", waiting])
    rig.run(["python3", "-I", "-c", _ORDER, api, *orders])
    holder.stdin.write("go\n")
    holder.stdin.flush()
    holder.stdout.readline()
    inside = ("nsenter", "-t", pid, "-U", "-n", "--preserve-credentials")
    return Contestant("slirp4netns alone", inside, port)


def _spawn(
    rig: Machine,
    stack: contextlib.ExitStack,
    argv: tuple[str, ...],
    *,
    user: str = "alice",
    ready: bool = True,
) -> Any:
    """Start a process that is killed at the end."""
    process = rig.popen(list(argv), user=user, stdin=-1, stdout=-1, text=True)

    def end() -> None:
        process.kill()
        process.communicate()

    stack.callback(end)
    if ready and process.stdout is not None:
        process.stdout.readline()
    return process


def _measure(rig: Machine, contestants: list[Contestant], rounds: int, seconds: float) -> Values:
    """Return all values, by what was measured and by contestant."""
    values: Values = {}
    order = random.Random(0)
    for done in range(rounds):
        steps = [step for each in contestants for step in _steps(rig, each, seconds)]
        order.shuffle(steps)
        for name, step in steps:
            for measure, value in step():
                values.setdefault(measure, {}).setdefault(name, []).append(round(value, 2))
        _say(f"round {done + 1} of {rounds}, load {_load()}")
    return values


def _steps(
    rig: Machine, each: Contestant, seconds: float
) -> Iterator[tuple[str, Callable[[], list[tuple[str, float]]]]]:
    def outside(*argv: str) -> str:
        return str(rig.run([*_IN_OUTSIDE, *argv], user="root", timeout=60).stdout)

    def inside(*argv: str) -> str:
        return str(rig.run([*each.inside, *argv], timeout=60).stdout)

    ways: list[tuple[str, Callable[..., str], str, int]] = []
    if each.port:
        ways.append(("in", outside, _HOST, each.port))
        ways.append(("out", inside, _OUTSIDE, _IPERF_PORT))
    if each.peer:
        ways.append(("between", inside, each.peer, _IPERF_PORT))
    for way, run, address, port in ways:
        for kind in ("tcp", "udp"):

            def stream(
                way: str = way,
                run: Callable[..., str] = run,
                address: str = address,
                port: int = port,
                kind: str = kind,
            ) -> list[tuple[str, float]]:
                argv = ["iperf3", "-c", address, "-p", str(port), "-t", str(seconds), "-J"]
                if kind == "udp":
                    argv += ["-u", "-b", "0", "-l", str(_UDP_BYTES)]
                try:
                    end = json.loads(run(*argv))["end"]
                except AssertionError:
                    if kind == "tcp":
                        raise
                    # iperf3 gives up where the datagram with which it says hello is lost.
                    _say(f"{each.name}: no figure for {kind} {way} in this round")
                    return []
                told = end["sum_received"] if "sum_received" in end else end["sum"]
                return [(f"{kind} {way}", told["bits_per_second"] / 1e9)]

            yield each.name, stream

        def ping(
            way: str = way, run: Callable[..., str] = run, address: str = address, port: int = port
        ) -> list[tuple[str, float]]:
            words = ("python3", "-I", "-c", _PING, address, str(port + 100), str(seconds / 4))
            tcp, udp, connecting = json.loads(run(*words))
            return [
                (f"tcp latency {way}", tcp),
                (f"udp latency {way}", udp),
                (f"connect {way}", connecting),
            ]

        yield each.name, ping


def _medians(values: Values) -> dict[str, dict[str, float]]:
    return {
        measure: {name: round(statistics.median(each), 2) for name, each in found.items()}
        for measure, found in values.items()
    }


def _mtu(rig: Machine, each: Contestant) -> str:
    script = "cd /sys/class/net; for i in *; do [ $i = lo ] || echo $i $(cat $i/mtu); done"
    if each.inside[0] == "nsenter":
        script = "ip -o link | sed -n 's/.*: \\(tap0\\): .* mtu \\([0-9]*\\) .*/\\1 \\2/p'"
    return " ".join(rig.run([*each.inside, "sh", "-c", script]).stdout.split())


def _version(rig: Machine, program: str) -> str:
    return str(rig.run([program, "--version"]).stdout).split()[-1]


def _load() -> str:
    return Path("/proc/loadavg").read_text(encoding="ascii").split()[0]


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
