"""Values of unit settings; the tables are what systemd 257 made of the same text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.systemd import values

PARSERS = [
    values.integer,
    values.boolean,
    values.size,
    values.span_us,
    values.permyriad,
    values.cpus,
    values.words,
    values.signal_number,
    values.address_prefixes,
]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("512M", 512 << 20),
        ("1.5G", 3 << 29),
        ("1G 500M", (1 << 30) + (500 << 20)),
        ("1G500M", (1 << 30) + (500 << 20)),
        ("1 K 1", 1025),
        ("12K34B", 12 * 1024 + 34),
        ("0.1M", 104857),
        ("15E", 15 << 60),
    ],
)
def test_size(text: str, number: int) -> None:
    assert values.size(text) == number


def test_rates_count_in_thousands() -> None:
    assert values.size("1.5M", base=1000) == 1_500_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "M",
        "-1",
        "+1",
        "1k",
        "1KB",
        "1M 1G",
        "1K 1K",
        "1.2.3",
        "16E",
        "1e3",
        "0x10",
        "\u0661",
    ],
)
def test_size_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        values.size(text)


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("90", 90_000_000),
        ("1.5h", 5_400_000_000),
        (".5h", 1_800_000_000),
        ("5min 20s", 320_000_000),
        ("5min20s", 320_000_000),
        ("3M 2w", (3 * 2_629_800 + 14 * 86400) * 1_000_000),
        ("20ms 3us", 20_003),
        ("7 µs", 7),
        ("1y", 31_557_600_000_000),
        ("infinity", values.INFINITY),
    ],
)
def test_time_span(text: str, microseconds: int) -> None:
    assert values.span_us(text) == microseconds


@pytest.mark.parametrize("text", ["", "s", "5 parsecs", "-1", "5min infinity", "9999999y", "1 ²"])
def test_time_span_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        values.span_us(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [("0%", 0), ("50%", 5000), ("12.5%", 1250), ("12.34%", 1234), ("5‰", 50), ("7‱", 7)],
)
def test_percentages(text: str, number: int) -> None:
    assert values.permyriad(text) == number


@pytest.mark.parametrize("text", ["", "%", "50", "1.%", ".5%", "1.234%", "101%", "-1%", "1.55‰"])
def test_percentages_refuse(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        values.permyriad(text)


def test_unbounded_percentages_may_pass_one_hundred() -> None:
    assert values.permyriad("250%", bounded=False) == 25_000


@pytest.mark.parametrize(
    ("text", "indexes"),
    [("0-3,6", {0, 1, 2, 3, 6}), ("1 0", {0, 1}), ("", set()), ("2-2", {2}), (" 1,, 2 ", {1, 2})],
)
def test_cpus(text: str, indexes: set[int]) -> None:
    assert values.cpus(text) == indexes


@pytest.mark.parametrize("text", ["a", "-1", "1-", "3-1", "8192", "1-2-3", "0x1", "\u0661"])
def test_cpus_refuse(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        values.cpus(text)


@given(st.frozensets(st.integers(0, 200)))
def test_mask_has_a_bit_per_cpu(indexes: frozenset[int]) -> None:
    number = int.from_bytes(values.mask(indexes), "little")
    assert {bit for bit in range(256) if number >> bit & 1} == indexes
    assert values.cpus(",".join(str(index) for index in indexes)) == indexes


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a b", ["a", "b"]),
        ("  a  'b c' ", ["a", "b c"]),
        ('a"b c"d', ["ab cd"]),
        (r"a\ b", ["a b"]),
        ("''", [""]),
        ("", []),
    ],
)
def test_words(text: str, found: list[str]) -> None:
    assert values.words(text) == found


@pytest.mark.parametrize("text", ["'a", '"', "a\\"])
def test_words_refuse(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        values.words(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [("TERM", 15), ("SIGTERM", 15), ("9", 9), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)],
)
def test_signals(text: str, number: int) -> None:
    assert values.signal_number(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "term", "SIGSIGTERM", "RTMIN-1", "RTMIN+99", "IG"])
def test_signals_refuse(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        values.signal_number(text)


@given(st.sampled_from(PARSERS), st.text(max_size=30))
def test_parsers_raise_nothing_but_value_error(parser: object, text: str) -> None:
    try:
        parser(text)  # type: ignore[operator]  # each takes one text
    except ValueError:
        return


@given(st.integers(0, 2**62))
def test_sizes_come_back(number: int) -> None:
    assert values.size(str(number)) == number
    assert values.size(f"{number // 1024}K {number % 1024}") == number


@given(st.integers(0, 10_000))
def test_scale_is_the_fraction_of_32_bits(ten_thousandths: int) -> None:
    scaled = values.scale(ten_thousandths)
    assert 0 <= scaled <= 2**32 - 1
    assert abs(scaled / (2**32 - 1) - ten_thousandths / 10_000) < 1e-9
