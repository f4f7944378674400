"""Hooks: chosen by --hooks-dir, run at their moments, with nothing of the image's or the caller's.

Every hook is the script `hook`, which writes down what it sees into a file named after its stage.
"""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from namespace import bundles
from namespace.living import STORE, rp, until
from rig.effort import effort, nightly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

pytestmark = pytest.mark.namespace

DIRECTORY = "/home/alice/hooks"
STAGES = (
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
)  # fmt: skip
INSIDE = ("createContainer", "startContainer")
# $1: the stage.  Nothing of it needs more than a shell and BusyBox, as one runs in the container.
HOOK = f"""#!/bin/sh
cd_was=$(pwd)
out={DIRECTORY}/out
exec 2>>$out/$1.errors
cat > $out/$1.state
env > $out/$1.env
{{
    echo "$cd_was"
    for number in 0 1 2 3 4 5 6 7 8 9; do
        test -e /proc/self/fd/$number && echo $number
    done
}} > $out/$1.fds
grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp|Uid):' /proc/self/status > $out/$1.status
for kind in mnt pid user net; do readlink /proc/self/ns/$kind; done > $out/$1.spaces
echo $1 >> $out/order
"""
# What would make a program of the host load something, or find another one.
HOSTILE = {
    "LD_PRELOAD": "./canary.so",
    "LD_AUDIT": "./canary.so",
    "LD_LIBRARY_PATH": "/canary",
    "PYTHONPATH": "/canary",
    "PYTHONSTARTUP": "/canary/startup.py",
    "BASH_ENV": "/canary/rc",
    "ENV": "/canary/rc",
    "GCONV_PATH": "/canary",
    "IFS": "/",
    "PATH": "/canary:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOSTILE": "token",
}
# /canary has programs that the hook calls, and what the variables name.
CANARY = """
mkdir /canary
for name in cat env grep readlink; do
    printf '#!/bin/sh\\necho %s >> /loaded\\nexec /bin/%s "$@"\\n' $name $name > /canary/$name
done
chmod +x /canary/*
echo 'echo rc >> /loaded' > /canary/rc
echo not a library > /canary.so
"""


def document(stage: str, *, script: str = "", **changes: Any) -> dict[str, Any]:
    """Return the description of a hook: the script `hook`, or some words for a shell."""
    arguments = ["sh", "-c", script] if script else ["hook", stage]
    path = "/bin/sh" if script else f"{DIRECTORY}/hook"
    return {
        "version": "1.0.0",
        "hook": {"path": path, "args": arguments},
        "when": {"always": True},
        "stages": [stage],
        **changes,
    }


def write(rig: Machine, name: str, *documents: dict[str, Any]) -> str:
    """Write descriptions into a directory of their own; return it."""
    directory = f"{DIRECTORY}/{name}"
    lines = "\n".join(json.dumps(each) for each in documents)
    script = f"rm -rf {directory}; mkdir -p {directory}; cd {directory}; split -l 1 -d - {name}-"
    script += "; for each in *; do mv $each $each.json; done"
    rig.run(["sh", "-ec", script], input=lines + "\n")
    return directory


def results(rig: Machine) -> dict[str, list[str]]:
    """Return what hooks have written, by file, and forget it."""
    script = f"cd {DIRECTORY}/out; grep -H '' * || true; rm -f *"
    found: dict[str, list[str]] = {}
    for line in rig.run(["sh", "-c", script]).stdout.splitlines():
        name, _, text = line.partition(":")
        found.setdefault(name, []).append(text)
    return found


@pytest.fixture(scope="module", autouse=True)
def _directory(rig: Machine, alpine: str) -> Iterator[None]:
    """Write the script; the hooks of every stage are in `all`."""
    script = f"mkdir -p {DIRECTORY}/out; cat > {DIRECTORY}/hook; chmod +x {DIRECTORY}/hook"
    rig.run(["sh", "-c", script], input=HOOK)
    write(rig, "all", *(document(stage) for stage in STAGES))
    yield
    rig.run(["rm", "-rf", DIRECTORY])


