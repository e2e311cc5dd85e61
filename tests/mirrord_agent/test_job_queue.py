"""Items go to one thread each, in order, and wake no other."""

import threading
from collections import Counter
from pathlib import Path

import pytest

from mirrord_agent.job_queue import JobQueue
from tests.waiting import holds_within, sleeps_in

LIMIT_S = 20


def test_items_come_in_order_and_each_once() -> None:
    jobs: JobQueue[int] = JobQueue()
    for number in range(5):
        jobs.put(number)
    assert [jobs.get() for _ in range(5)] == list(range(5))


def test_who_asks_first_waits_for_what_comes() -> None:
    jobs: JobQueue[str] = JobQueue()
    got: list[str] = []
    thread = threading.Thread(target=lambda: got.append(jobs.get()))
    thread.start()
    jobs.put("late")
    thread.join(LIMIT_S)
    assert got == ["late"]


def test_only_the_thread_that_was_idle_last_is_woken() -> None:
    jobs: JobQueue[str | None] = JobQueue()
    done: Counter[str] = Counter()
    was_done = threading.Event()

    def work(name: str) -> None:
        while jobs.get() is not None:
            done[name] += 1
            was_done.set()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("first", "second", "last")]
    for thread in threads:
        thread.start()
        until_idle(thread)
    before = [slept_times(thread) for thread in threads]
    for _ in range(50):
        was_done.clear()
        jobs.put("job")
        assert was_done.wait(LIMIT_S)
        until_idle(threads[-1])
    assert done == {"last": 50}
    assert [slept_times(thread) for thread in threads[:2]] == before[:2]
    for _ in threads:
        jobs.put(None)
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()


def until_idle(thread: threading.Thread) -> None:
    place = Path(f"/proc/self/task/{thread.native_id}")
    assert holds_within(LIMIT_S, lambda: sleeps_in("futex", place)), "the thread did not become idle"


def slept_times(thread: threading.Thread) -> int:
    with open(f"/proc/self/task/{thread.native_id}/status", encoding="utf-8") as status:
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["voluntary_ctxt_switches"])


@pytest.mark.parametrize("threads", [1, 4])
def test_nothing_is_lost_between_threads(threads: int) -> None:
    jobs: JobQueue[int | None] = JobQueue()
    count = 5000
    got: list[list[int]] = [[] for _ in range(threads)]

    def take(mine: list[int]) -> None:
        while (item := jobs.get()) is not None:
            mine.append(item)

    def give(start: int) -> None:
        for number in range(start, count, threads):
            jobs.put(number)

    takers = [threading.Thread(target=take, args=(mine,)) for mine in got]
    givers = [threading.Thread(target=give, args=(start,)) for start in range(threads)]
    for thread in (*takers, *givers):
        thread.start()
    for thread in givers:
        thread.join(LIMIT_S)
    for _ in takers:
        jobs.put(None)
    for thread in takers:
        thread.join(LIMIT_S)
    assert sorted(number for mine in got for number in mine) == list(range(count))
