"""Completions are counted while their slot is filled: none is missed, none counted twice, and fast counts look at few."""

from __future__ import annotations

import psycopg
import pytest

import awa
from awa.postgres import Connection
from awa.storage.complete import Ending
from awa.storage.counters import check_terminal_counters, count_closed_claims, rebuild_terminal_counters
from awa.storage.jobs import queue_counts
from awa.testing import clear_jobs
from tests.sql.conftest import Session
from tests.sql.engine import claim, complete, fail, finalize, jobs, read, rotate
from tests.sql.rings import (
    assert_counts_are_exact,
    changed,
    completed,
    keep_nothing,
    prune,
    rows_in,
    start,
    stopped,
    turn,
    wait_until_blocked,
)


def counted(conn: Connection) -> int:
    """Completions that a fast count need not look at."""
    assert_counts_are_exact(conn)
    return sum(count.counted for count in check_terminal_counters(conn) if count.ring == "claim")


def rows_read(conn: Connection, tables: str) -> int:
    """Rows that a fast count reads of tables whose names match."""
    query = "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::int FROM pg_stat_xact_user_tables WHERE relname ~ %s"
    with conn.transaction():
        ((before,),) = read(conn, query, (tables,))
        queue_counts(conn, None, exact=False)
        return int(read(conn, query, (tables,))[0][0] - before)


def endings_looked_at(conn: Connection) -> int:
    """Rows of endings that a fast count reads; one for each claim that was completed at once."""
    return rows_read(conn, "^(receipt_completion_batches|lease_claim_closures)_")


def test_a_fast_count_reads_no_more_after_ten_times_the_history(conn: Connection, client: awa.Client) -> None:
    deleted = completed(conn, client, *range(3))
    read_then = []
    for claims in (20, 200):
        for n in range(claims):
            completed(conn, client, n)
        assert client.delete(deleted.pop())
        assert count_closed_claims(conn, 0) > 0
        queue_counts(conn, None, exact=False)
        conn.execute("ANALYZE awa.ready_entries, awa.lease_claim_batches, awa.receipt_completion_batches")
        read_then.append(rows_read(conn, "^(ready|lease|receipt|done|dlq)_"))
    assert read_then[1] <= read_then[0] + 2  # of the second deletion


def test_a_fast_count_looks_at_no_claim_that_is_counted(conn: Connection, client: awa.Client) -> None:
    for n in range(20):
        completed(conn, client, n, n)
    assert (counted(conn), endings_looked_at(conn)) == (0, 20)
    assert count_closed_claims(conn, 0) == 20
    assert (counted(conn), endings_looked_at(conn)) == (40, 0)
    completed(conn, client, 20)
    assert endings_looked_at(conn) == 1
    assert count_closed_claims(conn, 0) == 1
    assert (counted(conn), endings_looked_at(conn)) == (41, 0)
    assert count_closed_claims(conn, 0) == 0


def test_every_way_to_complete_is_counted_and_no_other_ending_is(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(*range(6)), kind="work", queue="q", max_attempts=1)
    taken = claim(conn).claim
    assert complete(conn, (taken, [1, 2])) == []
    assert finalize(conn, Ending(taken, 3, "completed", result="1"), fail(taken, 4), Ending(taken, 5, "cancelled")) == []
    assert finalize(conn, Ending(taken, 6, "released")) == []
    assert count_closed_claims(conn, 0) == 1
    assert counted(conn) == 3
    counts = client.queue_counts("q", exact=False)
    assert (counts.completed, counts.dead_lettered, counts.cancelled, counts.available) == (3, 1, 1, 1)


