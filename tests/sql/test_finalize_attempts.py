"""finalize_attempts: failed and released attempts, counted and refused as they should be."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from attrs import evolve

import awa
from awa.claim import ATTEMPT, RUN_LEASE
from awa.storage.complete import Ending
from awa.storage.promote import promote_due
from tests.sql.conftest import Session
from tests.sql.engine import RUNTIME, Batch, claim, claim_all, complete, fail, finalize, jobs, promote_all, read, writes

Connection = psycopg.Connection[Any]


@pytest.fixture
def batch(conn: Connection, client: awa.Client) -> Batch:
    """A claim of three jobs that may be tried twice."""
    client.enqueue_many(jobs(*range(3)), kind="work", queue="q", max_attempts=2)
    return claim(conn)


def seen(client: awa.Client, job_id: int) -> awa.Job:
    """The job, which must be there."""
    job = client.get_job(job_id)
    assert job is not None
    return job


def test_a_failed_attempt_waits_for_its_delay_and_counts(conn: Connection, client: awa.Client, batch: Batch) -> None:
    assert finalize(conn, fail(batch.claim, 1, delay_after=60)) == []
    job = seen(client, batch.ids[0])
    assert (job.state, job.attempt, job.run_lease, job.max_attempts) == ("retryable", 1, 1, 2)
    due_in = read(conn, "SELECT extract(epoch FROM run_at - now())::float8 FROM awa.deferred_jobs")[0][0]
    assert 50 < due_in <= 60.1
    assert promote_due(conn, 10) == 0
    assert promote_all(conn) == 1
    ((_, _, row),) = claim(conn).jobs
    assert (row[ATTEMPT], row[RUN_LEASE]) == (2, 2)


def test_a_failed_attempt_without_delay_is_due_at_once(conn: Connection, batch: Batch) -> None:
    assert finalize(conn, fail(batch.claim, 1)) == []
    assert promote_due(conn, 10) == 1
    assert claim(conn).ns == [0]


def test_the_last_attempt_that_fails_is_the_end_of_the_job(conn: Connection, client: awa.Client, batch: Batch) -> None:
    assert finalize(conn, fail(batch.claim, 1, message="first")) == []
    promote_all(conn)
    assert finalize(conn, fail(claim(conn).claim, 1, delay_after=60, message="last")) == []
    job = seen(client, batch.ids[0])
    assert (job.state, job.attempt, job.run_lease) == ("dead_lettered", 2, 2)
    assert job.finalized_at is not None
    assert job.claimed_at is not None
    assert [error["message"] for error in job.errors] == ["first", "last"]
    assert promote_all(conn) == 0
    assert claim_all(conn) == []


def test_a_single_attempt_fails_for_good(conn: Connection, client: awa.Client) -> None:
    job_id = client.enqueue("work", {"n": 0}, queue="q", max_attempts=1)
    assert finalize(conn, fail(claim(conn).claim, 1, delay_after=60)) == []
    assert seen(client, job_id).state == "dead_lettered"


def test_a_released_attempt_goes_back_at_once_and_does_not_count(conn: Connection, client: awa.Client, batch: Batch) -> None:
    assert finalize(conn, Ending(batch.claim, 2, "released")) == []
    job = seen(client, batch.ids[1])
    assert (job.state, job.attempt, job.run_lease) == ("available", 0, 1)
    again = claim(conn)
    assert again.ids == [batch.ids[1]]
    assert [(row[ATTEMPT], row[RUN_LEASE]) for _, _, row in again.jobs] == [(1, 2)]


def test_a_release_may_be_delayed(conn: Connection, client: awa.Client, batch: Batch) -> None:
    assert finalize(conn, Ending(batch.claim, 2, "released", 60)) == []
    job = seen(client, batch.ids[1])
    assert (job.state, job.attempt, job.run_lease) == ("scheduled", 0, 1)
    assert claim_all(conn) == []
    promote_all(conn)
    assert [(row[ATTEMPT], row[RUN_LEASE]) for _, _, row in claim(conn).jobs] == [(1, 2)]


def test_releases_never_use_up_attempts(conn: Connection, client: awa.Client) -> None:
    job_id = client.enqueue("work", {"n": 0}, queue="q", max_attempts=1)
    for delay_after in (0, 0, 5, 0):
        assert finalize(conn, Ending(claim(conn).claim, 1, "released", delay_after)) == []
        promote_all(conn)
    last = claim(conn)
    assert [(row[ATTEMPT], row[RUN_LEASE]) for _, _, row in last.jobs] == [(1, 5)]
    assert complete(conn, (last.claim, None)) == []
    assert seen(client, job_id).state == "completed"


def test_released_jobs_keep_their_order(conn: Connection, batch: Batch) -> None:
    endings = [Ending(batch.claim, item, "released") for item in (3, 1, 2)]
    assert finalize(conn, *endings) == []
    assert claim(conn).ns == [0, 1, 2]


def test_what_has_ended_cannot_end_again(conn: Connection, client: awa.Client, batch: Batch) -> None:
    assert complete(conn, (batch.claim, [1])) == []
    assert finalize(conn, fail(batch.claim, 2)) == []
    with writes(conn) as written:
        late = finalize(conn, fail(batch.claim, 1), Ending(batch.claim, 2, "released"))
    assert sorted(late) == [(batch.claim.claim_id, 1, "refused"), (batch.claim.claim_id, 2, "refused")]
    assert written == {}
    assert [seen(client, job_id).state for job_id in batch.ids] == ["completed", "retryable", "running"]


def test_an_ending_of_an_earlier_claim_of_the_same_job_is_refused(
    conn: Connection, client: awa.Client, batch: Batch
) -> None:
    assert finalize(conn, Ending(batch.claim, 1, "released")) == []
    again = claim(conn)
    assert finalize(conn, fail(batch.claim, 1)) == [(batch.claim.claim_id, 1, "refused")]
    assert complete(conn, (batch.claim, [1])) == [(batch.claim.claim_id, 1, "refused")]
    assert seen(client, batch.ids[0]).state == "running"
    assert complete(conn, (again.claim, None)) == []


@pytest.mark.parametrize("wrong", ["token", "claim_id", "claim_slot"])
def test_a_receipt_that_is_not_quite_right_is_refused(conn: Connection, batch: Batch, wrong: str) -> None:
    forged = evolve(batch.claim, **{wrong: getattr(batch.claim, wrong) + 1})
    with writes(conn) as written:
        assert finalize(conn, fail(forged, 1)) == [(forged.claim_id, 1, "refused")]
    assert written == {}


@pytest.mark.parametrize("item", [-1, 0, 4])
def test_an_item_the_claim_does_not_have_is_refused(conn: Connection, batch: Batch, item: int) -> None:
    with writes(conn) as written:
        assert finalize(conn, fail(batch.claim, item)) == [(batch.claim.claim_id, item, "refused")]
    assert written == {}


def test_another_runtime_s_attempt_is_refused(conn: Connection, batch: Batch) -> None:
    with writes(conn) as written:
        refused = finalize(conn, fail(batch.claim, 1), runtime_id=RUNTIME + 1)
    assert refused == [(batch.claim.claim_id, 1, "refused")]
    assert written == {}


def test_the_same_flush_again_is_accepted_and_writes_nothing(conn: Connection, batch: Batch) -> None:
    endings = [fail(batch.claim, 1), Ending(batch.claim, 2, "released"), Ending(batch.claim, 3, "released", 5)]
    assert finalize(conn, *endings, flush_id=99) == []
    with writes(conn) as written:
        assert finalize(conn, *endings, flush_id=99) == []
    assert written == {}


def test_the_first_of_a_completion_and_a_failure_wins(conn: Connection, client: awa.Client, batch: Batch) -> None:
    assert finalize(conn, fail(batch.claim, 1), flush_id=99) == []
    assert complete(conn, (batch.claim, [1, 2]), flush_id=99) == [(batch.claim.claim_id, 1, "refused")]
    assert finalize(conn, fail(batch.claim, 2), flush_id=99) == [(batch.claim.claim_id, 2, "refused")]
    assert [seen(client, job_id).state for job_id in batch.ids] == ["retryable", "completed", "running"]


def test_an_item_given_twice_in_one_flush_ends_once(conn: Connection, client: awa.Client, batch: Batch) -> None:
    assert finalize(conn, fail(batch.claim, 1), fail(batch.claim, 1)) == []
    assert read(conn, "SELECT count(*) FROM awa.deferred_jobs") == [(1,)]
    assert seen(client, batch.ids[0]).attempt == 1


def test_a_busy_claim_is_handed_back_and_the_others_are_ended(
    conn: Connection, client: awa.Client, batch: Batch, session: Session
) -> None:
    client.enqueue("work", {"n": "free"}, queue="q")
    free = claim(conn)
    handler = session()
    assert complete(handler, (batch.claim, [1])) == []
    refused = finalize(conn, fail(batch.claim, 2), fail(batch.claim, 3), fail(free.claim, 1))
    assert sorted(refused) == [(batch.claim.claim_id, 2, "busy"), (batch.claim.claim_id, 3, "busy")]
    assert seen(client, free.ids[0]).state == "retryable"
    handler.rollback()
    assert finalize(conn, fail(batch.claim, 2), fail(batch.claim, 3)) == []


def test_the_newest_ten_errors_are_kept(conn: Connection, client: awa.Client) -> None:
    job_id = client.enqueue("work", {"n": 0}, queue="q", tags=["a"], metadata={"who": "me"})
    for number in range(13):
        assert finalize(conn, fail(claim(conn).claim, 1, message=str(number))) == []
        promote_all(conn)
    job = seen(client, job_id)
    assert [error["message"] for error in job.errors] == [str(number) for number in range(3, 13)]
    assert (job.attempt, job.tags, job.metadata) == (13, ("a",), {"who": "me"})


def test_a_failure_without_an_error_keeps_the_payload(conn: Connection, client: awa.Client) -> None:
    job_id = client.enqueue("work", {"n": 0}, queue="q", tags=["a"])
    assert finalize(conn, Ending(claim(conn).claim, 1, "failed")) == []
    job = seen(client, job_id)
    assert (job.state, job.errors, job.tags) == ("retryable", (), ("a",))


def test_each_ending_writes_its_closure_and_its_job_and_nothing_else(conn: Connection, batch: Batch) -> None:
    with writes(conn) as written:
        finalize(conn, fail(batch.claim, 1), Ending(batch.claim, 2, "released"), Ending(batch.claim, 3, "released", 5))
    assert written == {"lease_claim_closures": (3, 0, 0), "deferred_jobs": (2, 0, 0), "ready_entries": (1, 0, 0)}


def test_a_snapshot_older_than_the_claim_lock_is_refused(batch: Batch, session: Session) -> None:
    handler = session()
    handler.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    with pytest.raises(psycopg.Error, match="READ COMMITTED") as refused:
        finalize(handler, fail(batch.claim, 1))
    assert refused.value.sqlstate == "AWA01"


def test_an_empty_flush_is_accepted(conn: Connection) -> None:
    assert finalize(conn) == []


@pytest.mark.parametrize("outcome", ['{"outcome":"bogus"}', '{"outcome":null}', '{"outcome":"failed","delay_after":-1}'])
def test_an_outcome_that_would_leave_the_job_nowhere_is_refused(conn: psycopg.Connection[Any], outcome: str) -> None:
    with pytest.raises(psycopg.Error, match="an outcome is completed, failed") as refused:
        conn.execute("SELECT awa.finalize_attempts(1, 1, %s::json)", (f"[{outcome}]",))
    assert refused.value.sqlstate == "AWA02"
