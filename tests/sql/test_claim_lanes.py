"""claim_jobs over several lanes: urgency, busy lanes and saved cursors."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

import awa
from tests.sql.conftest import Session
from tests.sql.engine import claim, claim_all, complete, jobs, read, rotate
from tests.waiting import wait_for

Connection = psycopg.Connection[Any]


def ago(seconds: float) -> datetime:
    """An instant in the past."""
    return datetime.now(UTC) - timedelta(seconds=seconds)


def test_one_claim_takes_from_several_lanes_most_urgent_first(conn: Connection, client: awa.Client) -> None:
    for priority in (3, 1, 4, 2):
        client.enqueue_many(jobs(f"{priority} a", f"{priority} b"), kind="work", queue="q", priority=priority)
    batch = claim(conn, 7)
    assert batch.ns == ["1 a", "1 b", "2 a", "2 b", "3 a", "3 b", "4 a"]
    assert [(c.priority, c.n) for c in batch.claims] == [(1, 2), (2, 2), (3, 2), (4, 1)]
    assert claim_all(conn) == ["4 b"]


def test_a_lane_whose_head_has_waited_rises_by_a_priority_a_minute(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": "2 fresh"}, queue="q", priority=2)
    client.enqueue("work", {"n": "4 waited"}, queue="q", priority=4, run_at=ago(185))
    client.enqueue("work", {"n": "3 waited less"}, queue="q", priority=3, run_at=ago(50))
    assert claim(conn).ns == ["4 waited", "2 fresh", "3 waited less"]


def test_of_two_lanes_that_reached_the_same_priority_the_longer_waiting_goes_first(
    conn: Connection, client: awa.Client
) -> None:
    client.enqueue("work", {"n": "2, 10 s"}, queue="q", priority=2, run_at=ago(10))
    client.enqueue("work", {"n": "3, 65 s"}, queue="q", priority=3, run_at=ago(65))
    client.enqueue("work", {"n": "4, 130 s"}, queue="q", priority=4, run_at=ago(130))
    assert claim(conn).ns == ["4, 130 s", "3, 65 s", "2, 10 s"]


def test_nothing_rises_above_the_first_priority(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": "1, 400 s"}, queue="q", priority=1, run_at=ago(400))
    client.enqueue("work", {"n": "2, 300 s"}, queue="q", priority=2, run_at=ago(300))
    client.enqueue("work", {"n": "4, 500 s"}, queue="q", priority=4, run_at=ago(500))
    assert claim(conn).ns == ["4, 500 s", "1, 400 s", "2, 300 s"]


def test_how_fast_lanes_rise_is_a_setting_of_the_database(conn: Connection, client: awa.Client) -> None:
    conn.execute("UPDATE awa.queue_meta SET priority_aging_after = 3600")
    client.enqueue("work", {"n": "fresh"}, queue="q", priority=1)
    client.enqueue("work", {"n": "waited"}, queue="q", priority=4, run_at=ago(185))
    assert claim(conn).ns == ["fresh", "waited"]


def test_a_busy_lane_is_passed_over_for_the_next(conn: Connection, client: awa.Client, session: Session) -> None:
    client.enqueue_many(jobs("1 a", "1 b"), kind="work", queue="q", priority=1)
    client.enqueue_many(jobs("2 a", "2 b"), kind="work", queue="q", priority=2)
    other = session()
    assert claim(other, 1).ns == ["1 a"]
    assert claim(conn).ns == ["2 a", "2 b"]
    other.commit()
    assert claim(conn).ns == ["1 b"]


def test_when_every_lane_is_busy_a_claim_waits_a_moment_and_then_returns_nothing(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    client.enqueue_many(jobs("1 a", "1 b"), kind="work", queue="q", priority=1)
    client.enqueue_many(jobs("2 a", "2 b"), kind="work", queue="q", priority=2)
    other = session()
    assert claim(other, 3).ns == ["1 a", "1 b", "2 a"]
    started = time.monotonic()
    assert claim(conn).ns == []
    assert 0.009 < time.monotonic() - started < 5
    other.rollback()
    assert claim(conn).ns == ["1 a", "1 b", "2 a", "2 b"]


def test_a_claim_in_a_caller_s_transaction_survives_a_busy_lane(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    client.enqueue_many(jobs(0, 1), kind="work", queue="q")
    other, caller = session(), session()
    assert claim(other, 1).ns == [0]
    assert claim(caller).ns == []
    assert read(caller, "SHOW lock_timeout") == [("5s",)]
    other.commit()
    assert claim(caller).ns == [1]
    caller.commit()
    assert claim(conn).ns == []


def test_a_claim_that_waited_for_its_lane_sees_what_the_previous_claim_took(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    conn.execute("ALTER FUNCTION awa.wait_lock_lane SET lock_timeout = '20s'")
    client.enqueue_many(jobs(0, 1, 2), kind="work", queue="q")
    first, second = session(), session()
    assert claim(first, 2).ns == [0, 1]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(claim, second)
        pid = second.info.backend_pid
        wait_for(
            lambda: read(conn, "SELECT 1 FROM pg_locks WHERE pid = %s AND locktype = 'advisory' AND NOT granted", (pid,)),
            what="the second claim waits for the lane",
        )
        first.commit()
        assert waiting.result().ns == [2]


def test_a_lane_made_inside_an_open_transaction_is_there_for_other_producers(
    conn: Connection, client: awa.Client, session: Session, dsn: str
) -> None:
    caller, other = session(), session()
    client.enqueue("work", {"n": "open"}, queue="brand new", connection=caller)
    with awa.Client(dsn) as another_process:
        another_process.enqueue("work", {"n": "other"}, queue="brand new", connection=other)
    other.commit()
    assert claim(conn, queue="brand new").ns == ["other"]
    caller.commit()
    assert claim(conn, queue="brand new").ns == ["open"]
    assert read(conn, "SELECT count(*) FROM awa.queue_lanes") == [(1,)]


def save_head(conn: Connection) -> None:
    """Keep the lane's cursor as a prune does before it truncates the claims that carry it."""
    conn.execute(
        "INSERT INTO awa.queue_claim_heads SELECT l.lane_id, c.* FROM awa.queue_lanes l, awa.lane_cursor(l.lane_id) c"
        " ON CONFLICT (lane_id) DO UPDATE SET claim_id = excluded.claim_id, s_prev = excluded.s_prev,"
        " s_cur = excluded.s_cur, pos_xid = excluded.pos_xid, pos_seq = excluded.pos_seq"
    )


