"""Counters of ended jobs: what folds, checks and mends them, and what each lock is for."""

from __future__ import annotations

import itertools

import psycopg
import pytest

import awa
from awa.postgres import Connection
from awa.storage.complete import Ending
from awa.storage.counters import check_terminal_counters, fold_terminal_counts, rebuild_terminal_counters
from awa.storage.dead_letters import dead_letter_jobs, discard_jobs, purge_dead_letters, retry_jobs
from awa.storage.jobs import queue_counts
from tests.sql.conftest import Session
from tests.sql.engine import claim, complete, fail, finalize, jobs, read
from tests.sql.rings import (
    LATER,
    assert_counts_are_exact,
    keep_nothing,
    prune,
    rows_in,
    start,
    turn,
    wait_until_blocked,
)


def ended(conn: Connection, client: awa.Client) -> list[int]:
    """Ten jobs: four completed, two with a result, two failed, two dead-lettered, two cancelled; in that order."""
    client.enqueue_many(jobs(*range(6)), kind="work", queue="q", max_attempts=1)
    client.enqueue_many(jobs(*range(6, 10)), kind="keep", queue="q", max_attempts=1)
    conn.execute("SELECT awa.set_dead_letter('keep', NULL, false)")
    batch = claim(conn)
    done = batch.claim
    assert complete(conn, (done, [1, 2])) == []
    assert finalize(conn, *(Ending(done, item, "completed", result="1") for item in (3, 4))) == []
    assert finalize(conn, fail(done, 5), fail(done, 6), fail(done, 7), fail(done, 8)) == []
    assert finalize(conn, Ending(done, 9, "cancelled"), Ending(done, 10, "cancelled")) == []
    return batch.ids


def counted(conn: Connection) -> dict[str, int]:
    """The counters' sums by state."""
    totals: dict[str, int] = {}
    for count in check_terminal_counters(conn):
        totals[count.state] = totals.get(count.state, 0) + count.counted
    return totals


def test_whatever_happens_to_ended_jobs_is_counted(conn: Connection, client: awa.Client) -> None:
    ids = ended(conn, client)
    assert counted(conn) == {
        "failed": 2,
        "dead_lettered": 2,
        "cancelled": 2,
    }
    turn(conn, "claim")
    assert prune(conn, "claim") == {0: "retention"}
    assert counted(conn) == {"completed": 4, "failed": 2, "dead_lettered": 2, "cancelled": 2}
    assert retry_jobs(conn, [ids[4], ids[8]]) == {ids[4]: "retried", ids[8]: "retried"}
    assert counted(conn)["dead_lettered"] == 1
    assert dead_letter_jobs(conn, [ids[6]]) == {"moved": 1}
    assert counted(conn) | {"completed": 4} == {"completed": 4, "failed": 1, "dead_lettered": 2, "cancelled": 1}
    assert discard_jobs(conn, [ids[7], ids[9]]) == {"discarded": 2}
    assert purge_dead_letters(conn, 100, LATER) == 2
    assert {state: n for state, n in counted(conn).items() if n} == {"completed": 4}
    assert client.delete(ids[0])
    assert client.queue_counts("q").completed == 3
    assert_counts_are_exact(conn)


def test_in_every_order_of_rebuilds_deletions_and_folds_the_counters_are_exact(conn: Connection, client: awa.Client) -> None:
    steps = ("rebuild", "delete", "fold", "retry")
    for number, order in enumerate(itertools.permutations(steps)):
        queue = f"q{number}"
        ids = [client.enqueue("work", {"n": n}, queue=queue) for n in range(3)]
        assert all(client.cancel(job_id) for job_id in ids)
        for step in order:
            match step:
                case "rebuild":
                    rebuild_terminal_counters(conn)
                case "delete":
                    assert client.delete(ids[0])
                case "fold":
                    fold_terminal_counts(conn, 0)
                case "retry":
                    assert retry_jobs(conn, [ids[1]]) == {ids[1]: "retried"}
        assert_counts_are_exact(conn)
        counts = client.queue_counts(queue)
        assert (counts.cancelled, counts.available) == (1, 1), order


def test_a_fold_empties_the_deltas_and_changes_no_count(conn: Connection, client: awa.Client) -> None:
    ended(conn, client)
    before = counted(conn)
    assert fold_terminal_counts(conn, 1000) == 0
    assert fold_terminal_counts(conn, 0) == 1
    assert rows_in(conn, "queue_terminal_count_deltas") == 0
    assert counted(conn) == before
    assert_counts_are_exact(conn)
    assert fold_terminal_counts(conn, 0) == 0


def test_a_fold_waits_for_nobody_who_ends_jobs(conn: Connection, client: awa.Client, session: Session) -> None:
    """The lock on the deltas: what an open transaction has written is neither folded nor truncated."""
    ids = ended(conn, client)
    own = session()
    assert discard_jobs(own, [ids[9]]) == {"discarded": 1}
    assert fold_terminal_counts(conn, 0) == 0
    own.commit()
    assert fold_terminal_counts(conn, 0) == 1
    assert counted(conn)["cancelled"] == 1
    assert_counts_are_exact(conn)


def test_a_delta_that_is_committed_while_the_fold_waits_is_folded(
    dsn: str, conn: Connection, client: awa.Client, session: Session
) -> None:
    """The sum is a statement after the lock."""
    ids = ended(conn, client)
    own = session()
    assert discard_jobs(own, [ids[9]]) == {"discarded": 1}
    folding = start(dsn, lambda other: fold_terminal_counts(other, 0, 20.0))
    wait_until_blocked(conn, folding)
    own.commit()
    assert folding.value() == 1
    assert rows_in(conn, "queue_terminal_count_deltas") == 0
    assert counted(conn)["cancelled"] == 1
    assert_counts_are_exact(conn)


