"""UDP sockets of this process, between the handlers and a pod whose agent is a fake."""

import errno
import gc
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from mirrord_agent.wire.frames import InetEndpoint
from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, Unspecified, encode_sockaddr, to_mapped
from mirrord_syscalls.structs import ControlMessage, decode_control, encode_control
from mirrord_trace.policy.outgoing import OutgoingPolicy
from mirrord_trace.relay import udp
from mirrord_trace.supervisor.delivery.base import PASS, Fail, PresentAddresses, UseAddress, UseAddresses
from mirrord_trace.supervisor.socket_table import Datagrams
from tests.mirrord_agent.support import in_trio
from tests.mirrord_trace.support import (
    PEER,
    PEER6,
    POD,
    Machine,
    Page,
    Sent,
    call_of,
    connect_call,
    inet,
    inode_of,
    machine,
    name_of,
    open_descriptors,
    sendmmsg_call,
    sendmsg_call,
    sendto_call,
)

END = InetEndpoint("198.18.0.10", 8080)
OTHER = inet("198.18.0.11", 53)
PKTINFO = ControlMessage(socket.IPPROTO_IP, 8, struct.pack("=I4s4s", 2, socket.inet_aton(POD), bytes(4)))
TOS = ControlMessage(socket.IPPROTO_IP, socket.IP_TOS, struct.pack("=i", 16))


@contextmanager
def datagram(family: int = socket.AF_INET) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.setblocking(False)
        yield made


def presented(here: Machine, of: socket.socket) -> PresentAddresses:
    verdict = here.sockets.receive(call_of("recvfrom", of.fileno()))
    assert isinstance(verdict, PresentAddresses)
    return verdict


async def received(here: Machine, of: socket.socket) -> tuple[bytes, SocketAddress]:
    """recvfrom(2) as the process sees it."""
    show = presented(here, of)
    await trio.lowlevel.wait_readable(of)
    data, name = of.recvfrom(65536)
    return data, show.translate(inet(*name[:2]))


@in_trio
async def test_datagrams_to_many_peers_come_from_one_socket_of_the_pod() -> None:
    async with machine() as here:
        with datagram() as mine:
            for peer, data in ((PEER, b"one"), (OTHER, b""), (PEER, bytes(65507))):
                assert await here.sendto(mine, data, peer) == len(data)
            (flow,) = here.target.flows
            await flow.until_sent(3)
            # Ports are read by tasks of their own: only what goes to one peer is in order.
            assert [data for data, to in flow.sent if to == END] == [b"one", bytes(65507)]
            assert (b"", InetEndpoint("198.18.0.11", 53)) in flow.sent
            for data, source in ((b"answer", PEER), (b"", OTHER), (bytes(65507), inet("198.18.9.9", 9))):
                flow.gives(data, InetEndpoint(str(source.host), source.port))
                assert await received(here, mine) == (data, source)


@in_trio
async def test_a_dual_stack_socket_has_peers_of_both_families() -> None:
    async with machine() as here:
        with datagram(socket.AF_INET6) as mine:
            for peer in (PEER6, to_mapped(PEER), PEER):
                assert await here.sendto(mine, b"x", peer) == 1
            assert len(here.target.flows) == 2
            for flow, (text, source) in zip(
                here.target.flows, [("fd00:198:18::10", PEER6), ("198.18.0.10", to_mapped(PEER))], strict=True
            ):
                await flow.until_sent(1)
                flow.gives(b"y", InetEndpoint(text, 8080))
                assert await received(here, mine) == (b"y", source)


@in_trio
async def test_a_machine_without_ipv6_loopback_still_reaches_ipv6_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "LOOPBACK6", "2001:db8::1")  # no address of this machine, as ::1 then
    async with machine() as here:
        with datagram(socket.AF_INET6) as mine:
            assert await here.sendto(mine, b"x", PEER6) == 1
            (flow,) = here.target.flows
            await flow.until_sent(1)
            flow.gives(b"y", InetEndpoint("fd00:198:18::10", 8080))
            assert await received(here, mine) == (b"y", PEER6)


