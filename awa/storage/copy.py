"""copy_jobs: the same plan as enqueue_jobs, through COPY."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from awa.plan import PlannedJob, Route
from awa.postgres import Connection, tuple_cursor

CURRENT_SLOT: Final = "SELECT slot FROM awa.current_slot('queue')"
# A default cannot be asked for inside a COPY, so rows that need none of run_at and payload leave the columns out.
COPY_READY_PLAIN: Final = "COPY awa.ready_entries (ready_slot, lane_id, kind, args, max_attempts) FROM STDIN"
COPY_READY: Final = "COPY awa.ready_entries (ready_slot, lane_id, kind, args, max_attempts, run_at, payload) FROM STDIN"
COPY_DEFERRED: Final = "COPY awa.deferred_jobs (lane_id, kind, args, max_attempts, run_at, payload) FROM STDIN"

COPY_CHUNK: Final = 2000
"""Deferred jobs held back while ready ones stream: a connection runs one COPY at a time. Also the step of `progress`."""


def current_queue_slot(conn: Connection) -> int:
    """The ready slot being filled. It may be sealed by the time rows land in it, which is legal."""
    return int(tuple_cursor(conn).execute(CURRENT_SLOT).fetchall()[0][0])


def copy_jobs(
    conn: Connection,
    jobs: Iterable[PlannedJob],
    lane_of: Callable[[Route], int],
    ready_slot: int,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Append `jobs` in the connection's transaction as they are read, and return how many; memory does not grow with them.

    Args:
        conn: a connection in a transaction, not in pipeline mode; a COPY runs on it while `jobs` is read.
        jobs: planned jobs; the order within a lane is kept.
        lane_of: the lane of a route; not to be asked on `conn`.
        ready_slot: from `current_queue_slot`.
        progress: called with the number of jobs so far, every COPY_CHUNK and at the end.
    """
    source = iter(jobs)
    job = next(source, None)
    count = 0
    plain = True  # until a job needs the other columns; from then on all rows fill them
    now = datetime.now(UTC)
    deferred: list[Sequence[Any]] = []
    while job is not None:
        with tuple_cursor(conn) as cursor, cursor.copy(COPY_READY_PLAIN if plain else COPY_READY) as copy:
            write = copy.write_row
            # The server takes rows in while the next ones are planned.
            while job is not None and len(deferred) < COPY_CHUNK:
                route, kind, args, max_attempts, run_at, payload, is_deferred, _ = job
                if is_deferred:
                    deferred.append((lane_of(route), kind, args, max_attempts, run_at, payload))
                elif not plain:
                    write((ready_slot, lane_of(route), kind, args, max_attempts, run_at or now, payload))
                elif run_at is None and payload is None:
                    write((ready_slot, lane_of(route), kind, args, max_attempts))
                else:
                    plain = False
                    break
                count += 1
                if progress and count % COPY_CHUNK == 0:
                    progress(count)
                job = next(source, None)
        if len(deferred) >= COPY_CHUNK or job is None:
            _copy_deferred(conn, deferred)
            deferred.clear()
    if progress and count % COPY_CHUNK:
        progress(count)
    return count


def _copy_deferred(conn: Connection, rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        with tuple_cursor(conn) as cursor, cursor.copy(COPY_DEFERRED) as copy:
            for row in rows:
                copy.write_row(row)
