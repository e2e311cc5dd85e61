"""The agent as a process: started as a target starts it, in namespaces of its own where there is something to enter."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio

from mirrord_agent import listening
from mirrord_agent.__main__ import main
from mirrord_trace.session import (
    AgentRefused,
    GoodbyeKind,
    InetEndpoint,
    Session,
    SessionLost,
    UnixEndpoint,
    open_session,
)
from tests.mirrord_agent.support import SECRET, SECRET_HASH, in_trio, listener

PATHS = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

# A pod: a network and UTS namespace with loopback up, a host name, an echo on TCP port 7 and a socket without a path.
_POD = r"""
import ctypes, fcntl, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
if "nobody" in sys.argv:
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    assert libc.prctl(4, 1, 0, 0, 0) == 0  # dumpable, as a process that was always nobody's
flags = 0x40000000 | 0x04000000
if os.geteuid() or "user" in sys.argv:
    flags |= 0x10000000
assert libc.unshare(flags) == 0, os.strerror(ctypes.get_errno())
control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))
socket.sethostname("web-0")
echo = socket.create_server(("127.0.0.1", 7))
abstract = socket.socket(socket.AF_UNIX)
abstract.bind("\0pod")
abstract.listen()
print("ready", flush=True)
connection, peer = echo.accept()
while data := connection.recv(65536):
    connection.sendall(data)
