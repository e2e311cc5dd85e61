import pytest

from benchmarks import units


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (76.64, "ns", "76.6 ns"),
        (0.4, "ns", "0.4 ns"),
        (3170, "ns", "3.17 µs"),
        (1_930_000, "ns", "1.93 ms"),
        (0.3804, "s", "380 ms"),
        (0.000_806, "s", "806 µs"),
        (2.5, "s", "2.5 s"),
        (1_070_514_362, "B/s", "1.07 GB/s"),
        (999, "B/s", "999 B/s"),
        (14_700, "1/s", "14.7 k/s"),
        (31, "1/s", "31 /s"),
        (7, "1", "7"),
        (140_000_000, "B", "140 MB"),
        (0, "ns", "0"),
        (-50.6, "ns", "-50.6 ns"),
        (-0.0506, "s", "-50.6 ms"),
    ],
)
def test_a_value_is_shown_with_three_digits_and_a_fitting_prefix(value: float, unit: str, text: str) -> None:
    assert units.shown(value, unit) == text


def test_a_spread_says_the_unit_once() -> None:
    assert units.with_spread(1300, 950, 1400, "ns") == "1.3 µs (0.95 to 1.4)"
    assert units.with_spread(7, 7, 8, "1") == "7 (7 to 8)"


@pytest.mark.parametrize(
    ("count", "text"), [(1, "1 B"), (1024, "1 KiB"), (1200, "1200 B"), (65536, "64 KiB"), (1 << 20, "1 MiB")]
)
def test_sizes_have_binary_prefixes_where_they_fit(count: int, text: str) -> None:
    assert units.size(count) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (0.012345, "0.0123"), (1.005, "1"), (12.34, "12.3"), (99.96, "100"), (1234, "1234"), (-1.5, "-1.5")],
)
def test_significant_digits(number: float, text: str) -> None:
    assert units.significant(number) == text
