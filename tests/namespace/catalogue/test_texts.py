"""Texts that become control: of images, of payloads, of the command line.  Catalogue F and M."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from namespace.imagepush import push
from namespace.living import until
from rig import ociimage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

pytestmark = pytest.mark.namespace

TOKEN = "token-4711-of-the-host"
# What a terminal obeys: clipboard, screen, title, bell, carriage return, C1, right-to-left.
CODES = "\x1b]52;c;eA==\x07\x1b[2J\x1b]0;x\x07\x9b2J\r\u202edoc"
OBEYED = {
    "io.containers.autoupdate": "registry",
    "io.rootlesspy.definition.file": "/home/alice/texts.toml",
    "io.rootlesspy.definition.name": "mine",
    "io.rootlesspy.definition.hash": "0" * 64,
    "PODMAN_SYSTEMD_UNIT": "rp-mine.service",
    "org.systemd.property.MemoryMax": "4096",
    "run.oci.hooks.stdout": "/tmp/out",
    "io.podman.annotations.privileged": "TRUE",
    "io.rootlesspy.restart": "always",
    "description": CODES,
}
# A settings file of every runner, where each looks for it, and each wants to be privileged.
CONTAINERS_CONF = b'[containers]\nprivileged = true\nseccomp_profile = "unconfined"\n'
SETTINGS = {
    "config.json": b'{"process":{"capabilities":{}},"linux":{}}',
    "rp.toml": b"privileged = true\n",
    "etc/containers/containers.conf": CONTAINERS_CONF,
    "usr/share/containers/containers.conf": CONTAINERS_CONF,
    "root/.config/containers/containers.conf": CONTAINERS_CONF,
    "image.nspawn": b"[Exec]\nCapability=all\nPrivateUsers=no\n",
    "etc/systemd/nspawn/image.nspawn": b"[Exec]\nCapability=all\n",
    "image.container": b"[Container]\nPodmanArgs=--privileged\n",
}
STATUS = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status"
ARGUMENTS = (
    "%h", "%%", "$HOME", "${PATH}", "$$", ";", '"', "'", "a b", "\\", "-", "@x", ":x", "+x", "!x",
    "", "\n[Service]\nExecStartPre=/usr/bin/touch /tmp/injected", "\u00fc\u202e", "--privileged",
)  # fmt: skip


def rp(rig: Machine, *words: str, **options: Any) -> Any:
    return rig.run(["rp", *words], **options)


def show(rig: Machine, unit: str, *names: str) -> dict[str, str]:
    argv = ["systemctl", "--user", "show", unit, *(f"--property={name}" for name in names)]
    lines = rig.run(argv).stdout.splitlines()
    return dict(line.partition("=")[::2] for line in lines)


@pytest.fixture(scope="module")
def hostile(rig: Machine, alpine: str) -> Iterator[str]:
    """Return an image with programs, odd labels, odd names and settings of every runner."""
    if not rig.has_root:
        pytest.skip("needs the registry of the rig")
    script = "tar -cf - bin lib/ld-musl* etc/passwd 2>/dev/null"
    base = rp(rig, "run", "--rm", alpine, "sh", "-c", script, binary=True).stdout
    entries = [ociimage.Entry(name=name, data=data) for name, data in SETTINGS.items()]
    entries.append(ociimage.Entry(name=f"odd{CODES}", data=b""))
    config = {"Cmd": ["--privileged"], "Labels": OBEYED, "Env": ["PATH=/bin"]}
    history = [{"created_by": CODES, "comment": CODES}, {"created_by": CODES}]
    made = ociimage.image([base, ociimage.tar(entries)], config, history=history)
    name = push(rig, "rp/texts", {"latest": made})
    rp(rig, "pull", "-q", name)
    yield name
    rp(rig, "rm", "-af", check=False)
    rp(rig, "rmi", "-f", name, check=False)


@pytest.mark.row("escape codes", "shown as \\x1b and the like; nothing reaches the terminal")
def test_cve_2023_28101_no_text_of_an_image_is_obeyed_by_the_terminal(
    rig: Machine, hostile: str
) -> None:
    script = f"printf x > '/made{CODES}'; sleep 1000"
    rp(rig, "run", "-d", "--name", "codes", "--label", f"mine={CODES}", hostile, "sh", "-c", script)
    commands = (
        "rp ps -a", "rp ps -a --format '{{.Labels}}'", "rp images",
        f"rp history --no-trunc {hostile}",
        f"rp image inspect {hostile}", "rp inspect codes", "rp diff codes", "rp top codes",
        "rp why codes", "rp events --since 1h --until 0s", "rp security codes",
    )  # fmt: skip
    with rig.pty(["sh", "-c", "; ".join([*commands, "echo the-end"])]) as terminal:
        terminal.expect("the-end", timeout=200)
        shown = terminal.output.decode("utf-8", "replace")
    rp(rig, "rm", "-f", "codes")
    assert "\\x1b]52;" in shown
    for code in ("\x1b]", "\x1b[2J", "\x07", "\x9b", "\u202e"):
        assert code not in shown
    assert "\r" not in shown.replace("\r\n", "")


@pytest.mark.row("labels", "an image's labels that rp obeys are dropped, others do nothing")
def test_cve_2026_53488_labels_of_an_image_steer_nothing(rig: Machine, hostile: str) -> None:
    rp(rig, "run", "-d", "--name", "mine", "--network=none", hostile, "sleep", "1000")
    labels = json.loads(rp(rig, "inspect", "--format", "{{json .Config.Labels}}", "mine").stdout)
    assert labels["description"] == CODES
    assert not [each for each in labels if "definition" in each or "autoupdate" in each]
    assert rp(rig, "auto-update").stdout.splitlines()[1:] == []
    limit = show(rig, "rp-mine.scope", "MemoryMax")["MemoryMax"]
    assert limit == "infinity"
    # A definition of that name and file does not take it for its own.
    definition = f'[container.other]\nimage = "{hostile}"\ncommand = ["sleep", "1000"]\n'
    rig.run(["sh", "-c", "cat > ~/texts.toml"], input=definition)
    plan = rp(rig, "plan", "/home/alice/texts.toml", check=False).stdout
    rig.run(["rm", "/home/alice/texts.toml"])
    rp(rig, "rm", "-f", "mine")
    assert "other" in plan
    assert "mine" not in plan


@pytest.mark.row("argument injection", "a word of the payload stays one: 127, or its argument")
def test_cve_2024_32462_words_that_look_like_options(rig: Machine, hostile: str) -> None:
    done = rp(rig, "run", "--rm", hostile, check=False)
    assert done.returncode == 127
    assert "--privileged" in done.stderr
    script = ("-c", 'printf "%s." "$0" "$@"', "-v", "--", "--help")
    said = rp(rig, "run", "--rm", "--entrypoint=sh", hostile, *script)
    assert said.stdout == "-v.--.--help."
    for words in (
        ["run", "--name=-x", hostile, "true"], ["run", "-v", "-x:/x", hostile, "true"],
        ["run", "--network=-x", hostile, "true"], ["volume", "create", "--", "-x"],
        ["network", "create", "--", "-x"], ["pod", "create", "--name=-x"],
        ["pull", "--", "--help"], ["run", "--user=-x", hostile, "true"],
    ):  # fmt: skip
        refused = rp(rig, *words, check=False)
        assert refused.returncode == 125, words
        assert len(refused.stderr.splitlines()) <= 2, refused.stderr


@pytest.mark.row("config files in images", "ignored")
def test_cve_2026_40226_settings_of_an_image_are_ignored(
    rig: Machine, hostile: str, alpine: str
) -> None:
    plain = rp(rig, "run", "--rm", "--network=none", alpine, "sh", "-c", STATUS).stdout
    found = rp(rig, "run", "--rm", "--network=none", hostile, "sh", "-c", STATUS).stdout
    assert found == plain
    # Nor where one is typed beside them.
    there = f"cd $(rp image mount {hostile}) && cat rp.toml >&2 && rp version >&2; {STATUS}"
    mounted = rp(rig, "unshare", "sh", "-c", there)
    assert "privileged = true" in mounted.stderr


@pytest.mark.row("unit text", "arguments reach the payload byte by byte; no unit has them")
def test_cve_2026_23953_values_never_become_text_of_a_unit(rig: Machine, alpine: str) -> None:
    odd = "x\n[Service]\nExecStartPre=/usr/bin/touch /tmp/injected"
    options = (
        "--env", f"ODD={odd}", "--label", f"odd={odd}", "--tmpfs", "/%h $HOME",
        "--workdir", "/%h $HOME", "--restart=always", "--network=none", "--name", "unit",
    )  # fmt: skip
    words = ("sh", "-c", 'printf "%s\\0" "$@" > /said; pwd > /where; sleep 1000', "sh", *ARGUMENTS)
    rp(rig, "run", "-d", *options, alpine, *words)
    try:
        until(lambda: rp(rig, "exec", "unit", "test", "-s", "/where", check=False).returncode == 0,
              "it has said its arguments")  # fmt: skip
        wanted = "".join(f"{each}\0" for each in ARGUMENTS)
        assert rp(rig, "exec", "unit", "cat", "/said").stdout == wanted
        assert rp(rig, "exec", "unit", "cat", "/where").stdout == "/%h $HOME\n"
        rp(rig, "enable", "unit")
        unit = rig.run(["sh", "-c", "cat ~/.config/systemd/user/rp-unit.service"]).stdout
        assert "injected" not in unit
        assert "$HOME" not in unit
        found = show(rig, "rp-unit.service", "ExecStartPre", "ExecStart", "Environment")
        assert found.get("ExecStartPre", "") == ""
        assert "injected" not in "".join(found.values())
        path = "/home/alice/.config/systemd/user/rp-unit.service"
        checked = rig.run(["systemd-analyze", "verify", "--user", "--man=no", path], check=False)
        assert checked.returncode == 0, checked.stderr
        rp(rig, "stop", "unit")
        rp(rig, "start", "unit")
        until(lambda: rp(rig, "exec", "unit", "cat", "/said", check=False).stdout == wanted,
              "systemd's own start says the same")  # fmt: skip
    finally:
        rp(rig, "rm", "-f", "unit")
    assert rig.run(["test", "-e", "/tmp/injected"], check=False).returncode == 1
    for name in (odd, "a/b", "..", "a b", "%h", "a\0".rstrip("\0") + "@"):
        refused = rp(rig, "run", "-d", "--name", name, alpine, "true", check=False)
        assert refused.returncode == 125, name


@pytest.mark.row("syslog prefix", "the line is the message, at the priority of all output")
def test_a_payload_chooses_no_priority_and_no_field(rig: Machine, alpine: str) -> None:
    lines = "<0>PWN-0\\n<3>PWN-3\\nPWN\\nMESSAGE_ID=1\\n\\0PWN-nul\\nPWN-end"
    argv = (
        "run",
        "--rm",
        "-d",
        "--log-driver=journald",
        "--name",
        "logs",
        "--network=none",
        alpine,
    )
    identity = rp(rig, *argv, "sh", "-c", f"printf '{lines}'").stdout.strip()
    asked = ["journalctl", "--user", "-o", "json", "--all", f"CONTAINER_ID_FULL={identity}"]

    def entries() -> list[dict[str, Any]]:
        return [json.loads(line) for line in rig.run(asked, check=False).stdout.splitlines()]

    until(lambda: "PWN-end" in json.dumps(entries()), "the journal has the last line")
    found = [each for each in entries() if "PWN" in json.dumps(each.get("MESSAGE"))]
    assert {each["PRIORITY"] for each in found} == {"6"}
    assert [each["MESSAGE"] for each in found][:2] == ["<0>PWN-0", "<3>PWN-3"]
    assert not [each for each in entries() if each.get("MESSAGE_ID") == "1"]


@pytest.mark.row("secrets in argv", "in no command line but the one typed, no log, no unit")
def test_cve_2019_13509_secrets_are_nowhere_else(rig: Machine, alpine: str) -> None:
    rig.run(["sh", "-c", "rp secret create texts -"], input=TOKEN)
    env = {"PASSWORD": TOKEN}
    rig.run(["rp", "run", "-d", "--name", "quiet", "--env", "PASSWORD", "--secret", "texts", alpine,
             "sleep", "1000"], env=env)  # fmt: skip
    debug = rig.run(["rp", "--debug", "run", "--rm", "--env", "PASSWORD", alpine, "true"], env=env)
    try:
        script = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; journalctl --no-pager -n 2000"
        seen = rig.run(["sh", "-c", script], user="bob", check=False).stdout
        seen += rig.run(["journalctl", "--user", "--no-pager", "-n", "2000"]).stdout
        seen += rig.run(
            ["systemctl", "--user", "show", "rp-quiet.scope", "rp-quiet.service"]
        ).stdout
        assert "rp supervise" in seen
        assert TOKEN not in seen
        assert TOKEN not in debug.stderr
        assert rp(rig, "exec", "quiet", "printenv", "PASSWORD").stdout.strip() == TOKEN
    finally:
        rp(rig, "rm", "-f", "quiet")
        rp(rig, "secret", "rm", "texts")


@pytest.mark.row("odd properties", "refused by name; the manager goes on")
def test_cve_2026_40223_odd_properties_do_no_harm(rig: Machine, alpine: str) -> None:

    before = rig.run(["systemctl", "--user", "show", "-p", "InvocationID", "--", "-.slice"]).stdout
    for odd in (
        "Delegate=", "Delegate=yes", "Slice=../../x", "Slice=", "MemoryMax=99999999999999999999999",
        "MemoryMax=-1", "MemoryMax=\x01", "CPUWeight=0", "TasksMax=5\nDelegate=yes", "Nonesuch=1",
        "IODeviceWeight=/dev/null", "Description=%n", "=", "A" * 300 + "=1", "BindsTo=-.slice",
    ):  # fmt: skip
        done = rp(rig, "run", "--rm", "--network=none", f"--property={odd}", alpine, "true",
                  check=False)  # fmt: skip
        assert done.returncode in (0, 125), (odd, done.returncode, done.stderr)
        assert "Traceback" not in done.stderr
    after = rig.run(["systemctl", "--user", "show", "-p", "InvocationID", "--", "-.slice"]).stdout
    assert after == before
    assert rp(rig, "run", "--rm", "--network=none", alpine, "echo", "still").stdout == "still\n"


@pytest.mark.row("log path", "a log that became a link is an error; no program is given words")
def test_cve_2026_33711_a_log_that_is_a_link_is_not_followed(rig: Machine, alpine: str) -> None:
    rig.run(["sh", "-c", "echo precious > ~/precious"])
    argv = ("run", "-d", "--log-driver=json-file", "--name", "log", "--network=none", alpine)
    rp(rig, *argv, "sh", "-c", "echo one; sleep 1000")
    path = rp(rig, "inspect", "--format", "{{.HostConfig.LogConfig.Path}}", "log").stdout.strip()
    rp(rig, "stop", "log")
    rig.run(["sh", "-c", f"rm {path}; ln -s ~/precious {path}"])
    started = rp(rig, "start", "log", check=False)
    read = rp(rig, "logs", "log", check=False)
    rp(rig, "rm", "-f", "log")
    assert rig.run(["sh", "-c", "cat ~/precious; rm ~/precious"]).stdout == "precious\n"
    assert "precious" not in read.stdout
    assert "Traceback" not in started.stderr + read.stderr
    wrong = ["rp", "push", "--compression-format", "zstd -o /tmp/x", alpine, "oci:/tmp/y"]
    refused = rig.run(wrong, check=False)
    assert refused.returncode == 125
    assert rig.run(["test", "-e", "/tmp/x"], check=False).returncode == 1


@pytest.mark.row("CVE-2026-57231", "refused")
@pytest.mark.parametrize("entry", ["HOSTSECRET", "*", "H*", "=x", "A=B\0C"])
def test_cve_2026_57231_odd_environment_of_an_image(rig: Machine, entry: str) -> None:
    if not rig.has_root:
        pytest.skip("needs the registry of the rig")
    made = ociimage.image([], {"Cmd": ["true"], "Env": ["PATH=/bin", entry]})
    number = base64.b16encode(entry.encode()).decode().lower()
    name = push(rig, f"rp/env-{number}", {"latest": made})
    done = rig.run(["rp", "run", "--rm", name], env={"HOSTSECRET": TOKEN}, check=False)
    assert done.returncode in (125, 127)
    assert TOKEN not in done.stdout + done.stderr
