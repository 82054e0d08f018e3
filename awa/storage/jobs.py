"""Reading jobs and queues, and pausing queues."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import psycopg
from attrs import fields

from awa.errors import StorageBusy
from awa.job import Job, JobState, QueueCounts
from awa.postgres import Connection, tuple_cursor

GET_JOB: Final = """
    SELECT job_id, queue, priority, kind, args::text, state, attempt, max_attempts, run_lease,
           run_at, created_at, claimed_at, finalized_at, runtime_id, payload::text
    FROM awa.get_job(%s::int8)
"""
SELECT_JOBS: Final = """
    SELECT job_id, queue, priority, kind, args::text, state, attempt, max_attempts, run_lease,
           run_at, created_at, claimed_at, finalized_at, runtime_id, payload::text, has_key
    FROM awa.select_jobs(%s::text[], %s::text)
"""
LIST_JOBS: Final = """
    SELECT job_id, queue, priority, kind, args::text, state, attempt, max_attempts, run_lease,
           run_at, created_at, claimed_at, finalized_at, runtime_id, payload::text
    FROM awa.list_jobs(%s::text, %s::text, %s::text, %s::timestamptz, %s::int8, %s::int4)
"""
QUEUE_COUNTS: Final = "SELECT * FROM awa.queue_counts(%s::text, %s::bool, %s::int4)"
FAST_AVAILABLE_LIMIT: Final = 100_000
"""Jobs that wait in a lane are counted no further by a fast count."""
HAS_WORK: Final = "SELECT awa.has_work(%s::text[])"
IS_PAUSED: Final = "SELECT awa.is_paused(%s::text)"
PAUSE_QUEUE: Final = "SELECT awa.pause_queue(%s::text)"
RESUME_QUEUE: Final = "SELECT awa.resume_queue(%s::text)"


def get_job(conn: Connection, job_id: int) -> Job | None:
    """The job, or None when there is none of that id."""
    rows = tuple_cursor(conn).execute(GET_JOB, (job_id,)).fetchall()
    return _job(rows[0]) if rows else None


def select_jobs(conn: Connection, states: Sequence[str], kind: str | None = None) -> list[tuple[Job, bool]]:
    """All jobs in these states, and of this kind if one is given, each with whether it has a unique key; by id."""
    rows = tuple_cursor(conn).execute(SELECT_JOBS, (list(states), kind)).fetchall()
    return [(_job(row), row[15]) for row in rows]


def list_jobs(
    conn: Connection,
    *,
    queue: str | None = None,
    kind: str | None = None,
    state: JobState | None = None,
    ended_before: datetime | None = None,
    before_id: int | None = None,
    limit: int = 100,
) -> list[Job]:
    """Jobs, the newest ids first.

    Args:
        conn: a connection that commits at once.
        queue, kind, state: only of that one.
        ended_before: only those that ended before this instant.
        before_id: where the last page ended.
        limit: at most so many.
    """
    parameters = (queue, kind, state, ended_before, before_id, limit)
    return [_job(row) for row in tuple_cursor(conn).execute(LIST_JOBS, parameters).fetchall()]


def queue_counts(conn: Connection, queue: str | None, *, exact: bool = True) -> list[QueueCounts]:
    """The counts of one queue or of all; nothing for a queue that never had a job.

    Args:
        conn: any connection.
        queue: its name; `None` for all.
        exact: count what there is; else add up what is known, and count waiting jobs to FAST_AVAILABLE_LIMIT a lane only.

    Raises:
        StorageBusy: a table was locked for longer than a second.
    """
    names = [attribute.name for attribute in fields(QueueCounts)]  # in the order of the function's columns
    try:
        rows = tuple_cursor(conn).execute(QUEUE_COUNTS, (queue, exact, None if exact else FAST_AVAILABLE_LIMIT)).fetchall()
    except psycopg.errors.LockNotAvailable as error:
        raise StorageBusy("somebody keeps the engine's tables locked: the jobs were not counted") from error
    return [QueueCounts(**dict(zip(names, row, strict=True))) for row in rows]


def has_work(conn: Connection, queues: Sequence[str]) -> bool:
    """Whether any of these queues has a job to hand out, or one that is due."""
    return bool(tuple_cursor(conn).execute(HAS_WORK, (list(queues),)).fetchall()[0][0])


def is_paused(conn: Connection, queue: str) -> bool:
    """Whether nothing of `queue` is claimed for the time being."""
    return bool(tuple_cursor(conn).execute(IS_PAUSED, (queue,)).fetchall()[0][0])


def pause_queue(conn: Connection, queue: str) -> None:
    """Stop claims of `queue`."""
    tuple_cursor(conn).execute(PAUSE_QUEUE, (queue,))


def resume_queue(conn: Connection, queue: str) -> None:
    """Allow claims of `queue` again."""
    tuple_cursor(conn).execute(RESUME_QUEUE, (queue,))


def _job(row: tuple[Any, ...]) -> Job:
    payload = json.loads(row[14]) if row[14] else {}
    return Job(
        id=row[0],
        queue=row[1],
        priority=row[2],
        kind=row[3],
        args=json.loads(row[4]),
        state=row[5],
        attempt=row[6],
        max_attempts=row[7],
        run_lease=row[8],
        run_at=row[9],
        created_at=row[10],
        claimed_at=row[11],
        finalized_at=row[12],
        runtime_id=row[13],
        tags=tuple(payload.get("tags", ())),
        metadata=payload.get("metadata", {}),
        errors=tuple(payload.get("errors", ())),
        progress=payload.get("progress"),
        checkpoint=payload.get("checkpoint"),
        result=payload.get("result"),
    )
