"""From requests back to definitions: what is written and read again asks for the same."""

from __future__ import annotations

import json
import shlex
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.cli import argv
from rootlesspy.engine.definitions import definition, definition_export, definition_schema, toml
from rootlesspy.engine.inputs.options import run_request
from rootlesspy.engine.inputs.request import RunRequest
from rootlesspy.engine.inputs.request import given as given_of
from rootlesspy.errors import UsageError


def typed(line: str) -> RunRequest:
    """Return what a command line asks for, as a definition would: named and detached."""
    invocation = argv.parse(["run", *shlex.split(line)])
    assert invocation is not None, line
    request = run_request(
        invocation.values, caller_environment={"HOME": "/h"}, directory="/here", debug=False
    )
    return request._replace(name="web", detach=True)


def recorded(request: RunRequest) -> RunRequest:
    """Send a request through the record, as JSON."""
    fields = json.loads(json.dumps(given_of(request)))
    return definition_export.restore(fields, "web")._replace(detach=True)


def written(request: RunRequest) -> RunRequest:
    """Write a request as a definition and read that."""
    text = definition_export.text([request])
    (only,) = definition.parse(toml.parse(text, "/elsewhere/f.toml")).containers
    return definition.without_labels(only.request)


LINES = [
    "alpine",
    "alpine ls -l '' 'a b'",
    "--rootfs tree sh",
    "-it --init --read-only --privileged --ignore-missing-limits alpine",
    "-e A=B -e HOME -e E= alpine",
    "-v ./a:/b:ro,Z -v data:/c -v /anonymous alpine",
    "--mount type=bind,source=/a:b,target=/c,ro --mount type=volume,target=/d,ro alpine",
    '-v a:/a --mount \'type=bind,"source=/x,y","target=/q""r",bind-nonrecursive\' alpine',
    "--mount type=bind,source=/a:b,target=/c,bind-nonrecursive=false,rslave,z alpine",
    "--mount type=volume,source=v,target=/a:b --mount type=volume,source=w,target=/c alpine",
    "--tmpfs /t --tmpfs /u:size=1m,mode=1777,ro alpine",
    "--mount type=tmpfs,target=/a:b,tmpfs-size=1m,tmpfs-mode=700,ro,noexec,U alpine",
    "-w /srv -u 1000:1000 -h box --umask 027 alpine",
    "--entrypoint '' alpine",
    "--entrypoint sh alpine",
    '--entrypoint \'["a", "b"]\' alpine',
    "--entrypoint '[x' alpine",
    "--entrypoint '[\"[1]\"]' alpine",
    "-l a=b -l c alpine",
    "--pull always --platform linux/arm64/v8 alpine",
    "--network host alpine",
    "--network pasta:--mtu,1500 alpine",
    "--network slirp4netns:mtu=1500 -p 80 -p 127.0.0.1::81 -p [::1]:82:83/udp alpine",
    "-p 8000-8002:80-82/tcp,udp alpine",
    "-m 1g --memory-swap -1 --memory-reservation 1000 --shm-size 1025k alpine",
    "-m 1m --memory-swap 3m --cpus 0.333333 -c 512 --cpuset-cpus 0-3,5 --pids-limit 0 alpine",
    "--cpus 2 --pids-limit -1 --property A=1 --property B= --property A=2 alpine",
    "--stop-signal 9 --stop-timeout 0 --restart on-failure:3 alpine",
    "--stop-signal RTMIN+3 --restart unless-stopped alpine",
    "--cap-add net_admin,kill --cap-add ALL --cap-drop ALL alpine",
    "--security-opt seccomp=/s.json --security-opt mask=/a:/b --userns keep-id:uid=1,gid=2 alpine",
    "--security-opt no-new-privileges=false --userns keep-id alpine",
    "--landlock ro=/,rw=/data --landlock net=connect:443 alpine",
    "--device vendor.com/class=name --device /dev/fuse --gpus all alpine",
    "--add-host a:1.1.1.1 --add-host 'b;c:::1' --add-host d:host-gateway alpine",
    "--dns none --dns-search . --dns-option ndots:2 alpine",
    "--dns 1.1.1.1,::1 --dns-search a.b,c alpine",
    "--ulimit nofile=1:2 --ulimit core=-1 --device /dev/fuse:/dev/x:rw alpine",
    "--sysctl net.ipv4.ip_forward=1 --group-add video --group-add 44 alpine",
    "--no-healthcheck alpine",
    "--health-cmd 'curl -f x' --health-interval 1m30s --health-timeout 500ms alpine",
    '--health-cmd \'["CMD", "x"]\' --health-retries 1 --health-start-period 0 alpine',
    '--health-cmd \'["CMD-SHELL", "CMD x"]\' --health-interval disable alpine',
    '--health-cmd \'["a", "b"]\' --health-on-failure kill --health-max-log-count 0 alpine',
    "--health-cmd x --health-startup-cmd y --health-startup-interval 1s alpine",
    "--health-cmd x --health-startup-cmd y --health-startup-retries 2 --health-interval 90s alpine",
    "--health-cmd x --health-startup-cmd y --health-startup-success 3 alpine",
    "--health-cmd x --health-startup-cmd y --health-startup-timeout 7h alpine",
    "--health-cmd x --health-start-interval 90s --health-max-log-size 0 alpine",
    "--sdnotify container alpine",
    "--log-driver json-file --log-opt max-size=1m --log-opt max-file=3 alpine",
]


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_becomes_a_definition_that_asks_the_same(line: str) -> None:
    request = typed(line)
    assert recorded(request) == request
    assert written(request) == request


