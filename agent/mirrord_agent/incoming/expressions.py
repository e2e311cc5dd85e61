"""What rules of nftables are made of: steps that work on registers (include/uapi/linux/netfilter/nf_tables.h).

A comparison that does not hold ends the rule, as does a look-up that finds nothing and a field that the packet has not.
Fields of packets are in network byte order in a register, marks and kinds of addresses in this machine's.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

import attrs

from mirrord_agent.incoming.netlink_messages import Attribute, number, text

_native = struct.Struct("=I")
_network = struct.Struct(">I")

_VERDICT_REGISTER: Final = 0
_RETURN: Final = -5


class Register(enum.IntEnum):
    """Where a step leaves a value for the next (NFT_REG_*)."""

    FIRST = 1
    SECOND = 2


class Comparison(enum.IntEnum):
    """How values compare, as bytes (NFT_CMP_*)."""

    EQ = 0
    NEQ = 1
    LTE = 3
    GTE = 5


class _MetaKey(enum.IntEnum):
    MARK = 3
    NFPROTO = 15
    L4PROTO = 16


class _FibResult(enum.IntEnum):
    ADDRTYPE = 3


class _FibFlag(enum.IntEnum):
    DADDR = 2


class _PayloadBase(enum.IntEnum):
    TRANSPORT_HEADER = 2


class _OfMeta(enum.IntEnum):
    DREG = 1
    KEY = 2


class _OfByteorder(enum.IntEnum):
    SREG = 1
    DREG = 2
    OP = 3
    LEN = 4
    SIZE = 5


class _OfCmp(enum.IntEnum):
    SREG = 1
    OP = 2
    DATA = 3


class _OfBitwise(enum.IntEnum):
    SREG = 1
    DREG = 2
    LEN = 3
    MASK = 4
    XOR = 5


class _OfPayload(enum.IntEnum):
    DREG = 1
    BASE = 2
    OFFSET = 3
    LEN = 4
    SREG = 5
    CSUM_TYPE = 6
    CSUM_OFFSET = 7


class _OfFib(enum.IntEnum):
    DREG = 1
    RESULT = 2
    FLAGS = 3


class _OfLookup(enum.IntEnum):
    SET = 1
    SREG = 2
    DREG = 3


class _OfImmediate(enum.IntEnum):
    DREG = 1
    DATA = 2


class _OfNat(enum.IntEnum):
    TYPE = 1
    FAMILY = 2
    REG_PROTO_MIN = 5


class _OfData(enum.IntEnum):
    VALUE = 1
    VERDICT = 2


class _OfVerdict(enum.IntEnum):
    CODE = 1


#: NFT_BYTEORDER_HTON; NFT_PAYLOAD_CSUM_INET; NFT_NAT_DNAT; RTN_LOCAL of linux/rtnetlink.h.
_TO_NETWORK, _INTERNET_CHECKSUM, _OF_DESTINATIONS, _LOCAL = 1, 1, 1, 2


@attrs.frozen
class Expression:
    """One step of a rule."""

    name: str
    attributes: tuple[Attribute, ...]


def load_mark(into: Register) -> list[Expression]:
    """The mark of the packet, in network byte order, so that it can be compared for order."""
    load = (number(_OfMeta.DREG, into), number(_OfMeta.KEY, _MetaKey.MARK))
    swap = (
        number(_OfByteorder.SREG, into),
        number(_OfByteorder.DREG, into),
        number(_OfByteorder.OP, _TO_NETWORK),
        number(_OfByteorder.LEN, _native.size),
        number(_OfByteorder.SIZE, _native.size),
    )
    return [Expression("meta", load), Expression("byteorder", swap)]


def load_family(into: Register) -> Expression:
    """The version of IP, one byte (NFPROTO_*)."""
    return Expression("meta", (number(_OfMeta.DREG, into), number(_OfMeta.KEY, _MetaKey.NFPROTO)))


def load_protocol(into: Register) -> Expression:
    """The number of the transport protocol, one byte."""
    return Expression("meta", (number(_OfMeta.DREG, into), number(_OfMeta.KEY, _MetaKey.L4PROTO)))


def load_transport(into: Register, offset: int, length: int) -> Expression:
    """Bytes of the transport protocol's header."""
    attributes = (
        number(_OfPayload.DREG, into),
        number(_OfPayload.BASE, _PayloadBase.TRANSPORT_HEADER),
        number(_OfPayload.OFFSET, offset),
        number(_OfPayload.LEN, length),
    )
    return Expression("payload", attributes)


