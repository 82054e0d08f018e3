"""inline: every job runs as it is enqueued."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
from attrs import evolve
from psycopg.rows import TupleRow

from awa import events
from awa.claim import Claim, ClaimedRow
from awa.client import default_client
from awa.client.sessions import Sessions
from awa.clock import utc_now
from awa.connections import unwrap_connection
from awa.context import JobContext
from awa.errors import AwaError, ConfigurationError, UniqueConflict
from awa.job import Job, JobState
from awa.plan import PlannedJob
from awa.postgres import Connection, tuple_cursor
from awa.storage.claim import random_id
from awa.storage.complete import Ending
from awa.testing.attempts import Attempts, Ran
from awa.unique import UniqueClaim
from awa.worker.identity import RuntimeIdentity
from awa.worker.services import AttemptServices

MAX_DEPTH: Final = 50
"""Jobs that may enqueue one another in a line before a circle is suspected."""
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)


class Inline:
    """The jobs that ran inside an `inline` block, and what became of them.

    Attributes:
        jobs: as they are now, in the order in which they were enqueued.
    """

    def __init__(self, *, raises: bool) -> None:
        self._raises = raises
        self._jobs: dict[int, Job] = {}
        self._keys: dict[bytes, tuple[int, datetime | None, tuple[str, ...]]] = {}
        self._ids = itertools.count(1)
        self._depth = 0
        self._attempts = Attempts()

    @property
    def jobs(self) -> list[Job]:
        """Every job of the block."""
        return list(self._jobs.values())

    def get_job(self, job_id: int) -> Job | None:
        """The job of that id, as `Client.get_job` gives it inside the block."""
        return self._jobs.get(job_id)

    def run(self, planned: list[PlannedJob], connection: Any = None) -> list[tuple[int, bool]]:
        """Run planned jobs; of each its id and whether it was new. What clients call inside the block."""
        __tracebackhide__ = True
        self._check_keys(planned)
        # Who has a key in this batch, which is enqueued at one time although its first job is over before its second begins.
        own: dict[bytes, int] = {}
        return [self._run(job, index, own, connection) for index, job in enumerate(planned)]

    def close(self) -> None:
        """The block has ended."""
        self._attempts.close()

    def _run(self, planned: PlannedJob, index: int, own: dict[bytes, int], connection: Any) -> tuple[int, bool]:
        __tracebackhide__ = True
        unique: UniqueClaim | None = planned.unique
        if unique is not None and (holder := self._holder(unique) or self._rival(unique, own)) is not None:
            if unique.on_conflict == "skip":
                return 0, False
            if unique.on_conflict == "return_existing":
                return holder, False
            if unique.on_conflict == "raise" or not self._make_room(holder):
                raise UniqueConflict(holder, index)
        job = self._record(planned)
        if unique is not None:
            until = None if unique.period is None else utc_now() + timedelta(seconds=unique.period)
            self._keys[unique.key] = (job.id, until, unique.states)
            own[unique.key] = job.id
        self._attempt(job, planned, connection)
        return job.id, True

    def _attempt(self, job: Job, planned: PlannedJob, connection: Any) -> None:
        __tracebackhide__ = True
        if self._depth >= MAX_DEPTH:
            raise AwaError(f"{MAX_DEPTH} jobs have enqueued one another in a line: does {job.kind!r} enqueue itself?")
        services = InlineServices(self, connection)
        claim = Claim(0, job.id, random_id(), job.queue, job.priority, _microseconds(utc_now()), n=1)
        self._jobs[job.id] = evolve(job, state="running", attempt=1, run_lease=1, claimed_at=datetime.now(UTC))
        self._depth += 1
        try:
            ran = self._attempts.run(claim, 1, _row(job, planned), services)
            self._end(ran)
            if self._raises and ran.surprise is not None:
                raise ran.surprise
            if ran.ending is None or ran.ending.outcome == "completed":
                self.run(ran.job.attempt_state().follow_ups, connection)
        finally:
            self._depth -= 1

    def _record(self, planned: PlannedJob) -> Job:
        payload = json.loads(planned.payload) if planned.payload else {}
        now = datetime.now(UTC)
        job = Job(
            id=next(self._ids),
            queue=planned.route.queue,
            priority=planned.route.priority,
            kind=planned.kind,
            args=json.loads(planned.args),
            state="available",
            attempt=0,
            max_attempts=planned.max_attempts,
            run_lease=0,
            run_at=planned.run_at or now,
            created_at=now,
            claimed_at=None,
            finalized_at=None,
            runtime_id=None,
            tags=tuple(payload.get("tags", ())),
            metadata=payload.get("metadata", {}),
            errors=(),
        )
        self._jobs[job.id] = job
        return job

    def _end(self, ran: Ran) -> None:
        job, ending = self._jobs[ran.job.id], ran.ending
        if ending is None:  # in ctx.transaction()
            self._jobs[job.id] = evolve(job, state="completed", finalized_at=datetime.now(UTC))
        else:
            errors = job.errors if ending.error is None else (*job.errors, ending.error)
            result = None if ending.result is None else json.loads(ending.result)
            state = _state_after(ran, ending)
            run_at = job.run_at
            if state in ("scheduled", "retryable"):
                run_at = utc_now() + timedelta(seconds=ending.delay_after or 0.0)
            ended = None if state in ("scheduled", "retryable", "waiting") else datetime.now(UTC)
            attempt = 0 if ending.outcome in ("snoozed", "released") else job.attempt
            self._jobs[job.id] = evolve(
                job, state=state, errors=errors, result=result, run_at=run_at, finalized_at=ended, attempt=attempt
            )
        if events.listeners:
            events.emit(events.completed(ran.job) if ending is None else events.ended(ran.job, ending))

    # -- unique keys ---------------------------------------------------------------------------------------------------

    def _check_keys(self, planned: list[PlannedJob]) -> None:
        """A batch is all or nothing, but what its own handlers will enqueue cannot be known."""
        own: set[bytes] = set()
        for index, job in enumerate(planned):
            unique = job.unique
            if unique is None:
                continue
            if unique.on_conflict == "raise":
                holder = self._holder(unique)
                if holder is None and unique.key in own:
                    holder = next(self._ids)  # of a job that is not enqueued either
                if holder is not None:
                    raise UniqueConflict(holder, index)
            own.add(unique.key)

    def _holder(self, unique: UniqueClaim) -> int | None:
        job_id, until, states = self._keys.get(unique.key, (0, None, ()))
        job = self._jobs.get(job_id)
        if job is None or job.state not in states or (until is not None and until <= utc_now()):
            return None
        return job_id

    def _rival(self, unique: UniqueClaim, own: dict[bytes, int]) -> int | None:
        """The job of the same batch that has the key, unless it would have made room."""
        return None if unique.on_conflict == "replace" else own.get(unique.key)

    def _make_room(self, holder: int) -> bool:
        job = self._jobs[holder]
        if job.state not in ("available", "scheduled", "retryable"):
            return False
        self._jobs[holder] = evolve(job, state="cancelled", finalized_at=datetime.now(UTC))
        return True


class InlineServices(AttemptServices):
    """What an attempt may ask of its worker, without a database, unless it asks for a transaction."""

    def __init__(self, owner: Inline, connection: Any) -> None:
        super().__init__(_no_connection, RuntimeIdentity())
        self._owner = owner
        self._given = connection

    def save(self, job: JobContext, progress: str | None, checkpoint: str | None) -> None:
        said: dict[str, Any] = {}
        if progress is not None:
            said["progress"] = json.loads(progress)
        if checkpoint is not None:
            said["checkpoint"] = json.loads(checkpoint)
        self._owner._jobs[job.id] = evolve(self._owner._jobs[job.id], **said)

    def follow_ups(self, jobs: list[PlannedJob]) -> tuple[str | None, str | None, list[str] | None] | None:
        return None  # they run after the attempt

    @contextmanager
    def _lend(self) -> Iterator[psycopg.Connection[TupleRow]]:
        if self._given is None:
            with default_client()._connection() as conn:
                yield conn
        else:
            conn = unwrap_connection(self._given)
            tuple_cursor(conn).execute("SELECT")  # begins a transaction that the caller has not begun yet
            yield conn

    def _complete(self, conn: Connection, job: JobContext) -> None:
        """Nothing is recorded in a database."""

    def _lanes_of(self, route: Any) -> tuple[int, ...]:
        return (0,)


@contextmanager
def inline(*, raises: bool = True) -> Iterator[Inline]:
    """Run every job that this process enqueues in the block at once, in the thread that enqueues it. Needs no database.

    Arguments are checked, turned into JSON and back, and decoded as ever, and what the handler raises or returns ends the
    job: `Client.get_job` and `Client.result` say how, and so does `Inline.jobs`. Not as in a worker: `run_at` is not waited
    for, nothing is tried a second time, a job runs although the transaction it was enqueued in is open (and is not undone
    with it), timeouts are not enforced. Jobs enqueued by handlers, and follow-up jobs, run as well. `ctx.transaction()` is a
    savepoint of the `connection=` that the job was enqueued with, else a transaction of the default client's database.

    Args:
        raises: raise what a handler raises where the job is enqueued; `Retry`, `Snooze`, `Cancel` and `Fail` are not raised.

    >>> import awa
    >>> from awa.testing import inline
    >>> @awa.task(result=True)
    ... def add(a: int, b: int) -> int:
    ...     return a + b
    >>> with inline() as ran:
    ...     client.result(add.options(client=client).enqueue(1, 2), timeout=0)
    3
    >>> [job.state for job in ran.jobs]
    ['completed']
    """
    if Sessions.diversion is not None:
        raise ConfigurationError("jobs run inline already")
    runner = Inline(raises=raises)
    Sessions.diversion = runner
    try:
        yield runner
    finally:
        Sessions.diversion = None
        runner.close()


def _no_connection() -> psycopg.Connection[TupleRow]:
    raise AwaError("jobs that run inline have no database of their own")


def _row(job: Job, planned: PlannedJob) -> ClaimedRow:
    times = (_microseconds(job.run_at), _microseconds(job.created_at))
    return (*(None,) * 5, job.id, job.kind, planned.args, 1, job.max_attempts, 1, *times, planned.payload)


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def _state_after(ran: Ran, ending: Ending) -> JobState:
    match ending.outcome:
        case "completed":
            return "completed"
        case "failed" if ending.delay_after is None or ran.job.attempt >= ran.job.max_attempts:
            return "dead_lettered"
        case "failed":
            return "retryable"
        case "snoozed" | "released":
            return "scheduled"
        case "cancelled":
            return "cancelled"
        case "waiting":
            return "waiting"
