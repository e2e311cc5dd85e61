"""By which version of IP something comes: a subscription is for one of them or, as None says, for both."""

from __future__ import annotations

from typing import get_args

from mirrord_agent.wire.frames import AddressFamily

Port = tuple[AddressFamily, int]
"""What comes to a port by a version of IP."""


def each(family: AddressFamily | None) -> tuple[AddressFamily, ...]:
    """Those that are meant."""
    return get_args(AddressFamily) if family is None else (family,)


def ports(*numbers: int, family: AddressFamily | None = None) -> frozenset[Port]:
    """These ports by a version of IP, or by both."""
    return frozenset((version, number) for version in each(family) for number in numbers)


def overlap(first: AddressFamily | None, second: AddressFamily | None) -> bool:
    """Whether something may come by both."""
    return first is None or second is None or first == second


def family_of(packed: bytes) -> AddressFamily:
    """That of an address in 4 or 16 bytes."""
    return "inet4" if len(packed) == 4 else "inet6"
