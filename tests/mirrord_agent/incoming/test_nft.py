"""Requests for nftables: numbers and layouts by the kernel's headers, and what they make by what nft(8) says of it."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.incoming import expressions, nft, ruleset
from mirrord_agent.incoming.netlink import NETLINK_NETFILTER, Netlink
from mirrord_agent.incoming.netlink_messages import decode_attributes, decode_messages
from mirrord_agent.incoming.nft import Family, Hook, Kind, Request, Table
from mirrord_agent.incoming.ruleset import LAST_ORDER, mark_of
from mirrord_syscalls.abi import ABIS
from tests.mirrord_agent.incoming.networks import Network, network
from tests.mirrord_syscalls.compiler import check_in_c

HEADERS = ["linux/netfilter.h", "linux/netfilter/nfnetlink.h", "linux/netfilter/nf_tables.h", "linux/rtnetlink.h"]
PREFIXES: list[tuple[type[enum.IntEnum], str]] = [
    (nft._OfTable, "NFTA_TABLE_"),
    (nft._OfChain, "NFTA_CHAIN_"),
    (nft._OfHook, "NFTA_HOOK_"),
    (nft._OfRule, "NFTA_RULE_"),
    (nft._OfExpression, "NFTA_EXPR_"),
    (nft._OfSet, "NFTA_SET_"),
    (nft._OfElements, "NFTA_SET_ELEM_LIST_"),
    (nft._OfElement, "NFTA_SET_ELEM_"),
    (nft._OfData, "NFTA_DATA_"),
    (expressions.Comparison, "NFT_CMP_"),
    (expressions._MetaKey, "NFT_META_"),
    (expressions._FibResult, "NFT_FIB_RESULT_"),
    (expressions._FibFlag, "NFTA_FIB_F_"),
    (expressions._PayloadBase, "NFT_PAYLOAD_"),
    (expressions._OfMeta, "NFTA_META_"),
    (expressions._OfByteorder, "NFTA_BYTEORDER_"),
    (expressions._OfCmp, "NFTA_CMP_"),
    (expressions._OfBitwise, "NFTA_BITWISE_"),
    (expressions._OfPayload, "NFTA_PAYLOAD_"),
    (expressions._OfFib, "NFTA_FIB_"),
    (expressions._OfLookup, "NFTA_LOOKUP_"),
    (expressions._OfImmediate, "NFTA_IMMEDIATE_"),
    (expressions._OfNat, "NFTA_NAT_"),
    (expressions._OfData, "NFTA_DATA_"),
    (expressions._OfVerdict, "NFTA_VERDICT_"),
]
"""How the headers' names of members begin."""


MEANT = r"""
table inet mirrord-trace-{order} {{
    map tcp-ports-inet4 {{ type inet_service : inet_service; {tcp} }}
    map tcp-ports-inet6 {{ type inet_service : inet_service; {tcp} }}
    map udp-ports-inet4 {{ type inet_service : inet_service; {udp} }}
    map udp-ports-inet6 {{ type inet_service : inet_service; {udp} }}
    map udp-replies {{ type inet_service : inet_service; {replies} }}
    chain prerouting {{
        type nat hook prerouting priority {priority}; policy accept;
        meta mark {first:#x}-{last:#x} return
        meta nfproto ipv4 tcp flags & (fin | syn | rst | ack) == syn fib daddr type local \
            dnat to :tcp dport map @tcp-ports-inet4
        meta nfproto ipv6 tcp flags & (fin | syn | rst | ack) == syn fib daddr type local \
            dnat to :tcp dport map @tcp-ports-inet6
    }}
    chain output {{
        type nat hook output priority {priority}; policy accept;
        meta mark {first:#x}-{last:#x} return
        meta nfproto ipv4 tcp flags & (fin | syn | rst | ack) == syn fib daddr type local \
            dnat to :tcp dport map @tcp-ports-inet4
        meta nfproto ipv6 tcp flags & (fin | syn | rst | ack) == syn fib daddr type local \
            dnat to :tcp dport map @tcp-ports-inet6
    }}
    chain arriving {{
        type filter hook prerouting priority {priority}; policy accept;
        meta mark {first:#x}-{last:#x} return
        meta nfproto ipv4 udp checksum != 0 fib daddr type local udp dport set udp dport map @udp-ports-inet4 return
        meta nfproto ipv4 udp checksum 0 fib daddr type local udp dport set udp dport map @udp-ports-inet4 return
        meta nfproto ipv6 udp checksum != 0 fib daddr type local udp dport set udp dport map @udp-ports-inet6 return
        meta nfproto ipv6 udp checksum 0 fib daddr type local udp dport set udp dport map @udp-ports-inet6 return
    }}
    chain leaving {{
        type filter hook output priority -300; policy accept;
        udp checksum != 0 udp sport set udp sport map @udp-replies return
        udp checksum 0 udp sport set udp sport map @udp-replies return
    }}
}}
"""


