"""copy_jobs: the same plan as enqueue_jobs, through COPY."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from awa.plan import PlannedJob, Route
from awa.postgres import Connection, tuple_cursor

CURRENT_SLOT: Final = "SELECT slot FROM awa.current_slot('queue')"
# A default cannot be asked for inside a COPY, so rows that need none of run_at and payload leave the columns out.
COPY_READY_PLAIN: Final = "COPY awa.ready_entries (ready_slot, lane_id, kind, args, max_attempts) FROM STDIN"
COPY_READY: Final = "COPY awa.ready_entries (ready_slot, lane_id, kind, args, max_attempts, run_at, payload) FROM STDIN"
COPY_DEFERRED: Final = "COPY awa.deferred_jobs (lane_id, kind, args, max_attempts, run_at, payload) FROM STDIN"


def current_queue_slot(conn: Connection) -> int:
    """The ready slot being filled. It may be sealed by the time rows land in it, which is legal."""
    return int(tuple_cursor(conn).execute(CURRENT_SLOT).fetchall()[0][0])


def copy_jobs(conn: Connection, jobs: Sequence[PlannedJob], lanes: Mapping[Route, int], ready_slot: int) -> None:
    """Append one bounded chunk of `jobs` in the connection's transaction.

    Args:
        conn: a connection in a transaction, not in pipeline mode.
        jobs: planned jobs; the order within a lane is kept.
        lanes: the lane of every route that occurs.
        ready_slot: from `current_queue_slot`.
    """
    ready = [job for job in jobs if not job.deferred]
    deferred = [job for job in jobs if job.deferred]
    if all(job.run_at is None and job.payload is None for job in ready):
        _copy(conn, COPY_READY_PLAIN, [(ready_slot, lanes[job[0]], job[1], job[2], job[3]) for job in ready])
    else:
        now = datetime.now(UTC)
        _copy(
            conn,
            COPY_READY,
            [(ready_slot, lanes[job[0]], job[1], job[2], job[3], job[4] or now, job[5]) for job in ready],
        )
    _copy(conn, COPY_DEFERRED, [(lanes[job[0]], job[1], job[2], job[3], job[4], job[5]) for job in deferred])


def _copy(conn: Connection, statement: str, rows: Iterable[Sequence[Any]]) -> None:
    if not rows:
        return
    with tuple_cursor(conn) as cursor, cursor.copy(statement) as copy:
        write = copy.write_row
        for row in rows:
            write(row)
