"""The table with which a session has packets for the target's ports come to its own listeners.

Sessions on one target are numbered. One that comes later stands before those that were there: it has what is sent to
the port, and what it passes on reaches the session before it, and so on down to the target. So each session marks what
it sends itself (SO_MARK), and its rules leave alone what carries its own mark or that of a session before it.

TCP is redirected by NAT, where a connection's first packet decides. Only a SYN is taken: for a connection that was
there before, the first packet that NAT ever sees comes from its middle, and redirected it would break it. The kernel
asks all NAT chains of a hook in the order of their priorities, until one decides; where among other chains they stand
is always the same. Priorities here come after all usual ones, so that redirects of a service mesh stay in force: what
comes from outside reaches the mesh's proxy, and what that sends to the target, over loopback, is taken. So the process
gets what the target would get, and what it does not want can be passed on as it is.

UDP has no connections, and NAT would remember flows for as long as they last: those from before would stay the
target's, and those from then ours, even if the session is killed. So the port is rewritten in each datagram, last on
the way in and first on the way out, and connection tracking, if there is any, sees what a target would get and send.
Addresses stay: a listener learns from IP_PKTINFO which of them a datagram was sent to, and answers from there. What is
sent to many at once, by broadcast or multicast, stays the target's.

A port may be taken for one version of IP only: each has maps of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from mirrord_agent.incoming import families, nft
from mirrord_agent.incoming.expressions import (
    Comparison,
    Expression,
    Register,
    change_destination_port,
    compare,
    destination_is_local,
    keep_bits,
    load_family,
    load_mark,
    load_protocol,
    load_transport,
    look_up,
    mark_bytes,
    return_,
    store_transport,
)
from mirrord_agent.incoming.nft import Family, Hook, Request, Table
from mirrord_agent.wire.frames import AddressFamily

Protocol = Literal["tcp", "udp"]
Change = Callable[[Table, Protocol, int, int, AddressFamily | None], list[Request]]
"""`add` or `remove`."""

#: A session's mark is this number and, in its lower 16 bits, the session's own.
MARK_BASE: Final = 0x6D740000
LAST_ORDER: Final = 0xFFFF

_NAME: Final = "mirrord-trace"
#: After everybody's chains; a session's come as much before it as its number says.
_LAST: Final = LAST_ORDER + 1
#: NF_IP_PRI_RAW: before connection tracking (-200).
_BEFORE_TRACKING: Final = -300

_NUMBERS: Final[dict[Protocol, bytes]] = {"tcp": b"\x06", "udp": b"\x11"}
#: Where TCP and UDP have their ports, TCP its flags and UDP its checksum, and how long these fields are.
_SOURCE_PORT, _DESTINATION_PORT, _TCP_FLAGS, _UDP_CHECKSUM = (0, 2), (2, 2), (13, 1), (6, 2)
_FIN_SYN_RST_ACK, _SYN = b"\x17", b"\x02"
_NO_CHECKSUM: Final = b"\0\0"

_VERSIONS: Final[dict[AddressFamily, Family]] = {"inet4": Family.IP, "inet6": Family.IP6}
#: The map from listeners' UDP ports to the target's, for both versions of IP.
_UDP_BACK: Final = "udp-replies"


def mark_of(order: int) -> int:
    """What a session's own sockets have for SO_MARK. Raises ValueError unless `order` is 1 to 65535."""
    if not 1 <= order <= LAST_ORDER:
        raise ValueError(f"a session's number is from 1 to {LAST_ORDER}, not {order}")
    return MARK_BASE + order


def is_sessions_mark(mark: int) -> bool:
    """Whether a session has sent what carries this mark."""
    return mark_of(1) <= mark <= mark_of(LAST_ORDER)


def table_of(order: int, family: Family) -> Table:
    """A session's table."""
    return Table(family, f"{_NAME}-{order}")


def make(table: Table, order: int, *, is_owned: bool) -> list[Request]:
    """Makes the table anew, with no port in it yet. One that somebody owns is refused."""
    versions = _versions(table, None)
    maps = [*(_map_of(protocol, version) for protocol in _NUMBERS for version in versions), _UDP_BACK]
    own = _own_marks(order)
    take_tcp = [_take_tcp(table.family, version) for version in versions]
    take_udp = [_take_udp(version, with_checksum=is_there) for version in versions for is_there in (True, False)]
    give_back_udp = [_give_back_udp(with_checksum=is_there) for is_there in (True, False)]
    return [
        nft.have_table(table),
        nft.delete_table(table),
        nft.new_table(table, is_owned=is_owned),
        *(nft.new_port_map(table, name, identity) for identity, name in enumerate(maps)),
        *_chain(table, "prerouting", "nat", Hook.PREROUTING, _LAST - order, [own, *take_tcp]),
        *_chain(table, "output", "nat", Hook.OUTPUT, _LAST - order, [own, *take_tcp]),
        *_chain(table, "arriving", "filter", Hook.PREROUTING, _LAST - order, [own, *take_udp]),
        *_chain(table, "leaving", "filter", Hook.OUTPUT, _BEFORE_TRACKING, give_back_udp),
    ]