def test_an_open_claim_stops_no_other_and_is_counted_when_it_ends(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(1, 2), kind="work", queue="q")
    slow = claim(conn).claim
    assert complete(conn, (slow, [1])) == []
    completed(conn, client, 3, 4)
    assert count_closed_claims(conn, 0) == 1
    assert counted(conn) == 2
    assert client.queue_counts("q", exact=False).running == 1
    completed(conn, client, 5)
    assert count_closed_claims(conn, 0) == 1
    assert endings_looked_at(conn) == 1  # of the half that has ended
    assert complete(conn, (slow, [2])) == []
    assert client.queue_counts("q", exact=False).completed == 5
    assert count_closed_claims(conn, 0) == 1
    assert (counted(conn), endings_looked_at(conn)) == (5, 0)


def test_few_claims_are_left_for_the_fast_count_to_look_at(conn: Connection, client: awa.Client) -> None:
    for n in range(3):
        completed(conn, client, n)
    assert (count_closed_claims(conn, 3), count_closed_claims(conn, 2)) == (0, 3)
    client.enqueue_many(jobs(*range(3)), kind="work", queue="q")
    open_ones = [claim(conn, 1).claim for _ in range(3)]
    assert count_closed_claims(conn, 2) == 0  # remembered
    for one in open_ones:
        assert complete(conn, (one, None)) == []
    assert (count_closed_claims(conn, 3), count_closed_claims(conn, 2)) == (0, 3)
    assert counted(conn) == 6


def test_a_claim_with_a_smaller_id_that_is_not_committed_is_not_passed_by(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    client.enqueue("work", {"n": 1}, queue="other")
    late = session()
    taken = claim(late, queue="other").claim
    completed(conn, client, 2)
    assert count_closed_claims(conn, 0) == 0
    late.commit()
    assert complete(conn, (taken, None)) == []
    assert count_closed_claims(conn, 0) == 2
    assert counted(conn) == 2


def test_a_claim_that_commits_while_the_lanes_are_waited_for_is_counted(
    dsn: str, conn: Connection, client: awa.Client, session: Session
) -> None:
    client.enqueue("work", {"n": 1}, queue="other")
    late = session()
    taken = claim(late, queue="other").claim
    completed(conn, client, 2)
    with changed(conn, "wait_lock_lane", **{"'10ms'": "'20s'"}):
        counting = start(dsn, lambda other: count_closed_claims(other, 0))
        wait_until_blocked(conn, counting)
        late.commit()
        assert counting.value() == 1
    assert complete(conn, (taken, None)) == []
    assert count_closed_claims(conn, 0) == 1
    assert counted(conn) == 2


def test_a_claim_that_comes_while_the_lanes_are_waited_for_is_left_for_the_next_time(
    dsn: str, conn: Connection, client: awa.Client, session: Session
) -> None:
    """It may overtake one with a smaller id on a lane that was free."""
    completed(conn, client, 1)
    own = session()
    assert read(own, "SELECT awa.try_lock_lane(7)") == [(True,)]
    client.enqueue("work", {"n": 2}, queue="other")
    with changed(conn, "wait_lock_lane", **{"'10ms'": "'20s'"}):
        counting = start(dsn, lambda other: count_closed_claims(other, 0))
        wait_until_blocked(conn, counting)
        late = session()
        taken = claim(late, queue="other").claim
        completed(conn, client, 3)
        own.rollback()
        assert counting.value() == 1
    late.commit()
    assert complete(conn, (taken, None)) == []
    assert count_closed_claims(conn, 0) == 2
    assert counted(conn) == 3


def test_two_that_count_at_once_count_each_claim_once(
    dsn: str, conn: Connection, client: awa.Client, session: Session
) -> None:
    client.enqueue("work", {"n": 0}, queue="q")
    slow = claim(conn).claim
    completed(conn, client, 1)
    assert count_closed_claims(conn, 0) == 1
    assert complete(conn, (slow, None)) == []
    completed(conn, client, 2)
    first = session()
    assert count_closed_claims(first, 0) == 2
    with changed(conn, "count_closed_claims", **{"'10ms'": "'20s'"}):
        second = start(dsn, lambda other: count_closed_claims(other, 0))
        wait_until_blocked(conn, second)
        first.commit()
        assert second.value() == 0
    assert counted(conn) == 3


def test_who_is_not_first_waits_for_nobody(conn: Connection, client: awa.Client, session: Session) -> None:
    completed(conn, client, 1)
    first = session()
    assert count_closed_claims(first, 0) == 1
    assert count_closed_claims(conn, 0) == 0
    first.commit()
    assert counted(conn) == 1


def test_an_error_that_is_no_lock_ends_the_counting(conn: Connection, client: awa.Client) -> None:
    completed(conn, client, 1)
    conn.execute("ALTER TABLE awa.queue_terminal_live_counts ADD CONSTRAINT disk_is_full CHECK (n < 0)")
    with pytest.raises(psycopg.errors.CheckViolation, match="disk_is_full"):
        count_closed_claims(conn, 0)
    conn.execute("ALTER TABLE awa.queue_terminal_live_counts DROP CONSTRAINT disk_is_full")
    assert count_closed_claims(conn, 0) == 1


def test_a_slot_that_is_proved_closed_adds_what_was_not_counted(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 1}, queue="q")
    slow = claim(conn).claim
    completed(conn, client, 2, 3)
    assert count_closed_claims(conn, 0) == 1
    completed(conn, client, 4)
    assert complete(conn, (slow, None)) == []
    turn(conn, "claim")
    assert prune(conn, "claim") == {0: "retention"}
    assert (counted(conn), endings_looked_at(conn)) == (4, 0)
    assert count_closed_claims(conn, 0) == 0
    keep_nothing(conn)
    assert prune(conn, "claim") == {0: "pruned"}
    assert (counted(conn), client.queue_counts("q", exact=False).completed) == (0, 4)


