"""Retrying, moving, discarding and deleting, in every state, and twice."""

from __future__ import annotations

import psycopg
import pytest

import awa
from awa.errors import JobNotFound
from awa.postgres import Connection
from awa.rings import Ring
from awa.storage.cancel import cancel_job, delete_job
from awa.storage.complete import Ending
from awa.storage.dead_letters import dead_letter_jobs, discard_jobs, retry_jobs, select_ended
from tests.sql.conftest import Session
from tests.sql.engine import RUNTIME, claim, complete, fail, finalize, jobs, promote_all, read
from tests.sql.rings import assert_counts_are_exact, keep_nothing, prune, turn

STATES = (
    "available",
    "scheduled",
    "running",
    "leased",
    "waiting",
    "retryable",
    "completed",
    "stored",
    "failed",
    "cancelled",
    "dead_lettered",
)


def job_in(conn: Connection, client: awa.Client, state: str) -> int:
    """A job in a state, by the way that leads there; "leased" and "stored" run and have completed by a lease."""
    job_id = client.enqueue("keep" if state == "failed" else "work", {"n": state}, queue="q", max_attempts=2)
    if state == "available":
        return job_id
    if state == "cancelled":
        assert client.cancel(job_id)
        return job_id
    conn.execute("SELECT awa.set_dead_letter('keep', NULL, false)")
    batch = claim(conn)
    if state in {"leased", "stored"}:
        query = "SELECT awa.save_progress(%s, %s, %s, %s, 1::int2, '{}', NULL)"
        read(conn, query, (RUNTIME, batch.claim.claim_slot, batch.claim.claim_id, batch.token))
    endings = {
        "scheduled": Ending(batch.claim, 1, "snoozed", 60.0),
        "waiting": Ending(batch.claim, 1, "waiting", None),
        "retryable": fail(batch.claim, 1, delay_after=60),
        "failed": Ending(batch.claim, 1, "failed", None),
        "dead_lettered": Ending(batch.claim, 1, "failed", None),
        "stored": Ending(batch.claim, 1, "completed", result="1"),
    }
    if state == "completed":
        assert complete(conn, (batch.claim, None)) == []
    elif state in endings:
        assert finalize(conn, endings[state]) == []
    return job_id


@pytest.mark.parametrize("state", STATES)
def test_what_a_retry_says_of_each_state(conn: Connection, client: awa.Client, state: str) -> None:
    job_id = job_in(conn, client, state)
    before = client.get_job(job_id)
    assert before is not None
    expected = dict.fromkeys(("failed", "cancelled", "dead_lettered"), "retried")
    expected |= dict.fromkeys(("completed", "stored"), "completed")
    assert retry_jobs(conn, [job_id, job_id, 10**12]) == {job_id: expected.get(state, "unfinished"), 10**12: "unknown"}
    job = client.get_job(job_id)
    assert job is not None
    if expected.get(state) == "retried":
        assert (job.state, job.attempt, job.errors) == ("available", 0, before.errors)
        batch = claim(conn)
        assert batch.ids == [job_id]
        assert complete(conn, (batch.claim, [batch.claim.n])) == []  # before it lies what was cancelled, to be passed over
        assert client.queue_counts("q").completed == 1
    else:
        assert job == before
    assert_counts_are_exact(conn)


@pytest.mark.parametrize("how", ["function", "view"])
@pytest.mark.parametrize("state", STATES)
def test_a_job_is_deleted_whatever_it_does_and_only_once(conn: Connection, client: awa.Client, state: str, how: str) -> None:
    job_id = job_in(conn, client, state)
    if how == "function":
        assert delete_job(conn, job_id) == "deleted"
    else:
        assert conn.execute("DELETE FROM awa.jobs WHERE job_id = %s", (job_id,)).rowcount == 1
    assert client.get_job(job_id) is None
    assert read(conn, "SELECT count(*) FROM awa.jobs") == [(0,)]
    assert delete_job(conn, job_id) == "unknown"
    assert cancel_job(conn, job_id) == "unknown"
    assert retry_jobs(conn, [job_id]) == {job_id: "unknown"}
    with pytest.raises(JobNotFound):
        client.retry(job_id)
    assert claim(conn).ids == []
    assert read(conn, "SELECT count(*) FROM awa.claim_items WHERE outcome IS NULL") == [(0,)]
    assert promote_all(conn) == 0
    counts = client.queue_counts("q")
    assert (counts.available, counts.running, counts.completed, counts.failed, counts.cancelled, counts.dead_lettered) == (
        0,
    ) * 6
    assert_counts_are_exact(conn)


def test_the_late_ending_of_a_deleted_attempt_is_refused(conn: Connection, client: awa.Client) -> None:
    ids = client.enqueue_many(jobs(1, 2), kind="work", queue="q")
    batch = claim(conn)
    assert delete_job(conn, ids[0]) == "deleted"
    assert complete(conn, (batch.claim, None)) == [(batch.claim.claim_id, 1, "refused")]
    assert client.queue_counts("q").completed == 1


def test_a_deletion_by_condition_is_of_all_or_none(conn: Connection, client: awa.Client, session: Session) -> None:
    client.enqueue_many(jobs(*range(10)), kind="work", queue="q")
    batch = claim(conn, 4)
    assert complete(conn, (batch.claim, [1, 2])) == []
    own = session()
    assert complete(own, (batch.claim, [3])) == []  # holds the claim
    with pytest.raises(psycopg.errors.LockNotAvailable, match="is held by something else"):
        conn.execute("DELETE FROM awa.jobs WHERE queue = 'q'")
    assert read(conn, "SELECT count(*) FROM awa.jobs") == [(10,)]
    own.rollback()
    assert conn.execute("DELETE FROM awa.jobs WHERE queue = 'q' AND state = 'completed'").rowcount == 2
    assert conn.execute("DELETE FROM awa.jobs WHERE queue = 'q' RETURNING job_id").rowcount == 8
    assert read(conn, "SELECT count(*) FROM awa.jobs") == [(0,)]
    assert claim(conn).ids == []
    assert_counts_are_exact(conn)


def test_a_retried_job_outlives_the_slots_of_its_former_life(conn: Connection, client: awa.Client) -> None:
    keep_nothing(conn)
    job_id = job_in(conn, client, "dead_lettered")
    rings: tuple[Ring, Ring] = ("claim", "queue")
    for ring in rings:
        turn(conn, ring)
        assert prune(conn, ring) == {0: "pruned"}
    assert retry_jobs(conn, [job_id]) == {job_id: "retried"}
    batch = claim(conn)
    assert batch.ids == [job_id]
    assert complete(conn, (batch.claim, None)) == []
    assert_counts_are_exact(conn)


def test_only_failed_jobs_are_moved_and_only_what_ended_badly_is_discarded(conn: Connection, client: awa.Client) -> None:
    ids = {
        state: job_in(conn, client, state)
        for state in ("completed", "stored", "failed", "dead_lettered", "cancelled", "available")
    }
    assert dead_letter_jobs(conn, list(ids.values())) == {"moved": 1}
    assert select_ended(conn, "dead_lettered", queue="q") == [ids["failed"], ids["dead_lettered"]]
    assert select_ended(conn, "dead_lettered", kind="keep") == [ids["failed"]]
    assert select_ended(conn, "dead_lettered", after_job_id=ids["failed"]) == [ids["dead_lettered"]]
    assert discard_jobs(conn, list(ids.values())) == {"discarded": 3}
    assert {state for (state,) in read(conn, "SELECT state FROM awa.jobs")} == {"completed", "available"}
    assert_counts_are_exact(conn)
