"""A container's log, line by line, over connections that may break.

A follower whose connection was lost asks for the log from its beginning and skips what it has passed on. A log that
came to a proper end has ended; the API server ends it so when the container does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import trio

from mirrord_trace.cluster.exchange import STOOD_S, Exchange, delay_s
from mirrord_trace.cluster.refusals import Request

_LONGEST_LINE = 1 << 16
"""Bytes. A longer line comes in pieces."""
_SILENCE_S = 35.0
"""How long a log that is not followed may keep us waiting."""


async def log_lines(exchange: Exchange, request: Request, container: str, *, follow: bool) -> AsyncGenerator[str, None]:
    """The lines, without their ends. Raises `ApiRefusal` and `Failure`."""
    import urllib3

    query = {"container": container, **({"follow": "true"} if follow else {})}
    taken = 0
    """How many bytes came, over all connections, that had not come before."""
    failures = 0
    pending = b""
    while True:
        async with await exchange.stream(request, query, silence_s=None if follow else _SILENCE_S) as stream:
            position = 0
            begun = trio.current_time()
            try:
                while chunk := await stream.receive():
                    fresh = chunk[max(0, taken - position) :]
                    position += len(chunk)
                    if not fresh:
                        continue
                    taken, failures = taken + len(fresh), 0
                    *lines, pending = (pending + fresh).split(b"\n")
                    for line in lines:
                        yield line.decode(errors="replace")
                    if len(pending) > _LONGEST_LINE:
                        yield pending.decode(errors="replace")
                        pending = b""
            except urllib3.exceptions.HTTPError as error:
                if trio.current_time() - begun >= STOOD_S:
                    failures = 0
                delay = delay_s(failures)
                if delay is None:
                    raise stream.failure(error) from error
                failures += 1
            else:
                if pending:
                    yield pending.decode(errors="replace")
                return
        await trio.sleep(delay)