def test_nobody_folds_or_rebuilds_under_an_exact_read(conn: Connection, client: awa.Client, session: Session) -> None:
    ended(conn, client)
    reader = session()
    reader.execute("SELECT awa.share_prune_lock()")
    assert fold_terminal_counts(conn, 0) == 0
    with pytest.raises(psycopg.errors.LockNotAvailable, match="exact read"):
        rebuild_terminal_counters(conn)
    reader.rollback()
    assert fold_terminal_counts(conn, 0) == 1


def test_an_error_that_is_no_lock_ends_a_fold(conn: Connection, client: awa.Client) -> None:
    ended(conn, client)
    conn.execute("ALTER TABLE awa.queue_terminal_live_counts ADD CONSTRAINT disk_is_full CHECK (n < 0)")
    with pytest.raises(psycopg.errors.CheckViolation, match="disk_is_full"):
        fold_terminal_counts(conn, 0)
    conn.execute("ALTER TABLE awa.queue_terminal_live_counts DROP CONSTRAINT disk_is_full")
    assert_counts_are_exact(conn)


@pytest.mark.parametrize("what", ["fold", "rebuild"])
def test_a_fast_count_that_is_overtaken_counts_again(
    dsn: str, conn: Connection, client: awa.Client, session: Session, what: str
) -> None:
    """Its snapshot is older than the fold, and the deltas that it reads are gone."""
    ended(conn, client)
    keeper = session()
    if what == "fold":
        assert fold_terminal_counts(keeper, 0) == 1
    else:
        rebuild_terminal_counters(keeper)
    counting = start(dsn, lambda other: queue_counts(other, "q", exact=False)[0].cancelled)
    wait_until_blocked(conn, counting)
    keeper.commit()
    assert counting.value() == 2


def test_a_rebuild_mends_what_an_accident_has_done_and_says_what_it_was(conn: Connection, client: awa.Client) -> None:
    ended(conn, client)
    turn(conn, "claim")
    assert prune(conn, "claim") == {0: "retention"}
    conn.execute("UPDATE awa.queue_terminal_live_counts SET n = n + 7 WHERE ring = 'claim'")
    conn.execute("TRUNCATE awa.queue_terminal_count_deltas")
    drift = {count.state: count.drift for count in check_terminal_counters(conn)}
    assert drift == {"completed": 7, "failed": -2, "cancelled": -2, "dead_lettered": -2}
    assert {count.state: count.drift for count in rebuild_terminal_counters(conn)} == drift
    assert_counts_are_exact(conn)
    assert client.queue_counts("q", exact=False).completed == 4
    keep_nothing(conn)
    assert prune(conn, "claim") == {0: "pruned"}
    assert client.queue_counts("q").completed == 4


def test_a_rebuild_waits_for_whoever_has_written_a_delta(
    dsn: str, conn: Connection, client: awa.Client, session: Session
) -> None:
    """Lock, then count: an ending that is committed in between is counted."""
    ids = ended(conn, client)
    own = session()
    assert discard_jobs(own, [ids[9]]) == {"discarded": 1}
    with pytest.raises(psycopg.errors.LockNotAvailable):
        rebuild_terminal_counters(conn)
    rebuild = start(dsn, lambda other: rebuild_terminal_counters(other, 20.0))
    wait_until_blocked(conn, rebuild)
    own.commit()
    assert [count for count in rebuild.value() if count.drift] == []
    assert_counts_are_exact(conn)


def test_who_ends_jobs_during_a_rebuild_waits_and_is_counted_once(
    dsn: str, conn: Connection, client: awa.Client, session: Session
) -> None:
    """It waits for one slot's deltas while it holds their parent, and the rebuild does not wait for that."""
    ids = ended(conn, client)
    blocker = session()
    blocker.execute("LOCK TABLE awa.dlq_entries IN ACCESS EXCLUSIVE MODE")  # stops the rebuild at its count
    rebuild = start(dsn, lambda other: rebuild_terminal_counters(other, 20.0))
    wait_until_blocked(conn, rebuild)
    ending = start(dsn, lambda other: retry_jobs(other, [ids[9]]))
    wait_until_blocked(conn, ending)
    blocker.rollback()
    assert [count for count in rebuild.value() if count.drift] == []
    assert ending.value() == {ids[9]: "retried"}
    assert counted(conn)["cancelled"] == 1
    assert_counts_are_exact(conn)


def test_a_slot_that_is_proved_closed_during_a_rebuild_keeps_its_count(
    dsn: str, conn: Connection, client: awa.Client, session: Session
) -> None:
    ended(conn, client)
    turn(conn, "claim")
    blocker, closing = session(), session()
    assert read(closing, "SELECT awa.close_claim_slot(0::int2)") == [(True,)]
    blocker.execute("LOCK TABLE awa.dlq_entries IN ACCESS EXCLUSIVE MODE")  # would stop the rebuild after its snapshot
    rebuild = start(dsn, lambda other: rebuild_terminal_counters(other, 20.0))
    wait_until_blocked(conn, rebuild)
    closing.commit()
    blocker.rollback()
    assert [count for count in rebuild.value() if count.drift] == []
    assert client.queue_counts("q", exact=False).completed == 4
    assert_counts_are_exact(conn)
