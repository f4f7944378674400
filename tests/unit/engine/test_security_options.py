"""--security-opt: what each one changes, and what is refused."""

from __future__ import annotations

import builtins
import io

import pytest

from rootlesspy.engine import specgen
from rootlesspy.engine.inputs import isolation_values
from rootlesspy.engine.inputs.request import RunRequest
from rootlesspy.errors import Unsupported, UsageError


def security(*texts: str, privileged: bool = False) -> specgen.Security:
    parsed = tuple(isolation_values.parse_security_option(t, "--security-opt") for t in texts)
    request = RunRequest(image="x", security_opts=parsed, privileged=privileged)
    return specgen.parse_security_opts(request)


DEFAULT = security()


def test_nothing_asked() -> None:
    assert DEFAULT.no_new_privileges
    assert DEFAULT.seccomp == ""
    assert "/proc/kcore" in DEFAULT.masked
    assert "/proc/sys" in DEFAULT.read_only
    assert DEFAULT.proc_options == ()


@pytest.mark.parametrize("text", ["label=disable", "label:disable", "apparmor=unconfined"])
def test_what_is_off_anyway_may_be_switched_off(text: str) -> None:
    assert security(text) == DEFAULT


def test_privileged_can_be_confined_again() -> None:
    found = security("no-new-privileges", "seccomp=/p", "mask=/proc/kcore", privileged=True)
    assert found == specgen.Security(
        no_new_privileges=True, seccomp="/p", masked=["/proc/kcore"], read_only=[]
    )


@pytest.mark.parametrize("text", ["unmask=ALL", "systempaths=unconfined"])
def test_everything_is_unmasked(text: str) -> None:
    found = security(text)
    assert (found.masked, found.read_only) == ([], [])


def test_some_are_unmasked() -> None:
    found = security("unmask=/proc/kcore:/proc/sys")
    assert set(DEFAULT.masked) - set(found.masked) == {"/proc/kcore"}
    assert set(DEFAULT.read_only) - set(found.read_only) == {"/proc/sys"}


def test_a_pattern_does_not_reach_over_a_slash() -> None:
    found = security("unmask=/proc/*")
    assert not any(path.startswith("/proc/") for path in found.masked + found.read_only)
    assert "/sys/firmware" in found.masked
    assert security("unmask=/*").masked == DEFAULT.masked


def test_masked_after_unmasked_counts() -> None:
    assert security("unmask=ALL", "mask=/a:/b").masked == ["/a", "/b"]


def test_options_of_proc() -> None:
    assert security("proc-opts=hidepid=2,subset=pid").proc_options == ("hidepid=2", "subset=pid")
    assert specgen.sysctls(RunRequest(image="x"), ("subset=pid",)) == {}
    with pytest.raises(UsageError, match="subset=pid"):
        specgen.sysctls(RunRequest(image="x", sysctls=(("net.a", "1"),)), ("subset=pid",))


@pytest.mark.parametrize(
    "text",
    [
        *("mask=", "mask=a", "mask=/a/../b", "mask=/a\n", "unmask=all", "unmask=a:/b", "foo=bar"),
        *("proc-opts=", "proc-opts=hidepid=3", "proc-opts=ro", "proc-opts=gid=x", "label="),
        *("systempaths=confined", "seccomp=", "seccomp", "no-new-privileges=maybe"),
        *("proc-opts=hidepid=1,exec", "SECCOMP=unconfined", "seccomp =unconfined"),
    ],
)
def test_what_is_unknown_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        security(text)


@pytest.mark.parametrize("text", ["label=type:spc_t", "label=user:x", "label=nested"])
@pytest.mark.parametrize("present", [True, False])
def test_a_label_cannot_be_set(text: str, present: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.exists", lambda _: present)
    with pytest.raises(Unsupported, match="no SELinux labels" if present else "SELinux is not"):
        security(text)


def test_apparmor_profile_needs_apparmor(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> object:
        raise FileNotFoundError

    monkeypatch.setattr(builtins, "open", missing)
    with pytest.raises(Unsupported, match="AppArmor is not enabled"):
        security("apparmor=some")
    monkeypatch.setattr(builtins, "open", lambda *_, **__: io.StringIO("N\n"))
    with pytest.raises(Unsupported, match="AppArmor is not enabled"):
        security("apparmor=some")
    monkeypatch.setattr(builtins, "open", lambda *_, **__: io.StringIO("Y\n"))
    assert security("apparmor=some").apparmor == "some"
