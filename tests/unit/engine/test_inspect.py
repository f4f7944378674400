"""The document of rp inspect, computed from files alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rootlesspy.engine import record, statefile
from rootlesspy.engine.record import ContainerRecord, ExitRecord
from rootlesspy.engine.supervision import healthcheck
from rootlesspy.engine.views import inspect, inspect_host
from rootlesspy.errors import NotFound
from rootlesspy.paths import Paths

ID = "ab" * 32
LOG = inspect_host.Log("none", "")


def mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(data=f"{tmp_path}/data", runtime=f"{tmp_path}/run", config=f"{tmp_path}/config")


def spec(paths: Paths, **changes: Any) -> dict[str, Any]:
    own = f"{paths.runtime}/{ID}"
    capabilities = {
        "bounding": ["CAP_KILL", "CAP_NET_ADMIN"], "effective": ["CAP_KILL", "CAP_NET_ADMIN"],
        "ambient": ["CAP_NET_ADMIN"],
    }  # fmt: skip
    return {
        "ociVersion": "1.2.1",
        "hostname": "box",
        "process": {
            "env": ["A=b"], "cwd": "/work", "user": {"uid": 0, "gid": 0, "umask": 0o27},
            "capabilities": capabilities, "noNewPrivileges": True,
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 2**64 - 1}],
        },
        "root": {"path": "rootfs", "readonly": True},
        "mounts": [
            mount("/proc", "proc", "proc"),
            mount("/dev", "tmpfs", "tmpfs", "mode=755"),
            mount("/dev/shm", "tmpfs", "tmpfs", "nosuid", "size=65536"),
            mount("/tmp", "tmpfs", "tmpfs", "mode=1777"),
            mount("/etc/hosts", "bind", f"{own}/hosts", "bind"),
            mount("/etc/resolv.conf", "bind", f"{own}/resolv.conf", "bind"),
            mount("/run/rp-init", "bind", "/usr/bin/catatonit", "bind", "ro"),
            mount("/dev/fuse", "bind", "/dev/fuse", "bind", "rprivate", "nosuid", "noexec"),
            mount("/data", "bind", f"{paths.volumes}/vol/_data", "rbind", "rprivate", "rnodev"),
            mount("/mnt", "bind", "/srv", "rbind", "rslave", "rro"),
            mount("/scratch", "tmpfs", "tmpfs", "nosuid", "size=1m"),
        ],
        "linux": {
            "resources": {
                "memory": {"limit": 1000}, "cpu": {"quota": 50000, "period": 100000},
                "pids": {"limit": -1},
            },
            "sysctl": {"net.ipv4.ping_group_range": "0 0", "net.core.somaxconn": "9"},
            "seccomp": {},
            "maskedPaths": ["/proc/kcore"],
        },
        **changes,
    }  # fmt: skip


def make(paths: Paths, spec_: dict[str, Any] | None = None, **changes: Any) -> ContainerRecord:
    """Write a container's files; return its record."""
    usual: dict[str, Any] = {
        "id": ID,
        "name": "web",
        "image": "docker.io/library/alpine:latest",
        "command": ["/run/rp-init", "--", "/entry", "serve", "now"],
        "entrypoint": ["/entry"],
        "created_s": 1_700_000_000.25,
        "labels": {"a.b": "c"},
        "network": {"driver": "pasta", "options": ["-4"]},
        "ports": [["", 8080, 80, "tcp"], ["::1", 8443, 80, "tcp"]],
        "storage": {"kind": "overlay", "lower": ["/l/1", "/l/2"]},
        "unit": "rp-web.scope",
        "restart": "on-failure:3",
        "log_driver": "json-file",
        "log_options": {"max-size": "1m"},
        "resolver": {"add_hosts": [["db", "10.0.0.1"]], "dns": ["1.1.1.1"]},
    }
    kept = record._unknown(ID)._replace(**{**usual, **changes})
    directory = Path(paths.container(ID))
    directory.mkdir(parents=True)
    Path(paths.names).mkdir()
    os.symlink(ID, f"{paths.names}/web")
    statefile.write(f"{directory}/record.json", kept._asdict(), durable=False)
    (directory / "config.json").write_text(json.dumps(spec_ or spec(paths)))
    return kept


