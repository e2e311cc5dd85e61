"""bind, listen, accept and names of real sockets of this process; what arrives at the target is scripted."""

import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from mirrord_agent.wire.frames import InetEndpoint
from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, Unix, encode_sockaddr
from mirrord_trace.policy.incoming import IncomingPolicy, Mode
from mirrord_trace.relay.addresses import address_of_name
from mirrord_trace.relay.udp import PEERS_PER_SOCKET
from mirrord_trace.supervisor.delivery.base import PASS, Call, Fail, PresentAddresses, Return, UseAddress, Verdict
from mirrord_trace.supervisor.socket_table import Datagrams
from tests.mirrord_agent.support import in_trio
from tests.mirrord_trace.support import (
    PEER,
    FakeDatagrams,
    FakeListener,
    FakeStream,
    Machine,
    Page,
    ScriptedCall,
    call_of,
    connect_call,
    inet,
    inode_of,
    machine,
    open_descriptors,
    sendto_call,
)

STEAL = IncomingPolicy(mode="steal")
CLIENT, CLIENT6 = InetEndpoint("198.18.0.7", 40007), InetEndpoint("fd00:198:18::7", 40007)
POD, POD6 = "198.18.7.1", "fd00:198:18::1"
_CAP_NET_BIND_SERVICE = 10


@contextmanager
def free_port(kind: int = socket.SOCK_STREAM) -> Iterator[int]:
    """A port that nobody has, below those that the kernel chooses: others of this machine may have it in a moment."""
    for port in range(21000, 22000):
        with socket.socket(socket.AF_INET6, kind) as probe:
            try:
                probe.bind(("::", port))
            except OSError:
                continue
        yield port
        return
    pytest.fail("no port is free")


def bind_call(of: socket.socket, address: SocketAddress) -> Call:
    memory = Page()
    raw = encode_sockaddr(address)
    return call_of("bind", of.fileno(), memory.put(raw), len(raw), memory=memory)


@attrs.define(eq=False)
class Process:
    """The process whose calls these are: this one."""

    here: Machine
    sockets: list[socket.socket] = attrs.field(factory=list)

    def make(
        self,
        family: int = socket.AF_INET,
        kind: int = socket.SOCK_STREAM,
        *,
        reuse_port: bool = False,
        only: bool = False,
    ) -> socket.socket:
        made = socket.socket(family, kind)
        self.sockets.append(made)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
        if only:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return made

    async def bind(self, of: socket.socket, address: SocketAddress) -> int:
        """bind(2): 0 or a negative errno."""
        return await self._result(await self.here.decide(self.here.incoming.bind(bind_call(of, address))), of, address)

    async def _result(self, verdict: Verdict, of: socket.socket, address: SocketAddress) -> int:
        match verdict:
            case Return(value):
                return value
            case Fail(number):
                return -number
        assert verdict is PASS
        assert isinstance(address, Inet4 | Inet6)
        try:
            of.bind((str(address.host), address.port))
        except OSError as error:
            return -(error.errno or 0)
        return 0

    async def listen(self, of: socket.socket, signal: Callable[[], bool] | None = None) -> Verdict:
        """listen(2)."""
        verdict = await self.here.decide(self.here.incoming.listen(call_of("listen", of.fileno(), 128, signal=signal)))
        if verdict is PASS:
            of.listen()
        return verdict

    async def serve(self, address: Inet4 | Inet6, **options: bool) -> socket.socket:
        """A socket that listens there."""
        made = self.make(socket.AF_INET if isinstance(address, Inet4) else socket.AF_INET6, **options)
        assert await self.bind(made, address) == 0
        assert await self.listen(made) == Return(0)
        return made

    async def accept(self, of: socket.socket) -> tuple[socket.socket, SocketAddress]:
        """accept(2): the socket, and what is shown."""
        verdict = self.here.incoming.accept(call_of("accept4", of.fileno(), 1, 1))
        accepted, name = await trio.to_thread.run_sync(of.accept)
        self.sockets.append(accepted)
        real = address_of_name(name)
        return accepted, verdict.translate(real) if isinstance(verdict, PresentAddresses) else real

    def name(self, of: socket.socket, call: str) -> SocketAddress:
        """getsockname(2) or getpeername(2)."""
        verdict = getattr(self.here.sockets, call)(call_of(call, of.fileno()))
        real = address_of_name(getattr(of, call)())
        return verdict.translate(real) if isinstance(verdict, PresentAddresses) else real

    def listener(self, index: int = -1) -> FakeListener:
        return self.here.target.incoming.listeners[index]

    def arrives(self, peer: InetEndpoint = CLIENT, port: int = 80, index: int = -1) -> FakeStream:
        """A connection has come to the target."""
        local = InetEndpoint(POD6 if ":" in peer.host else POD, port)
        stream = FakeStream(local=local, peer=peer)
        self.listener(index).arrives(stream)
        return stream


