"""Jobs that have ended badly: finding, retrying, moving and discarding them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

from awa import trace
from awa.postgres import Connection, tuple_cursor

SELECT_ENDED: Final = "SELECT awa.select_ended(%s::text, %s::text, %s::text, %s::timestamptz, %s::int8, %s::int4)"
RETRY_JOBS: Final = "SELECT job_id, verdict FROM awa.retry_jobs(%s::int8[], coalesce(%s::timestamptz, clock_timestamp()))"
DEAD_LETTER_JOBS: Final = "SELECT awa.dead_letter_jobs(%s::int8[])"
DISCARD_JOBS: Final = "SELECT awa.discard_jobs(%s::int8[])"
PURGE_DEAD_LETTERS: Final = "SELECT awa.purge_dead_letters(%s::int4, coalesce(%s::timestamptz, clock_timestamp()))"

EndedState = Literal["failed", "cancelled", "dead_lettered"]
RetryVerdict = Literal["retried", "conflict", "unfinished", "completed", "unknown"]


def select_ended(
    conn: Connection,
    state: EndedState,
    *,
    queue: str | None = None,
    kind: str | None = None,
    before: datetime | None = None,
    after_job_id: int = 0,
    limit: int = 1000,
) -> list[int]:
    """The ids of jobs that have ended badly, in order, from after `after_job_id`.

    Args:
        conn: any connection.
        state: which ending.
        queue, kind: only of that one.
        before: only those that ended before this instant.
        after_job_id: where the last call ended.
        limit: at most so many.
    """
    parameters = (state, queue, kind, before, after_job_id, limit)
    return list(tuple_cursor(conn).execute(SELECT_ENDED, parameters).fetchall()[0][0])


def retry_jobs(conn: Connection, job_ids: Sequence[int], now: datetime | None = None) -> dict[int, RetryVerdict]:
    """Put jobs that have ended badly back to their lanes, with all their attempts before them; what became of each."""
    verdicts: dict[int, RetryVerdict] = dict(tuple_cursor(conn).execute(RETRY_JOBS, (list(job_ids), now)).fetchall())
    if trace.on:
        trace.retried(job_id for job_id, verdict in verdicts.items() if verdict == "retried")
    return verdicts


def dead_letter_jobs(conn: Connection, job_ids: Sequence[int]) -> Counter[str]:
    """Move failed jobs to the dead-letter queue; how many were moved."""
    return Counter(moved=tuple_cursor(conn).execute(DEAD_LETTER_JOBS, (list(job_ids),)).fetchall()[0][0])


def discard_jobs(conn: Connection, job_ids: Sequence[int]) -> Counter[str]:
    """Remove jobs that have ended badly; how many were removed."""
    return Counter(discarded=tuple_cursor(conn).execute(DISCARD_JOBS, (list(job_ids),)).fetchall()[0][0])


def purge_dead_letters(conn: Connection, limit: int, now: datetime | None = None) -> int:
    """Remove what has lain in the dead-letter queue for longer than it is kept; how many."""
    return int(tuple_cursor(conn).execute(PURGE_DEAD_LETTERS, (limit, now)).fetchall()[0][0])