def claims() -> Iterator[str]:
    """What the headers must say."""
    for numbers, prefix in PREFIXES:
        yield from (f"{prefix}{member.name} == {member.value}" for member in numbers)
    yield from (
        f"NFPROTO_{name} == {Family[ours]}" for name, ours in (("INET", "INET"), ("IPV4", "IP"), ("IPV6", "IP6"))
    )
    yield f"NF_INET_PRE_ROUTING == {Hook.PREROUTING}"
    yield f"NF_INET_LOCAL_OUT == {Hook.OUTPUT}"
    messages = {"TABLE": "TABLE", "CHAIN": "CHAIN", "RULE": "RULE", "SET": "SET", "ELEMENTS": "SETELEM"}
    for kind in Kind:
        verb, _, what = kind.name.partition("_")
        yield f"NFT_MSG_{verb[:3]}{messages[what]} == {kind.value}"
    yield f"NFT_REG_1 == {expressions.Register.FIRST}"
    yield f"NFT_REG_2 == {expressions.Register.SECOND}"
    yield f"NFT_REG_VERDICT == {expressions._VERDICT_REGISTER}"
    yield f"NFT_RETURN == {expressions._RETURN}"
    yield f"NFT_BYTEORDER_HTON == {expressions._TO_NETWORK}"
    yield f"NFT_PAYLOAD_CSUM_INET == {expressions._INTERNET_CHECKSUM}"
    yield f"NFT_NAT_DNAT == {expressions._OF_DESTINATIONS}"
    yield f"RTN_LOCAL == {expressions._LOCAL}"
    yield f"NFTA_LIST_ELEM == {nft._LIST_ELEMENT}"
    yield f"NFNL_SUBSYS_NFTABLES == {nft._SUBSYSTEM}"
    yield f"NFNL_MSG_BATCH_BEGIN == {nft._BATCH_BEGIN}"
    yield f"NFNL_MSG_BATCH_END == {nft._BATCH_END}"
    yield f"NFT_SET_MAP == {nft._IS_MAP}"
    yield f"NF_ACCEPT == {nft._ACCEPT}"
    yield f"sizeof(struct nfgenmsg) == {nft._nfgenmsg.size}"


@pytest.mark.parametrize("architecture", ABIS)
def test_numbers_are_those_of_the_kernels_headers(architecture: str, tmp_path: Path) -> None:
    check_in_c(architecture, HEADERS, claims(), tmp_path)


PORTS = st.integers(0, 0xFFFF)
TABLES = st.builds(Table, st.sampled_from(Family), st.text(st.characters(codec="ascii"), min_size=1, max_size=20))
REQUESTS = st.one_of(
    st.builds(nft.new_table, TABLES, is_owned=st.booleans()),
    st.builds(nft.have_table, TABLES),
    st.builds(nft.delete_table, TABLES),
    st.builds(
        nft.new_base_chain, TABLES, st.just("here"), st.just("nat"), st.sampled_from(Hook), st.integers(-500, 70000)
    ),
    st.builds(nft.new_port_map, TABLES, st.just("ports"), st.integers(0, 100)),
    st.builds(nft.map_ports, TABLES, st.just("ports"), st.dictionaries(PORTS, PORTS, max_size=5)),
    st.builds(nft.unmap_ports, TABLES, st.just("ports"), st.lists(PORTS, max_size=5)),
    st.builds(
        nft.new_rule,
        TABLES,
        st.just("here"),
        st.sampled_from([ruleset._take_tcp(Family.IP, "inet4"), ruleset._give_back_udp(with_checksum=True)]),
    ),
)


