"""registries.conf and containers.conf: files, order, rewriting, refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy import paths, settings
from rootlesspy.errors import UsageError
from rootlesspy.paths import Paths
from rootlesspy.settings import Settings, Source

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /etc/containers in tmp_path/etc and a user directory in tmp_path/user/containers."""
    for module in (settings, paths):
        monkeypatch.setattr(module, "_SYSTEM", str(tmp_path / "etc"))
    monkeypatch.setattr(paths, "_VENDOR", str(tmp_path / "usr"))
    for name in ("etc/registries.conf.d", "usr", "user/containers/registries.conf.d"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def load(config: Path, **environment: str) -> Settings:
    paths = Paths(data="/nonexistent", runtime=None, config=str(config / "user"))
    return settings.load(paths, environment)


def sources(text: str, name: str, config: Path, *, by_digest: bool = False) -> list[str]:
    (config / "etc/registries.conf").write_text(text)
    found = load(config).sources(name, by_digest=by_digest)
    return [f"{s.registry}/{s.repository}" + ("!" if s.insecure else "") for s in found]


def test_nothing_configured_means_the_registry_itself(config: Path) -> None:
    loaded = load(config)
    assert loaded == Settings()
    assert loaded.sources("docker.io/library/a", by_digest=False) == (
        Source("docker.io", "library/a", insecure=False),
    )


def test_tomli_is_not_imported_without_files(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> dict[str, object]:
        raise AssertionError(path)

    monkeypatch.setattr(settings, "_read", fail)
    load(config)


def test_mirrors_come_first_in_order(config: Path) -> None:
    text = """
        [[registry]]
        prefix = "docker.io"
        location = "registry.local/hub"
        [[registry.mirror]]
        location = "127.0.0.1:5000"
        insecure = true
        [[registry.mirror]]
        location = "m.example/x/"
    """
    assert sources(text, "docker.io/library/a", config) == [
        "127.0.0.1:5000/library/a!",
        "m.example/x/library/a",
        "registry.local/hub/library/a",
    ]
    assert sources(text, "docker.io.evil/a", config) == ["docker.io.evil/a"]


@pytest.mark.parametrize(
    ("key", "by_digest", "used"),
    [
        ('pull-from-mirror = "all"', True, True),
        ('pull-from-mirror = "digest-only"', False, False),
        ('pull-from-mirror = "digest-only"', True, True),
        ('pull-from-mirror = "tag-only"', True, False),
        ('pull-from-mirror = "tag-only"', False, True),
    ],
)
def test_pull_from_mirror(config: Path, key: str, by_digest: bool, used: bool) -> None:
    text = f"""
        [[registry]]
        location = "a.io"
        [[registry.mirror]]
        location = "m.io"
        {key}
    """
    found = sources(text, "a.io/x", config, by_digest=by_digest)
    assert found == (["m.io/x", "a.io/x"] if used else ["a.io/x"])


def test_mirror_by_digest_only(config: Path) -> None:
    text = """
        [[registry]]
        location = "a.io"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "m.io"
    """
    assert sources(text, "a.io/x", config) == ["a.io/x"]
    assert sources(text, "a.io/x", config, by_digest=True) == ["m.io/x", "a.io/x"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.io/x", "one/x"),
        ("a.io/team/x", "two/x"),
        ("a.io/team/sub/x", "three/x"),
        ("a.io/teams/x", "one/teams/x"),
        ("a.io:5000/x", "one:5000/x"),
        ("b.example.com/x", "wild/x"),
        ("b.c.example.com:81/x", "wild:81/x"),
        ("example.com/x", "example.com/x"),
        ("bexample.com/x", "bexample.com/x"),
        ("b.example.com.evil.io/x", "b.example.com.evil.io/x"),
        ("b.keep.net/x", "b.keep.net/x!"),
    ],
)
def test_the_longest_prefix_is_rewritten(config: Path, name: str, expected: str) -> None:
    text = """
        [[registry]]
        prefix = "a.io"
        location = "one"
        [[registry]]
        prefix = "a.io/team"
        location = "two"
        [[registry]]
        prefix = "a.io/team/sub"
        location = "three"
        [[registry]]
        prefix = "*.example.com"
        location = "wild"
        [[registry]]
        prefix = "*.keep.net"
        insecure = true
    """
    assert sources(text, name, config) == [expected]


def test_blocked(config: Path) -> None:
    text = '[[registry]]\nprefix = "a.io/bad"\nlocation = "a.io/bad"\nblocked = true'
    assert sources(text, "a.io/good", config) == ["a.io/good"]
    with pytest.raises(UsageError, match=r"a\.io/bad/x is blocked"):
        load(config).sources("a.io/bad/x", by_digest=False)


def registry(location: str) -> str:
    return f'[[registry]]\nprefix = "a.io"\nlocation = "{location}"\n'


def where(loaded: Settings) -> str:
    return loaded.sources("a.io/x", by_digest=False)[-1].registry


def test_order_of_files(config: Path) -> None:
    (config / "etc/registries.conf").write_text(registry("etc"))
    assert where(load(config)) == "etc"
    (config / "etc/registries.conf.d/10.conf").write_text(registry("etc10"))
    (config / "etc/registries.conf.d/20.conf").write_text(registry("etc20"))
    (config / "etc/registries.conf.d/30.txt").write_text("not read")
    assert where(load(config)) == "etc20"
    (config / "user/containers/registries.conf.d/1.conf").write_text(registry("user1"))
    assert where(load(config)) == "user1"
    (config / "user/containers/registries.conf.d/1.conf").unlink()
    (config / "user/containers/registries.conf").write_text(registry("user"))
    assert where(load(config)) == "user"
    forced = config / "forced.conf"
    forced.write_text(registry("forced") + '[aliases]\n"f" = "f.io/f"')
    assert load(config, CONTAINERS_REGISTRIES_CONF=str(forced)).resolve_alias("f") == "f.io/f"


def test_aliases(config: Path) -> None:
    (config / "etc/registries.conf").write_text(
        'unqualified-search-registries = ["evil.io"]\n'
        '[aliases]\n"fedora" = "registry.fedoraproject.org/fedora"\n"gone" = "x.io/y"'
    )
    (config / "etc/registries.conf.d/1.conf").write_text('[aliases]\n"gone" = ""')
    loaded = load(config)
    assert loaded.resolve_alias("fedora") == "registry.fedoraproject.org/fedora"
    assert loaded.resolve_alias("fedora:40") == "registry.fedoraproject.org/fedora:40"
    assert loaded.resolve_alias("fedora@sha256:x") == "registry.fedoraproject.org/fedora@sha256:x"
    assert loaded.resolve_alias("x/fedora") == "x/fedora"
    assert loaded.resolve_alias("gone") == "gone"
    assert loaded.resolve_alias("alpine") == "alpine"


def test_logs_of_containers_conf(config: Path) -> None:
    def found() -> settings.LogDefaults:
        paths = Paths(data="/nonexistent", runtime=None, config=str(config / "user"))
        return settings.log_defaults(paths, {})

    system, user = config / "usr/containers.conf", config / "user/containers/containers.conf"
    # What is shipped: everything commented out.  It is not parsed, for that costs 13 ms.
    system.write_text('[containers\n# log_driver = "k8s-file"\n')
    assert found() == settings.LogDefaults()
    system.write_text('[containers]\nlog_driver = "k8s-file"\n  log_size_max = 5000\n')
    assert found() == settings.LogDefaults("k8s-file", 5000, str(system))
    user.write_text('[containers]\nlog_driver="none"\n')
    assert found() == settings.LogDefaults("none", 5000, str(user))
    for wrong in ("log_driver = 1", 'log_size_max = "1"', "log_size_max = true"):
        user.write_text(f"[containers]\n{wrong}\n")
        with pytest.raises(UsageError, match=wrong.partition(" ")[0]):
            found()


def test_rootless_network_of_containers_conf(config: Path) -> None:
    line = '[network]\ndefault_rootless_network_cmd = "{}"'
    (config / "usr/containers.conf").write_text(line.format("slirp4netns"))
    assert load(config).rootless_network == "slirp4netns"
    (config / "user/containers/containers.conf").write_text(line.format("pasta"))
    assert load(config).rootless_network == "pasta"
    (config / "user/containers/containers.conf").write_text(line.format("rm -rf"))
    with pytest.raises(UsageError, match="default_rootless_network_cmd"):
        load(config)


@pytest.mark.parametrize(
    "text",
    [
        "[[registry]",
        "registry = 1",
        "registry = [1]",
        "[[registry]]",
        '[[registry]]\nprefix = "a.io"',
        "[[registry]]\nlocation = 1",
        '[[registry]]\nlocation = "https://a.io"',
        '[[registry]]\nlocation = "a.io?x"',
        '[[registry]]\nlocation = "a.io\\r\\nHost: b"',
        '[[registry]]\nlocation = "a.io"\nprefix = "a.*.io"',
        '[[registry]]\nlocation = "a.io"\nprefix = "*"',
        '[[registry]]\nlocation = "a.io"\nprefix = "*.a.io/x"',
        '[[registry]]\nlocation = "a.io"\nprefix = "a.io/x:tag"',
        '[[registry]]\nlocation = "a.io"\nprefix = "a.io/x@sha256:0"',
        '[[registry]]\nlocation = "a.io"\ninsecure = "yes"',
        '[[registry]]\nlocation = "a.io"\nblocked = 1',
        '[[registry]]\nlocation = "a.io"\n[[registry.mirror]]',
        '[[registry]]\nlocation = "a.io"\nmirror = "b.io"',
        '[[registry]]\nlocation = "a"\n[[registry.mirror]]\nlocation = "b"\npull-from-mirror = "x"',
        'aliases = "x"',
        "[aliases]\nx = 1",
        "[registries.search]\nregistries = ['docker.io']",
        "x = " + "[" * 3000,
    ],
)
def test_mistakes_name_the_file(config: Path, text: str) -> None:
    path = config / "etc/registries.conf"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load(config)
    assert str(path) in caught.value.message


@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.sampled_from(
                [
                    "[[registry]]",
                    "[[registry.mirror]]",
                    "[aliases]",
                    'location = "a.io"',
                    'x = "y"',
                    'prefix = "*.b"',
                    "insecure = true",
                    "blocked = 1",
                    "mirror = []",
                    "[network]",
                    '"',
                ],
            ),
            max_size=8,
        ).map(lambda lines: "\n".join(lines).encode()),
    )
)
def test_no_other_error_than_ours(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.conf"
    path.write_bytes(content)
    paths = Paths(data="/nonexistent", runtime=None, config="/nonexistent")
    try:
        settings.load(
            paths, {"CONTAINERS_REGISTRIES_CONF": str(path), "CONTAINERS_CONF": str(path)}
        )
    except UsageError:
        return


def hooks_dirs(config: Path) -> tuple[str, ...]:
    known = Paths(data="/nonexistent", runtime=None, config=str(config / "user"))
    return settings.hooks_dirs(known, {})


def test_hooks_dirs_of_the_last_file_that_names_them(config: Path) -> None:
    assert hooks_dirs(config) == ()
    (config / "usr/containers.conf").write_text("[engine]\n#hooks_dir = ['/c']\n")
    (config / "etc/containers.conf").write_text("[engine]\nhooks_dir = ['/a', '/b']\n")
    assert hooks_dirs(config) == ("/a", "/b")
    (config / "user/containers/containers.conf").write_text("[engine]\n  hooks_dir = []\n")
    assert hooks_dirs(config) == ()


@pytest.mark.parametrize("value", ["'/a'", "[1]", "{}"])
def test_hooks_dirs_that_are_no_array(config: Path, value: str) -> None:
    (config / "etc/containers.conf").write_text(f"[engine]\nhooks_dir = {value}\n")
    with pytest.raises(UsageError, match=r"etc/containers.conf: engine.hooks_dir is not an array"):
        hooks_dirs(config)
