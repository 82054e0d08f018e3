"""Running one attempt in the calling thread, as a worker's thread would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any, Final

from attrs import frozen

from awa import events
from awa.claim import ARGS, Claim, ClaimedRow
from awa.context import JobContext
from awa.errors import AwaError, JobInterrupted
from awa.outcome import Outcome
from awa.storage.complete import Ending
from awa.task import registered_tasks
from awa.worker.endings import Verdict, judge
from awa.worker.handler import Handler
from awa.worker.loop import LoopThread
from awa.worker.services import AttemptServices

UNKNOWN_KIND_DELAY: Final = 30.0  # seconds, as a worker has it by default


class UnknownKind(AwaError):
    """No task of this process has the job's kind: import the module that defines it."""


@frozen
class Ran:
    """What became of an attempt."""

    job: JobContext
    ending: Ending | None  # None: its own transaction has ended it
    error: BaseException | None  # what the handler raised, or why it could not run
    began_at: datetime
    is_plain: bool = False  # a success that leaves nothing behind

    @property
    def surprise(self) -> BaseException | None:
        """The error, unless the handler raised it to say how the job ends."""
        return None if isinstance(self.error, Outcome) else self.error


class Attempts:
    """Runs attempts; coroutines on an event loop of their own, as in a worker."""

    def __init__(self) -> None:
        self._loop = LoopThread()
        self._handlers: dict[str, Handler] = {}

    def close(self) -> None:
        """End the loop."""
        self._loop.stop()

    def run(
        self,
        claim: Claim,
        item: int,
        row: ClaimedRow,
        services: AttemptServices,
        check: Callable[[BaseException | None], BaseException | None] = lambda error: error,
    ) -> Ran:
        """Run a job's handler and judge how the attempt ended.

        Args:
            claim, item, row: the job.
            services: what it may ask of its worker.
            check: sees the handler's error, or None, before it is judged, and may replace it.

        Raises:
            BaseException: what is meant for the test and not for the worker: KeyboardInterrupt, pytest.fail and their like.
        """
        job = JobContext(claim, item, row, services)
        began_at = datetime.now(UTC)
        handler = self._handler(job.kind)
        if handler is None:
            unknown = UnknownKind(f"no task for kind {job.kind!r} here: import the module that defines it")
            return Ran(job, Ending(claim, item, "released", delay_after=UNKNOWN_KIND_DELAY), unknown, began_at)
        if events.listeners:
            events.emit(events.started(job))
        value: Any = None
        error: BaseException | None = None
        began = time.perf_counter()
        try:
            value = copy_context().run(handler.run, job, row[ARGS])
        except (Exception, SystemExit, JobInterrupted, CancelledError, asyncio.CancelledError) as raised:  # noqa: BLE001 - as a worker does
            error = raised
        error = check(error)
        duration = time.perf_counter() - began
        verdict, ending = judge(job, claim, item, handler.policy, error, value, duration, services)
        is_plain = verdict is Verdict.FINISHED
        if is_plain:
            ending = Ending(claim, item, "completed")
        if error is None and isinstance(value, Outcome):
            error = value
        elif error is None and ending is not None and ending.outcome == "failed":
            said = ending.error or {}  # the result is not JSON, or the like
            error = AwaError(f"job {job.id} ({job.kind}): {said.get('type')}: {said.get('message')}")
        return Ran(job, ending, error, began_at, is_plain)

    def _handler(self, kind: str) -> Handler | None:
        task = registered_tasks().get(kind)
        if task is None:
            return None
        handler = self._handlers.get(kind)
        if handler is None:
            handler = self._handlers[kind] = Handler(task, self._loop.get)
        return handler
