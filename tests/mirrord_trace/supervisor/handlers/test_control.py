import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from mirrord_syscalls.sockaddr import decode_sockaddr, encode_sockaddr, to_mapped
from mirrord_syscalls.structs import ControlMessage, decode_control, encode_control
from mirrord_trace.supervisor.handlers.control import names_a_source, shown_in_pod, without_source
from tests.mirrord_trace.support import PEER, PEER6, POD, inet

LOCAL, LOCAL6 = inet(POD, 4000), inet("fd00:198:18::99", 4000)
LOOPBACK = socket.inet_aton("127.0.0.1")
PKTINFO = ControlMessage(socket.IPPROTO_IP, 8, struct.pack("=I4s4s", 1, LOOPBACK, LOOPBACK))
PKTINFO6 = ControlMessage(
    socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, socket.inet_pton(socket.AF_INET6, "::1") + b"\1\0\0\0"
)
TTL = ControlMessage(socket.IPPROTO_IP, socket.IP_TTL, b"\x40\0\0\0")

messages = st.builds(ControlMessage, st.integers(0, 300), st.integers(0, 60), st.binary(max_size=40))


def test_a_source_is_found_and_taken_out() -> None:
    assert names_a_source((TTL, PKTINFO))
    assert names_a_source((PKTINFO6,))
    assert not names_a_source((TTL,))
    assert decode_control(without_source((TTL, PKTINFO, PKTINFO6, TTL))) == (TTL, TTL)


def test_the_destination_of_what_came_is_the_pods() -> None:
    shown = decode_control(shown_in_pod(encode_control([TTL, PKTINFO]), LOCAL, PEER))
    assert shown == (TTL, ControlMessage(socket.IPPROTO_IP, 8, b"\1\0\0\0" + socket.inet_aton(POD) * 2))
    (shown6,) = decode_control(shown_in_pod(encode_control([PKTINFO6]), LOCAL6, PEER6))
    assert shown6.data == LOCAL6.host.packed + b"\1\0\0\0"
    (mapped,) = decode_control(shown_in_pod(encode_control([PKTINFO6]), to_mapped(LOCAL), to_mapped(PEER)))  # type: ignore[arg-type]
    assert mapped.data[:16] == socket.inet_pton(socket.AF_INET6, f"::ffff:{POD}")


def test_the_offender_of_an_error_is_the_peer() -> None:
    error = struct.pack("=IBBBBII", 111, 2, 3, 3, 0, 0, 0)
    raw = encode_control([ControlMessage(socket.IPPROTO_IP, 11, error + encode_sockaddr(inet("127.0.0.1", 0)))])
    (shown,) = decode_control(shown_in_pod(raw, LOCAL, PEER))
    assert shown.data[:16] == error
    assert decode_sockaddr(shown.data[16:]) == inet(str(PEER.host), 0)


@given(st.lists(messages, max_size=4), st.integers(0, 20))
def test_what_is_shown_is_as_long_as_what_came(received: list[ControlMessage], cut: int) -> None:
    raw = encode_control(received)
    raw = raw[: max(0, len(raw) - cut)]
    for local, peer in ((LOCAL, PEER), (LOCAL6, PEER6)):
        assert len(shown_in_pod(raw, local, peer)) == len(raw)


@given(st.binary(max_size=200))
def test_whatever_lies_there_is_no_harm(raw: bytes) -> None:
    assert len(shown_in_pod(raw, LOCAL, PEER)) == len(raw)
