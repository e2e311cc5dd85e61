"""How listeners are reached: addresses in, addresses out."""

import pytest

from mirrord_syscalls.sockaddr import Inet4, Inet6
from mirrord_trace.relay.incoming.ways import Listening, ways
from tests.mirrord_trace.support import inet


def listening(host: str, *, only: bool = False, inode: int = 1) -> Listening:
    return Listening(inode, inet(host, 8081), inet(host, 8080), only)


def local_like(client: str) -> Inet4 | Inet6:
    """An address of the target that such a client may have meant."""
    return inet("fd00::10" if ":" in client else "198.18.0.10", 80)


@pytest.mark.parametrize(
    ("host", "only", "client", "to"),
    [
        ("0.0.0.0", False, "198.18.0.7", ["127.0.0.1"]),
        ("0.0.0.0", False, "fd00::7", []),
        ("127.0.0.1", False, "198.18.0.7", ["127.0.0.1"]),
        ("127.0.0.1", False, "fd00::7", []),
        ("10.1.2.3", False, "198.18.0.7", ["10.1.2.3"]),
        ("::", False, "198.18.0.7", ["127.0.0.1"]),
        ("::", False, "fd00::7", ["::1", "127.0.0.1"]),
        ("::", True, "198.18.0.7", []),
        ("::", True, "fd00::7", ["::1"]),
        ("::1", False, "198.18.0.7", ["::1"]),
        ("::1", False, "fd00::7", ["::1"]),
        ("::ffff:0.0.0.0", False, "198.18.0.7", ["127.0.0.1"]),
        ("::ffff:0.0.0.0", False, "fd00::7", []),
        ("::ffff:127.0.0.1", False, "198.18.0.7", ["127.0.0.1"]),
    ],
)
def test_ways_to_one_listener(host: str, only: bool, client: str, to: list[str]) -> None:
    found = ways([listening(host, only=only)], inet(client, 40000), local_like(client))
    assert [way.to for way in found] == [inet(each, 8081) for each in to]
    family = "inet6" if ":" in client else "inet4"
    assert (family in listening(host, only=only).families) == bool(to)


@pytest.mark.parametrize(
    ("asked", "here", "client", "local", "to"),
    [
        ("198.18.0.10", "0.0.0.0", "198.18.0.7", "198.18.0.10", ["127.0.0.1"]),
        ("198.18.0.10", "0.0.0.0", "198.18.0.7", "198.18.0.11", []),
        ("198.18.0.10", "0.0.0.0", "127.0.0.1", "127.0.0.1", []),
        ("fd00::10", "::", "fd00::7", "fd00::10", ["::1", "127.0.0.1"]),
        ("fd00::10", "::", "fd00::7", "fd00::11", []),
        ("fd00::10", "::", "198.18.0.7", "198.18.0.10", []),
        ("::ffff:198.18.0.10", "::ffff:0.0.0.0", "198.18.0.7", "198.18.0.10", ["127.0.0.1"]),
        ("::ffff:198.18.0.10", "::ffff:0.0.0.0", "fd00::7", "fd00::10", []),
        ("10.1.2.3", "10.1.2.3", "198.18.0.7", "198.18.0.10", ["10.1.2.3"]),
    ],
)
def test_who_asked_for_an_address_of_the_target_hears_that_one(
    asked: str, here: str, client: str, local: str, to: list[str]
) -> None:
    found = ways([Listening(1, inet(here, 8081), inet(asked, 8080))], inet(client, 40000), inet(local, 80))
    assert [way.to for way in found] == [inet(each, 8081) for each in to]


def test_what_is_only_for_want_of_better_comes_last() -> None:
    both = [listening("::", inode=1), listening("::", only=True, inode=2)]
    found = ways(both, inet("fd00::7", 40000), local_like("fd00::7"))
    assert [(way.listening.inode, str(way.to.host)) for way in found] == [(1, "::1"), (2, "::1"), (1, "127.0.0.1")]


def test_each_family_has_its_listener() -> None:
    both = [listening("0.0.0.0", inode=4), listening("::", only=True, inode=6)]
    assert [way.listening.inode for way in ways(both, inet("198.18.0.7", 1), local_like("198.18.0.7"))] == [4]
    assert [way.listening.inode for way in ways(both, inet("fd00::7", 1), local_like("fd00::7"))] == [6]
