from __future__ import annotations

import os
import socket

import pytest

from mirrord_agent.incoming.reserved import ReservedDescriptor


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_what_is_not_taken_is_closed() -> None:
    reserved = ReservedDescriptor()
    assert is_open(reserved.number)
    reserved.close()
    assert not is_open(reserved.number)


def test_what_is_taken_is_whose_it_is() -> None:
    reserved = ReservedDescriptor()
    number = reserved.take()
    reserved.close()
    assert is_open(number)
    os.close(number)


@pytest.mark.parametrize("used", [False, True])
def test_what_is_given_back_is_there_once(used: bool) -> None:
    reserved = ReservedDescriptor()
    number = reserved.take()
    other = None
    if used:
        os.close(number)
        other = os.open(os.devnull, os.O_RDONLY)
    reserved.give_back()
    assert (reserved.number == number) != used
    reserved.close()
    assert not is_open(reserved.number)
    if other is not None:
        os.close(other)


def test_connections_are_above() -> None:
    low = socket.socket()
    reserved = ReservedDescriptor()
    high = socket.socket()
    assert reserved.below(high) is high
    number = low.fileno()
    moved = reserved.below(low)
    assert moved.fileno() > reserved.number
    assert not is_open(number)
    moved.close()
    high.close()
    reserved.close()
