import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import NATIVE, Figure, Summary, find

samples = st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=30)


def test_a_summary_has_the_median_the_quartiles_and_the_extremes() -> None:
    assert Summary.of([5, 1, 4, 2, 3]) == Summary(3, 2, 4, 1, 5)
    assert Summary.of([1, 2, 3, 10]) == Summary(2.5, 1.75, 4.75, 1, 10)


def test_a_single_sample_is_all_of_them() -> None:
    assert Summary.of([7]) == Summary(7, 7, 7, 7, 7)


def test_no_samples_have_no_summary() -> None:
    with pytest.raises(ValueError, match="no samples"):
        Summary.of([])
    assert Figure("calls", "openat", "ns", {"ptrace": []}).summary("ptrace") is None


@given(samples)
def test_a_summary_is_in_order(values: list[float]) -> None:
    summary = Summary.of(values)
    assert summary.minimum == min(values)
    assert summary.maximum == max(values)
    slack = 1e-6 * max(map(abs, values))  # quartiles are interpolated in floating point
    assert summary.minimum - slack <= summary.lower <= summary.median + slack
    assert summary.median - slack <= summary.upper <= summary.maximum + slack


FIGURE = Figure(
    "calls",
    "openat",
    "ns",
    {NATIVE: [100, 200, 400], "notify": [1000, 1000, 6000], "strace": [5000]},
    {"threads": 2},
    {"PRoot": "not installed"},
)


def test_ratios_are_taken_round_by_round() -> None:
    # Not 1000 / 200: the second round was a slow one for both.
    assert FIGURE.ratio("notify") == Summary.of([10, 5, 15])
    assert FIGURE.ratio("notify", "strace") == Summary.of([0.2])


def test_differences_are_taken_round_by_round() -> None:
    assert FIGURE.difference("notify") == Summary.of([900, 800, 5600])


def test_there_is_no_ratio_to_what_was_not_measured() -> None:
    assert FIGURE.ratio("PRoot") is None
    assert FIGURE.ratio("notify", "PRoot") is None
    assert FIGURE.difference("PRoot") is None
    assert Figure("calls", "openat", "ns", {NATIVE: [0], "notify": [1]}).ratio("notify") is None


def test_a_figure_is_found_by_some_of_its_parameters() -> None:
    other = Figure("calls", "openat", "ns", {}, {"threads": 4})
    assert find([FIGURE, other], "calls", "openat", threads=4) is other
    assert find([FIGURE, other], "calls", "openat") is FIGURE
    assert find([FIGURE, other], "calls", "openat", threads=8) is None
    assert find([FIGURE, other], "startup", "openat") is None