def test_a_container_that_never_ran(paths: Paths) -> None:
    make(paths)
    found = inspect.container(paths, "web")
    assert next(iter(found)) == "Id"
    assert (found["Id"], found["Name"], found["Created"]) == (ID, "web", "2023-11-14T22:13:20.25Z")
    assert (found["Path"], found["Args"]) == ("/run/rp-init", ["--", "/entry", "serve", "now"])
    assert found["State"]["Status"] == "created"
    assert found["State"]["StartedAt"] == "0001-01-01T00:00:00Z"
    assert found["State"]["Health"] is None
    assert found["HostsPath"] == f"{paths.runtime}/{ID}/hosts"
    assert found["GraphDriver"]["Data"]["LowerDir"] == "/l/2:/l/1"
    assert found["EffectiveCaps"] == ["CAP_KILL", "CAP_NET_ADMIN"]
    assert "SizeRw" not in found


def test_config(paths: Paths) -> None:
    make(paths, user="nobody:nobody")
    found = inspect.container(paths, ID[:4])
    config = found["Config"]
    assert (config["Entrypoint"], config["Cmd"]) == (["/entry"], ["serve", "now"])
    assert (config["Hostname"], config["WorkingDir"], config["Umask"]) == ("box", "/work", "0027")
    assert (config["Labels"], config["StopSignal"]) == ({"a.b": "c"}, "SIGTERM")
    assert config["ExposedPorts"] == {"80/tcp": {}}
    # Another user than root starts with what --cap-add named alone.
    assert found["EffectiveCaps"] == ["CAP_NET_ADMIN"]


def test_without_an_entrypoint(paths: Paths) -> None:
    make(paths, command=["sleep", "1"], entrypoint=[])
    config = inspect.container(paths, "web")["Config"]
    assert (config["Entrypoint"], config["Cmd"]) == (None, ["sleep", "1"])


def test_mounts_are_those_that_were_asked_for(paths: Paths) -> None:
    make(paths)
    found = inspect.container(paths, "web")
    assert [each["Destination"] for each in found["Mounts"]] == ["/data", "/mnt"]
    volume, bind = found["Mounts"]
    assert (volume["Type"], volume["Name"], volume["Driver"]) == ("volume", "vol", "local")
    assert (volume["RW"], volume["Propagation"]) == (True, "rprivate")
    assert volume["Options"] == ["rbind", "nodev"]
    assert (bind["Type"], bind["Source"], bind["RW"]) == ("bind", "/srv", False)
    assert "Name" not in bind
    host = found["HostConfig"]
    assert host["Binds"] == ["vol:/data:rw,rprivate,rbind,nodev", "/srv:/mnt:ro,rslave,rbind"]
    assert host["Tmpfs"] == {"/scratch": "rw,nosuid,size=1m"}
    assert host["ShmSize"] == 65536
    assert [each["PathOnHost"] for each in host["Devices"]] == ["/dev/fuse"]


