import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.charts.scales import Scale


def test_a_linear_scale_starts_at_zero_and_ends_on_a_tick() -> None:
    scale = Scale.of([3, 11], is_logarithmic=False)
    assert list(scale.ticks) == [0, 2.5, 5, 7.5, 10, 12.5]
    assert (scale.place(0), scale.place(12.5), scale.place(6.25)) == (0, 1, 0.5)


def test_a_linear_scale_of_nothing_still_is_one() -> None:
    assert Scale.of([0, 0], is_logarithmic=False).place(0) == 0


def test_a_logarithmic_scale_has_whole_decades() -> None:
    scale = Scale.of([30, 4000], is_logarithmic=True)
    assert list(scale.ticks) == [10, 100, 1000, 10000]
    assert scale.place(10) == 0
    assert scale.place(100) == pytest.approx(1 / 3)


def test_a_bar_at_a_decade_is_not_flat() -> None:
    assert Scale.of([100, 5000], is_logarithmic=True).place(100) > 0


def test_what_is_beyond_the_ends_is_put_there() -> None:
    for is_logarithmic in (False, True):
        scale = Scale.of([10, 20], is_logarithmic=is_logarithmic)
        assert scale.place(-5) == 0
        assert scale.place(1e9) == 1


def test_a_logarithmic_scale_needs_something_above_zero() -> None:
    with pytest.raises(ValueError, match="above zero"):
        Scale.of([0, -1], is_logarithmic=True)


@given(st.lists(st.floats(1e-6, 1e15), min_size=1, max_size=20), st.booleans())
def test_all_values_have_room_in_their_order(values: list[float], is_logarithmic: bool) -> None:
    scale = Scale.of(values, is_logarithmic=is_logarithmic)
    assert scale.low <= min(values) * (1 + 1e-9)
    assert scale.high >= max(values) * (1 - 1e-9)
    places = [scale.place(value) for value in sorted(values)]
    assert places == sorted(places)
    assert list(scale.ticks) == sorted(set(scale.ticks))
    assert 2 <= len(scale.ticks) <= 25
