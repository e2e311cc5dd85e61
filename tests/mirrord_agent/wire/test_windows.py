import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.wire import ProtocolError, ReceiveWindow, SendWindow, WindowPool
from mirrord_agent.wire.windows import INITIAL_WINDOW, MAX_WINDOW


@given(st.lists(st.tuples(st.integers(1, 300_000), st.booleans()), max_size=80))
def test_both_sides_agree_and_memory_stays_within_the_window(steps: list[tuple[int, bool]]) -> None:
    pool = WindowPool()
    sender, receiver = SendWindow(), ReceiveWindow(pool)
    held = 0
    for wanted, reads in steps:
        sent = sender.take(wanted)
        receiver.received(sent)
        held += sent
        assert held <= MAX_WINDOW
        assert receiver.exhausted == (sender.available == 0)
        if reads and held:
            credit = receiver.consumed(held, drained=True)
            held = 0
            if credit:
                sender.add(credit)
    receiver.close()
    assert pool.take(64 << 20)


def test_a_sender_never_starves_while_its_reader_reads() -> None:
    sender, receiver = SendWindow(1000), ReceiveWindow(None, 1000)
    for _ in range(100):
        sent = sender.take(700)
        assert sent
        receiver.received(sent)
        if credit := receiver.consumed(sent):
            sender.add(credit)


def test_credit_is_given_by_half_windows() -> None:
    window = ReceiveWindow(None, 1000)
    window.received(1000)
    assert window.consumed(499) == 0
    assert window.consumed(1) == 500


def test_more_than_was_granted_is_refused() -> None:
    window = ReceiveWindow(None, 1000)
    window.received(1000)
    assert window.exhausted
    with pytest.raises(ProtocolError, match="credit of 0"):
        window.received(1)


def test_credit_beyond_every_window_is_refused() -> None:
    window = SendWindow()
    with pytest.raises(ProtocolError, match="limit"):
        window.add(MAX_WINDOW)


def test_a_window_grows_while_its_reader_keeps_up_and_no_further_than_the_maximum() -> None:
    window = ReceiveWindow(WindowPool())
    granted = INITIAL_WINDOW
    for _ in range(1000):
        window.received(granted)
        assert granted <= MAX_WINDOW
        granted = window.consumed(granted, drained=True)
    assert granted == MAX_WINDOW


def test_a_window_does_not_grow_for_a_reader_that_lags() -> None:
    window = ReceiveWindow(WindowPool())
    window.received(INITIAL_WINDOW)
    assert window.consumed(INITIAL_WINDOW) == INITIAL_WINDOW


def test_a_window_does_not_grow_when_the_session_has_no_room_left_and_returns_what_it_took() -> None:
    pool = WindowPool(INITIAL_WINDOW)
    first, second = ReceiveWindow(pool), ReceiveWindow(pool)
    first.received(INITIAL_WINDOW)
    assert first.consumed(INITIAL_WINDOW, drained=True) == 2 * INITIAL_WINDOW
    second.received(INITIAL_WINDOW)
    assert second.consumed(INITIAL_WINDOW, drained=True) == INITIAL_WINDOW
    first.close()
    first.close()
    second.received(INITIAL_WINDOW)
    assert second.consumed(INITIAL_WINDOW, drained=True) == 2 * INITIAL_WINDOW
