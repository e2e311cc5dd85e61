"""How long what outlasts the process may hold up our end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from mirrord_trace.reporting import Reporter
from mirrord_trace.running import _tell_of_loss
from mirrord_trace.session import Session
from mirrord_trace.supervisor.supervision import Supervision
from mirrord_trace.targets.base import AgentLink
from tests.mirrord_trace.targets.workloads.scripted import Told

INQUEST_S = 4.0
"""How long the last words take to come."""


@pytest.mark.parametrize(
    ("terminated_after_s", "ends_after_s", "words"),
    [
        (None, INQUEST_S, ["the agent's last words: out of memory"]),
        (0, 0.7, []),
        (1, 1.7, []),
    ],
)
def test_last_words_outlast_the_process_but_not_sigterm(
    terminated_after_s: float | None, ends_after_s: float, words: list[str]
) -> None:
    told = Told()

    async def last_words() -> str:
        await trio.sleep(INQUEST_S)
        return "out of memory"

    async def main() -> float:
        began = trio.current_time()
        supervision = Supervision(cast(Reporter, told))
        session = SimpleNamespace(lost=trio.Event(), loss_reason="its pod is gone")
        session.lost.set()
        link = SimpleNamespace(last_words=last_words, others=None)
        async with trio.open_nursery() as process:
            process.start_soon(
                _tell_of_loss,
                cast(Session, session),
                cast(AgentLink, link),
                cast(Reporter, told),
                supervision,
            )
            await wait_all_tasks_blocked()
            process.cancel_scope.cancel()  # as when it has ended
            if terminated_after_s is not None:
                with trio.CancelScope(shield=True):
                    await trio.sleep(terminated_after_s)
                supervision.terminated.set()
        return trio.current_time() - began

    took_s = trio.run(main, clock=MockClock(autojump_threshold=0))
    assert took_s == pytest.approx(ends_after_s)
    assert told.warnings[1:] == words
    assert "the agent is gone (its pod is gone)" in told.warnings[0]