@asynccontextmanager
async def process(policy: IncomingPolicy = STEAL) -> AsyncIterator[Process]:
    async with machine(incoming=policy, tree=[os.getpid()]) as here:
        made = Process(here)
        try:
            yield made
        finally:
            for each in made.sockets:
                each.close()


def seen(endpoint: InetEndpoint, like: socket.socket) -> SocketAddress:
    """How a socket shows a client."""
    mapped = like.family == socket.AF_INET6 and ":" not in endpoint.host
    return inet(f"::ffff:{endpoint.host}" if mapped else endpoint.host, endpoint.port)


@pytest.mark.parametrize(
    ("bound", "client"),
    [
        ("0.0.0.0", CLIENT),
        ("127.0.0.1", CLIENT),
        ("::", CLIENT),
        ("::", CLIENT6),
        ("::1", CLIENT),
        ("::1", CLIENT6),
    ],
)
def test_what_arrives_is_accepted_with_its_true_names(bound: str, client: InetEndpoint) -> None:
    @in_trio
    async def test() -> None:
        with free_port() as port:
            async with process() as it:
                listening = await it.serve(inet(bound, port))
                assert it.name(listening, "getsockname") == inet(bound, port)
                stream = it.arrives(client, port)
                accepted, shown = await it.accept(listening)
                assert shown == seen(client, listening)
                assert it.name(accepted, "getpeername") == shown
                local = InetEndpoint(POD6 if ":" in client.host else POD, port)
                assert it.name(accepted, "getsockname") == seen(local, listening)
                stream.gives(b"question", b"")
                assert await trio.to_thread.run_sync(accepted.recv, 99) == b"question"
                accepted.sendall(b"answer")
                accepted.close()
                await stream.until(lambda: stream.has_closed)
                assert (bytes(stream.sent), stream.is_eof_sent, stream.has_reset) == (b"answer", True, False)

    test()


@in_trio
async def test_names_are_known_of_a_socket_that_was_accepted_unseen_and_after_its_end() -> None:
    with free_port() as port:
        async with process() as it:
            listening = await it.serve(inet("0.0.0.0", port))
            stream = it.arrives()
            accepted, _ = await trio.to_thread.run_sync(listening.accept)
            it.sockets.append(accepted)
            stream.gives(OSError(errno.ECONNRESET, "reset"))
            with pytest.raises(ConnectionResetError):
                await trio.to_thread.run_sync(accepted.recv, 1)
            await stream.until(lambda: stream.has_closed)
            verdict = it.here.sockets.getsockname(call_of("getsockname", accepted.fileno()))
            assert isinstance(verdict, PresentAddresses)
            assert verdict.translate(inet("127.0.0.1", 1)) == inet(POD, port)


@in_trio
async def test_a_socket_that_is_told_of_when_it_is_accepted_need_not_be_looked_at() -> None:
    with free_port() as port:
        async with process() as it:
            listening = await it.serve(inet("0.0.0.0", port))
            it.arrives(CLIENT, port)
            verdict = it.here.incoming.accept(call_of("accept4", listening.fileno(), 1, 1))
            accepted, name = await trio.to_thread.run_sync(listening.accept)
            it.sockets.append(accepted)
            assert isinstance(verdict, PresentAddresses)
            assert verdict.accepted is not None
            assert verdict.translate(address_of_name(name)) == seen(CLIENT, listening)
            assert it.here.incoming.ports.arrivals.of_socket(inode_of(accepted)) is None
            verdict.accepted(inode_of(accepted))
            arrival = it.here.incoming.ports.arrivals.of_socket(inode_of(accepted))
            assert arrival is not None
            assert arrival.local == inet(POD, port)


@in_trio
async def test_what_ends_before_it_is_accepted_is_still_shown() -> None:
    with free_port() as port:
        async with process() as it:
            listening = await it.serve(inet("0.0.0.0", port))
            stream = it.arrives()
            stream.gives(b"brief", OSError(errno.ECONNRESET, "reset"))
            await stream.until(lambda: stream.has_closed)
            _, shown = await it.accept(listening)
            assert shown == inet(CLIENT.host, CLIENT.port)


def test_what_was_reset_is_shown_whenever_it_is_accepted_and_asked_for() -> None:
    clock = trio.testing.MockClock()

    async def test() -> None:
        with free_port() as port:
            async with process() as it:
                listening = await it.serve(inet("0.0.0.0", port))
                for _ in range(2):
                    stream = it.arrives()
                    stream.gives(b"brief", OSError(errno.ECONNRESET, "reset"))
                    await stream.until(lambda stream=stream: stream.has_closed)  # type: ignore[misc]
                for _ in range(10):
                    await trio.testing.wait_all_tasks_blocked(0.01)
                    clock.jump(10)
                _, shown = await it.accept(listening)
                assert shown == inet(CLIENT.host, CLIENT.port)
                accepted, _ = await trio.to_thread.run_sync(listening.accept)
                it.sockets.append(accepted)
                verdict = it.here.sockets.getsockname(call_of("getsockname", accepted.fileno()))
                assert isinstance(verdict, PresentAddresses)
                assert verdict.translate(inet("127.0.0.1", 1)) == inet(POD, port)

    trio.run(test, clock=clock)