@in_trio
async def test_a_connected_socket_has_the_names_that_it_has_in_the_pod() -> None:
    async with machine() as here:
        with datagram() as mine:
            assert await here.connect(mine, PEER) == 0
            (flow,) = here.target.flows
            assert flow.peer == END
            names = [
                verdict.translate(Unspecified())
                for verdict in (
                    here.sockets.getpeername(call_of("getpeername", mine.fileno())),
                    here.sockets.getsockname(call_of("getsockname", mine.fileno())),
                )
                if isinstance(verdict, PresentAddresses)
            ]
            assert names == [PEER, inet(POD, 41000)]
            flow.gives(b"first")  # before the process has sent anything
            assert await received(here, mine) == (b"first", PEER)
            mine.send(b"ping")
            assert await here.sendto(mine, b"pong", PEER) == 4
            await flow.until_sent(2)
            assert flow.sent == [(b"ping", None), (b"pong", None)]


@in_trio
async def test_a_socket_is_connected_to_one_peer_after_the_other_and_to_none() -> None:
    async with machine() as here:
        with datagram() as mine, datagram() as near:
            near.bind(("127.0.0.1", 0))
            for number, peer in enumerate((PEER, OTHER, PEER)):
                assert await here.connect(mine, peer) == 0
                mine.send(b"x")
                await here.target.flows[number].until_sent(1)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert [flow.is_closed for flow in here.target.flows] == [True, True, False]
            here.target.datagram_error = OSError(errno.ENETUNREACH, "no route")
            assert await here.connect(mine, inet("198.18.200.1", 1)) == -errno.ENETUNREACH
            mine.send(b"still the old one")
            await here.target.flows[2].until_sent(2)
            assert await here.connect(mine, Unspecified()) == 0
            assert here.table.get(inode_of(mine)) is None
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert here.target.flows[2].is_closed


@in_trio
async def test_a_socket_that_turns_to_a_local_peer_is_forgotten_once_that_worked() -> None:
    policy = OutgoingPolicy(ignore_localhost=True)
    async with machine(policy) as here:
        with datagram() as mine, datagram() as near:
            near.bind(("127.0.0.1", 0))
            assert await here.connect(mine, PEER) == 0
            local = inet(*near.getsockname())
            verdict = here.sockets.connect(connect_call(mine, local))
            assert isinstance(verdict, UseAddress)
            assert verdict.address == local
            assert verdict.done(-errno.EINVAL) == -errno.EINVAL
            assert isinstance(here.table.get(inode_of(mine)), Datagrams)
            verdict.done(0)
            assert here.table.get(inode_of(mine)) is None


@in_trio
async def test_an_icmp_error_of_a_connected_socket_reaches_the_process() -> None:
    async with machine() as here:
        with datagram() as mine:
            assert await here.connect(mine, PEER) == 0
            (flow,) = here.target.flows
            for _ in range(3):
                flow.gives(OSError(errno.ECONNREFUSED, "refused"))
                await trio.testing.wait_all_tasks_blocked(0.01)
                with pytest.raises(ConnectionRefusedError):
                    mine.recv(1)
            mine.send(b"again")
            await flow.until_sent(1)
            assert flow.sent == [(b"again", None)]


@in_trio
async def test_an_icmp_error_whose_port_was_taken_meanwhile_moves_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    async with machine() as here:
        with datagram() as mine, datagram() as thief:
            assert await here.connect(mine, PEER) == 0
            provoke = udp._provoke_refusal

            def provoke_and_steal(borrowed: socket.socket) -> None:
                provoke(borrowed)
                thief.bind(borrowed.getpeername())

            monkeypatch.setattr(udp, "_provoke_refusal", provoke_and_steal)
            (flow,) = here.target.flows
            flow.gives(OSError(errno.ECONNREFUSED, "refused"))
            await trio.testing.wait_all_tasks_blocked(0.01)
            with pytest.raises(ConnectionRefusedError):
                mine.recv(1)
            mine.send(b"to the new port")
            await flow.until_sent(1)
            with pytest.raises(BlockingIOError):
                thief.recv(1)


