"""Watching objects, over connections that end and histories that are forgotten.

A watch without a resourceVersion begins with an ADDED for each object that is there, so one request gives what a list
and a watch would. The server ends each after some minutes, and balancers sooner: then it goes on from the newest
resourceVersion seen. Where the server has forgotten that one (410), a list tells what has changed meanwhile, and
what is gone. https://kubernetes.io/docs/reference/using-api/api-concepts/, "Efficient detection of changes"
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator

import trio

from mirrord_trace.cluster.exchange import Exchange, Lines, Object, Query, delay_s, no_api_server
from mirrord_trace.cluster.refusals import ApiRefusal, Request
from mirrord_trace.cluster.resources import Resource

Event = tuple[str, Object]
"""("ADDED" | "MODIFIED" | "DELETED", the object; a deleted one as it was last)."""

_SERVED_S = 240
"""How long the server is asked to serve one request."""
_SILENCE_S = 270.0


class Expired(Exception):
    """The server has forgotten the history that a watch would go on from."""


class Known:
    """The objects that a watcher knows of, and the newest version of their history that it has seen."""

    def __init__(self) -> None:
        self.version = ""
        self._objects: dict[tuple[str, str], Object] = {}

    def take(self, event: Object) -> Event | None:
        """Note an event of the API's, and return what of it is for the watcher: not bookmarks. Raises `Expired`."""
        kind, subject = event["type"], event["object"]
        if kind == "ERROR":
            if subject.get("code") == 410:
                raise Expired
            raise _Error(subject)
        self.version = _newer(self.version, subject["metadata"].get("resourceVersion", ""))
        if kind == "BOOKMARK":
            return None
        if kind == "DELETED":
            self._objects.pop(_key(subject), None)
        else:
            self._objects[_key(subject)] = subject
        return kind, subject

    def take_list(self, objects: list[Object], version: str) -> Iterator[Event]:
        """Note what is there now, and yield how it differs from what was known."""
        before, self._objects = self._objects, {_key(subject): subject for subject in objects}
        self.version = version
        for key, subject in before.items():
            if key not in self._objects:
                yield "DELETED", subject
        for key, subject in self._objects.items():
            if key not in before:
                yield "ADDED", subject
            elif _version(subject) != _version(before[key]):
                yield "MODIFIED", subject


class _Error(Exception):
    """The server ended a watch with a Status."""

    def __init__(self, status: Object) -> None:
        super().__init__(status.get("message", ""))
        self.status = status


async def events(
    exchange: Exchange, resource: Resource, namespace: str | None, selectors: Query
) -> AsyncGenerator[Event, None]:
    """Watch for ever. Raises `ApiRefusal` and `Failure`."""
    import urllib3

    request = Request("watch", resource, namespace)
    known = Known()
    fruitless = 0
    while True:
        query = {**selectors, "watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(_SERVED_S)}
        if known.version:
            query["resourceVersion"] = known.version
        try:
            async with await exchange.stream(request, query, silence_s=_SILENCE_S) as stream:
                lines = Lines()
                while chunk := await stream.receive():
                    for line in lines.of(chunk):
                        news = known.take(_parsed(line))
                        fruitless = 0
                        if news is not None:
                            yield news
                if lines.pending and not lines.pending.startswith(b"{"):  # else an event that broke off
                    raise no_api_server(lines.pending)
        except (Expired, ApiRefusal) as error:
            if isinstance(error, ApiRefusal) and error.status != 410:
                raise
            answer = (await exchange.send(Request("list", resource, namespace), "GET", selectors)).object()
            version = answer.get("metadata", {}).get("resourceVersion", "")
            for news in known.take_list(answer.get("items") or [], version):
                yield news
        except _Error as error:
            status = error.status
            raise ApiRefusal(
                request,
                status.get("code", 500),
                status.get("reason", ""),
                status.get("message", ""),
                status.get("details"),
            ) from None
        except urllib3.exceptions.HTTPError:
            pass
        if fruitless:
            await trio.sleep(delay_s(min(fruitless, 4) - 1) or 0)
        fruitless += 1


def _parsed(line: bytes) -> Object:
    """The API's event that a line holds. Raises `Failure` for anything else, such as a line of a proxy's page."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and isinstance(event.get("type"), str) and isinstance(event.get("object"), dict):
        metadata = event["object"].get("metadata")
        named = isinstance(metadata, dict) and ("name" in metadata or event["type"] == "BOOKMARK")
        if named or event["type"] == "ERROR":
            return event
    raise no_api_server(line)


def _key(subject: Object) -> tuple[str, str]:
    metadata = subject["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _version(subject: Object) -> str:
    version = subject["metadata"].get("resourceVersion", "")
    return str(version)


def _newer(one: str, other: str) -> str:
    """The newer of two versions. Objects that are there at the beginning come in no order.

    Versions compare as numbers (certain since Kubernetes 1.35, true before); "" is the oldest.
    """
    if one.isdigit() and other.isdigit():
        return max(one, other, key=int)
    return other or one
