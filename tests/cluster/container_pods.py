"""What tests of the stand-in's containers share: pods whose containers run Python programs of the agent's image."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path

import attrs
import trio

from tests.cluster.standin.containers.client import Client, open_node
from tests.cluster.standin.containers.network import PodNetwork, make_nodes_network
from tests.cluster.standin.containers.specification import Container, Processes, Sandbox
from tests.cluster.standin.kubelet.logs import Log
from tests.cluster.standin.shop import agent_root

PYTHON = "/usr/bin/python3.11"
SLEEP = "import signal; signal.pause()"
NUMBERS = count(1)


@attrs.frozen
class Pod:
    """A sandbox, and containers started in it."""

    node: Client
    sandbox: str
    network: int
    address: str

    async def start(self, program: str, **fields: object) -> tuple[str, int, Log]:
        """Starts a Python program: the container's id, its process, its output."""
        identity = f"{next(NUMBERS):064x}"
        specification = {
            "arguments": (PYTHON, "-c", program),
            "environment": {"PATH": "/usr/bin"},
            "root": str(agent_root()),
            **fields,
        }
        container = Container(
            id=identity,
            sandbox=self.sandbox,
            cgroup=f"kubepods.slice/cri-containerd-{identity}.scope",
            **specification,  # type: ignore[arg-type]
        )
        reading, writing = os.pipe()
        try:
            started = await self.node.start(container, writing, writing)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        log = Log()
        trio.lowlevel.spawn_system_task(log.take, reading)
        return identity, started.pid, log

    async def run(self, program: str, **fields: object) -> str:
        """Runs a Python program to its end, which must be a good one, and returns what it has written."""
        identity, _, log = await self.start(program, **fields)
        status = await self.node.wait(identity)
        await self.node.remove(identity)
        written = await whole(log)
        assert status == 0, written
        return written

    async def ask(self, expression: str, **fields: object) -> object:
        """The value of a Python expression in a container, as JSON has it."""
        return json.loads(await self.run(f"import json, os; print(json.dumps({expression}))", **fields))


async def whole(log: Log) -> str:
    return b"".join([piece async for piece in log.read(follow=True)]).decode()


async def first_line(log: Log) -> str:
    written = b""
    async with aclosing(log.read(follow=True)) as pieces:
        async for piece in pieces:
            written += piece
            if b"\n" in written:
                return written.decode().partition("\n")[0]
    raise AssertionError(f"the container ended: {written!r}")


@asynccontextmanager
async def pod_on(node: Client, *, processes: Processes = Processes.OWN) -> AsyncIterator[Pod]:
    number = next(NUMBERS)
    address = IPv4Address("198.18.1.0") + number
    sandbox = Sandbox(
        f"{number:064x}", f"pods/{number:x}", f"web-{number}", PodNetwork(address, 10 + number), processes
    )
    network = await node.make_sandbox(sandbox)
    try:
        yield Pod(node, sandbox.id, network, str(address))
    finally:
        os.close(network)
        # A node that is gone never answers.
        if not node.gone.is_set():
            await node.remove(sandbox.id)


@asynccontextmanager
async def running_node(directory: Path) -> AsyncIterator[Client]:
    network = make_nodes_network()
    try:
        async with open_node("node-1", str(directory / "node"), network) as node:
            yield node
    finally:
        os.close(network)


@asynccontextmanager
async def running_pod(directory: Path) -> AsyncIterator[Pod]:
    async with running_node(directory) as node, pod_on(node) as pod:
        yield pod
