"""What has ended stays ended when its rows go."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import awa
from awa.claim import JOB_ID
from awa.postgres import connect
from awa.storage.claim import claim_jobs, prepare_claiming, random_id, read_claims
from awa.storage.complete import Completion, NotAccepted, complete_jobs, not_accepted
from tests.sql.engine import RUNTIME
from tests.sql.rings import assert_counts_are_exact, keep_nothing, prune, turn


@pytest.fixture
def claimer(dsn: str, conn: psycopg.Connection[Any]) -> Any:
    keep_nothing(conn)
    with connect(dsn, "claimer") as claimer:
        prepare_claiming(claimer)
        yield claimer


def _claim(conn: psycopg.Connection[Any], limit: int, *, complete: bool = True) -> list[tuple[int, Any]]:
    """Claim from queue "default", end it at once, and give back (job_id, claim)."""
    token = random_id()
    jobs = read_claims(claim_jobs(conn, "default", limit, RUNTIME, token), "default", token)
    claims = {claim: None for claim, _, _ in jobs}
    if complete and claims:
        assert not_accepted(complete_jobs(conn, RUNTIME, random_id(), [Completion(claim, None) for claim in claims])) == []
    return [(row[JOB_ID], claim) for claim, _, row in jobs]


def test_a_completed_job_is_not_claimed_again_when_its_evidence_is_gone(
    client: awa.Client, conn: psycopg.Connection[Any], claimer: psycopg.Connection[Any]
) -> None:
    ids = client.enqueue_many([{}] * 20, kind="x")
    assert [job_id for job_id, _ in _claim(claimer, 8)] == ids[:8]  # the cursor stands in the middle of a window
    turn(conn, "claim")
    assert prune(conn, "claim") == {0: "pruned"}
    assert client.queue_counts("default").available == 12
    assert client.get_job(ids[0]) is None  # its history is gone; it is not available
    assert [job_id for job_id, _ in _claim(claimer, 100)] == ids[8:]
    turn(conn, "claim")
    assert prune(conn, "claim") == {1: "pruned"}
    assert _claim(claimer, 100) == []
    assert client.queue_counts("default").available == 0
    assert client.queue_counts("default").completed == 20
    assert_counts_are_exact(conn)


def test_an_older_claim_row_that_outlives_a_newer_head_moves_no_cursor_back(
    client: awa.Client, conn: psycopg.Connection[Any], claimer: psycopg.Connection[Any]
) -> None:
    ids = client.enqueue_many([{}] * 20, kind="x")
    still_open = _claim(claimer, 5, complete=False)  # keeps slot 0
    turn(conn, "claim")
    assert [job_id for job_id, _ in _claim(claimer, 5)] == ids[5:10]
    turn(conn, "claim")
    assert prune(conn, "claim") == {0: "attempts are open", 1: "pruned"}  # slots are not pruned in order
    assert client.queue_counts("default").available == 10
    assert client.queue_counts("default").running == 5
    assert [job_id for job_id, _ in _claim(claimer, 100)] == ids[10:]
    job = client.get_job(ids[0])
    assert job is not None
    assert job.state == "running"
    claim = still_open[0][1]
    assert not_accepted(complete_jobs(conn, RUNTIME, random_id(), [Completion(claim, None)])) == []


def test_a_straggler_committed_after_the_prune_is_still_claimed(
    dsn: str, client: awa.Client, conn: psycopg.Connection[Any], claimer: psycopg.Connection[Any]
) -> None:
    with connect(dsn, "straggler") as straggler:
        straggler.autocommit = False
        late = client.enqueue("x", connection=straggler)
        ids = client.enqueue_many([{}] * 4, kind="x")
        assert [job_id for job_id, _ in _claim(claimer, 100)] == ids
        turn(conn, "claim")
        assert prune(conn, "claim") == {0: "pruned"}
        assert _claim(claimer, 100) == []
        straggler.commit()
    assert [job_id for job_id, _ in _claim(claimer, 100)] == [late]
    assert _claim(claimer, 100) == []


def test_an_ending_whose_claim_was_pruned_is_refused(
    client: awa.Client, conn: psycopg.Connection[Any], claimer: psycopg.Connection[Any]
) -> None:
    client.enqueue_many([{}] * 3, kind="x")
    claim = _claim(claimer, 3)[0][1]
    turn(conn, "claim")
    assert prune(conn, "claim") == {0: "pruned"}
    answer = not_accepted(complete_jobs(conn, RUNTIME, random_id(), [Completion(claim, None)]))
    assert answer == [NotAccepted(claim.claim_id, None, "refused")]
    assert client.queue_counts("default").completed == 3


def test_pruning_a_consumed_ready_slot_loses_nothing(
    client: awa.Client, conn: psycopg.Connection[Any], claimer: psycopg.Connection[Any]
) -> None:
    old = client.enqueue_many([{}] * 10, kind="x")
    assert [job_id for job_id, _ in _claim(claimer, 10)] == old
    turn(conn, "queue")
    turn(conn, "claim")
    kept = client.enqueue_many([{}] * 6, kind="x", priority=1) + client.enqueue_many([{}] * 6, kind="x")
    assert [job_id for job_id, _ in _claim(claimer, 3)] == kept[:3]
    assert prune(conn, "queue") == {0: "its jobs' claims are kept"}
    assert prune(conn, "claim") == {0: "pruned"}
    assert prune(conn, "queue") == {0: "pruned"}
    counts = client.queue_counts("default")
    assert (counts.available, counts.running) == (9, 0)
    assert [job_id for job_id, _ in _claim(claimer, 100)] == kept[3:]
    assert {client.get_job(job_id) for job_id in old} == {None}
    states = {job.state for job_id in kept if (job := client.get_job(job_id))}
    assert states == {"completed"}