connection.close()
sys.stdin.read()
"""


@contextmanager
def pod(*arguments: str) -> Iterator[int]:
    """A pod; the id of its process."""
    command = [sys.executable, "-c", _POD, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"POD": "web-0"}) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.kill()


@asynccontextmanager
async def agent_process(pid: int, script: str | None = None) -> AsyncIterator[tuple[trio.Process, trio.SocketStream]]:
    """An agent on a socket that is its standard input. It must be gone soon after the block."""
    ours, theirs = socket.socketpair()
    program = ["-m", "mirrord_agent"] if script is None else ["-c", script]
    options = ["--pid", str(pid), "--secret-hash", SECRET_HASH, "--socket-fd", "0"]
    with theirs:
        process = await trio.lowlevel.open_process(
            [sys.executable, *program, *options], stdin=theirs, stderr=subprocess.PIPE, env=PATHS
        )
    try:
        async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
            yield process, stream
        with trio.fail_after(10):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if process.stderr is not None:
            await process.stderr.aclose()


async def talk_to_the_pod(session: Session) -> None:
    assert session.facts.hostname == "web-0"
    assert (await session.environment())[b"POD"] == b"web-0"
    stream = await session.connect(InetEndpoint("127.0.0.1", 7))
    await stream.send(b"hello pod")
    assert await stream.receive() == b"hello pod"
    await stream.aclose()
    await (await session.connect(UnixEndpoint(b"\0pod"))).aclose()
    with pytest.raises(OSError, match="unreachable"):
        await session.connect(InetEndpoint("198.18.0.1", 80))
    with pytest.raises(OSError, match="unreachable"):
        await session.open_datagrams("inet4", InetEndpoint("198.18.0.1", 53))


@pytest.mark.parametrize("arguments", [(), ("user",)])
def test_everything_happens_in_the_targets_namespaces(arguments: tuple[str, ...]) -> None:
    @in_trio
    async def test() -> None:
        with pod(*arguments) as pid:
            async with agent_process(pid) as (process, stream), open_session(stream, SECRET) as session:
                assert session.facts.pid == pid
                await talk_to_the_pod(session)
            assert process.returncode == 0

    test()


# Root without CAP_SYS_ADMIN (bit 21): it may read the target, but not enter.
_WITHOUT_SYS_ADMIN = """
import ctypes, sys
import mirrord_agent.__main__
libc = ctypes.CDLL(None)
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
data = (ctypes.c_uint32 * 6)()
assert libc.capget(header, data) == 0
data[0] &= ~(1 << 21)
data[1] &= ~(1 << 21)
assert libc.capset(header, data) == 0
sys.exit(mirrord_agent.__main__.main())
"""

_AS_NOBODY = """
import ctypes, os, sys
import mirrord_agent.__main__
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
sys.exit(mirrord_agent.__main__.main())
"""


def only_as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give rights away")


@in_trio
async def test_the_owner_of_a_user_namespace_needs_no_rights() -> None:
    only_as_root()
    with pod("nobody") as pid:
        async with agent_process(pid, script=_AS_NOBODY) as (_, stream), open_session(stream, SECRET) as session:
            await talk_to_the_pod(session)


@pytest.mark.parametrize(
    ("arguments", "script", "right"),
    [
        ((), _WITHOUT_SYS_ADMIN, "CAP_SYS_ADMIN in the user namespace"),
        ((), _AS_NOBODY, "CAP_SYS_PTRACE"),
    ],
)
def test_who_may_not_enter_is_told_what_is_missing(arguments: tuple[str, ...], script: str, right: str) -> None:
    @in_trio
    async def test() -> None:
        only_as_root()
        with pod(*arguments) as pid:
            async with agent_process(pid, script=script) as (process, stream):
                with pytest.raises(AgentRefused, match=right) as refused:
                    async with open_session(stream, SECRET):
                        pytest.fail("the block must not begin")
                assert refused.value.kind is GoodbyeKind.PERMISSION
                assert await process.wait() == 1
                assert process.stderr is not None
                assert right.encode() in await process.stderr.receive_some(10_000)

    test()


@in_trio
async def test_a_process_that_is_gone_is_named() -> None:
    async with agent_process(2**22 + 1) as (process, stream):
        with pytest.raises(AgentRefused, match="no process 4194305") as refused:
            async with open_session(stream, SECRET):
                pytest.fail("the block must not begin")
        assert refused.value.kind is GoodbyeKind.TARGET_GONE
        assert await process.wait() == 1


@in_trio
async def test_a_killed_agent_is_a_loss_and_its_connections_end() -> None:
    async with (
        listener() as far,
        agent_process(os.getpid()) as (process, stream),
        open_session(stream, SECRET) as session,
    ):
        connection = await session.connect(InetEndpoint(far.host, far.port))
        async with await far.accept() as accepted:
            process.kill()
            await session.lost.wait()
            assert session.loss_reason
            with pytest.raises(SessionLost):
                await connection.receive()
            assert await accepted.receive_some() == b""


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_agent_in_good_order(stop: signal.Signals) -> None:
    @in_trio
    async def test() -> None:
        async with agent_process(os.getpid()) as (process, stream), open_session(stream, SECRET) as session:
            process.send_signal(stop)
            await session.lost.wait()
            assert session.loss_reason == "the agent left: the agent was told to stop"
            assert await process.wait() == 0

    test()


@in_trio
async def test_signals_blocked_by_who_started_it_do_not_keep_it() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        async with agent_process(os.getpid()) as (process, stream), open_session(stream, SECRET) as session:
            process.terminate()
            await session.lost.wait()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@in_trio
async def test_it_goes_with_its_client_even_before_the_hello() -> None:
    async with agent_process(os.getpid()) as (process, stream):
        await stream.aclose()
        assert await process.wait() == 0


@in_trio
async def test_a_descriptor_that_is_no_socket_is_an_error() -> None:
    command = [sys.executable, "-m", "mirrord_agent", "--pid", "1", "--secret-hash", SECRET_HASH, "--socket-fd", "0"]
    ran = await trio.run_process(command, check=False, capture_stderr=True, env=PATHS)
    assert ran.returncode == 1
    assert b"socket" in ran.stderr


@in_trio
async def test_a_listening_agent_turns_strangers_away_and_serves_one_client() -> None:
    command = [sys.executable, "-m", "mirrord_agent", "--pid", str(os.getpid()), "--secret-hash", SECRET_HASH]
    process = await trio.lowlevel.open_process([*command, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, env=PATHS)
    assert process.stdout is not None
    line = (await process.stdout.receive_some(100)).decode()
    host, port = listening.parse_address(line.removeprefix("listening on ").strip())
    try:
        async with await trio.open_tcp_stream(host, port) as silent, await trio.open_tcp_stream(host, port) as guess:
            with pytest.raises(AgentRefused) as refused:
                async with open_session(guess, b"x" * 32):
                    pytest.fail("the block must not begin")
            assert refused.value.kind is GoodbyeKind.SECRET
            async with open_session(await trio.open_tcp_stream(host, port), SECRET) as session:
                assert session.facts.communication_timeout_s == 30
                assert b"PATH" in await session.environment()
                with pytest.raises(OSError, match="all attempts"):
                    await trio.open_tcp_stream(host, port)
            assert await process.wait() == 0
            del silent
    finally:
        process.kill()
        await process.stdout.aclose()


@in_trio
async def test_an_agent_to_which_no_client_comes_leaves() -> None:
    command = [sys.executable, "-m", "mirrord_agent", "--targetless", "--secret-hash", SECRET_HASH]
    options = ["--listen", "127.0.0.1:0", "--first-client-timeout", "0"]
    ran = await trio.run_process([*command, *options], check=False, capture_stdout=True, capture_stderr=True, env=PATHS)
    assert ran.returncode == 1
    assert ran.stdout.startswith(b"listening on 127.0.0.1:")
    assert b"no client came" in ran.stderr


@pytest.mark.parametrize("target", [[], ["--pid", "1", "--targetless"], ["--container-id", "../1"]])
def test_one_target_is_named(target: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*target, "--secret-hash", SECRET_HASH, "--socket-fd", "0"])
    assert ended.value.code == 2
    assert "--container-id" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["0.0.0.0:80", "10.0.0.1:80", "localhost:80", "127.0.0.1", "127.0.0.1:65536", "[::]:1"]
)
def test_only_loopback_is_listened_on(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        listening.parse_address(text)


def test_addresses_of_both_families_are_understood() -> None:
    assert listening.parse_address("127.0.0.1:8000") == ("127.0.0.1", 8000)
    assert listening.parse_address("[::1]:0") == ("::1", 0)
