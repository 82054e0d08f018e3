"""claim_jobs: its limits and guards, what it writes, and how a lost answer is asked for again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

import awa
from awa.claim import ATTEMPT, MAX_ATTEMPTS, RUN_LEASE
from awa.storage.claim import claim_jobs, random_id
from awa.storage.complete import Ending
from tests.sql.conftest import Session
from tests.sql.engine import RUNTIME, Batch, claim, claim_all, complete, finalize, jobs, read, redeliver, rotate, writes

Connection = psycopg.Connection[Any]


def facts(batch: Batch) -> list[tuple[Any, ...]]:
    """Everything a worker learns from a claim."""
    return [(c.claim_slot, c.claim_id, c.token, c.priority, c.claimed_at, c.n, item, row[5:]) for c, item, row in batch.jobs]


def claim_rows(conn: Connection) -> int:
    """How many claims are on record."""
    return int(read(conn, "SELECT count(*) FROM awa.lease_claim_batches")[0][0])


@pytest.mark.parametrize("backlog", [4, 5, 6, 10, 11])
def test_a_backlog_around_the_limit_is_handed_out_exactly(conn: Connection, client: awa.Client, backlog: int) -> None:
    client.enqueue_many(jobs(*range(backlog)), kind="work", queue="q")
    for taken in range(0, backlog, 5):
        assert claim(conn, 5).ns == list(range(taken, min(taken + 5, backlog)))
    assert claim(conn, 5).ns == []
    client.enqueue("work", {"n": "new"}, queue="q")
    assert claim_all(conn, 5) == ["new"]


def test_the_limit_may_cut_a_transaction_anywhere(conn: Connection, client: awa.Client) -> None:
    for batch in (jobs(0, 1, 2), jobs(3), jobs(4, 5)):
        client.enqueue_many(batch, kind="work", queue="q")
    assert [claim(conn, limit).ns for limit in (1, 2, 1, 1, 5)] == [[0], [1, 2], [3], [4], [5]]


@pytest.mark.parametrize("limit", [-1, 0, 32768, 2_000_000_000])
def test_a_limit_out_of_range_is_refused(conn: Connection, client: awa.Client, limit: int) -> None:
    client.enqueue("work", {"n": 0}, queue="q")
    with pytest.raises(psycopg.Error, match="between 1 and 32767") as refused:
        claim(conn, limit)
    assert refused.value.sqlstate == "AWA02"
    assert claim(conn, 32767).ns == [0]


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
def test_a_snapshot_older_than_the_lane_lock_is_refused(
    conn: Connection, client: awa.Client, session: Session, level: psycopg.IsolationLevel
) -> None:
    client.enqueue("work", {"n": 0}, queue="q")
    caller = session()
    caller.isolation_level = level
    with pytest.raises(psycopg.Error, match="READ COMMITTED") as refused:
        claim(caller)
    assert refused.value.sqlstate == "AWA01"
    caller.rollback()
    assert claim(conn).ns == [0]


def test_an_unknown_and_an_empty_queue_hand_out_nothing_and_write_nothing(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 0}, queue="q")
    claim(conn)
    with writes(conn) as written:
        assert claim(conn).ns == []
        assert claim(conn, queue="never heard of").ns == []
    assert written == {}


def test_a_claim_writes_one_row_whatever_its_size(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(*range(50)), kind="work", queue="q")
    with writes(conn) as written:
        assert len(claim(conn).ns) == 50
    assert written == {"lease_claim_batches": (1, 0, 0)}


def test_a_rolled_back_claim_leaves_its_jobs_for_the_next(conn: Connection, client: awa.Client, session: Session) -> None:
    client.enqueue_many(jobs(*range(6)), kind="work", queue="q")
    assert claim(conn, 2).ns == [0, 1]
    caller = session()
    lost = claim(caller, 3)
    assert lost.ns == [2, 3, 4]
    caller.rollback()
    again = claim(conn, 3)
    assert again.ns == [2, 3, 4]
    assert [row[RUN_LEASE] for _, _, row in again.jobs] == [1, 1, 1]
    assert complete(conn, (lost.claim, None)) == [(lost.claim.claim_id, None, "refused")]
    assert claim_all(conn) == [5]


def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 0}, queue="q")
    client.enqueue("work", {"n": "other"}, queue="other")
    client.pause_queue("q")
    client.pause_queue("q")
    client.enqueue("work", {"n": 1}, queue="q")
    assert claim(conn).ns == []
    assert claim(conn, queue="other").ns == ["other"]
    assert client.queue_counts("q").paused
    assert client.queue_counts("q").available == 2
    client.resume_queue("q")
    assert claim(conn).ns == [0, 1]
    assert not client.queue_counts("q").paused


def test_running_jobs_of_a_paused_queue_may_end(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 0}, queue="q")
    batch = claim(conn)
    client.pause_queue("q")
    assert complete(conn, (batch.claim, None)) == []
    assert client.queue_counts("q").completed == 1


def test_every_job_carries_its_attempt_and_a_new_run_lease(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 0}, queue="q", max_attempts=7)
    ((_, item, row),) = claim(conn).jobs
    assert (item, row[ATTEMPT], row[MAX_ATTEMPTS], row[RUN_LEASE]) == (1, 1, 7, 1)


def test_a_deadline_is_counted_from_the_claim_and_shared_by_its_jobs(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(0, 1), kind="work", queue="q")
    ((spans, shared),) = read(
        conn,
        "SELECT extract(epoch FROM min(deadline_at) - min(claimed_at))::float8, count(deadline_at)"
        " FROM awa.claim_jobs('q', 10, 4711, 2, 30)",
    )
    assert spans == pytest.approx(30)
    assert shared == 1
    assert read(conn, "SELECT deadline_at - claimed_at FROM awa.lease_claim_batches") == [(timedelta(seconds=30),)]


def test_jobs_of_both_sides_of_a_rotation_are_claimed_in_order(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(0, 1), kind="work", queue="q")
    rotate(conn, "queue")
    client.enqueue_many(jobs(2, 3), kind="work", queue="q")
    assert claim(conn, 3).ns == [0, 1, 2]
    rotate(conn, "claim")
    assert claim(conn).ns == [3]
    assert read(conn, "SELECT claim_slot, ready_slots FROM awa.lease_claim_batches ORDER BY claim_id") == [(0, 3), (1, 2)]


def test_a_lost_answer_is_delivered_again_as_it_was(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(0, 1, 2), kind="work", queue="q", priority=1)
    client.enqueue_many(jobs(3, 4), kind="work", queue="q", priority=3, tags=["kept"])
    lost = claim(conn)
    client.enqueue("work", {"n": 5}, queue="q")
    claim(conn)
    assert len(lost.claims) == 2
    assert facts(redeliver(conn, lost.token)) == facts(lost)
    assert facts(redeliver(conn, lost.token, after=lost.claims[0].claim_id - 1)) == facts(lost)


def test_only_the_very_call_of_the_very_runtime_is_delivered_again(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(0, 1), kind="work", queue="q")
    lost = claim(conn)
    assert redeliver(conn, random_id()).ns == []
    assert redeliver(conn, lost.token, runtime_id=RUNTIME + 1).ns == []
    assert redeliver(conn, lost.token, after=lost.claim.claim_id).ns == []


def test_a_call_that_never_committed_is_not_delivered_again(conn: Connection, client: awa.Client, session: Session) -> None:
    client.enqueue("work", {"n": 0}, queue="q")
    caller = session()
    lost = claim(caller)
    assert lost.ns == [0]
    caller.rollback()
    assert redeliver(conn, lost.token).ns == []


def test_a_job_that_was_claimed_before_is_delivered_again_with_its_newest_body(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 0}, queue="q")
    assert finalize(conn, Ending(claim(conn).claim, 1, "released")) == []
    second = claim(conn)
    assert [row[RUN_LEASE] for _, _, row in second.jobs] == [2]
    assert facts(redeliver(conn, second.token)) == facts(second)


def test_the_rows_of_a_claim_name_it_once(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(0, 1, 2), kind="work", queue="q")
    rows = claim_jobs(conn, "q", 10, RUNTIME, 1)
    assert [row[0] is None for row in rows] == [False, True, True]
    assert claim_rows(conn) == 1
