"""What clients ask for at unusual moments."""

from __future__ import annotations

import pytest

from mirrord_agent.wire.frames import Goodbye, GoodbyeKind, IncomingMode, Subscribe, Transport
from tests.mirrord_agent.incoming.agents import Pod, agent_for
from tests.mirrord_agent.incoming.sessions import PORT
from tests.mirrord_agent.support import in_trio

_ATTEMPTS = 4
"""In a half of them or so the session's end overtook what it was asked for."""


@pytest.mark.parametrize("mode", ["mirror", "steal"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@in_trio
async def test_a_goodbye_right_behind_a_subscription(pod: Pod, mode: IncomingMode, protocol: Transport) -> None:
    goodbye = Goodbye(GoodbyeKind.SHUTDOWN, "done")
    for _ in range(_ATTEMPTS):
        async with agent_for(pod.pid) as agent:
            await agent.send(Subscribe(1, PORT, protocol, mode, None, flush=False, mark=False), goodbye)
            assert (await agent.receive_kind(Goodbye)).kind is GoodbyeKind.SHUTDOWN
            assert await agent.receive() is None
        assert pod.inside.ruleset() == ""
