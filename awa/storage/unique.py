"""enqueue_unique: jobs that want a key for themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from awa.clock import moved_now
from awa.plan import PlannedJob, Route
from awa.postgres import Connection, sibling, tuple_cursor

ENQUEUE_UNIQUE: Final = """
    SELECT place, job_id, is_new
    FROM awa.enqueue_unique(%s::json, %s::text[], coalesce(%s::timestamptz, clock_timestamp()))
"""
UNIQUE_HOLDERS: Final = (
    "SELECT place, holder FROM awa.unique_holders(%s::bytea[], coalesce(%s::timestamptz, clock_timestamp()))"
)
SWEEP_UNIQUE_CLAIMS: Final = "SELECT awa.sweep_unique_claims(%s::bytea, %s::int4)"


def enqueue_unique(
    conn: Connection,
    jobs: Sequence[PlannedJob],
    lanes: Mapping[Route, int],
    notify: Iterable[str] | None = None,
    *,
    prepare: bool = False,
) -> list[tuple[int, bool]]:
    """Enqueue jobs that have a unique key in the connection's transaction.

    Returns, in the order of `jobs`, the job's id and True, or the id of the key's holder and False.

    Args:
        conn: anybody's connection.
        jobs: planned jobs, each with `unique`.
        lanes: the lane of every route that occurs.
        notify: queues to wake at commit.
        prepare: the statement, on a connection of awa's own.
    """
    records = ",".join(_record(job, lanes) for job in jobs)
    parameters = (f"[{records}]", None if notify is None else list(notify), moved_now())
    rows = tuple_cursor(conn).execute(ENQUEUE_UNIQUE, parameters, prepare=prepare).fetchall()
    found = {row[0]: (row[1], row[2]) for row in rows}
    return [found[place] for place in range(1, len(jobs) + 1)]


def holders_since(conn: Connection, jobs: Mapping[int, PlannedJob]) -> dict[int, int]:
    """Who has the keys of `jobs` by now, by their places, whatever `conn`'s transaction sees of it.

    Above READ COMMITTED a key that was taken after the transaction's snapshot is a serialization failure where it should be
    a conflict. Nothing is found where it was another failure, or where the key has been released since, which is of no use
    to a transaction with that snapshot: then the failure stands.

    Args:
        conn: anybody's connection; the question is asked on another one.
        jobs: planned jobs with `unique`; those that would replace their holder, which cannot be done here, are passed over.
    """
    asked = [place for place, job in jobs.items() if job.unique is not None and job.unique.on_conflict != "replace"]
    if not asked:
        return {}
    keys = [claim.key for place in asked if (claim := jobs[place].unique) is not None]
    with sibling(conn) as other:
        rows = tuple_cursor(other).execute(UNIQUE_HOLDERS, (keys, moved_now())).fetchall()
    return {asked[place - 1]: holder for place, holder in rows}


def sweep_unique_claims(conn: Connection, after: bytes | None, limit: int) -> bytes | None:
    """Remove keys that belong to nobody, among the `limit` after `after`; where to go on, or None at the end."""
    found: bytes | None = tuple_cursor(conn, binary=True).execute(SWEEP_UNIQUE_CLAIMS, (after, limit)).fetchall()[0][0]
    return found


def _record(job: PlannedJob, lanes: Mapping[Route, int]) -> str:
    assert job.unique is not None
    rest = {
        "lane_id": lanes[job.route],
        "kind": job.kind,
        "max_attempts": job.max_attempts,
        "run_at": None if job.run_at is None else job.run_at.isoformat(),
        "deferred": job.deferred,
        "unique_key": job.unique.key.hex(),
        "period": job.unique.period,
        "states": job.unique.states,
        "replace": job.unique.on_conflict == "replace",
    }
    # Arguments and payload are JSON texts already.
    payload = "" if job.payload is None else f',"payload":{job.payload}'
    return f'{json.dumps(rest)[:-1]},"args":{job.args}{payload}}}'
