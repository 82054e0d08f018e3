"""Whom a prune waits for and whom it makes wait: its locks, and the reads that it overtakes."""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest

import awa
from awa.postgres import Connection
from awa.rings import PRUNE_ORDER, RINGS, Ring
from awa.storage.complete import Ending
from awa.storage.jobs import get_job, queue_counts
from awa.storage.rings import prune_ring
from tests.sql.conftest import Session
from tests.sql.engine import claim, complete, finalize, jobs, read
from tests.sql.rings import (
    LATER,
    MUCH_LATER,
    Call,
    assert_counts_are_exact,
    completed,
    keep_nothing,
    progress,
    prune,
    said,
    start,
    turn,
    wait_until_blocked,
)

USED_TABLES = {"queue": "ready_entries", "claim": "lease_claim_closures", "lease": "leases", "terminal": "done_entries"}


def one_of_everything(conn: Connection, client: awa.Client) -> None:
    """A row in the first slot of each ring, which is sealed and may be pruned, the queue ring's after the claim ring's."""
    keep_nothing(conn)
    completed(conn, client, 1)
    client.enqueue("work", {"n": 2}, queue="q")
    progress(conn, claim(conn))
    assert client.cancel(client.enqueue("work", {"n": 3}, queue="q"))
    claim(conn)
    for each in PRUNE_ORDER:
        turn(conn, each)


# -- guards: locks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("mode", ["ACCESS SHARE", "ROW EXCLUSIVE"])
def test_whoever_uses_the_slot_holds_it_and_nothing_queues_behind_the_prune(
    conn: Connection, client: awa.Client, session: Session, ring: Ring, mode: str
) -> None:
    one_of_everything(conn, client)
    if ring == "queue":
        assert prune(conn, "claim", now=LATER) == {0: "pruned"}
    other = session()
    other.execute(f"LOCK TABLE awa.{USED_TABLES[ring]}_0 IN {mode} MODE".encode())
    took = []
    for _ in range(5):
        began = time.monotonic()
        assert prune(conn, ring, now=MUCH_LATER) == {0: "locked"}
        took.append(time.monotonic() - began)
    assert min(took) < 0.03, took  # the budget is 10 ms; the machine may be busy, but not always
    assert read(conn, "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'") == [(0,)]
    other.rollback()
    assert prune(conn, ring, now=MUCH_LATER) == {0: "pruned"}
    assert_counts_are_exact(conn)


def test_the_budget_is_for_all_tables_together(conn: Connection, client: awa.Client, session: Session, dsn: str) -> None:
    keep_nothing(conn)
    completed(conn, client, 1)
    turn(conn, "claim")
    first, second = session(), session()
    first.execute("LOCK TABLE awa.lease_claim_batches_0 IN ACCESS SHARE MODE")
    second.execute("LOCK TABLE awa.lease_claim_closures_0 IN ACCESS SHARE MODE")
    pruner = start(dsn, lambda other: _timed(other, 3.0))
    wait_until_blocked(conn, pruner)
    read(conn, "SELECT pg_sleep(2)")  # of the three seconds
    first.rollback()
    verdict, took = pruner.value()
    assert verdict == {0: "locked"}
    assert took < 4.5


def _timed(conn: Connection, budget: float) -> tuple[dict[int, str], float]:
    began = time.monotonic()
    verdict = said(prune_ring(conn, "claim", lock_budget=budget))
    return verdict, time.monotonic() - began


@pytest.mark.parametrize("ring", RINGS)
def test_a_slot_that_cannot_even_be_looked_at_is_locked(
    conn: Connection, client: awa.Client, session: Session, ring: Ring
) -> None:
    one_of_everything(conn, client)
    other = session()
    other.execute(f"LOCK TABLE awa.{USED_TABLES[ring]}_0 IN ACCESS EXCLUSIVE MODE".encode())
    conn.execute("SET statement_timeout = '5s'")
    assert prune(conn, ring, now=MUCH_LATER) == {0: "locked"}


def test_a_slot_that_is_held_is_not_locked(conn: Connection, client: awa.Client, session: Session) -> None:
    client.enqueue("work", {"n": 1}, queue="q")
    turn(conn, "queue")
    reader = session()
    reader.execute("LOCK TABLE awa.ready_entries_0 IN ACCESS SHARE MODE")
    assert prune(conn, "queue") == {0: "jobs wait in it"}


