"""What is sent again, how often, and what a cancelled request leaves."""

import gzip
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from mirrord_trace.cluster import exchange
from mirrord_trace.cluster.api import ApiRefusal, ApiServer, Unreachable, open_api
from mirrord_trace.cluster.exchange import Lines, delay_s, warning_texts
from mirrord_trace.cluster.resources import JOBS, PODS
from mirrord_trace.config import ClusterConfiguration
from mirrord_trace.errors import Failure
from tests.mirrord_trace.cluster.servers import PATIENCE_S, Handler, Server, closed_port

T = TypeVar("T")
POD = {"kind": "Pod", "metadata": {"name": "web"}}


@pytest.fixture(autouse=True)
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_DELAYS_S", (0.0, 0.0, 0.0, 0.0))


def with_api(configuration: ClusterConfiguration, work: Callable[[ApiServer], Awaitable[T]]) -> T:
    async def main() -> T:
        with trio.fail_after(PATIENCE_S):
            async with open_api(configuration) as api:
                return await work(api)

    return trio.run(main)


async def get(api: ApiServer) -> tuple[dict[str, Any], int]:
    return await api.get(PODS, "shop", "web"), api.requests


@pytest.mark.parametrize(
    ("repetitions", "status", "retry_after", "delay"),
    [
        (0, None, None, 0.0),
        (3, None, None, 0.0),
        (4, None, None, None),
        (0, 429, None, 0.0),
        (0, 429, "3", 3.0),
        (0, 429, "3600", 10.0),
        (0, 429, "Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
        (4, 429, "1", None),
        (0, 503, None, 0.0),
        (0, 500, None, None),
        (0, 500, "1", 1.0),
        (0, 403, "1", None),
        (0, 404, None, None),
    ],
)
def test_delays(repetitions: int, status: int | None, retry_after: str | None, delay: float | None) -> None:
    assert delay_s(repetitions, status, retry_after) == delay


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_the_server_puts_off_is_sent_again(tmp_path: Path, status: int) -> None:
    def answer(handler: Handler) -> None:
        if handler.number < 3:
            handler.refuse(status, Retry_After="0")
        else:
            handler.reply(200, POD)

    with Server(tmp_path, answer) as server:
        assert with_api(server.configuration(), get) == (POD, 3)


def test_what_stays_put_off_is_a_refusal(tmp_path: Path) -> None:
    with Server(tmp_path, lambda handler: handler.refuse(503, "ServiceUnavailable", "no")) as server:
        with pytest.raises(ApiRefusal) as refusal:
            with_api(server.configuration(), get)
        assert (refusal.value.status, refusal.value.reason, refusal.value.message) == (503, "ServiceUnavailable", "no")
        assert len(server.seen) == 5


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422, 500])
def test_other_refusals_are_final(tmp_path: Path, status: int) -> None:
    with Server(tmp_path, lambda handler: handler.refuse(status, "R", "m")) as server:
        with pytest.raises(ApiRefusal) as refusal:
            with_api(server.configuration({"token": "t"}), get)
        assert refusal.value.status == status
        assert str(refusal.value) == f"cannot get pods web in namespace shop: {status} R: m"
        assert len(server.seen) == (2 if status == 401 else 1)


