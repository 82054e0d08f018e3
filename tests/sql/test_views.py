"""awa.jobs shows every job exactly once, and every other way to look agrees with it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
import pytest
from attrs import fields

import awa
from awa.storage.complete import Ending
from tests.sql.conftest import Session
from tests.sql.engine import claim, complete, fail, finalize, jobs, promote_all, read, rotate

Connection = psycopg.Connection[Any]

LATER = datetime(2100, 1, 1, tzinfo=UTC)

COLUMNS: Final = (
    "job_id, queue, priority, kind, args::text, state, attempt, max_attempts, run_lease, run_at, created_at,"
    " claimed_at, finalized_at, runtime_id, payload"
)


@pytest.fixture
def history(conn: Connection, client: awa.Client, session: Session) -> dict[str, list[int]]:
    """Ids by what has happened to their jobs: every state, reached in several ways, over several slots."""
    ids: dict[str, list[int]] = {}

    def enqueue(what: str, count: int = 2, **options: Any) -> list[int]:
        batch = jobs(*(f"{what} {n}" for n in range(count)))
        ids[what] = client.enqueue_many(batch, kind="work", **{"queue": "q", **options})
        return ids[what]

    enqueue("completed whole")
    enqueue("completed in parts", 3)
    enqueue("failed, retryable, running", 3, max_attempts=1, tags=["t"])
    whole, parts, mixed = claim(conn, 2), claim(conn, 3), claim(conn, 3)
    assert complete(conn, (whole.claim, None), (parts.claim, [1, 3])) == []
    rotate(conn, "claim")
    assert complete(conn, (parts.claim, [2])) == []
    assert finalize(conn, fail(mixed.claim, 1), Ending(mixed.claim, 2, "released", 60)) == []

    rotate(conn, "queue")
    enqueue("retryable")
    enqueue("retried and completed")
    enqueue("released and running")
    enqueue("released and available", 1)
    batch = claim(conn, 7)
    assert (
        finalize(
            conn,
            *(fail(batch.claim, item) for item in (3, 4)),
            *(Ending(batch.claim, item, "released") for item in (5, 6)),
        )
        == []
    )
    assert read(conn, "SELECT awa.promote_due(2)") == [(2,)]
    assert finalize(conn, *(fail(batch.claim, item, delay_after=60) for item in (1, 2))) == []
    released, retried = claim(conn, 2), claim(conn, 2)
    assert (released.ids, retried.ids) == (ids["released and running"], ids["retried and completed"])
    assert complete(conn, (retried.claim, None)) == []
    rotate(conn, "claim")
    assert finalize(conn, Ending(batch.claim, 7, "released")) == []
    enqueue("scheduled", run_at=LATER)
    enqueue("waiting", 3)
    enqueue("of another queue", queue="other", priority=1)
    enqueue("of another lane", priority=4)
    claim(conn, 1, queue="other")
    return ids


def states(conn: Connection) -> dict[int, str]:
    """Every job's state in awa.jobs, which has it once."""
    rows = read(conn, "SELECT job_id, state FROM awa.jobs")
    assert len(rows) == len(dict(rows)), [job_id for job_id, times in Counter(r[0] for r in rows).items() if times > 1]
    return dict(rows)


def test_every_job_is_there_once_in_the_state_it_is_in(conn: Connection, history: dict[str, list[int]]) -> None:
    state = states(conn)
    assert {what: [state[job_id] for job_id in ids] for what, ids in history.items()} == {
        "completed whole": ["completed"] * 2,
        "completed in parts": ["completed"] * 3,
        "failed, retryable, running": ["dead_lettered", "scheduled", "running"],
        "retryable": ["retryable"] * 2,
        "retried and completed": ["completed"] * 2,
        "released and running": ["running"] * 2,
        "released and available": ["available"],
        "scheduled": ["scheduled"] * 2,
        "waiting": ["available"] * 3,
        "of another queue": ["running", "available"],
        "of another lane": ["available"] * 2,
    }
    assert len(state) == sum(map(len, history.values()))


def assert_get_job_agrees(conn: Connection, history: dict[str, list[int]]) -> None:
    """get_job is the job's row of awa.jobs."""
    for what, ids in history.items():
        for job_id in ids:
            row = read(conn, f"SELECT {COLUMNS} FROM awa.jobs WHERE job_id = %s", (job_id,))
            assert read(conn, f"SELECT {COLUMNS} FROM awa.get_job(%s)", (job_id,)) == row, what


def test_get_job_shows_what_awa_jobs_shows(conn: Connection, history: dict[str, list[int]]) -> None:
    assert sum(map(len, history.values())) == 24
    assert_get_job_agrees(conn, history)


def test_get_job_knows_nothing_of_other_ids(conn: Connection, client: awa.Client, history: dict[str, list[int]]) -> None:
    highest = max(max(ids) for ids in history.values())
    assert [client.get_job(job_id) for job_id in (0, -1, highest + 1, 2**63 - 1)] == [None] * 4


