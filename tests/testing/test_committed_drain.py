"""A transaction that has drained its own jobs commits after all: nothing runs twice and every job is where it should be."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from hypothesis import given, settings
from hypothesis import strategies as st

import awa
from awa.errors import AwaError
from awa.job import QueueCounts
from awa.postgres import connect
from awa.testing import Clock, clear_jobs, drain
from tests.sql.engine import claim, promote_all, read

OUTCOMES = {
    "finish": "completed",
    "again": "retryable",
    "later": "scheduled",
    "stop": "cancelled",
    "give_up": "dead_lettered",
}
STATES = ("available", "running", "scheduled", "retryable", "waiting", "completed", "failed", "cancelled", "dead_lettered")

Job = tuple[str, int, bool, bool]  # how it ends, its priority, whether it is for later, whether it is in a savepoint


def make_tasks(ran: list[int]) -> None:
    """A task for every way to end."""

    def make(kind: str, word: awa.Cancel | awa.Fail | awa.Retry | awa.Snooze | None) -> None:
        @awa.task(kind=kind, queue="q")
        def handler() -> object:
            ran.append(awa.current_job().id)
            return word

    words = (None, awa.Retry(after=60), awa.Snooze(60), awa.Cancel(), awa.Fail())
    for kind, word in zip(OUTCOMES, words, strict=True):
        make(kind, word)


def jobs() -> st.SearchStrategy[list[Job]]:
    one = st.tuples(st.sampled_from(list(OUTCOMES)), st.sampled_from([1, 3]), st.booleans(), st.booleans())
    return st.lists(one, min_size=1, max_size=8)


@settings(deadline=None, max_examples=25)
@given(
    before=jobs(),
    own=jobs(),
    drains=st.lists(st.sampled_from([1, 3, None]), min_size=1, max_size=3),
    with_scheduled=st.booleans(),
    claim_between=st.booleans(),
    commit=st.booleans(),
)
def test_after_the_end_of_the_transaction_every_job_is_in_one_state_and_runs_once(
    dsn: str,
    before: list[Job],
    own: list[Job],
    drains: list[int | None],
    with_scheduled: bool,
    claim_between: bool,
    commit: bool,
) -> None:
    ran: list[int] = []
    make_tasks(ran)
    with awa.Client(dsn) as client, psycopg.connect(dsn) as tx, connect(dsn, "claimer") as conn:
        clear_jobs(client)
        committed = [enqueue(client, conn, job) for job in before]
        tx.execute("SELECT txid_current()")
        mine = [enqueue(client, tx, job) for job in own]
        handed_out = claim(conn, queue="q").ids if claim_between else []
        done = [
            job
            for n, limit in enumerate(drains)
            for job in drain(connection=tx, limit=limit, with_scheduled=with_scheduled and n == 0).jobs
        ]
        assert ran == [job.id for job in done]
        assert {job.id for job in done} <= set(mine)
        assert len(set(ran)) == len(ran), "what was put off came back without a moved clock"
        now = client.get_job
        expected = dict(zip(mine, own, strict=True))
        assert all(job.state == OUTCOMES[expected[job.id][0]] for job in done)
        if commit:
            tx.commit()
        else:
            tx.rollback()
        left = [i for i in mine if i not in ran] if commit else []
        for job_id in mine:
            job = now(job_id)
            if not commit:
                assert job is None
            elif job_id in ran:
                assert job is not None
                assert (job.state, job.run_lease) == (OUTCOMES[expected[job_id][0]], 1)
        assert_consistent(conn, client)
        handed_out += claim(conn, queue="q").ids
        for_later = {i for i, job in zip(committed + mine, before + own, strict=True) if job[2]}
        promoted = set(left) & for_later if with_scheduled else set()
        assert set(handed_out) == (set(committed) | set(left)) - for_later | promoted
        assert len(set(handed_out)) == len(handed_out)
        assert_consistent(conn, client)
        promote_all(conn)
        again = claim(conn, queue="q").ids
        put_off = {i for i in ran if commit and OUTCOMES[expected[i][0]] in ("retryable", "scheduled")}
        assert set(again) == ((set(committed) | set(left)) & for_later) - promoted | put_off
        assert_consistent(conn, client)


def enqueue(client: awa.Client, conn: psycopg.Connection[Any], job: Job) -> int:
    """Enqueue it on this connection, in a savepoint where it says so."""
    kind, priority, for_later, in_savepoint = job
    run_at = datetime.now(UTC) + timedelta(hours=1) if for_later else None

    def put() -> int:
        return client.enqueue(kind, queue="q", priority=priority, run_at=run_at, connection=conn)

    if not in_savepoint:
        return put()
    with conn.transaction():
        return put()


def assert_consistent(conn: psycopg.Connection[Any], client: awa.Client) -> None:
    """The view, the point probes and the counts tell the same story."""
    rows = read(conn, "SELECT job_id, state, attempt, run_lease FROM awa.jobs")
    assert len({row[0] for row in rows}) == len(rows), "a job is in two states"
    for job_id, state, attempt, run_lease in rows:
        job = client.get_job(job_id)
        assert job is not None
        assert (job.state, job.attempt, job.run_lease) == (state, attempt, run_lease)
    for exact in (True, False):
        counts: QueueCounts = client.queue_counts("q", exact=exact)
        assert {state: getattr(counts, state) for state in STATES} == {
            state: Counter(row[1] for row in rows)[state] for state in STATES
        }


def test_retries_go_on_in_a_worker_where_the_drain_has_left_them(client: awa.Client, dsn: str) -> None:
    @awa.task(queue="q", max_attempts=3, retry=[0])
    def boom() -> None:
        raise ValueError("boom")

    with psycopg.connect(dsn) as tx:
        job_id = client.enqueue(boom, connection=tx)
        assert drain(connection=tx, limit=1, raises=False).retryable == 1
    with Clock() as clock:
        clock.move(seconds=1)
        assert [job.attempt for job in drain(client=client, raises=False).jobs] == [2, 3]
    job = client.get_job(job_id)
    assert job is not None
    assert (job.state, job.attempt, job.run_lease, len(job.errors)) == ("dead_lettered", 3, 3, 3)


def test_a_unique_key_is_held_and_free_again(client: awa.Client, dsn: str) -> None:
    @awa.task(queue="q", unique=awa.Unique())
    def once() -> None: ...

    with psycopg.connect(dsn) as tx:
        once.options(client=client, connection=tx).enqueue()
        try:
            once.options(client=client, connection=tx).enqueue()
        except AwaError:
            held = True
        else:
            held = False
        assert held
        drain(connection=tx)
        once.options(client=client, connection=tx).enqueue()
        assert drain(connection=tx).completed == 1
    assert client.queue_counts("q").completed == 2


def test_what_has_ended_can_be_retried_and_deleted(client: awa.Client, dsn: str, conn: psycopg.Connection[Any]) -> None:
    outcomes: list[object] = [awa.Cancel(), awa.Fail(), None]

    @awa.task(queue="q")
    def work() -> object:
        return outcomes.pop(0)

    with psycopg.connect(dsn) as tx:
        cancelled, dead, completed = client.enqueue_many([{}] * 3, kind=work, connection=tx)
        assert [job.state for job in drain(connection=tx).jobs] == ["cancelled", "dead_lettered", "completed"]
    outcomes += [None, None]
    assert client.retry(cancelled)
    assert client.retry(dead)
    assert drain(client=client).completed == 2
    assert_consistent(conn, client)
    assert [client.delete(job_id) for job_id in (cancelled, dead, completed)] == [True] * 3
    assert read(conn, "SELECT count(*) FROM awa.jobs") == [(0,)]


def test_copied_jobs_run_like_others(client: awa.Client, dsn: str, conn: psycopg.Connection[Any]) -> None:
    ran: list[int] = []

    @awa.task(queue="q")
    def work(n: int) -> None:
        ran.append(n)

    with psycopg.connect(dsn) as tx:
        client.enqueue_many_copy(({"n": n} for n in range(50)), kind=work, connection=tx)
        assert drain(connection=tx).completed == 50
    assert ran == list(range(50))
    assert_consistent(conn, client)
    assert claim(conn).ids == []
