"""Scopes in a real user manager: started, shown by systemctl, stopped, and every way to fail.

Each test feeds a small program to Python on the machine; what it prints is JSON.
"""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rig.machine import Machine

PRELUDE = '''
import json, os, select, signal, subprocess, sys, time
from rootlesspy.errors import Error
from rootlesspy.systemd import bus as buses, cgroup, manager, properties, scope
from rootlesspy.systemd.bus import Property

RUNTIME = os.environ["XDG_RUNTIME_DIR"]
UNIT = f"rp-test-{os.getpid()}.scope"

def payload():
    """A process that ignores SIGTERM and says when it has begun to."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"TERMINATED"))
        os.write(writer, b"x")
        while True:
            time.sleep(60)
    os.read(reader, 1)
    return pid

def start(connection, unit, **wanted):
    scope.wait_started(connection, unit, scope.request(connection, unit=unit, **wanted))

def started(**changes):
    connection = buses.connect(RUNTIME)
    pid = payload()
    wanted = dict(unit=UNIT, description="a test", pids=[pid], stop_timeout_us=1_000_000,
                  controller=connection.unique_name)
    wanted.update(changes)
    start(connection, **wanted)
    return connection, pid

def shown(*names):
    argv = ["systemctl", "--user", "show", UNIT, *(f"--property={name}" for name in names)]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines)

def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

def caught(function, *arguments, **keywords):
    began = time.monotonic()
    try:
        function(*arguments, **keywords)
    except Error as error:
        return {"type": type(error).__name__, "message": error.message, "hint": error.hint,
                "seconds": time.monotonic() - began}
    return {"type": "nothing"}
'''


@pytest.fixture(scope="module", autouse=True)
def bus_is_up(rig: Machine) -> None:
    """Start the user bus, which comes with its first client: no test shall find it new."""
    rig.run(["busctl", "--user", "--quiet", "status"])


def told(rig: Machine, program: str, argument: str = "", **options: Any) -> Any:
    """Run a program on the machine and return the JSON that it prints last."""
    source = PRELUDE + textwrap.dedent(program)
    done = rig.run(["python3", "-", argument], input=source, **options)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.usefixtures("leaves_nothing")
def test_scope_holds_the_process_and_shows_what_was_asked(rig: Machine) -> None:
    answer = told(
        rig,
        """
        connection, pid = started(
            documentation=["man:rp(1)"], properties=[Property("MemoryMax", "t", 100 << 20)])
        group = cgroup.control_group(pid)
        inner = cgroup.enter_payload(cgroup.directory(group), pid)
        print(json.dumps({
            "shown": shown("ActiveState", "MemoryMax", "Description", "Delegate", "CollectMode",
                           "TimeoutStopUSec", "Documentation", "Controller", "OOMPolicy",
                           "DefaultDependencies"),
            "name": connection.unique_name, "group": group,
            "after": cgroup.control_group(pid), "inner": inner,
            "scope": scope.show(connection, UNIT)}))
        end(pid)
        """,
    )
    assert answer["shown"] == {
        "ActiveState": "active",
        "MemoryMax": str(100 << 20),
        "Description": "a test",
        "Delegate": "yes",
        "CollectMode": "inactive-or-failed",
        "TimeoutStopUSec": "1s",
        "Documentation": '"man:rp(1)"',
        "Controller": answer["name"],
        "DefaultDependencies": "yes",
    } | ({"OOMPolicy": "continue"} if "OOMPolicy" in answer["shown"] else {})
    assert f"/user@{rig.uid}.service/" in answer["group"]
    assert answer["after"] == f"{answer['group']}/payload"
    assert answer["inner"].endswith(answer["after"])
    assert answer["scope"][0] == "active"