@in_trio
async def test_more_peers_than_ports_and_every_datagram_finds_its_peer() -> None:
    async with machine() as here:
        before = open_descriptors()
        with datagram() as mine:
            peers = [inet(f"198.18.{number >> 8}.{number & 255}", 53) for number in range(700)]
            for number, peer in enumerate(peers):
                assert await here.sendto(mine, b"%d" % number, peer) > 0
                if number % 100 == 99:
                    await here.target.flows[0].until_sent(number + 1)
            (flow,) = here.target.flows
            await flow.until_sent(700)
            assert {to.host: int(data) for data, to in flow.sent if to} == {
                str(peer.host): number for number, peer in enumerate(peers)
            }
            assert open_descriptors() - before <= 2 * udp.PEERS_PER_SOCKET + 4


@in_trio
async def test_a_datagram_on_its_way_to_a_retired_port_arrives_and_its_answer_is_named() -> None:
    async with machine() as here:
        with datagram() as mine:
            verdict = await here.decide(here.sockets.sendto(sendto_call(mine, PEER)))
            assert isinstance(verdict, UseAddress)
            record = here.table.get(inode_of(mine))
            assert isinstance(record, Datagrams)
            assert record.to_others is not None
            for number in range(udp.PEERS_PER_SOCKET):
                await record.to_others.open(inet(f"198.18.1.{number}", 53), None)
            assert record.to_others.known(PEER) is None
            mine.sendto(b"late", name_of(verdict.address))
            await here.target.flows[0].until_sent(1)
            assert here.target.flows[0].sent == [(b"late", END)]
            assert presented(here, mine).translate(verdict.address) == PEER


@in_trio
async def test_what_was_sent_before_a_socket_was_closed_goes_out_and_nothing_stays() -> None:
    async with machine() as here:
        before = open_descriptors()
        with datagram() as mine:
            verdict = await here.decide(here.sockets.sendto(sendto_call(mine, PEER)))
            assert isinstance(verdict, UseAddress)
            mine.sendto(b"and gone", name_of(verdict.address))
        here.relays.drain()
        (flow,) = here.target.flows
        assert flow.sent == [(b"and gone", END)]
        with trio.fail_after(5):
            while here.relays._relays:  # noqa: ASYNC110 - the sweep says nothing
                await trio.sleep(0.05)
        assert flow.is_closed
        gc.collect()
        assert open_descriptors() == before


@in_trio
async def test_sockets_that_share_a_port_are_all_heard() -> None:
    async with machine() as here:
        with datagram() as first, datagram() as second:
            for each in (first, second):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            first.bind(("0.0.0.0", 0))
            second.bind(first.getsockname())
            for each in (first, second):
                assert await here.sendto(each, b"x", PEER) == 1
            for flow in here.target.flows:
                await flow.until_sent(1)


@in_trio
async def test_strangers_are_not_heard() -> None:
    async with machine() as here:
        with datagram() as mine, datagram() as stranger:
            verdict = await here.decide(here.sockets.sendto(sendto_call(mine, PEER)))
            assert isinstance(verdict, UseAddress)
            stranger.sendto(b"injected", name_of(verdict.address))
            mine.sendto(b"true", name_of(verdict.address))
            await here.target.flows[0].until_sent(1)
            assert here.target.flows[0].sent == [(b"true", END)]


@in_trio
async def test_a_receive_that_waits_while_another_thread_sends_first_shows_the_true_source() -> None:
    async with machine() as here:
        with datagram() as mine:
            show = presented(here, mine)
            assert show.translate(inet("127.0.0.1", 4000)) == inet("127.0.0.1", 4000)
            verdict = await here.decide(here.sockets.sendto(sendto_call(mine, PEER)))
            assert isinstance(verdict, UseAddress)
            assert show.translate(verdict.address) == PEER


@in_trio
async def test_after_the_session_is_lost() -> None:
    async with machine() as here:
        with datagram() as connected, datagram() as other:
            assert await here.connect(connected, PEER) == 0
            assert await here.sendto(other, b"x", PEER) == 1
            here.target.is_lost()
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert await here.sendto(other, b"x", PEER) == -errno.ENETUNREACH
            assert await here.sendto(other, b"x", OTHER) == -errno.ENETUNREACH
            assert await here.connect(other, PEER) == -errno.ENETUNREACH
            with pytest.raises(ConnectionRefusedError):
                connected.recv(1)  # whoever waits is told
            connected.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                connected.send(b"x")
            peer = here.sockets.getpeername(call_of("getpeername", connected.fileno()))
            assert isinstance(peer, PresentAddresses)
            assert peer.translate(Unspecified()) == PEER


