"""Bundles that each show a few fields of config.json: what test_oci_spec runs and looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from namespace import bundles

if TYPE_CHECKING:
    from collections.abc import Callable

HOME = bundles.HOME
# Root of a user namespace with mounts, a network and no user namespace in the spec.
OWN = ("unshare", "-Urmn", "--propagation", "private", "sh", "-c")
MOUNTED = (
    f"mount -t tmpfs top {HOME}/tree && mkdir {HOME}/tree/sub && mount -t tmpfs sub {HOME}/tree/sub"
    f' && mount --make-rshared {HOME}/tree && exec "$@"'
)
LINKED = (
    "ip link add moved0 type veth peer name moved1 && ip link set moved0 mtu 1400"
    " && ip addr add 10.5.5.1/24 dev moved0 && ip addr add fd77::1/64 dev moved0"
    ' && exec "$@"'
)
NESTED = ("unshare", "-Urm")
# Option → the word of mountinfo.
RECURSIVE = {
    "rro": "ro",
    "rnosuid": "nosuid",
    "rnodev": "nodev",
    "rnoexec": "noexec",
    "rnoatime": "noatime",
    "rnodiratime": "nodiratime",
    "rnosymfollow": "nosymfollow",
}
PROPAGATIONS = ("private", "slave", "shared", "unbindable")
LIMITS = {"NOFILE": 400, "NPROC": 500, "CORE": 0, "MSGQUEUE": 4096, "SIGPENDING": 77, "RTPRIO": 0}


class Case(NamedTuple):
    """One bundle: what is changed in a spec that runs a shell line."""

    line: str
    change: Callable[[dict[str, Any]], None]
    before: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    general: tuple[str, ...] = ()


def in_own_namespace(spec: dict[str, Any]) -> None:
    """Leave out the spec's user namespace: the caller is root of one."""
    linux = spec["linux"]
    linux["namespaces"] = [n for n in linux["namespaces"] if n["type"] != "user"]
    del linux["uidMappings"], linux["gidMappings"]


def bind(spec: dict[str, Any], name: str, *options: str, **more: Any) -> None:
    spec["mounts"].append(
        {"destination": f"/{name}", "type": "bind", "source": f"{HOME}/tree"}
        | {"options": list(options), **more}
    )


def many_mounts(spec: dict[str, Any]) -> None:
    in_own_namespace(spec)
    for option in RECURSIVE:
        bind(spec, option, "rbind", option)
        bind(spec, f"top-{option}", "rbind", option[1:])
    for kind in PROPAGATIONS:
        bind(spec, kind, "rbind", kind)
        bind(spec, f"r{kind}", "rbind", f"r{kind}")
    maps = [{"containerID": 0, "hostID": 0, "size": 1}]
    bind(spec, "mapped", "rbind", "ridmap", uidMappings=maps, gidMappings=maps)
    spec["mounts"].append(
        {"destination": "/rel", "type": "none", "source": "../tree", "options": ["bind"]}
    )


def with_devices(*names: str) -> Callable[[dict[str, Any]], None]:
    def change(spec: dict[str, Any]) -> None:
        spec["linux"]["netDevices"] = {name: {} for name in names}
        spec["linux"]["namespaces"].append({"type": "network"})

    return change


def own_network(spec: dict[str, Any]) -> None:
    with_devices("moved0", "moved1")(spec)
    in_own_namespace(spec)
    spec["linux"]["netDevices"]["moved0"] = {"name": "eth7"}
    spec["mounts"][-1] = {"destination": "/sys", "type": "sysfs", "source": "sysfs"}


def scheduled(policy: str, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda spec: spec["process"].update(scheduler={"policy": policy, **fields})


def attributes(spec: dict[str, Any]) -> None:
    process, linux = spec["process"], spec["linux"]
    process["rlimits"] = [
        {"type": f"RLIMIT_{name}", "soft": value, "hard": value} for name, value in LIMITS.items()
    ]
    process["capabilities"] = {
        "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_KILL"],
        "inheritable": ["CAP_CHOWN"],
        "ambient": ["CAP_CHOWN"],
    }
    linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}
    linux["devices"] = [
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o640},
        {"path": "/dev/also-null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666},
    ]
    linux["personality"] = {"domain": "LINUX32"}
    linux["sysctl"] = {"kernel.shmmax": "12345"}
    spec["domainname"] = "by.spec"
    linux["maskedPaths"] = ["/proc/version", "/etc"]
    linux["readonlyPaths"] = ["/proc/sys", "/tmp"]
    spec["annotations"] = {"org.example.key": "value"}
    spec["org.example.unknown"] = {"is": "passed over"}
    linux["alsoUnknown"] = process["unknownToo"] = [1]