@pytest.mark.usefixtures("leaves_nothing")
def test_stop_asks_the_controller_and_signals_nobody_until_the_timeout(rig: Machine) -> None:
    answer = told(
        rig,
        """
        connection, pid = started(stop_timeout_us=1_500_000)
        asked = []
        connection.on_request_stop(UNIT, lambda: asked.append(time.monotonic()))
        began = time.monotonic()
        stopping = subprocess.Popen(["systemctl", "--user", "stop", UNIT])
        poll = select.poll()
        poll.register(connection.fileno(), connection.poll_events())
        died = os.pidfd_open(pid)
        poll.register(died, select.POLLIN)
        while True:
            ready = dict(poll.poll(60_000))
            connection.process()
            if died in ready or not ready:
                break
            poll.modify(connection.fileno(), connection.poll_events())
        killed = time.monotonic()
        status = os.waitpid(pid, 0)[1]
        stopping.wait()
        connection.process()
        print(json.dumps({"asked": [each - began for each in asked], "killed": killed - began,
                          "signal": os.WTERMSIG(status),
                          "result": scope.show(connection, UNIT)[3]}))
        """,
    )
    assert len(answer["asked"]) == 1
    assert answer["asked"][0] < answer["killed"]
    assert answer["killed"] > 1.4
    assert answer["signal"] == 9
    assert answer["result"] == "timeout"


@pytest.mark.usefixtures("leaves_nothing")
def test_result_and_times_can_be_read_after_the_end_and_the_unit_goes_with_us(
    rig: Machine,
) -> None:
    answer = told(
        rig,
        """
        connection, pid = started()
        meter = cgroup.Meter(cgroup.directory(cgroup.control_group(pid)))
        first = meter.usage
        end(pid)
        gone = time.monotonic() + 60
        while os.path.exists(cgroup.directory("") + scope.show(connection, UNIT).control_group) \\
                and scope.show(connection, UNIT).control_group and time.monotonic() < gone:
            time.sleep(0.02)
        after = scope.show(connection, UNIT)
        last = meter.read()
        meter.close()
        connection.close()
        again = buses.connect(RUNTIME)
        while scope.show(again, UNIT) is not None and time.monotonic() < gone:
            time.sleep(0.02)
        print(json.dumps({"after": after._asdict(), "first": first._asdict(),
                          "last": last._asdict(), "collected": scope.show(again, UNIT) is None}))
        """,
    )
    assert answer["after"]["active_state"] == "inactive"
    assert answer["after"]["result"] == "success"
    assert answer["after"]["cpu_usage_ns"] > 0
    assert answer["last"]["cpu_usage_us"] >= answer["first"]["cpu_usage_us"]
    assert answer["collected"]


@pytest.mark.usefixtures("leaves_nothing")
def test_refusals_are_typed_and_leave_no_unit(rig: Machine) -> None:
    answer = told(
        rig,
        """
        connection, pid = started()
        other = payload()
        def again(unit=UNIT, **changes):
            return caught(start, connection, unit=unit, description="x", pids=[other],
                          stop_timeout_us=0, **changes)
        new = "new-" + UNIT
        found = {
            "exists": again(),
            "unknown": again(new, properties=[Property("NoSuchThing", "t", 1)]),
            "invalid": again(new, properties=[Property("CPUWeight", "t", 0xffff)]),
            "dead": caught(start, connection, unit=new, description="x",
                           pids=[2**22 - 1], stop_timeout_us=0),
            "name": again("no good name"),
            "stop": scope.stop(connection, new, 5),
            "kill": scope.kill(connection, new, 15),
        }
        end(pid); end(other)
        print(json.dumps(found))
        """,
    )
    assert answer["exists"]["type"] == "Conflict"
    assert answer["unknown"]["type"] == "Unsupported"
    assert "NoSuchThing" in answer["unknown"]["message"]
    assert answer["invalid"]["type"] == "UsageError"
    assert "CPUWeight" in answer["invalid"]["message"]
    assert answer["dead"]["type"] in ("UsageError", "RuntimeFailure")
    assert answer["name"]["type"] == "UsageError"
    assert (answer["stop"], answer["kill"]) == (False, False)