@in_trio
async def test_who_is_accepted_while_it_ends_is_shown() -> None:
    with free_port() as port:
        async with process() as it:
            listening = await it.serve(inet("0.0.0.0", port))
            stream = it.arrives()
            verdict = it.here.incoming.accept(call_of("accept4", listening.fileno(), 1, 1))
            accepted, name = await trio.to_thread.run_sync(listening.accept)
            it.sockets.append(accepted)
            stream.gives(OSError(errno.ECONNRESET, "reset"))
            await stream.until(lambda: stream.has_closed)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert isinstance(verdict, PresentAddresses)
            assert verdict.translate(address_of_name(name)) == inet(CLIENT.host, CLIENT.port)


@in_trio
async def test_a_client_of_this_machine_may_have_a_port_that_an_arrival_had() -> None:
    with free_port() as port:
        async with process() as it:
            listening = await it.serve(inet("0.0.0.0", port))
            stream = it.arrives()
            stream.gives(OSError(errno.ECONNRESET, "reset"))
            await stream.until(lambda: stream.has_closed)
            ended, name = await trio.to_thread.run_sync(listening.accept)
            it.sockets.append(ended)
            client = it.make()
            client.bind(name)
            client.connect(("127.0.0.1", port))
            accepted, shown = await it.accept(listening)
            assert shown == address_of_name(name)
            assert it.name(accepted, "getpeername") == shown


@in_trio
async def test_names_of_what_is_not_accepted_go_with_the_listener() -> None:
    with free_port() as port:
        async with process() as it:
            listening = await it.serve(inet("0.0.0.0", port))
            stream = it.arrives()
            stream.gives(OSError(errno.ECONNRESET, "reset"))
            await stream.until(lambda: stream.has_closed)
            listening.close()
            while not it.listener().is_closed:
                await trio.testing.wait_all_tasks_blocked(0.01)
            while it.here.incoming.ports.arrivals.are_named():
                await trio.testing.wait_all_tasks_blocked(0.01)


@in_trio
async def test_clients_of_this_machine_are_shown_as_they_are() -> None:
    with free_port() as port:
        async with process() as it:
            listening = await it.serve(inet("0.0.0.0", port))
            with socket.create_connection(("127.0.0.1", port)) as client:
                accepted, shown = await it.accept(listening)
                assert shown == address_of_name(client.getsockname())
                assert it.name(accepted, "getpeername") == shown
                assert it.name(accepted, "getsockname") == inet("127.0.0.1", port)


@pytest.mark.parametrize(("bound", "client"), [("0.0.0.0", CLIENT6), ("127.0.0.1", CLIENT6)])
def test_who_cannot_be_shown_is_refused(bound: str, client: InetEndpoint) -> None:
    @in_trio
    async def test() -> None:
        with free_port() as port:
            async with process() as it:
                await it.serve(inet(bound, port))
                stream = it.arrives(client)
                await stream.until(lambda: stream.has_closed)
                assert stream.reset_errno == errno.ECONNREFUSED

    test()


@in_trio
async def test_a_port_that_is_taken_here_is_replaced_and_the_user_told() -> None:
    with free_port() as port, socket.create_server(("0.0.0.0", port)):
        async with process() as it:
            # The server is of this process, but not of the tree that the handlers know.
            it.here.incoming.listeners.process_ids = tuple
            listening = await it.serve(inet("0.0.0.0", port))
            real = listening.getsockname()[1]
            assert real != port
            assert it.name(listening, "getsockname") == inet("0.0.0.0", port)
            assert it.here.target.incoming.asked == [port]
            await trio.testing.wait_all_tasks_blocked()
            assert it.here.told == [f"port {port} of this machine is taken: the command has port {real} here instead"]
            it.arrives(port=port)
            accepted, shown = await it.accept(listening)
            assert shown == inet(CLIENT.host, CLIENT.port)
            assert it.name(accepted, "getsockname") == inet(POD, port)


