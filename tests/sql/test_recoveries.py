"""What is rescued, expired, cancelled and led, and what is left alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import awa
from awa.errors import RuntimeDeclaredDead
from awa.postgres import Connection
from awa.storage.attempts import save_progress
from awa.storage.cancel import cancel_job
from awa.storage.complete import Ending
from awa.storage.rescue import ExpiryPosition, Rescued, rescue_dead, rescue_expired, settle_tombstones
from awa.storage.runtimes import (
    beat,
    declare_dead,
    declare_stale,
    elect_leader,
    list_runtimes,
    register_runtime,
    resign_leader,
    retire_runtime,
)
from tests.sql.conftest import Session
from tests.sql.engine import RUNTIME, claim, complete, fail, finalize, jobs, promote_all, read, register
from tests.sql.rings import progress
from tests.waiting import wait_for

OTHER = 815
LATER = datetime.now(UTC) + timedelta(hours=5)


def die(conn: Connection, runtime_id: int = RUNTIME) -> None:
    """Declare one of the tests' runtimes dead: each is its own supervisor, with its id for a pid."""
    assert declare_dead(conn, runtime_id, [runtime_id]) == [runtime_id]


def states(conn: Connection) -> dict[str, int]:
    """How many jobs are in each state."""
    return dict(read(conn, "SELECT state, count(*)::int FROM awa.jobs GROUP BY 1"))


def refuse(conn: Connection, kind: str) -> None:
    """Let no job of this kind go anywhere: what cannot be ended."""
    for table in ("ready_entries", "deferred_jobs", "done_entries", "dlq_entries"):
        conn.execute(f"ALTER TABLE awa.{table} ADD CONSTRAINT no_{kind} CHECK (kind <> '{kind}') NOT VALID".encode())


def test_what_the_dead_have_left_goes_on_at_once_and_counts(conn: Connection, client: awa.Client) -> None:
    ids = client.enqueue_many(jobs(*range(4)), kind="work", queue="q")
    client.enqueue_many(jobs(*range(4, 6)), kind="work", queue="q")
    first = claim(conn, 4).claim
    claim(conn, 2, runtime_id=OTHER)
    assert complete(conn, (first, [1])) == []
    assert finalize(conn, fail(first, 2, delay_after=60)) == []
    die(conn)
    assert rescue_dead(conn) == (2, 0, False)
    assert states(conn) == {"completed": 1, "retryable": 1, "available": 2, "running": 2}
    assert finalize(conn, fail(first, 3)) == [(first.claim_id, 3, "refused")]
    assert complete(conn, (first, [4])) == [(first.claim_id, 4, "refused")]
    again = claim(conn, runtime_id=OTHER)
    assert again.ids == ids[2:]
    assert [row[8] for _, _, row in again.jobs] == [2, 2]
    assert rescue_dead(conn) == (0, 0, False)


def test_a_poison_job_is_mortal(conn: Connection, client: awa.Client) -> None:
    job_id = client.enqueue("work", {"n": 0}, queue="q", max_attempts=3)
    for runtime_id in (11, 12, 13):
        promote_all(conn)
        assert claim(conn, runtime_id=runtime_id).ids == [job_id]
        die(conn, runtime_id)
        assert rescue_dead(conn).rescued == 1
    job = client.get_job(job_id)
    assert job is not None
    assert (job.state, job.attempt, len(job.errors)) == ("dead_lettered", 3, 3)


def test_a_job_that_cannot_be_ended_keeps_no_other_from_it(conn: Connection, client: awa.Client) -> None:
    for n in range(6):
        client.enqueue("poison" if n == 2 else "work", {"n": n}, queue="q")
    claim(conn, 4)
    claim(conn, 2)
    refuse(conn, "poison")
    die(conn)
    assert rescue_dead(conn) == (5, 1, False)
    assert states(conn) == {"available": 5, "running": 1}


def test_a_rescue_is_bounded_and_says_that_there_is_more(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(*range(50)), kind="work", queue="q")
    for _ in range(10):
        claim(conn, 5)
    die(conn)
    assert rescue_dead(conn, 20) == (20, 0, True)
    assert rescue_dead(conn, 20) == (20, 0, True)
    assert rescue_dead(conn, 20) == (10, 0, False)


