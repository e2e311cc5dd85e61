"""`mirrord-trace port-forward`, from what is to be forwarded to the command's end."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Sequence

import trio

from mirrord_trace.agent_session import attend
from mirrord_trace.forwarding.forwards import Forward
from mirrord_trace.forwarding.listening import listening
from mirrord_trace.forwarding.outgoing import OutgoingForwards
from mirrord_trace.reporting import Reporter
from mirrord_trace.session import Session
from mirrord_trace.sockets_here import SocketsHere
from mirrord_trace.targets.base import AgentLink, Target


def port_forward(target: Target, forwards: Sequence[Forward], reporter: Reporter) -> int:
    """Forwards until a signal comes; 128 + its number. Raises Failure as `attend` does."""
    raise_descriptor_limit()
    with listening(forwards) as opened, contextlib.closing(SocketsHere()) as here:

        async def serve(_: AgentLink, session: Session) -> None:
            outgoing = OutgoingForwards(session, here, reporter.warning)
            async with trio.open_nursery() as nursery:
                for each in opened:
                    nursery.start_soon(outgoing.serve, each)
                    reporter.note(f"{each.near} -> {each.forward.far}")
                reporter.ready()

        return attend(target, reporter, serve)


def raise_descriptor_limit() -> None:
    """As many descriptors as may be had: each connection takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