def test_queue_counts_are_those_of_awa_jobs(conn: Connection, client: awa.Client, history: dict[str, list[int]]) -> None:
    for counts in client.list_queues():
        rows = dict(read(conn, "SELECT state, count(*) FROM awa.jobs WHERE queue = %s GROUP BY state", (counts.queue,)))
        names = [attribute.name for attribute in fields(awa.QueueCounts) if attribute.name not in ("queue", "paused")]
        assert {name: getattr(counts, name) for name in names} == {name: rows.get(name, 0) for name in names}
        assert client.queue_counts(counts.queue) == counts
    assert [counts.queue for counts in client.list_queues()] == ["other", "q"]


def test_terminal_jobs_are_the_ended_ones_with_their_bodies(conn: Connection, history: dict[str, list[int]]) -> None:
    ended = read(conn, f"SELECT {COLUMNS} FROM awa.terminal_jobs ORDER BY job_id")
    assert ended == read(
        conn, f"SELECT {COLUMNS} FROM awa.jobs WHERE state IN ('completed', 'dead_lettered') ORDER BY job_id"
    )
    assert len(ended) == 8
    assert all(row[11] is not None and row[12] >= row[11] for row in ended)


def test_claim_items_are_open_until_they_have_ended(conn: Connection, history: dict[str, list[int]]) -> None:
    outcomes = Counter(dict(read(conn, "SELECT coalesce(outcome, 'open'), count(*) FROM awa.claim_items GROUP BY 1")))
    assert outcomes == {"completed": 7, "failed": 1, "retryable": 4, "released": 4, "open": 4}


def test_a_row_is_consumed_exactly_when_a_claim_has_handed_it_out(conn: Connection, history: dict[str, list[int]]) -> None:
    consumed = read(
        conn,
        "SELECT r.job_id, r.run_lease + 1 FROM awa.ready_entries r, awa.lane_cursor(r.lane_id) c"
        " WHERE awa.is_consumed(r.enq_xid, r.lane_seq, c.s_prev, c.s_cur, c.pos_xid, c.pos_seq)",
    )
    assert sorted(consumed) == sorted(read(conn, "SELECT job_id, run_lease FROM awa.claim_items"))


def test_the_cursor_passes_rows_in_the_order_of_the_claims(conn: Connection, client: awa.Client, session: Session) -> None:
    late = session()
    client.enqueue_many(jobs("late 0", "late 1"), kind="work", queue="q", connection=late)
    client.enqueue_many(jobs(0, 1, 2), kind="work", queue="q")
    handed_out: list[str] = []

    def unconsumed() -> set[str]:
        return {
            n
            for (n,) in read(
                conn,
                "SELECT r.args ->> 'n' FROM awa.ready_entries r, awa.lane_cursor(r.lane_id) c WHERE NOT"
                " awa.is_consumed(r.enq_xid, r.lane_seq, c.s_prev, c.s_cur, c.pos_xid, c.pos_seq)",
            )
        }

    everything = unconsumed()
    while True:
        batch = claim(conn, 1).ns
        if not batch and late.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            break
        if handed_out == ["0", "1"]:
            late.commit()
            everything |= {"late 0", "late 1"}
        handed_out += [str(n) for n in batch]
        assert unconsumed() == everything - set(handed_out)
    assert handed_out == ["0", "1", "2", "late 0", "late 1"]


def test_claim_of_finds_the_claim_of_every_consumed_row(conn: Connection, history: dict[str, list[int]]) -> None:
    rows = read(
        conn,
        "SELECT (awa.claim_of(r.lane_id, r.enq_xid, r.lane_seq)).claim_id, i.claim_id FROM awa.ready_entries r"
        " LEFT JOIN awa.claim_items i ON i.job_id = r.job_id AND i.run_lease = r.run_lease + 1",
    )
    assert len(rows) > 20
    assert [found for found, _ in rows] == [handed_out for _, handed_out in rows]


def test_an_uncommitted_job_is_seen_by_its_own_transaction_only(
    conn: Connection, client: awa.Client, session: Session
) -> None:
    caller = session()
    job_id = client.enqueue("work", {"n": 0}, queue="q", connection=caller)
    assert read(caller, "SELECT state FROM awa.jobs WHERE job_id = %s", (job_id,)) == [("available",)]
    assert client.get_job(job_id) is None
    assert states(conn) == {}
    caller.commit()
    assert states(conn) == {job_id: "available"}


def test_the_views_still_agree_when_everything_has_been_promoted(
    conn: Connection, client: awa.Client, history: dict[str, list[int]]
) -> None:
    assert promote_all(conn) == 5
    assert Counter(states(conn).values())["available"] == client.queue_counts("q").available + 1
    assert_get_job_agrees(conn, history)
