"""What commands have in common that ask the API server something and end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from mirrord_trace.cluster.api import ApiRefusal, ApiServer, open_api
from mirrord_trace.cluster.refusals import failure
from mirrord_trace.config import ClusterConfiguration

_T = TypeVar("_T")


def asked(cluster: ClusterConfiguration, doing: str, work: Callable[[ApiServer], Awaitable[_T]]) -> _T:
    """The result of some work with a cluster's API server.

    `doing` is what the work is for, as it goes on from "cannot". Raises `Failure`, in a group perhaps.
    """

    async def main() -> _T:
        async with open_api(cluster) as api:
            try:
                return await work(api)
            except ApiRefusal as refusal:
                raise failure(refusal, doing) from refusal

    return trio.run(main)
