import pytest

from mirrord_syscalls.subscription import WORD, AnyBit, ArgumentTest, Equals, NonZero, Rule, Subscription

HIGH = 1 << 63


@pytest.mark.parametrize(
    ("test", "argument", "expected"),
    [
        (NonZero(2), 0, False),
        (NonZero(2), 1, True),
        (NonZero(2), HIGH, True),
        (Equals(2, 0), 0, True),
        (Equals(2, 0), 1 << 32, False),
        (Equals(2, 7), 7, True),
        (Equals(2, 7, mask=0xFFFF_FFFF), 7 | HIGH, True),
        (Equals(2, 7), 7 | HIGH, False),
        (Equals(2, 0b10, mask=0b110), 0b1011, True),
        (Equals(2, 0b10, mask=0b110), 0b110, False),
        (AnyBit(2, 0b110), 0b1001, False),
        (AnyBit(2, 0b110), 0b0100, True),
        (AnyBit(2, HIGH), HIGH, True),
        (AnyBit(2, HIGH), ~HIGH & WORD, False),
    ],
)
def test_a_test_looks_at_one_argument(test: ArgumentTest, argument: int, expected: bool) -> None:
    assert test.holds((WORD, WORD, argument, 0, 0, 0)) == expected


def test_a_rule_holds_when_all_its_tests_do() -> None:
    rule = Rule("sendto", (NonZero(4), Equals(0, 3)))
    assert rule.holds((3, 0, 0, 0, 1, 0))
    assert not rule.holds((3, 0, 0, 0, 0, 0))
    assert not rule.holds((2, 0, 0, 0, 1, 0))


def test_rules_for_one_call_are_alternatives() -> None:
    subscription = Subscription.of(["bind", Rule("socket", (Equals(0, 2),)), Rule("socket", (Equals(0, 10),))])
    assert subscription.matches("socket", (2, 0, 0, 0, 0, 0))
    assert subscription.matches("socket", (10, 0, 0, 0, 0, 0))
    assert not subscription.matches("socket", (1, 0, 0, 0, 0, 0))
    assert subscription.matches("bind", (0, 0, 0, 0, 0, 0))
    assert not subscription.matches("listen", (2, 0, 0, 0, 0, 0))


def test_a_union_intercepts_what_either_does() -> None:
    sockets, files = Subscription.of(["connect"]), Subscription.of([Rule("openat", (NonZero(1),))])
    both = sockets | files
    assert both == files.union(sockets) == Subscription.of(["connect", Rule("openat", (NonZero(1),))])
    assert both.matches("connect", (0,) * 6)
    assert both.matches("openat", (0, 1, 0, 0, 0, 0))
    assert not both.matches("openat", (0,) * 6)


def test_nothing_is_intercepted_by_an_empty_subscription() -> None:
    assert not Subscription().matches("connect", (1,) * 6)


@pytest.mark.parametrize("index", [-1, 6])
def test_an_argument_that_no_call_has_is_refused(index: int) -> None:
    for make in (NonZero, lambda index: Equals(index, 0), lambda index: AnyBit(index, 1)):
        with pytest.raises(ValueError, match="arguments 0 to 5"):
            make(index)


@pytest.mark.parametrize("mask", [0, -1, WORD + 1])
def test_a_mask_is_64_bits_of_which_one_is_set(mask: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        AnyBit(0, mask)
    with pytest.raises(ValueError, match="64 bits"):
        Equals(0, 0, mask)


def test_a_value_outside_its_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="never hold"):
        Equals(0, 0b100, mask=0b011)
    with pytest.raises(ValueError, match="never hold"):
        Equals(0, -1)
