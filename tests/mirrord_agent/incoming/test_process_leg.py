"""What a routed connection sends to the process: credit and room come in any order."""

from __future__ import annotations

from typing import Any

import attrs
import trio
import trio.testing

from mirrord_agent.incoming.arrivals import Arrivals
from mirrord_agent.incoming.process_leg import ProcessLeg
from mirrord_agent.wire import WindowPool
from mirrord_agent.wire.frames import Data
from mirrord_agent.wire.windows import INITIAL_WINDOW
from tests.mirrord_agent.support import in_trio


@attrs.define
class FakeLink:
    has_room: bool = True
    sent: int = 0
    freed: trio.Event = attrs.field(factory=trio.Event)

    async def room(self) -> None:
        await self.freed.wait()
        self.has_room = True

    def send(self, frame: Data) -> None:
        self.sent += len(frame.payload)


class FakeOwner:
    def written(self, *_: object) -> None:
        pass


@in_trio
async def test_credit_that_comes_while_the_link_has_no_room_is_used_when_it_has() -> None:
    link: Any = FakeLink()
    owner: Any = FakeOwner()
    leg = ProcessLeg(owner, link, WindowPool(), 2, Arrivals(link, {}))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leg.run)
        leg.send(bytes(INITIAL_WINDOW + 1000))
        await trio.testing.wait_all_tasks_blocked()
        assert link.sent == INITIAL_WINDOW
        link.has_room = False
        leg.on_credit(1000)
        await trio.testing.wait_all_tasks_blocked()
        assert link.sent == INITIAL_WINDOW
        link.freed.set()
        await trio.testing.wait_all_tasks_blocked()
        assert link.sent == INITIAL_WINDOW + 1000
        nursery.cancel_scope.cancel()