def test_a_definition_is_as_short_as_what_was_asked() -> None:
    line = "-e A=1 -p 8080:80 -v data:/d -m 512m --cpus 1.5 --restart always alpine sleep 10"
    assert definition_export.text([typed(line)]) == (
        "[container.web]\n"
        'image = "alpine"\n'
        'command = ["sleep", "10"]\n'
        'env = { A = "1" }\n'
        'volumes = ["data:/d"]\n'
        'ports = ["8080:80"]\n'
        'memory = "512m"\n'
        "cpus = 1.5\n"
        'restart = "always"\n'
    )


def test_dependencies_are_kept() -> None:
    web = RunRequest(
        "x", name="web", detach=True, after=("db",), requires=("db", "c"), wants=("c",)
    )
    others = [RunRequest("x", name=name, detach=True) for name in ("db", "c")]
    text = definition_export.text([web, *others])
    found = {each.name: each.request for each in definition.parse(toml.parse(text, "f")).containers}
    assert definition.without_labels(found["web"]) == web


def test_every_signal_has_a_name_that_is_read_again() -> None:
    for number in range(1, 65):
        assert written(typed(f"--stop-signal {number} alpine")).stop_signal == number


def test_everything_that_can_be_asked_is_written() -> None:
    """A new field of RunRequest gets a key, or belongs to one invocation."""
    asked = RunRequest(*[object()] * len(RunRequest._fields))  # type: ignore[arg-type]
    fields = set(given_of(asked))
    covered = {path[0] for path, _ in definition_schema.leaves()}
    assert set(definition_export.table(RunRequest("x"))) <= covered
    seen: set[str] = set()

    class Watched:
        def __getattr__(self, name: str) -> object:
            seen.add(name)
            return getattr(RunRequest("x"), name)

    definition_export.table(Watched())  # type: ignore[arg-type]
    # A scope there is always, and the name is the table's.
    assert fields - seen == {"cgroups"}
    assert seen <= fields


WORD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
NAME = st.text("abz_", min_size=1, max_size=3)
TABLES = st.fixed_dictionaries(
    {"image": st.just("alpine")},
    optional={
        "command": st.lists(WORD, max_size=3),
        "entrypoint": st.lists(WORD, max_size=3) | WORD,
        "env": st.dictionaries(NAME, WORD, max_size=3),
        "labels": st.dictionaries(NAME, WORD, max_size=3),
        "volumes": st.lists(NAME.map(lambda name: f"{name}:/{name}"), max_size=2, unique=True),
        "mounts": st.lists(
            st.tuples(st.sampled_from(["bind", "volume"]), NAME).map(
                lambda pair: (
                    f"type={pair[0]},source={'/x:' * (pair[0] == 'bind')}{pair[1]},"
                    f"target=/m{pair[1]}"
                )
            ),
            max_size=3,
            unique_by=lambda text: text.rpartition("=")[2],
        ),
        "memory": st.integers(1 << 20, 1 << 40),
        "cpus": st.integers(1, 10**6).map(lambda number: number / 100),
        "pids_limit": st.integers(-1, 1000),
        "ports": st.lists(st.integers(1, 65535), max_size=3, unique=True),
        "stop_timeout": st.integers(0, 1000),
        "healthcheck": st.fixed_dictionaries(
            {"command": st.lists(WORD, min_size=1, max_size=3) | WORD},
            optional={"interval": st.integers(0, 10**7).map(lambda ms: f"{ms}ms")},
        ),
    },
)


@given(TABLES)
def test_whatever_is_asked_survives(table: dict[str, object]) -> None:
    text = toml.write([(("container", "web"), table)])
    try:
        (asked,) = definition.parse(toml.parse(text, "/here/f.toml")).containers
    except UsageError:
        return
    request = definition.without_labels(asked.request)
    assert recorded(request) == request
    assert written(request) == request
    assert definition.content_hash(written(request)) == asked.hash


def test_text_of_env_files_that_is_not_unicode_is_refused() -> None:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "env").write_bytes(b"A=\xff\n")
        request = typed(f"--env-file {directory}/env alpine")
    with pytest.raises(UsageError, match="not UTF-8"):
        definition_export.text([request])