@pytest.mark.usefixtures("leaves_nothing")
def test_limits_can_be_changed_and_the_scope_frozen(rig: Machine) -> None:
    answer = told(
        rig,
        """
        connection, pid = started()
        scope.set_properties(connection, UNIT, [Property("TasksMax", "t", 77)])
        frozen = scope.freeze(connection, UNIT), shown("FreezerState")["FreezerState"]
        thawed = scope.thaw(connection, UNIT), shown("FreezerState")["FreezerState"]
        print(json.dumps([shown("TasksMax"), frozen, thawed]))
        end(pid)
        """,
    )
    assert answer == [{"TasksMax": "77"}, [True, "frozen"], [True, "running"]]


@pytest.mark.row("U1", "the controller stays")
def test_reexecuted_manager_still_knows_the_controller(rig: Machine) -> None:
    # Without leaves_nothing: the manager's own command line changes.
    answer = told(
        rig,
        """
        connection, pid = started(properties=[Property("MemoryHigh", "t", 64 << 20)])
        asked = []
        connection.on_request_stop(UNIT, lambda: asked.append(1))
        for verb in ("daemon-reload", "daemon-reexec", "daemon-reload"):
            subprocess.run(["systemctl", "--user", verb], check=True)
        limit = shown("MemoryHigh")["MemoryHigh"]
        subprocess.run(["systemctl", "--user", "stop", "--no-block", UNIT], check=True)
        limit_s = time.monotonic() + 60
        while not asked and time.monotonic() < limit_s:
            select.select([connection.fileno()], [], [], 0.5)
            connection.process()
        print(json.dumps([limit, len(asked), connection.lost]))
        end(pid)
        """,
    )
    assert answer == [str(64 << 20), 1, None]


@pytest.mark.usefixtures("leaves_nothing")
def test_jobs_of_other_units_do_not_wake_us(rig: Machine) -> None:
    answer = told(
        rig,
        """
        connection, pid = started()
        connection.process()
        subprocess.run(["systemd-run", "--user", "--wait", "--quiet", "true"], check=True)
        woken = bool(select.select([connection.fileno()], [], [], 0.3)[0])
        print(json.dumps(woken))
        end(pid)
        """,
    )
    assert answer is False


@pytest.mark.row("U4", "works")
def test_private_socket_works_without_a_bus(rig: Machine) -> None:
    answer = told(
        rig,
        """
        connection, pid = started()
        private = buses.connect(RUNTIME, private=True)
        state = scope.show(private, UNIT).active_state
        killed = scope.kill(private, UNIT, signal.SIGKILL)
        os.waitpid(pid, 0)
        print(json.dumps([state, killed]))
        """,
    )
    assert answer == ["active", True]


