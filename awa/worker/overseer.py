"""The overseer: tells handlers to stop that have run too long or whose jobs have ended without them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

import psycopg
from attrs import define
from psycopg.rows import TupleRow

from awa.context import JobContext
from awa.errors import JobCancelled, JobTimeout
from awa.storage.attempts import ended_elsewhere
from awa.worker.executor import QueueExecutor

log = logging.getLogger("awa.worker")

TICK: Final = 0.1  # seconds between looks at running attempts when any of them may have a timeout
LOOK_EVERY: Final = 1.0  # seconds between questions to the database, and the age at which an attempt is asked about


@define(eq=False)
class _Seen:
    job: JobContext
    since: float  # monotonic
    told_at: float | None = None
    is_hung: bool = False


class Overseer:
    """A thread that looks at running attempts, a few times a second. They pay nothing for it.

    Args:
        executors: by queue.
        connect: for the fallback to the notification of a cancel; used when an attempt is older than a second.
        hard_stop_after: seconds between telling a handler to stop and giving it up.
        on_hung: called once with an attempt that was given up.
    """

    def __init__(
        self,
        executors: Mapping[str, QueueExecutor],
        connect: Callable[[], psycopg.Connection[TupleRow]],
        *,
        hard_stop_after: float,
        on_hung: Callable[[QueueExecutor, JobContext, float], None],
    ) -> None:
        self._executors = executors
        self._connect = connect
        self._hard_stop_after = hard_stop_after
        self._on_hung = on_hung
        self._seen: dict[int, _Seen] = {}
        self._conn: psycopg.Connection[TupleRow] | None = None
        self._look_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="awa-overseer", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join()

    def cancel(self, claim_id: int, item: int) -> None:
        """A job was cancelled: tell its handler, or see that it does not start. From any thread."""
        for executor in self._executors.values():
            for thread, job in executor.attempts():
                if (job._claim.claim_id, job._item) == (claim_id, item):
                    if job.has_ended:
                        return  # by its own transaction, and the handler may go on
                    executor.interrupt(thread, job, JobCancelled)
                    return
            if any((claim.claim_id, i) == (claim_id, item) for claim, i, _ in list(executor.backlog)):
                executor.forget(claim_id, item)
                return

    def cancel_all(self) -> None:
        """Nothing that runs here is ours any more."""
        for executor in self._executors.values():
            for thread, job in executor.attempts():
                executor.interrupt(thread, job, JobCancelled)

    def look(self, now: float) -> None:
        """Tell whoever has run too long; `now` is monotonic."""
        running: set[int] = set()
        for executor in self._executors.values():
            for thread, job in executor.attempts():
                running.add(thread)
                seen = self._seen.get(thread)
                if seen is None or seen.job is not job:
                    seen = self._seen[thread] = _Seen(job, now)
                timeout = executor.timeout_of(job)
                if timeout is None:
                    continue
                if seen.told_at is None and now - seen.since >= timeout:
                    seen.told_at = now
                    if executor.interrupt(thread, job, JobTimeout):
                        log.warning(
                            "job %d (%s) has run for its %g s: it is told to stop",
                            job.id,
                            job.kind,
                            timeout,
                            extra=job.log_fields(),
                        )
                elif seen.told_at is not None and not seen.is_hung and now - seen.told_at >= self._hard_stop_after:
                    seen.is_hung = True
                    self._on_hung(executor, job, now - seen.since)
        for thread in set(self._seen) - running:
            del self._seen[thread]

    def ask(self, now: float) -> None:
        """Tell whoever's job has ended elsewhere, as far as notifications have not."""
        old = {
            (job._claim.claim_id, job._item): (job._claim, job._item)
            for executor in self._executors.values()
            for thread, job in executor.attempts()
            if not (job.cancelled or job.has_ended)
            and (seen := self._seen.get(thread)) is not None
            and seen.job is job
            and now - seen.since >= LOOK_EVERY
        }
        if not old:
            return
        if self._conn is None or self._conn.closed:
            self._conn = self._connect()
        for claim_id, item, outcome in ended_elsewhere(self._conn, list(old.values())):
            log.info("item %d of claim %d has ended elsewhere: %s", item, claim_id, outcome)
            self.cancel(claim_id, item)

    def _run(self) -> None:
        tick = TICK if any(executor.has_timeouts for executor in self._executors.values()) else LOOK_EVERY / 2
        while not self._stopping.wait(tick):
            now = time.monotonic()
            try:
                self.look(now)
                if now >= self._look_at:
                    self._look_at = now + LOOK_EVERY / 2
                    self.ask(now)
            except psycopg.Error as error:
                log.warning("cannot ask whether running jobs were cancelled: %s", str(error).strip())
                self._drop_connection()
            except Exception:
                log.exception("the overseer stumbled and goes on")
        self._drop_connection()

    def _drop_connection(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()
