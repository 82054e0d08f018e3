"""enqueue_many and enqueue_many_copy: all or nothing, in order, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

import awa
from awa.claim import ARGS
from awa.errors import UnusableConnection
from awa.storage.claim import claim_jobs
from awa.storage.copy import COPY_CHUNK
from tests.sql.engine import RUNTIME
from tests.storage.conftest import Application

LATER = awa.JobOptions(run_at=datetime(2100, 1, 1, tzinfo=UTC))
URGENT = awa.JobOptions(priority=1)


def total(client: awa.Client) -> int:
    """How many jobs there are in all queues."""
    return sum(counts.unfinished for counts in client.list_queues())


def test_ids_are_in_the_order_of_the_jobs_whatever_becomes_of_them(client: awa.Client) -> None:
    options = [None, LATER, URGENT]
    batch = [awa.NewJob({"n": n}, options=options[n % 3]) for n in range(30)]
    ids = client.enqueue_many(batch, kind="work", queue="q")
    found = [job for job_id in ids if (job := client.get_job(job_id))]
    assert [job.args["n"] for job in found] == list(range(30))
    assert [job.state for job in found] == ["available", "scheduled", "available"] * 10
    assert [job.priority for job in found] == [2, 2, 1] * 10


def test_one_refused_job_refuses_its_batch(client: awa.Client) -> None:
    with pytest.raises(awa.InvalidJob, match=r"jobs\[2\]\.args\.n"):
        client.enqueue_many([{"n": 1}, {"n": 2}, {"n": float("inf")}], kind="work", queue="q")
    assert total(client) == 0


def test_an_empty_batch_is_nothing(client: awa.Client) -> None:
    assert client.enqueue_many([], kind="work") == []
    assert client.enqueue_many_copy([], kind="work") == 0
    assert total(client) == 0


def spoiled(at: int) -> Iterator[dict[str, object]]:
    """Jobs, one of which is no good."""
    for n in range(at + 10):
        yield {"n": "\x00" if n == at else n}


def test_a_copy_that_fails_late_leaves_nothing(client: awa.Client) -> None:
    with pytest.raises(awa.InvalidJob, match=r"jobs\[3000\]\.args\.n"):
        client.enqueue_many_copy(spoiled(3000), kind="work", queue="q")
    assert total(client) == 0


def test_a_copy_that_fails_late_leaves_nothing_even_when_the_caller_commits(
    client: awa.Client, application: Application
) -> None:
    conn = application()
    client.enqueue("work", {"n": "mine"}, queue="mine", connection=conn)
    with pytest.raises(awa.InvalidJob, match=r"jobs\[3000\]"):
        client.enqueue_many_copy(spoiled(3000), kind="work", queue="q", connection=conn)
    assert conn.info.transaction_status == TransactionStatus.INTRANS
    conn.commit()
    assert client.queue_counts("q").available == 0
    assert client.queue_counts("mine").available == 1


def test_a_copy_whose_source_raises_leaves_nothing(client: awa.Client) -> None:
    def broken() -> Iterator[dict[str, int]]:
        yield from ({"n": n} for n in range(COPY_CHUNK + 1))
        raise OSError("the file ended early")

    with pytest.raises(OSError, match="early"):
        client.enqueue_many_copy(broken(), kind="work", queue="q")
    assert total(client) == 0
    assert client.enqueue("work", queue="q") > 0


def test_a_copy_on_an_idle_connection_does_not_commit(client: awa.Client, application: Application) -> None:
    conn = application()
    assert client.enqueue_many_copy([{"n": 1}], kind="work", queue="q", connection=conn) == 1
    assert conn.info.transaction_status == TransactionStatus.INTRANS
    assert client.queue_counts("q").available == 0
    conn.rollback()
    assert client.queue_counts("q").available == 0


def test_a_generator_is_read_as_it_is_written(client: awa.Client) -> None:
    read = 0
    written: list[int] = []
    furthest_ahead = 0

    def source() -> Iterator[dict[str, int]]:
        nonlocal read, furthest_ahead
        for n in range(3 * COPY_CHUNK + 7):
            read += 1
            furthest_ahead = max(furthest_ahead, read - (written[-1] if written else 0))
            yield {"n": n}

    assert client.enqueue_many_copy(source(), kind="work", queue="q", progress=written.append) == 3 * COPY_CHUNK + 7
    assert written == [COPY_CHUNK, 2 * COPY_CHUNK, 3 * COPY_CHUNK, 3 * COPY_CHUNK + 7]
    assert furthest_ahead <= COPY_CHUNK
    assert client.queue_counts("q").available == 3 * COPY_CHUNK + 7


def test_nothing_of_a_copy_is_seen_before_all_of_it_is(client: awa.Client, dsn: str) -> None:
    seen: list[int] = []
    with awa.Client(dsn) as other:
        client.enqueue_many_copy(
            ({"n": n} for n in range(2 * COPY_CHUNK)),
            kind="work",
            queue="q",
            progress=lambda _: seen.append(other.queue_counts("q").available),
        )
        assert seen == [0, 0]
        assert other.queue_counts("q").available == 2 * COPY_CHUNK


def test_a_copy_of_ready_and_deferred_jobs_of_several_lanes_keeps_each_job_s_options(client: awa.Client) -> None:
    options: list[Any] = [
        None,
        LATER,
        awa.JobOptions(queue="other", tags=["t"], metadata={"m": 1}, max_attempts=3),
    ]
    client.enqueue_many_copy((awa.NewJob({"n": n}, options=options[n % 3]) for n in range(9)), kind="work", queue="q")
    assert (client.queue_counts("q").available, client.queue_counts("q").scheduled) == (3, 3)
    assert client.queue_counts("other").available == 3
    found = [job for job_id in range(1, 10) if (job := client.get_job(job_id))]
    assert {job.args["n"]: (job.tags, job.metadata, job.max_attempts) for job in found} == {
        n: (("t",), {"m": 1}, 3) if n % 3 == 2 else ((), {}, 25) for n in range(9)
    }


def test_a_copy_in_a_pipeline_is_refused_and_names_the_other_way(client: awa.Client, application: Application) -> None:
    conn = application()
    with pytest.raises(UnusableConnection, match="use enqueue_many"), conn.pipeline():
        client.enqueue_many_copy([{"n": 1}], kind="work", queue="q", connection=conn)
    conn.rollback()
    assert total(client) == 0


@pytest.mark.parametrize("bad", [{"a": {"b: c": float("nan")}}, awa.NewJob({"a": {"b: c": float("nan")}})])
def test_a_refusal_names_the_job_of_the_batch_and_the_path_within_it(client: awa.Client, bad: object) -> None:
    with pytest.raises(awa.InvalidJob, match=r"jobs\[1\]\.args\.a\.b: c: nan is not a JSON number") as refused:
        client.enqueue_many([{"a": 1}, bad], kind="work")
    assert refused.value.field == "jobs[1].args.a.b: c"


def test_copy_switches_between_plain_wide_and_deferred_jobs_without_losing_order(
    client: awa.Client, conn: psycopg.Connection[Any]
) -> None:
    later, past = datetime.now(UTC) + timedelta(hours=1), datetime.now(UTC) - timedelta(hours=1)
    shapes = [awa.JobOptions(), awa.JobOptions(tags=("t",)), awa.JobOptions(run_at=later), awa.JobOptions(run_at=past)]
    count = 2 * COPY_CHUNK + 3
    jobs = [awa.NewJob({"n": n}, options=shapes[0 if n < 5 else n % 4]) for n in range(count)]
    deferred = sum(job.options is shapes[2] for job in jobs)
    assert client.enqueue_many_copy(jobs, kind="work", queue="q") == count
    counts = client.queue_counts("q")
    assert (counts.available, counts.scheduled) == (count - deferred, deferred)
    numbers = [row[ARGS]["n"] for row in claim_jobs(conn, "q", 32767, RUNTIME, 1)]
    assert numbers == [n for n, job in enumerate(jobs) if job.options is not shapes[2]]


def test_copy_of_more_deferred_jobs_than_are_held_back(client: awa.Client) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    jobs = ({"n": n} for n in range(2 * COPY_CHUNK + 1))
    assert client.enqueue_many_copy(jobs, kind="work", queue="q", run_at=later) == 2 * COPY_CHUNK + 1
    assert client.queue_counts("q").scheduled == 2 * COPY_CHUNK + 1