def test_the_bound_is_for_all_of_the_dead_and_their_leases_too(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(*range(9)), kind="work", queue="q")
    for runtime_id in (11, 12, 13):
        batch = claim(conn, 3, runtime_id=runtime_id)
        for item in (1, 2):
            assert save_progress(conn, runtime_id, batch.claim, item, None, None) == "saved"
        die(conn, runtime_id)
    rescued = []
    more = True
    while more:
        done = rescue_dead(conn, 4)
        rescued.append(done.rescued)
        more = done.more
    assert (max(rescued), sum(rescued)) == (4, 9)
    assert states(conn) == {"available": 9}


def test_however_many_leases_cannot_be_ended_a_call_is_bounded_and_finds_the_others_in_time(
    conn: Connection, client: awa.Client
) -> None:
    for kind in [*["poison"] * 12, "work", *["poison"] * 12]:
        client.enqueue(kind, {"n": 0}, queue="q")
    batch = claim(conn, 25)
    for item in range(1, 26):
        progress(conn, batch, item)
    refuse(conn, "poison")
    die(conn)
    done = wait_for(lambda: next_rescue(conn, 3), what="the one that can be ended")
    assert done is not None
    assert states(conn) == {"available": 1, "running": 24}


def next_rescue(conn: Connection, limit: int) -> Rescued | None:
    """One more call of the leader's; what it says when it has ended anything."""
    done = rescue_dead(conn, limit, runtime_id=RUNTIME)
    assert done.stuck <= 2 * limit
    return done if done.rescued else None


def test_a_claim_that_is_being_ended_hides_no_other(conn: Connection, client: awa.Client, session: Session) -> None:
    client.enqueue_many(jobs(*range(4)), kind="work", queue="q")
    first = claim(conn, 2).claim
    claim(conn, 2)
    own = session()
    assert complete(own, (first, [1])) == []  # its transaction stays open
    die(conn)
    assert rescue_dead(conn).rescued == 2
    own.rollback()
    assert rescue_dead(conn, now=datetime.now(UTC) + timedelta(seconds=10)).rescued == 2


def test_a_claim_that_commits_after_its_runtimes_death_is_found_by_a_later_look(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    client.enqueue_many(jobs(1, 2), kind="work", queue="q")
    register(conn, OTHER)
    own = session()
    assert len(claim(own, runtime_id=OTHER).ids) == 2
    die(conn, OTHER)
    assert rescue_dead(conn).rescued == 0
    own.commit()
    assert rescue_dead(conn, now=datetime.now(UTC) + timedelta(seconds=10)).rescued == 2


def test_the_dead_and_the_unknown_claim_nothing(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 0}, queue="q")
    die(conn)
    for runtime_id in (RUNTIME, 999_999):
        with pytest.raises(Exception, match="declared dead") as refused:
            conn.execute("SELECT awa.claim_jobs('q', 1, %s, 1)", (runtime_id,))
        assert getattr(refused.value, "sqlstate", "") == "AWA03"
    with pytest.raises(RuntimeDeclaredDead):
        claim(conn)
    assert states(conn) == {"available": 1}


def test_silence_is_death_and_a_beat_revives_nobody(conn: Connection) -> None:
    register(conn, OTHER)
    beat(conn, RUNTIME, [RUNTIME])
    assert set(declare_stale(conn, 10.0)) == set()
    assert beat(conn, OTHER, [OTHER]) == []
    soon = datetime.now(UTC) + timedelta(seconds=11)
    assert set(declare_stale(conn, 10.0, soon)) == {RUNTIME, OTHER}
    assert beat(conn, OTHER, [OTHER]) == [OTHER]
    assert all(runtime.dead_at is not None for runtime in list_runtimes(conn))


def test_who_signs_off_with_open_work_counts_as_dead(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 0}, queue="q")
    claim(conn, runtime_id=OTHER)
    retire_runtime(conn, RUNTIME)
    retire_runtime(conn, OTHER)
    assert [(r.runtime_id, r.dead_at is None) for r in list_runtimes(conn)] == [(OTHER, False)]
    assert rescue_dead(conn).rescued == 1


