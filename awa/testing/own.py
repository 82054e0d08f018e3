"""The jobs that an open transaction has enqueued itself, run and ended inside it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from attrs import evolve
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from awa.claim import JOB_ID, Claim, ClaimedRow
from awa.connections import unwrap_connection
from awa.context import JobContext
from awa.errors import AttemptLost, AwaError, ConfigurationError, IsolationError
from awa.migrate import check_schema, load_sql
from awa.plan import Route
from awa.postgres import Connection, sibling, tuple_cursor
from awa.storage.claim import random_id
from awa.storage.complete import Ending
from awa.storage.external import callback_id
from awa.storage.jobs import get_job
from awa.storage.kinds import set_dead_letter
from awa.storage.lanes import ensure_lanes
from awa.storage.own_jobs import end_own_job, next_claim_id, next_own_job, promote_own_jobs
from awa.task import registered_tasks
from awa.testing.attempts import Attempts, Ran
from awa.worker.identity import RuntimeIdentity
from awa.worker.services import AttemptServices

_running: WeakKeyDictionary[Connection, list[int]] = WeakKeyDictionary()
"""Jobs whose handlers run: a handler that drains must not take its own job again."""


class OwnServices(AttemptServices):
    """What an attempt may ask of its worker, on the test's connection."""

    def __init__(self, conn: Connection) -> None:
        super().__init__(lambda: sibling(conn), RuntimeIdentity())
        self._own = conn
        self.said: dict[int, dict[str, Any]] = {}  # progress and checkpoint by job

    def save(self, job: JobContext, progress: str | None, checkpoint: str | None) -> None:
        said = self.said.setdefault(job.id, {})
        for name, text in (("progress", progress), ("checkpoint", checkpoint)):
            if text is not None:
                said[name] = json.loads(text)

    def callback_id(self, job: JobContext) -> str:
        claim = job._claim
        if not claim.claim_id:
            claim.claim_id = next_claim_id(self._own)
        return callback_id(claim, job._item)

    @contextmanager
    def _lend(self) -> Iterator[psycopg.Connection[TupleRow]]:
        yield self._own

    def _complete(self, conn: Connection, job: JobContext) -> None:
        follow_ups = self.follow_ups(job.attempt_state().follow_ups)
        ending = Ending(job._claim, job._item, "completed", follow_ups=follow_ups)
        if end_own_job(conn, job.id, ending, said=self.said.get(job.id)) is None:
            raise AttemptLost

    def _lanes_of(self, route: Route) -> tuple[int, ...]:
        lanes = self._lanes.known(route)
        if lanes is None:
            with sibling(self._own) as conn:  # as in Client: a lane is committed at once
                lanes = self._lanes.learn(route, ensure_lanes(conn, route))
        return lanes


class OwnJobs:
    """A drain's source: see `awa.testing.draining.Source`."""

    def __init__(self, connection: Any, queues: Sequence[str] | None) -> None:
        self._given = connection
        self._conn = unwrap_connection(connection)
        self._queues = queues
        self._services = OwnServices(self._conn)
        self._has_begun = _has_begun(self._conn)
        if self._has_begun:
            check_schema(self._conn, load_sql())

    def promote(self, now: datetime | None) -> None:
        if self._has_begun:
            promote_own_jobs(self._conn, now)

    def take(self) -> tuple[Claim, int, ClaimedRow] | None:
        if not self._has_begun:
            return None
        found = next_own_job(self._conn, self._queues, _running.get(self._conn, ()))
        if found is None:
            return None
        queue, priority, row = found
        return Claim(0, 0, random_id(), queue, priority, 0, n=1), 1, row

    def run(self, attempts: Attempts, claim: Claim, item: int, row: ClaimedRow) -> Ran:
        running = _running.setdefault(self._conn, [])
        running.append(row[JOB_ID])
        try:
            with self._conn.transaction() as savepoint:
                ran = attempts.run(claim, item, row, self._services, self._check)
                if self._is_broken():
                    raise psycopg.Rollback(savepoint)
        finally:
            running.remove(row[JOB_ID])
        self._heal()
        return ran

    def record(self, ran: Ran, ahead: float) -> str:
        if ran.ending is not None:
            ending = ran.ending
            if ending.outcome == "failed":
                self._set_dead_letter(ran.job.kind)
            if ending.outcome != "completed" and ending.delay_after is not None:
                ending = evolve(ending, delay_after=ending.delay_after + ahead)
            end_own_job(
                self._conn, ran.job.id, ending, began_at=ran.began_at, said=self._services.said.pop(ran.job.id, None)
            )
        job = get_job(self._conn, ran.job.id)
        return "unknown" if job is None else job.state

    def close(self) -> None:
        self._services.close()

    def _check(self, error: BaseException | None) -> BaseException | None:
        if error is None and self._is_broken():
            return AwaError(
                "the handler went on after a statement had failed, and in the test's transaction that undoes all it has "
                "written: put what may fail into a savepoint"
            )
        return error

    def _is_broken(self) -> bool:
        return self._conn.info.transaction_status == TransactionStatus.INERROR

    def _heal(self) -> None:
        """Django goes on refusing queries after a failed one, unless it is told that the savepoint was rolled back."""
        wrapper = self._given
        if isinstance(wrapper, str) and "django.db" in sys.modules:
            wrapper = sys.modules["django.db"].connections[wrapper]
        if getattr(wrapper, "in_atomic_block", False) and getattr(wrapper, "needs_rollback", False):
            wrapper.set_rollback(False)

    def _set_dead_letter(self, kind: str) -> None:
        """A worker does it when it starts; here the word counts for this transaction."""
        task = registered_tasks().get(kind)
        if task is not None and task.policy.dead_letter is not None:
            set_dead_letter(self._conn, kind=kind, dead_letter=task.policy.dead_letter)


def _has_begun(conn: Connection) -> bool:
    """Whether the connection is in a transaction that a drain can work in; it may be about to begin one.

    Raises:
        ConfigurationError, IsolationError: it cannot.
    """
    status = conn.info.transaction_status
    if status == TransactionStatus.INERROR:
        raise ConfigurationError("the connection's transaction has failed: a drain needs one that goes on")
    if status == TransactionStatus.IDLE and conn.autocommit:
        raise ConfigurationError(
            "the connection is in no transaction, so what it has enqueued is committed: pass client= to run that"
        )
    if status != TransactionStatus.INTRANS:
        return False
    isolation = tuple_cursor(conn).execute("SHOW transaction_isolation").fetchall()[0][0]
    if isolation != "read committed":
        raise IsolationError(f"a drain inside a transaction needs READ COMMITTED, not {isolation.upper()}")
    return True