@in_trio
async def test_who_connects_to_a_port_that_was_replaced_reaches_its_own_tree() -> None:
    with free_port() as port, socket.create_server(("0.0.0.0", port)) as other:
        async with process() as it:
            it.here.incoming.listeners.process_ids = tuple
            listening = await it.serve(inet("127.0.0.1", port))
            other.close()
            it.here.incoming.listeners.process_ids = lambda: [os.getpid()]
            client = it.make()
            verdict = await it.here.decide(it.here.sockets.connect(connect_call(client, inet("127.0.0.1", port))))
            assert isinstance(verdict, UseAddress)
            assert verdict.address == inet("127.0.0.1", listening.getsockname()[1])


@in_trio
async def test_a_privileged_port_is_replaced() -> None:
    async with process() as it:
        made = it.make()
        verdicts: list[Verdict] = []

        def bind_as_nobody() -> None:
            _drop_capability(_CAP_NET_BIND_SERVICE)
            answer = it.here.incoming.bind(bind_call(made, inet("127.0.0.1", 81)))
            assert isinstance(answer, Return | Fail)
            verdicts.append(answer)

        thread = threading.Thread(target=bind_as_nobody)
        thread.start()
        await trio.to_thread.run_sync(thread.join)
        assert verdicts == [Return(0)]
        assert it.name(made, "getsockname") == inet("127.0.0.1", 81)
        await trio.testing.wait_all_tasks_blocked()
        [told] = it.here.told
        assert told.startswith("port 81 of this machine is for privileged users: the command has port ")


