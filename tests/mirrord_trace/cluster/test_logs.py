import io
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import urllib3
from trio.testing import MockClock

from mirrord_trace.cluster import exchange
from mirrord_trace.cluster.api import ApiRefusal, Unreachable, open_api
from mirrord_trace.cluster.exchange import Exchange, Query, Stream
from mirrord_trace.cluster.logs import log_lines
from mirrord_trace.cluster.refusals import Request
from mirrord_trace.cluster.resources import POD_LOGS
from mirrord_trace.errors import Failure
from tests.mirrord_trace.cluster.servers import PATIENCE_S, Handler, Server


@pytest.fixture(autouse=True)
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_DELAYS_S", (0.0, 0.0, 0.0, 0.0))


def lines_of(server: Server, *, follow: bool = True, on_line: Callable[[str], object] = str) -> list[str]:
    async def main() -> list[str]:
        lines = []
        with trio.fail_after(PATIENCE_S):
            async with open_api(server.configuration()) as api, api.log("shop", "web", "app", follow=follow) as log:
                async for line in log:
                    lines.append(line)
                    on_line(line)
        return lines

    return trio.run(main)


@pytest.mark.parametrize(("follow", "query"), [(False, "container=app"), (True, "container=app&follow=true")])
def test_lines(tmp_path: Path, follow: bool, query: str) -> None:
    with Server(tmp_path, lambda handler: handler.reply(200, b"one\n\n\xfftwo\nrest")) as server:
        assert lines_of(server, follow=follow) == ["one", "", "\ufffdtwo", "rest"]
        assert server.seen[0].path == f"/api/v1/namespaces/shop/pods/web/log?{query}"


def test_a_line_comes_when_it_is_written(tmp_path: Path) -> None:
    seen = threading.Event()

    def answer(handler: Handler) -> None:
        handler.begin_chunks()
        handler.chunk(b"one\ntw")
        assert seen.wait(PATIENCE_S)
        handler.chunk(b"o\n")
        handler.chunk(b"")

    with Server(tmp_path, answer) as server:
        assert lines_of(server, on_line=lambda _: seen.set()) == ["one", "two"]