@pytest.mark.row("U4", "125 that names the bus")
def test_frozen_bus_is_named_within_five_seconds(rig: Machine) -> None:
    # A bus of the test's own: freezing the user's would freeze the machine's other tests.
    answer = told(
        rig,
        """
        directory = subprocess.run(["mktemp", "-d"], capture_output=True, text=True).stdout.strip()
        argv = ["dbus-daemon", "--session", "--nofork", f"--address=unix:path={directory}/bus",
                "--print-address=1"]
        broker = subprocess.Popen(argv, stdout=subprocess.PIPE)
        broker.stdout.readline()
        os.mkdir(f"{directory}/systemd")
        open(f"{directory}/systemd/private", "w").close()
        connection = buses.connect(directory)
        absent = caught(start, connection, unit=UNIT, description="x", pids=[os.getpid()],
                        stop_timeout_us=0)
        broker.send_signal(signal.SIGSTOP)
        frozen = caught(buses.connect, directory)
        broker.send_signal(signal.SIGCONT)
        broker.kill()
        broker.wait()
        limit_s = time.monotonic() + 60
        while connection.lost is None and time.monotonic() < limit_s:
            select.select([connection.fileno()], [], [], 0.5)
            connection.process()
        lost = connection.lost
        connection.process()
        after = caught(connection.call, "ListUnits")
        events = connection.poll_events(), connection.timeout_ms()
        refused = caught(buses.connect, directory)
        os.unlink(f"{directory}/bus")
        missing = caught(buses.connect, directory)
        os.unlink(f"{directory}/systemd/private")
        manager = caught(buses.connect, directory)
        os.rmdir(f"{directory}/systemd"); os.rmdir(directory)
        print(json.dumps(dict(absent=absent, frozen=frozen, lost=lost, after=after, events=events,
                              refused=refused, missing=missing, manager=manager,
                              directory=caught(buses.connect, directory),
                              none=caught(buses.connect, None))))
        """,
    )
    assert answer["absent"]["type"] == "Unsupported"
    assert "no user manager is on the user bus" in answer["absent"]["message"]
    # Its limit is 4 s, and 25 s is what any D-Bus call has.
    assert answer["frozen"]["seconds"] < 20
    assert "does not answer" in answer["frozen"]["message"]
    assert answer["lost"]
    assert "was lost" in answer["after"]["message"]
    assert answer["events"] == [0, -1]
    assert "nobody listens" in answer["refused"]["message"]
    assert "without a bus" in answer["missing"]["message"]
    assert "dbus-user-session" in answer["missing"]["hint"]
    assert "user manager is not running" in answer["manager"]["message"]
    assert "does not exist" in answer["directory"]["message"]
    assert "enable-linger" in answer["directory"]["hint"]
    assert "XDG_RUNTIME_DIR" in answer["none"]["message"]
    assert {each["type"] for each in answer.values() if isinstance(each, dict)} == {"Unsupported"}


def test_pystemd_tells_of_the_same_manager(rig: Machine) -> None:
    answer = told(
        rig,
        """
        connection, pid = started()
        told = manager.describe(RUNTIME)
        units = manager.list_units(RUNTIME, "rp-test-*.scope")
        end(pid)
        print(json.dumps([told, [each._asdict() for each in units], UNIT,
                          cgroup.manager_directory(os.getuid()),
                          caught(manager.describe, "/nonexistent")]))
        """,
    )
    (version, features, group), units, unit, directory, absent = answer
    assert version.split(".")[0] == rig.run(["systemctl", "--version"]).stdout.split()[1]
    assert "+SECCOMP" in features
    assert directory.endswith(group)
    assert [each["name"] for each in units] == [unit]
    assert units[0]["active_state"] == "active"
    assert absent["type"] == "Unsupported"


@pytest.mark.row("X5", "refused")
def test_another_users_bus_is_refused(rig: Machine) -> None:
    if not rig.has_root:
        pytest.skip("needs a second user")
    answer = told(
        rig,
        f"""
        print(json.dumps(caught(buses.connect, "/run/user/{rig.uid}")))
        """,
        user="bob",
        env={"XDG_RUNTIME_DIR": f"/run/user/{rig.uid}"},
    )
    assert answer["type"] == "Unsupported"
    assert f"belongs to uid {rig.uid}" in answer["message"]