def test_a_lost_connection_is_made_anew(tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        if handler.number == 2:
            handler.drop()
        else:
            handler.reply(200, POD)

    async def twice(api: ApiServer) -> tuple[dict[str, Any], int]:
        await get(api)
        return await get(api)

    with Server(tmp_path, answer) as server:
        assert with_api(server.configuration(), twice) == (POD, 3)


def test_an_answer_that_breaks_off_is_asked_for_again(tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        if handler.number == 1:
            handler.begin_chunks()
            handler.chunk(b'{"kind": "Po')
            handler.drop()
        else:
            handler.reply(200, POD)

    with Server(tmp_path, answer) as server:
        assert with_api(server.configuration(), get) == (POD, 2)


def test_connections_that_are_always_lost(tmp_path: Path) -> None:
    with Server(tmp_path, Handler.drop) as server:
        with pytest.raises(Failure, match=f"^cannot reach the API server {server.url}: "):
            with_api(server.configuration(), get)
        assert len(server.seen) == 5


async def create_job(api: ApiServer) -> tuple[dict[str, Any], list[str]]:
    return await api.create(JOBS, "shop", {"kind": "Job", "metadata": {"name": "agent"}})


def test_a_create_whose_answer_was_lost_finds_its_object(tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        if handler.command == "GET":
            handler.reply(200, {"kind": "Job", "metadata": {"name": "agent", "uid": "1"}})
        elif handler.number == 1:
            handler.drop()
        else:
            handler.refuse(409, "AlreadyExists")

    with Server(tmp_path, answer) as server:
        job, _ = with_api(server.configuration(), create_job)
        assert job["metadata"]["uid"] == "1"
        assert [seen.method for seen in server.seen] == ["POST", "POST", "GET"]


def test_a_create_whose_answer_was_lost_and_that_may_not_look(tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        if handler.command == "GET":
            handler.refuse(403, "Forbidden")
        elif handler.number == 1:
            handler.drop()
        else:
            handler.refuse(409, "AlreadyExists")

    with Server(tmp_path, answer) as server, pytest.raises(ApiRefusal, match="Forbidden") as refusal:
        with_api(server.configuration(), create_job)
    assert refusal.value.repeated


def test_a_create_whose_answer_was_lost_and_the_connection_with_it(tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        if handler.command == "GET" or handler.number == 1:
            handler.drop()
        else:
            handler.refuse(409, "AlreadyExists")

    with Server(tmp_path, answer) as server, pytest.raises(Unreachable) as failure:
        with_api(server.configuration(), create_job)
    assert failure.value.sent


def test_a_create_that_found_no_server(tmp_path: Path) -> None:
    with Server(tmp_path, Handler.drop) as server, closed_port() as port:
        with pytest.raises(Unreachable) as failure:
            with_api(server.configuration(cluster={"server": f"https://127.0.0.1:{port}"}), create_job)
        assert not failure.value.sent
        with pytest.raises(Unreachable) as failure:
            with_api(server.configuration(), create_job)
        assert failure.value.sent


def test_a_create_whose_answer_was_lost_with_the_server(tmp_path: Path) -> None:
    """What the last attempt met says nothing of the first."""
    server = Server(tmp_path, lambda handler: handler.reply(200, POD) if handler.command == "GET" else vanish(handler))

    def vanish(handler: Handler) -> None:
        server.close_listener()
        handler.drop()

    async def work(api: ApiServer) -> None:
        await get(api)
        await create_job(api)

    with server, pytest.raises(Unreachable, match="connection refused") as failure:
        with_api(server.configuration(), work)
    assert failure.value.sent


@pytest.mark.parametrize("put_off", [False, True])
def test_an_object_that_was_there_before_is_a_refusal(tmp_path: Path, put_off: bool) -> None:
    """Also where the server had too much to do at first: it did nothing then."""

    def answer(handler: Handler) -> None:
        if put_off and handler.number == 1:
            handler.refuse(429, Retry_After="0")
        else:
            handler.refuse(409, "AlreadyExists")

    with Server(tmp_path, answer) as server, pytest.raises(ApiRefusal, match="AlreadyExists"):
        with_api(server.configuration(), create_job)


def test_warnings_of_the_server(tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.reply(201, {"kind": "Job"}, Warning='299 - "would violate PodSecurity \\"baseline\\""')

    with Server(tmp_path, answer) as server:
        _, warnings = with_api(server.configuration(), create_job)
        assert warnings == ['would violate PodSecurity "baseline"']


@pytest.mark.parametrize(
    ("headers", "texts"),
    [
        ([], []),
        (['299 - "one"', '299 kube-apiserver "two"'], ["one", "two"]),
        (['299 - "a \\\\ b"'], ["a \\ b"]),
        (["299"], []),
    ],
)
def test_texts_of_warnings(headers: list[str], texts: list[str]) -> None:
    assert warning_texts(headers) == texts


def test_a_delete_of_what_is_gone_is_fine(tmp_path: Path) -> None:
    async def delete(api: ApiServer) -> None:
        await api.delete(JOBS, "shop", "agent")

    with Server(tmp_path, lambda handler: handler.refuse(404, "NotFound")) as server:
        with_api(server.configuration(), delete)
        (seen,) = server.seen
        assert json.loads(seen.body)["propagationPolicy"] == "Background"


def test_a_patch_has_its_type(tmp_path: Path) -> None:
    async def patch(api: ApiServer) -> dict[str, Any]:
        kind = "application/strategic-merge-patch+json"
        return await api.patch(PODS, "shop", "web", {"spec": {}}, content_type=kind)

    with Server(tmp_path, lambda handler: handler.reply(200, POD)) as server:
        assert with_api(server.configuration(), patch) == POD
        assert server.seen[0].headers["Content-Type"] == "application/strategic-merge-patch+json"


def test_a_list_in_pages_begins_again_when_the_server_forgot_it(tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        if "continue=two" in handler.path:
            handler.refuse(410, "Expired")
        elif "limit" in handler.path:
            handler.reply(200, {"items": [{"old": 1}], "metadata": {"continue": "two"}})
        else:
            handler.reply(200, {"items": [{"new": 1}, {"new": 2}], "metadata": {}})

    async def pods(api: ApiServer) -> list[dict[str, Any]]:
        return await api.list(PODS, "shop", label_selector="app=web")

    with Server(tmp_path, answer) as server:
        assert with_api(server.configuration(), pods) == [{"new": 1}, {"new": 2}]
        assert [seen.path.partition("?")[2] for seen in server.seen] == [
            "labelSelector=app%3Dweb&limit=500",
            "labelSelector=app%3Dweb&limit=500&continue=two",
            "labelSelector=app%3Dweb",
        ]


def test_compressed_answers_are_taken(tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        assert handler.headers["Accept-Encoding"] == "gzip"
        handler.reply(200, gzip.compress(json.dumps(POD).encode()), Content_Encoding="gzip")

    with Server(tmp_path, answer) as server:
        assert with_api(server.configuration(), get) == (POD, 1)


@pytest.mark.parametrize("body", [b"<html>Log in</html>", b"[]", b""])
def test_something_else_answers(tmp_path: Path, body: bytes) -> None:
    with Server(tmp_path, lambda handler: handler.reply(200, body)) as server:
        with pytest.raises(Failure) as failure:
            with_api(server.configuration(), get)
        assert failure.value.message == (
            f"what answers in the API server's place does not speak its language, but says {body.decode()!r}"
        )


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.reply(302, b"", Location="https://login.example")

    with Server(tmp_path, answer) as server, pytest.raises(Failure) as failure:
        with_api(server.configuration({"token": "t"}), get)
    assert failure.value.message == (
        f"{server.url} is not an API server, or wants a login: it redirects to https://login.example"
    )


def test_a_refusal_that_is_no_status(tmp_path: Path) -> None:
    with Server(tmp_path, lambda handler: handler.reply(404, b"<h1>nothing here</h1>\n")) as server:
        with pytest.raises(ApiRefusal) as refusal:
            with_api(server.configuration(), get)
        assert (refusal.value.reason, refusal.value.message) == ("", "<h1>nothing here</h1>")


def test_who_we_are(tmp_path: Path) -> None:
    with Server(tmp_path, lambda handler: handler.reply(200, POD)) as server:
        with_api(server.configuration(), get)
        assert server.seen[0].headers["User-Agent"].startswith("mirrord-trace/")


def test_a_waiting_request_is_cancelled_at_once(tmp_path: Path) -> None:
    asked, over = threading.Event(), threading.Event()

    def answer(handler: Handler) -> None:
        asked.set()
        over.wait(PATIENCE_S)
        handler.reply(200, POD)

    async def cancelled(api: ApiServer) -> bool:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                await trio.to_thread.run_sync(asked.wait)
                nursery.cancel_scope.cancel()

            nursery.start_soon(cancel)
            await get(api)
        return over.is_set()

    with Server(tmp_path, answer) as server:
        assert with_api(server.configuration(), cancelled) is False
        over.set()


def test_lines_over_chunks() -> None:
    lines = Lines()
    assert [lines.of(chunk) for chunk in (b"a", b"b\nc\n\nd", b"\n", b"e")] == [[], [b"ab", b"c", b""], [b"d"], []]
    assert lines.pending == b"e"
