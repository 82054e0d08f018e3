"""claim_jobs hands out jobs in causal order, each once, and waits for nobody's open transaction."""

from __future__ import annotations

from typing import Any

import psycopg

import awa
from tests.sql.conftest import Session
from tests.sql.engine import claim, claim_all, complete, jobs

Connection = psycopg.Connection[Any]


def test_jobs_come_in_the_order_of_their_transactions(conn: Connection, client: awa.Client) -> None:
    for n in range(5):
        client.enqueue("work", {"n": n}, queue="q")
    assert claim(conn).ns == [0, 1, 2, 3, 4]


def test_jobs_of_one_transaction_come_in_the_order_they_were_enqueued(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    caller = session()
    client.enqueue("work", {"n": 0}, queue="q", connection=caller)
    client.enqueue_many(jobs(1, 2, 3), kind="work", queue="q", connection=caller)
    client.enqueue("work", {"n": 4}, queue="q", connection=caller)
    client.enqueue_many_copy(jobs(*range(5, 105)), kind="work", queue="q", connection=caller)
    client.enqueue("work", {"n": 105}, queue="q", connection=caller)
    caller.commit()
    assert claim(conn, 1000).ns == list(range(106))


def test_of_two_open_transactions_the_one_that_wrote_first_goes_first(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    first, second = session(), session()
    client.enqueue("work", {"n": "first 1"}, queue="q", connection=first)
    client.enqueue("work", {"n": "second 1"}, queue="q", connection=second)
    client.enqueue("work", {"n": "first 2"}, queue="q", connection=first)
    client.enqueue("work", {"n": "second 2"}, queue="q", connection=second)
    second.commit()
    first.commit()
    assert claim(conn).ns == ["first 1", "first 2", "second 1", "second 2"]


def test_an_open_enqueue_blocks_neither_enqueues_nor_claims_nor_completions(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    caller = session()
    conn.execute("SET lock_timeout = '2s'")
    client.enqueue("work", {"n": "open"}, queue="q", connection=caller)
    client.enqueue("work", {"n": "other"}, queue="q")
    batch = claim(conn)
    assert batch.ns == ["other"]
    assert complete(conn, (batch.claim, None)) == []
    assert caller.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    assert client.queue_counts("q").available == 0
    caller.commit()
    assert claim(conn).ns == ["open"]


def test_a_rolled_back_enqueue_is_never_claimed(conn: Connection, client: awa.Client, session: Session) -> None:
    caller = session()
    client.enqueue("work", {"n": "gone"}, queue="q", connection=caller)
    client.enqueue("work", {"n": "before"}, queue="q")
    assert claim(conn).ns == ["before"]
    caller.rollback()
    client.enqueue("work", {"n": "after"}, queue="q")
    assert claim_all(conn) == ["after"]


def test_a_transaction_that_commits_after_later_ones_were_claimed_is_claimed_once_in_its_order(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    late = session()
    client.enqueue_many(jobs("late 1", "late 2"), kind="work", queue="q", connection=late)
    client.enqueue("work", {"n": "early 1"}, queue="q")
    assert claim(conn).ns == ["early 1"]
    client.enqueue("work", {"n": "late 3"}, queue="q", connection=late)
    late.commit()
    client.enqueue("work", {"n": "early 2"}, queue="q")
    assert claim(conn).ns == ["late 1", "late 2", "late 3", "early 2"]
    assert claim_all(conn) == []


def test_stragglers_come_in_the_order_they_began_whatever_the_order_they_commit(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    callers = [session() for _ in range(4)]
    for number, caller in enumerate(callers):
        client.enqueue_many(jobs(f"{number} a", f"{number} b"), kind="work", queue="q", connection=caller)
    client.enqueue("work", {"n": "early"}, queue="q")
    assert claim(conn).ns == ["early"]
    for number in (3, 0, 1):
        callers[number].commit()
    client.enqueue("work", {"n": "newer"}, queue="q")
    assert claim(conn).ns == ["0 a", "0 b", "1 a", "1 b", "3 a", "3 b", "newer"]
    callers[2].commit()
    assert claim(conn).ns == ["2 a", "2 b"]
    assert claim_all(conn) == []


def test_a_straggler_is_handed_out_piece_by_piece_when_it_is_larger_than_the_limit(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    first, second = session(), session()
    client.enqueue_many(jobs(*(f"first {n}" for n in range(10))), kind="work", queue="q", connection=first)
    client.enqueue_many(jobs(*(f"second {n}" for n in range(3))), kind="work", queue="q", connection=second)
    client.enqueue("work", {"n": "early"}, queue="q")
    assert claim(conn, 4).ns == ["early"]
    first.commit()
    second.commit()
    client.enqueue("work", {"n": "newer"}, queue="q")
    expected = [*(f"first {n}" for n in range(10)), *(f"second {n}" for n in range(3)), "newer"]
    sizes = []
    got: list[str] = []
    while batch := claim(conn, 4).ns:
        sizes.append(len(batch))
        got += batch
    assert got == expected
    assert sizes == [4, 4, 4, 2]


def test_what_commits_while_a_window_is_being_consumed_comes_after_the_window(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    late = session()
    client.enqueue("work", {"n": "late"}, queue="q", connection=late)
    client.enqueue_many(jobs(*range(5)), kind="work", queue="q")
    assert claim(conn, 2).ns == [0, 1]
    late.commit()
    client.enqueue("work", {"n": "newer"}, queue="q")
    assert claim_all(conn, 2) == [2, 3, 4, "late", "newer"]


def test_a_straggler_stays_one_through_many_claims(conn: Connection, client: awa.Client, session: Session) -> None:
    late = session()
    client.enqueue("work", {"n": "late"}, queue="q", connection=late)
    for n in range(5):
        client.enqueue("work", {"n": n}, queue="q")
        assert claim(conn).ns == [n]
    late.commit()
    assert claim_all(conn) == ["late"]


def test_a_transaction_that_wrote_elsewhere_first_is_a_straggler_too(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    conn.execute("CREATE TABLE business (id int)")
    late = session()
    late.execute("INSERT INTO business VALUES (1)")
    client.enqueue("work", {"n": "early"}, queue="q")
    assert claim(conn).ns == ["early"]
    client.enqueue("work", {"n": "late"}, queue="q", connection=late)
    late.commit()
    client.enqueue("work", {"n": "newer"}, queue="q")
    assert claim(conn).ns == ["late", "newer"]


def test_rows_of_rolled_back_savepoints_are_left_out(conn: Connection, client: awa.Client, session: Session) -> None:
    late = session()
    client.enqueue("work", {"n": 1}, queue="q", connection=late)
    client.enqueue("work", {"n": "early"}, queue="q")
    assert claim(conn).ns == ["early"]
    for n, keep in ((2, False), (3, True), (4, False), (5, True)):
        late.execute("SAVEPOINT here")
        client.enqueue("work", {"n": n}, queue="q", connection=late)
        late.execute("RELEASE here" if keep else "ROLLBACK TO here")
    client.enqueue("work", {"n": 6}, queue="q", connection=late)
    late.commit()
    assert claim_all(conn, 2) == [1, 3, 5, 6]


def test_an_old_writing_transaction_without_jobs_changes_nothing(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    conn.execute("CREATE TABLE business (id int)")
    old = session()
    old.execute("INSERT INTO business VALUES (1)")
    client.enqueue_many(jobs(*range(6)), kind="work", queue="q")
    assert claim_all(conn, 4) == list(range(6))
    old.commit()
    client.enqueue_many(jobs(6, 7), kind="work", queue="q")
    assert claim_all(conn, 1) == [6, 7]


def test_a_window_ends_where_its_snapshot_does_even_for_what_commits_before_it_is_read(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    slow = session()
    client.enqueue("work", {"n": "slow"}, queue="q", connection=slow)  # in progress in the snapshot, below its end
    client.enqueue("work", {"n": "fast"}, queue="q")
    ((snapshot, lane_id),) = conn.execute(
        "SELECT pg_current_snapshot()::text, (SELECT lane_id FROM awa.queue_lanes WHERE queue = 'q')"
    ).fetchall()
    slow.commit()
    rows = conn.execute(
        """
        SELECT w.args ->> 'n'
        FROM awa.window_ranges(%(lane)s, '1:1:', %(until)s, '0', 0) r,
             awa.window_rows(%(lane)s, %(until)s, r.from_xids, r.from_seqs, r.to_xids, NULL) w
        """,
        {"lane": lane_id, "until": snapshot},
    ).fetchall()
    assert rows == [("fast",)]  # slow is a straggler of the next window: here it would be handed out twice
    assert claim_all(conn) == ["slow", "fast"]