@in_trio
async def test_a_relay_that_was_closed_while_the_agent_opened_its_socket_leaves_nothing() -> None:
    async with machine() as here:
        with datagram() as mine:
            here.target.may_open = trio.Event()
            results: list[int] = []

            async def send() -> None:
                results.append(await here.sendto(mine, b"x", PEER))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                await trio.testing.wait_all_tasks_blocked(0.01)
                (relay,) = here.relays._relays
                here.relays.remove(relay)
                here.target.may_open.set()
            assert results == [-errno.ENETUNREACH]
            assert here.target.flows[0].is_closed


# No datagram for the target goes to its address on this machine.

UNLABELLED = bytes(2) + encode_sockaddr(PEER)[2:]
"""An IPv4 address with AF_UNSPEC for a family, which ip(7) sockets send to."""


@pytest.mark.parametrize(
    "message",
    [
        Sent(PEER),
        Sent(UNLABELLED),
        Sent(encode_sockaddr(PEER) + bytes(200), name_length=216),
        Sent(PEER, control=encode_control([PKTINFO])),
    ],
    ids=["plain", "AF_UNSPEC", "longer than any address", "with a source"],
)
@pytest.mark.parametrize("many", [False, True])
def test_messages_for_the_target_are_redirected(message: Sent, many: bool) -> None:
    @in_trio
    async def test() -> None:
        async with machine() as here:
            with datagram() as mine:
                call = sendmmsg_call(mine, [message]) if many else sendmsg_call(mine, message)
                handler = here.sockets.sendmmsg if many else here.sockets.sendmsg
                verdict = await here.decide(handler(call))
                address = (
                    verdict.addresses[0] if isinstance(verdict, UseAddresses) else getattr(verdict, "address", PEER)
                )
                assert isinstance(address, Inet4)
                assert address.host.is_loopback

    test()


@in_trio
async def test_unlabelled_addresses_of_ipv6_sockets_are_no_destination() -> None:
    async with machine() as here:
        with datagram(socket.AF_INET6) as mine:
            assert here.sockets.sendto(sendto_call(mine, UNLABELLED)) is PASS
        with datagram() as mine:
            verdict = await here.decide(here.sockets.sendto(sendto_call(mine, UNLABELLED)))
            assert isinstance(verdict, UseAddress)


@in_trio
async def test_a_message_that_cannot_be_read_does_not_hide_those_before_it() -> None:
    async with machine() as here:
        with datagram() as mine:
            unreadable = sendmmsg_call(mine, [Sent(PEER), Sent(OTHER, is_nowhere=True), Sent(PEER)])
            verdict = await here.decide(here.sockets.sendmmsg(unreadable))
            assert isinstance(verdict, UseAddresses)
            assert len(verdict.addresses) == 1
            too_many = sendmmsg_call(mine, [Sent(PEER)], count=1000)
            # The headers end where the memory ends.
            verdict = await here.decide(here.sockets.sendmmsg(too_many))
            assert isinstance(verdict, UseAddresses)
            assert len(verdict.addresses) == 1


@in_trio
async def test_a_message_for_the_target_behind_many_others_is_not_overlooked() -> None:
    multicast = inet("224.0.0.251", 5353)
    async with machine() as here:
        with datagram() as mine:
            verdict = await here.decide(
                here.sockets.sendmmsg(sendmmsg_call(mine, [*([Sent(multicast)] * 100), Sent(PEER)]))
            )
            assert isinstance(verdict, UseAddresses)
            assert 0 < len(verdict.addresses) <= 100
            assert here.sockets.sendmmsg(sendmmsg_call(mine, [Sent(multicast)] * 5)) is PASS


@in_trio
async def test_messages_are_partly_the_targets() -> None:
    async with machine() as here:
        with datagram() as mine:
            messages = [Sent(inet("224.0.0.1", 1)), Sent(PEER, encode_control([PKTINFO, TOS])), Sent(), Sent(OTHER)]
            verdict = await here.decide(here.sockets.sendmmsg(sendmmsg_call(mine, messages)))
            assert isinstance(verdict, UseAddresses)
            assert [address is None for address in verdict.addresses] == [True, False, True, False]
            assert verdict.controls == {1: encode_control([TOS])}


