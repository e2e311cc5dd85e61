"""Threads that do what may wait, and have the target's rights.

They are started when none is idle, take the rights once, and stay. A job goes to them by a queue and its outcome comes
back as a callback in Trio's thread, which is cheaper than a task and a thread for each. Nothing waits for a thread that
hangs: it is a daemon, and bounded in number.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, cast

import attrs
import trio

from mirrord_agent.job_queue import JobQueue

Outcome = TypeVar("Outcome")


@attrs.define(eq=False)
class Job:
    """Something for a worker to do."""

    run: Callable[[], object]
    """In the worker's thread. May raise."""
    done: Callable[[object], None]
    """In Trio's thread: what `run` returned, the exception that it raised, or `NOT_RUN`."""
    after: Callable[[], None] | None = None
    """In the worker's thread, behind `run`, and also in its place."""
    cancelled: bool = False
    """Whether nobody wants the outcome: a job that has not begun never does."""

    def cancel(self) -> None:
        """Nobody wants the outcome."""
        self.cancelled = True


NOT_RUN = object()
"""The outcome of a job that was cancelled before it began."""


class Workers:
    """A number of threads with the same rights. Used from Trio's thread."""

    def __init__(self, name: str, most: int, take_rights: Callable[[], None]) -> None:
        """At most `most` threads, each of which calls `take_rights` before its first job."""
        self._name = name
        self._most = most
        self._take_rights = take_rights
        self._token = trio.lowlevel.current_trio_token()
        self._jobs: JobQueue[Job | None] = JobQueue()
        self._threads = 0
        self.busy = 0
        """Jobs that are not done, those that wait for a thread among them."""

    def submit(self, job: Job) -> None:
        """Has a job done."""
        self.busy += 1
        if self.busy > self._threads < self._most:
            self._start_thread()
        self._jobs.put(job)

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError:  # the container may have no more processes: fewer have to do
            if not self._threads:
                raise
        else:
            self._threads += 1

    async def run(
        self,
        run: Callable[[], Outcome],
        after: Callable[[], None],
        late: Callable[[object], None],
    ) -> Outcome:
        """Has something done, waits for it and returns what `run` returns, or raises what it raises.

        When cancelled, `late` gets the outcome, if there is still to be one. For the rest see `Job`.
        """
        outcomes: list[object] = []
        there = trio.Event()
        waiting = True

        def done(outcome: object) -> None:
            if waiting:
                outcomes.append(outcome)
                there.set()
            else:
                late(outcome)

        job = Job(run, done, after)
        self.submit(job)
        try:
            await there.wait()
        except BaseException:
            job.cancel()
            waiting = False
            raise
        if isinstance(outcomes[0], BaseException):
            raise outcomes[0]
        return cast(Outcome, outcomes[0])

    def stop(self) -> None:
        """Lets the threads end when what was submitted is done."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        refusal: BaseException | None = None
        try:
            self._take_rights()
        except BaseException as error:
            refusal = error  # whoever asks is told
        while (job := self._jobs.get()) is not None:
            outcome: object = NOT_RUN
            if refusal is not None:
                outcome = refusal
            elif not job.cancelled:
                try:
                    outcome = job.run()
                except BaseException as error:
                    outcome = error
            if job.after is not None:
                job.after()
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._finish, job, outcome)

    def _finish(self, job: Job, outcome: object) -> None:
        self.busy -= 1
        job.done(outcome)