def test_a_slot_that_is_filled_again_is_counted_from_its_beginning(conn: Connection, client: awa.Client) -> None:
    keep_nothing(conn)
    completed(conn, client, 1)
    turn(conn, "claim")
    assert prune(conn, "claim") == {0: "pruned"}
    for _ in range(8):
        completed(conn, client, 2)
        turn(conn, "claim")
        prune(conn, "claim")
    completed(conn, client, 3)
    assert counted(conn) == 0
    assert count_closed_claims(conn, 0) == 1
    assert counted(conn) == 1
    assert client.queue_counts("q", exact=False).completed == 10


def test_claims_of_a_slot_that_was_sealed_with_an_open_item_are_counted(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 1}, queue="q")
    slow = claim(conn).claim
    completed(conn, client, 2)
    rotate(conn, "claim")
    completed(conn, client, 3)
    assert count_closed_claims(conn, 0) == 2
    assert (counted(conn), endings_looked_at(conn)) == (2, 0)
    assert complete(conn, (slow, None)) == []
    assert count_closed_claims(conn, 0) == 1
    assert counted(conn) == 3


def test_a_rebuild_between_the_look_and_the_count_changes_nothing(
    dsn: str, conn: Connection, client: awa.Client, session: Session
) -> None:
    completed(conn, client, 1, 2)
    assert count_closed_claims(conn, 0) == 1
    completed(conn, client, 3)
    counting, blocker = session(), session()
    assert count_closed_claims(counting, 0) == 1
    blocker.execute("LOCK TABLE awa.dlq_entries IN ACCESS EXCLUSIVE MODE")  # would stop the rebuild after its snapshot
    rebuild = start(dsn, lambda other: rebuild_terminal_counters(other, 20.0))
    wait_until_blocked(conn, rebuild)
    counting.commit()
    blocker.rollback()
    assert [count for count in rebuild.value() if count.drift] == []
    assert counted(conn) == 3


def test_a_rebuild_mends_the_counts_of_a_slot_in_use(conn: Connection, client: awa.Client) -> None:
    completed(conn, client, 1, 2)
    assert count_closed_claims(conn, 0) == 1
    completed(conn, client, 3)
    conn.execute("DELETE FROM awa.queue_terminal_live_counts")
    assert [count.drift for count in rebuild_terminal_counters(conn)] == [-2]
    assert counted(conn) == 2


