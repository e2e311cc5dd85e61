"""The stand-in's end of a node's runtime: start it, ask it, hear which containers have ended."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import IO, Any

import attrs
import trio

from . import channel
from .specification import (
    Answer,
    Container,
    Exited,
    MakeSandbox,
    Remove,
    Request,
    Sandbox,
    Signal,
    StartContainer,
)


class RuntimeRefused(Exception):
    """The runtime could not do it; says why as a sentence."""


@attrs.frozen
class Started:
    """A container that runs."""

    id: str
    pid: int
    """Of its first process, as this process sees it."""


@attrs.define
class _Pending:
    answered: trio.Event = attrs.field(factory=trio.Event)
    answer: Answer | None = None
    descriptors: list[int] = attrs.field(factory=list)


@attrs.define
class _Exit:
    happened: trio.Event = attrs.field(factory=trio.Event)
    status: int = 0


class Client:
    """Requests to one node's runtime, any number at a time. A node that is gone never answers: look at `gone`."""

    def __init__(self, control: socket.socket, life: IO[bytes]) -> None:
        self._control = control
        self._life = life
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._exits: dict[str, _Exit] = {}
        self._sending = trio.Lock()
        self.gone = trio.Event()
        """Set when the node has ended, whatever ended it."""

    async def make_sandbox(self, sandbox: Sandbox) -> int:
        """Makes a pod's namespaces: a descriptor of the network's, for the caller to close. Raises RuntimeRefused."""
        (network,) = await self._ask(MakeSandbox(sandbox))
        return network

    async def start(self, container: Container, output: int, error: int) -> Started:
        """Starts a program with these descriptors as its standard output and error. Raises RuntimeRefused."""
        self._exits[container.id] = _Exit()
        (pidfd,) = await self._ask(StartContainer(container), (output, error))
        try:
            with open(f"/proc/self/fdinfo/{pidfd}") as file:  # noqa: ASYNC230 (procfs)
                pid = next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
        finally:
            os.close(pidfd)
        return Started(container.id, pid)

    async def wait(self, container: str) -> int:
        """Waits until a container's first process has ended: its code, or the negative number of a signal."""
        end = self._exits[container]
        await end.happened.wait()
        return end.status

    async def signal(self, container: str, number: int) -> None:
        """Sends a signal to a container's first process."""
        await self._ask(Signal(container, number))

    async def remove(self, container: str) -> None:
        """Ends what is left of a container, or of a sandbox, and forgets it."""
        await self._ask(Remove(container))
        self._exits.pop(container, None)

    def switch_off(self) -> None:
        """Ends the node as a power failure does: `gone` is set when it has."""
        self._life.close()

    async def _ask(self, request: Request, descriptors: Sequence[int] = ()) -> list[int]:
        number = next(self._numbers)
        pending = self._pending[number] = _Pending()
        try:
            async with self._sending:
                await self._send((number, request), descriptors)
            return await self._answer(pending)
        except BaseException:
            # It may have come just when the one who asked was cancelled.
            for descriptor in pending.descriptors:
                os.close(descriptor)
            raise
        finally:
            del self._pending[number]

    async def _send(self, message: object, descriptors: Sequence[int]) -> None:
        while True:
            try:
                channel.send(self._control, message, descriptors)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._control)
            except ConnectionError:
                await trio.sleep_forever()
            else:
                return

    async def _answer(self, pending: _Pending) -> list[int]:
        await pending.answered.wait()
        assert pending.answer is not None
        if pending.answer.error is not None:
            raise RuntimeRefused(pending.answer.error)
        return pending.descriptors

    async def ready(self) -> None:
        """Waits until the node can be asked; before `listen`. Raises RuntimeRefused."""
        received = await self._receive()
        if received is None:
            raise RuntimeRefused("the node ended while it started")
        if received[0].error is not None:
            raise RuntimeRefused(received[0].error)

    async def listen(self) -> None:
        """Takes what the runtime says, until the node ends."""
        while (received := await self._receive()) is not None:
            self._take(*received)
        self.gone.set()

    async def wait_until_gone(self) -> None:
        """Waits until nothing is left that could say anything; after `listen`."""
        while not self.gone.is_set() and (received := await self._receive()) is not None:
            for descriptor in received[1]:
                os.close(descriptor)

    async def _receive(self) -> tuple[Any, list[int]] | None:
        while True:
            await trio.lowlevel.wait_readable(self._control)
            try:
                return channel.receive(self._control)
            except BlockingIOError:
                continue
            except ConnectionError:
                return None

    def _take(self, message: Answer | Exited, descriptors: list[int]) -> None:
        if isinstance(message, Exited):
            if message.id in self._exits:
                self._exits[message.id].status = message.status
                self._exits[message.id].happened.set()
            return
        pending = self._pending.get(message.number)
        if pending is None:
            # Who asked was cancelled.
            for descriptor in descriptors:
                os.close(descriptor)
            return
        pending.answer, pending.descriptors = message, descriptors
        pending.answered.set()


@asynccontextmanager
async def open_node(name: str, directory: str, network: int) -> AsyncIterator[Client]:
    """A node, until the block is left or this process ends.

    `directory` is made, and stays empty for everybody else; `network` is a descriptor of the nodes' namespace.
    Raises RuntimeRefused.
    """
    os.makedirs(directory)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with ours:
        with theirs:
            process = _spawn([str(theirs.fileno()), str(network), name, directory], theirs.fileno(), network)
        assert process.stdin is not None
        client = Client(ours, process.stdin)
        try:
            await client.ready()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.listen)
                yield client
                nursery.cancel_scope.cancel()
        finally:
            process.stdin.close()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(process.wait)
                await client.wait_until_gone()
                os.rmdir(directory)


def _spawn(arguments: Sequence[str], *descriptors: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", f"{__package__}.runtime", *arguments],
        stdin=subprocess.PIPE,
        pass_fds=descriptors,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
