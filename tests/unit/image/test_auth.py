"""Credentials: where they are found, and to whom they may go (SECURITY.md G)."""

from __future__ import annotations

import base64
import json
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.errors import RegistryError
from rootlesspy.image import auth, credentials
from rootlesspy.image.auth import Challenge, Credentials

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            ['Bearer realm="https://a/t",service="r",scope="repository:x:pull,push"'],
            [("bearer", "realm", "https://a/t"), ("bearer", "scope", "repository:x:pull,push")],
        ),
        (["bearer REALM=x"], [("bearer", "realm", "x")]),
        (['Basic realm="a\\"b, c"'], [("basic", "realm", 'a"b, c')]),
        (["Negotiate, Basic realm=x"], [("negotiate", "realm", ""), ("basic", "realm", "x")]),
        (["Basic realm=x", "Bearer realm=y"], [("basic", "realm", "x"), ("bearer", "realm", "y")]),
        ([""], []),
        ([",,,"], []),
    ],
)
def test_challenges(headers: list[str], expected: list[tuple[str, str, str]]) -> None:
    found = {challenge.scheme: challenge for challenge in auth.parse_challenges(headers)}
    assert set(found) == {scheme for scheme, _, _ in expected}
    for scheme, name, value in expected:
        assert found[scheme].get(name) == value


@given(st.lists(st.text(max_size=80) | st.text(alphabet='Ba r=,"\\', max_size=40), max_size=3))
def test_challenges_never_raise(headers: list[str]) -> None:
    assert all(isinstance(found, Challenge) for found in auth.parse_challenges(headers))


@pytest.mark.parametrize(
    ("realm", "allowed"),
    [
        ("https://auth.example.com/token", True),
        ("https://other.org/token", True),
        ("https://registry.example.com:8443/token", True),
        ("http://registry.example.com/token", False),
        ("http://auth.example.com/token", False),
        ("https://169.254.169.254/latest/meta-data", False),
        ("https://127.0.0.1/", False),
        ("https://127.1/", False),
        ("https://2130706433/", False),
        ("https://0x7f000001/", False),
        ("https://10.0.0.1/", False),
        ("https://[::1]/", False),
        ("https://[fe80::1%25eth0]/", False),
        ("https://[::ffff:127.0.0.1]/", False),
        ("https://localhost/", False),
        ("https://x.localhost/", False),
        ("https://metadata.google.internal/", False),
        ("https://user:pw@auth.example.com/", False),
        ("https:///token", False),
        ("file:///etc/passwd", False),
        ("javascript:alert(1)", False),
        ("//auth.example.com/token", False),
        ("", False),
        ("https://a b/", False),
        ("https://a\\b/", False),
        ("https://a\r\nHost: b/", False),
        ("https://a:99999/", False),
        ("https://[::1/", False),
    ],
)
@pytest.mark.row("CVE-2026-48978", "private and link-local realms of a public registry are refused")
def test_CVE_2026_48978_realms(realm: str, allowed: bool) -> None:
    def check() -> None:
        auth.check_realm(realm, "registry.example.com", insecure=False, resolve=False)

    if allowed:
        check()
    else:
        with pytest.raises(RegistryError):
            check()


