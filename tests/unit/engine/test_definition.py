"""Definitions: what they may say, and how what is wrong with them is said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootlesspy.cli import argv
from rootlesspy.engine.definitions import definition, definition_schema, plan, toml
from rootlesspy.engine.definitions.definition import Definition
from rootlesspy.engine.inputs.health_values import HealthRequest
from rootlesspy.engine.inputs.request import Device, RunRequest, TmpfsMount, Ulimit, VolumeMount
from rootlesspy.errors import Conflict, UsageError
from rootlesspy.network.driver import NetworkRequest
from rootlesspy.network.ports import PortMapping

EXAMPLES = sorted(Path(__file__).resolve().parents[3].glob("examples/*/*.toml"))
REFERENCE = Path(__file__).resolve().parents[3] / "docs/definitions.md"
S = 10**9


def load(text: str, path: str = "/here/f.toml") -> Definition:
    return definition.parse(toml.parse(text, path))


def request(keys: str) -> RunRequest:
    (only,) = load(f'[container.web]\nimage = "alpine"\n{keys}\n').containers
    return only.request


def complaint(text: str) -> tuple[str, str | None]:
    with pytest.raises(UsageError) as caught:
        load(text, "f.toml")
    return caught.value.message, caught.value.hint


def test_the_smallest_definition() -> None:
    found = load('[container.web]\nimage = "alpine"\n')
    (web,) = found.containers
    assert found == Definition("/here/f.toml", (web,), ())
    assert (web.name, len(web.hash), web.before()) == ("web", 32, ())
    assert definition.without_labels(web.request) == RunRequest("alpine", name="web", detach=True)
    assert dict(web.request.labels) == {
        "io.rootlesspy.definition.hash": web.hash,
        "io.rootlesspy.definition.file": "/here/f.toml",
        "io.rootlesspy.definition.name": "web",
    }


@pytest.mark.parametrize(
    ("keys", "field", "expected"),
    [
        ('command = ["ls", "-l", 1]', "command", ("ls", "-l", "1")),
        ('entrypoint = "sh"', "entrypoint", ("sh",)),
        ('entrypoint = ["sh", "-c"]', "entrypoint", ("sh", "-c")),
        ('entrypoint = ""', "entrypoint", ("",)),
        ('env = { A = "1", B = 2, C = 2.5, D = "x=y" }', "env", ("A=1", "B=2", "C=2.5", "D=x=y")),
        ('workdir = "/srv"', "workdir", "/srv"),
        ("user = 1000", "user", "1000"),
        ('group_add = ["video", 44]', "group_add", ("video", "44")),
        ('hostname = "box"', "hostname", "box"),
        ("init = true", "init", True),
        ("tty = true", "tty", True),
        ("interactive = true", "interactive", True),
        ('umask = "0027"', "umask", 0o27),
        ('volumes = ["data:/d", "./a:/a:ro", "/x"]', "volumes",
         (VolumeMount("data", "/d", "volume"), VolumeMount("/here/a", "/a", "bind", ("ro",)),
          VolumeMount("", "/x", "anonymous"))),
        ('mounts = ["type=bind,source=../b,target=/b"]', "volumes", (VolumeMount("/b", "/b"),)),
        ('tmpfs = ["/t:size=1m"]', "tmpfs", (TmpfsMount("/t", ("size=1048576",)),)),
        ('devices = ["/dev/fuse"]', "devices", (Device("/dev/fuse", "/dev/fuse"),)),
        ("read_only = true", "read_only", True),
        ('shm_size = "1m"', "shm_size_bytes", 1 << 20),
        ('network = "none"', "network", NetworkRequest("none", (), True)),
        ('ports = ["8080:80", 90]', "publish",
         (PortMapping("", 8080, 80, "tcp"), PortMapping("", 0, 90, "tcp"))),
        ('add_hosts = ["a:1.1.1.1"]', "add_hosts", (("a", "1.1.1.1"),)),
        ('dns = ["1.1.1.1"]', "dns", ("1.1.1.1",)),
        ('dns_search = ["."]', "dns_search", (".",)),
        ('dns_options = ["ndots:2"]', "dns_options", ("ndots:2",)),
        ('memory = "1g"', "memory_bytes", 1 << 30),
        ("memory = 1048576", "memory_bytes", 1 << 20),
        ('memory = "1g"\nmemory_swap = -1', "memory_swap_bytes", -1),
        ('memory_reservation = "1m"', "memory_reservation_bytes", 1 << 20),
        ("cpus = 1.5", "cpu_quota_us", 1_500_000),
        ('cpus = "0.5"', "cpu_quota_us", 500_000),
        ("cpu_shares = 512", "cpu_shares", 512),
        ('cpuset_cpus = "0-1"', "cpuset_cpus", "0-1"),
        ("pids_limit = -1", "pids_limit", -1),
        ('ulimits = ["nofile=1:2"]', "ulimits", (Ulimit("nofile", 1, 2),)),
        ('properties = ["A=1", "A=2"]', "properties", ("A=1", "A=2")),
        ("ignore_missing_limits = true", "ignore_missing_limits", True),
        ("privileged = true", "privileged", True),
        ('cap_add = ["net_admin"]', "cap_add", ("CAP_NET_ADMIN",)),
        ('cap_drop = ["ALL"]', "cap_drop", ("ALL",)),
        ('security_opts = ["seccomp=s.json", "seccomp=unconfined"]', "security_opts",
         ("seccomp=/here/s.json", "seccomp=unconfined")),
        ('sysctls = { "net.ipv4.ip_forward" = 1 }', "sysctls", (("net.ipv4.ip_forward", "1"),)),
        ('userns = "keep-id"', "userns", "keep-id"),
        ('platform = "linux/arm64"', "platform", "linux/arm64"),
        ('pull = "never"', "pull", "never"),
        ('healthcheck = { command = "true", interval = "5s", retries = 2 }', "health",
         HealthRequest(test=("CMD-SHELL", "true"), interval_ns=5 * S, retries=2)),
        ('healthcheck.command = ["a", "b"]', "health", HealthRequest(test=("CMD", "a", "b"))),
        ("healthcheck.disable = true", "health", HealthRequest(test=("NONE",))),
        ('restart = "on-failure:3"', "restart", "on-failure:3"),
        ('stop_signal = "INT"', "stop_signal", 2),
        ("stop_timeout = 0", "stop_timeout_s", 0),
    ],
)  # fmt: skip
def test_each_key(keys: str, field: str, expected: object) -> None:
    assert getattr(request(keys), field) == expected


def test_a_directory_instead_of_an_image() -> None:
    (web,) = load('[container.web]\nrootfs = "tree"\ncommand = ["sh"]\n').containers
    assert (web.request.image, web.request.rootfs) == ("", "/here/tree")


def test_labels_and_files_are_relative_to_the_definition(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A=1\nHOME\n", encoding="utf-8")
    (tmp_path / "labels").write_text("l=1\n", encoding="utf-8")
    text = """[container.web]\nimage = "x"\nenv_file = ["env"]\nenv.B = "2"
        label_file = ["labels"]\nlabels = { m = "2" }"""
    (web,) = load(text, f"{tmp_path}/f.toml").containers
    # Nothing of the caller's environment is taken: HOME is dropped.
    assert web.request.env == ("A=1", "B=2")
    assert definition.without_labels(web.request).labels == (("l", "1"), ("m", "2"))


def test_defaults_are_for_every_container() -> None:
    found = load("""
        [defaults]
        image = "alpine"
        env = { A = "1", B = "1" }
        cap_drop = ["ALL"]
        healthcheck = { command = "true", retries = 9 }
        [container.a]
        [container.b]
        image = "busybox"
        env = { B = "2" }
        cap_drop = ["KILL"]
        healthcheck.retries = 1
        [container.c]
        rootfs = "/tree"
        """)
    a, b, c = (each.request for each in found.containers)
    assert (a.image, a.env, a.cap_drop) == ("alpine", ("A=1", "B=1"), ("ALL",))
    assert (b.image, b.env, b.cap_drop) == ("busybox", ("A=1", "B=2"), ("CAP_KILL",))
    assert a.health is not None
    assert b.health is not None
    assert (a.health.retries, b.health.retries, b.health.test) == (9, 1, ("CMD-SHELL", "true"))
    assert (c.image, c.rootfs) == ("", "/tree")


def test_volumes() -> None:
    found = load('[volume.data]\nlabels.a = "b"\n[volume.plain]\n[container.w]\nimage = "x"\n')
    assert [(each.name, each.labels) for each in found.volumes] == [
        ("data", (("a", "b"),)),
        ("plain", ()),
    ]


def test_containers_come_in_the_order_of_starting() -> None:
    found = load("""
        [defaults]
        image = "x"
        [container.web]
        requires = ["db"]
        after = ["cache", "db"]
        [container.alone]
        [container.cache]
        wants = ["db"]
        [container.db]
        """)
    assert [each.name for each in found.containers] == ["alone", "db", "cache", "web"]
    web = found.containers[-1]
    assert web.before() == ("db", "cache")
    assert (web.request.requires, web.request.after) == (("db",), ("cache", "db"))


TWO = '[container.db]\nimage = "d"\n[container.web]\nimage = "w"\n'
COMPLAINTS = [
    # Tables and keys.
    ("", "f.toml defines no container"),
    ("container = 1", "f.toml:1: container is not a table"),
    ("[container]\nweb = 1", "f.toml:2: container.web is not a table"),
    ("[[container]]\n", "f.toml:1: container is not a table"),
    ("[[container.web]]\n", "f.toml:1: container.web is not a table"),
    ('[container."we b"]', "f.toml:1: [container.'we b']: name 'we b' is not valid"),
    ("[continer.web]", "f.toml:1: unknown key 'continer'"),
    ("[container.web]\n[volume.x]\nsize = 1", "f.toml:3: [volume.x]: unknown key 'size'"),
    (f"{TWO}[volume.x]\nlabels.a = true", "f.toml:6: labels: expected a string"),
    ("[network.front]\nsubnet = 1\n", "f.toml:2: [network.front]: unknown key 'subnet'"),
    (f"{TWO}[network.front]\nsubnets = 1\n",
     "f.toml:6: subnets: expected an array of strings"),
    (f"{TWO}[network.front]\ninterface_name = 'a/b'\n",
     "f.toml:5: [network.front]: interface name 'a/b' is not valid"),
    ("[container.web]\n[container.web]\n",
     "f.toml:2: not valid TOML: [container.web] is there twice"),
    ("[container.web]\n", "f.toml:1: [container.web] needs either image or rootfs"),
    ('[container.web]\nimage = ""', "f.toml:1: [container.web] needs either image or rootfs"),
    ('[container.web]\nimage = "x"\nrootfs = "/y"',
     "f.toml:1: [container.web] needs either image or rootfs"),
    ("[defaults]\nafter = []\n[container.web]", "f.toml:2: [defaults]: unknown key 'after'"),
    # Values of the wrong kind.
    ("[container.web]\nimage = 1", "f.toml:2: image: expected a string"),
    (f"{TWO}memory = true", "f.toml:5: memory: expected a number or a string"),
    (f"{TWO}init = 1", "f.toml:5: init: expected true or false"),
    (f'{TWO}command = "ls -l"', "f.toml:5: command: expected an array of strings"),
    (f'{TWO}command = [\n"ls",\ntrue]', "f.toml:7: command[1]: expected a string"),
    (f'{TWO}env = ["A=1"]', "f.toml:5: env: expected a table of strings"),
    (f"{TWO}env.A = false", "f.toml:5: env['A']: expected a string"),
    (f'{TWO}env."A=B" = ""', "f.toml:5: env['A=B']: 'A=B' is not a name"),
    (f'{TWO}workdir = "/\\u0000"', "f.toml:5: workdir: expected no NUL character"),
    (f"{TWO}healthcheck = false", "f.toml:5: healthcheck: expected a table"),
    (f"{TWO}healthcheck.x = 1", "f.toml:5: [container.web.healthcheck]: unknown key 'x'"),
    (f"{TWO}ports = 80", "f.toml:5: ports: expected an array of strings"),
    # Values that the options refuse.
    (f'{TWO}memory = "lots"', "f.toml:5: memory 'lots': expected a size such as 512m"),
    (f'{TWO}ports = ["1:2",\n"x"]', "f.toml:6: port mapping 'x': 'x' is not a port (1 to 65535)"),
    (f'{TWO}memory_swap = "1g"', "f.toml:5: memory_swap needs memory"),
    (f'{TWO}memory_swap = "1g"\nmemory = "2g"', "f.toml:5: memory_swap is less than memory"),
    (f'{TWO}volumes = ["a:/x",\n"b:/x"]', "f.toml:6: /x is mounted twice"),
    (f'{TWO}[container.web.env]\nA = "1"\n"B C" = "x"',
     "f.toml:7: env 'B C=x': expected KEY=VALUE"),
    (f'{TWO}healthcheck = {{ command = "x", interval = "soon" }}',
     "f.toml:5: healthcheck.interval 'soon': expected a duration such as 30s or 1m30s"),
    (f'{TWO}network = "front:x"', "f.toml:5: network option 'x' is not KEY=VALUE"),
    (f'{TWO}workdir = "--memory"', "f.toml:5: workdir '--memory': expected an absolute path"),
    (f'{TWO}env_file = ["/none"]', "f.toml:5: env_file '/none': no such file or directory"),
    (f'{TWO}labels = {{ "io.rootlesspy.definition.name" = "x" }}',
     "f.toml:5: label io.rootlesspy.definition.name is rp's own"),
    ('[defaults]\nimage = "x"\ncpus = "many"\n[container.web]\n',
     "f.toml:3: cpus 'many': expected a number of CPUs such as 1.5"),
    # Dependencies.
    (f'{TWO}after = ["bd"]', "f.toml:5: after: 'bd' is not a container of this file"),
    (f'{TWO}requires = "db"', "f.toml:5: requires: expected an array of names of containers"),
    (f"{TWO}wants = [\n\n{{}}]", "f.toml:7: wants: {} is not a container of this file"),
    (f'{TWO}after = ["web"]', "f.toml:5: containers wait for each other: web → web"),
    ('[container.a]\nimage = "x"\nwants = ["b"]\n[container.b]\nimage = "x"\nrequires = ["a"]',
     "f.toml:3: containers wait for each other: a → b → a"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), COMPLAINTS, ids=[each[1] for each in COMPLAINTS])
def test_complaints_name_file_and_line(text: str, message: str) -> None:
    assert complaint(text)[0] == message


@pytest.mark.parametrize(
    ("keys", "hint"),
    [
        ("memry = 1", "did you mean memory?"),
        ("env-file = []", "did you mean env_file?"),
        ("publish = []", "did you mean ports?"),
        ("health_cmd = ''", "did you mean healthcheck.command?"),
        ("healthcheck.intervall = ''", "did you mean interval?"),
        ("after = ['wbe']", "did you mean web?"),
        ("xyzzy = 1", None),
    ],
)
def test_near_misses_are_suggested(keys: str, hint: str | None) -> None:
    assert complaint(f'[container.web]\nimage = "x"\n{keys}')[1] == hint


def test_the_hash_is_of_what_the_container_is() -> None:
    def digest(keys: str, path: str = "/here/f.toml") -> str:
        return load(f'[container.web]\nimage = "alpine"\n{keys}', path).containers[0].hash

    plain = digest("")
    assert digest("# comment\nread_only = false\nenv = {}\n") == plain
    assert digest('pull = "always"') == plain
    assert digest("", "/elsewhere/g.toml") == plain
    assert digest("memory = 1048576") == digest('memory = "1m"') != plain
    assert digest('env.A = "1"') != digest('env.A = "2"')


KEYS = [
    "image", "command", "env", "volumes", "memory", "healthcheck", "after", "labels", "ports",
    "cpus", "restart", "nonsense", "interval",
]  # fmt: skip
ANYTHING = st.recursive(
    st.text(max_size=5) | st.booleans() | st.integers() | st.floats()
    | st.sampled_from(["alpine", "512m", "a:/b", "8080:80", "always", "1s"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "-"]),
        st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=4),
        max_size=2,
    )
)
def test_whatever_it_says_is_a_definition_or_an_error_of_ours(containers: dict[str, Any]) -> None:
    document = toml.Document("f.toml", {"container": containers}, {})
    try:
        found = definition.parse(document)
    except UsageError as error:
        said = error.message
    else:
        said = f"f.toml has {[each.name for each in found.containers]}"
        assert len(found.containers) == len(containers)
    assert said.startswith("f.toml")


def test_every_option_of_run_has_a_key_or_a_reason_to_have_none() -> None:
    """A new option gets its line in definition_schema and definition_export."""
    options = {option.dest for option in argv.RUN.options} | {"image", "command"}
    keyed = {key.option for _, key in definition_schema.leaves() if key.option}
    assert keyed & definition_schema.NOT_IN_DEFINITIONS == set()
    assert keyed | definition_schema.NOT_IN_DEFINITIONS == options


def test_the_definition_of_the_reference_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"(?s)```toml\n(.*?)```", REFERENCE.read_text(encoding="utf-8"))
    (tmp_path / "secrets.env").write_text("PASSWORD=x\n", encoding="utf-8")
    found = load(text, f"{tmp_path}/f.toml")
    assert [each.name for each in found.containers] == ["cache", "web"]
    assert found.containers[1].request.env == ("PASSWORD=x", "MODE=production")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.name))
def test_examples_are_definitions(path: Path) -> None:
    assert definition.load(f"{path}").containers


def test_the_reference_lists_every_key_and_no_other() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| `([\w.]+)` \| ([^|]+?) \|", text)
    keys = [
        *((".".join(path), key.kind) for path, key in definition_schema.leaves()),
        *((f"pod.NAME.{key.name}", key.kind) for key in definition_schema.POD),
        *((f"volume.NAME.{key.name}", key.kind) for key in definition_schema.VOLUME),
        *((f"network.NAME.{key.name}", key.kind) for key in definition_schema.NETWORK),
    ]
    assert rows == keys


def test_networks_are_defined_as_they_are_made() -> None:
    text = """
        [container.web]
        image = "w"
        network = ["front:alias=www", "back"]
        [network.front]
        subnets = ["10.70.0.0/24"]
        internal = true
        disable_dns = true
        options.mtu = "1400"
        labels.a = "b"
        [network.back]
    """
    found = load(text)
    front, back = found.networks
    assert (front.name, front.subnets, front.internal, front.dns) == (
        "front", ("10.70.0.0/24",), True, False,
    )  # fmt: skip
    assert (front.options, front.labels) == ((("mtu", "1400"),), (("a", "b"),))
    assert (back.name, back.dns, back.subnets) == ("back", True, ())
    (web,) = found.containers
    assert [each.name for each in web.request.network.networks] == ["front", "back"]


POD = """
    [pod.web]
    network = ["front:alias=www"]
    ports = ["8080:80"]
    memory = "100m"
    share = ["net", "ipc"]
    exit_policy = "stop"
    labels.a = "b"
    [container.one]
    image = "w"
    pod = "web"
