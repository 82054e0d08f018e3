"""What the worker's tests share."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

import awa
from awa.job import Job
from awa.postgres import connect
from tests.waiting import wait_for


def job_in_state(client: awa.Client, job_id: int, state: str) -> Job:
    """The job, once it is in that state."""

    def look() -> Job | None:
        job = client.get_job(job_id)
        return job if job is not None and job.state == state else None

    found = wait_for(look, what=f"job {job_id} {state}")
    assert found is not None
    return found


def wait_for_counts(client: awa.Client, queue: str, **states: int) -> awa.QueueCounts:
    """The queue's counts, once they have these numbers."""
    last = client.queue_counts(queue)

    def look() -> bool:
        nonlocal last
        last = client.queue_counts(queue)
        return all(getattr(last, state) == n for state, n in states.items())

    wait_for(look, what=f"{states} in {queue}")
    return last


def terminate(conn: psycopg.Connection[tuple[object, ...]], names: Iterable[str]) -> int:
    """Terminate this database's backends of these application names; how many there were."""
    return len(
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = ANY (%s)",
            (list(names),),
        ).fetchall()
    )


def handed_out_twice(dsn: str) -> list[tuple[object, ...]]:
    """Every (job_id, run_lease) that two claims gave out, and every item that ended twice."""
    with connect(dsn, "awa test") as conn:
        return conn.execute(
            """
            SELECT 'lease', job_id, run_lease::int8 FROM awa.claim_items GROUP BY 1, 2, 3
            HAVING count(DISTINCT (claim_id, item)) > 1
            UNION ALL
            SELECT 'item', claim_id, item::int8 FROM awa.claim_items GROUP BY 1, 2, 3 HAVING count(*) > 1
            """
        ).fetchall()