@given(st.lists(REQUESTS, max_size=6), st.integers(0, 2**31))
def test_a_batch_is_its_requests_between_its_ends(requests: list[Request], sequence: int) -> None:
    begin, *each, end = decode_messages(nft.encode_batch(requests, sequence))
    assert [begin.sequence, *(message.sequence for message in each), end.sequence] == list(
        range(sequence, sequence + len(requests) + 2)
    )
    assert (begin.kind, end.kind) == (0x10, 0x11)
    assert begin.body == end.body == b"\0\0\0\x0a"
    for message, request in zip(each, requests, strict=True):
        assert (message.kind, message.flags) == (0x0A00 | request.kind, 0x5 | request.flags)
        assert message.body[:4] == bytes([request.family, 0, 0, 0])
        assert decode_attributes(message.body[4:]) == request.attributes


@pytest.fixture
def pods() -> Iterator[tuple[Network, Network]]:
    with network() as ours, network() as theirs:
        yield ours, theirs


@pytest.mark.parametrize("order", [1, 2, 0x1234, LAST_ORDER])
@pytest.mark.parametrize("with_ports", [False, True], ids=["empty", "with ports"])
def test_the_kernel_shows_what_is_meant(pods: tuple[Network, Network], order: int, with_ports: bool) -> None:
    """What nft(8) makes of the same said in its own language looks the same to it."""
    ours, theirs = pods
    table = ruleset.table_of(order, Family.INET)
    tcp, udp = ({80: 40001, 443: 40002}, {53: 40003, 65535: 1}) if with_ports else ({}, {})
    with ours.entered(), Netlink(NETLINK_NETFILTER) as netlink:
        netlink.carry_out(ruleset.make(table, order, is_owned=False))
        for port, listener in tcp.items():
            netlink.carry_out(ruleset.add(table, "tcp", port, listener))
        for port, listener in udp.items():
            netlink.carry_out(ruleset.add(table, "udp", port, listener))
    meant = MEANT.format(
        order=order,
        priority=0x10000 - order,
        first=mark_of(1),
        last=mark_of(order),
        tcp=elements(tcp),
        udp=elements(udp),
        replies=elements({listener: port for port, listener in udp.items()}),
    )
    theirs.run("nft", "-f", "-", input=meant)
    assert ours.ruleset() == theirs.ruleset() != ""


def elements(ports: dict[int, int]) -> str:
    return (
        "elements = { " + ", ".join(f"{port} : {listener}" for port, listener in ports.items()) + " }" if ports else ""
    )


@pytest.mark.parametrize("family", Family)
def test_ports_come_and_go_and_a_table_is_made_anew(pods: tuple[Network, Network], family: Family) -> None:
    ours, _ = pods
    table = ruleset.table_of(1, family)
    with ours.entered(), Netlink(NETLINK_NETFILTER) as netlink:
        netlink.carry_out(ruleset.make(table, 1, is_owned=False))
        empty = ours.ruleset()
        both = [*ruleset.add(table, "tcp", 80, 4000), *ruleset.add(table, "udp", 80, 4000)]
        netlink.carry_out(both)
        full = ours.ruleset()
        netlink.carry_out([*ruleset.remove(table, "tcp", 80, 4000), *ruleset.remove(table, "udp", 80, 4000)])
        assert ours.ruleset() == empty
        netlink.carry_out(both)
        assert ours.ruleset() == full != empty
        netlink.carry_out(ruleset.make(table, 1, is_owned=False))
        assert ours.ruleset() == empty
        netlink.carry_out([nft.delete_table(table)])
        assert ours.ruleset() == ""


def test_an_owned_table_says_so_and_goes_with_its_socket(pods: tuple[Network, Network]) -> None:
    ours, _ = pods
    with ours.entered():
        with Netlink(NETLINK_NETFILTER) as netlink:
            netlink.carry_out(ruleset.make(ruleset.table_of(1, Family.INET), 1, is_owned=True))
            assert "flags owner" in ours.ruleset()
        assert ours.ruleset() == ""


@pytest.mark.parametrize("order", [0, -1, LAST_ORDER + 1])
def test_numbers_of_sessions_are_limited(order: int) -> None:
    with pytest.raises(ValueError, match="1 to 65535"):
        mark_of(order)


@pytest.mark.parametrize(
    ("mark", "expected"),
    [(0, False), (0x6D740000, False), (0x6D740001, True), (0x6D74FFFF, True), (0x6D750000, False), (1337, False)],
)
def test_marks_of_sessions(mark: int, expected: bool) -> None:
    assert ruleset.is_sessions_mark(mark) is expected
