"""Signals read from a descriptor, where another reader may be faster."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import cast

import pytest
import trio

from mirrord_syscalls.structs import SignalfdSiginfo
from mirrord_trace.supervisor import signals


@pytest.fixture(autouse=True)
def blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.WATCHED)
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_signal_that_somebody_else_took_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """`stop_ourselves` takes a signal for which the descriptor was readable already."""
    wait_readable = trio.lowlevel.wait_readable
    told: list[int] = []

    async def told_too_early(descriptor: int) -> None:
        if told:
            await wait_readable(descriptor)
        else:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert signal.sigwait({signal.SIGUSR2}) == signal.SIGUSR2
        told.append(descriptor)
        if len(told) == 1:
            trio.lowlevel.current_trio_token().run_sync_soon(os.kill, os.getpid(), signal.SIGUSR1)

    async def main() -> int:
        with signals.signal_descriptor() as descriptor, trio.fail_after(10):
            coming = cast("AsyncGenerator[SignalfdSiginfo, None]", signals.arriving(descriptor))
            async with aclosing(coming):
                return (await anext(coming)).signo

    monkeypatch.setattr(trio.lowlevel, "wait_readable", told_too_early)
    assert trio.run(main) == signal.SIGUSR1
