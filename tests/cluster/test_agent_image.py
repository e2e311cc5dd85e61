"""The agent as its image has it, in containers as a cluster would start them: exact capabilities, a read-only root."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

import attrs
import pytest
import trio

from mirrord_trace.session import AgentRefused, GoodbyeKind, InetEndpoint, Session, SessionLost, open_session
from tests.cluster.standin.containers.client import Client, Started, open_node
from tests.cluster.standin.containers.network import PodNetwork, make_nodes_network, within
from tests.cluster.standin.containers.specification import Container, Processes, Sandbox
from tests.mirrord_agent.support import SECRET, SECRET_HASH, in_trio

ROOT = Path(__file__).parent.parent.parent
IMAGE = ROOT / "build/agent-rootfs"

FOR_FILES = frozenset(["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SETGID", "SETUID"])
CAPABILITIES = FOR_FILES | frozenset(["SYS_PTRACE", "SYS_ADMIN", "NET_ADMIN", "NET_RAW"])
IDLE_KB = 45 << 10
UNKNOWN = "f" * 64

# A workload of uid 1000: a volume as the kubelet lays it out, an echo that only its pod reaches, and a second process.
_WEB = """
import os, socket, sys, time
os.makedirs("/tmp/data/..one")
with open("/tmp/data/..one/key", "w") as file:
    file.write("of uid 1000 only")
    os.chmod(file.fileno(), 0o600)
os.symlink("..one", "/tmp/data/..data")
os.symlink("..data/key", "/tmp/data/key")
os.chmod("/tmp/data", 0o700)
echo = socket.create_server(("127.0.0.1", 8080))
if os.fork() == 0:
    time.sleep(1000)
print("ready", flush=True)
while True:
    connection, _ = echo.accept()
    connection.sendall(connection.recv(100))
    connection.close()
"""


@pytest.fixture(autouse=True)
def _image() -> None:
    assert (IMAGE / "usr/bin/mirrord-agent").exists(), "the agent's root filesystem is missing: make agent-rootfs"


@attrs.frozen
class Pod:
    """A pod whose containers all have the agent's image, which has a Python."""

    node: Client
    id: str
    network: int
    numbers: Iterator[int]

    async def start(
        self,
        *arguments: str,
        capabilities: frozenset[str] = CAPABILITIES,
        processes: Processes | str = Processes.OWN,
        environment: dict[str, str] | None = None,
        user: int = 0,
        scope: str = "cri-containerd-{}.scope",
    ) -> Running:
        container = f"{next(self.numbers):064x}"
        reading, writing = os.pipe()
        specification = Container(
            container,
            self.id,
            f"kubepods.slice/pod-{self.id[-8:]}.slice/{scope.format(container)}",
            str(IMAGE),
            arguments,
            environment={"PATH": "/usr/bin", **(environment or {})},
            user=user,
            capabilities=capabilities,
            read_only_root=arguments[0] == "mirrord-agent",
            processes=processes,
        )
        try:
            started = await self.node.start(specification, writing, writing)
        finally:
            os.close(writing)
        return Running(started, trio.lowlevel.FdStream(reading))

    async def start_web(self, scope: str = "cri-containerd-{}.scope") -> Running:
        """A workload like any other, when it listens."""
        arguments = ("python3.11", "-c", _WEB)
        none: frozenset[str] = frozenset()
        web = await self.start(*arguments, environment={"SHOP": "open"}, user=1000, capabilities=none, scope=scope)
        assert await web.read_line() == "ready"
        return web

    @asynccontextmanager
    async def agent(
        self,
        *target: str,
        processes: Processes | str = Processes.OWN,
        capabilities: frozenset[str] = CAPABILITIES,
    ) -> AsyncIterator[Agent]:
        """An agent of the image that listens, and a connection to it."""
        command = ["mirrord-agent", *target, "--secret-hash", SECRET_HASH, "--listen", "127.0.0.1:0"]
        running = await self.start(*command, processes=processes, capabilities=capabilities)
        address, _, port = (await running.read_line()).removeprefix("listening on ").rpartition(":")
        with within(self.network):
            end = socket.socket()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(end))
        async with stream:
            await stream.socket.connect((address, int(port)))
            yield Agent(running, stream)
            await stream.aclose()
            await self.node.wait(running.id)