def test_what_is_past_its_deadline_is_ended_and_the_rest_is_not(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(*range(6)), kind="work", queue="q")
    late = claim(conn, 2, deadline_after=60).claim
    claim(conn, 2, deadline_after=36_000)
    claim(conn, 2)
    done, position = rescue_expired(conn)
    assert done == (0, 0, False)
    done, position = rescue_expired(conn, position, now=LATER - timedelta(hours=1))
    assert done == (2, 0, False)
    assert position.claim_id == late.claim_id
    assert complete(conn, (late, None)) == [(late.claim_id, 1, "refused"), (late.claim_id, 2, "refused")]
    assert states(conn) == {"available": 2, "running": 4}


def test_a_job_that_waited_too_long_for_an_answer_has_failed_that_attempt(conn: Connection, client: awa.Client) -> None:
    ids = client.enqueue_many(jobs(0, 1), kind="work", queue="q")
    taken = claim(conn).claim
    assert finalize(conn, Ending(taken, 1, "waiting", 60), Ending(taken, 2, "waiting", None)) == []
    die(conn)
    assert rescue_dead(conn).rescued == 0  # what waits runs nowhere
    assert rescue_expired(conn)[0].rescued == 0
    assert rescue_expired(conn, now=LATER)[0].rescued == 1
    found = [client.get_job(job_id) for job_id in ids]
    assert [(job.state, job.attempt) for job in found if job] == [("available", 1), ("waiting", 1)]


def test_one_stuck_claim_hides_no_thousand_others_from_the_walk(conn: Connection, client: awa.Client) -> None:
    client.enqueue("poison", {"n": 0}, queue="q")
    client.enqueue_many(jobs(*range(30)), kind="work", queue="q")
    for _ in range(31):
        claim(conn, 1, deadline_after=60)
    refuse(conn, "poison")
    position: ExpiryPosition | None = None
    rescued = calls = 0
    more = True
    while more:
        done, position = rescue_expired(conn, position, 4, now=LATER)
        rescued, calls, more = rescued + done.rescued, calls + 1, done.more
    assert (rescued, calls) == (30, 8)
    assert states(conn) == {"available": 30, "running": 1}
    conn.execute("ALTER TABLE awa.ready_entries DROP CONSTRAINT no_poison")
    conn.execute("ALTER TABLE awa.deferred_jobs DROP CONSTRAINT no_poison")
    done, position = rescue_expired(conn, position, 4, now=LATER)  # the next walk begins at what this one had to leave
    assert done.rescued == 1


@pytest.mark.parametrize("why", ["dead", "expired"])
def test_leases_that_cannot_be_ended_hide_none_behind_them(conn: Connection, client: awa.Client, why: str) -> None:
    for kind in ("poison", "poison", "work"):
        client.enqueue(kind, {"n": 0}, queue="q")
    batch = claim(conn, 3, deadline_after=60)
    for item in (1, 2, 3):
        progress(conn, batch, item)
    refuse(conn, "poison")
    if why == "dead":
        die(conn)
        assert rescue_dead(conn, 2) == (1, 2, False)
    else:
        done, _ = rescue_expired(conn, None, 2, now=LATER)
        assert (done.rescued, done.stuck) == (1, 2)
    assert states(conn) == {"available": 1, "running": 2}