def add(
    table: Table, protocol: Protocol, port: int, listener_port: int, family: AddressFamily | None = None
) -> list[Request]:
    """Has what is sent to a port, by a version of IP or by both, come to a listener's."""
    there = [
        nft.map_ports(table, _map_of(protocol, version), {port: listener_port}) for version in _versions(table, family)
    ]
    return there if protocol == "tcp" else [*there, nft.map_ports(table, _UDP_BACK, {listener_port: port})]


def remove(
    table: Table, protocol: Protocol, port: int, listener_port: int, family: AddressFamily | None = None
) -> list[Request]:
    """The port is the target's again."""
    there = [nft.unmap_ports(table, _map_of(protocol, version), [port]) for version in _versions(table, family)]
    return there if protocol == "tcp" else [*there, nft.unmap_ports(table, _UDP_BACK, [listener_port])]


def _versions(table: Table, family: AddressFamily | None) -> list[AddressFamily]:
    """Those that are meant and that the table sees."""
    return [each for each in families.each(family) if table.family in (Family.INET, _VERSIONS[each])]


def _map_of(protocol: Protocol, version: AddressFamily) -> str:
    """The map from the target's ports to those of listeners."""
    return f"{protocol}-ports-{version}"


def _chain(
    table: Table, name: str, chain_type: str, hook: Hook, priority: int, rules: list[list[Expression]]
) -> list[Request]:
    chain = nft.new_base_chain(table, name, chain_type, hook, priority)
    return [chain, *(nft.new_rule(table, name, rule) for rule in rules)]


def _own_marks(order: int) -> list[Expression]:
    return [
        *load_mark(Register.FIRST),
        compare(Register.FIRST, Comparison.GTE, mark_bytes(mark_of(1))),
        compare(Register.FIRST, Comparison.LTE, mark_bytes(mark_of(order))),
        return_(),
    ]


def _is(protocol: Protocol) -> list[Expression]:
    return [load_protocol(Register.FIRST), compare(Register.FIRST, Comparison.EQ, _NUMBERS[protocol])]


def _is_of(version: AddressFamily) -> list[Expression]:
    return [load_family(Register.FIRST), compare(Register.FIRST, Comparison.EQ, bytes([_VERSIONS[version]]))]


def _take_tcp(family: Family, version: AddressFamily) -> list[Expression]:
    return [
        *_is_of(version),
        *_is("tcp"),
        load_transport(Register.FIRST, *_TCP_FLAGS),
        keep_bits(Register.FIRST, _FIN_SYN_RST_ACK),
        compare(Register.FIRST, Comparison.EQ, _SYN),
        *destination_is_local(Register.FIRST),
        load_transport(Register.FIRST, *_DESTINATION_PORT),
        look_up(Register.FIRST, _map_of("tcp", version), Register.SECOND),
        change_destination_port(Register.SECOND, family),
    ]


def _take_udp(version: AddressFamily, *, with_checksum: bool) -> list[Expression]:
    return [
        *_is_of(version),
        *_is_udp(with_checksum=with_checksum),
        *destination_is_local(Register.FIRST),
        *_rewrite_port(_DESTINATION_PORT, _map_of("udp", version), with_checksum=with_checksum),
    ]


def _give_back_udp(*, with_checksum: bool) -> list[Expression]:
    return [
        *_is_udp(with_checksum=with_checksum),
        *_rewrite_port(_SOURCE_PORT, _UDP_BACK, with_checksum=with_checksum),
    ]


def _is_udp(*, with_checksum: bool) -> list[Expression]:
    comparison = Comparison.NEQ if with_checksum else Comparison.EQ
    return [
        *_is("udp"),
        load_transport(Register.FIRST, *_UDP_CHECKSUM),
        compare(Register.FIRST, comparison, _NO_CHECKSUM),
    ]


def _rewrite_port(field: tuple[int, int], name: str, *, with_checksum: bool) -> list[Expression]:
    """Once: what it becomes may be in the map as well."""
    return [
        load_transport(Register.FIRST, *field),
        look_up(Register.FIRST, name, Register.SECOND),
        store_transport(Register.SECOND, *field, checksum_offset=_UDP_CHECKSUM[0] if with_checksum else None),
        return_(),
    ]
