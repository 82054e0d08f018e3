"""complete_jobs: an item ends once, by its receipt, and only what has ended is written."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from attrs import evolve

import awa
from tests.sql.conftest import Session
from tests.sql.engine import RUNTIME, Batch, claim, complete, fail, finalize, jobs, read, writes

Connection = psycopg.Connection[Any]


@pytest.fixture
def batch(conn: Connection, client: awa.Client) -> Batch:
    """A claim of five jobs."""
    client.enqueue_many(jobs(*range(5)), kind="work", queue="q")
    return claim(conn)


def completions(conn: Connection) -> list[tuple[Any, ...]]:
    """The evidence: (claim_id, n, items), oldest first."""
    return read(conn, "SELECT claim_id, n, items FROM awa.receipt_completion_batches ORDER BY completed_at")


def test_a_whole_claim_is_stored_without_its_items(conn: Connection, client: awa.Client, batch: Batch) -> None:
    assert complete(conn, (batch.claim, None)) == []
    assert completions(conn) == [(batch.claim.claim_id, 5, None)]
    assert client.queue_counts("q").completed == 5


def test_all_items_by_number_are_a_whole_claim_too(conn: Connection, batch: Batch) -> None:
    assert complete(conn, (batch.claim, [5, 3, 1, 2, 4])) == []
    assert completions(conn) == [(batch.claim.claim_id, 5, None)]


def test_a_part_of_a_claim_leaves_the_rest_running(conn: Connection, client: awa.Client, batch: Batch) -> None:
    assert complete(conn, (batch.claim, [4, 2])) == []
    assert [(n, sorted(items)) for _, n, items in completions(conn)] == [(2, [2, 4])]
    states = [job.state for job_id in batch.ids if (job := client.get_job(job_id))]
    assert states == ["running", "completed", "running", "completed", "running"]


def test_parts_add_up(conn: Connection, client: awa.Client, batch: Batch) -> None:
    for items in ([1, 2], [5], [3, 4]):
        assert complete(conn, (batch.claim, items)) == []
    counts = client.queue_counts("q")
    assert (counts.running, counts.completed) == (0, 5)


def test_an_item_named_twice_in_a_flush_is_completed_once(conn: Connection, batch: Batch) -> None:
    assert complete(conn, (batch.claim, [2, 2])) == []
    assert completions(conn) == [(batch.claim.claim_id, 1, [2])]


def test_an_item_completed_before_is_refused_and_its_siblings_are_accepted(conn: Connection, batch: Batch) -> None:
    assert complete(conn, (batch.claim, [1, 2])) == []
    assert complete(conn, (batch.claim, [2, 3])) == [(batch.claim.claim_id, 2, "refused")]
    assert completions(conn) == [(batch.claim.claim_id, 2, [1, 2]), (batch.claim.claim_id, 1, [3])]


def test_a_whole_claim_completed_after_a_part_names_the_refused_items(conn: Connection, batch: Batch) -> None:
    assert complete(conn, (batch.claim, [1, 3])) == []
    refused = complete(conn, (batch.claim, None))
    assert sorted(refused) == [(batch.claim.claim_id, 1, "refused"), (batch.claim.claim_id, 3, "refused")]
    assert sum(n for _, n, _ in completions(conn)) == 5


@pytest.mark.parametrize("items", [None, [1, 4]])
def test_the_same_flush_again_is_accepted_and_writes_nothing(
    conn: Connection, batch: Batch, items: list[int] | None
) -> None:
    assert complete(conn, (batch.claim, items), flush_id=99) == []
    before = completions(conn)
    assert len(before) == 1
    with writes(conn) as written:
        assert complete(conn, (batch.claim, items), flush_id=99) == []
    assert written == {}
    assert completions(conn) == before


def test_another_flush_of_what_has_ended_is_refused_and_writes_nothing(conn: Connection, batch: Batch) -> None:
    assert complete(conn, (batch.claim, None), flush_id=99) == []
    with writes(conn) as written:
        refused = complete(conn, (batch.claim, None), flush_id=100)
    assert sorted(refused) == [(batch.claim.claim_id, item, "refused") for item in range(1, 6)]
    assert written == {}


def test_a_repeated_flush_is_refused_what_another_flush_has_ended(conn: Connection, batch: Batch) -> None:
    assert complete(conn, (batch.claim, [1]), flush_id=99) == []
    assert complete(conn, (batch.claim, [2]), flush_id=100) == []
    assert complete(conn, (batch.claim, [1, 2, 3]), flush_id=99) == [(batch.claim.claim_id, 2, "refused")]


@pytest.mark.parametrize("wrong", ["token", "claim_id", "claim_slot"])
def test_a_receipt_that_is_not_quite_right_is_refused_and_writes_nothing(
    conn: Connection, client: awa.Client, batch: Batch, wrong: str
) -> None:
    forged = evolve(batch.claim, **{wrong: getattr(batch.claim, wrong) + 1})
    with writes(conn) as written:
        assert complete(conn, (forged, None)) == [(forged.claim_id, None, "refused")]
    assert written == {}
    assert client.queue_counts("q").running == 5


def test_another_runtime_s_claim_is_refused(conn: Connection, batch: Batch) -> None:
    refused = complete(conn, (batch.claim, None), runtime_id=RUNTIME + 1)
    assert refused == [(batch.claim.claim_id, None, "refused")]
    assert completions(conn) == []


@pytest.mark.parametrize("item", [-1, 0, 6, 32767])
def test_an_item_the_claim_does_not_have_is_refused_and_its_siblings_are_accepted(
    conn: Connection, batch: Batch, item: int
) -> None:
    assert complete(conn, (batch.claim, [item])) == [(batch.claim.claim_id, item, "refused")]
    assert completions(conn) == []
    assert complete(conn, (batch.claim, [item, 5])) == [(batch.claim.claim_id, item, "refused")]
    assert completions(conn) == [(batch.claim.claim_id, 1, [5])]


def test_an_attempt_that_has_ended_otherwise_is_refused(conn: Connection, client: awa.Client, batch: Batch) -> None:
    assert finalize(conn, fail(batch.claim, 2)) == []
    assert complete(conn, (batch.claim, None)) == [(batch.claim.claim_id, 2, "refused")]
    assert [(n, sorted(items)) for _, n, items in completions(conn)] == [(4, [1, 3, 4, 5])]
    assert client.queue_counts("q").retryable == 1


def test_a_claim_that_another_transaction_is_ending_is_busy_and_holds_nothing_up(
    conn: Connection, client: awa.Client, batch: Batch, session: Session
) -> None:
    client.enqueue_many(jobs("later"), kind="work", queue="q")
    free = claim(conn)
    handler = session()
    assert complete(handler, (batch.claim, [1])) == []
    assert complete(conn, (batch.claim, [2]), (free.claim, None)) == [(batch.claim.claim_id, None, "busy")]
    assert [claim_id for claim_id, _, _ in completions(conn)] == [free.claim.claim_id]
    handler.commit()
    assert complete(conn, (batch.claim, [2])) == []
    assert client.queue_counts("q").completed == 3


def test_a_completion_rolled_back_with_its_handler_has_not_happened(
    conn: Connection, client: awa.Client, batch: Batch, session: Session
) -> None:
    handler = session()
    assert complete(handler, (batch.claim, None)) == []
    handler.rollback()
    assert client.queue_counts("q").running == 5
    assert complete(conn, (batch.claim, None)) == []


def test_a_flush_that_was_busy_is_refused_what_the_other_has_ended_meanwhile(
    conn: Connection, batch: Batch, session: Session
) -> None:
    handler = session()
    assert finalize(handler, fail(batch.claim, 1)) == []
    assert complete(conn, (batch.claim, [1])) == [(batch.claim.claim_id, None, "busy")]
    handler.commit()
    assert complete(conn, (batch.claim, [1])) == [(batch.claim.claim_id, 1, "refused")]


def test_a_flush_writes_one_row_a_claim_and_nothing_else(conn: Connection, client: awa.Client, batch: Batch) -> None:
    client.enqueue_many(jobs(*range(10)), kind="work", queue="q")
    second, third = claim(conn, 4), claim(conn, 6)
    with writes(conn) as written:
        assert complete(conn, (third.claim, [1, 6]), (batch.claim, None), (second.claim, [2])) == []
    assert written == {"receipt_completion_batches": (3, 0, 0)}
    assert client.queue_counts("q").completed == 8


def test_one_bad_claim_spoils_no_other_of_its_flush(conn: Connection, client: awa.Client, batch: Batch) -> None:
    client.enqueue_many(jobs(*range(2)), kind="work", queue="q")
    good = claim(conn)
    forged = evolve(batch.claim, token=batch.claim.token + 1)
    assert complete(conn, (forged, None), (good.claim, None)) == [(forged.claim_id, None, "refused")]
    assert completions(conn) == [(good.claim.claim_id, 2, None)]


def test_an_empty_flush_is_accepted(conn: Connection) -> None:
    with writes(conn) as written:
        assert complete(conn) == []
    assert written == {}


def test_a_snapshot_older_than_the_claim_lock_is_refused(conn: Connection, batch: Batch, session: Session) -> None:
    handler = session()
    handler.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with pytest.raises(psycopg.Error, match="READ COMMITTED") as refused:
        complete(handler, (batch.claim, None))
    assert refused.value.sqlstate == "AWA01"
    assert completions(conn) == []