@pytest.mark.parametrize("state", ["available", "scheduled", "retryable", "running", "waiting", "leased"])
def test_a_job_is_cancelled_wherever_it_is(conn: Connection, client: awa.Client, state: str) -> None:
    run_at = LATER if state == "scheduled" else None
    job_id = client.enqueue("work", {"n": 0}, queue="q", run_at=run_at)
    others = client.enqueue_many(jobs(1, 2), kind="work", queue="q")
    taken = None
    if state not in ("available", "scheduled"):
        taken = claim(conn, 1).claim
    if state == "retryable":
        assert taken is not None
        assert finalize(conn, fail(taken, 1, delay_after=60)) == []
    elif state == "waiting":
        assert taken is not None
        assert finalize(conn, Ending(taken, 1, "waiting", None)) == []
    elif state == "leased":
        assert taken is not None
        parameters = (RUNTIME, taken.claim_slot, taken.claim_id, taken.token)
        assert read(conn, "SELECT awa.save_progress(%s, %s::int2, %s, %s, 1::int2, '{}', NULL)", parameters) == [("saved",)]
    assert cancel_job(conn, job_id) == "cancelled"
    assert cancel_job(conn, job_id) == "ended"
    assert cancel_job(conn, 10**9) == "unknown"
    job = client.get_job(job_id)
    assert job is not None
    assert job.state == "cancelled"
    counts = client.queue_counts("q")
    assert (counts.available, counts.running, counts.cancelled) == (2, 0, 1)
    if taken is not None:
        assert complete(conn, (taken, [1])) == [(taken.claim_id, 1, "refused")]
        assert finalize(conn, fail(taken, 1)) == [(taken.claim_id, 1, "refused")]
    batch = claim(conn)
    assert batch.ids == others
    assert complete(conn, *((one, [item for c, item, _ in batch.jobs if c is one]) for one in batch.claims)) == []
    assert states(conn) == {"cancelled": 1, "completed": 2}
    assert settle_tombstones(conn) == (1 if state == "available" else 0)
    assert read(conn, "SELECT count(*) FROM awa.queue_lanes WHERE has_tombstones") == [(0,)]
    assert promote_all(conn) == 0


def test_a_cancel_waits_for_no_long_transaction_and_blocks_no_other_lane(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    first = client.enqueue("work", {"n": 0}, queue="q")
    client.enqueue("work", {"n": 0}, queue="elsewhere")
    own = session()
    own.execute("SELECT awa.try_lock_lane(lane_id) FROM awa.queue_lanes WHERE queue = 'q'")
    assert cancel_job(conn, first) == "busy"
    own.rollback()
    own.execute("SELECT 1")
    assert cancel_job(own, first) == "cancelled"  # not committed yet
    assert len(claim(conn, queue="elsewhere").ids) == 1
    own.commit()
    assert claim(conn).ids == []


def test_one_leads_until_its_time_is_over(conn: Connection) -> None:
    now = datetime.now(UTC)
    assert elect_leader(conn, 1, 3.0, now)
    assert not elect_leader(conn, 2, 3.0, now + timedelta(seconds=2.9))
    assert elect_leader(conn, 1, 3.0, now + timedelta(seconds=2.9))
    assert not elect_leader(conn, 2, 3.0, now + timedelta(seconds=5))
    assert elect_leader(conn, 2, 3.0, now + timedelta(seconds=6))
    assert not elect_leader(conn, 1, 3.0, now + timedelta(seconds=6))
    resign_leader(conn, 1)
    assert not elect_leader(conn, 1, 3.0, now + timedelta(seconds=6))
    resign_leader(conn, 2)
    assert elect_leader(conn, 1, 3.0, now + timedelta(seconds=6))


def test_a_leader_that_dies_leads_no_more(conn: Connection) -> None:
    assert elect_leader(conn, RUNTIME, 3600.0)
    die(conn)
    assert elect_leader(conn, OTHER, 3.0)


def test_due_jobs_of_a_paused_queue_stay_and_hold_up_no_others(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(*range(20)), kind="work", queue="paused", run_at=LATER)
    client.enqueue_many(jobs(*range(3)), kind="work", queue="q", run_at=LATER)
    client.pause_queue("paused")
    assert read(conn, "SELECT awa.promote_due(10, 'infinity')") == [(3,)]
    client.resume_queue("paused")
    assert read(conn, "SELECT awa.promote_due(100, 'infinity')") == [(20,)]


def test_a_process_with_a_new_identity_is_alive(conn: Connection) -> None:
    register(conn, OTHER)
    die(conn, OTHER)
    register_runtime(conn, runtime_id=4242, supervisor_id=OTHER, pid=OTHER, hostname="test", release="test", queues={"q": 1})
    assert beat(conn, OTHER, [OTHER]) == []
