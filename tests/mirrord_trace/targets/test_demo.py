from __future__ import annotations

import io
import json
import os
import select
import subprocess
import sys
import textwrap
from pathlib import Path

import dns.message
import trio

from mirrord_trace.cli.progress import reporter_for
from mirrord_trace.session import InetEndpoint, Session, open_session
from mirrord_trace.targets import demo
from mirrord_trace.targets.demo import DemoTarget
from tests.mirrord_trace.targets.clients import NO_CAPABILITIES, finish, start


async def get(session: Session, address: tuple[str, int], path: str) -> dict[str, str]:
    stream = await session.connect(InetEndpoint(*address))
    await stream.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    response = b""
    while chunk := await stream.receive():
        response += chunk
    await stream.aclose()
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    said: dict[str, str] = json.loads(body)
    return said


async def look_around(session: Session) -> None:
    environment = await session.environment()
    assert environment[b"POD_NAME"] == b"web-demo-0"
    assert environment[b"SHOP_URL"] == b"http://shop.demo.svc.cluster.local:8080/"
    assert session.facts.hostname == "web-demo-0"
    resolv_conf = (await session.read_file(b"/etc/resolv.conf")).data.decode()
    assert "nameserver 198.18.0.53\n" in resolv_conf
    assert "search demo.svc.cluster.local " in resolv_conf
    assert (await session.read_file(b"/etc/hostname")).data == b"web-demo-0\n"
    assert b"http://shop:8080/" in (await session.read_file(environment[b"SHOP_CONFIG"])).data

    assert await get(session, demo.SHOP, "/x") == {"service": "shop", "path": "/x", "caller": "198.18.0.20"}
    assert await get(session, demo.WEB, "/") == {"service": "web", "path": "/", "caller": "198.18.0.20"}

    query = dns.message.make_query("shop.demo.svc.cluster.local", "A")
    names = await session.open_datagrams("inet4", InetEndpoint(*demo.NAME_SERVER))
    names.send(query.to_wire(), None)
    by_udp = dns.message.from_wire((await names.receive())[0])
    names.close()
    stream = await session.connect(InetEndpoint(*demo.NAME_SERVER))
    await stream.send(len(query.to_wire()).to_bytes(2, "big") + query.to_wire())
    await stream.send_eof()
    received = b""
    while chunk := await stream.receive():
        received += chunk
    by_tcp = dns.message.from_wire(received[2:])
    assert (
        [str(record) for record in by_udp.answer[0]] == [str(record) for record in by_tcp.answer[0]] == [demo.SHOP[0]]
    )

    echo = await session.open_datagrams("inet4", InetEndpoint(*demo.ECHO))
    echo.send(b"hello?", None)
    assert (await echo.receive())[0] == b"hello?"
    echo.close()


async def visit() -> list[int]:
    """Look around in the demo; returns the processes that should be gone now."""
    reporter = reporter_for(io.TextIOWrapper(io.BytesIO(), "utf-8"))
    with trio.fail_after(30):
        async with DemoTarget().open(reporter) as link, open_session(link.stream, link.secret) as session:
            assert link.target_name == "demo (web-demo-0)"
            await look_around(session)
            return [session.facts.pid, *link.agent_pids]


def test_everything_in_the_demo_works_and_nothing_is_left() -> None:
    assert not [pid for pid in trio.run(visit) if Path(f"/proc/{pid}").exists()]


def test_an_ordinary_user_can_run_it() -> None:
    program = """
        import trio
        from tests.mirrord_trace.targets import test_demo
        trio.run(test_demo.visit)
    """
    done = subprocess.run(
        [*NO_CAPABILITIES, sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_kill_9_leaves_nothing() -> None:
    with start("demo", "wait") as client:
        assert client.stdout is not None
        pids = client.stdout.readline().split()[-2:]
        pidfds = [os.pidfd_open(int(pid)) for pid in pids]
        client.kill()
        for pidfd in pidfds:
            assert select.select([pidfd], [], [], 5)[0]
            os.close(pidfd)


def test_pods_that_cannot_be_made_are_a_failure_that_names_the_sysctls() -> None:
    status, output = finish(start("demo", rights=["unshare", "--user"]))
    assert (status, "max_user_namespaces" in output) == (3, True), output
