"""An agent beside one pod of a cluster, or beside none, and the byte stream to it through the API server.

In order: the agent is made; once it listens a port-forward leads to it; once it has answered, the deadline of its job
is lifted. Everything is owned by a block, so that it goes in reverse whatever happens. What a kill -9 of us leaves goes
by itself; `agent_pod` says how.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import attrs
import trio

from mirrord_agent.wire import handshake
from mirrord_agent.wire.frames import GoodbyeKind
from mirrord_trace import __version__
from mirrord_trace.cluster.api import ApiRefusal, ApiServer
from mirrord_trace.cluster.port_forward import PortForward, port_forward
from mirrord_trace.cluster.refusals import failure
from mirrord_trace.cluster.resources import PODS
from mirrord_trace.config import AgentConfiguration
from mirrord_trace.errors import Failure
from mirrord_trace.reporting import Reporter
from mirrord_trace.session import AgentRefused, SessionLost
from mirrord_trace.targets.base import AgentLink, OtherPods
from mirrord_trace.targets.workloads.agent_pod import ANSWER_TIMEOUT_S
from mirrord_trace.targets.workloads.agents import Agent, EphemeralAgent, JobAgent
from mirrord_trace.targets.workloads.arrival import AgentLog, Arrival
from mirrord_trace.targets.workloads.choice import Candidate
from mirrord_trace.targets.workloads.starting import end_of

_INQUEST_S: Final = 2.0
"""How long asking the API server for an agent's end may take."""


@asynccontextmanager
async def agent_beside(
    api: ApiServer,
    reporter: Reporter,
    config: AgentConfiguration,
    candidate: Candidate | None,
    name: str,
    *,
    others: OtherPods | None = None,
) -> AsyncIterator[AgentLink]:
    """An agent beside a pod, as `Target.open` gives it, or without one. `name` is the target's, for people."""
    async with AsyncExitStack() as owned:
        secret = handshake.new_secret()
        agent = _agent(api, reporter, config, candidate, handshake.hash_secret(secret))
        with reporter.step("creating the agent") as step:
            warnings = await owned.enter_async_context(agent.made())
            step.detail(agent.name)
        for warning in warnings:
            reporter.explain(f"the API server warns: {warning}")
        nursery = await owned.enter_async_context(background())
        with reporter.step("waiting for the agent") as step:
            arrival = Arrival(api, agent, config, candidate, step)
            pod, port = await arrival.listening(nursery)
            forward = await owned.enter_async_context(_forwarded(api, agent, pod, port))
        connection = _Connection(forward, api, agent, pod, arrival.log)
        warned = {} if candidate is None else candidate.warnings
        link = AgentLink(forward.stream, secret, name, frozenset(), connection.last_words, others, warned)
        nursery.start_soon(_settle, link, connection)
        try:
            yield link
        except AgentRefused as refusal:
            raise _in_words(refusal, name, config) from refusal
        except SessionLost as loss:
            raise await connection.loss(name, loss.reason) from loss


def _agent(
    api: ApiServer, reporter: Reporter, config: AgentConfiguration, candidate: Candidate | None, secret_hash: str
) -> Agent:
    if config.mode == "ephemeral" and candidate is not None:
        if config.namespace not in (None, candidate.namespace):
            reporter.note(f"an ephemeral container is in its pod's namespace, not in {config.namespace}")
        return EphemeralAgent(api, reporter, config, candidate, secret_hash)
    return JobAgent(api, reporter, config, config.namespace or api.namespace, candidate, secret_hash)


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks end with the block; what the block raises for the user is not wrapped in a group."""
    problem: Failure | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except Failure as failed:
            problem = failed
        nursery.cancel_scope.cancel()
    if problem is not None:
        raise problem


@asynccontextmanager
async def _forwarded(api: ApiServer, agent: Agent, pod: str, port: int) -> AsyncIterator[PortForward]:
    async with AsyncExitStack() as owned:
        try:
            forward = await owned.enter_async_context(port_forward(api, agent.namespace, pod, port))
        except ApiRefusal as refusal:
            problem = failure(refusal, f"connect to port {port} of pod {pod}")
            if refusal.status == 403 and refusal.message.rstrip().endswith("is forbidden:"):
                # The second look at rights, that of AuthorizePodWebsocketUpgradeCreatePermission, gives no reason.
                problem = Failure(
                    f"cannot connect to port {port} of pod {pod}: there is a right to get {refusal.resource} in the "
                    f"namespace {agent.namespace}, but none to create it",
                    "Kubernetes asks for both since 1.35. agent/rbac.yaml grants them.",
                )
            raise problem from refusal
        yield forward


@attrs.frozen
class _Connection:
    """The way to an agent that listens, and what can be learned of its end."""

    forward: PortForward
    api: ApiServer
    agent: Agent
    pod: str
    log: AgentLog

    async def last_words(self) -> str:
        """See `AgentLink.last_words`: what the connection, the agent's pod and its log say of the end."""
        words = [f"the connection broke: {self.forward.trouble}"] if self.forward.trouble else []
        with trio.move_on_after(_INQUEST_S):
            try:
                pod = await self.api.get(PODS, self.agent.namespace, self.pod)
            except ApiRefusal as refusal:
                words += [end_of(None, self.agent.container)] if refusal.status == 404 else []
            except Failure as unreachable:
                words.append(unreachable.message)
            else:
                words += filter(None, [end_of(pod, self.agent.container)])
        return "\n".join([*words, *await self.log.last_lines()])

    async def loss(self, name: str, reason: str) -> Failure:
        """That the agent is gone before the session has begun."""
        return Failure(f"the agent for {name} is gone: {reason}", await self.last_words() or None)


async def _settle(link: AgentLink, connection: _Connection) -> None:
    """Waits for the agent's answer, and lets it live on. Raises `Failure` when either cannot be."""
    with trio.move_on_after(ANSWER_TIMEOUT_S):
        await link.answered.wait()
    if not link.answered.is_set():
        raise Failure(
            f"the agent for {link.target_name} can be connected to, but has not answered within {ANSWER_TIMEOUT_S:g} s",
            await connection.last_words() or None,
        )
    await connection.agent.settle()
    link.settled.set()


def _in_words(refusal: AgentRefused, name: str, config: AgentConfiguration) -> Failure:
    advice = None
    match refusal.kind:
        case GoodbyeKind.TARGET_GONE:
            advice = "Its container has ended or was started anew meanwhile. Try again."
        case GoodbyeKind.VERSION:
            advice = f"The agent's image ({config.image}) is to be of the same version as mirrord-trace, {__version__}."
        case GoodbyeKind.PERMISSION if config.disabled_capabilities:
            advice = f"agent.disabled_capabilities denies the agent {', '.join(sorted(config.disabled_capabilities))}."
        case GoodbyeKind.PERMISSION if not config.privileged:
            advice = "Something on the node, such as SELinux, forbids it; agent.privileged may help."
    return Failure(f"the agent cannot serve {name}: {refusal.message}", advice)
