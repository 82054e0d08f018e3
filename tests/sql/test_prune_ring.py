"""What is pruned, what holds a slot, and what each gate of a prune is for.

`make guards` takes the guards away, one after the other, and sees a test fail.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg

import awa
from awa.postgres import Connection
from awa.rings import PRUNE_ORDER, RINGS
from awa.storage.claim import random_id
from awa.storage.complete import Completion, Ending, complete_jobs, not_accepted
from awa.storage.dead_letters import discard_jobs
from awa.storage.rings import materialize_attempts, prune_ring
from tests.sql.conftest import Session
from tests.sql.engine import RUNTIME, claim, claim_all, complete, fail, finalize, jobs, read, writes
from tests.sql.rings import (
    LATER,
    MUCH_LATER,
    assert_counts_are_exact,
    changed,
    completed,
    keep_nothing,
    progress,
    prune,
    rows_in,
    said,
    start,
    stopped,
    turn,
    wait_until_blocked,
)

HELD_BY_NAME = "its jobs' claims are kept"
LOOKED = "    RETURN NULL;\nEND"
"""The end of slot_hold_reason for a slot that may go."""


# -- what becomes of a slot --------------------------------------------------------------------------------------------


def test_an_idle_ring_is_left_alone(conn: Connection) -> None:
    with writes(conn) as written:
        for ring in RINGS:
            assert prune(conn, ring, now=MUCH_LATER) == {}
    assert written == {}


def test_the_current_slot_is_never_pruned(conn: Connection, client: awa.Client) -> None:
    keep_nothing(conn)
    completed(conn, client, 1)
    for ring in PRUNE_ORDER:
        assert prune(conn, ring, now=MUCH_LATER) == {}


def test_claims_go_when_their_time_is_over_and_bodies_after_them(conn: Connection, client: awa.Client) -> None:
    ids = completed(conn, client, *range(5))
    turn(conn, "claim")
    turn(conn, "queue")
    closed = datetime.now(UTC)
    assert prune(conn, "claim", now=closed) == {0: "retention"}
    assert prune(conn, "queue", now=closed) == {0: HELD_BY_NAME}
    assert prune(conn, "claim", now=closed + timedelta(seconds=3599)) == {0: "retention"}
    assert client.get_job(ids[0]) is not None
    assert prune(conn, "claim", now=closed + timedelta(seconds=3601)) == {0: "pruned"}
    assert client.get_job(ids[0]) is None
    assert prune(conn, "queue", now=closed) == {0: "pruned"}
    assert rows_in(conn, "ready_entries") == rows_in(conn, "lease_claim_batches") == 0
    assert client.queue_counts("q").completed == 5
    assert_counts_are_exact(conn)


def test_history_that_is_too_large_goes_before_its_time(conn: Connection, client: awa.Client) -> None:
    conn.execute("UPDATE awa.storage_settings SET history_max_bytes = 1048576")
    for _ in range(8):
        client.enqueue_many(jobs(*range(1000)), kind="work", queue="q")
        for _ in range(100):
            assert complete(conn, (claim(conn, 10).claim, list(range(1, 10)))) == []
    turn(conn, "claim")
    while batch := read(conn, "SELECT claim_slot, claim_id, token FROM awa.unfinished_claims"):
        for slot, claim_id, token in batch:
            conn.execute(
                "SELECT awa.complete_jobs(4711, 1, ARRAY[%s]::int2[], ARRAY[%s::int8], ARRAY[%s::int8], ARRAY['{10}'])",
                (slot, claim_id, token),
            )
    assert read(conn, "SELECT awa.history_bytes() > 1048576") == [(True,)]
    assert prune(conn, "claim") == {0: "pruned"}


def test_an_open_item_keeps_its_claim_slot_and_no_other(conn: Connection, client: awa.Client) -> None:
    keep_nothing(conn)
    client.enqueue_many(jobs(1, 2), kind="work", queue="q")
    open_ = claim(conn, 2).claim
    assert complete(conn, (open_, [1])) == []
    turn(conn, "claim")
    completed(conn, client, 3)
    turn(conn, "claim")
    assert prune(conn, "claim") == {0: "attempts are open", 1: "pruned"}
    assert read(
        conn, "SELECT held_reason, held_since IS NOT NULL FROM awa.ring_slots WHERE ring = 'claim' AND slot = 0"
    ) == [("attempts are open", True)]
    assert complete(conn, (open_, [2])) == []
    assert prune(conn, "claim") == {0: "pruned"}
    assert read(conn, "SELECT held_reason, closed_at FROM awa.ring_slots WHERE ring = 'claim' AND slot = 0") == [
        (None, None)
    ]
    assert_counts_are_exact(conn)


def test_a_reason_keeps_the_time_since_when(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 1}, queue="q")
    turn(conn, "queue")
    assert prune(conn, "queue", now=LATER) == {0: "jobs wait in it"}
    with writes(conn) as written:
        assert prune(conn, "queue", now=MUCH_LATER) == {0: "jobs wait in it"}
    assert written == {}
    assert read(conn, "SELECT held_since = %s FROM awa.ring_slots WHERE ring = 'queue' AND slot = 0", (LATER,)) == [(True,)]


def test_what_is_to_be_skipped_is_not_looked_at(conn: Connection, client: awa.Client) -> None:
    keep_nothing(conn)
    completed(conn, client, 1)
    turn(conn, "claim")
    assert said(prune_ring(conn, "claim", skip=[0])) == {}
    assert prune(conn, "claim") == {0: "pruned"}


def test_a_paused_queues_jobs_keep_their_slot_while_others_turn(conn: Connection, client: awa.Client) -> None:
    keep_nothing(conn)
    client.enqueue("work", {"n": "paused"}, queue="paused")
    client.pause_queue("paused")
    for n in range(20):
        completed(conn, client, n)
        turn(conn, "claim")
        turn(conn, "queue")
        assert "pruned" in prune(conn, "claim").values()
        assert "pruned" in prune(conn, "queue").values() or n == 0
    assert read(conn, "SELECT sum(prunes) >= 38 FROM awa.ring_slots") == [(True,)]
    client.resume_queue("paused")
    assert claim_all(conn, queue="paused") == ["paused"]
    assert_counts_are_exact(conn)


def test_live_leases_move_and_what_they_left_behind_goes(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(*range(6)), kind="work", queue="q")
    batch = claim(conn)
    for item in range(1, 7):
        progress(conn, batch, item)
    turn(conn, "lease")
    assert finalize(conn, *(Ending(batch.claim, item, "completed") for item in (1, 2, 3))) == []
    assert prune(conn, "lease") == {0: "pruned"}
    assert (rows_in(conn, "leases_0"), rows_in(conn, "leases_1")) == (0, 3)
    assert client.queue_counts("q").running == 3
    assert finalize(conn, fail(batch.claim, 4, delay_after=60)) == []
    assert complete(conn, (batch.claim, [5, 6])) == []
    assert_counts_are_exact(conn)


def test_a_slot_of_leases_that_have_all_ended_gives_its_bytes_back(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 1}, queue="q")
    batch = claim(conn)
    progress(conn, batch)
    turn(conn, "lease")
    assert complete(conn, (batch.claim, [1])) == []
    assert rows_in(conn, "leases_0") == 0
    assert read(conn, "SELECT pg_relation_size('awa.leases_0') > 0") == [(True,)]
    assert prune(conn, "lease") == {0: "pruned"}
    assert read(conn, "SELECT pg_relation_size('awa.leases_0')") == [(0,)]
    assert prune(conn, "lease") == {}


def test_a_slot_of_leases_stays_while_many_attempts_live_in_it(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(*range(1001)), kind="work", queue="q")
    batch = claim(conn, 2000)
    assert finalize(conn, *(Ending(owner, item, "waiting", None) for owner, item, _ in batch.jobs)) == []
    turn(conn, "lease")
    assert said(prune_ring(conn, "lease")) == {0: "many attempts live in it"}
    assert client.complete_external(batch.ids[0])
    assert said(prune_ring(conn, "lease")) == {0: "pruned"}
    assert client.queue_counts("q").waiting == 1000


def test_ended_jobs_go_when_their_time_is_over_and_are_counted_for_ever(conn: Connection, client: awa.Client) -> None:
    ids = client.enqueue_many(jobs(*range(5)), kind="work", queue="q")
    assert [client.cancel(job_id) for job_id in ids[:3]] == [True] * 3
    assert discard_jobs(conn, ids[:1]) == {"discarded": 1}
    turn(conn, "terminal")
    last = read(conn, "SELECT max(finalized_at) FROM awa.done_entries")[0][0]
    assert prune(conn, "terminal", now=last + timedelta(days=7, seconds=-1)) == {0: "retention"}
    assert client.cancel(ids[3])  # into the next slot
    assert prune(conn, "terminal", now=last + timedelta(days=7)) == {0: "pruned"}
    assert {i: job.state for i in ids if (job := client.get_job(i))} == {ids[3]: "cancelled", ids[4]: "available"}
    assert client.queue_counts("q").cancelled == 3
    assert_counts_are_exact(conn)


def test_dead_letters_that_were_counted_in_a_terminal_slot_stay_counted(conn: Connection, client: awa.Client) -> None:
    keep_nothing(conn)
    client.enqueue("work", {"n": 1}, queue="q", max_attempts=1)
    assert finalize(conn, fail(claim(conn).claim, 1)) == []
    assert client.cancel(client.enqueue("work", {"n": 2}, queue="q"))
    turn(conn, "terminal")
    assert prune(conn, "terminal") == {0: "pruned"}
    counts = client.queue_counts("q")
    assert (counts.dead_lettered, counts.cancelled) == (1, 1)
    assert_counts_are_exact(conn)


def test_the_newest_ending_of_any_lane_keeps_a_terminal_slot(conn: Connection, client: awa.Client) -> None:
    for queue in ("a", "b", "c"):
        assert client.cancel(client.enqueue("work", {"n": queue}, queue=queue))
    conn.execute(
        "UPDATE awa.done_entries e SET finalized_at = now() - interval '30 days' FROM awa.queue_lanes l "
        "WHERE l.lane_id = e.lane_id AND l.queue <> 'b'"
    )
    turn(conn, "terminal")
    assert prune(conn, "terminal") == {0: "retention"}


def test_a_deleted_completion_is_not_counted_when_its_claim_goes(conn: Connection, client: awa.Client) -> None:
    keep_nothing(conn)
    ids = completed(conn, client, *range(4))
    turn(conn, "claim")
    assert client.delete(ids[0])
    assert prune(conn, "claim") == {0: "pruned"}
    assert client.queue_counts("q").completed == 3
    assert_counts_are_exact(conn)


def test_results_go_with_their_claims(conn: Connection, client: awa.Client) -> None:
    keep_nothing(conn)
    client.enqueue("work", {"n": 1}, queue="q")
    assert finalize(conn, Ending(claim(conn).claim, 1, "completed", result='{"x": 1}')) == []
    turn(conn, "claim")
    assert rows_in(conn, "receipt_results") == 1
    assert prune(conn, "claim") == {0: "pruned"}
    assert rows_in(conn, "receipt_results") == 0
    assert client.queue_counts("q").completed == 1


# -- guards: the cursor ------------------------------------------------------------------------------------------------


def test_a_claim_that_waits_for_the_slot_with_an_old_snapshot_does_not_begin_again(
    dsn: str, conn: Connection, client: awa.Client
) -> None:
    keep_nothing(conn)
    ids = completed(conn, client, *range(4))  # the slot's only claim; the bodies stay
    turn(conn, "claim")
    with psycopg.connect(dsn) as reader:
        # Whoever has read the slot keeps the prune from its tables, and the prune keeps all who come after from them.
        reader.execute("SELECT count(*) FROM awa.lease_claim_batches_0")
        pruner = start(dsn, lambda other: said(prune_ring(other, "claim", lock_budget=20.0)))
        wait_until_blocked(conn, pruner)
        claimer = start(dsn, lambda other: claim(other).ids)
        other_claims = claimer.value()
        reader.rollback()
    assert other_claims == []  # the lane is locked: it comes back later
    assert pruner.value() == {0: "pruned"}
    assert claim(conn).ids == []
    assert {client.get_job(job_id) for job_id in ids} == {None}


def test_a_lane_that_is_busy_holds_its_newest_claims_slot(conn: Connection, client: awa.Client, session: Session) -> None:
    keep_nothing(conn)
    completed(conn, client, 1)
    turn(conn, "claim")
    assert read(conn, "SELECT awa.close_claim_slot(0::int2)") == [(True,)]
    own = session()
    assert read(own, "SELECT awa.try_lock_lane(1)") == [(True,)]
    assert prune(conn, "claim") == {0: "a lane is busy"}
    own.rollback()
    assert prune(conn, "claim") == {0: "pruned"}
    assert read(conn, "SELECT lane_id, claim_id FROM awa.queue_claim_heads") == [(1, 1)]


def test_a_busy_lane_whose_newest_claim_lies_elsewhere_holds_nothing(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    keep_nothing(conn)
    completed(conn, client, 1)
    turn(conn, "claim")
    completed(conn, client, 2)
    assert read(conn, "SELECT awa.close_claim_slot(0::int2)") == [(True,)]
    own = session()
    assert read(own, "SELECT awa.try_lock_lane(1)") == [(True,)]
    assert prune(conn, "claim") == {0: "pruned"}
    assert rows_in(conn, "queue_claim_heads") == 0


# -- guards: claims that come to a sealed slot -------------------------------------------------------------------------


def test_a_claim_that_read_the_slot_before_its_seal_keeps_it_from_being_proved_closed(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    keep_nothing(conn)
    completed(conn, client, 1)
    job_id = client.enqueue("work", {"n": 2}, queue="q")
    late = session()
    batch = claim(late)
    turn(conn, "claim")
    assert prune(conn, "claim") == {0: "attempts are open"}
    late.commit()
    assert prune(conn, "claim") == {0: "attempts are open"}
    assert client.queue_counts("q").running == client.queue_counts("q", exact=False).running == 1
    assert complete(conn, (batch.claim, None)) == []
    assert prune(conn, "claim") == {0: "pruned"}
    assert client.get_job(job_id) is None
    assert client.queue_counts("q").completed == 2
    assert_counts_are_exact(conn)


def test_a_claim_that_commits_while_the_lanes_are_waited_for_is_seen(
    dsn: str, conn: Connection, client: awa.Client, session: Session
) -> None:
    """The second sum."""
    keep_nothing(conn)
    completed(conn, client, 1)
    client.enqueue("work", {"n": 2}, queue="q")
    late = session()
    assert claim(late).claim.claim_slot == 0
    turn(conn, "claim")
    with changed(conn, "wait_lock_lane", **{"'10ms'": "'20s'"}):
        closing = start(dsn, lambda other: read(other, "SELECT awa.close_claim_slot(0::int2)"))
        wait_until_blocked(conn, closing)
        late.commit()
        assert closing.value() == [(False,)]


def test_a_slot_that_two_prove_closed_at_once_is_counted_once(
    dsn: str, conn: Connection, client: awa.Client, session: Session
) -> None:
    completed(conn, client, 1, 2)
    turn(conn, "claim")
    first = session()
    assert read(first, "SELECT awa.close_claim_slot(0::int2)") == [(True,)]
    second = start(dsn, lambda other: read(other, "SELECT awa.close_claim_slot(0::int2)"))
    wait_until_blocked(conn, second)
    first.commit()
    assert second.value() == [(True,)]
    assert_counts_are_exact(conn)


def test_the_current_claim_slot_is_never_proved_closed(conn: Connection, client: awa.Client) -> None:
    completed(conn, client, 1)
    assert read(conn, "SELECT awa.close_claim_slot(0::int2)") == [(False,)]
    turn(conn, "claim")
    assert read(conn, "SELECT awa.close_claim_slot(0::int2)") == [(True,)]


def test_whoever_waits_for_the_lanes_keeps_none(dsn: str, conn: Connection, client: awa.Client, session: Session) -> None:
    completed(conn, client, 1)
    turn(conn, "claim")
    own, probe = session(), session()

    def close(other: Connection) -> bool:
        with other.transaction():
            assert read(other, "SELECT awa.close_claim_slot(0::int2)") == [(True,)]
            return bool(read(probe, "SELECT awa.try_lock_lane(1)")[0][0])

    assert read(own, "SELECT awa.try_lock_lane(1)") == [(True,)]
    with changed(conn, "wait_lock_lane", **{"'10ms'": "'20s'"}):
        call = start(dsn, close)
        wait_until_blocked(conn, call)
        own.rollback()
        assert call.value()


def test_a_slot_that_was_proved_closed_is_not_proved_again(conn: Connection, client: awa.Client) -> None:
    completed(conn, client, 1)
    turn(conn, "claim")
    assert prune(conn, "claim") == {0: "retention"}
    with changed(
        conn, "close_claim_slot", **{"    FOR v_pass IN": "    RAISE EXCEPTION 'proved again';\n    FOR v_pass IN"}
    ):
        assert prune(conn, "claim") == {0: "retention"}


# -- guards: rows and claims that come between the looks ---------------------------------------------------------------


def test_a_row_that_is_committed_while_the_prune_waits_is_kept(dsn: str, conn: Connection, client: awa.Client) -> None:
    keep_nothing(conn)
    completed(conn, client, 1)
    turn(conn, "claim")
    assert prune(conn, "claim") == {0: "pruned"}
    with psycopg.connect(dsn) as late:  # in the slot before its seal
        job_id = client.enqueue("work", {"n": "late"}, queue="q", connection=late)
        turn(conn, "queue")
        pruner = start(dsn, lambda other: said(prune_ring(other, "queue", lock_budget=20.0)))
        wait_until_blocked(conn, pruner)
        late.commit()
    assert pruner.value() == {0: "jobs wait in it"}
    assert claim(conn).ids == [job_id]


def test_a_claim_that_takes_a_late_row_between_the_looks_is_seen(dsn: str, conn: Connection, client: awa.Client) -> None:
    keep_nothing(conn)
    completed(conn, client, 1)
    turn(conn, "claim")
    assert prune(conn, "claim") == {0: "pruned"}
    with psycopg.connect(dsn) as late, psycopg.connect(dsn, autocommit=True) as claimer:
        job_id = client.enqueue("work", {"n": "late"}, queue="q", connection=late)
        turn(conn, "queue")
        with stopped(conn, dsn, "slot_hold_reason", LOOKED, lambda other: said(prune_ring(other, "queue"))) as pruner:
            late.commit()
            assert claim(claimer).ids == [job_id]
        assert pruner.value() == {0: HELD_BY_NAME}
    job = client.get_job(job_id)
    assert job is not None
    assert job.state == "running"


def test_a_slot_that_somebody_looks_at_is_not_pruned_by_another(dsn: str, conn: Connection, client: awa.Client) -> None:
    """So what was proved of a claim slot holds until the prune: it cannot go, come back and be filled meanwhile."""
    keep_nothing(conn)
    completed(conn, client, 1)
    turn(conn, "claim")
    with stopped(conn, dsn, "slot_hold_reason", LOOKED, lambda other: said(prune_ring(other, "claim"))) as first:
        assert prune(conn, "claim") == {0: "locked"}
    assert first.value() == {0: "pruned"}


def test_what_a_window_has_left_keeps_its_slot(conn: Connection, client: awa.Client) -> None:
    keep_nothing(conn)
    ids = client.enqueue_many(jobs(*range(4)), kind="work", queue="q")
    assert complete(conn, (claim(conn, 2).claim, None)) == []
    turn(conn, "claim")
    turn(conn, "queue")
    assert prune(conn, "claim") == {0: "pruned"}
    assert prune(conn, "queue") == {0: "jobs wait in it"}
    assert claim(conn).ids == ids[2:]


def test_jobs_of_any_lane_keep_their_slot(conn: Connection, client: awa.Client) -> None:
    keep_nothing(conn)
    completed(conn, client, 1)
    job_id = client.enqueue("work", {"n": 2}, queue="a younger lane")
    turn(conn, "claim")
    turn(conn, "queue")
    assert prune(conn, "claim") == {0: "pruned"}
    assert prune(conn, "queue") == {0: "jobs wait in it"}
    assert claim(conn, queue="a younger lane").ids == [job_id]


def test_a_body_is_kept_while_any_claim_that_names_it_is(conn: Connection, client: awa.Client) -> None:
    """Of claim slots that are proved closed that is remembered, of the others it is read."""
    keep_nothing(conn)
    client.enqueue_many(jobs(1, 2), kind="work", queue="q")
    first, second = claim(conn, 1), claim(conn, 1)
    turn(conn, "queue")
    assert prune(conn, "queue") == {0: HELD_BY_NAME}
    assert complete(conn, (first.claim, None), (second.claim, None)) == []
    assert prune(conn, "queue") == {0: HELD_BY_NAME}
    turn(conn, "claim")
    assert read(conn, "SELECT awa.close_claim_slot(0::int2)") == [(True,)]
    assert prune(conn, "queue") == {0: HELD_BY_NAME}
    assert prune(conn, "claim") == {0: "pruned"}
    assert prune(conn, "queue") == {0: "pruned"}


# -- attempts that outlive their slots ---------------------------------------------------------------------------------


def test_an_attempt_that_outlives_its_slots_ends_as_any_other(conn: Connection, client: awa.Client) -> None:
    keep_nothing(conn)
    client.enqueue_many(jobs(*range(4)), kind="work", queue="q")
    batch = claim(conn)
    assert complete(conn, (batch.claim, [1])) == []
    turn(conn, "claim")
    turn(conn, "queue")
    assert materialize_attempts(conn, 100) == 3
    assert prune(conn, "claim") == {0: "pruned"}
    assert prune(conn, "queue") == {0: "pruned"}
    flush = random_id()
    whole = [Completion(batch.claim, None)]
    assert not_accepted(complete_jobs(conn, RUNTIME, flush, whole)) == [(batch.claim.claim_id, None, "refused")]
    assert complete(conn, (batch.claim, [1, 2])) == [(batch.claim.claim_id, 1, "refused")]
    assert finalize(conn, fail(batch.claim, 3, delay_after=60)) == []
    assert client.cancel(batch.ids[3])
    counts = client.queue_counts("q")
    assert (counts.completed, counts.retryable, counts.cancelled, counts.running) == (2, 1, 1, 0)
    assert_counts_are_exact(conn)