def test_whoever_says_something_of_a_slot_keeps_nobody_from_looking_at_it(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    client.enqueue("work", {"n": 1}, queue="q")
    turn(conn, "queue")
    other = session()
    other.execute("UPDATE awa.ring_slots SET held_since = now() WHERE ring = 'queue' AND slot = 0")
    assert prune(conn, "queue") == {0: "jobs wait in it"}


@pytest.mark.parametrize(
    ("ring", "table", "check", "then"),
    [
        pytest.param("claim", "queue_terminal_live_counts", "n < 0", "pruned", id="the proof"),
        pytest.param("claim", "queue_terminal_rollups", "n < 0", "pruned", id="the prune of claims"),
        pytest.param("terminal", "queue_terminal_rollups", "n < 0", "pruned", id="the prune of endings"),
        pytest.param("queue", "ring_slots", "held_reason IS NULL", "jobs wait in it", id="the reason"),
    ],
)
def test_an_error_that_is_no_lock_is_raised(
    conn: Connection, client: awa.Client, ring: Ring, table: str, check: str, then: str
) -> None:
    keep_nothing(conn)
    completed(conn, client, 1)
    assert client.cancel(client.enqueue("work", {"n": 2}, queue="q"))
    client.enqueue("work", {"n": 3}, queue="q")
    turn(conn, ring)
    conn.execute(f"ALTER TABLE awa.{table} ADD CONSTRAINT disk_is_full CHECK ({check})".encode())
    with pytest.raises(psycopg.errors.CheckViolation, match="disk_is_full"):
        prune(conn, ring, now=LATER)
    conn.execute(f"ALTER TABLE awa.{table} DROP CONSTRAINT disk_is_full".encode())
    assert prune(conn, ring, now=LATER) == {0: then}
    assert_counts_are_exact(conn)


def test_tables_of_the_slot_that_are_empty_cost_the_catalog_nothing(conn: Connection, client: awa.Client) -> None:
    keep_nothing(conn)
    completed(conn, client, 1)
    turn(conn, "claim")
    query = (
        "SELECT name, pg_relation_filenode(('awa.' || name || '_0')::regclass) FROM unnest(awa.ring_tables('claim')) name"
    )
    before = dict(read(conn, query))
    assert prune(conn, "claim") == {0: "pruned"}
    after = dict(read(conn, query))
    assert {name for name in before if before[name] != after[name]} == {"lease_claim_batches", "receipt_completion_batches"}


def test_a_lease_whose_claim_is_being_ended_does_not_move(dsn: str, conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 1}, queue="q")
    batch = claim(conn)
    progress(conn, batch)
    turn(conn, "lease")
    with psycopg.connect(dsn) as ending:
        assert read(ending, "SELECT awa.try_lock_claim(%s)", (batch.claim.claim_id,)) == [(True,)]  # and has not looked yet
        assert prune(conn, "lease") == {0: "its attempts are being ended"}
        ending.rollback()
    assert prune(conn, "lease") == {0: "pruned"}
    assert complete(conn, (batch.claim, [1])) == []


def test_an_ending_that_meets_a_lease_on_its_way_is_not_refused(dsn: str, conn: Connection, client: awa.Client) -> None:
    """What the claim lock is for: the ending's snapshot is older than the move, its look at the slot is younger."""
    client.enqueue("work", {"n": 1}, queue="q")
    batch = claim(conn)
    progress(conn, batch)
    turn(conn, "lease")
    with psycopg.connect(dsn) as blocker:
        blocker.execute("LOCK TABLE awa.dlq_entries IN ACCESS EXCLUSIVE MODE")  # the ending has its claim, and waits here
        ending = start(dsn, lambda other: finalize(other, Ending(batch.claim, 1, "snoozed", 60.0)))
        wait_until_blocked(conn, ending)
        verdict = prune(conn, "lease")
        blocker.rollback()
    assert ending.value() == []
    assert verdict in ({0: "its attempts are being ended"}, {0: "locked"})
    assert client.queue_counts("q").scheduled == 1


def test_endings_that_change_while_a_terminal_slot_is_locked_hold_it(dsn: str, conn: Connection, client: awa.Client) -> None:
    keep_nothing(conn)
    ids = client.enqueue_many(jobs(1, 2), kind="work", queue="q")
    assert all(client.cancel(job_id) for job_id in ids)
    turn(conn, "terminal")
    with psycopg.connect(dsn) as discarding:
        assert read(discarding, "SELECT awa.discard_jobs(ARRAY[%s]::int8[])", (ids[0],)) == [(1,)]
        pruner = start(dsn, lambda other: said(prune_ring(other, "terminal", lock_budget=20.0)))
        wait_until_blocked(conn, pruner)
        discarding.commit()
    assert pruner.value() == {0: "its endings change"}
    assert prune(conn, "terminal") == {0: "pruned"}
    assert client.queue_counts("q").cancelled == 1
    assert_counts_are_exact(conn)


def test_nobody_prunes_under_an_exact_read(conn: Connection, client: awa.Client, session: Session) -> None:
    keep_nothing(conn)
    completed(conn, client, 1)
    turn(conn, "claim")
    reader = session()
    reader.execute("SELECT awa.share_prune_lock()")
    assert prune(conn, "claim") == {0: "an exact read is under way"}
    assert read(reader, "SELECT state FROM awa.jobs") == [("completed",)]
    reader.rollback()
    assert prune(conn, "claim") == {0: "pruned"}