def test_a_deleted_completion_is_left_out_of_counts_that_have_it(conn: Connection, client: awa.Client) -> None:
    ids = completed(conn, client, 1, 2)
    assert count_closed_claims(conn, 0) == 1
    assert client.delete(ids[0])
    assert counted(conn) == 2
    assert client.queue_counts("q", exact=False).completed == 1
    assert rows_in(conn, "receipt_completion_tombstones") == 1


def test_a_count_that_is_overtaken_by_the_proof_keeps_the_proof_s_mark(
    dsn: str, conn: Connection, client: awa.Client
) -> None:
    completed(conn, client, 1)
    add = "v_counted := v_counted + awa.add_claim_counts"
    with stopped(conn, dsn, "count_closed_claims", add, lambda other: count_closed_claims(other, 0)) as counting:
        completed(conn, client, 2)
        turn(conn, "claim")
        assert prune(conn, "claim") == {0: "retention"}
    assert counting.value() == 0
    assert (counted(conn), endings_looked_at(conn)) == (2, 0)


def test_a_slot_that_was_cleared_is_counted_when_it_is_filled_again(conn: Connection, client: awa.Client) -> None:
    """Proved closed and then emptied by a test's hand, which no prune knows of."""
    completed(conn, client, 1)
    turn(conn, "claim")
    assert prune(conn, "claim") == {0: "retention"}
    clear_jobs(client)
    keep_nothing(conn)
    for n in range(9):
        completed(conn, client, n)
        assert_counts_are_exact(conn)
        turn(conn, "claim")
        prune(conn, "claim")
    assert client.queue_counts("q").completed == 9


@pytest.mark.parametrize("what", ["count", "close", "prune", "fold", "rebuild"])
def test_no_snapshot_but_a_new_one_proves_anything(
    conn: Connection, client: awa.Client, session: Session, what: str
) -> None:
    keep_nothing(conn)
    completed(conn, client, 1)
    client.enqueue("work", {"n": 2}, queue="q", max_attempts=1)
    assert finalize(conn, fail(claim(conn).claim, 1)) == []
    call = {
        "count": "SELECT awa.count_closed_claims(0)",
        "close": "SELECT awa.close_claim_slot(0::int2)",
        "prune": "SELECT awa.prune_ring('claim')",
        "fold": "SELECT awa.fold_terminal_counts(0)",
        "rebuild": "SELECT awa.rebuild_terminal_counters()",
    }[what]
    if what in ("close", "prune"):
        turn(conn, "claim")
    if what == "prune":
        assert read(conn, "SELECT awa.close_claim_slot(0::int2)") == [(True,)]
    old = session()
    old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with pytest.raises(psycopg.DatabaseError, match="needs READ COMMITTED, not REPEATABLE READ") as refused:
        old.execute(call.encode())
    assert refused.value.sqlstate == "AWA01"
    assert rows_in(conn, "lease_claim_batches") == 2


def test_counting_beside_many_endings_looks_at_those_of_its_claims_only(conn: Connection, client: awa.Client) -> None:
    """An index that begins with the slot is searched by the slot, too: older servers would read it whole for each claim."""
    client.enqueue_many(jobs(*range(5000)), kind="work", queue="q")
    many = claim(conn, 5000).claim
    assert finalize(conn, *(Ending(many, item, "cancelled") for item in range(1, 5000))) == []
    for n in range(20):
        completed(conn, client, n)
    conn.execute("SET enable_bitmapscan = off")
    reads = "SELECT idx_blks_read + idx_blks_hit FROM pg_statio_user_tables WHERE relname = 'lease_claim_closures_0'"
    conn.execute("SELECT pg_stat_force_next_flush()")
    ((before,),) = read(conn, reads)
    assert count_closed_claims(conn, 0) == 20
    conn.execute("SELECT pg_stat_force_next_flush()")
    ((after,),) = read(conn, reads)
    assert after - before < 200
