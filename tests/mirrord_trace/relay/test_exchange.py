"""How connections end: real sockets on this side, scripted ones on the pod's."""

import errno
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import attrs
import pytest
import trio
import trio.testing

from mirrord_trace.relay.exchange import Exchange
from mirrord_trace.session import RemoteStream
from tests.mirrord_agent.support import in_trio
from tests.mirrord_trace.support import FakeStream

MEGABYTE = 1 << 20


@attrs.define(eq=False)
class Between:
    process: socket.socket
    far: FakeStream
    lost: trio.Event
    is_closed: bool = False
    has_sent: bool = False
    ended: trio.Event = attrs.field(factory=trio.Event)

    async def received(self) -> bytes:
        """What the process reads up to the end; raises ConnectionResetError."""
        return await trio.to_thread.run_sync(self._receive)

    def _receive(self) -> bytes:
        data = b""
        self.process.setblocking(True)
        while part := self.process.recv(MEGABYTE):
            data += part
        return data


@asynccontextmanager
async def exchange(receive_buffer: int | None = None) -> AsyncIterator[Between]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as process:
        if receive_buffer is not None:
            process.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        process.connect(server.getsockname())
        accepted, _ = server.accept()
        accepted.setblocking(False)
        here = Between(process, FakeStream(), trio.Event())

        def sent() -> None:
            here.has_sent = True

        async def run() -> None:
            with trio.socket.from_stdlib_socket(accepted) as connection:
                stream = cast(RemoteStream, here.far)
                await Exchange(connection, stream, here.lost, lambda: here.is_closed, sent).run()
            here.ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield here
            nursery.cancel_scope.cancel()


@in_trio
async def test_each_half_ends_for_itself() -> None:
    async with exchange() as here:
        here.process.sendall(b"question")
        here.process.shutdown(socket.SHUT_WR)
        await here.far.until(lambda: here.far.is_eof_sent)
        here.far.gives(b"answer", b"")
        assert await here.received() == b"answer"
        await here.ended.wait()
        assert here.has_sent
        assert (bytes(here.far.sent), here.far.has_reset, here.far.has_closed) == (b"question", False, True)


@in_trio
async def test_the_far_side_ends_first() -> None:
    async with exchange() as here:
        here.far.gives(b"banner", b"")
        assert await here.received() == b"banner"
        here.process.sendall(bytes(MEGABYTE))
        here.process.shutdown(socket.SHUT_WR)
        await here.ended.wait()
        assert (len(here.far.sent), here.far.has_reset) == (MEGABYTE, False)


@in_trio
async def test_a_reset_by_the_process_is_a_reset() -> None:
    async with exchange() as here:
        here.process.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        here.process.close()
        await here.ended.wait()
        assert here.far.has_reset


@in_trio
async def test_a_reset_by_the_far_side_comes_behind_what_it_sent() -> None:
    async with exchange(receive_buffer=8192) as here:
        here.far.gives(bytes(MEGABYTE), OSError(errno.ECONNRESET, "reset"))
        received = bytearray()
        with pytest.raises(ConnectionResetError):
            await trio.to_thread.run_sync(_read_into, here.process, received)
        assert len(received) == MEGABYTE
        await here.ended.wait()


def _read_into(process: socket.socket, received: bytearray) -> None:
    process.setblocking(True)
    while part := process.recv(65536):
        received += part


@in_trio
async def test_a_process_that_only_writes_learns_of_a_reset() -> None:
    async with exchange(receive_buffer=8192) as here:
        here.far.gives(bytes(8 * MEGABYTE))  # more than the process's socket takes, which never reads
        here.far.send_error = ConnectionResetError(errno.ECONNRESET, "reset")
        here.process.sendall(b"x")
        await here.ended.wait()
        with pytest.raises(OSError, match=r"reset|pipe"):
            await trio.to_thread.run_sync(_write_for_ever, here.process)


def _write_for_ever(process: socket.socket) -> None:
    while True:
        process.sendall(bytes(65536))


@pytest.mark.parametrize("half_closed", [False, True])
def test_a_session_lost_while_nothing_flows_resets(half_closed: bool) -> None:
    @in_trio
    async def test() -> None:
        async with exchange() as here:
            if half_closed:
                here.far.gives(b"")
                assert await here.received() == b""
            else:
                here.far.gives(OSError(errno.ENETUNREACH, "lost"))
            here.lost.set()
            await here.ended.wait()
            # A reset is EPIPE to who has seen the end already (tcp_reset, net/ipv4/tcp_input.c).
            with pytest.raises(BrokenPipeError if half_closed else ConnectionResetError):
                here.process.send(b"x")

    test()


@in_trio
async def test_bytes_for_a_process_that_closed_reset_the_far_side() -> None:
    async with exchange() as here:
        here.process.close()
        await here.far.until(lambda: here.far.is_eof_sent)
        here.far.gives(b"late")
        here.far.gives(b"later")
        await here.ended.wait()
        assert here.far.has_reset


def test_the_pods_socket_is_closed_when_no_process_has_the_connection_any_more() -> None:
    async def test() -> None:
        async with exchange() as here:
            here.process.shutdown(socket.SHUT_WR)
            await here.far.until(lambda: here.far.is_eof_sent)
            here.is_closed = True
            await here.ended.wait()
            assert (here.far.has_closed, here.far.has_reset) == (True, False)

    trio.run(test, clock=trio.testing.MockClock(rate=100))


@pytest.mark.parametrize("end", [lambda far: far.gives(b""), lambda far: None], ids=["far end open", "far end closed"])
def test_what_is_cancelled_after_the_process_ended_still_goes_out(end: Callable[[FakeStream], None]) -> None:
    @in_trio
    async def test() -> None:
        async with exchange() as here:
            here.process.sendall(b"last words")
            here.process.close()
            await here.far.until(lambda: here.far.is_eof_sent)
            end(here.far)
        assert (bytes(here.far.sent), here.far.has_reset, here.far.has_closed) == (b"last words", False, True)

    test()
