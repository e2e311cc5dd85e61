"""kill -9 of a whole agent, at many moments of a subscription, and of its guardian: the target serves again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirrord_agent.wire.frames import Subscribe
from mirrord_trace.supervisor.descent import children_of
from tests.mirrord_agent.incoming.agents import Pod, agent_for, pod_with_process
from tests.mirrord_agent.incoming.networks import POD, SHORT_S
from tests.mirrord_agent.incoming.sessions import PORT, reaches
from tests.mirrord_agent.support import in_trio
from tests.waiting import has_ended, holds_within

WITHOUT_OWNERS = Path(__file__).with_name("agent_without_owners.py")
CALLS = "bind,listen,sendto,sendmsg,close,write"
"""Which change something that others see, all that a subscription does."""


@pytest.fixture
def pod() -> Iterator[Pod]:
    with pod_with_process() as made:
        yield made


@contextmanager
def killed_at(agent: int, call: int) -> Iterator[None]:
    """The agent is killed at such a call of `CALLS`, counted from now on."""
    command = ["strace", "-qq", "-e", f"trace={CALLS}", "-e", f"inject={CALLS}:signal=KILL:when={call}"]
    with subprocess.Popen([*command, "-p", str(agent)], stderr=subprocess.PIPE) as strace:
        assert holds_within(SHORT_S, lambda: tracer_of(agent) == strace.pid)
        try:
            yield
        finally:
            strace.kill()


def tracer_of(pid: int) -> int:
    found = re.search(r"^TracerPid:\t(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def serves(pod: Pod) -> None:
    """The target has its port, and nothing is in the way."""
    assert holds_within(SHORT_S, lambda: pod.inside.ruleset() == "")
    with pod.inside.listen(4, PORT) as target, pod.outside.connect(POD[4], PORT) as client:
        reaches(target, client).close()


@pytest.mark.parametrize("program", [(), (WITHOUT_OWNERS,)], ids=["owned", "guarded"])
@pytest.mark.parametrize("call", [*range(1, 40, 3)])
@in_trio
async def test_at_a_call(pod: Pod, program: Sequence[Path], call: int) -> None:
    """The later ones do not come: then it is killed when it has subscribed."""
    async with agent_for(pod.pid, program=program) as agent:
        with killed_at(agent.agent, call):
            await agent.send(Subscribe(1, PORT, "tcp", "steal", None, True, False, None))
            await agent.receive()
            os.kill(agent.agent, signal.SIGKILL)
            assert holds_within(SHORT_S, lambda: has_ended(agent.agent))
            serves(pod)


@in_trio
async def test_a_guardian_that_is_killed_is_replaced(pod: Pod) -> None:
    async with agent_for(pod.pid, program=(WITHOUT_OWNERS,)) as agent:
        await agent.subscribe()
        former = children_of(agent.agent)
        for pid in former:
            os.kill(pid, signal.SIGKILL)
        assert former
        assert holds_within(SHORT_S, lambda: bool(set(children_of(agent.agent)).difference(former)))
        os.kill(agent.agent, signal.SIGKILL)
        assert holds_within(SHORT_S, lambda: has_ended(agent.agent))
        serves(pod)
