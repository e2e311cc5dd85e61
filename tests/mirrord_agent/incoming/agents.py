"""Real agents in a pod of the test's own, and clients that say to them what a test wants."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from mirrord_agent.wire import handshake
from mirrord_agent.wire.frames import (
    AddressFamily,
    Arrived,
    Credit,
    Data,
    Eof,
    Failed,
    Frame,
    Goodbye,
    GoodbyeKind,
    IncomingMode,
    InetEndpoint,
    Reset,
    Subscribe,
    Subscribed,
    Transport,
    Welcome,
)
from mirrord_agent.wire.windows import INITIAL_WINDOW
from mirrord_trace.targets.agent_process import agent_command, running_agent, with_our_modules
from tests.mirrord_agent.incoming.networks import Network, Networks, pod_and_outside
from tests.mirrord_agent.incoming.sessions import PORT
from tests.mirrord_agent.support import FrameClient


@contextmanager
def process_in(network: Network) -> Iterator[int]:
    """A process to be a target."""
    with network.start(["cat"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@attrs.frozen
class Pod:
    """A pod with a process, and where its clients are."""

    networks: Networks
    pid: int

    @property
    def inside(self) -> Network:
        """The pod's."""
        return self.networks.pod

    @property
    def outside(self) -> Network:
        """The clients'."""
        return self.networks.outside


@contextmanager
def pod_with_process(versions: Sequence[int] = (4, 6)) -> Iterator[Pod]:
    """One with addresses of these versions of IP."""
    with pod_and_outside(versions) as networks, process_in(networks.pod) as pid:
        yield Pod(networks, pid)


def listening_ports(network: Network, version: int) -> list[int]:
    """Those of TCP listeners that were made for this version of IP."""
    name = {4: "tcp", 6: "tcp6"}[version]
    rows = [row.split() for row in network.run("cat", f"/proc/net/{name}").splitlines()[1:]]
    return [int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"]


def endpoint_of(address: Any) -> InetEndpoint:
    """What the agent calls an address of the socket module."""
    return InetEndpoint(address[0], address[1])


class IncomingClient(FrameClient):
    """A client with subscriptions."""

    def __init__(self, stream: trio.SocketStream, agent: int) -> None:
        super().__init__(stream)
        self.agent = agent
        """The agent's process."""
        self._numbers = itertools.count(1, 2)
        self._kept: list[Frame] = []

    async def ask(
        self,
        port: int = PORT,
        protocol: Transport = "tcp",
        mode: IncomingMode = "steal",
        accepts: str | None = None,
        *,
        flush: bool = False,
        mark: bool = False,
        family: AddressFamily | None = None,
    ) -> Subscribed | Failed:
        """Subscribes; what the agent answers."""
        number = next(self._numbers)
        await self.send(Subscribe(number, port, protocol, mode, accepts, flush, mark, family))
        while True:
            frame = await super().receive()
            if isinstance(frame, Subscribed | Failed):
                assert frame.stream == number
                return frame
            assert frame is not None
            self._kept.append(frame)

    async def subscribe(
        self,
        port: int = PORT,
        protocol: Transport = "tcp",
        mode: IncomingMode = "steal",
        accepts: str | None = None,
        *,
        flush: bool = False,
        mark: bool = False,
        family: AddressFamily | None = None,
    ) -> int:
        """Subscribes; the subscription's stream."""
        answer = await self.ask(port, protocol, mode, accepts, flush=flush, mark=mark, family=family)
        assert isinstance(answer, Subscribed), answer
        return answer.stream

    async def receive(self) -> Frame | None:
        """The next frame; None at the end of the stream."""
        return self._kept.pop(0) if self._kept else await super().receive()

    async def arrived(self) -> Arrived:
        """What arrives next; whatever else the agent says before is passed over."""
        return await self.receive_kind(Arrived)

    async def heard(self, stream: int, size: int) -> bytes:
        """So many bytes of a stream, or what there is until it ends. Gives credit for them."""
        data = bytearray()
        while len(data) < size:
            frame = await self.receive()
            match frame:
                case Data(number, payload) if number == stream:
                    data += payload
                    await self.send(Credit(stream, len(payload)))
                case Eof(number) | Reset(number) if number == stream:
                    self._kept.insert(0, frame)
                    return bytes(data)
                case None | Data() | Eof() | Reset():
                    raise AssertionError(f"{frame} after {data!r:.80} of stream {stream}")
        return bytes(data)

    async def give(self, stream: int, data: bytes) -> None:
        """Says something on a stream, no faster than the agent gives credit."""
        sent, room = 0, INITIAL_WINDOW
        while sent < len(data):
            piece = data[sent : sent + min(room, 1 << 18)]
            await self.send(Data(stream, piece))
            sent += len(piece)
            room -= len(piece)
            while not room:
                credit = await self.receive_kind(Credit)
                assert credit.stream == stream
                room += credit.amount_bytes

    async def leave(self) -> None:
        """Says goodbye and waits for the agent's end."""
        await self.send(Goodbye(GoodbyeKind.SHUTDOWN, "done"))
        while await self.receive() is not None:
            pass


@asynccontextmanager
async def agent_for(
    pid: int, owner: str = "somebody", prefix: Sequence[str] = (), program: Sequence[str | Path] = ()
) -> AsyncIterator[IncomingClient]:
    """An agent that serves a process, and a client that it has welcomed.

    `prefix` is a command that starts it, `program` what Python runs in its place.
    """
    secret = handshake.new_secret()
    command = [*agent_command(pid, handshake.hash_secret(secret)), "--owner", owner]
    if program:
        at = command.index("-m")
        command[at : at + 2] = map(str, program)
    async with running_agent([*prefix, *with_our_modules(command)], own_session=True) as agent:
        client = IncomingClient(agent.stream, agent.child.pid)
        await client.send(handshake.hello(secret))
        welcome = await client.receive()
        assert isinstance(welcome, Welcome), f"{welcome} {await agent.last_words()}"
        yield client
