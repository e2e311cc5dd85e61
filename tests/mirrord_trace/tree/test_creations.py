"""What a call asked for is told when the file is made, to whoever it was, and once."""

from __future__ import annotations

import pytest

from mirrord_trace.tree.creations import Creations, Maker, NewMode


@pytest.mark.parametrize(
    ("maker", "told", "mask", "expected"),
    [
        # The task makes its own call: the kernel has taken its mask away.
        (Maker(7), 0o640, 0o027, NewMode(0o667, 0o027)),
        # Another thread makes it, with the task's mask, or with our own.
        (Maker(7, 0o027), 0o640, 0o027, NewMode(0o667, 0o027)),
        (Maker(7, 0o027), 0o600, 0o077, NewMode(0o667, 0o027)),
        (Maker(7, 0o027), 0o640, 0, NewMode(0o667, 0o027)),
        # Nobody has said what is asked for.
        (Maker(8), 0o640, 0o027, NewMode(0o640, 0o027)),
        (Maker(8, 0o022), 0o640, 0o027, NewMode(0o640, 0o022)),
    ],
)
def test_what_was_asked_for(maker: Maker, told: int, mask: int, expected: NewMode) -> None:
    creations = Creations(lambda thread: maker)
    creations.expect(7, 0o100667)
    assert creations.mode_of(1, told, mask) == expected


def test_a_call_of_before_takes_nothing_away() -> None:
    creations = Creations()
    creations.expect(7, 0o777)
    new = creations.mode_of(7, 0o600, 0o022)
    assert new.mode & ~new.mask == 0o600
    assert creations.mode_of(7, 0o600, 0o022).mode == 0o600


def test_calls_that_never_came_are_forgotten() -> None:
    creations = Creations()
    for task in range(10_000):
        creations.expect(task, 0o777)
        creations.name_of_unnamed(may_get_a_name=True)
    assert creations.mode_of(1, 0o600, 0o022) == NewMode(0o600, 0o022)
    assert creations.mode_of(9_999, 0o600, 0o022) == NewMode(0o622, 0o022)
    assert len(creations._modes) <= 4096
    assert len(creations._unnamed) <= 4096


def test_a_name_for_none_is_taken_once() -> None:
    creations = Creations()
    one, other = (creations.name_of_unnamed(may_get_a_name=may) for may in (True, False))
    assert one != other
    assert creations.take_unnamed(b"#1") is None
    assert [creations.take_unnamed(name) for name in (one, one, other, other)] == [True, None, False, None]
