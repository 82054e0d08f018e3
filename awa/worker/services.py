"""What a running attempt may ask of its worker: writes about itself, a transaction, lanes for follow-up jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
from attrs import evolve
from psycopg.rows import TupleRow

from awa import trace
from awa.clock import utc_now
from awa.config import DEFAULT_QUEUE
from awa.errors import AttemptLost, AwaError, InvalidJob
from awa.job import JobOptions
from awa.partitions import AnyQueue
from awa.plan import PlannedJob, Route, key_hash_of, make_template, merge_options
from awa.postgres import Connection, has_been_closed
from awa.storage.attempts import save_progress
from awa.storage.claim import random_id
from awa.storage.complete import Completion, Ending, complete_jobs, finalize_attempts, not_accepted
from awa.storage.enqueue import enqueue_parameters
from awa.storage.external import callback_id
from awa.storage.lanes import LaneBook, ensure_lanes

if TYPE_CHECKING:
    from awa.context import JobContext
    from awa.worker.identity import RuntimeIdentity

BUSY_FOR: Final = 5.0
"""Seconds to go on asking for a claim whose other items are being ended."""
BUSY_PAUSE: Final = 0.002
IDLE_CONNECTIONS: Final = 4
"""Transactions' connections kept open between uses."""


class AttemptServices:
    """Connections are opened when an attempt first needs one, and shared by all handler threads of the worker.

    Args:
        connect: makes an autocommit connection.
        identity: the worker's.
        default_queue: of follow-up jobs that name none.
    """

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[TupleRow]],
        identity: RuntimeIdentity,
        *,
        default_queue: AnyQueue = DEFAULT_QUEUE,
    ) -> None:
        self._connect = connect
        self._identity = identity
        self._default_queue = default_queue
        self._idle: list[psycopg.Connection[TupleRow]] = []
        self._lending = threading.Lock()
        self._lanes = LaneBook()
        self._closed = False

    @property
    def runtime_id(self) -> int:
        """Who the worker is in the database at present."""
        return self._identity.runtime_id

    def save(self, job: JobContext, progress: str | None, checkpoint: str | None) -> None:
        """Write progress and checkpoint (JSON texts) to the attempt's lease.

        Raises:
            AttemptLost: it has ended.
        """
        claim, item = _receipt(job)
        with self._lend() as conn:
            deadline = time.monotonic() + BUSY_FOR
            while True:
                verdict = save_progress(conn, self._identity.runtime_id, claim, item, progress, checkpoint)
                if verdict == "saved":
                    return
                if verdict == "refused":
                    raise AttemptLost
                _pause(deadline)

    def callback_id(self, job: JobContext) -> str:
        """The attempt's name for the world outside."""
        return callback_id(*_receipt(job))

    def plan(self, task_or_kind: Any, args: object, options: dict[str, Any]) -> PlannedJob:
        """Plan a follow-up job, and find its lane while there is time for that.

        Raises:
            InvalidJob: it would be refused.
        """
        given = JobOptions(**{name: value for name, value in options.items() if value is not None})
        kind: object = task_or_kind
        if hasattr(task_or_kind, "defaults"):
            kind, given = task_or_kind.kind, merge_options(task_or_kind.defaults, given)
        if given.unique is not None:
            raise InvalidJob("unique", "not for follow-up jobs: enqueue it with a client")
        if not given.names_queue:
            given = evolve(given, queue=self._default_queue)
        template = make_template(kind, given)
        planned = template.plan({} if args is None else args, utc_now(), key_hash_of(given.ordering_key))
        self._lanes_of(planned.route)
        return planned

    def follow_ups(self, jobs: list[PlannedJob]) -> tuple[str | None, str | None, list[str] | None] | None:
        """Planned jobs as an ending carries them."""
        if not jobs:
            return None
        placed, lanes = self._lanes.place(jobs, {job.route: self._lanes_of(job.route) for job in jobs})
        return enqueue_parameters(placed, lanes, sorted({job.route.queue for job in jobs if not job.deferred}))

    @contextmanager
    def transaction(self, job: JobContext) -> Iterator[Connection]:
        """See `JobContext.transaction`."""
        state = job.attempt_state()
        if state.has_ended:
            raise AwaError("the attempt has completed in a transaction already")
        with self._lend() as conn:
            with conn.transaction():
                yield conn
                self._complete(conn, job)
            state.has_ended = True
            if trace.on:
                trace.ended([(*_receipt(job), "completed", "accepted", None)])

    def close(self) -> None:
        """Close what is not lent."""
        with self._lending:
            self._closed = True
            idle, self._idle = self._idle, []
        for conn in idle:
            conn.close()

    def _complete(self, conn: Connection, job: JobContext) -> None:
        """As the last statement before the commit, so that the claim's lock is held for a moment only."""
        claim, item = _receipt(job)
        state = job.attempt_state()
        follow_ups = self.follow_ups(state.follow_ups)
        flush_id = random_id()
        deadline = time.monotonic() + BUSY_FOR
        while True:
            if state.has_lease or follow_ups is not None:
                ending = Ending(claim, item, "completed", follow_ups=follow_ups)
                cursor = finalize_attempts(conn, self._identity.runtime_id, flush_id, [ending])
            else:
                cursor = complete_jobs(conn, self._identity.runtime_id, flush_id, [Completion(claim, [item])])
            answer = not_accepted(cursor)
            if not answer:
                return
            if answer[0].verdict == "refused":
                raise AttemptLost
            _pause(deadline)

    def _lanes_of(self, route: Route) -> tuple[int, ...]:
        lanes = self._lanes.known(route)
        if lanes is None:
            with self._lend() as conn:
                lanes = self._lanes.learn(route, ensure_lanes(conn, route))
        return lanes

    @contextmanager
    def _lend(self) -> Iterator[psycopg.Connection[TupleRow]]:
        conn = None
        with self._lending:
            if self._idle:
                conn = self._idle.pop()
        if conn is not None and has_been_closed(conn):
            conn.close()
            conn = None
        if conn is None:
            conn = self._connect()
        try:
            yield conn
        finally:
            with self._lending:
                keep = not self._closed and not conn.closed and len(self._idle) < IDLE_CONNECTIONS
                if keep and conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
                    self._idle.append(conn)
                else:
                    conn.close()


def _receipt(job: JobContext) -> tuple[Any, int]:
    return job._claim, job._item


def _pause(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise AwaError(f"the claim of this attempt was locked by somebody for {BUSY_FOR:g} s")
    time.sleep(BUSY_PAUSE)