@pytest.fixture(scope="module")
def evil(rig: Machine, alpine: str) -> Iterator[str]:
    """Return an image whose environment, labels and files are to reach the hooks."""
    changes = [f"ENV {key}={value}" for key, value in HOSTILE.items()]
    labels = {
        "io.rootlesspy.hooks_dir": "/canary",
        "run.oci.hooks.stdout": "/loaded",
        "chosen": "yes",
    }
    changes += [f"LABEL {key}={value}" for key, value in labels.items()]
    options = [word for change in changes for word in ("--change", change)]
    rig.run(["rp", "run", "--name", "canary", "--network=none", alpine, "sh", "-c", CANARY])
    rig.run(["rp", "commit", "--quiet", *options, "canary", "localhost/evil"])
    rig.run(["rp", "rm", "canary"])
    yield "localhost/evil"
    rig.run(["rp", "rmi", "--force", "localhost/evil"])


@pytest.fixture(scope="module")
def seen(rig: Machine, evil: str) -> dict[str, list[str]]:
    """Run all hooks once, around a payload that reports too; return what they saw."""
    labelled = document("prestart", script="exit 9", when={"annotations": {"^chosen$": "yes"}})
    write(rig, "labelled", labelled)
    payload = f"PATH=/usr/bin:/bin {DIRECTORY}/hook payload; /bin/cat /loaded 2>/dev/null || true"
    done = rig.run(
        [
            "rp", "--hooks-dir", f"{DIRECTORY}/all", "run", "--rm", "--network=none",
            "--hooks-dir", f"{DIRECTORY}/labelled", "--annotation", "com.example=a b",
            "-v", f"{DIRECTORY}:{DIRECTORY}", evil, "/bin/sh", "-c", payload,
        ],
        env={"SECRET": "token"},
        input="",
    )  # fmt: skip
    found = results(rig)
    found["loaded"] = done.stdout.splitlines()
    return found


def test_stages_run_in_their_order(seen: dict[str, list[str]]) -> None:
    order = seen["order"]
    # The payload runs beside the poststart hooks.
    assert [each for each in order if each != "payload"] == list(STAGES)
    assert order.index("payload") > order.index("startContainer")


@pytest.mark.row("CVE-2025-23266", "a hook has its own variables and a PATH, nothing is loaded")
@pytest.mark.parametrize("stage", STAGES)
def test_cve_2025_23266_nothing_of_the_image_reaches_a_hook(
    seen: dict[str, list[str]], stage: str
) -> None:
    # sh itself adds these.
    shell = ("PWD=", "SHLVL=", "OLDPWD=", "_=")
    variables = [each for each in seen[f"{stage}.env"] if not each.startswith(shell)]
    assert variables == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    # The dynamic linker complains of a library that it is told to load and cannot.
    assert f"{stage}.errors" not in seen
    assert seen["loaded"] == []


def test_the_image_would_have_reached_it(rig: Machine, seen: dict[str, list[str]]) -> None:
    """The trap of the test above is one: the same script with the image's variables."""
    assert f"HOSTILE={HOSTILE['HOSTILE']}" in seen["payload.env"]
    told = rig.run(["sh", "-c", f"LD_PRELOAD=./canary.so {DIRECTORY}/hook trap </dev/null"])
    assert "canary.so" in told.stderr + "".join(results(rig)["trap.errors"])


@pytest.mark.parametrize("stage", STAGES)
def test_its_working_directory_and_descriptors(seen: dict[str, list[str]], stage: str) -> None:
    directory, *descriptors = seen[f"{stage}.fds"]
    assert directory == "/"
    assert descriptors == ["0", "1", "2"]


def test_its_state(seen: dict[str, list[str]]) -> None:
    states = {stage: json.loads("".join(seen[f"{stage}.state"])) for stage in STAGES}
    assert {stage: each["status"] for stage, each in states.items()} == {
        "prestart": "creating",
        "createRuntime": "creating",
        "createContainer": "creating",
        "startContainer": "created",
        "poststart": "running",
        "poststop": "stopped",
    }
    # As it is seen where the hook runs.
    assert [states[stage]["pid"] for stage in INSIDE] == [1, 1]
    assert states["prestart"]["pid"] == states["poststart"]["pid"] > 1
    assert "pid" not in states["poststop"]
    for each in states.values():
        assert each["ociVersion"].startswith("1.")
        assert each["bundle"].endswith(f"/{each['id']}")
        assert each["annotations"] == {"com.example": "a b"}