def test_host_config(paths: Paths) -> None:
    make(paths)
    found = inspect.container(paths, "web")
    host = found["HostConfig"]
    assert host["LogConfig"]["Type"] == "json-file"
    assert host["LogConfig"]["Size"] == "1m"
    assert host["LogConfig"]["Path"].startswith(paths.container(ID))
    assert host["ExtraHosts"] == ["db:10.0.0.1"]
    assert (host["Dns"], host["DnsSearch"]) == (["1.1.1.1"], [])
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host["NetworkMode"] == "pasta:-4"
    ports = [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::1", "HostPort": "8443"}]
    assert host["PortBindings"] == {"80/tcp": ports}
    assert found["NetworkSettings"]["Ports"] == {"80/tcp": ports}
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (1000, 2000, 0)
    assert (host["NanoCpus"], host["CpuQuota"], host["CpuPeriod"]) == (500_000_000, 50000, 100000)
    assert host["CapAdd"] == ["CAP_NET_ADMIN"]
    assert "CAP_CHOWN" in host["CapDrop"]
    assert "CAP_KILL" not in host["CapDrop"]
    assert (host["Privileged"], host["ReadonlyRootfs"]) == (False, True)
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Sysctls"] == {"net.core.somaxconn": "9"}
    assert host["Ulimits"] == [{"Name": "RLIMIT_NOFILE", "Soft": 100, "Hard": -1}]


def test_the_limits_of_a_running_container_are_its_cgroups(paths: Paths, tmp_path: Path) -> None:
    kept = make(paths)
    files = {
        "memory.max": "5000", "memory.swap.max": "200", "memory.current": "1", "pids.max": "7",
        "pids.peak": "1", "cpu.max": "20000 100000",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    host = inspect_host.host_config(kept, spec(paths), [], str(tmp_path), LOG)
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (5000, 5200, 7)
    assert host["NanoCpus"] == 200_000_000


def test_privileged_is_seen(paths: Paths) -> None:
    from rootlesspy.engine.inputs.capabilities import ALL

    process = {"capabilities": {"bounding": list(ALL)}}
    make(paths, spec(paths, process=process, linux={}))
    host = inspect.container(paths, "web")["HostConfig"]
    assert host["Privileged"] is True
    assert host["SecurityOpt"] == ["seccomp=unconfined"]


def test_the_end(paths: Paths) -> None:
    make(paths)
    ended = ExitRecord(
        exit_code=137, finished_s=1_700_000_060.0, started_s=1_700_000_001.5, oom_killed=True,
        error="out of memory", memory_peak_bytes=999, cpu_usage_us=5, reason="stop",
        usage={"pids_peak": 4, "oom_kills": 1},
    )  # fmt: skip
    record.write_exit_record(paths.container(ID), ended, durable=False)
    found = inspect.container(paths, "web")
    state = found["State"]
    assert (state["Status"], state["Running"], state["ExitCode"]) == ("exited", False, 137)
    assert (state["OOMKilled"], state["Error"]) == (True, "out of memory")
    assert state["StartedAt"] == "2023-11-14T22:13:21.5Z"
    assert state["FinishedAt"] == "2023-11-14T22:14:20Z"
    assert state["StoppedByUser"] is True
    usage = found["Usage"]
    assert (usage["MemoryPeak"], usage["CPUUsageUSec"]) == (999, 5)
    assert (usage["PidsPeak"], usage["OOMKills"], usage["IOReadBytes"]) == (4, 1, None)


def test_health(paths: Paths) -> None:
    check = {
        "Test": ["CMD", "true"], "Interval": 1, "Timeout": 2, "StartPeriod": 0,
        "StartInterval": 5, "Retries": 3, "OnFailure": "kill", "MaxLogCount": 5,
        "MaxLogSize": 500,
    }  # fmt: skip
    make(paths, health=check)
    assert inspect.container(paths, "web")["State"]["Health"]["Status"] == "starting"
    entry = healthcheck.Entry(1_700_000_000.0, 1_700_000_001.0, 1, "no")
    healthcheck.write(paths.container(ID), healthcheck.Health("unhealthy", 3, (entry,)))
    found = inspect.container(paths, "web")
    assert found["State"]["Health"] == {
        "Status": "unhealthy",
        "FailingStreak": 3,
        "Log": [
            {
                "Start": "2023-11-14T22:13:20Z", "End": "2023-11-14T22:13:21Z", "ExitCode": 1,
                "Output": "no",
            }
        ],
    }  # fmt: skip
    assert found["Config"]["Healthcheck"]["Test"] == ["CMD", "true"]
    assert "OnFailure" not in found["Config"]["Healthcheck"]
    assert found["Config"]["HealthcheckOnFailureAction"] == "kill"


@pytest.mark.parametrize("damage", ["{", "[]", "", None])
def test_a_damaged_spec_leaves_the_rest(paths: Paths, damage: str | None) -> None:
    make(paths)
    path = Path(paths.container(ID)) / "config.json"
    if damage is None:
        path.unlink()
    else:
        path.write_text(damage)
    found = inspect.container(paths, "web")
    assert (found["Name"], found["Mounts"], found["Config"]["Env"]) == ("web", [], [])
    assert found["HostConfig"]["CapDrop"] == []


def test_a_damaged_record_is_told(paths: Paths) -> None:
    make(paths)
    (Path(paths.container(ID)) / "record.json").write_text("{")
    state = inspect.container(paths, "web")["State"]
    assert (state["Status"], state["Dead"]) == ("broken", True)


def test_unknown(paths: Paths) -> None:
    with pytest.raises(NotFound):
        inspect.container(paths, "nobody")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0001-01-01T00:00:00Z"),
        (1.0, "1970-01-01T00:00:01Z"),
        (1_700_000_000.5, "2023-11-14T22:13:20.5Z"),
        (1_700_000_000.9999998, "2023-11-14T22:13:21Z"),
    ],
)
def test_moments(seconds: float, expected: str) -> None:
    assert inspect.moment(seconds) == expected
