"""The score of `rp security`: what each fact is worth, and what is said of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.engine.inputs import capabilities
from rootlesspy.engine.security import exposed_paths, findings
from rootlesspy.engine.security.findings import Facts, Port

CONTROLLERS = frozenset(("memory", "pids", "cpu"))
DEFAULT = Facts(
    capabilities=frozenset(capabilities.DEFAULT),
    bounding=frozenset(capabilities.DEFAULT),
    seccomp="default",
    no_new_privileges=True,
    unmasked=(),
    user="root",
    is_root=True,
    maps_caller=True,
    mounts=(),
    devices=(),
    network="pasta",
    ports=(),
    shared=(),
    read_only=False,
    limits=frozenset(("pids",)),
    enforced=CONTROLLERS,
    environment=("PATH", "HOME"),
    landlock=(),
)
HARDENED = DEFAULT._replace(
    capabilities=frozenset(),
    bounding=frozenset(),
    user="1000",
    is_root=False,
    maps_caller=False,
    network="none",
    read_only=True,
    limits=CONTROLLERS,
    landlock=("ro=/",),
)
PRIVILEGED = DEFAULT._replace(
    capabilities=frozenset(capabilities.ALL),
    bounding=frozenset(capabilities.ALL),
    seccomp="none",
    no_new_privileges=False,
    unmasked=("/proc/kcore", "/proc/keys", "/proc/sys", "/sys/firmware", "/proc/irq"),
)


def bind(
    source: str, *, read_only: bool = False, socket: bool = False, volume: bool = False
) -> exposed_paths.Bind:
    return exposed_paths.Bind(
        source=source,
        target="/x",
        read_only=read_only,
        is_socket=socket,
        is_volume=volume,
        home="/home/me",
        runtime="/run/user/1000",
    )


WORST = PRIVILEGED._replace(
    mounts=(bind("/"),),
    devices=("/dev/kvm",),
    network="host",
    ports=(Port("", 80),),
    shared=(("pid", "host"),),
    limits=frozenset(),
    environment=("DB_PASSWORD",),
)


def points(facts: Facts) -> float:
    return findings.score(findings.judge(facts))


def test_score_falls_with_each_step_of_hardening() -> None:
    steps = [
        WORST,
        PRIVILEGED,
        DEFAULT,
        DEFAULT._replace(user="1000", is_root=False, capabilities=frozenset()),
        HARDENED,
    ]
    scores = [points(each) for each in steps]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)
    assert [findings.level(each) for each in scores] == [
        *("UNSAFE", "EXPOSED", "OK", "OK", "PERFECT"),
    ]


@pytest.mark.parametrize(
    ("score", "word"),
    [
        *((0.0, "PERFECT"), (0.1, "SAFE"), (0.9, "SAFE"), (1.0, "OK"), (4.9, "OK")),
        *((5.0, "MEDIUM"), (7.4, "MEDIUM"), (7.5, "EXPOSED"), (9.0, "UNSAFE"), (10, "DANGEROUS")),
    ],
)
def test_words_are_those_of_systemd_analyze(score: float, word: str) -> None:
    assert findings.level(score) == word


BETTER = {
    "capabilities": frozenset(),
    "seccomp": "default",
    "no_new_privileges": True,
    "unmasked": (),
    "is_root": False,
    "maps_caller": False,
    "mounts": (),
    "devices": (),
    "network": "none",
    "ports": (),
    "shared": (),
    "read_only": True,
    "limits": CONTROLLERS,
    "environment": (),
    "landlock": ("ro=/",),
}


@pytest.mark.parametrize("field", BETTER)
def test_each_improvement_lowers_the_score_and_was_advised(field: str) -> None:
    better = WORST._replace(**{field: BETTER[field]})  # type: ignore[arg-type]  # by name
    # Each is worth more than what rounding takes away.
    assert points(better) < points(WORST)
    advised = {each.check for each in findings.judge(WORST) if each.advice}
    assert {each.check for each in findings.judge(better) if each.advice} < advised


@given(st.sampled_from([DEFAULT, HARDENED, PRIVILEGED, WORST]))
def test_scores_stay_on_the_scale(facts: Facts) -> None:
    found = findings.judge(facts)
    assert 0 <= findings.score(found) <= 10
    assert {each.check for each in found} == set(findings.WEIGHTS)
    assert [each.exposure for each in found] == sorted((f.exposure for f in found), reverse=True)
    for each in found:
        assert bool(each.advice) or each.badness < 0.35, each
        assert "\n" not in each.text + each.advice


@pytest.mark.parametrize(
    ("change", "check", "text"),
    [
        ({"seccomp": "permissive"}, "seccomp", "allows what it does not name"),
        ({"seccomp": "custom"}, "seccomp", "of your own"),
        ({"capabilities": frozenset(["CAP_NET_ADMIN"])}, "capabilities", "NET_ADMIN"),
        ({"capabilities": frozenset(["CAP_NET_RAW"])}, "capabilities", "NET_RAW beyond"),
        ({"capabilities": frozenset(["CAP_CHOWN"])}, "capabilities", "holds CHOWN"),
        ({"unmasked": ("/proc/kcore",)}, "masked paths", "/proc/kcore can be seen"),
        ({"network": "container:1"}, "network", "shared with container:1"),
        ({"ports": (Port("127.0.0.1", 80),)}, "ports", "for this machine"),
        ({"ports": (Port("", 80), Port("::1", 81))}, "ports", "for everybody"),
        ({"shared": (("ipc", "pod:a"),)}, "namespaces", "ipc namespace of pod:a"),
        ({"enforced": frozenset()}, "process limit", "not enforced"),
        ({"environment": ("API_TOKEN", "X_FILE")}, "environment", "holds API_TOKEN"),
        ({"landlock": ("ro=/", "net=none")}, "landlock", "ro=/, net=none"),
    ],
)
def test_what_is_said(change: dict[str, object], check: str, text: str) -> None:
    found = findings.judge(DEFAULT._replace(**change))  # type: ignore[arg-type]  # by name
    assert any(each.check == check and text in each.text for each in found)


def test_a_file_of_a_secret_is_no_secret() -> None:
    found = findings.judge(DEFAULT._replace(environment=("DB_PASSWORD_FILE",)))
    assert next(each for each in found if each.check == "environment").badness == 0


def test_of_many_mounts_the_worst_counts() -> None:
    one = points(DEFAULT._replace(mounts=(bind("/"),)))
    assert points(DEFAULT._replace(mounts=(bind("/"), bind("/srv"), bind("/home/me")))) == one


@pytest.mark.parametrize(
    ("found", "least", "text"),
    [
        (bind("/"), 1.0, "all that you can reach"),
        (bind("/", read_only=True), 0.7, "reads / at /x"),
        (bind("/home"), 1.0, "your home directory"),
        (bind("/home/me/"), 1.0, "your home directory"),
        (bind("/home/me/.ssh/id"), 1.0, "~/.ssh"),
        (bind("/home/me/.sshd"), 0.3, "changes"),
        (bind("/home/me/work", read_only=True), 0.1, "reads"),
        (bind("/run/user/1000"), 1.0, "user manager"),
        (bind("/run/user/1000/bus", socket=True), 1.0, "manager's socket"),
        (bind("/run/user/1000/systemd/private", socket=True), 1.0, "manager's socket"),
        (bind("/run/dbus/system_bus_socket", socket=True), 1.0, "manager's socket"),
        (bind("/run/docker.sock", read_only=True, socket=True), 1.0, "container engine"),
        (bind("/run/user/1000/podman/podman.sock", socket=True), 1.0, "container engine"),
        (bind("/tmp/agent", socket=True), 0.6, "whoever listens"),
        (bind("/etc", read_only=True), 0.7, "configuration"),
        (bind("/d/volumes/v/_data", volume=True), 0.0, "volume"),
    ],
)
def test_paths(found: exposed_paths.Bind, least: float, text: str) -> None:
    badness, said, advice = exposed_paths.judge(found)
    assert badness == least
    assert text in said
    assert bool(advice) == (badness >= 0.3)


def test_json() -> None:
    for row in findings.as_json(findings.judge(WORST)):
        assert set(row) == {"Check", "Exposure", "Good", "Description", "Advice"}
        assert isinstance(row["Exposure"], float)
        assert row["Good"] is (row["Exposure"] == 0.0) or row["Exposure"] == 0.0