"""


def test_pods_are_defined_as_they_are_made() -> None:
    (pod,) = load(POD).pods
    request = pod.request
    assert (pod.name, request.name, pod.share) == ("web", "web", ("network", "ipc"))
    assert (pod.infra, pod.exit_policy) == (True, "stop")
    assert request.network.networks[0].aliases == ("www",)
    assert (request.publish[0].host_port, request.memory_bytes) == (8080, 100 << 20)
    assert dict(request.labels)["a"] == "b"
    assert dict(request.labels)["io.rootlesspy.definition.file"] == "/here/f.toml"
    assert load(POD).pods[0].hash == pod.hash != load(POD.replace("100m", "200m")).pods[0].hash


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('share = ["mnt"]', "'mnt' cannot be shared"),
        ('exit_policy = "never"', "expected continue or stop"),
        ("infra = 1", "infra: expected true or false"),
        ('image = "x"', "unknown key 'image'"),
        ('network = "host:x"', "host takes no such options"),
    ],
)
def test_pods_that_cannot_be(keys: str, message: str) -> None:
    text, _ = complaint(f'[pod.web]\n{keys}\n[container.one]\nimage = "w"\npod = "web"\n')
    assert text.startswith("f.toml")
    assert message in text


def test_a_pod_of_somebody_else_or_of_another_version_is_left_alone() -> None:
    found = load(POD)
    labels = dict(found.pods[0].request.labels)
    assert plan.plan(found, [], [], pods={"web": labels}).steps[0] == (
        "nothing",
        "pod",
        "web",
        (),
        "",
    )
    assert plan.plan(found, [], []).steps[0].action == "create"
    for changed, message in (
        ({}, "was not made from a definition"),
        ({**labels, "io.rootlesspy.definition.hash": "x"}, "cannot be changed"),
        ({**labels, "io.rootlesspy.definition.file": "/dev/null"}, "belongs to the definition"),
    ):
        with pytest.raises(Conflict, match=message):
            plan.plan(found, [], [], pods={"web": changed})
    gone = plan.plan(load('[container.one]\nimage = "w"\n'), [], [], pods={"web": labels})
    assert next((each.action, each.kind) for each in gone.steps) == ("remove", "pod")