@attrs.frozen
class Running:
    """A container that runs."""

    started: Started
    output: trio.lowlevel.FdStream

    @property
    def id(self) -> str:
        return self.started.id

    async def read_line(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            data = await self.output.receive_some(1)
            assert data, f"the container ended: {line!r}"
            line += data
        return line.decode().strip()


@attrs.frozen
class Agent:
    """A running agent, and a stream to it."""

    running: Running
    stream: trio.SocketStream


@attrs.frozen
class Node:
    """A node that runs pods."""

    client: Client
    numbers: Iterator[int]

    @asynccontextmanager
    async def pod(self, hostname: str) -> AsyncIterator[Pod]:
        number = next(self.numbers)
        address = IPv4Address("198.18.1.0") + number
        sandbox = Sandbox(f"{number:064x}", f"kubepods.slice/{number}", hostname, PodNetwork(address, 10 + number))
        network = await self.client.make_sandbox(sandbox)
        try:
            yield Pod(self.client, sandbox.id, network, self.numbers)
        finally:
            os.close(network)


@asynccontextmanager
async def running_node(directory: Path) -> AsyncIterator[Node]:
    network = make_nodes_network()
    try:
        async with open_node("node-1", str(directory / "node"), network) as client:
            yield Node(client, itertools.count(1))
    finally:
        os.close(network)


async def echo(session: Session) -> bytes:
    stream = await session.connect(InetEndpoint("127.0.0.1", 8080))
    await stream.send(b"from the pod")
    data = await stream.receive()
    await stream.aclose()
    return data


async def refusal(agent: Agent) -> AgentRefused:
    """What the agent says in place of a welcome."""
    with pytest.raises(AgentRefused) as refused:
        await _open(agent)
    return refused.value


async def _open(agent: Agent) -> None:
    async with open_session(agent.stream, SECRET):
        pytest.fail("the block must not begin")


@in_trio
async def test_a_job_finds_the_container_on_its_node_by_the_id(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, node.pod("web-0") as target, node.pod("agent-0") as pod:
        other = await target.start_web()
        await node.client.signal(other.id, signal.SIGKILL)
        await node.client.wait(other.id)
        web = await target.start_web()
        async with (
            pod.agent("--container-id", f"containerd://{web.id}", processes=Processes.NODE) as agent,
            open_session(agent.stream, SECRET) as session,
        ):
            assert session.facts.hostname == "web-0"
            assert (await session.environment())[b"SHOP"] == b"open"
            assert (await session.read_file(b"/tmp/data/key")).data == b"of uid 1000 only"
            assert await echo(session) == b"from the pod"
        assert await node.client.wait(agent.running.id) == 0


@in_trio
async def test_an_ephemeral_container_has_nothing_to_enter(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, node.pod("web-0") as pod:
        web = await pod.start_web()
        options = ("--container-id", web.id, "--or-pid", "1")
        async with (
            pod.agent(*options, processes=web.id, capabilities=CAPABILITIES - {"SYS_ADMIN"}) as agent,
            open_session(agent.stream, SECRET) as session,
        ):
            assert session.facts.pid == 1
            assert (await session.environment())[b"SHOP"] == b"open"
            assert await echo(session) == b"from the pod"


@in_trio
async def test_a_container_may_show_a_moment_later(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, node.pod("web-0") as target, node.pod("agent-0") as pod:
        later = f"{4:064x}"
        async with pod.agent("--container-id", later, processes=Processes.NODE) as agent:
            web = await target.start_web()
            assert web.id == later
            async with open_session(agent.stream, SECRET) as session:
                assert (await session.environment())[b"SHOP"] == b"open"


@in_trio
async def test_where_no_cgroup_tells_the_container_the_first_process_stands_for_it(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, node.pod("web-0") as pod:
        web = await pod.start_web(scope="unnamed")
        async with (
            pod.agent("--container-id", web.id, "--or-pid", "1", processes=web.id) as agent,
            open_session(agent.stream, SECRET) as session,
        ):
            assert (await session.environment())[b"SHOP"] == b"open"


@in_trio
async def test_another_containers_first_process_does_not_stand_for_it(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, node.pod("web-0") as pod:
        web = await pod.start_web()
        async with pod.agent("--container-id", UNKNOWN, "--or-pid", "1", processes=web.id) as agent:
            refused = await refusal(agent)
            assert refused.kind is GoodbyeKind.TARGET_GONE
            assert f"container {UNKNOWN[:12]} has no process here" in refused.message


@in_trio
async def test_without_a_target_the_agents_own_world_is_served(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, node.pod("agent-0") as pod:
        none: frozenset[str] = frozenset()
        async with (
            pod.agent("--targetless", capabilities=none) as agent,
            open_session(agent.stream, SECRET) as session,
        ):
            assert session.facts.hostname == "agent-0"
            assert await session.environment() == {b"PATH": b"/usr/bin"}
            assert b"bookworm" in (await session.read_file(b"/etc/os-release")).data
            with pytest.raises(ConnectionRefusedError):
                await session.connect(InetEndpoint("127.0.0.1", 8080))


@pytest.mark.parametrize(
    ("processes", "capabilities", "words"),
    [
        (Processes.OWN, CAPABILITIES, ["hostPID", "targetContainerName"]),
        (Processes.NODE, CAPABILITIES - {"SYS_PTRACE"}, ["uid 1000", "without CAP_SYS_PTRACE;"]),
        (Processes.NODE, CAPABILITIES - {"DAC_OVERRIDE"}, ["uid 1000", "without CAP_DAC_OVERRIDE;"]),
        (Processes.NODE, CAPABILITIES - {"SYS_ADMIN"}, ["network", "without CAP_SYS_ADMIN;"]),
        (Processes.NODE, CAPABILITIES - {"SETUID"}, ["files", "uid 1000", "without CAP_SETUID;"]),
    ],
)
def test_what_is_missing_is_said(
    tmp_path: Path, processes: Processes, capabilities: frozenset[str], words: list[str]
) -> None:
    @in_trio
    async def test() -> None:
        async with running_node(tmp_path) as node, node.pod("web-0") as target, node.pod("agent-0") as pod:
            web = await target.start("python3.11", "-c", "import time; time.sleep(1000)", user=1000)
            options = ("--container-id", web.id)
            async with pod.agent(*options, processes=processes, capabilities=capabilities) as agent:
                refused = await refusal(agent)
                assert refused.kind is GoodbyeKind.PERMISSION
                assert all(word in refused.message for word in words), refused.message
            assert await node.client.wait(agent.running.id) == 1
            assert words[0] in await agent.running.read_line()

    test()


@in_trio
async def test_a_container_that_has_ended_is_told(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, node.pod("web-0") as target, node.pod("agent-0") as pod:
        web = await target.start_web()
        async with (
            pod.agent("--container-id", web.id, processes=Processes.NODE) as agent,
            open_session(agent.stream, SECRET) as session,
        ):
            await node.client.signal(web.id, signal.SIGKILL)
            await session.lost.wait()
            assert "has ended" in (session.loss_reason or "")
            with pytest.raises(SessionLost):
                await session.environment()
        assert await node.client.wait(agent.running.id) == 1


def resident_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def loaded_objects(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


@in_trio
async def test_an_idle_agent_is_small_and_its_codec_compiled(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, node.pod("web-0") as target, node.pod("agent-0") as pod:
        web = await target.start_web()
        async with (
            pod.agent("--container-id", web.id, processes=Processes.NODE) as agent,
            open_session(agent.stream, SECRET) as session,
        ):
            assert await echo(session) == b"from the pod"
            assert resident_kb(agent.running.started.pid) <= IDLE_KB
            assert "_cmsgpack" in loaded_objects(agent.running.started.pid)


def test_the_image_has_the_agent_and_little_else() -> None:
    files = [path for path in IMAGE.rglob("*") if path.is_file() and not path.is_symlink()]
    programs = {
        str(path.relative_to(IMAGE)) for path in files if os.access(path, os.X_OK) and path.parent.name == "bin"
    }
    assert programs == {"usr/bin/mirrord-agent", "usr/bin/python3.11"}
    assert not [path for path in files if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)]
    assert not [path for path in files if b"direct_url" in path.name.encode() or "pip" in path.parts]
    assert not [path for path in files if os.fsencode(ROOT) in path.read_bytes()]
    assert sum(path.stat().st_size for path in files) < 45e6


def test_a_build_that_was_killed_is_made_again(tmp_path: Path) -> None:
    root = tmp_path / "rootfs"
    command = [str(ROOT / "agent/rootfs"), "assemble", str(ROOT / "build/agent-image"), str(root)]
    environment = {**os.environ, "PYTHON": sys.executable}
    with subprocess.Popen([*command], env=environment, start_new_session=True) as build:
        while not Path(f"{root}.unfinished/usr/bin/python3.11").exists():
            assert build.poll() is None
        os.killpg(build.pid, signal.SIGKILL)
    assert not root.exists()
    subprocess.run(command, env=environment, check=True)
    assert os.listdir(tmp_path) == ["rootfs"]
    assert (root / "usr/bin/mirrord-agent").read_bytes() == (IMAGE / "usr/bin/mirrord-agent").read_bytes()
