"""promote_own_jobs, next_own_job, end_own_job: the jobs of one's own open transaction, which tests run and claims never."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

from awa.claim import ClaimedRow
from awa.postgres import Connection, tuple_cursor
from awa.storage.complete import Ending

PROMOTE_OWN_JOBS: Final = "SELECT awa.promote_own_jobs(coalesce(%s::timestamptz, clock_timestamp()))"
NEXT_OWN_JOB: Final = """
    SELECT queue, priority, job_id, kind, args::text, attempt, max_attempts, run_lease,
           (extract(epoch FROM run_at - timestamptz '2000-01-01 00:00:00+00') * 1000000)::int8,
           (extract(epoch FROM created_at - timestamptz '2000-01-01 00:00:00+00') * 1000000)::int8,
           payload::text
    FROM awa.next_own_job(%s::text[], %s::int8[])
"""
END_OWN_JOB: Final = "SELECT awa.end_own_job(%s::int8, %s::jsonb)"
NEXT_CLAIM_ID: Final = "SELECT nextval('awa.claim_id_seq')"


def promote_own_jobs(conn: Connection, now: datetime | None = None) -> int:
    """Promote what the transaction has enqueued itself and is due at `now` (the server's clock by default); how many."""
    return int(tuple_cursor(conn).execute(PROMOTE_OWN_JOBS, (now,)).fetchall()[0][0])


def next_own_job(
    conn: Connection, queues: Sequence[str] | None = None, passed: Collection[int] = ()
) -> tuple[str, int, ClaimedRow] | None:
    """The next job that the transaction has enqueued itself: its queue, its priority, and its row as a claim would have it.

    Args:
        conn: in a transaction.
        queues: only of these.
        passed: ids of jobs that are not wanted, as those that run already.
    """
    rows = tuple_cursor(conn).execute(NEXT_OWN_JOB, (None if queues is None else list(queues), list(passed))).fetchall()
    if not rows:
        return None
    queue, priority, *row = rows[0]
    return queue, priority, (None, None, None, None, None, *row)


def end_own_job(
    conn: Connection, job_id: int, ending: Ending, *, began_at: datetime | None = None, said: dict[str, Any] | None = None
) -> str | None:
    """End an attempt of such a job; the verdict, or None when the transaction has no such job waiting.

    Args:
        conn: the same.
        job_id: from `next_own_job`.
        ending: how; its claim is only a name under which the job may wait for an answer.
        began_at: when the attempt began; `None` is now.
        said: its progress and checkpoint.
    """
    outcome: dict[str, Any] = {
        "outcome": ending.outcome,
        "delay_after": ending.delay_after,
        "error": ending.error,
        "result": ending.result,
        "claimed_at": None if began_at is None else began_at.isoformat(),
        "said": said,
    }
    if ending.claim.claim_id:
        outcome |= {"claim_id": ending.claim.claim_id, "token": ending.claim.token}
    if ending.follow_ups is not None:
        outcome["ready"], outcome["deferred"], outcome["notify"] = ending.follow_ups
    given = {name: value for name, value in outcome.items() if value is not None}
    verdict: str | None = tuple_cursor(conn).execute(END_OWN_JOB, (job_id, json.dumps(given))).fetchall()[0][0]
    return verdict


def next_claim_id(conn: Connection) -> int:
    """A number that no claim has, for the callback id of a job that was not claimed."""
    return int(tuple_cursor(conn).execute(NEXT_CLAIM_ID).fetchall()[0][0])
