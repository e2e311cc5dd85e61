import pytest

from mirrord_agent.incoming.http.patterns import MAX_PATTERN, Pattern, TooSlowError


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("b+", "abbc"),
        (r"^(?!/health/)", "/api"),
        (r"(?<=x-)id$", "x-id"),
        (r"(?<name>.)\1", "xaay"),
        (r"^\p{Lu}\z", "Ä"),
        (r"^[a-z&&[^b]]$", "a"),
        (r"x(?i)Y", "xy"),
        ("", ""),
    ],
)
def test_patterns_are_as_mirrord_reads_them(pattern: str, text: str) -> None:
    assert Pattern(pattern).is_found_in_any([text])


@pytest.mark.parametrize(
    ("pattern", "text"), [(r"^(?!/health/)", "/health/x"), ("[a-z&&[^b]]", "b"), ("A", "a"), ("x", "")]
)
def test_what_does_not_match_is_not_found(pattern: str, text: str) -> None:
    assert not Pattern(pattern).is_found_in_any([text])


def test_one_of_several_texts_is_enough() -> None:
    assert Pattern("b").is_found_in_any(["a", "abc", "d"])
    assert not Pattern("b").is_found_in_any([])


def test_case_can_be_left_aside() -> None:
    assert Pattern("GeT", case_matters=False).is_whole("gEt")


def test_a_whole_text_is_more_than_a_part() -> None:
    assert Pattern("a|ab").is_whole("ab")
    assert not Pattern("a").is_whole("ab")


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "[z-a]", "*", "(?P<x", "\\"])
def test_what_is_no_pattern_is_refused_with_a_reason(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"is not a regular expression: .+"):
        Pattern(pattern)


def test_a_pattern_that_is_too_long_is_refused() -> None:
    Pattern("a" * MAX_PATTERN)
    with pytest.raises(ValueError, match="shorten"):
        Pattern("a" * (MAX_PATTERN + 1))


SLOW = r"((a+)(a+))+\2\3c"


def test_a_pattern_that_backtracks_without_end_is_given_up() -> None:
    pattern = Pattern(SLOW)
    with pytest.raises(TooSlowError, match="took longer"):
        pattern.is_found_in_any(["a" * 5000])
    with pytest.raises(TooSlowError, match="took longer"):
        pattern.is_whole("a" * 5000)


def test_many_searches_that_are_slow_together_are_given_up() -> None:
    with pytest.raises(TooSlowError, match="took longer"):
        Pattern(SLOW).is_found_in_any("a" * 14 for _ in range(1_000_000))


def test_patterns_are_values() -> None:
    assert Pattern("a") == Pattern("a")
    assert Pattern("a") != Pattern("a", case_matters=False)
    assert len({Pattern("a"), Pattern("a")}) == 1