def test_its_namespaces(seen: dict[str, list[str]]) -> None:
    spaces = {each: seen[f"{each}.spaces"] for each in (*STAGES, "payload")}
    assert len({tuple(spaces[stage]) for stage in STAGES if stage not in INSIDE}) == 1
    for stage in INSIDE:
        assert spaces[stage] == spaces["payload"]
    assert not set(spaces["prestart"]) & set(spaces["payload"])


@pytest.mark.row("CVE-2019-10144", "startContainer hooks have the payload's confinement")
def test_rkt_2019_10144_a_hook_of_the_image_may_what_the_payload_may(
    seen: dict[str, list[str]],
) -> None:
    assert seen["startContainer.status"] == seen["payload.status"]
    assert "Seccomp:\t2" in seen["payload.status"]
    assert "NoNewPrivs:\t1" in seen["payload.status"]


@pytest.mark.row(
    "CVE-2026-53488", "labels of the image choose no hook, annotations of the caller do"
)
def test_cve_2026_53488_labels_choose_no_hook(rig: Machine, evil: str) -> None:
    """The run of `seen` had such a directory, and went well."""
    argv = ["rp", "run", "--rm", "--network=none", "--hooks-dir", f"{DIRECTORY}/labelled"]
    assert rig.run([*argv, "--annotation", "chosen=no", evil, "true"]).returncode == 0
    done = rig.run([*argv, "--annotation", "chosen=yes", evil, "true"], check=False)
    assert (done.returncode, "exit status 9" in done.stderr) == (125, True)


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("stage", STAGES[:5])
def test_a_hook_that_fails_ends_the_start(rig: Machine, alpine: str, stage: str) -> None:
    failing = document(stage, script="echo last words >&2; exit 3")
    directory = write(rig, "failing", failing, document("poststop"))
    argv = ["rp", "run", "--rm", "--network=none", "--hooks-dir", directory, alpine]
    done = rig.run([*argv, "sleep", "1000"], check=False, input="")
    assert done.returncode == 125
    assert f"{stage} hook /bin/sh: exit status 3: last words" in done.stderr
    # Once, and the container is no more.
    assert results(rig)["order"] == ["poststop"]
    assert rig.run(["rp", "ps", "-aq"]).stdout == ""


def test_poststop_hooks_that_fail_are_warnings(rig: Machine, alpine: str) -> None:
    failing = document("poststop", script="echo words; exit 3")
    directory = write(rig, "failing", failing, document("poststop"))
    argv = ["rp", "run", "--name", "warned", "--network=none", "--hooks-dir", directory, alpine]
    assert rig.run([*argv, "sh", "-c", "exit 5"], check=False, input="").returncode == 5
    error = rig.run(["rp", "inspect", "-f", "{{.State.Error}}", "warned"]).stdout
    assert "poststop hook /bin/sh: exit status 3: words" in error
    assert results(rig)["order"] == ["poststop"]
    rig.run(["rp", "rm", "warned"])
    assert results(rig) == {}


P12 = [
    pytest.param("exec sleep 1000", "did not end within 1 s", id="hangs"),
    pytest.param("sleep 1000 & wait", "did not end within 1 s", id="its child hangs"),
    pytest.param("exit 1", "exit status 1", id="exit 1"),
    pytest.param("kill -9 $$", "signal 9", id="killed"),
    pytest.param("exec yes", "did not end within 1 s", id="prints without end"),
]


def timeout_s(words: str) -> int:
    """Return the time for a hook of P12: none runs out that is to end by itself."""
    return 1 if "within 1 s" in words else 50


PRINTED_MIB = effort(128, 1024)
PRINTING = (
    f"dd if=/dev/zero bs=1M count={PRINTED_MIB} status=none | tr '\\0' x; echo; echo end; exit 7"
)


