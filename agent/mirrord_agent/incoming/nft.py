"""What nftables can be asked for, as netlink messages: include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h.

The kernel carries out a batch of requests as a whole or not at all. Each request knows in words what it does, and which
options of the kernel it takes, so that one that is refused can be told of. What rules are made of is in `expressions`.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from mirrord_agent.incoming.expressions import Expression
from mirrord_agent.incoming.netlink_messages import (
    ACKNOWLEDGE,
    APPEND,
    CREATE,
    EXCLUSIVE,
    REQUEST,
    Attribute,
    Message,
    encode_attributes,
    encode_message,
    number,
    text,
)

_SUBSYSTEM: Final = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_LIST_ELEMENT: Final = 1
_nfgenmsg = struct.Struct(">BBH")
_port = struct.Struct(">H")

#: NFT_TABLE_F_OWNER, NFT_SET_MAP, NF_ACCEPT.
_IS_OWNED, _IS_MAP, _ACCEPT = 0x2, 0x8, 1
#: How nft(8) names a port's type in a set (`inet_service`): the kernel keeps the number for it.
_INET_SERVICE: Final = 13


class Family(enum.IntEnum):
    """Whose packets a table sees (NFPROTO_*)."""

    INET = 1
    """IPv4 and IPv6."""
    IP = 2
    IP6 = 10


class Hook(enum.IntEnum):
    """Where on a packet's way a base chain is (NF_INET_*)."""

    PREROUTING = 0
    OUTPUT = 3


class Kind(enum.IntEnum):
    """What a request is for (NFT_MSG_*)."""

    NEW_TABLE = 0
    DELETE_TABLE = 2
    NEW_CHAIN = 3
    NEW_RULE = 6
    NEW_SET = 9
    NEW_ELEMENTS = 12
    DELETE_ELEMENTS = 14


class _OfTable(enum.IntEnum):
    NAME = 1
    FLAGS = 2


class _OfChain(enum.IntEnum):
    TABLE = 1
    NAME = 3
    HOOK = 4
    POLICY = 5
    TYPE = 7


class _OfHook(enum.IntEnum):
    HOOKNUM = 1
    PRIORITY = 2


class _OfRule(enum.IntEnum):
    TABLE = 1
    CHAIN = 2
    EXPRESSIONS = 4


class _OfExpression(enum.IntEnum):
    NAME = 1
    DATA = 2


class _OfSet(enum.IntEnum):
    TABLE = 1
    NAME = 2
    FLAGS = 3
    KEY_TYPE = 4
    KEY_LEN = 5
    DATA_TYPE = 6
    DATA_LEN = 7
    ID = 10


class _OfElements(enum.IntEnum):
    TABLE = 1
    SET = 2
    ELEMENTS = 3


class _OfElement(enum.IntEnum):
    KEY = 1
    DATA = 2


class _OfData(enum.IntEnum):
    VALUE = 1


_FIB_OPTIONS: Final = {
    Family.INET: "CONFIG_NFT_FIB_INET",
    Family.IP: "CONFIG_NFT_FIB_IPV4",
    Family.IP6: "CONFIG_NFT_FIB_IPV6",
}


@attrs.frozen
class Table:
    """A table's name within its family."""

    family: Family
    name: str

    def __str__(self) -> str:
        return f"{self.family.name.lower()} {self.name}"


@attrs.frozen
class Request:
    """One request of a batch."""

    kind: Kind
    family: Family
    attributes: tuple[Attribute, ...]
    flags: int
    words: str
    """What it does, as in "making the table"."""
    options: tuple[str, ...] = ()
    """What a kernel must be configured with for it."""


def encode_batch(requests: Iterable[Request], sequence: int) -> bytes:
    """A batch whose begin has this number; requests have those that follow, and each is acknowledged."""
    body = _nfgenmsg.pack(0, 0, _SUBSYSTEM)
    pieces = [encode_message(Message(_BATCH_BEGIN, REQUEST, sequence, body))]
    for request in requests:
        sequence += 1
        flags = REQUEST | ACKNOWLEDGE | request.flags
        content = _nfgenmsg.pack(request.family, 0, 0) + encode_attributes(request.attributes)
        pieces.append(encode_message(Message(_SUBSYSTEM << 8 | request.kind, flags, sequence, content)))
    pieces.append(encode_message(Message(_BATCH_END, REQUEST, sequence + 1, body)))
    return b"".join(pieces)


def new_table(table: Table, *, is_owned: bool = False) -> Request:
    """Makes a table that must not be there. One that `is_owned` goes with the socket that made it (Linux 5.12)."""
    name = text(_OfTable.NAME, table.name)
    attributes = (name, number(_OfTable.FLAGS, _IS_OWNED)) if is_owned else (name,)
    flags = CREATE | EXCLUSIVE
    return Request(Kind.NEW_TABLE, table.family, attributes, flags, f"making the table {table}", _for_table(table))


