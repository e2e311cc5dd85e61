"""Threads that work in turns share a CPU while they do, and only then."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import pytest

from mirrord_trace.supervisor.delivery.notify.together import Together
from tests.mirrord_trace.supervisor.harness import TIMEOUT_S
from tests.mirrord_trace.supervisor.notify.working import working

LOOKS = 25


@attrs.define
class Sleeper:
    thread: int
    let_go: Callable[[], None]

    @property
    def cpus(self) -> set[int]:
        return os.sched_getaffinity(self.thread)


@contextmanager
def sleeper(begin: Callable[[], None] = lambda: None) -> Iterator[Sleeper]:
    """A thread that does something and waits then."""
    began, end = threading.Event(), threading.Event()

    def run() -> None:
        begin()
        began.set()
        end.wait(TIMEOUT_S)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert began.wait(TIMEOUT_S)
        assert thread.native_id is not None
        yield Sleeper(thread.native_id, end.set)
    finally:
        end.set()
        thread.join(TIMEOUT_S)


@pytest.fixture
def everywhere() -> Iterator[set[int]]:
    """What this process may use."""
    cpus = os.sched_getaffinity(0)
    assert len(cpus) > 1, "these tests need two CPUs: give the machine, or the container, another one"
    yield cpus
    os.sched_setaffinity(0, cpus)


@pytest.fixture
def leader() -> Iterator[Sleeper]:
    with sleeper() as leader:
        yield leader


def test_they_share_one_cpu_until_nothing_comes_any_more(everywhere: set[int], leader: Sleeper) -> None:
    together = Together(leader.thread)
    with sleeper(together.join) as other, sleeper() as stranger:
        together.gather()
        assert len(leader.cpus) == 1
        assert other.cpus == leader.cpus < everywhere
        assert stranger.cpus == everywhere
        with sleeper(together.join) as late:
            assert late.cpus == leader.cpus
        together.look(is_idle=False)
        assert len(leader.cpus) == 1
        together.look(is_idle=True)
        assert leader.cpus == other.cpus == everywhere
        together.gather()
        assert len(leader.cpus) == 1
        together.end()
        assert leader.cpus == other.cpus == everywhere


def test_the_scheduler_chooses_now_and_then(everywhere: set[int], leader: Sleeper) -> None:
    together = Together(leader.thread)
    together.gather()
    for _ in range(LOOKS - 1):
        together.look(is_idle=False)
        assert len(leader.cpus) == 1
    together.look(is_idle=False)
    assert leader.cpus == everywhere
    together.gather()
    assert leader.cpus == everywhere, "the scheduler has not had the time to choose"
    together.look(is_idle=False)
    together.gather()
    assert len(leader.cpus) == 1
    together.end()


def test_whoever_was_started_meanwhile_is_free_afterwards(everywhere: set[int]) -> None:
    together = Together(threading.get_native_id())
    together.gather()
    with sleeper() as child:
        assert len(child.cpus) == 1
        together.look(is_idle=True)
        assert child.cpus == os.sched_getaffinity(0) == everywhere


def test_whoever_is_told_otherwise_meanwhile_is_left_alone(everywhere: set[int], leader: Sleeper) -> None:
    together = Together(leader.thread)
    together.gather()
    (here,) = leader.cpus
    elsewhere = {next(iter(everywhere - {here}))}
    os.sched_setaffinity(leader.thread, elsewhere)
    together.look(is_idle=True)
    assert leader.cpus == elsewhere


def test_where_there_is_one_cpu_nothing_is_done(everywhere: set[int], leader: Sleeper) -> None:
    one = {next(iter(everywhere))}
    os.sched_setaffinity(leader.thread, one)
    together = Together(leader.thread)
    with sleeper(together.join) as other:
        together.gather()
        assert (leader.cpus, other.cpus) == (one, everywhere)
        together.look(is_idle=True)
        assert (leader.cpus, other.cpus) == (one, everywhere)


def test_a_leader_that_has_ended_leads_nobody(everywhere: set[int]) -> None:
    with sleeper() as leader:
        pass
    together = Together(leader.thread)
    with sleeper(together.join) as other:
        together.gather()
        assert other.cpus == everywhere


def test_workers_share_their_makers_cpu_while_jobs_come(everywhere: set[int]) -> None:
    with working() as (workers, failures):
        seen: list[set[int]] = []
        done = threading.Event()

        def job() -> None:
            seen.append(os.sched_getaffinity(0))
            done.set()

        workers.submit(job)
        assert done.wait(TIMEOUT_S)
        assert seen == [os.sched_getaffinity(0)]
        assert len(seen[0]) == 1
        until_free(everywhere)
    assert os.sched_getaffinity(0) == everywhere
    assert not failures


def until_free(everywhere: set[int]) -> None:
    waited = threading.Event()
    for _ in range(int(TIMEOUT_S * 100)):
        if os.sched_getaffinity(0) == everywhere:
            return
        waited.wait(0.01)
    raise AssertionError("they are still kept together")