@pytest.mark.row("P12", "killed when its time is up: 125, torn down, its last 4 KiB of output")
@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("stage", ["createRuntime", "startContainer"])
def test_a_hook_need_not_read_its_state(rig: Machine, alpine: str, stage: str) -> None:
    """Nor does the kernel end who writes it; only a first process of a namespace is immune."""
    directory = write(rig, "deaf", document(stage, script="exec <&-; sleep 0.2"))
    # More than a pipe holds.
    state = [word for n in range(4) for word in ("--annotation", f"n{n}={'x' * 30000}")]
    argv = ["rp", "run", "--rm", "--network=none", "--pid=host", "--hooks-dir", directory, *state]
    assert rig.run([*argv, alpine, "echo", "ran"]).stdout == "ran\n"


@pytest.mark.parametrize(("script", "words"), P12)
@pytest.mark.parametrize("stage", ["createContainer", *(["createRuntime"] if nightly() else [])])
def test_p12_bad_hooks(rig: Machine, alpine: str, stage: str, script: str, words: str) -> None:
    bad = document(stage, script=script)
    bad["hook"]["timeout"] = timeout_s(words)
    argv = ["rp", "run", "--rm", "--network=none", "--hooks-dir", write(rig, "bad", bad), alpine]
    done = rig.run([*argv, "true"], check=False, input="", timeout=60)
    assert done.returncode == 125
    assert words in done.stderr
    assert rig.run(["rp", "ps", "-aq"]).stdout == ""