def test_a_follower_goes_on_after_a_break(tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.begin_chunks()
        match handler.number:
            case 1:
                handler.chunk(b"one\ntw")
                handler.drop()
            case 2:
                handler.chunk(b"o")
                handler.drop()
            case _:
                handler.chunk(b"one\nt")
                handler.chunk(b"wo\nthree\n")
                handler.chunk(b"")

    with Server(tmp_path, answer) as server:
        assert lines_of(server) == ["one", "two", "three"]


def test_a_log_that_always_breaks(tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.begin_chunks()
        handler.chunk(b"one\n")
        handler.drop()

    with Server(tmp_path, answer) as server, pytest.raises(Failure, match="broke off in the middle of an answer"):
        lines_of(server)


class BehindABalancer(Exchange):
    """A log whose first and only line comes late, and a balancer that cuts connections as idle before that.

    The head of the answer comes at once or, as from the real server, with the first line.
    """

    def __init__(self, cuts: int, idle_s: float, *, head_at_once: bool) -> None:
        credentials: Any = SimpleNamespace(access=self._access, interactive=False)
        super().__init__(credentials)
        self._cuts = cuts
        self._idle_s = idle_s
        self._head_at_once = head_at_once

    async def _access(self) -> Any:
        return SimpleNamespace(server="https://api.example", proxy=None)

    async def _carried_out(self, *_attempt: object) -> Any:
        if not self._head_at_once:
            await self._stand()
        return SimpleNamespace(status=200, read1=io.BytesIO(b"late\n").read1, close=int)

    async def stream(self, request: Request, query: Query, *, silence_s: float | None) -> Stream:
        stream = await super().stream(request, query, silence_s=silence_s)
        if self._head_at_once:
            receive_at_once = stream.receive

            async def receive() -> bytes:
                await self._stand()
                return await receive_at_once()

            stream.receive = receive  # type: ignore[method-assign]
        return stream

    async def _stand(self) -> None:
        if self._cuts:
            self._cuts -= 1
            await trio.sleep(self._idle_s)
            raise urllib3.exceptions.ProtocolError("cut off")

    async def lines(self) -> list[str]:
        request = Request("get", POD_LOGS, "shop", "web")
        return [line async for line in log_lines(self, request, "app", follow=True)]


@pytest.mark.parametrize("head_at_once", [True, False])
def test_a_follower_goes_on_when_idle_connections_are_cut(head_at_once: bool) -> None:
    server = BehindABalancer(20, 60.0, head_at_once=head_at_once)
    assert trio.run(server.lines, clock=MockClock(autojump_threshold=0)) == ["late"]
    assert server.requests == 21


@pytest.mark.parametrize("head_at_once", [True, False])
def test_a_follower_gives_up_when_connections_do_not_last(head_at_once: bool) -> None:
    server = BehindABalancer(20, 1.0, head_at_once=head_at_once)
    with pytest.raises(Unreachable):
        trio.run(server.lines, clock=MockClock(autojump_threshold=0))
    assert server.requests == 5


def test_a_line_without_end_comes_in_pieces(tmp_path: Path) -> None:
    size = 1 << 20
    with Server(tmp_path, lambda handler: handler.reply(200, b"x" * size)) as server:
        pieces = lines_of(server)
        assert sum(map(len, pieces)) == size
        assert max(map(len, pieces)) < 1 << 18


def test_a_container_that_has_no_log_yet(tmp_path: Path) -> None:
    message = 'container "app" in pod "web" is waiting to start: ContainerCreating'
    with Server(tmp_path, lambda handler: handler.refuse(400, "BadRequest", message)) as server:
        with pytest.raises(ApiRefusal) as refusal:
            lines_of(server)
        assert refusal.value.message == message


def test_a_silent_log_is_cancelled_at_once(tmp_path: Path) -> None:
    """The real server sends not even the head of its answer before the first line."""
    asked, over = threading.Event(), threading.Event()

    def answer(_handler: Handler) -> None:
        asked.set()
        over.wait(PATIENCE_S)

    async def main() -> None:
        async with open_api(server.configuration()) as api, trio.open_nursery() as nursery:

            async def follow() -> None:
                async with api.log("shop", "web", "app", follow=True) as log:
                    async for _ in log:
                        pass

            nursery.start_soon(follow)
            await trio.to_thread.run_sync(asked.wait)
            nursery.cancel_scope.cancel()
        assert not over.is_set()

    with Server(tmp_path, answer) as server:
        trio.run(main)
        over.set()


FOLLOW_UNTIL_TOLD = """
import sys, trio
from mirrord_trace.cluster.api import open_api
from mirrord_trace.config import ClusterConfiguration

async def follow():
    async with open_api(ClusterConfiguration(kubeconfig=sys.argv[1])) as api:
        async with api.log("shop", "web", "app", follow=True) as log:
            async for _ in log:
                pass

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await trio.to_thread.run_sync(sys.stdin.readline)
        nursery.cancel_scope.cancel()

trio.run(main)
"""


def test_a_silent_log_does_not_hold_up_the_end_of_the_process(tmp_path: Path) -> None:
    asked, over = threading.Event(), threading.Event()

    def answer(_handler: Handler) -> None:
        asked.set()
        over.wait()

    with Server(tmp_path, answer) as server:
        kubeconfig = server.configuration().kubeconfig
        command = [sys.executable, "-c", FOLLOW_UNTIL_TOLD, str(kubeconfig)]
        try:
            with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
                assert asked.wait(PATIENCE_S)
                process.communicate(b"\n", timeout=PATIENCE_S)
                assert process.returncode == 0
        finally:
            over.set()
