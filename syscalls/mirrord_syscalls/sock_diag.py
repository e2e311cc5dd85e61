"""Questions to the kernel about its sockets, and its answers: sock_diag(7), as bytes for a NETLINK_SOCK_DIAG socket.

Sources: include/uapi/linux/{netlink,sock_diag,inet_diag}.h. A dump can be narrowed by states and by ports; a single
look-up needs the whole pair of addresses. In a look-up of UDP the kernel takes source and destination the other way
round than for TCP (net/ipv4/udp_diag.c says "for historical reasons").
"""

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal

import attrs

from mirrord_syscalls.sockaddr import Inet4, Inet6

Protocol = Literal["tcp", "udp"]

NETLINK_SOCK_DIAG: Final = 4
TCP_ESTABLISHED: Final = 1 << 1
TCP_SYN_SENT: Final = 1 << 2
TCP_LISTEN: Final = 1 << 10
ANY_STATE: Final = 0xFFFF_FFFF

TCP_DESTROYED_GROUPS: Final = 1 << 0 | 1 << 2
"""What to bind a netlink socket to for word of every TCP socket that ends (SKNLGRP_INET_TCP_DESTROY, for IPv6 too)."""
REMOTE_PORT_OFFSET: Final = 22
"""Where such a message has the port of the peer; 0 if there never was one, as of a listener."""

WAITING_STATES: Final = (1, 3, 8, 12)
"""Of a connection that nobody has accepted: ESTABLISHED, SYN_RECV, CLOSE_WAIT, NEW_SYN_RECV."""

_SOCK_DIAG_BY_FAMILY = 20
_INET_DIAG_SKV6ONLY = 11
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST = 0x1
_NLM_F_DUMP = 0x300
_NO_COOKIE = 0xFFFF_FFFF
_PROTOCOLS = {"tcp": 6, "udp": 17}
_AF_INET = 2
_AF_INET6 = 10

_nlmsghdr = struct.Struct("=IHHII")
_request = struct.Struct("=BBxxI")
_sockid = struct.Struct(">HH16s16s")
_sockid_tail = struct.Struct("=III")
_answer = struct.Struct("=BBxx")
_answer_tail = struct.Struct("=IIIII")
_SOCKID_BYTES = _sockid.size + _sockid_tail.size
_ANSWER_BYTES = _answer.size + _SOCKID_BYTES + _answer_tail.size
_error = struct.Struct("=i")
_nlattr = struct.Struct("=HH")


@attrs.frozen
class SocketRow:
    """One socket as the kernel describes it."""

    state: int
    """TCP_* as in net/tcp_states.h, for instance 10 for LISTEN."""
    local: Inet4 | Inet6
    remote: Inet4 | Inet6
    inode: int
    """The number that readlink(2) shows of /proc/PID/fd/N; 0 for one that no process has open."""
    is_ipv6_only: bool = False
    """Whether an AF_INET6 socket that is not connected has IPV6_V6ONLY set (ipv6(7))."""


@attrs.frozen
class EndOfAnswers:
    """The dump is complete, or the single look-up failed with `errno`."""

    errno: int


def dump_request(
    protocol: Protocol, family: int, states: int = ANY_STATE, local_port: int = 0, remote_port: int = 0
) -> bytes:
    """Asks for all sockets of a family (AF_INET, AF_INET6) in one of `states`; a port of 0 means any."""
    return _message(_NLM_F_DUMP, protocol, family, states, _pack_sockid(local_port, remote_port, b"", b""))


def lookup_request(protocol: Protocol, local: Inet4 | Inet6, remote: Inet4 | Inet6) -> bytes:
    """Asks for the socket that has this pair of addresses."""
    first, second = (local, remote) if protocol == "tcp" else (remote, local)
    family = _AF_INET if isinstance(local, Inet4) else _AF_INET6
    sockid = _pack_sockid(first.port, second.port, first.host.packed, second.host.packed)
    return _message(0, protocol, family, ANY_STATE, sockid)


def _pack_sockid(source_port: int, destination_port: int, source: bytes, destination: bytes) -> bytes:
    head = _sockid.pack(source_port, destination_port, source, destination)
    return head + _sockid_tail.pack(0, _NO_COOKIE, _NO_COOKIE)


def _message(flags: int, protocol: Protocol, family: int, states: int, sockid: bytes) -> bytes:
    body = _request.pack(family, _PROTOCOLS[protocol], states) + sockid
    length = _nlmsghdr.size + len(body)
    return _nlmsghdr.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | flags, 1, 0) + body


def decode_answers(raw: bytes) -> Iterator[SocketRow | EndOfAnswers]:
    """What one datagram from the kernel says. Raises ValueError for one that is cut short."""
    offset = 0
    while offset < len(raw):
        if len(raw) - offset < _nlmsghdr.size:
            raise ValueError(f"{len(raw) - offset} bytes are no netlink message")
        length, kind, *_ = _nlmsghdr.unpack_from(raw, offset)
        body = raw[offset + _nlmsghdr.size : offset + length]
        if length < _nlmsghdr.size or offset + length > len(raw):
            raise ValueError(f"a netlink message of {length} bytes is cut short")
        offset += (length + 3) & ~3
        if kind == _NLMSG_DONE:
            yield EndOfAnswers(0)
        elif kind == _NLMSG_ERROR:
            if len(body) < _error.size:
                raise ValueError(f"a struct nlmsgerr of {len(body)} bytes is cut short")
            yield EndOfAnswers(-_error.unpack_from(body)[0])
        elif kind == _SOCK_DIAG_BY_FAMILY:
            if len(body) < _ANSWER_BYTES:
                raise ValueError(f"a struct inet_diag_msg of {len(body)} bytes is cut short")
            yield _decode_row(body)


def _decode_row(body: bytes) -> SocketRow:
    family, state = _answer.unpack_from(body)
    local_port, remote_port, local, remote = _sockid.unpack_from(body, _answer.size)
    *_, inode = _answer_tail.unpack_from(body, _answer.size + _SOCKID_BYTES)
    if family == _AF_INET:
        return SocketRow(
            state, Inet4(IPv4Address(local[:4]), local_port), Inet4(IPv4Address(remote[:4]), remote_port), inode
        )
    only = any(kind == _INET_DIAG_SKV6ONLY and any(value) for kind, value in _attributes(body[_ANSWER_BYTES:]))
    return SocketRow(state, Inet6(IPv6Address(local), local_port), Inet6(IPv6Address(remote), remote_port), inode, only)


def _attributes(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """The netlink attributes behind a row (netlink(7)); one that is cut short ends them."""
    offset = 0
    while len(raw) - offset >= _nlattr.size:
        length, kind = _nlattr.unpack_from(raw, offset)
        if length < _nlattr.size:
            return
        yield kind, raw[offset + _nlattr.size : offset + length]
        offset += (length + 3) & ~3