MEASURED = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([done.returncode, done.stderr[-200:], len(done.stderr), peak]))
"""


@pytest.mark.row("P12", "of 1 GiB of output the end is kept, in memory too")
@pytest.mark.usefixtures("leaves_nothing")
def test_p12_a_hook_that_prints_a_lot(rig: Machine, alpine: str) -> None:
    bad = document("createRuntime", script=PRINTING)
    bad["hook"]["timeout"] = 600
    argv = ["rp", "run", "--rm", "--network=none", "--hooks-dir", write(rig, "bad", bad), alpine]
    told = rig.run(["python3", "-c", MEASURED, *argv, "true"], timeout=900).stdout
    code, end, length, peak_kib = json.loads(told)
    assert code == 125
    assert "exit status 7" in told or length > 4096
    assert "end" in end
    assert length < 16384
    assert peak_kib < 100 * 1024


# By itself, when the hooks that it was made with are gone.
ENDS_ONCE = f"""
test -e {DIRECTORY}/out/second && exec sleep 1000
until test -e {DIRECTORY}/out/gone; do sleep 0.1; done
touch {DIRECTORY}/out/second
exit 1
"""


def test_a_detached_container_has_them_at_every_start(rig: Machine, alpine: str) -> None:
    """Those that it was made with, whatever is in the directory now."""
    once = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"]
    directory = write(rig, "kept", *(document(stage) for stage in STAGES))
    try:
        rig.run(
            [
                "rp", "run", "-d", "--name", "kept", "--network=none", "--restart=always",
                "--annotation", "a=b", "--hooks-dir", directory, "-v", f"{DIRECTORY}:{DIRECTORY}",
                alpine, "sh", "-c", ENDS_ONCE,
            ]
        )  # fmt: skip
        rig.run(["sh", "-c", f"rm -rf {directory}; touch {DIRECTORY}/out/gone"])
        script = f"until [ $(grep -c poststart {DIRECTORY}/out/order) -ge 2 ]; do sleep 0.1; done"
        rig.run(["timeout", "60", "sh", "-c", script], timeout=90)
        assert rig.run(["rp", "restart", "-t", "0", "kept"]).returncode == 0
        shown = rig.run(["rp", "inspect", "-f", "{{json .HostConfig.Annotations}}", "kept"]).stdout
        assert json.loads(shown) == {"a": "b"}
        definition = rig.run(["rp", "export-definition", "kept"]).stdout
        assert f'hooks_dir = ["{directory}"]' in definition
        assert "[container.kept.annotations]" in definition or "annotations" in definition
    finally:
        rp(rig, "rm", "-f", "kept")
    order = results(rig)["order"]
    assert order == [*once, "poststop"] * 3


@pytest.mark.row("P6", "poststop hooks run once when the payload is killed")
@pytest.mark.row("P5", "and once when the supervisor is killed")
@pytest.mark.parametrize(
    ("victim", "remove"), [("pid", []), ("supervisor_pid", []), ("supervisor_pid", ["--rm"])]
)
def test_p6_kill_9_of_an_attached_run(
    rig: Machine, alpine: str, victim: str, remove: list[str]
) -> None:
    directory = write(rig, "counted", document("poststart"), document("poststop"))
    argv = ["rp", "run", *remove, "--name", "victim", "--network=none", "--hooks-dir", directory]
    running = rig.popen([*argv, alpine, "sleep", "600"])
    state = wait_for(rig, "victim")
    rig.run(["kill", "-9", str(state[victim])])
    assert running.wait(60) in (125, 137, -119)
    rp(rig, "ps", "-a")
    rp(rig, "rm", "-f", "victim")
    assert results(rig)["order"] == ["poststart", "poststop"]


@pytest.mark.row("P5", "poststop hooks of a killed supervisor run once, by the next command")
@pytest.mark.parametrize(
    "next_command",
    [["ps", "-a"], ["start", "victim"], *([["rm", "victim"]] if nightly() else [])],
)
def test_p5_kill_9_of_a_service(rig: Machine, alpine: str, next_command: list[str]) -> None:
    directory = write(rig, "counted", document("poststart"), document("poststop"))
    options = ["--name", "victim", "--network=none", "--hooks-dir", directory]
    rig.run(["rp", "run", "-d", *options, alpine, "sleep", "600"])
    state = wait_for(rig, "victim")
    rig.run(["kill", "-9", str(state["supervisor_pid"])])
    until(lambda: not is_active(rig, "rp-victim.service"), "the service has ended")
    rig.run(["rp", *next_command])
    again = ["poststart"] if next_command[0] == "start" else []
    assert results(rig)["order"] == ["poststart", "poststop", *again]
    rp(rig, "rm", "-f", "victim")
    assert results(rig).get("order", []) == ["poststop"] * len(again)


def is_active(rig: Machine, unit: str) -> bool:
    done = rig.run(["systemctl", "--user", "is-active", "--quiet", unit], check=False)
    return bool(done.returncode == 0)


def wait_for(rig: Machine, name: str) -> dict[str, int]:
    """Return the processes of a container once its poststart hook has run."""
    script = f"until grep -q poststart {DIRECTORY}/out/order; do sleep 0.1; done"
    rig.run(["timeout", "60", "sh", "-c", script], timeout=90)
    identity = rig.run(["rp", "inspect", "-f", "{{.Id}}", name]).stdout.strip()
    return dict(json.loads(rig.run(["cat", f"{STORE}/{identity}/state.json"]).stdout))


def test_a_signal_ends_the_wait_for_a_hook(rig: Machine, alpine: str) -> None:
    script = f"echo $$ > {DIRECTORY}/out/begun; exec sleep 1000"
    hanging = document("createRuntime", script=script)
    hanging["hook"]["timeout"] = 1000
    directory = write(rig, "hanging", hanging, document("poststop"))
    argv = ["rp", "run", "--rm", "--network=none", "--hooks-dir", directory, alpine, "true"]
    running = rig.popen(argv)
    waiting = f"until [ -s {DIRECTORY}/out/begun ]; do sleep 0.1; done; cat {DIRECTORY}/out/begun"
    pid = rig.run(["timeout", "60", "sh", "-c", waiting], timeout=90).stdout.strip()
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) in (143, -113)
    until(lambda: rig.run(["kill", "-0", pid], check=False).returncode, "the hook is killed")
    assert results(rig)["order"] == ["poststop"]


def test_hooks_of_containers_conf_and_of_definitions(rig: Machine, alpine: str) -> None:
    configured = write(rig, "configured", document("prestart"))
    given = write(rig, "given", document("createRuntime"))
    text = f'[engine]\nhooks_dir = ["/nowhere", "{configured}"]\n'
    script = f"mkdir -p {DIRECTORY}/conf; cat > {DIRECTORY}/conf/containers.conf"
    rig.run(["sh", "-c", script], input=text)
    conf = {"CONTAINERS_CONF": f"{DIRECTORY}/conf/containers.conf"}
    run = ["rp", "run", "--rm", "--network=none"]
    rig.run([*run, alpine, "true"], env=conf)
    rig.run([*run, "--hooks-dir", given, alpine, "true"], env=conf)
    rig.run([*run, alpine, "true"])
    assert results(rig)["order"] == ["prestart", "createRuntime"]
    definition = f"""
    [container.defined]
    image = "{alpine}"
    command = ["true"]
    network = "none"
    hooks_dir = ["given"]
    annotations = {{ "com.example" = "x" }}
    """
    rig.run(["sh", "-c", f"cat > {DIRECTORY}/defined.toml"], input=definition)
    try:
        rp(rig, "apply", f"{DIRECTORY}/defined.toml")
        found = results(rig)
    finally:
        rp(rig, "rm", "-f", "defined")
    assert found["order"] == ["createRuntime"]
    assert json.loads(found["createRuntime.state"][0])["annotations"] == {"com.example": "x"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--hooks-dir", "/nowhere"], "--hooks-dir /nowhere does not exist"),
        (["--annotation", "a"], "--annotation 'a': expected KEY=VALUE"),
        (
            ["--annotation", "org.systemd.property.TasksMax=5"],
            "expected --property TasksMax=5",
        ),
    ],
)
@pytest.mark.usefixtures("leaves_nothing")
def test_refusals(rig: Machine, alpine: str, options: list[str], words: str) -> None:
    done = rig.run(["rp", "run", "--rm", *options, alpine, "true"], check=False)
    assert (done.returncode, words in done.stderr) == (125, True), done.stderr


def test_a_mistake_names_the_file(rig: Machine, alpine: str) -> None:
    directory = write(rig, "wrong", document("prestart", stages=["bogus"]))
    done = rig.run(["rp", "run", "--rm", "--hooks-dir", directory, alpine, "true"], check=False)
    assert done.returncode == 125
    assert f"hook {directory}/wrong-00.json: stage 'bogus' is unknown" in done.stderr


# The same for bundles of engines


@pytest.fixture(scope="module")
def made(rig: Machine, alpine: str) -> bundles.Bundles:
    return bundles.Bundles(rig)


@pytest.mark.row("CVE-2025-23266", "rp-oci: neither config.json's nor the caller's variables")
def test_cve_2025_23266_hooks_of_a_bundle(rig: Machine, made: bundles.Bundles) -> None:
    spec = made.spec("true")
    spec["process"]["env"] = [f"{key}={value}" for key, value in HOSTILE.items()]
    spec["hooks"] = {
        stage: [{"path": f"{DIRECTORY}/hook", "args": ["hook", stage]}] for stage in STAGES
    }
    spec["mounts"].append(
        {"destination": DIRECTORY, "type": "bind", "source": DIRECTORY, "options": ["bind"]}
    )
    script = f"cd {made.write(spec)}"
    # As podman and containerd start it: with all that they have themselves.
    caller = {"SECRET": "token", "BASH_ENV": "/canary/rc", "ENV": "/canary/rc", "GCONV_PATH": "/c"}
    rig.run(["sh", "-c", f"{script}; rp-oci run hooked"], env=caller, input="")
    found = results(rig)
    assert found["order"] == list(STAGES)
    for stage in STAGES:
        directory, *descriptors = found[f"{stage}.fds"]
        assert (directory, descriptors) == ("/", ["0", "1", "2"])
        shell = ("PWD=", "SHLVL=", "OLDPWD=", "_=", "PATH=")
        assert [each for each in found[f"{stage}.env"] if not each.startswith(shell)] == []
        assert f"{stage}.errors" not in found
    pids = {stage: json.loads(found[f"{stage}.state"][0]).get("pid") for stage in STAGES}
    assert (pids["createContainer"], pids["startContainer"], pids["poststop"]) == (1, 1, None)
    assert pids["createRuntime"] == pids["poststart"] > 1


@pytest.mark.row("P12", "rp-oci: exit code 1, its words, nothing left")
@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize(("script", "words"), P12 if nightly() else P12[1:3])
def test_p12_bad_hooks_of_a_bundle(
    made: bundles.Bundles, rig: Machine, script: str, words: str
) -> None:
    spec = made.spec("true")
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": timeout_s(words)}
    spec["hooks"] = {"createRuntime": [hook]}
    done = made.run(spec, check=False)
    assert (done.returncode, words in done.stderr) == (1, True), done.stderr
    assert rig.run(["rp-oci", "list", "-q"]).stdout == ""