@pytest.mark.row("realm", "refused")
def test_names_that_resolve_to_private_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"inner.example.org": "10.1.2.3", "registry.example.com": "93.184.216.34"}

    def resolve(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [(2, 1, 6, "", (answers[host], 443))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(RegistryError, match="private network"):
        auth.check_not_private("inner.example.org", "registry.example.com", resolve=True)
    # A registry of the company's own network may name its neighbours.
    answers["registry.example.com"] = "192.168.0.9"
    auth.check_not_private("inner.example.org", "registry.example.com", resolve=True)


@pytest.mark.parametrize(
    ("realm", "registry", "allowed"),
    [
        ("https://auth.docker.io/token", "registry-1.docker.io", True),
        ("https://auth.docker.io.evil.com/token", "registry-1.docker.io", False),
        ("https://evil.docker.io/token", "registry-1.docker.io", False),
        ("https://registry.example.com/token", "registry.example.com", True),
        ("https://auth.example.com/token", "registry.example.com", True),
        ("https://example.com/token", "registry.example.com", True),
        ("https://evil.com/token", "registry.example.com", False),
        ("https://evilexample.com/token", "registry.example.com", False),
        ("http://registry.example.com/token", "registry.example.com", False),
        ("https://b.co.uk/token", "a.co.uk", False),
        ("https://auth.a.co.uk/token", "registry.a.co.uk", True),
        ("https://10.0.0.2/token", "10.0.0.1", False),
        ("https://10.0.0.1/token", "10.0.0.1", True),
        ("https://b/token", "a", False),
        ("nonsense", "registry.example.com", False),
    ],
)
@pytest.mark.row("realm", "only the registry itself and its own domain")
def test_who_may_have_the_password(realm: str, registry: str, allowed: bool) -> None:
    assert auth.may_have_password(realm, registry) is allowed


def write(path: Path, auths: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": auths}))


def entry(username: str, password: str = "pw") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def username(found: tuple[Credentials | None, str | None]) -> str | None:
    return found[0].username if found[0] else None


def test_the_most_specific_credentials_win(tmp_path: Path) -> None:
    write(
        tmp_path / "containers/auth.json",
        {"q.io": entry("host"), "q.io/team": entry("team"), "q.io/team/app": entry("app")},
    )

    def find(registry: str, repository: str) -> str | None:
        return username(credentials.find(registry, repository, {}, str(tmp_path)))

    assert find("q.io", "team/app") == "app"
    assert find("q.io", "team/other") == "team"
    assert find("q.io", "x") == "host"
    assert find("q.io.evil", "x") is None


def test_files_in_their_order(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    docker = {"https://index.docker.io/v1/": entry("docker", "a:b")}
    write(tmp_path / "home/.docker/config.json", docker)

    def find(**more: str) -> str | None:
        merged = {**environment, **more}
        return username(credentials.find("docker.io", "x/y", merged, str(tmp_path)))

    assert find() == "docker"
    write(tmp_path / "containers/auth.json", {"docker.io": entry("config")})
    assert find() == "config"
    write(tmp_path / "run/containers/auth.json", {"docker.io": entry("runtime")})
    assert find() == "runtime"
    write(tmp_path / "forced.json", {"docker.io": entry("forced")})
    assert find(REGISTRY_AUTH_FILE=str(tmp_path / "forced.json")) == "forced"
    assert find(REGISTRY_AUTH_FILE=str(tmp_path / "missing.json")) is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 5000,
        '{"auths":{"q.io":{"auth":"###"}}}',
        '{"auths":{"q.io":{"auth":"bm9jb2xvbg=="}}}',
        '{"auths":{"q.io":{"auth":"/w=="}}}',
    ],
)
def test_damaged_files_are_errors(tmp_path: Path, text: str) -> None:
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers/auth.json").write_text(text)
    with pytest.raises(RegistryError, match=r"auth\.json"):
        credentials.find("q.io", "x", {}, str(tmp_path))


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"auths":[]}', '{"auths":{"q.io":{}}}', '{"auths":{"q.io":1}}']
)
def test_files_without_credentials(tmp_path: Path, text: str) -> None:
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers/auth.json").write_text(text)
    assert credentials.find("q.io", "x", {}, str(tmp_path)) == (None, None)


@pytest.mark.row("secrets in argv", "a notice when others can read the file with passwords")
def test_files_that_others_can_read(tmp_path: Path) -> None:
    path = tmp_path / "auth.json"
    path.touch(0o600)
    assert not credentials.is_readable_by_others(str(path))
    path.chmod(0o640)
    assert credentials.is_readable_by_others(str(path))
