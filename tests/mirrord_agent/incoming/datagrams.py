"""UDP sockets of tests: servers that answer from the address at which they were asked, and clients who want that."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Any

from tests.mirrord_agent.incoming.networks import Network
from tests.mirrord_agent.incoming.sessions import PORT, port_of

_IP_PKTINFO = 8
_in_pktinfo = struct.Struct("=I4s4s")
_in6_pktinfo = struct.Struct("=16sI")


class Server:
    """A UDP socket at the unspecified address, which answers from the address that it was asked at."""

    def __init__(self, network: Network, version: int, port: int = 0) -> None:
        self.socket = network.open_socket(version, socket.SOCK_DGRAM)
        self._is_ipv6 = version == 6
        if self._is_ipv6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            self.socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self.socket.bind(("", port))
        self.port = port_of(self.socket)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def receive(self) -> tuple[bytes, str, object]:
        """What was sent, to which address, from where."""
        data, [(_, _, info)], _, sender = self.socket.recvmsg(65536, 256)
        packed = _in6_pktinfo.unpack(info)[0] if self._is_ipv6 else _in_pktinfo.unpack(info)[2]
        return data, str(ipaddress.ip_address(packed)), sender

    def send(self, data: bytes, own: str, client: Any) -> None:
        packed = ipaddress.ip_address(own).packed
        if self._is_ipv6:
            info = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _in6_pktinfo.pack(packed, 0))
        else:
            info = (socket.IPPROTO_IP, _IP_PKTINFO, _in_pktinfo.pack(0, packed, packed))
        self.socket.sendmsg([data], [info], 0, client)


def asks(
    client: socket.socket, server: Server, host: str, question: bytes = b"question", answer: bytes = b"answer"
) -> None:
    """A client that is connected is served by this server and no other."""
    client.send(question)
    data, own, sender = server.receive()
    assert (data, own, sender) == (question, host, client.getsockname())
    server.send(answer, own, sender)
    assert client.recv(65536) == answer


def connected(network: Network, host: str, port: int = PORT, mark: int = 0) -> socket.socket:
    """A client's socket, which takes answers from this address only."""
    client = network.open_socket(ipaddress.ip_address(host).version, socket.SOCK_DGRAM, mark)
    client.connect((host, port))
    return client
