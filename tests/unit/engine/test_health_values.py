"""The words of --health-… and of an image's HEALTHCHECK, and how they are merged."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.engine.inputs import health_values
from rootlesspy.engine.inputs.health_values import HealthRequest, StartupRequest
from rootlesspy.engine.supervision import healthcheck
from rootlesspy.errors import ImageError, UsageError

S = 1_000_000_000
IMAGE: dict[str, object] = {
    "Test": ["CMD-SHELL", "curl -f http://localhost || exit 1"],
    "Interval": 60 * S,
    "Timeout": 3 * S,
    "StartPeriod": 10 * S,
    "Retries": 5,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("curl -f x || exit 1", ("CMD-SHELL", "curl -f x || exit 1")),
        ("true", ("CMD-SHELL", "true")),
        ('["curl", "-f", "a b"]', ("CMD", "curl", "-f", "a b")),
        ('["true"]', ("CMD-SHELL", "true")),
        ('["CMD", "true"]', ("CMD", "true")),
        ('["CMD-SHELL", "a && b"]', ("CMD-SHELL", "a && b")),
        ("CMD true  -x", ("CMD", "true", "-x")),
        ("CMD-SHELL a  && b", ("CMD-SHELL", "a  && b")),
        ("none", ("NONE",)),
        ('["NONE"]', ("NONE",)),
        ("none of it", ("CMD-SHELL", "none of it")),
        ("[ -e /ready ]", ("CMD-SHELL", "[ -e /ready ]")),
        ("[1, 2]", ("CMD-SHELL", "[1, 2]")),
    ],
)
def test_commands(text: str, expected: tuple[str, ...]) -> None:
    assert health_values.parse_test(text, "--health-cmd") == expected


@pytest.mark.parametrize(
    "text", ["", "  ", "[]", '[""]', '["CMD", ""]', "CMD", "CMD-SHELL", "a\0b"]
)
def test_no_commands(text: str) -> None:
    with pytest.raises(UsageError, match="--health-cmd"):
        health_values.parse_test(text, "--health-cmd")


@given(text=st.text() | st.lists(st.text()).map(json.dumps))
def test_any_text_is_a_command_or_a_usage_error(text: str) -> None:
    try:
        test = health_values.parse_test(text, "--health-cmd")
    except UsageError:
        return
    assert test[0] in ("CMD", "CMD-SHELL", "NONE")
    assert test == ("NONE",) or test[1]


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0), ("0s", 0), ("30s", 30 * S), ("1m30s", 90 * S), ("1.5h", 5400 * S), ("1ns", 1),
        ("250ms", S // 4), ("2us", 2000), ("2µs", 2000), ("2μs", 2000), (".5s", S // 2),
        ("1h2m3s4ms", 3_723_004_000_000), ("1.s", S),
    ],
)  # fmt: skip
def test_durations(text: str, nanoseconds: int) -> None:
    assert health_values.parse_duration(text, "--health-interval") == nanoseconds


@pytest.mark.parametrize(
    "text", ["", "30", "-1s", "+1s", "1 s", "1d", "s", ".s", "1.2.3s", "1S", "9" * 19 + "h", "٣s"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(UsageError, match="a duration such as"):
        health_values.parse_duration(text, "--health-interval")


@given(st.text(alphabet="0123456789.nuµmsh -"))
def test_any_text_is_a_duration_or_a_usage_error(text: str) -> None:
    try:
        assert 0 <= health_values.parse_duration(text, "x") < 2**63
    except UsageError:
        return


def test_no_timeout_is_a_usage_error_and_no_interval_means_by_hand() -> None:
    assert health_values.parse_interval("disable", "--health-interval") == 0
    with pytest.raises(UsageError, match="greater than zero"):
        health_values.parse_timeout("0s", "--health-timeout")


def parse(**given: str) -> HealthRequest:
    class Given:
        """Options as the command line gives them."""

        def flag(self, dest: str) -> bool:
            return dest in given

        def value(self, dest: str) -> str | None:
            return given.get(dest)

        def values(self, dest: str) -> tuple[str, ...]:
            return (given[dest],) if dest in given else ()

    return health_values.parse_options(Given())


def test_every_option_goes_where_it_belongs() -> None:
    found = parse(
        health_cmd="check",
        health_interval="1s",
        health_timeout="2s",
        health_start_period="3s",
        health_start_interval="4s",
        health_retries="5",
        health_on_failure="stop",
        health_max_log_count="6",
        health_max_log_size="7",
        health_startup_cmd="CMD up",
        health_startup_interval="8s",
        health_startup_timeout="9s",
        health_startup_retries="10",
        health_startup_success="11",
    )
    startup = StartupRequest(("CMD", "up"), 8 * S, 9 * S, 10, 11)
    assert found == HealthRequest(
        ("CMD-SHELL", "check"), S, 2 * S, 3 * S, 4 * S, 5, "stop", 6, 7, startup
    )


def test_what_is_not_given_is_left_to_the_image() -> None:
    assert parse(health_cmd="", health_interval="") == HealthRequest()
    assert parse(health_interval="disable").interval_ns == 0
    assert parse(no_healthcheck="") == HealthRequest(test=health_values.NONE)


@pytest.mark.parametrize(
    ("given_options", "message"),
    [
        ({"health_retries": "0"}, "--health-retries '0'"),
        ({"health_timeout": "0"}, "--health-timeout '0'"),
        ({"health_start_interval": "0s"}, "--health-start-interval"),
        ({"health_startup_cmd": "x", "health_startup_interval": "0"}, "--health-startup-interval"),
        ({"health_on_failure": "explode"}, "one of none, kill, restart, stop"),
        ({"health_max_log_size": "-1"}, "--health-max-log-size"),
        ({"health_cmd": "x", "no_healthcheck": ""}, "exclude each other"),
    ],
)
def test_wrong_options_are_named(given_options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(**given_options)


def config(request: HealthRequest | None, image: dict[str, object] | None) -> healthcheck.Config:
    """Merge, pass through JSON as the record does, and read back."""
    resolved = health_values.resolve(request, image, None)
    assert resolved is not None
    return healthcheck.config_of(json.loads(json.dumps(resolved)))


def test_the_image_alone_with_defaults_for_what_is_zero() -> None:
    assert config(None, IMAGE) == healthcheck.Config(
        argv=("/bin/sh", "-c", "curl -f http://localhost || exit 1"),
        interval_s=60,
        timeout_s=3,
        start_period_s=10,
        retries=5,
    )
    bare = config(None, {"Test": ["CMD", "true"], "Interval": 0, "Retries": 0})
    assert bare == healthcheck.Config(argv=("true",))


def test_options_win_one_by_one() -> None:
    found = config(HealthRequest(interval_ns=S, on_failure="kill", max_log_count=9), IMAGE)
    assert found == config(None, IMAGE)._replace(
        interval_s=1, on_failure="kill", max_log_count=9, start_interval_s=1
    )


def test_the_image_s_shell_is_for_the_image_s_command() -> None:
    shell = ["/bin/bash", "-ec"]
    of_image = health_values.resolve(None, IMAGE, shell)
    asked = health_values.resolve(HealthRequest(test=("CMD-SHELL", "x")), IMAGE, shell)
    assert of_image is not None
    assert asked is not None
    assert healthcheck.config_of(of_image).argv[:2] == ("/bin/bash", "-ec")
    assert healthcheck.config_of(asked).argv == ("/bin/sh", "-c", "x")


def test_a_start_interval_that_nobody_gave_is_no_longer_than_the_interval() -> None:
    assert config(None, {"Test": ["CMD", "x"], "Interval": 2 * S}).start_interval_s == 2
    assert config(None, {"Test": ["CMD", "x"]}).start_interval_s == 5


def test_startup_checks() -> None:
    asked = StartupRequest(("CMD", "up"), 2 * S, 3 * S, retries=4, successes=5)
    found = config(HealthRequest(startup=asked), IMAGE)
    assert found.startup == healthcheck.Startup(("up",), 2, 3, 4, 5)


@pytest.mark.parametrize("image", [None, {}, {"Test": []}, {"Test": ["NONE"]}, {"Interval": S}])
def test_no_checks(image: dict[str, object] | None) -> None:
    assert health_values.resolve(None, image, None) is None
    assert health_values.resolve(HealthRequest(interval_ns=S), image, None) is None
    assert health_values.resolve(HealthRequest(test=health_values.NONE), IMAGE, None) is None


def test_an_action_without_a_check_is_refused() -> None:
    with pytest.raises(UsageError, match="--health-on-failure kill needs a health check"):
        health_values.resolve(HealthRequest(on_failure="kill"), None, None)
    startup = HealthRequest(startup=StartupRequest(("CMD", "x")))
    with pytest.raises(UsageError, match="--health-startup-cmd needs"):
        health_values.resolve(startup, None, None)


def test_a_command_without_a_keyword_is_executed() -> None:
    assert config(None, {"Test": ["curl", "x"]}).argv == ("curl", "x")


@pytest.mark.parametrize(
    "image",
    [
        {"Test": "true"},
        {"Test": ["CMD", 1]},
        {"Test": ["CMD", "a\0"]},
        {"Test": ["CMD"]},
        {"Test": ["CMD", "x"], "Interval": "30s"},
        {"Test": ["CMD", "x"], "Interval": True},
        {"Test": ["CMD", "x"], "Timeout": -1},
        {"Test": ["CMD", "x"], "Retries": 1.5},
        {"Test": ["CMD", "x"], "StartPeriod": 2**63},
    ],
)
def test_an_invalid_check_of_the_image_is_named(image: dict[str, object]) -> None:
    with pytest.raises(ImageError, match="the image's HEALTHCHECK is invalid"):
        health_values.resolve(None, image, None)
