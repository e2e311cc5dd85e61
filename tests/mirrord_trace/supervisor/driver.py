"""Runs a command under a delivery with the handlers of a scenario: the supervisor without agent and relays.

`python -m tests.mirrord_trace.supervisor.driver DELIVERY SCENARIO COMMAND [ARG]…`. What the delivery tells stands on
stderr, one line each, behind "driver: ". The exit code is the command's.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio

from mirrord_syscalls.abi import native_abi
from mirrord_trace.config.model import Delivery
from mirrord_trace.errors import Failure
from mirrord_trace.supervisor import launch, signals
from mirrord_trace.supervisor.delivery import choice
from mirrord_trace.supervisor.delivery.base import Handlers
from mirrord_trace.supervisor.supervision import Supervision
from mirrord_trace.supervisor.workspace import workspace
from tests.mirrord_trace.supervisor import scenarios

PR_SET_CHILD_SUBREAPER = 36


def say(text: str) -> None:
    os.write(2, f"driver: {text}\n".encode())


class Step:
    def detail(self, text: str) -> None:
        """Nothing takes long here."""

    def waiting(self, reason: str) -> None:
        """As above."""


class Lines:
    """A reporter (see `mirrord_trace.reporting`) for tests to read."""

    @contextmanager
    def step(self, text: str) -> Iterator[Step]:
        yield Step()

    def warning(self, text: str) -> None:
        say(f"warning: {text}")

    def note(self, text: str) -> None:
        say(f"note: {text}")

    def explain(self, text: str) -> None:
        say(f"explain: {text}")

    def ready(self) -> None:
        say("ready")

    def close(self) -> None:
        """Nothing is drawn."""


@attrs.define(eq=False)
class Told(Supervision):
    """Says what the delivery tells."""

    def root_stopped(self, number: int) -> None:
        say(f"stopped by {number}")
        super().root_stopped(number)

    def root_exited(self, status: int) -> None:
        say(f"exited with {status}")
        super().root_exited(status)


async def supervise(
    scenario: str,
    command: list[str],
    make_delivery: choice.MakeDelivery,
    inherited: launch.ProcessState,
    arriving: int,
) -> int:
    supervision = Told(Lines())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervision.watch_signals, arriving)
        delivery = make_delivery(Handlers.of(*scenarios.interests(scenario, nursery)))
        say("about to launch")
        program = launch.find_program(command, os.environb)
        child = delivery.launch(program, inherited)
        await supervision.run(child, delivery)
        say(f"left: {sorted(delivery.process_ids())}")
        nursery.cancel_scope.cancel()
    return supervision.exit_code


def main() -> int:
    delivery, scenario, *command = sys.argv[1:]
    wanted: Delivery = "ptrace" if delivery == "ptrace" else "notify"
    inherited = launch.ProcessState.take_over(signals.CHILD_AND_DOORBELL | signals.WATCHED)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with workspace(lambda text: say(f"warning: {text}")) as directory, signals.signal_descriptor() as arriving:
        say(f"workspace {directory}")
        try:
            make_delivery = choice.choose(wanted, native_abi(), lambda text: say(f"explain: {text}"))()
            return trio.run(supervise, scenario, command, make_delivery, inherited, arriving)
        except Failure as failure:
            return tell(failure)
        except BaseExceptionGroup as group:
            failures, others = group.split(Failure)
            if failures is None or others is not None:
                raise
            leaf: BaseException = failures
            while isinstance(leaf, BaseExceptionGroup):
                leaf = leaf.exceptions[0]
            assert isinstance(leaf, Failure)
            return tell(leaf)


def tell(failure: Failure) -> int:
    say(f"failure: {failure.message} ({failure.advice})")
    return failure.exit_code


if __name__ == "__main__":
    sys.exit(main())
