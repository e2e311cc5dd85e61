"""Whom accepted sockets show."""

import os
import socket

import pytest

from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, Unspecified, to_mapped
from mirrord_trace.relay.addresses import address_of_name
from mirrord_trace.relay.incoming.arrivals import Arrival, Arrivals, shown
from tests.mirrord_trace.support import inet

CLIENT = inet("198.18.0.7", 40000)
POD = inet("198.18.0.10", 80)


def test_an_arrival_is_known_by_its_names_and_then_by_its_socket() -> None:
    arrivals = Arrivals()
    arrival = Arrival(CLIENT, POD)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as connection:
        connection.setblocking(False)
        port = server.getsockname()[1]
        names = arrivals.connect(connection, inet("127.0.0.1", port), arrival)
        accepted, peer = server.accept()
        with accepted:
            address = address_of_name(peer)
            assert arrivals.named(address, port) == arrival
            assert isinstance(address, Inet4)
            assert arrivals.named(to_mapped(address), port) == arrival
            assert arrivals.named(address, port + 1) is None
            assert arrivals.named(Unspecified(), port) is None
            assert arrivals.are_named()
            inode = os.fstat(accepted.fileno()).st_ino
            assert arrivals.of_socket(inode) is None
            arrivals.accepted(inode, arrival)
            assert arrivals.forget(names) == arrival
            assert arrivals.forget(names) is None
            assert not arrivals.are_named()
            assert arrivals.named(address, port) is None
            assert arrivals.of_socket(inode) == arrival


def test_of_a_connection_that_cannot_be_made_nothing_is_known() -> None:
    arrivals = Arrivals()
    with socket.socket() as connection:
        connection.setblocking(False)
        with pytest.raises(OSError, match="unreachable"):
            arrivals.connect(connection, inet("224.0.0.1", 9), Arrival(CLIENT, POD))
    assert not arrivals.are_named()


def test_the_oldest_accepted_are_forgotten() -> None:
    arrivals = Arrivals()
    for inode in range(10_000):
        arrivals.accepted(inode, Arrival(CLIENT, POD))
    assert arrivals.of_socket(0) is None
    assert arrivals.of_socket(9_999) is not None


@pytest.mark.parametrize(
    ("address", "like", "seen"),
    [
        (CLIENT, inet("127.0.0.1", 5), CLIENT),
        (CLIENT, inet("::ffff:127.0.0.1", 5), inet("::ffff:198.18.0.7", 40000)),
        (CLIENT, inet("::1", 5), inet("::ffff:198.18.0.7", 40000)),
        (inet("fd00::7", 40000), inet("::1", 5), inet("fd00::7", 40000)),
        (inet("fd00::7", 40000), inet("127.0.0.1", 5), inet("127.0.0.1", 5)),
    ],
)
def test_an_address_is_shown_in_the_familys_way(
    address: Inet4 | Inet6, like: SocketAddress, seen: SocketAddress
) -> None:
    assert shown(address, like) == seen
