"""Copies of connections: real sockets on the process's side, scripted streams on the target's."""

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import attrs
import pytest
import trio

from mirrord_trace.relay.incoming.mirroring import Mirroring
from mirrord_trace.session import RemoteStream
from tests.mirrord_agent.support import in_trio
from tests.mirrord_trace.support import FakeStream

MEGABYTE = 1 << 20


@attrs.define(eq=False)
class Copy:
    process: socket.socket
    far: FakeStream
    is_closed: bool = False
    ended: trio.Event = attrs.field(factory=trio.Event)

    async def received(self, count: int = MEGABYTE) -> bytes:
        """What the process reads next."""
        return await trio.to_thread.run_sync(self.process.recv, count)


@asynccontextmanager
async def copy(*, is_filtered: bool = False) -> AsyncIterator[Copy]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as relay:
        process, _ = server.accept()
        relay.setblocking(False)
        here = Copy(process, FakeStream())

        async def run() -> None:
            with trio.socket.from_stdlib_socket(relay) as connection:
                stream = cast(RemoteStream, here.far)
                await Mirroring(connection, stream, lambda: here.is_closed, is_filtered).run()
            here.ended.set()

        with process:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                yield here
                nursery.cancel_scope.cancel()


@in_trio
async def test_the_process_hears_all_and_its_answers_go_nowhere() -> None:
    async with copy() as here:
        here.far.gives(b"question")
        assert await here.received() == b"question"
        await trio.to_thread.run_sync(here.process.sendall, bytes(8 * MEGABYTE))
        here.far.gives(b" and more", b"")
        assert await here.received() == b" and more"
        assert await here.received() == b""
        await here.far.until(lambda: here.far.has_closed)
        assert not here.ended.is_set()
        await trio.to_thread.run_sync(here.process.sendall, b"late")
        here.is_closed = True
        here.process.close()
        await here.ended.wait()
        assert (bytes(here.far.sent), here.far.is_eof_sent, here.far.has_reset) == (b"", False, False)


@in_trio
async def test_a_process_that_closes_ends_the_copy() -> None:
    async with copy() as here:
        here.far.gives(b"question")
        assert await here.received() == b"question"
        here.is_closed = True
        here.process.close()
        await here.ended.wait()
        assert here.far.has_reset


@in_trio
async def test_a_process_that_ends_its_half_hears_on() -> None:
    async with copy() as here:
        here.process.shutdown(socket.SHUT_WR)
        here.far.gives(b"still", b"")
        assert await here.received() == b"still"
        assert await here.received() == b""


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.ECONNABORTED])
def test_what_breaks_is_reset_after_what_came_before(number: int) -> None:
    @in_trio
    async def test() -> None:
        async with copy() as here:
            here.far.gives(b"before", OSError(number, "broken"))
            assert await here.received() == b"before"
            with pytest.raises(ConnectionResetError):
                await here.received()
            await here.ended.wait()

    test()


@in_trio
async def test_answers_in_http2_are_told_where_the_agent_filters() -> None:
    async with copy(is_filtered=True) as here:
        here.far.gives(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        await here.received()
        here.process.sendall(b"settings")
        await here.far.until(lambda: bytes(here.far.sent) == b"settings")
        here.far.send_error = OSError(errno.ECONNRESET, "the agent does not care")
        await trio.to_thread.run_sync(here.process.sendall, bytes(8 * MEGABYTE))
        assert bytes(here.far.sent) == b"settings"


@in_trio
async def test_answers_in_http1_are_not_told() -> None:
    async with copy(is_filtered=True) as here:
        here.far.gives(b"GET / HTTP/1.1\r\n\r\n", b"")
        await here.received()
        await trio.to_thread.run_sync(here.process.sendall, bytes(8 * MEGABYTE))
        assert not here.far.sent