ATTRIBUTES = r"""
grep -E '^(Max open|Max proc|Max core|Max msg|Max pending|Max realtime p)' /proc/self/limits
grep -E '^Cap' /proc/self/status
grep -m1 . /proc/self/numa_maps
ls -l /dev/pipe /dev/also-null
uname -m; cat /proc/sys/kernel/shmmax /proc/sys/kernel/domainname
wc -c </proc/version; ls /etc | wc -l
touch /tmp/x 2>&1
true
"""
CASES = {
    "attributes": Case(ATTRIBUTES, attributes),
    "mounts": Case(
        'awk \'{ printf "%s %s", $5, $6; for (i = 7; $i != "-"; i++) printf " %s", $i;'
        ' print "" }\' /proc/self/mountinfo; ls -n -d /mapped /mapped/sub; ls /rel',
        many_mounts,
        before=(*OWN, MOUNTED, "x"),
    ),
    "devices-moved": Case(
        "ip addr; cat /sys/class/net/eth7/mtu", own_network, before=(*OWN, LINKED, "x")
    ),
    "foreign-device": Case("true", with_devices("lo")),
    "missing-device": Case("true", with_devices("nosuch0")),
    "foreign-idmap": Case(
        "true",
        lambda spec: spec["mounts"].append(
            {"destination": "/m", "source": HOME, "options": ["bind", "idmap"]}
        ),
    ),
    "other": Case("awk '{print $19, $41}' /proc/self/stat", scheduled("SCHED_OTHER", nice=3)),
    "batch": Case("awk '{print $19, $41}' /proc/self/stat", scheduled("SCHED_BATCH")),
    "idle": Case("awk '{print $19, $41}' /proc/self/stat", scheduled("SCHED_IDLE")),
    "fifo": Case("true", scheduled("SCHED_FIFO", priority=5)),
    "rr": Case("true", scheduled("SCHED_RR", priority=5)),
    "iso": Case("true", scheduled("SCHED_ISO")),
    "deadline": Case(
        "true",
        scheduled("SCHED_DEADLINE", runtime=10_000_000, deadline=20_000_000, period=20_000_000),
    ),
    "no-pivot": Case(
        "ls -d /home/alice /etc/passwd 2>&1; cd /; cd ..; pwd; ls -d rootfs",
        lambda spec: None,
        flags=("--no-pivot",),
    ),
    "descriptors": Case(
        "cat <&3; cat <&4; echo $LISTEN_FDS $LISTEN_PID; ls /proc/self/fd | wc -l",
        lambda spec: None,
        before=(
            "sh",
            "-c",
            'echo three >a3; echo four >a4; exec 3<a3 4<a4 5<a4; LISTEN_FDS=1 exec "$@"',
            "x",
        ),
        flags=("--preserve-fds", "1"),
    ),
    "closed-descriptor": Case("true", lambda spec: None, flags=("--preserve-fds", "7")),
    "newer-version": Case("echo ran", lambda spec: spec.update(ociVersion="1.99.0")),
    "scope": Case("cat /proc/self/cgroup", lambda spec: None, general=("--systemd-cgroup",)),
    "no-bus": Case(
        "echo ran",
        lambda spec: None,
        before=("env", "-u", "XDG_RUNTIME_DIR", "-u", "DBUS_SESSION_BUS_ADDRESS"),
        general=("--systemd-cgroup",),
    ),
    "no-bus-but-limits": Case(
        "echo ran",
        lambda spec: spec["linux"].update(resources={"pids": {"limit": 50}}),
        before=("env", "-u", "XDG_RUNTIME_DIR", "-u", "DBUS_SESSION_BUS_ADDRESS"),
        general=("--systemd-cgroup",),
    ),
    "root-in-a-namespace": Case("id -u; cat /proc/self/uid_map", in_own_namespace, before=NESTED),
    "root-without-bus": Case(
        "id -u",
        in_own_namespace,
        before=("env", "-u", "XDG_RUNTIME_DIR", "-u", "DBUS_SESSION_BUS_ADDRESS", *NESTED),
        general=("--root", f"{HOME}/state", "--systemd-cgroup"),
    ),
    "next-version": Case("true", lambda spec: spec.update(ociVersion="2.0.0")),
    **{
        kind: Case(
            "awk '$5 == \"/\" { print $7 }' /proc/self/mountinfo",
            lambda spec, kind=kind: spec["linux"].update(rootfsPropagation=kind),  # type: ignore[misc]
        )
        for kind in (*PROPAGATIONS, *(f"r{kind}" for kind in PROPAGATIONS))
    },
}