# Each inner list is set on one scope, so a key appears once in it.
ASSIGNMENTS = [
    [
        "MemoryMax=1.5G", "MemoryHigh=1G500M", "MemoryLow=10%", "MemoryMin=0",
        "MemorySwapMax=infinity", "TasksMax=12.5%", "CPUWeight=idle", "IOWeight=10000",
        "CPUQuota=150%", "CPUQuotaPeriodSec=10ms", "AllowedCPUs=0-1", "AllowedMemoryNodes=0",
        "RuntimeMaxSec=1h 30min", "TimeoutStopSec=infinity", "KillSignal=SIGRTMIN+3",
        "FinalKillSignal=9", "SendSIGHUP=on", "Slice=app-test.slice", "Description=two words",
        "ManagedOOMMemoryPressure=auto", "ManagedOOMMemoryPressureLimit=12.34%",
        "MemoryPressureWatch=skip", "MemoryPressureThresholdSec=500ms",
        "After=basic.target \"timers.target\"", "Wants=", "Documentation=man:rp(1) https://a.b/c",
        "CollectMode=inactive", "OOMPolicy=stop", "IPAddressDeny=any",
        "IPAddressAllow=10.0.0.0/8 ::1", "DevicePolicy=closed", "DeviceAllow=/dev/null rw",
        "IOReadBandwidthMax=/tmp 1.5M", "IOWriteIOPSMax=/tmp 1K", "IODeviceWeight=/tmp 77",
        "IODeviceLatencyTargetSec=/tmp 20ms", "Delegate=cpu memory", "CPUAccounting=no",
        "MemoryZSwapWriteback=no", "SendSIGKILL=yes", "CoredumpReceive=yes",
    ],
    [
        "MemoryMax=infinity", "MemoryHigh=", "MemoryLow=1K1", "TasksMax=100",
        "CPUWeight=100", "CPUQuota=12.34%", "AllowedCPUs=1,0 1", "RuntimeMaxSec=1.5y",
        "TimeoutStopSec=90", "KillSignal=USR1", "IPAddressDeny=localhost",
        "IPAddressAllow=multicast", "DeviceAllow=char-pts", "IOReadBandwidthMax=/tmp infinity",
        "StartupCPUWeight=5", "StartupIOWeight=5", "StartupAllowedCPUs=0", "MemoryZSwapMax=1M",
        "DefaultMemoryLow=5M", "RuntimeRandomizedExtraSec=5us",
        "JobRunningTimeoutSec=2min 3s", "BindsTo=timers.target", "Requires=basic.target",
        "CPUQuotaPeriodSec=", "TasksAccounting=true", "DefaultDependencies=no",
        "ManagedOOMPreference=avoid", "RefuseManualStop=1", "DisableControllers=io",
        "StopWhenUnneeded=n", "IgnoreOnIsolate=f", "OnFailureJobMode=fail", "FailureAction=none",
        "PartOf=basic.target", "OnFailure=a.service", "RequiresMountsFor=/tmp", "IPAccounting=1",
        "IODeviceWeight=", "IOReadIOPSMax=/tmp 10", "IOWriteBandwidthMax=/tmp 1.5K",
        "RestartKillSignal=TERM", "WatchdogSignal=6", "CPUShares=512", "BlockIOWeight=50",
        "SurviveFinalKillSignal=yes", "ManagedOOMMemoryPressureDurationSec=1min",
    ],
    [
        "MemoryMax=12K 34B", "MemoryHigh=1 G2", "MemoryLow=33.33%", "MemorySwapMax=5‰",
        "TasksMax=infinity", "CPUWeight=", "CPUQuota=1%", "AllowedCPUs=", "RuntimeMaxSec=3M 2w",
        "TimeoutStopSec=.5h", "KillSignal=RTMAX-1", "IPAddressAllow=", "IOWeight=",
        "Delegate=yes", "Conflicts=a\\-b.service 'c_d.service'", "KillMode=process",
    ],
]  # fmt: skip
VOLATILE = {
    *("After", "Before", "BindsTo", "Requires", "Wants", "Conflicts", "ControlGroup", "Id"),
    *("ControlGroupId", "Names", "InvocationID", "FragmentPath", "CPUUsageNSec", "TasksCurrent"),
    *("MemoryCurrent", "MemoryPeak", "MemoryAvailable"),
}
# Where the assignments do not say, these are rp's own choice and not systemd-run's.
CHOSEN = {
    "Description": "Description",
    "Delegate": "Delegate",
    "CollectMode": "CollectMode",
    "TimeoutStopUSec": "TimeoutStopSec",
    "Documentation": "Documentation",
    "DelegateControllers": "Delegate",
    "OOMPolicy": "OOMPolicy",
}


