import os
import socket
import struct

import pytest

from mirrord_syscalls.sock_diag import Protocol, SocketRow
from mirrord_syscalls.sockaddr import Inet4, Inet6
from mirrord_trace.sockets_here import SocketsHere, TreeListeners, takes
from tests.mirrord_trace.support import inet, inode_of


@pytest.mark.parametrize(
    ("bound", "only", "destination", "taken"),
    [
        ("0.0.0.0", False, "127.0.0.1", True),
        ("0.0.0.0", False, "127.9.9.9", True),
        ("0.0.0.0", False, "0.0.0.0", True),
        ("0.0.0.0", False, "::1", False),
        ("0.0.0.0", False, "::ffff:127.0.0.1", True),
        ("127.0.0.1", False, "127.0.0.1", True),
        ("127.0.0.1", False, "127.0.0.2", False),
        ("127.0.0.1", False, "0.0.0.0", True),
        ("127.0.0.2", False, "0.0.0.0", False),
        ("127.0.0.1", False, "::", False),
        ("::", False, "127.0.0.1", True),
        ("::", False, "0.0.0.0", True),
        ("::", True, "127.0.0.1", False),
        ("::", True, "::1", True),
        ("::", True, "::", True),
        ("::1", True, "::1", True),
        ("::1", True, "::", True),
        ("::1", True, "127.0.0.1", False),
        ("::ffff:127.0.0.1", False, "127.0.0.1", True),
        ("10.0.0.1", False, "127.0.0.1", False),
        ("10.0.0.1", False, "0.0.0.0", False),
    ],
)
def test_who_takes_what(bound: str, only: bool, destination: str, taken: bool) -> None:
    row = SocketRow(10, inet(bound, 80), inet("0.0.0.0", 0), 1, only)
    assert takes(row, inet(destination, 80)) is taken


def address_of(bound: socket.socket) -> Inet4 | Inet6:
    return inet(*bound.getsockname()[:2])


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize(("protocol", "kind"), [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)])
def test_a_listener_serves_while_the_tree_has_it(family: int, protocol: Protocol, kind: int) -> None:
    processes: list[int] = []
    tree = TreeListeners(lambda: processes)
    with socket.socket(family, kind) as listening:
        listening.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        address = address_of(listening)
        if protocol == "tcp":
            assert not tree.serves(protocol, address)
            listening.listen()
        assert not tree.serves(protocol, address)
        processes.append(os.getpid())
        assert tree.serves(protocol, address)
        assert not tree.serves("udp" if protocol == "tcp" else "tcp", address)
    assert not tree.serves(protocol, address)
    tree._here.close()


def test_a_datagram_socket_that_is_connected_still_takes_what_comes_from_its_peer() -> None:
    tree = TreeListeners(lambda: [os.getpid()])
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        one.connect(other.getsockname())
        assert tree.serves("udp", address_of(one))
    tree._here.close()


def test_which_sockets_the_tree_has_open() -> None:
    processes = [os.getpid()]
    tree = TreeListeners(lambda: processes)
    with socket.socket() as one, socket.socket() as other:
        gone = inode_of(other)
        other.close()
        assert tree.open_in_tree([inode_of(one), gone]) == {inode_of(one)}
        processes.clear()
        assert tree.open_in_tree([inode_of(one)]) == set()
    tree._here.close()


def test_what_the_kernel_says_of_a_socket() -> None:
    here = SocketsHere()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert here.inode("tcp", address_of(client), address_of(server)) == inode_of(client)
        assert inode_of(client) in here.connecting()
        assert inode_of(server) not in here.connecting()
        assert inode_of(server) in here.inodes("tcp", server.getsockname()[1])
        assert here.inode("tcp", inet("127.0.0.1", 1), inet("127.0.0.1", 1)) is None
        accepted, _ = server.accept()
        names = address_of(accepted), address_of(client)
        assert here.inode("tcp", *names) == inode_of(accepted)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        accepted.close()
        assert here.row("tcp", *names) is None, "the listener is not meant"
    with socket.socket(type=socket.SOCK_DGRAM) as bound:
        assert here.udp_port(inode_of(bound)) is None
        bound.bind(("127.0.0.1", 0))
        assert here.udp_port(inode_of(bound)) == bound.getsockname()[1]
    here.close()
