"""Threads for calls that may wait: there is always one more, each has its umask, and a wait can be ended."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from mirrord_syscalls.abi import native_abi
from mirrord_trace.supervisor.delivery.notify.workers import Workers, take_umask
from tests.mirrord_trace.supervisor.harness import TIMEOUT_S
from tests.mirrord_trace.supervisor.notify.working import in_worker, path_threads, working

KEPT = 32
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def workers() -> Iterator[Workers]:
    with working() as (workers, failures):
        yield workers
        assert not failures


def reads_from(descriptor: int) -> int:
    """Waits in a system call that is not made again by Python."""
    room = ctypes.create_string_buffer(1)
    result: int = libc.syscall(native_abi().numbers["read"], descriptor, room, ctypes.c_size_t(1))
    return result if result >= 0 else -ctypes.get_errno()


def meet(together: threading.Barrier) -> None:
    together.wait(TIMEOUT_S)


def test_a_job_is_done_elsewhere() -> None:
    assert in_worker(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        in_worker(lambda: 1 // 0)


def test_what_a_job_raises_is_told() -> None:
    told = threading.Event()
    with working() as (workers, failures):
        workers.submit(lambda: fail(told))
        assert told.wait(TIMEOUT_S)
        done = threading.Event()
        workers.submit(done.set)
        assert done.wait(TIMEOUT_S)
    assert [type(error) for error in failures] == [ZeroDivisionError]


def fail(told: threading.Event) -> None:
    told.set()
    raise ZeroDivisionError("a bug in a job")


@pytest.mark.parametrize("count", [1, KEPT, 5 * KEPT])
def test_jobs_that_wait_for_one_another(workers: Workers, count: int) -> None:
    """As those who open FIFOs do."""
    together = threading.Barrier(count + 1)
    for _ in range(3):
        for _ in range(count):
            workers.submit(partial(meet, together))
        together.wait(TIMEOUT_S)


def test_few_threads_stay_and_none_when_closed() -> None:
    with working() as (workers, failures):
        together = threading.Barrier(3 * KEPT + 1)
        for _ in range(3 * KEPT):
            workers.submit(partial(meet, together))
        together.wait(TIMEOUT_S)
        deadline = time.monotonic() + TIMEOUT_S
        while len(path_threads()) > KEPT + 1:  # and the one that looks after them
            assert time.monotonic() < deadline, path_threads()
            os.sched_yield()
        assert not failures
    assert not path_threads()


def test_every_worker_has_an_umask_of_its_own(workers: Workers) -> None:
    ours = os.umask(0o022)
    together = threading.Barrier(3)
    found: list[tuple[bool, int]] = []

    def job(mask: int) -> None:
        has = take_umask(1, mask)
        together.wait(TIMEOUT_S)
        found.append((has, os.umask(mask) ^ mask))
        together.wait(TIMEOUT_S)

    try:
        for mask in (0o077, 0o027):
            workers.submit(partial(job, mask))
        for _ in range(2):
            together.wait(TIMEOUT_S)
        assert found == [(True, 0), (True, 0)]
        assert not take_umask(1, 0o777)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(ours)


def test_a_wait_is_ended_when_it_is_over(workers: Workers) -> None:
    reading, writing = os.pipe()
    results: list[int] = []
    is_over, asked, done = threading.Event(), threading.Semaphore(0), threading.Event()

    def ask() -> bool:
        asked.release()
        return is_over.is_set()

    def job() -> None:
        results.append(reads_from(reading))
        done.set()

    try:
        workers.submit(job, ask)
        for _ in range(4):
            assert asked.acquire(timeout=TIMEOUT_S)
        assert not results
        is_over.set()
        assert done.wait(TIMEOUT_S)
        assert results == [-errno.EINTR]
    finally:
        os.close(reading)
        os.close(writing)


def test_what_lasts_is_not_disturbed_by_others(workers: Workers) -> None:
    """Those that are over for a moment only, and others' ends."""
    reading, writing = os.pipe()
    results: list[int] = []
    asked, done = threading.Semaphore(0), threading.Event()
    answers = iter((True, False, True, False))

    def ask() -> bool:
        asked.release()
        return next(answers, False)

    def job() -> None:
        results.append(reads_from(reading))
        done.set()

    try:
        workers.submit(job, ask)
        for _ in range(6):
            assert asked.acquire(timeout=TIMEOUT_S)
            workers.submit(lambda: None, lambda: True)
        assert not results
        os.write(writing, b"x")
        assert done.wait(TIMEOUT_S)
        assert results == [1]
    finally:
        os.close(reading)
        os.close(writing)


def test_the_end_calls_out_those_that_wait_and_begins_nothing() -> None:
    reading, writing = os.pipe()
    results: list[int] = []
    begun, done = threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        results.append(reads_from(reading))
        done.set()

    try:
        with working() as (workers, failures):
            workers.submit(job)
            assert begun.wait(TIMEOUT_S)
            workers.close()
            workers.submit(lambda: results.append(0))
            assert done.wait(TIMEOUT_S)
        assert (results, failures) == ([-errno.EINTR], [])
    finally:
        os.close(reading)
        os.close(writing)
