"""Watches that go on over connections that end, and histories that are forgotten."""

import contextlib
import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mirrord_trace.cluster import exchange
from mirrord_trace.cluster.api import ApiRefusal, open_api
from mirrord_trace.cluster.resources import PODS
from mirrord_trace.cluster.watching import Event, Expired, Known
from mirrord_trace.config import ClusterConfiguration
from mirrord_trace.errors import Failure
from tests.mirrord_trace.cluster.servers import PATIENCE_S, Handler, Server


@pytest.fixture(autouse=True)
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_DELAYS_S", (0.0, 0.0, 0.0, 0.0))


def pod(name: str, version: int, namespace: str = "shop") -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name, "resourceVersion": str(version)}}


def event(kind: str, subject: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": subject}


def line(kind: str, subject: dict[str, Any]) -> bytes:
    return json.dumps(event(kind, subject)).encode() + b"\n"


GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


def told(configuration: ClusterConfiguration, count: int) -> list[tuple[str, str]]:
    """The kinds and names of the first events of a watch."""

    async def main() -> list[tuple[str, str]]:
        seen = []
        with trio.fail_after(PATIENCE_S):
            async with open_api(configuration) as api, api.watch(PODS, "shop", label_selector="app=web") as events:
                async for kind, subject in events:
                    seen.append((kind, subject["metadata"]["name"]))
                    if len(seen) == count:
                        break
        return seen

    return trio.run(main)


def queries(server: Server) -> list[dict[str, list[str]]]:
    return [parse_qs(urlsplit(seen.path).query) for seen in server.seen]


def test_events_come_as_they_happen(tmp_path: Path) -> None:
    first_was_seen = threading.Event()

    def answer(handler: Handler) -> None:
        handler.begin_chunks()
        handler.chunk(line("ADDED", pod("a", 1)))
        assert first_was_seen.wait(PATIENCE_S)
        handler.chunk(line("MODIFIED", pod("a", 2)) + line("DELETED", pod("a", 3))[:10])
        handler.chunk(line("DELETED", pod("a", 3))[10:])
        first_was_seen.clear()
        handler.chunk(b"")

    async def main(configuration: ClusterConfiguration) -> list[str]:
        kinds = []
        with trio.fail_after(PATIENCE_S):
            async with open_api(configuration) as api, api.watch(PODS, "shop") as events:
                async for kind, _ in events:
                    kinds.append(kind)
                    first_was_seen.set()
                    if kind == "DELETED":
                        break
        return kinds

    with Server(tmp_path, answer) as server:
        assert trio.run(main, server.configuration()) == ["ADDED", "MODIFIED", "DELETED"]
        assert queries(server) == [{"watch": ["true"], "allowWatchBookmarks": ["true"], "timeoutSeconds": ["240"]}]


@pytest.mark.parametrize(
    "body",
    [
        b"<html>\n<p>Log in</p>\n</html>\n",
        b"<html>Log in</html>",
        b"\xff\n",
        b"[]\n",
        b"{}\n",
        b'{"kind": "Pod", "metadata": {"name": "a"}}\n',
        b'{"type": "ADDED", "object": {"metadata": {}}}\n',
        b'{"type": "ADDED", "object": "a"}\n',
    ],
)
def test_something_else_answers(tmp_path: Path, body: bytes) -> None:
    with Server(tmp_path, lambda handler: handler.reply(200, body)) as server:
        with pytest.raises(Failure) as failure:
            told(server.configuration(), 1)
        words = body.decode(errors="replace").split("\n")[0]
        assert failure.value.message == (
            f"what answers in the API server's place does not speak its language, but says {words!r}"
        )


def test_an_event_that_breaks_off_at_a_proper_end_comes_again(tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.reply(200, line("ADDED", pod("a", 1))[: 20 if handler.number == 1 else None])

    with Server(tmp_path, answer) as server:
        assert told(server.configuration(), 1) == [("ADDED", "a")]


def test_a_watch_goes_on_from_the_newest_version(tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.begin_chunks()
        match handler.number:
            case 1:
                handler.chunk(line("ADDED", pod("b", 9)) + line("ADDED", pod("a", 5)))
                handler.chunk(b"")
            case 2:
                handler.chunk(line("BOOKMARK", {"metadata": {"resourceVersion": "12"}}))
                handler.drop()
            case _:
                handler.chunk(line("DELETED", pod("a", 13)))
                handler.chunk(b"")

    with Server(tmp_path, answer) as server:
        assert told(server.configuration(), 3) == [("ADDED", "b"), ("ADDED", "a"), ("DELETED", "a")]
        assert [query.get("resourceVersion") for query in queries(server)] == [None, ["9"], ["12"]]
        assert all(query["labelSelector"] == ["app=web"] for query in queries(server))


@pytest.mark.parametrize("as_status", [False, True])
def test_what_was_missed_is_made_up_for(tmp_path: Path, as_status: bool) -> None:
    def answer(handler: Handler) -> None:
        query = parse_qs(urlsplit(handler.path).query)
        if "watch" not in query:
            items = [pod("same", 1), pod("changed", 8), pod("new", 9)]
            handler.reply(200, {"items": items, "metadata": {"resourceVersion": "20"}})
        elif query.get("resourceVersion") == ["4"] and as_status:
            handler.refuse(410, "Expired")
        else:
            handler.begin_chunks()
            match query.get("resourceVersion"):
                case None:
                    for name, version in (("same", 1), ("changed", 2), ("gone", 4)):
                        handler.chunk(line("ADDED", pod(name, version)))
                case ["4"]:
                    handler.chunk(line("ERROR", GONE))
                case ["20"]:
                    handler.chunk(line("DELETED", pod("new", 21)))
            handler.chunk(b"")

    with Server(tmp_path, answer) as server:
        assert told(server.configuration(), 7) == [
            ("ADDED", "same"),
            ("ADDED", "changed"),
            ("ADDED", "gone"),
            ("DELETED", "gone"),
            ("MODIFIED", "changed"),
            ("ADDED", "new"),
            ("DELETED", "new"),
        ]


def test_a_refused_watch(tmp_path: Path) -> None:
    with Server(tmp_path, lambda handler: handler.refuse(403, "Forbidden", "no")) as server:
        with pytest.raises(ApiRefusal) as refusal:
            told(server.configuration(), 1)
        assert (refusal.value.verb, refusal.value.resource, refusal.value.status) == ("watch", PODS, 403)


def test_a_watch_that_the_server_ends_with_an_error(tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.begin_chunks()
        handler.chunk(line("ERROR", {"kind": "Status", "code": 500, "reason": "InternalError", "message": "etcd"}))
        handler.chunk(b"")

    with Server(tmp_path, answer) as server, pytest.raises(ApiRefusal, match="500 InternalError: etcd"):
        told(server.configuration(), 1)


def test_a_server_that_is_gone_for_good(tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        if handler.number == 1:
            handler.begin_chunks()
            handler.chunk(line("ADDED", pod("a", 1)))
        handler.drop()

    with Server(tmp_path, answer) as server, pytest.raises(Failure, match="cannot reach the API server"):
        told(server.configuration(), 2)


def test_a_watch_that_waits_is_cancelled_at_once_and_its_connection_closed(tmp_path: Path) -> None:
    closed = threading.Event()

    def answer(handler: Handler) -> None:
        handler.begin_chunks()
        handler.chunk(line("ADDED", pod("a", 1)))
        with contextlib.suppress(OSError):  # where the client is reading, TLS ends with an alert
            assert handler.connection.recv(1) == b""
        closed.set()

    async def main(configuration: ClusterConfiguration) -> None:
        async with open_api(configuration) as api, trio.open_nursery() as nursery:

            async def watch() -> None:
                async with api.watch(PODS, "shop") as events:
                    async for _ in events:
                        waiting.set()

            waiting = trio.Event()
            nursery.start_soon(watch)
            await waiting.wait()
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        with trio.fail_after(PATIENCE_S):
            await trio.to_thread.run_sync(closed.wait, abandon_on_cancel=True)

    with Server(tmp_path, answer) as server:
        trio.run(main, server.configuration())


@pytest.mark.parametrize(
    ("events", "version", "passed_on"),
    [
        ([event("ADDED", pod("a", 2))], "2", 1),
        ([event("ADDED", pod("a", 20)), event("ADDED", pod("b", 3))], "20", 2),
        ([event("BOOKMARK", {"metadata": {"resourceVersion": "7"}})], "7", 0),
        ([event("ADDED", {"metadata": {"name": "a"}})], "", 1),
    ],
)
def test_what_is_known(events: list[dict[str, Any]], version: str, passed_on: int) -> None:
    known = Known()
    assert len([news for one in events if (news := known.take(one))]) == passed_on
    assert known.version == version


def test_a_list_tells_what_has_changed() -> None:
    known = Known()
    for name, namespace in (("a", "shop"), ("a", "other"), ("b", "shop")):
        known.take(event("ADDED", pod(name, 1, namespace)))
    known.take(event("DELETED", pod("b", 2)))
    news: list[Event] = list(known.take_list([pod("a", 1), pod("b", 6)], "9"))
    assert news == [("DELETED", pod("a", 1, "other")), ("ADDED", pod("b", 6))]
    assert known.version == "9"
    assert list(known.take_list([pod("a", 1), pod("b", 6)], "10")) == []


def test_a_forgotten_history() -> None:
    with pytest.raises(Expired):
        Known().take(event("ERROR", GONE))
