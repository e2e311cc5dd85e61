import io
from collections.abc import Callable, Iterator

from benchmarks.errors import MeasurementFailed
from benchmarks.progress import Progress
from benchmarks.rounds import alternate


def counting(log: list[str], name: str, outcomes: Iterator[float | None]) -> Callable[[], dict[str, float]]:
    """What measures: the next outcome, or a failure for None."""

    def measure() -> dict[str, float]:
        log.append(name)
        value = next(outcomes)
        if value is None:
            raise MeasurementFailed("no luck")
        return {"openat": value}

    return measure


def test_each_round_begins_with_another_way() -> None:
    log: list[str] = []
    ways = {name: counting(log, name, iter([1.0, 2.0, 3.0])) for name in "abc"}
    samples = alternate(ways, 3, Progress(io.StringIO()))
    assert "".join(log) == "abcbcacab"
    assert samples.of("openat") == {name: [1, 2, 3] for name in "abc"}
    assert samples.of("stat") == {}
    assert not samples.missing


def test_what_fails_once_is_tried_again_and_told() -> None:
    log: list[str] = []
    ways = {"a": counting(log, "a", iter([1.0, None, 2.0])), "b": counting(log, "b", iter([5.0, 6.0]))}
    samples = alternate(ways, 2, Progress(io.StringIO()))
    assert "".join(log) == "abbaa"
    assert samples.of("openat") == {"a": [1, 2], "b": [5, 6]}
    assert samples.failures == ["a: no luck"]
    assert not samples.missing


def test_what_fails_twice_is_given_up_and_the_others_go_on() -> None:
    log: list[str] = []
    ways = {"a": counting(log, "a", iter([1.0, None, None])), "b": counting(log, "b", iter([5.0, 6.0, 7.0]))}
    stream = io.StringIO()
    samples = alternate(ways, 3, Progress(stream))
    assert "".join(log) == "abbaab"
    assert samples.of("openat") == {"b": [5, 6, 7]}
    assert samples.missing == {"a": "no luck"}
    assert stream.getvalue().count("a: no luck") == 2
