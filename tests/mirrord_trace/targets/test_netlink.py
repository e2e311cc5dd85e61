"""Layouts; that the kernel takes the requests is shown by the sandbox's tests."""

from __future__ import annotations

import ipaddress
import struct

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mirrord_trace.targets import netlink
from mirrord_trace.targets.netlink import RouteKind


def attributes(body: bytes) -> dict[int, bytes]:
    """What `struct rtattr` by `struct rtattr` is in there (rtnetlink(3), RTA_NEXT)."""
    found = {}
    while body:
        length, kind = struct.unpack_from("=HH", body)
        assert 4 <= length <= len(body)
        found[kind] = body[4:length]
        body = body[(length + 3) & ~3 :]
    return found


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), unique_by=lambda item: item[0]))
def test_attributes_follow_each_other_at_multiples_of_four(items: list[tuple[int, bytes]]) -> None:
    assert attributes(b"".join(netlink.attribute(kind, payload) for kind, payload in items)) == dict(items)


@pytest.mark.parametrize(
    ("request_bytes", "kind", "header_length"),
    [
        (netlink.link(1, up=True), 16, 16),
        (netlink.add_address(1, ipaddress.ip_interface("198.18.0.1/24")), 20, 8),
        (netlink.add_route(ipaddress.ip_network("fd00::/64"), RouteKind.UNREACHABLE, index=1), 24, 12),
    ],
)
def test_requests_tell_their_length_and_ask_for_an_acknowledgement(
    request_bytes: bytes, kind: int, header_length: int
) -> None:
    length, found_kind, flags = struct.unpack_from("=IHH", request_bytes)
    assert (length, found_kind) == (len(request_bytes), kind)
    assert flags & 0x5 == 0x5
    attributes(request_bytes[16 + header_length :])


def test_a_local_route_goes_to_the_local_table_with_its_source() -> None:
    request = netlink.add_route(
        ipaddress.ip_network("198.18.0.10"),
        RouteKind.LOCAL,
        index=netlink.LOOPBACK_INDEX,
        source=ipaddress.ip_address("198.18.0.20"),
    )
    family, prefix, _, _, table, _, scope, kind, _ = struct.unpack_from("=BBBBBBBBI", request, 16)
    assert (family, prefix, table, scope, kind) == (2, 32, 255, 254, 2)
    assert attributes(request[28:]) == {1: bytes([198, 18, 0, 10]), 4: b"\1\0\0\0", 7: bytes([198, 18, 0, 20])}
