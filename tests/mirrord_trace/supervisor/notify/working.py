"""Replies that are deferred, made in a worker as a delivery would."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from mirrord_trace.supervisor.delivery.notify.replies import Deferred, Reply
from mirrord_trace.supervisor.delivery.notify.workers import Workers
from mirrord_trace.supervisor.signals import DOORBELL
from tests.mirrord_trace.supervisor.harness import TIMEOUT_S

Outcome = TypeVar("Outcome")


def path_threads() -> list[threading.Thread]:
    """The threads of all workers."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("path call")]


@contextmanager
def working() -> Iterator[tuple[Workers, list[BaseException]]]:
    """Workers, and what failed in them. None of their threads is left."""
    others = path_threads()
    failures: list[BaseException] = []
    previous = signal.signal(DOORBELL, lambda *_: None)
    workers = Workers(failures.append)
    try:
        yield workers, failures
    finally:
        workers.close()
        for thread in path_threads():
            if thread not in others:
                thread.join(TIMEOUT_S)
                assert not thread.is_alive(), "a worker did not end"
        signal.signal(DOORBELL, previous)


def in_worker(make: Callable[[], Outcome], is_over: Callable[[], bool] = lambda: False) -> Outcome:
    """What a function gives, or raises, in a worker."""
    outcome: Future[Outcome] = Future()

    def job() -> None:
        try:
            outcome.set_result(make())
        except Exception as error:
            outcome.set_exception(error)

    with working() as (workers, failures):
        workers.submit(job, is_over)
        made = outcome.result(TIMEOUT_S)
        assert not failures
        return made


def settled_in_worker(reply: Reply) -> Reply:
    """The reply that the task gets."""
    return in_worker(reply.make) if isinstance(reply, Deferred) else reply