def prune_claim_slot(conn: Connection, slot: int) -> None:
    """Truncate a claim slot in which everything has ended, and nothing else."""
    save_head(conn)
    conn.execute(f"TRUNCATE awa.lease_claim_batches_{slot}, awa.receipt_completion_batches_{slot}".encode())


def test_a_saved_cursor_newer_than_an_older_claim_row_is_preferred(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(*range(6)), kind="work", queue="q")
    assert claim(conn, 2).ns == [0, 1]  # stays open in slot 0
    rotate(conn, "claim")
    newer = claim(conn, 2)
    assert newer.ns == [2, 3]
    assert complete(conn, (newer.claim, None)) == []
    prune_claim_slot(conn, newer.claim.claim_slot)
    assert read(conn, "SELECT n FROM awa.lease_claim_batches") == [(2,)]
    assert claim_all(conn, 10) == [4, 5]


def test_a_claim_row_newer_than_the_saved_cursor_is_preferred(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(*range(6)), kind="work", queue="q")
    assert claim(conn, 2).ns == [0, 1]
    save_head(conn)
    assert claim(conn, 2).ns == [2, 3]
    assert claim_all(conn, 10) == [4, 5]


def test_no_job_comes_back_when_all_claims_of_its_lane_are_pruned(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(*range(4)), kind="work", queue="q")
    done = claim(conn, 3)
    assert complete(conn, (done.claim, None)) == []
    rotate(conn, "claim")
    prune_claim_slot(conn, done.claim.claim_slot)
    assert read(conn, "SELECT count(*) FROM awa.lease_claim_batches") == [(0,)]
    assert claim_all(conn) == [3]
    client.enqueue("work", {"n": "new"}, queue="q")
    assert claim_all(conn) == ["new"]
