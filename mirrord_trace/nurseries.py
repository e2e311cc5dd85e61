"""A nursery for what serves a block: tasks that are there as long as the block is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def serving_nursery() -> AsyncIterator[trio.Nursery]:
    """Its tasks are cancelled at the end of the block.

    What leaves the block does not arrive wrapped in the nursery's exception group; what a task raises does.
    """
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except trio.Cancelled:
            raise
        except BaseException as error:
            failure = error
        finally:
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
