"""What connection tracking tells, as bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.incoming import conntrack
from mirrord_agent.incoming.conntrack import Direction
from mirrord_agent.incoming.netlink_messages import Attribute, Message, encode_attributes
from mirrord_syscalls.abi import ABIS
from tests.mirrord_syscalls.compiler import check_in_c

HEADERS = ["linux/netfilter/nfnetlink.h", "linux/netfilter/nfnetlink_conntrack.h"]
directions = st.sampled_from([4, 6]).flatmap(
    lambda version: st.builds(
        Direction,
        *[st.tuples(st.ip_addresses(v=version), st.integers(0, 0xFFFF)) for _ in range(2)],  # type: ignore[arg-type]
    )
)


def told(original: Direction, reply: Direction, *rest: Attribute) -> Message:
    both = conntrack._direction(original), Attribute(2, conntrack._direction(reply).value)
    return Message(conntrack.NEW, 0, 1, bytes(4) + encode_attributes([*both, *rest]))


@given(directions, directions)
def test_connections(original: Direction, reply: Direction) -> None:
    identity = Attribute(12, b"\1\2\3\4")
    message = told(original, reply, Attribute(3, b"\0\0\0\0"), identity)
    tracked = conntrack.decode(message)
    assert tracked is not None
    assert (tracked.original, tracked.reply) == (original, reply)
    assert conntrack.may_be_of(message, original.destination[1])
    assert tracked.forgetting == conntrack.ask(original) + encode_attributes([identity])


def test_other_protocols() -> None:
    udp = Attribute(2, (Attribute(1, b"\x11"), Attribute(2, b"\0\1"), Attribute(3, b"\0\2")))
    both = [Attribute(kind, (Attribute(1, (Attribute(1, bytes(4)), Attribute(2, bytes(4)))), udp)) for kind in (1, 2)]
    assert conntrack.decode(Message(conntrack.NEW, 0, 1, bytes(4) + encode_attributes(both))) is None


@given(st.binary(max_size=64))
def test_what_is_none(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        conntrack.decode(Message(conntrack.NEW, 0, 1, raw))


@pytest.mark.parametrize("architecture", ABIS)
def test_constants_are_those_of_the_kernels_headers(architecture: str, tmp_path: Path) -> None:
    claims = [
        f"(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW) == {conntrack.NEW}",
        f"(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET) == {conntrack.GET}",
        f"(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE) == {conntrack.DELETE}",
        f"CTA_TUPLE_ORIG == {conntrack._ORIGINAL} && CTA_TUPLE_REPLY == {conntrack._REPLY}",
        f"CTA_ID == {conntrack._IDENTITY} && CTA_ZONE == {conntrack._ZONE}",
        f"CTA_FILTER == {conntrack._FILTER} && CTA_FILTER_ORIG_FLAGS == {conntrack._ORIGINAL_FLAGS}",
        f"CTA_TUPLE_IP == {conntrack._IP} && CTA_TUPLE_PROTO == {conntrack._PROTOCOL}",
        f"CTA_IP_V4_SRC == {conntrack._SOURCES[4]} && CTA_IP_V4_DST == {conntrack._SOURCES[4] + 1}",
        f"CTA_IP_V6_SRC == {conntrack._SOURCES[6]} && CTA_IP_V6_DST == {conntrack._SOURCES[6] + 1}",
        f"CTA_PROTO_NUM == {conntrack._PROTOCOL_NUMBER}",
        f"CTA_PROTO_SRC_PORT == {conntrack._SOURCE_PORT} && CTA_PROTO_DST_PORT == {conntrack._DESTINATION_PORT}",
        f"sizeof(struct nfgenmsg) == {conntrack._nfgenmsg.size}",
    ]
    check_in_c(architecture, HEADERS, claims, tmp_path)