@pytest.mark.parametrize(
    ("control", "kept"),
    [
        (b"", None),
        (encode_control([TOS]), None),
        (encode_control([PKTINFO]), b""),
        (encode_control([TOS, PKTINFO, TOS]), encode_control([TOS, TOS])),
    ],
)
def test_a_source_of_the_pod_is_not_asked_of_this_machine(control: bytes, kept: bytes | None) -> None:
    @in_trio
    async def test() -> None:
        async with machine() as here:
            with datagram() as mine:
                verdict = await here.decide(here.sockets.sendmsg(sendmsg_call(mine, Sent(PEER, control))))
                assert isinstance(verdict, UseAddress)
                assert verdict.control == kept
                local = Sent(inet("224.0.0.1", 1), control)
                assert here.sockets.sendmsg(sendmsg_call(mine, local)) is PASS

    test()


@in_trio
async def test_a_connected_socket_may_name_its_source_too() -> None:
    async with machine() as here:
        with datagram() as mine:
            assert await here.connect(mine, PEER) == 0
            verdict = here.sockets.sendmsg(sendmsg_call(mine, Sent(control=encode_control([PKTINFO]))))
            assert isinstance(verdict, UseAddress)
            assert verdict.address == inet(*mine.getpeername())
            assert verdict.control == b""
            assert here.sockets.sendmsg(sendmsg_call(mine, Sent(control=encode_control([TOS])))) is PASS


@in_trio
async def test_control_messages_too_long_to_look_at_fail() -> None:
    async with machine() as here:
        with datagram() as mine:
            assert here.sockets.sendmsg(sendmsg_call(mine, Sent(PEER, bytes(5000)))) == Fail(errno.ENOBUFS)


@in_trio
async def test_what_a_connected_socket_receives_shows_the_pods_address() -> None:
    async with machine() as here:
        with datagram() as mine:
            mine.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
            assert await here.connect(mine, PEER) == 0
            mine.send(b"x")
            (flow,) = here.target.flows
            await flow.until_sent(1)
            flow.gives(b"y")
            await trio.lowlevel.wait_readable(mine)
            _, control, _, _ = mine.recvmsg(10, 100)
            raw = encode_control([ControlMessage(*message) for message in control])
            show = presented(here, mine).control
            assert show is not None
            (message,) = decode_control(show(raw))
            assert message.data[4:] == socket.inet_aton(POD) * 2


@in_trio
async def test_sockets_that_are_none_fail_if_they_mean_the_target() -> None:
    async with machine() as here:
        memory = Page()
        place = memory.put(encode_sockaddr(PEER))
        local = memory.put(encode_sockaddr(inet("224.0.0.1", 1)))
        file = os.open("/dev/null", os.O_RDONLY)
        os.close(file)
        for handler, index in ((here.sockets.connect, 1), (here.sockets.sendto, 4)):
            arguments = [file, 0, 16, 0, 0, 16]
            arguments[index] = place
            assert handler(call_of("call", *arguments, memory=memory)) == Fail(errno.EBADF)
            arguments[index] = local
            assert handler(call_of("call", *arguments, memory=memory)) is PASS
        with socket.socket() as tcp:
            fast = sendmmsg_call(tcp, [Sent(PEER)], flags=socket.MSG_FASTOPEN)
            assert here.sockets.sendmmsg(fast) == Fail(errno.EOPNOTSUPP)


@pytest.mark.parametrize("peer", [PEER, PEER6, to_mapped(PEER)], ids=str)
def test_port_0_is_connected_to_but_never_sent_to(peer: Inet4 | Inet6) -> None:
    @in_trio
    async def test() -> None:
        nobody = inet(str(peer.host), 0)
        async with machine() as here:
            with datagram(socket.AF_INET if isinstance(peer, Inet4) else socket.AF_INET6) as mine:
                assert await here.connect(mine, nobody) == 0
                assert here.sockets.getpeername(call_of("getpeername", mine.fileno())) == Fail(errno.ENOTCONN)
                assert here.sockets.sendto(sendto_call(mine, nobody)) is PASS

    test()