NONSENSE = [
    "MemoryMax=100.25%", "MemoryMin=1.5.5G", "MemoryMin=1M 1G", "MemoryMax=-1",
    "TasksMax=-1", "TasksMax=1K", "IOWeight=0", "CPUWeight=10001", "SendSIGHUP=maybe",
    "RuntimeMaxSec=5 parsecs", "RuntimeMaxSec=", "AllowedCPUs=a", "AllowedCPUs=9999",
    "KillSignal=TERMINATE", "CPUQuota=0%", "CPUQuota=50", "IPAddressDeny=10.0.0.0/33",
    "IODeviceWeight=/tmp", "IOReadBandwidthMax=/tmp much", "After='a.service", "NoSuchKey=1",
    "Nice=5",
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ASSIGNMENTS)))
def test_properties_are_those_of_systemd_run(rig: Machine, number: int) -> None:
    """Set the same assignments by systemd-run and by us, and compare all that systemctl shows."""
    skipped, rival, ours = told(
        rig,
        """
        RIVAL = "rival-" + UNIT
        def run(assignments, *command):
            return ["systemd-run", "--user", "--scope", "--quiet",
                    *("--property=" + each for each in assignments), *command]
        def works(assignments):
            return subprocess.run(run(assignments, "true"), stderr=subprocess.DEVNULL,
                                  ).returncode == 0
        assignments = json.loads(sys.argv[1])
        known = assignments
        if not works(assignments):
            known = [each for each in assignments if works([each])]
        rival = subprocess.Popen(run(known, "--unit=" + RIVAL, "sleep", "1000"))
        limit_s = time.monotonic() + 60
        while RIVAL not in cgroup.control_group(rival.pid) and time.monotonic() < limit_s:
            time.sleep(0.02)
        connection, pid = started(controller=None, properties=[
            item for each in known for item in properties.parse_assignment(each)])
        both = []
        for unit in (RIVAL, UNIT):
            lines = subprocess.run(["systemctl", "--user", "show", unit],
                                   capture_output=True, text=True).stdout.splitlines()
            both.append(dict(line.split("=", 1) for line in lines))
        rival.kill(); rival.wait(); end(pid)
        print(json.dumps([[each for each in assignments if each not in known], *both]))
        """,
        argument=json.dumps(ASSIGNMENTS[number]),
        timeout=120,
    )
    assert len(rival) > 50
    # An older systemd does not know all of them.
    if int(rig.run(["systemctl", "--version"]).stdout.split()[1]) >= 257:
        assert skipped == []
    stamps = [key for key in rival if "Timestamp" in key]
    keys = {each.partition("=")[0] for each in ASSIGNMENTS[number] if each not in skipped}
    chosen = [name for name, key in CHOSEN.items() if key not in keys]
    compared = {
        key: value for key, value in rival.items() if key not in {*VOLATILE, *stamps, *chosen}
    }
    assert {key: ours.get(key) for key in compared} == compared
    for key in ("After", "Wants", "Requires", "BindsTo", "Conflicts"):
        assert set(rival.get(key, "").split()) <= {*ours.get(key, "").split()}, key


def test_what_systemd_run_refuses_we_refuse_before_anything_starts(rig: Machine) -> None:
    answer = told(
        rig,
        """
        argv = ["systemd-run", "--user", "--scope", "--quiet"]
        print(json.dumps([
            [each, caught(properties.parse_assignment, each)["type"],
             subprocess.run([*argv, "--property=" + each, "true"], stderr=subprocess.DEVNULL,
                            ).returncode]
            for each in json.loads(sys.argv[1])]))
        """,
        argument=json.dumps(NONSENSE),
        timeout=120,
    )
    assert [each for each, kind, code in answer if kind != "UsageError" or code == 0] == []


def test_thirty_two_scopes_at_once(rig: Machine) -> None:
    answer = told(
        rig,
        """
        children = []
        for number in range(32):
            if (child := os.fork()) == 0:
                UNIT = f"rp-load-{os.getpid()}.scope"
                connection, pid = started(unit=UNIT)
                end(pid)
                os._exit(0)
            children.append(child)
        print(json.dumps([os.waitpid(child, 0)[1] for child in children]))
        """,
        timeout=120,
    )
    assert answer == [0] * 32
