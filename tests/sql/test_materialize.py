"""Attempts that get a lease because their claim slot was sealed long ago."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import awa
from awa.postgres import Connection
from awa.storage.rings import materialize_attempts
from tests.sql.conftest import Session
from tests.sql.engine import claim, complete, fail, finalize, jobs, read
from tests.sql.rings import LATER, stopped, turn


def test_only_open_attempts_of_slots_that_were_sealed_long_enough_ago(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(*range(6)), kind="work", queue="q")
    old = claim(conn, 4)
    assert complete(conn, (old.claim, [1])) == []
    assert finalize(conn, fail(old.claim, 2, delay_after=60)) == []
    assert materialize_attempts(conn, 100, now=LATER) == 0  # the slot is current
    turn(conn, "claim")
    claim(conn)
    sealed = datetime.now(UTC)
    assert materialize_attempts(conn, 100, now=sealed + timedelta(seconds=50)) == 0
    assert materialize_attempts(conn, 100, now=sealed + timedelta(seconds=61)) == 2
    assert read(conn, "SELECT job_id, state, deadline_at FROM awa.leases ORDER BY 1") == [
        (job_id, "running", None) for job_id in old.ids[2:]
    ]
    assert materialize_attempts(conn, 100, now=LATER) == 0
    assert client.queue_counts("q").running == 4


def test_a_lease_keeps_deadline_body_and_what_the_attempt_is(conn: Connection, client: awa.Client) -> None:
    job_id = client.enqueue("work", {"n": 1}, queue="q", tags=["t"], max_attempts=3)
    claim(conn, deadline_after=600)
    before = client.get_job(job_id)
    turn(conn, "claim")
    assert materialize_attempts(conn, 1, now=LATER) == 1
    assert client.get_job(job_id) == before
    assert read(
        conn, "SELECT l.deadline_at = b.deadline_at FROM awa.leases l JOIN awa.lease_claim_batches b USING (claim_id)"
    ) == [(True,)]


def test_it_is_bounded_and_the_oldest_come_first(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(*range(5)), kind="work", queue="q")
    first, second = claim(conn, 3), claim(conn, 2)
    turn(conn, "claim")
    assert materialize_attempts(conn, 2, now=LATER) == 2
    assert read(conn, "SELECT claim_id, item FROM awa.leases ORDER BY 2") == [
        (first.claim.claim_id, 1),
        (first.claim.claim_id, 2),
    ]
    assert materialize_attempts(conn, 100, now=LATER) == 3
    assert read(conn, "SELECT count(*) FROM awa.leases WHERE claim_id = %s", (second.claim.claim_id,)) == [(2,)]


def test_an_attempt_that_is_being_ended_stays_for_the_next_time(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    client.enqueue_many(jobs(1, 2, 3), kind="work", queue="q")
    busy, free = claim(conn, 2), claim(conn, 1)
    turn(conn, "claim")
    own = session()
    assert complete(own, (busy.claim, [1])) == []
    assert materialize_attempts(conn, 100, now=LATER) == 1
    assert read(conn, "SELECT claim_id FROM awa.leases") == [(free.claim.claim_id,)]
    own.commit()
    assert materialize_attempts(conn, 100, now=LATER) == 1


def test_an_attempt_that_ends_between_the_looks_gets_no_lease(dsn: str, conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 1}, queue="q")
    batch = claim(conn)
    turn(conn, "claim")
    with stopped(
        conn,
        dsn,
        "save_progress",
        "    IF NOT awa.try_lock_claim",
        lambda other: materialize_attempts(other, 100, now=LATER),
    ) as keeper:
        assert complete(conn, (batch.claim, None)) == []
    assert keeper.value() == 0
    assert client.queue_counts("q").completed == 1
    assert read(conn, "SELECT count(*) FROM awa.leases") == [(0,)]