def have_table(table: Table) -> Request:
    """Makes a table unless it is there, so that it can be deleted."""
    attributes = (text(_OfTable.NAME, table.name),)
    words = f"taking over the table {table}"
    return Request(Kind.NEW_TABLE, table.family, attributes, CREATE, words, _for_table(table))


def delete_table(table: Table) -> Request:
    """Removes a table with all that is in it."""
    attributes = (text(_OfTable.NAME, table.name),)
    return Request(Kind.DELETE_TABLE, table.family, attributes, 0, f"removing the table {table}")


def new_base_chain(table: Table, name: str, chain_type: str, hook: Hook, priority: int) -> Request:
    """Makes a base chain of a type (`nat`, `filter`) that lets pass what its rules do not decide on."""
    attributes = (
        text(_OfChain.TABLE, table.name),
        text(_OfChain.NAME, name),
        Attribute(_OfChain.HOOK, (number(_OfHook.HOOKNUM, hook), number(_OfHook.PRIORITY, priority))),
        number(_OfChain.POLICY, _ACCEPT),
        text(_OfChain.TYPE, chain_type),
    )
    words = f"making the {chain_type} chain {name} of the table {table}"
    options = ("CONFIG_NFT_NAT",) if chain_type == "nat" else ()
    return Request(Kind.NEW_CHAIN, table.family, attributes, CREATE | EXCLUSIVE, words, options)


def new_rule(table: Table, chain: str, expressions: Iterable[Expression]) -> Request:
    """Appends a rule to a chain."""
    expressions = tuple(expressions)
    listed = tuple(
        Attribute(
            _LIST_ELEMENT,
            (text(_OfExpression.NAME, step.name), Attribute(_OfExpression.DATA, step.attributes)),
        )
        for step in expressions
    )
    attributes = (
        text(_OfRule.TABLE, table.name),
        text(_OfRule.CHAIN, chain),
        Attribute(_OfRule.EXPRESSIONS, listed),
    )
    words = f"making a rule of the chain {chain} of the table {table}"
    options = dict.fromkeys(option for step in expressions for option in _for_expression(step.name, table.family))
    return Request(Kind.NEW_RULE, table.family, attributes, CREATE | APPEND, words, tuple(options))


def new_port_map(table: Table, name: str, identity: int) -> Request:
    """Makes a map from ports to ports; `identity` tells it from the batch's other sets."""
    attributes = (
        text(_OfSet.TABLE, table.name),
        text(_OfSet.NAME, name),
        number(_OfSet.FLAGS, _IS_MAP),
        number(_OfSet.KEY_TYPE, _INET_SERVICE),
        number(_OfSet.KEY_LEN, _port.size),
        number(_OfSet.DATA_TYPE, _INET_SERVICE),
        number(_OfSet.DATA_LEN, _port.size),
        number(_OfSet.ID, identity),
    )
    words = f"making the map {name} of the table {table}"
    return Request(Kind.NEW_SET, table.family, attributes, CREATE | EXCLUSIVE, words, ("CONFIG_NF_TABLES_SET",))


def map_ports(table: Table, name: str, ports: Mapping[int, int]) -> Request:
    """Maps ports, none of which may be mapped already."""
    elements = [(_key(key), Attribute(_OfElement.DATA, (_value(value),))) for key, value in ports.items()]
    words = f"adding {_in_words(ports)} to the map {name} of the table {table}"
    return Request(Kind.NEW_ELEMENTS, table.family, _elements(table, name, elements), CREATE | EXCLUSIVE, words)


def unmap_ports(table: Table, name: str, ports: Iterable[int]) -> Request:
    """Maps ports no longer, all of which must be mapped."""
    ports = tuple(ports)
    words = f"removing {_in_words(ports)} from the map {name} of the table {table}"
    attributes = _elements(table, name, [(_key(port),) for port in ports])
    return Request(Kind.DELETE_ELEMENTS, table.family, attributes, 0, words)


def _elements(table: Table, name: str, elements: Iterable[tuple[Attribute, ...]]) -> tuple[Attribute, ...]:
    listed = tuple(Attribute(_LIST_ELEMENT, element) for element in elements)
    return (
        text(_OfElements.TABLE, table.name),
        text(_OfElements.SET, name),
        Attribute(_OfElements.ELEMENTS, listed),
    )


def _key(port: int) -> Attribute:
    return Attribute(_OfElement.KEY, (_value(port),))


def _value(port: int) -> Attribute:
    return Attribute(_OfData.VALUE, _port.pack(port))


def _in_words(ports: Iterable[int]) -> str:
    return ", ".join(f"port {port}" for port in ports)


def _for_table(table: Table) -> tuple[str, ...]:
    return ("CONFIG_NF_TABLES", "CONFIG_NF_TABLES_INET") if table.family is Family.INET else ("CONFIG_NF_TABLES",)


def _for_expression(name: str, family: Family) -> tuple[str, ...]:
    options = {"fib": _FIB_OPTIONS[family], "nat": "CONFIG_NFT_NAT", "lookup": "CONFIG_NF_TABLES_SET"}
    return (options[name],) if name in options else ()
