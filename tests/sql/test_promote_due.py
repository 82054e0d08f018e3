"""promote_due: deferred jobs become ready when they are due, in due order, each once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import awa
from awa.claim import ATTEMPT, RUN_LEASE
from awa.storage.promote import promote_due
from tests.sql.conftest import Session
from tests.sql.engine import claim, claim_all, fail, finalize, jobs, promote_all, read, rotate, writes
from tests.waiting import PATIENCE

Connection = psycopg.Connection[Any]

NOON = datetime(2100, 1, 1, 12, tzinfo=UTC)


def minutes(n: float) -> timedelta:
    """A span."""
    return timedelta(minutes=n)


def test_due_jobs_become_ready_in_due_order(conn: Connection, client: awa.Client) -> None:
    for n in (3, 1, 2, 5, 4):
        client.enqueue("work", {"n": n}, queue="q", run_at=NOON + minutes(n))
    assert claim_all(conn) == []
    assert promote_due(conn, 10, NOON + minutes(4)) == 4
    assert claim_all(conn) == [1, 2, 3, 4]
    assert client.queue_counts("q").scheduled == 1


def test_jobs_due_at_the_same_instant_keep_the_order_of_their_ids(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(*range(20)), kind="work", queue="q", run_at=NOON)
    assert promote_due(conn, 100, NOON) == 20
    assert claim(conn).ns == list(range(20))


def test_no_more_than_the_limit_are_promoted_and_the_earliest_first(conn: Connection, client: awa.Client) -> None:
    for n in (3, 1, 2, 0):
        client.enqueue("work", {"n": n}, queue="q", run_at=NOON + minutes(n))
    assert [promote_due(conn, 3, NOON + minutes(9)) for _ in range(3)] == [3, 1, 0]
    assert claim(conn).ns == [0, 1, 2, 3]


def test_a_job_is_not_due_an_instant_too_early(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 0}, queue="q", run_at=NOON)
    assert promote_due(conn, 10, NOON - timedelta(microseconds=1)) == 0
    assert promote_due(conn, 10, NOON) == 1


def test_nothing_due_writes_nothing(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 0}, queue="q", run_at=NOON)
    with writes(conn) as written:
        assert promote_due(conn, 10) == 0
    assert written == {}


def test_concurrent_callers_take_different_jobs(conn: Connection, client: awa.Client, session: Session) -> None:
    client.enqueue_many(jobs(*range(6)), kind="work", queue="q", run_at=NOON)
    first, second = session(), session()
    assert promote_due(first, 4, NOON) == 4
    assert promote_due(second, 4, NOON) == 2
    assert promote_due(conn, 4, NOON) == 0
    second.commit()
    assert claim(conn).ns == [4, 5]
    first.commit()
    assert claim(conn).ns == [0, 1, 2, 3]
    assert promote_all(conn) == 0


def test_a_rolled_back_promotion_leaves_its_jobs_for_the_next(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    client.enqueue_many(jobs(0, 1), kind="work", queue="q", run_at=NOON)
    caller = session()
    assert promote_due(caller, 10, NOON) == 2
    caller.rollback()
    assert promote_due(conn, 10, NOON) == 2
    assert claim_all(conn) == [0, 1]


def test_each_queue_with_a_promoted_job_is_woken_once(conn: Connection, client: awa.Client) -> None:
    for queue in ("a", "b", "c"):
        client.enqueue_many(jobs(0, 1), kind="work", queue=queue, run_at=NOON + minutes(queue == "c"))
    client.enqueue("work", queue="a", priority=1, run_at=NOON)
    conn.execute("LISTEN awa")
    assert promote_due(conn, 10, NOON) == 5
    woken = [(notify.channel, notify.payload) for notify in conn.notifies(timeout=PATIENCE, stop_after=2)]
    assert sorted(woken) == [("awa", "a"), ("awa", "b")]
    conn.execute("NOTIFY awa, 'end'")
    assert [notify.payload for notify in conn.notifies(timeout=PATIENCE, stop_after=1)] == ["end"]


def test_a_promoted_job_is_the_job_it_was(conn: Connection, client: awa.Client) -> None:
    job_id = client.enqueue(
        "work", {"n": 0}, queue="q", priority=3, max_attempts=7, run_at=NOON, tags=["t"], metadata={"m": [1]}
    )
    before = client.get_job(job_id)
    assert before is not None
    assert (before.state, before.run_at) == ("scheduled", NOON)
    promote_all(conn)
    after = client.get_job(job_id)
    assert after is not None
    assert after.state == "available"
    for name in ("id", "queue", "priority", "kind", "args", "attempt", "max_attempts", "run_lease", "run_at", "created_at"):
        assert getattr(after, name) == getattr(before, name), name
    assert (after.tags, after.metadata) == (("t",), {"m": [1]})


def test_a_retried_job_keeps_its_errors_attempts_and_epoch(conn: Connection, client: awa.Client) -> None:
    job_id = client.enqueue("work", {"n": 0}, queue="q", tags=["t"])
    for message in ("one", "two"):
        assert finalize(conn, fail(claim(conn).claim, 1, message=message)) == []
        assert promote_due(conn, 10) == 1
    job = client.get_job(job_id)
    assert job is not None
    assert (job.state, job.attempt, job.run_lease, job.tags) == ("available", 2, 2, ("t",))
    assert [error["message"] for error in job.errors] == ["one", "two"]
    assert [(row[ATTEMPT], row[RUN_LEASE]) for _, _, row in claim(conn).jobs] == [(3, 3)]


def test_promoted_jobs_land_in_the_slot_being_filled(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 0}, queue="q", run_at=NOON)
    rotate(conn, "queue")
    promote_all(conn)
    assert read(conn, "SELECT ready_slot FROM awa.ready_entries") == [(1,)]
    assert claim_all(conn) == [0]


@pytest.mark.parametrize("size", [1, 3])
def test_promotion_moves_rows_and_writes_nothing_else(conn: Connection, client: awa.Client, size: int) -> None:
    client.enqueue_many(jobs(*range(size)), kind="work", queue="q", run_at=NOON)
    with writes(conn) as written:
        assert promote_due(conn, 10, NOON) == size
    assert written == {"deferred_jobs": (0, 0, size), "ready_entries": (size, 0, 0)}
