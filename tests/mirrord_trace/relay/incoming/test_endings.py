"""Word of listeners that end."""

import socket

import trio

from mirrord_trace.relay.incoming.endings import Endings
from tests.mirrord_agent.support import in_trio


@in_trio
async def test_a_listener_that_ends_is_told_and_connections_are_not() -> None:
    endings = Endings()
    try:
        assert endings._netlink is not None
        server = socket.create_server(("127.0.0.1", 0))
        with socket.create_connection(server.getsockname()) as client:
            accepted, _ = server.accept()
            accepted.close()
        client.close()
        server.close()
        await endings.next()
        received = 0
        with trio.move_on_after(0):
            await trio.lowlevel.wait_readable(endings._netlink)
            received += 1
        assert not received
    finally:
        endings.close()


@in_trio
async def test_who_waits_looks_now_and_then_anyway() -> None:
    endings = Endings()
    try:
        before = trio.current_time()
        await endings.next()
        assert trio.current_time() > before
    finally:
        endings.close()