def _drop_capability(number: int) -> None:
    """For the calling thread alone (capabilities(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", 0x20080522, 0)
    room = ctypes.create_string_buffer(24)
    assert libc.capget(header, room) == 0
    effective, *rest = struct.unpack("=6I", room.raw)
    assert libc.capset(header, struct.pack("=6I", effective & ~(1 << number), *rest)) == 0


@in_trio
async def test_a_port_of_the_tree_is_taken_wherever_it_is() -> None:
    with free_port() as port, socket.create_server(("0.0.0.0", port)):
        async with process() as it:
            it.here.incoming.listeners.process_ids = tuple
            await it.serve(inet("0.0.0.0", port))
            it.here.incoming.listeners.process_ids = lambda: [os.getpid()]
            for host in ("0.0.0.0", "127.0.0.1"):
                assert await it.bind(it.make(), inet(host, port)) == -errno.EADDRINUSE
            assert await it.bind(it.make(socket.AF_INET6), inet("::", port)) == -errno.EADDRINUSE
            it.sockets.pop(0).close()
            again = it.make()
            assert await it.bind(again, inet("0.0.0.0", port)) == 0


@in_trio
async def test_sockets_that_share_a_port_share_the_one_that_replaces_it() -> None:
    with free_port() as port, socket.create_server(("0.0.0.0", port)):
        async with process() as it:
            it.here.incoming.listeners.process_ids = tuple
            first = await it.serve(inet("0.0.0.0", port), reuse_port=True)
            it.here.incoming.listeners.process_ids = lambda: [os.getpid()]
            second = await it.serve(inet("0.0.0.0", port), reuse_port=True)
            assert first.getsockname() == second.getsockname()
            assert await it.bind(it.make(), inet("0.0.0.0", port)) == -errno.EADDRINUSE
            assert it.here.target.incoming.asked == [port]
            first.close()
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not it.listener().is_closed
            it.arrives()
            _, shown = await it.accept(second)
            assert shown == inet(CLIENT.host, CLIENT.port)


@in_trio
async def test_an_address_of_the_target_is_any_of_this_machine() -> None:
    with free_port() as port:
        async with process() as it:
            listening = await it.serve(inet(POD, port))
            assert listening.getsockname() == ("0.0.0.0", port)
            assert it.name(listening, "getsockname") == inet(POD, port)
            made = it.make()
            assert await it.bind(made, inet(POD, 0)) == 0
            assert it.name(made, "getsockname") == inet(POD, made.getsockname()[1])
            assert await it.bind(it.make(), inet("198.18.99.9", port)) == -errno.EADDRNOTAVAIL


@in_trio
async def test_ports_here_that_are_configured_are_taken_or_nothing() -> None:
    with free_port() as port:
        async with process(IncomingPolicy(mode="steal", listen_ports={80: port})) as it:
            listening = await it.serve(inet("127.0.0.1", 80))
            assert listening.getsockname() == ("127.0.0.1", port)
            assert it.name(listening, "getsockname") == inet("127.0.0.1", 80)
            assert it.here.target.incoming.asked == [80]
    with free_port() as port, socket.create_server(("127.0.0.1", port)):
        async with process(IncomingPolicy(mode="steal", listen_ports={80: port})) as it:
            assert await it.bind(it.make(), inet("127.0.0.1", 80)) == -errno.EADDRINUSE
            await trio.testing.wait_all_tasks_blocked()
            assert f"port {port} cannot be had on this machine" in it.here.told[0]


@in_trio
async def test_a_mapped_port_is_the_targets_other_one() -> None:
    with free_port() as port:
        async with process(IncomingPolicy(mode="steal", port_mapping={port: 80})) as it:
            listening = await it.serve(inet("127.0.0.1", port))
            assert it.here.target.incoming.asked == [80]
            it.arrives(port=80)
            accepted, _ = await it.accept(listening)
            assert it.name(accepted, "getsockname") == inet(POD, port)


@pytest.mark.parametrize(
    "policy",
    [
        IncomingPolicy(mode=None),
        IncomingPolicy(ports=frozenset({9})),
        IncomingPolicy(ignore_localhost=True),
    ],
)
def test_a_port_that_is_not_wanted_is_this_machines(policy: IncomingPolicy) -> None:
    @in_trio
    async def test() -> None:
        with free_port() as port:
            async with process(policy) as it:
                made = it.make()
                assert it.here.incoming.bind(bind_call(made, inet("127.0.0.1", port))) is PASS
                made.bind(("127.0.0.1", port))
                assert it.here.incoming.listen(call_of("listen", made.fileno(), 1)) is PASS
                assert it.here.incoming.accept(call_of("accept", made.fileno(), 1, 1)) is PASS

    test()


@in_trio
async def test_what_is_none_of_our_business_passes() -> None:
    async with process() as it:
        stream, datagrams = it.make(), it.make(kind=socket.SOCK_DGRAM)
        for of, address in (
            (stream, inet("127.0.0.1", 0)),
            (datagrams, inet("0.0.0.0", 0)),
            (stream, inet("::1", 80)),
            (stream, Unix(b"\0name")),
            (datagrams, inet("224.0.0.251", 5353)),
        ):
            assert it.here.incoming.bind(bind_call(of, address)) is PASS
        stream.bind(("127.0.0.1", 0))
        assert it.here.incoming.listen(call_of("listen", stream.fileno(), 1)) is PASS


@in_trio
async def test_a_socket_that_is_bound_is_not_bound_again() -> None:
    with free_port() as port:
        async with process() as it:
            made = it.make()
            assert await it.bind(made, inet("127.0.0.1", port)) == 0
            assert await it.bind(made, inet("127.0.0.1", port + 1)) == -errno.EINVAL
            assert it.name(made, "getsockname") == inet("127.0.0.1", port)


@in_trio
async def test_listening_waits_for_the_agent_but_no_longer_than_a_signal_does() -> None:
    with free_port() as port:
        async with process() as it:
            it.here.target.incoming.may_answer = trio.Event()
            made = it.make()
            assert await it.bind(made, inet("127.0.0.1", port)) == 0
            with trio.move_on_after(0.05):
                await it.listen(made)
                pytest.fail("it did not wait")
            assert await it.listen(made, signal=lambda: True) == Return(0)
            it.here.target.incoming.may_answer.set()
            assert await it.listen(made) == Return(0)
            it.arrives()
            _, shown = await it.accept(made)
            assert shown == inet(CLIENT.host, CLIENT.port)
            assert it.here.target.incoming.asked == [port]


@in_trio
async def test_a_refusal_is_told_and_the_socket_listens_here() -> None:
    with free_port() as port:
        async with process() as it:
            it.here.target.incoming.refusal = OSError(errno.EADDRINUSE, "ann on devbox steals it")
            listening = await it.serve(inet("127.0.0.1", port))
            assert it.here.told == [
                f"port {port} is not stolen from the target, the command serves this machine only: "
                "ann on devbox steals it"
            ]
            with socket.create_connection(("127.0.0.1", port)):
                await it.accept(listening)


@pytest.mark.parametrize(
    ("policy", "is_told"),
    [
        (STEAL, True),
        (IncomingPolicy(mode="mirror"), False),
        (IncomingPolicy(mode="steal", http_filter="{}"), False),
    ],
)
def test_what_there_is_to_know_of_a_stolen_port_is_told_once(policy: IncomingPolicy, is_told: bool) -> None:
    @in_trio
    async def test() -> None:
        with free_port() as port:
            async with process(policy) as it:
                it.here.incoming.ports.told_when_stolen = {port: "probes come to it, too"}
                await it.serve(inet("0.0.0.0", port))
                await it.serve(inet("::", port), only=True)
                told = [f"port {port} is stolen without a filter: probes come to it, too"]
                assert it.here.told == (told if is_told else [])

    test()


@in_trio
async def test_what_is_said_of_a_port_that_is_not_stolen_is_not_told() -> None:
    with free_port() as port:
        async with process() as it:
            it.here.incoming.ports.told_when_stolen = {port: "probes come to it, too"}
            it.here.target.incoming.refusal = OSError(errno.EADDRINUSE, "ann on devbox steals it")
            await it.serve(inet("127.0.0.1", port))
            assert not any("probes" in told for told in it.here.told)


@in_trio
async def test_notices_are_told_with_the_port() -> None:
    with free_port() as port:
        async with process() as it:
            await it.serve(inet("127.0.0.1", port))
            it.listener().tell("a connection was cut")
            assert it.here.told == [f"port {port}: a connection was cut"]


@in_trio
async def test_the_subscription_ends_with_the_last_descriptor_and_connections_live_on() -> None:
    with free_port() as port:
        async with process() as it:
            listening = await it.serve(inet("127.0.0.1", port))
            stream = it.arrives()
            accepted, _ = await it.accept(listening)
            with listening.dup():
                listening.close()
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert not it.listener().is_closed
            while not it.listener().is_closed:
                await trio.testing.wait_all_tasks_blocked(0.01)
            accepted.sendall(b"alive")
            await stream.until(lambda: bytes(stream.sent) == b"alive")
            again = await it.serve(inet("127.0.0.1", port))
            assert it.here.target.incoming.asked == [port, port]
            it.arrives()
            await it.accept(again)


@in_trio
async def test_a_listener_that_is_shut_down_is_missed_and_may_listen_again() -> None:
    with free_port() as port:
        async with process() as it:
            listening = await it.serve(inet("127.0.0.1", port))
            listening.shutdown(socket.SHUT_RD)
            while not it.listener().is_closed:
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert await it.listen(listening) == Return(0)
            assert it.here.target.incoming.asked == [port, port]
            it.arrives()
            _, shown = await it.accept(listening)
            assert shown == inet(CLIENT.host, CLIENT.port)


@in_trio
async def test_each_family_has_its_own_socket_of_a_port() -> None:
    with free_port() as port:
        async with process() as it:
            four = await it.serve(inet("0.0.0.0", port))
            assert [each.family for each in it.here.target.incoming.listeners] == ["inet4"]
            six = await it.serve(inet("::", port), only=True)
            it.arrives(CLIENT6)
            assert (await it.accept(six))[1] == inet(CLIENT6.host, CLIENT6.port)
            it.arrives(CLIENT, index=0)
            assert (await it.accept(four))[1] == inet(CLIENT.host, CLIENT.port)
            assert [each.family for each in it.here.target.incoming.listeners] == ["inet4", "inet6"]
            four.close()
            while not it.listener(0).is_closed:
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert not it.listener(1).is_closed
            four = await it.serve(inet("0.0.0.0", port))
            it.arrives(CLIENT)
            assert (await it.accept(four))[1] == inet(CLIENT.host, CLIENT.port)


@in_trio
async def test_who_hears_both_families_is_subscribed_once() -> None:
    with free_port() as port:
        async with process() as it:
            both = await it.serve(inet("::", port), reuse_port=True)
            four = await it.serve(inet("0.0.0.0", port), reuse_port=True)
            assert [each.family for each in it.here.target.incoming.listeners] == [None]
            both.close()
            it.arrives(CLIENT)
            assert (await it.accept(four))[1] == inet(CLIENT.host, CLIENT.port)
            assert not it.listener().is_closed


@in_trio
async def test_a_mirrored_connection_is_heard_and_not_answered() -> None:
    with free_port() as port:
        async with process(IncomingPolicy(mode="mirror")) as it:
            listening = await it.serve(inet("0.0.0.0", port))
            stream = it.arrives()
            accepted, shown = await it.accept(listening)
            assert shown == inet(CLIENT.host, CLIENT.port)
            stream.gives(b"question", b"")
            assert await trio.to_thread.run_sync(accepted.recv, 99) == b"question"
            accepted.sendall(b"answer")
            assert await trio.to_thread.run_sync(accepted.recv, 99) == b""
            await stream.until(lambda: stream.has_closed)
            assert (bytes(stream.sent), stream.is_eof_sent) == (b"", False)


@in_trio
async def test_nothing_is_left_of_connections() -> None:
    with free_port() as port:
        async with process() as it:
            listening = await it.serve(inet("0.0.0.0", port))
            await trio.testing.wait_all_tasks_blocked(0.01)
            before = open_descriptors()
            for _ in range(5):
                stream = it.arrives()
                accepted, _ = await it.accept(listening)
                accepted.close()
                stream.gives(b"")
                await stream.until(lambda stream=stream: stream.has_closed)  # type: ignore[misc]
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert open_descriptors() == before
            assert not it.here.incoming.ports.arrivals.are_named()


@pytest.mark.parametrize("mode", ["steal", "mirror"])
def test_datagrams_have_their_true_source_and_answers_go_back(mode: str) -> None:
    @in_trio
    async def test() -> None:
        with free_port(socket.SOCK_DGRAM) as port:
            async with process(IncomingPolicy(mode="steal" if mode == "steal" else "mirror")) as it:
                served = it.make(kind=socket.SOCK_DGRAM)
                assert await it.bind(served, inet("0.0.0.0", port)) == 0
                [flow] = it.here.target.incoming.flows
                flow.gives(b"question", CLIENT)
                data, name = await trio.to_thread.run_sync(served.recvfrom, 99)
                assert data == b"question"
                verdict = it.here.sockets.receive(call_of("recvfrom", served.fileno(), 0, 0, 0, 1, 1))
                assert isinstance(verdict, PresentAddresses)
                client = inet(CLIENT.host, CLIENT.port)
                assert verdict.translate(address_of_name(name)) == client
                assert await it.here.sendto(served, b"answer", client) == 6
                if mode == "steal":
                    await flow.until_sent(1)
                    assert flow.sent == [(b"answer", CLIENT)]
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert len(flow.sent) == (1 if mode == "steal" else 0)
                assert not it.here.target.flows

    test()


@in_trio
async def test_a_client_on_the_targets_loopback_is_answered_there() -> None:
    with free_port(socket.SOCK_DGRAM) as port:
        async with process() as it:
            served = it.make(kind=socket.SOCK_DGRAM)
            assert await it.bind(served, inet("0.0.0.0", port)) == 0
            [flow] = it.here.target.incoming.flows
            flow.gives(b"question", InetEndpoint("127.0.0.1", 40007))
            await trio.to_thread.run_sync(served.recvfrom, 99)
            verdict = await it.here.decide(it.here.sockets.sendto(sendto_call(served, inet("127.0.0.1", 40007))))
            assert isinstance(verdict, UseAddress)
            assert verdict.address != inet("127.0.0.1", 40007)


@in_trio
async def test_the_subscription_to_datagrams_ends_with_the_socket() -> None:
    with free_port(socket.SOCK_DGRAM) as port:
        async with process() as it:
            served = it.make(kind=socket.SOCK_DGRAM, reuse_port=True)
            assert await it.bind(served, inet("0.0.0.0", port)) == 0
            second = it.make(kind=socket.SOCK_DGRAM, reuse_port=True)
            assert await it.bind(second, inet("0.0.0.0", port)) == 0
            [flow] = it.here.target.incoming.flows
            second.close()
            served.close()
            while not flow.is_closed:
                await trio.testing.wait_all_tasks_blocked(0.01)
            third = it.make(kind=socket.SOCK_DGRAM)
            assert await it.bind(third, inet("0.0.0.0", port)) == 0
            assert it.here.target.incoming.asked == [port, port]


class Served:
    """A UDP socket that serves a port of the target."""

    def __init__(self, it: Process, port: int) -> None:
        self.it = it
        self.port = port

    async def bind(self, host: str = "0.0.0.0", *, reuse_port: bool = False, only: bool = False) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = self.it.make(family, socket.SOCK_DGRAM, reuse_port=reuse_port, only=only)
        assert await self.it.bind(made, inet(host, self.port)) == 0
        return made

    @property
    def flow(self) -> FakeDatagrams:
        return self.it.here.target.incoming.flows[-1]

    async def hears(self, of: socket.socket, data: bytes, source: InetEndpoint = CLIENT) -> SocketAddress:
        """A datagram comes to the target; who is seen to have sent it."""
        self.flow.gives(data, source)
        return await self.receives(of, data)

    async def receives(self, of: socket.socket, data: bytes) -> SocketAddress:
        of.settimeout(10)
        received, name = await trio.to_thread.run_sync(of.recvfrom, 99)
        assert received == data
        verdict = self.it.here.sockets.receive(call_of("recvfrom", of.fileno(), 0, 0, 0, 1, 1))
        assert isinstance(verdict, PresentAddresses)
        return verdict.translate(address_of_name(name))


@asynccontextmanager
async def served(mode: Mode = "steal", **options: Any) -> AsyncIterator[Served]:
    with free_port(socket.SOCK_DGRAM) as port:
        async with process(IncomingPolicy(mode=mode, **options)) as it:
            yield Served(it, port)


async def until_closed(flow: FakeDatagrams) -> None:
    while not flow.is_closed:
        await trio.testing.wait_all_tasks_blocked(0.01)


@in_trio
async def test_each_of_several_sockets_of_a_udp_port_works_until_the_last_has_ended() -> None:
    client = inet(CLIENT.host, CLIENT.port)
    async with served() as it:
        first = await it.bind(reuse_port=True)
        second = await it.bind(reuse_port=True)
        record = it.it.here.table.get(inode_of(second))
        assert isinstance(record, Datagrams)
        assert record.to_clients is not None
        first.close()
        while record.to_clients.inodes != {inode_of(second)}:
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert await it.hears(second, b"question") == client
        assert await it.it.here.sendto(second, b"answer", client) == 6
        await it.flow.until_sent(1)
        assert it.flow.sent == [(b"answer", CLIENT)]
        second.close()
        await until_closed(it.flow)
        assert it.it.here.target.incoming.asked == [it.port]


@in_trio
async def test_each_family_has_its_udp_socket_wherever_that_is() -> None:
    async with served() as it:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("0.0.0.0", it.port))
            it.it.here.incoming.listeners.process_ids = tuple
            four = await it.bind()
            it.it.here.incoming.listeners.process_ids = lambda: [os.getpid()]
            six = await it.bind("::", only=True)
            assert four.getsockname()[1] != it.port
            assert [each.family for each in it.it.here.target.incoming.flows] == ["inet4", "inet6"]
            for _ in range(2):
                assert await it.hears(six, b"six", CLIENT6) == inet(CLIENT6.host, CLIENT6.port)
                assert await it.hears(four, b"four", CLIENT) == inet(CLIENT.host, CLIENT.port)


@pytest.mark.parametrize("mode", ["steal", "mirror"])
def test_a_udp_server_may_connect_to_a_client(mode: Mode) -> None:
    @in_trio
    async def test() -> None:
        client, other = inet(CLIENT.host, CLIENT.port), InetEndpoint("198.18.0.8", 40008)
        async with served(mode) as it:
            server = await it.bind()
            assert await it.hears(server, b"hello") == client
            assert await it.it.here.connect(server, client) == 0
            assert it.it.name(server, "getpeername") == client
            assert it.it.name(server, "getsockname") == inet(POD, it.port)
            it.flow.gives(b"not heard", other)
            it.flow.gives(b"more", CLIENT)
            assert await it.receives(server, b"more") == client
            server.send(b"answer")
            if mode == "steal":
                await it.flow.until_sent(1)
                assert it.flow.sent == [(b"answer", CLIENT)]
            assert not it.flow.is_closed
            server.close()
            await until_closed(it.flow)

    test()


@in_trio
async def test_a_client_to_whom_a_socket_is_connected_is_heard_among_many_others() -> None:
    client = inet(CLIENT.host, CLIENT.port)
    async with served() as it:
        server = await it.bind(reuse_port=True)
        assert await it.hears(server, b"hello") == client
        connected = await it.bind(reuse_port=True)
        assert await it.it.here.connect(connected, client) == 0
        for number in range(2 * PEERS_PER_SOCKET):
            await it.hears(server, b"crowd", InetEndpoint("198.18.0.9", 1000 + number))
        assert await it.hears(connected, b"more") == client
        connected.send(b"answer")
        await it.flow.until_sent(1)
        assert it.flow.sent == [(b"answer", CLIENT)]


@pytest.mark.parametrize("way", ["connect", "send"])
def test_who_speaks_first_is_a_client_and_its_port_stays_the_targets(way: str) -> None:
    @in_trio
    async def test() -> None:
        async with served() as it:
            one = await it.bind()
            if way == "connect":
                assert await it.it.here.connect(one, PEER) == 0
            else:
                assert await it.it.here.sendto(one, b"question", PEER) == 8
            assert it.flow.is_closed
            assert len(it.it.here.target.flows) == 1
            assert not it.it.here.told

    test()


@in_trio
async def test_who_was_asked_first_may_ask_others_too() -> None:
    async with served() as it:
        server = await it.bind()
        await it.hears(server, b"question")
        assert await it.it.here.sendto(server, b"what do you say?", PEER) == 16
        assert not it.flow.is_closed
        await it.hears(server, b"question")


@in_trio
async def test_whose_port_is_named_is_a_server_even_if_it_speaks_first() -> None:
    async with served(ports=frozenset(range(20000, 30000))) as it:
        it.it.here.sockets.datagrams.gives_ports_back = False
        server = await it.bind()
        assert await it.it.here.sendto(server, b"hello", PEER) == 5
        assert not it.flow.is_closed
        await it.hears(server, b"question")


@in_trio
async def test_binding_waits_for_the_agent_but_no_longer_than_a_signal_does() -> None:
    async with served() as it:
        it.it.here.target.incoming.may_answer = trio.Event()
        server = it.it.make(kind=socket.SOCK_DGRAM)
        call = bind_call(server, inet("0.0.0.0", it.port))
        assert isinstance(call, ScriptedCall)
        call.signal = lambda: True
        assert await it.it.here.decide(it.it.here.incoming.bind(call)) == Return(0)
        it.it.here.target.incoming.may_answer.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        await it.hears(server, b"question")


@in_trio
async def test_a_signal_ends_the_question_whose_address_it_is() -> None:
    with free_port() as port:
        async with process() as it:
            it.here.target.may_open = trio.Event()
            call = bind_call(it.make(), inet(POD, port))
            assert isinstance(call, ScriptedCall)
            call.signal = lambda: True
            assert await it.here.decide(it.here.incoming.bind(call)) == Fail(errno.EINTR)
