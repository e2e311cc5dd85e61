"""Connections to ports of the target, read off captured packets: what a server behind these ports would be told.

The target is never asked and never notices; so its own packets, where they are captured beside those of its clients,
have to say what it knows. How they are read:

- A connection begins with a SYN that was seen here. Its data counts from the client's acknowledgment on, which follows
  the target's SYN-ACK: until then it is a handshake, one of many that come to nothing. Data in the SYN itself (TCP Fast
  Open, RFC 7413) is the beginning of the stream, whether the target takes it there or has it sent again.
- What comes in order is passed on at once, not when the target acknowledges it: were it lost to the target, the client
  would send the same bytes again. What is missing is waited for, as the target does. If the target acknowledges it
  though, it is known to be lost here only, and the connection is cut. The order of the two is certain: a socket that
  captures gets a packet before the target's TCP does, and hence before what the target answers.
- An end is an end of the client's half. The target's half is looked at for its FIN, which lets a connection be
  forgotten, and for its RST, which ends both.
- A client that begins again from the same port has the former connection behind it, and so has the target if it agrees
  (SYN-ACK, or the client's acknowledgment of one): it would answer otherwise as long as it had the former one.
- To capture the target's packets costs it more than those of its clients, so they may be missing. Then its end, FIN or
  RST, is not known, and a loss here is known only when later packets have come.
- Seen twice, on loopback once going out and once coming in, a TCP segment is a duplicate like any other. Datagrams have
  nothing to know duplicates by: the capture must give each of them once.
- Urgent data stay in line (RFC 6093). Whether they do in the target's program is its own choice (SO_OOBINLINE).

Everything that is kept is bounded by `Limits`. Who is in a position to forge packets between the target and its clients
can spoil what is seen here, as he can spoil the connections themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from mirrord_agent.incoming import families
from mirrord_agent.incoming.events import Cut, Data, Datagram, Eof, Event, Opened, Reset
from mirrord_agent.incoming.families import Port
from mirrord_agent.incoming.handshakes import Handshake, Handshakes, begins_connection
from mirrord_agent.incoming.packets import (
    ACK,
    FIN,
    RST,
    SYN,
    Buffer,
    TcpSegment,
    UdpDatagram,
    Undecoded,
    decode,
    destination_address,
    destination_port,
    endpoints,
)
from mirrord_agent.incoming.stream import MAX_WINDOW, SEQUENCES, Stream, distance
from mirrord_agent.wire.frames import AddressFamily

_NOTHING: Final[Sequence[Event]] = ()
_CONTROL: Final = SYN | RST | FIN | ACK
_BEGUN_AGAIN: Final = "its client has begun another from the same port, and how it ended was not seen here"


@attrs.frozen
class Limits:
    """How much is kept at most, and how long."""

    connections: int = 16384
    handshakes: int = 4096
    held_bytes: int = 8 << 20
    """What one connection holds behind a gap, overhead included. Linux offers windows of 6 MiB (tcp_rmem, tcp(7))."""
    held_segments: int = 8192
    all_held_bytes: int = 32 << 20
    """What all of them hold."""
    gap_s: float = 30.0
    """How long a gap may stay. The sixth retransmission of Linux is over by then (RFC 6298, tcp_retries2 in tcp(7))."""
    handshake_s: float = 75.0
    """How long a handshake may take: the target repeats its SYN-ACK for 63 s (tcp_synack_retries, tcp(7))."""
    half_closed_s: float = 120.0
    """How long a connection is remembered on which the client has ended and nothing moves."""


@attrs.define(eq=False)
class _Connection:
    number: int
    flow: bytes
    back: bytes
    stream: Stream
    seen_s: float
    """When a packet of either side was last seen."""
    target_sequence: int | None
    """The last sequence number of the target that was seen, or acknowledged by the client."""
    target_ended: bool = False
    is_plain: bool = False
    """Whether what comes in order can be passed on without further ado."""
    gap_since_s: float = 0.0


class Reassembler:
    """Packets in, events out. Time is whatever monotonic clock the caller has, in seconds.

    `is_local` tells of a packed address (4 or 16 bytes) whether it is one of the target's: elsewhere there are other
    servers with the same ports, which packets in a network namespace may be addressed to. It is asked for each SYN and
    datagram to a subscribed port.
    """

    def __init__(self, is_local: Callable[[bytes], bool] = lambda address: True, limits: Limits | None = None) -> None:
        self.undecoded: Counter[Undecoded] = Counter()
        """Packets that were of no use, by reason."""
        self._is_local = is_local
        self._limits = limits or Limits()
        self._tcp_ports: set[Port] = set()
        self._udp_ports: set[Port] = set()
        self._handshakes = Handshakes(self._limits.handshakes, self._limits.handshake_s)
        self._connections: dict[int, _Connection] = {}
        self._by_flow: dict[bytes, _Connection] = {}
        self._by_back: dict[bytes, _Connection] = {}
        self._gaps: dict[int, _Connection] = {}
        """The connections that something is missing of."""
        self._half_closed: dict[int, _Connection] = {}
        """Those on which the client has ended."""
        self._opened = 0
        self._held_by_streams = 0

    @property
    def held_bytes(self) -> int:
        """What is kept of packets, overhead included."""
        return self._held_by_streams + self._handshakes.held_bytes

    @property
    def forgotten_handshakes(self) -> int:
        """Beginnings given up because there were too many at once; what becomes of them is not seen."""
        return self._handshakes.forgotten

    @property
    def connections(self) -> int:
        """Connections that are followed."""
        return len(self._connections)

    @property
    def needs_payloads(self) -> bool:
        """Whether what the next packet carries may be of use, and not only how it begins."""
        return bool(self.is_busy or self._udp_ports)

    @property
    def is_busy(self) -> bool:
        """Whether there are connections, or beginnings of some: what the target sends is of use only then."""
        return bool(self._connections or self._handshakes)

    @property
    def has_gaps(self) -> bool:
        """Whether something is missing that the target may have got."""
        return bool(self._gaps)

    @property
    def tcp_ports(self) -> frozenset[Port]:
        """The ports whose TCP packets, to and from, are needed: subscribed ones and those of open connections."""
        return frozenset(self._tcp_ports).union(map(_port_of, self._by_flow))

    @property
    def udp_ports(self) -> frozenset[Port]:
        """The ports to which UDP packets are needed."""
        return frozenset(self._udp_ports)

    def subscribe(self, port: int, family: AddressFamily | None = None) -> None:
        """Follows the connections to a port, by a version of IP or by both, that begin from now on."""
        self._tcp_ports |= families.ports(port, family=family)

    def unsubscribe(self, port: int, family: AddressFamily | None = None) -> None:
        """Follows no new ones. Those that are open go on, as they do when a listener is closed."""
        gone = families.ports(port, family=family)
        self._tcp_ports -= gone
        self._handshakes.forget(lambda flow: _port_of(flow) in gone)

    def subscribe_datagrams(self, port: int, family: AddressFamily | None = None) -> None:
        """Tells datagrams to a UDP port from now on, by a version of IP or by both."""
        self._udp_ports |= families.ports(port, family=family)

    def unsubscribe_datagrams(self, port: int, family: AddressFamily | None = None) -> None:
        """Tells none any more."""
        self._udp_ports -= families.ports(port, family=family)

    def forget(self, connection: int) -> None:
        """Nobody wants to know about a connection any more. One that is over already may be forgotten too."""
        if found := self._connections.get(connection):
            self._remove(found)

    def feed(self, packet: Buffer, now_s: float) -> Sequence[Event]:
        """What a captured packet means. It begins with the IP header; nothing of it is kept uncopied. Never raises."""
        segment = decode(packet)
        if isinstance(segment, TcpSegment):
            flow, sequence, acknowledgment, flags, length, payload = segment
            connection = self._by_flow.get(flow)
            if connection is not None:
                connection.seen_s = now_s
                stream = connection.stream
                if (
                    connection.is_plain
                    and sequence == stream.position % SEQUENCES
                    and flags & _CONTROL == ACK
                    and len(payload) == length
                ):
                    connection.target_sequence = acknowledgment
                    if not length:
                        return _NOTHING
                    stream.position += length
                    return (Data(connection.number, bytes(payload)),)
                return self._from_client(connection, segment, now_s)
            connection = self._by_back.get(flow)
            if connection is not None:
                connection.seen_s = now_s
                if flags & _CONTROL == ACK and (connection.stream.position - acknowledgment) % SEQUENCES < MAX_WINDOW:
                    connection.target_sequence = sequence
                    return _NOTHING
                return self._from_target(connection, segment)
            return self._of_none(segment, now_s)
        if isinstance(segment, UdpDatagram):
            return self._datagram(segment)
        self.undecoded[segment] += 1
        return _NOTHING

    def expire(self, now_s: float) -> list[Event]:
        """What the passing of time means. To be called every now and then, once a second, say."""
        limits = self._limits
        self._handshakes.expire(now_s)
        for connection in list(self._half_closed.values()):
            if connection.seen_s + limits.half_closed_s <= now_s:
                self._remove(connection)
        return [
            self._cut(connection, f"{_missing(connection.stream)}, and did not come within {limits.gap_s:g} s")
            for connection in list(self._gaps.values())
            if connection.gap_since_s + limits.gap_s <= now_s
        ]

    def _datagram(self, datagram: UdpDatagram) -> Sequence[Event]:
        flow = datagram.flow
        if _port_of(flow) not in self._udp_ports or not self._is_local(destination_address(flow)):
            return _NOTHING
        return (Datagram(*endpoints(flow), bytes(datagram.payload)),)

    def _of_none(self, segment: TcpSegment, now_s: float) -> Sequence[Event]:
        """A segment that belongs to no connection."""
        if begins_connection(segment):
            self._begin(segment, now_s)
        elif handshake := self._handshakes.completed_by(segment):
            return self._open(handshake, segment, now_s)
        else:
            self._handshakes.is_accepted_by(segment)
        return _NOTHING

    def _begin(self, syn: TcpSegment, now_s: float) -> None:
        flow = syn.flow
        if _port_of(flow) in self._tcp_ports and self._is_local(destination_address(flow)):
            self._handshakes.begin(syn, now_s, self._limits.all_held_bytes - self.held_bytes)

    def _open(self, handshake: Handshake, segment: TcpSegment, now_s: float) -> Sequence[Event]:
        events = self._make_room()
        self._opened += 1
        syn = handshake.syn
        connection = _Connection(
            self._opened, syn.flow, handshake.back, Stream(syn.sequence), now_s, handshake.target_initial
        )
        self._connections[connection.number] = connection
        self._by_flow[connection.flow] = self._by_back[connection.back] = connection
        events.append(Opened(connection.number, *endpoints(connection.flow)))
        for each in (syn._replace(sequence=(syn.sequence + 1) % SEQUENCES), segment):
            if connection.number in self._connections:
                events += self._add(connection, each, now_s)
        return events

    def _make_room(self) -> list[Event]:
        """Gives up a connection if there are too many: the first that has said all, or else the one longest idle."""
        if len(self._connections) < self._limits.connections:
            return []
        victim = next(iter(self._half_closed.values()), None)
        if victim is None:
            victim = min(self._connections.values(), key=lambda each: each.seen_s)
        return self._give_up(victim, f"it was idle when there were more than {self._limits.connections} connections")

    def _from_client(self, connection: _Connection, segment: TcpSegment, now_s: float) -> Sequence[Event]:
        """A segment that is not simply the next."""
        stream, flags = connection.stream, segment.flags
        if flags & SYN:
            return self._begins_again(connection, segment, now_s)
        if flags & RST:
            position = stream.nearest(segment.sequence)
            if position is not None and stream.is_reset_at(position):
                self._remove(connection)
                return (Reset(connection.number, by_target=False),)
            if position is not None:
                stream.sent_up_to(position)
                self._watch(connection, now_s)
            return _NOTHING
        if handshake := self._handshakes.acknowledged_by(segment):
            return [*self._give_up(connection, _BEGUN_AGAIN), *self._open(handshake, segment, now_s)]
        if not flags & ACK or stream.nearest(segment.sequence) is None:
            return _NOTHING
        connection.target_sequence = segment.acknowledgment
        return self._add(connection, segment, now_s)

    def _begins_again(self, connection: _Connection, syn: TcpSegment, now_s: float) -> Sequence[Event]:
        """Another SYN on a connection. The target has to agree, if the client has not ended this one."""
        if begins_connection(syn) and syn.sequence != connection.stream.initial % SEQUENCES:
            if connection.stream.has_ended:
                self._remove(connection)
            self._begin(syn, now_s)
        return _NOTHING

    def _add(self, connection: _Connection, segment: TcpSegment, now_s: float) -> list[Event]:
        """Takes what a segment of the client carries."""
        stream = connection.stream
        position = stream.nearest(segment.sequence)
        if position is None:
            return []
        before = stream.cost
        chunks = stream.add(position, segment.length, segment.payload, fin=bool(segment.flags & FIN))
        self._held_by_streams += stream.cost - before
        events: list[Event] = [Data(connection.number, chunk) for chunk in chunks]
        if chunks:
            self._gaps.pop(connection.number, None)
        self._watch(connection, now_s)
        if stream.has_ended and connection.number not in self._half_closed:
            self._half_closed[connection.number] = connection
            events.append(Eof(connection.number))
            if connection.target_ended:
                self._remove(connection)
        elif stream.cost > self._limits.held_bytes or stream.held_segments > self._limits.held_segments:
            events.append(self._cut(connection, f"{_missing(stream)}, and too much came behind them"))
        while self.held_bytes > self._limits.all_held_bytes and self._gaps:
            largest = max(self._gaps.values(), key=lambda each: each.stream.cost)
            reason = f"{_missing(largest.stream)}, and too much came behind them and on other connections"
            events.append(self._cut(largest, reason))
        return events

    def _watch(self, connection: _Connection, now_s: float) -> None:
        """Notes whether something is missing, and since when."""
        stream, number = connection.stream, connection.number
        connection.is_plain = not (stream.has_gap or stream.has_ended)
        if not stream.has_gap:
            self._gaps.pop(number, None)
        elif number not in self._gaps:
            self._gaps[number] = connection
            connection.gap_since_s = now_s

    def _from_target(self, connection: _Connection, segment: TcpSegment) -> Sequence[Event]:
        """A segment of the target that does not simply acknowledge what was seen."""
        flags, stream, number = segment.flags, connection.stream, connection.number
        if flags & SYN:
            return self._give_up(connection, _BEGUN_AGAIN) if self._handshakes.is_accepted_by(segment) else _NOTHING
        former = connection.target_sequence
        if former is not None and abs(distance(segment.sequence, former)) >= MAX_WINDOW:
            return _NOTHING
        if flags & RST:
            self._remove(connection)
            return (Reset(number, by_target=True),)
        acknowledged = stream.nearest(segment.acknowledgment) if flags & ACK else None
        if acknowledged is not None and acknowledged > stream.position and not stream.has_ended:
            stream.sent_up_to(acknowledged)
            return (self._cut(connection, f"packets were lost here: {_missing(stream)}"),)
        if flags & FIN:
            connection.target_ended = True
            if stream.has_ended:
                self._remove(connection)
        return _NOTHING

    def _give_up(self, connection: _Connection, reason: str) -> list[Event]:
        """Cuts a connection, if that is not all the same to whoever follows it."""
        if connection.stream.has_ended:
            self._remove(connection)
            return []
        return [self._cut(connection, reason)]

    def _cut(self, connection: _Connection, reason: str) -> Cut:
        self._remove(connection)
        return Cut(connection.number, reason)

    def _remove(self, connection: _Connection) -> None:
        """Forgets a connection. What still comes of it belongs to none, until there is another SYN."""
        self._held_by_streams -= connection.stream.cost
        del self._connections[connection.number], self._by_flow[connection.flow], self._by_back[connection.back]
        self._gaps.pop(connection.number, None)
        self._half_closed.pop(connection.number, None)


def _missing(stream: Stream) -> str:
    count = stream.missing
    if count > 1:
        what = f"{count} bytes are"
    else:
        what = "1 byte is" if stream.held_segments else "1 byte, or the end, is"  # a FIN counts like a byte
    return f"{what} missing after the first {stream.passed_on}"


def _port_of(flow: bytes) -> Port:
    """Where packets of this flow go."""
    return families.family_of(destination_address(flow)), destination_port(flow)