def store_transport(value: Register, offset: int, length: int, checksum_offset: int | None = None) -> Expression:
    """Overwrites bytes of the transport protocol's header, and has its checksum remain right if told where that is."""
    attributes = [
        number(_OfPayload.SREG, value),
        number(_OfPayload.BASE, _PayloadBase.TRANSPORT_HEADER),
        number(_OfPayload.OFFSET, offset),
        number(_OfPayload.LEN, length),
    ]
    if checksum_offset is not None:
        # CSUM_FLAGS is for changes of addresses: with it the sum over the datagram that the kernel may have at hand
        # would be changed as well, although the checksum in it makes up for the change.
        attributes += [
            number(_OfPayload.CSUM_TYPE, _INTERNET_CHECKSUM),
            number(_OfPayload.CSUM_OFFSET, checksum_offset),
        ]
    return Expression("payload", tuple(attributes))


def keep_bits(of: Register, mask: bytes) -> Expression:
    """Clears those bits that are not in the mask."""
    attributes = (
        number(_OfBitwise.SREG, of),
        number(_OfBitwise.DREG, of),
        number(_OfBitwise.LEN, len(mask)),
        _data(_OfBitwise.MASK, mask),
        _data(_OfBitwise.XOR, bytes(len(mask))),
    )
    return Expression("bitwise", attributes)


def compare(value: Register, comparison: Comparison, other: bytes) -> Expression:
    """Goes on if it holds."""
    attributes = (number(_OfCmp.SREG, value), number(_OfCmp.OP, comparison), _data(_OfCmp.DATA, other))
    return Expression("cmp", attributes)


def destination_is_local(scratch: Register) -> list[Expression]:
    """Goes on if this namespace itself has the destination's address."""
    attributes = (
        number(_OfFib.DREG, scratch),
        number(_OfFib.RESULT, _FibResult.ADDRTYPE),
        number(_OfFib.FLAGS, _FibFlag.DADDR),
    )
    return [Expression("fib", attributes), compare(scratch, Comparison.EQ, _native.pack(_LOCAL))]


def look_up(key: Register, name: str, into: Register) -> Expression:
    """Goes on with what a map has for the key, if it has."""
    attributes = (text(_OfLookup.SET, name), number(_OfLookup.SREG, key), number(_OfLookup.DREG, into))
    return Expression("lookup", attributes)


def change_destination_port(port: Register, family: int) -> Expression:
    """Has the packet's connection go to this port, in a table of this family (NFPROTO_*). Ends the rule's chain.

    In a table for both families this takes Linux 5.8, in others it does not.
    """
    attributes = (
        number(_OfNat.TYPE, _OF_DESTINATIONS),
        number(_OfNat.FAMILY, family),
        number(_OfNat.REG_PROTO_MIN, port),
    )
    return Expression("nat", attributes)


def return_() -> Expression:
    """Ends the rule's chain."""
    verdict = Attribute(_OfData.VERDICT, (number(_OfVerdict.CODE, _RETURN),))
    attributes = (number(_OfImmediate.DREG, _VERDICT_REGISTER), Attribute(_OfImmediate.DATA, (verdict,)))
    return Expression("immediate", attributes)


def mark_bytes(mark: int) -> bytes:
    """A mark as `load_mark` leaves it."""
    return _network.pack(mark)


def _data(kind: int, value: bytes) -> Attribute:
    return Attribute(kind, (Attribute(_OfData.VALUE, value),))
