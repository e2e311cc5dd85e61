import re
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_syscalls.sockaddr import Inet4, Inet6, OtherFamily, SocketAddress, Unix, Unspecified, to_mapped
from mirrord_trace.policy.outgoing import ABSENT_UNIX_SOCKETS, OutgoingPolicy, Protocol, Side
from tests.mirrord_trace.support import inet

TABLE: list[tuple[SocketAddress, Side]] = [
    (inet("198.18.0.1", 80), Side.REMOTE),
    (inet("10.0.0.1", 0), Side.REMOTE),
    (inet("169.254.169.254", 80), Side.REMOTE),
    (inet("255.255.255.255", 67), Side.REMOTE),
    (inet("fd00::1", 80), Side.REMOTE),
    (inet("fe80::1", 80), Side.REMOTE),
    (inet("::ffff:198.18.0.1", 80), Side.REMOTE),
    (inet("127.0.0.1", 80), Side.LISTENER),
    (inet("127.200.0.1", 80), Side.LISTENER),
    (inet("0.0.0.0", 80), Side.LISTENER),
    (inet("::1", 80), Side.LISTENER),
    (inet("::", 80), Side.LISTENER),
    (inet("::ffff:127.0.0.1", 80), Side.LISTENER),
    (inet("::ffff:0.0.0.0", 80), Side.LISTENER),
    (inet("224.0.0.251", 5353), Side.LOCAL),
    (inet("::ffff:224.0.0.251", 5353), Side.LOCAL),
    (inet("ff02::fb", 5353), Side.LOCAL),
    (Unix(b"/run/x"), Side.LOCAL),
    (Unspecified(), Side.LOCAL),
    (OtherFamily(40, b"\x28\0" + bytes(14)), Side.LOCAL),
]


@pytest.mark.parametrize(("address", "side"), TABLE, ids=str)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_where_an_address_is(protocol: Protocol, address: SocketAddress, side: Side) -> None:
    assert OutgoingPolicy().side(protocol, address) is side
    assert OutgoingPolicy(tcp=False).side("tcp", address) is Side.LOCAL
    assert OutgoingPolicy(tcp=False).side("udp", address) is side
    assert OutgoingPolicy(udp=False).side("udp", address) is Side.LOCAL
    assert OutgoingPolicy(udp=False).side("tcp", address) is side
    ignoring = OutgoingPolicy(ignore_localhost=True).side(protocol, address)
    assert ignoring is (Side.LOCAL if side is Side.LISTENER else side)


@given(st.ip_addresses(v=4), st.integers(0, 65535), st.sampled_from(["tcp", "udp"]))
def test_a_mapped_address_is_where_the_ipv4_address_is(host: IPv4Address, port: int, protocol: Protocol) -> None:
    address = Inet4(host, port)
    assert OutgoingPolicy().side(protocol, address) is OutgoingPolicy().side(protocol, to_mapped(address))


@given(st.ip_addresses(v=6), st.integers(0, 2**32 - 1), st.integers(0, 99))
def test_flow_and_scope_decide_nothing(host: object, flow_info: int, scope_id: int) -> None:
    plain = ip_address(str(host))
    assert plain.version == 6
    assert OutgoingPolicy().side("tcp", Inet6(plain, 1, flow_info, scope_id)) is OutgoingPolicy().side(
        "tcp", Inet6(plain, 1)
    )


@pytest.mark.parametrize(
    ("path", "side"),
    [
        *((path, Side.ABSENT) for path in ABSENT_UNIX_SOCKETS),
        (b"/var/run/docker.sock", Side.REMOTE),
        (b"\0docker-events", Side.REMOTE),
        (b"/tmp/.X11-unix/X0", Side.LOCAL),
        (b"\0/tmp/.X11-unix/X0", Side.LOCAL),
        (b"\xff\xfe", Side.LOCAL),
        (b"", Side.LOCAL),
    ],
)
def test_where_a_unix_socket_is(path: bytes, side: Side) -> None:
    assert OutgoingPolicy(unix_streams=(re.compile("^/nowhere$"), re.compile("docker"))).unix_side(Unix(path)) is side
