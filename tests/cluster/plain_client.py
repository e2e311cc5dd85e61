"""Plain requests to the stand-in, with the credentials that the official client reads from a kubeconfig."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import attrs
import urllib3
from kubernetes import client, config
from urllib3.util import Timeout

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
_TIMEOUT = Timeout(10)


@attrs.frozen
class Answer:
    """What the server answered."""

    status: int
    headers: urllib3.HTTPHeaderDict
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """Of a Status object."""
        message: str = self.json["message"]
        return message

    @property
    def warnings(self) -> list[str]:
        return self.headers.getlist("warning")


class PlainClient:
    """A client that repeats nothing and checks nothing."""

    def __init__(self, kubeconfig: Path) -> None:
        self.configuration = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=self.configuration)  # type: ignore[no-untyped-call]
        self._api: Any = client.ApiClient(self.configuration)
        self._pool: urllib3.PoolManager = self._api.rest_client.pool_manager

    def request(
        self, method: str, path: str, body: object = None, content_type: str = "application/json", **query: str
    ) -> Answer:
        """Makes a request. A body of bytes is sent as it is, any other as JSON."""
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        headers = self._headers() | ({"content-type": content_type} if raw is not None else {})
        answer = self._pool.request(
            method, self._url(path, query), body=raw, headers=headers, retries=False, timeout=_TIMEOUT
        )
        return Answer(answer.status, answer.headers, answer.data)

    def get(self, path: str, **query: str) -> Answer:
        return self.request("GET", path, **query)

    def create(self, path: str, body: object, **query: str) -> Answer:
        return self.request("POST", path, body, **query)

    def patch(self, path: str, body: object, content_type: str = MERGE_PATCH) -> Answer:
        return self.request("PATCH", path, body, content_type)

    def delete(self, path: str, body: object = None, **query: str) -> Answer:
        return self.request("DELETE", path, body, **query)

    @contextmanager
    def lines(self, path: str, **query: str) -> Iterator[Iterator[bytes]]:
        """The lines of an answer that is streamed."""
        answer = self._pool.request(
            "GET",
            self._url(path, query),
            headers=self._headers(),
            retries=False,
            timeout=_TIMEOUT,
            preload_content=False,
        )
        try:
            assert answer.status == 200, answer.data
            yield _lines(answer)
        finally:
            answer.close()

    @contextmanager
    def watch(self, path: str, **query: str) -> Iterator[Iterator[tuple[str, Any]]]:
        """The events of a watch: their types and objects."""
        with self.lines(path, watch="1", **query) as lines:
            yield ((event["type"], event["object"]) for event in map(json.loads, lines))

    def _url(self, path: str, query: dict[str, str]) -> str:
        host: str = self.configuration.host
        encoded = urlencode(query)
        return f"{host}{path}?{encoded}" if encoded else f"{host}{path}"

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        self._api.update_params_for_auth(headers, [], ["BearerToken"], "", "", None)
        return headers


def _lines(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for piece in answer.stream(1 << 16):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    if rest:
        yield rest
