"""How listeners are reached: addresses in, addresses out."""

import pytest

from mirrord_trace.relay.incoming.ways import Listening, ways
from tests.mirrord_trace.support import inet


def listening(host: str, *, only: bool = False, inode: int = 1) -> Listening:
    return Listening(inode, inet(host, 8081), inet(host, 8080), only)


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
        ("::ffff:0.0.0.0", False, "fd00::7", ["127.0.0.1"]),
        ("::ffff:127.0.0.1", False, "198.18.0.7", ["127.0.0.1"]),
    ],
)
def test_ways_to_one_listener(host: str, only: bool, client: str, to: list[str]) -> None:
    found = ways([listening(host, only=only)], inet(client, 40000))
    assert [way.to for way in found] == [inet(each, 8081) for each in to]


def test_what_is_only_for_want_of_better_comes_last() -> None:
    both = [listening("::", inode=1), listening("::", only=True, inode=2)]
    found = ways(both, inet("fd00::7", 40000))
    assert [(way.listening.inode, str(way.to.host)) for way in found] == [(1, "::1"), (2, "::1"), (1, "127.0.0.1")]


def test_each_family_has_its_listener() -> None:
    both = [listening("0.0.0.0", inode=4), listening("::", only=True, inode=6)]
    assert [way.listening.inode for way in ways(both, inet("198.18.0.7", 1))] == [4]
    assert [way.listening.inode for way in ways(both, inet("fd00::7", 1))] == [6]