def test_an_exact_count_waits_for_a_prune_that_is_under_way_and_says_what_is_true_then(
    dsn: str, conn: Connection, client: awa.Client, session: Session
) -> None:
    keep_nothing(conn)
    completed(conn, client, 1, 2)
    turn(conn, "claim")
    pruner = session()
    assert said(prune_ring(pruner, "claim")) == {0: "pruned"}  # and does not commit
    counting = start(dsn, lambda other: queue_counts(other, "q")[0].completed)
    wait_until_blocked(conn, counting)
    pruner.commit()
    assert counting.value() == 2


# -- guards: reads that a prune overtakes ------------------------------------------------------------------------------


def test_a_job_that_moved_under_the_look_is_found(dsn: str, conn: Connection, client: awa.Client, session: Session) -> None:
    client.enqueue("work", {"n": 1}, queue="q")
    batch = claim(conn)
    progress(conn, batch)
    turn(conn, "lease")
    pruner = session()
    assert said(prune_ring(pruner, "lease")) == {0: "pruned"}  # the lease has moved, and nobody knows yet
    looks: dict[str, Call[Any]] = {
        "get_job": start(dsn, lambda other: getattr(get_job(other, batch.ids[0]), "state", None)),
        "end_job": start(dsn, lambda other: read(other, "SELECT awa.cancel_job(%s)", (batch.ids[0],))),
    }
    for call in looks.values():
        wait_until_blocked(conn, call)
    pruner.commit()
    assert looks["end_job"].value() in ([("cancelled",)], [("busy",)])
    assert looks["get_job"].value() in ("running", "cancelled")


@pytest.mark.parametrize("look", ["end_external", "ended_elsewhere", "fast", "retire"])
def test_a_look_that_a_prune_overtakes_looks_again(
    dsn: str, conn: Connection, client: awa.Client, session: Session, look: str
) -> None:
    client.enqueue("work", {"n": 1}, queue="q")
    batch = claim(conn)
    progress(conn, batch)
    if look == "end_external":
        assert finalize(conn, Ending(batch.claim, 1, "waiting", None)) == []
    turn(conn, "lease")
    pruner = session()
    assert said(prune_ring(pruner, "lease")) == {0: "pruned"}
    queries = {
        "end_external": ('SELECT awa.end_external(%s, NULL, NULL, NULL, \'{"outcome": "completed"}\')', (batch.ids[0],)),
        "ended_elsewhere": (
            "SELECT claim_id FROM awa.ended_elsewhere(ARRAY[%s]::int2[], ARRAY[%s]::int8[], ARRAY[1]::int2[])",
            (batch.claim.claim_slot, batch.claim.claim_id),
        ),
        "fast": ("SELECT running FROM awa.queue_counts('q', false, 100)", ()),
        "retire": ("SELECT awa.retire_runtime(4711)", ()),
    }
    call = start(dsn, lambda other: read(other, *queries[look]))
    wait_until_blocked(conn, call)
    pruner.commit()
    # Whoever ends an attempt may find its claim locked for the moment in which the pruner's locks go, one after the other.
    right = {"end_external": [("accepted",)], "ended_elsewhere": [], "fast": [(1,)], "retire": [("",)]}[look]
    assert call.value() in ((right, [("busy",)]) if look == "end_external" else (right,))
    if look == "retire":  # the lease is somebody's: so the runtime is to be rescued, not forgotten
        assert read(conn, "SELECT dead_at IS NOT NULL FROM awa.runtime_instances WHERE runtime_id = 4711") == [(True,)]


def test_a_job_without_a_body_that_ends_between_two_looks_is_not_unknown(
    dsn: str, conn: Connection, client: awa.Client
) -> None:
    """Its lease is all there is, and it becomes a scheduled job after the look there and before the look at leases."""
    keep_nothing(conn)
    job_id = client.enqueue("work", {"n": 1}, queue="q")
    batch = claim(conn)
    progress(conn, batch)
    rings: tuple[Ring, Ring] = ("claim", "queue")
    for ring in rings:
        turn(conn, ring)
        assert prune(conn, ring) == {0: "pruned"}
    with psycopg.connect(dsn) as ending:
        ending.execute("LOCK TABLE awa.dlq_entries IN ACCESS EXCLUSIVE MODE")
        cancel = start(dsn, lambda other: read(other, "SELECT awa.cancel_job(%s)", (job_id,)))
        wait_until_blocked(conn, cancel)  # it has looked at deferred jobs
        assert finalize(ending, Ending(batch.claim, 1, "snoozed", 60.0)) == []
        ending.commit()
    assert cancel.value() == [("cancelled",)]
