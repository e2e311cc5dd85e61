import threading

import pytest
import trio
import trio.testing

from mirrord_agent.files.room import Room
from mirrord_agent.files.workers import NOT_RUN, Job, Workers
from tests.mirrord_agent.support import in_trio


def nothing() -> None:
    """No rights are taken."""


@in_trio
async def test_threads_are_started_as_they_are_needed_and_take_their_rights_once() -> None:
    taken: list[str] = []
    workers = Workers("test", 3, lambda: taken.append(threading.current_thread().name))
    for number in range(20):
        assert await workers.run(lambda number=number: number, nothing, print) == number  # type: ignore[misc]
    assert taken == ["test"]
    barrier = threading.Barrier(3)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(workers.run, barrier.wait, nothing, print)
    assert len(taken) == 3
    workers.stop()


@in_trio
async def test_what_fails_raises_where_it_was_asked_for() -> None:
    workers = Workers("test", 1, nothing)
    with pytest.raises(ZeroDivisionError):
        await workers.run(lambda: 1 // 0, nothing, print)
    assert await workers.run(lambda: 1, nothing, print) == 1
    workers.stop()


@in_trio
async def test_a_thread_without_the_rights_tells_whoever_asks() -> None:
    def refuse() -> None:
        raise PermissionError("not for us")

    workers = Workers("test", 1, refuse)
    with trio.fail_after(10):
        for _ in range(2):
            with pytest.raises(PermissionError, match="not for us"):
                await workers.run(lambda: 1, nothing, print)
    workers.stop()


@in_trio
async def test_threads_that_hang_are_bounded_and_what_waits_can_be_cancelled() -> None:
    workers = Workers("test", 2, nothing)
    go_on = threading.Event()
    late: list[object] = []
    released: list[int] = []
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(workers.run, go_on.wait, lambda number=number: released.append(number), late.append)
        await trio.testing.wait_all_tasks_blocked()
        assert workers.busy == 5
        nursery.cancel_scope.cancel()
    go_on.set()
    while workers.busy:
        await trio.lowlevel.checkpoint()
    # Those that had begun have an outcome; those that had not never began. What they held is let go in any case.
    assert sorted(map(repr, late)) == sorted([repr(NOT_RUN)] * (5 - late.count(True)) + ["True"] * late.count(True))
    assert 1 <= late.count(True) <= 2
    assert sorted(released) == [0, 1, 2, 3, 4]
    workers.stop()


@in_trio
async def test_what_was_submitted_before_the_end_is_done() -> None:
    workers = Workers("test", 2, nothing)
    done: list[object] = []
    for number in range(10):
        workers.submit(Job(lambda number=number: number, done.append))  # type: ignore[misc]
    workers.stop()
    while len(done) < 10:
        await trio.lowlevel.checkpoint()
    assert sorted(done) == list(range(10))  # type: ignore[type-var]


def test_room_is_given_in_the_order_in_which_it_was_asked_for() -> None:
    room = Room(10)
    started: list[str] = []
    room.take(6, lambda: started.append("a"))
    room.take(6, lambda: started.append("b"))
    room.take(1, lambda: started.append("c"))
    assert started == ["a"], "what needs little does not overtake"
    room.give_back(6)
    assert started == ["a", "b", "c"]
    room.take(10, lambda: started.append("d"))
    room.give_back(6)
    assert started[-1] == "c"
    room.give_back(1)
    assert started[-1] == "d"


def test_what_gives_back_as_it_starts_does_not_nest() -> None:
    room = Room(1)
    started = 0

    def start_and_end() -> None:
        nonlocal started
        started += 1
        room.give_back(1)

    room.take(1, nothing)
    for _ in range(5000):
        room.take(1, start_and_end)
    room.give_back(1)
    assert started == 5000
