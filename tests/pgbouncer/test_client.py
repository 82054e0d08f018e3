"""A client behind PgBouncer, and an application's own connection through it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import awa
from awa.postgres import connect, is_pooled
from tests.cli.commands import run
from tests.pgbouncer.conftest import POOL_SIZE, PgBouncer

LEFT_BEHIND = """
    SELECT (SELECT array_agg(name ORDER BY name) FROM pg_settings WHERE source = 'session' AND name <> 'application_name'),
           (SELECT array_agg(statement) FROM pg_prepared_statements),
           (SELECT array_agg(c) FROM pg_listening_channels() c),
           (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
"""


def left_behind(pooled_dsn: str) -> set[tuple[Any, ...]]:
    """What each of the pool's server sessions has been left with."""
    found = {}
    with ThreadPoolExecutor(POOL_SIZE) as threads:
        connections = [psycopg.connect(pooled_dsn, prepare_threshold=None) for _ in range(POOL_SIZE)]
        for conn in connections:  # a transaction each at the same time: a session each
            pid = conn.execute("SELECT pg_backend_pid()").fetchall()[0][0]
            found[pid] = conn.execute(LEFT_BEHIND).fetchall()[0]
        list(threads.map(lambda conn: conn.close(), connections))
    assert len(found) == POOL_SIZE
    return {tuple(map(str, row)) for row in found.values()}


CLEAN = {("None", "None", "None", "0")}


def test_a_pooler_is_recognised_and_a_server_is_not_taken_for_one(dsn: str, pooled_dsn: str) -> None:
    with connect(dsn, "awa test") as direct, connect(pooled_dsn, "awa test") as pooled:
        assert (is_pooled(direct), is_pooled(pooled)) == (False, True)
        assert (direct.prepare_threshold, pooled.prepare_threshold) == (5, None)


def use_every_verb(client: awa.Client) -> int:
    """How many jobs wait after it."""
    later = datetime.now(UTC) + timedelta(days=1)
    client.enqueue("work", {"n": 1}, queue="q")
    client.enqueue("work", {"n": 1}, queue="q", run_at=later)
    client.enqueue_many([{"n": n} for n in range(3)], kind="work", queue="q", tags=["t"])
    client.enqueue_many_copy([{"n": n} for n in range(3)], kind="work", queue="q")
    parts = awa.PartitionedQueue("parts", 2)
    own = awa.Unique(on_conflict="skip")
    ids = client.enqueue_many_copy(
        [{"n": n} for n in range(4)],
        kind="work",
        queue=parts,
        opts=lambda args: awa.JobOptions(ordering_key=str(args["n"]), unique=own if args["n"] else None),
        return_ids=True,
    )
    assert ids[0] > 0
    assert [job.queue for job in client.list_jobs(queue=parts)]
    unique = client.enqueue("work", {}, queue="q", unique=awa.Unique(on_conflict="return_existing"))
    assert client.enqueue("work", {}, queue="q", unique=awa.Unique(on_conflict="return_existing")) == unique
    assert client.cancel(client.enqueue("work", {"n": 2}, queue="q"))
    assert client.get_job(unique) is not None
    client.pause_queue("q")
    client.resume_queue("q")
    return client.queue_counts("q").available


def test_every_verb_works_more_often_than_a_statement_needs_to_be_prepared(pooled_client: awa.Client) -> None:
    found = [use_every_verb(pooled_client) for _ in range(8)]
    assert found == [8 + 7 * n for n in range(8)]  # the unique job is there once


def test_many_threads_share_few_sessions_and_leave_nothing_in_them(pooled_client: awa.Client, pooled_dsn: str) -> None:
    def enqueue(thread: int) -> list[int]:
        return [pooled_client.enqueue("work", {"thread": thread, "n": n}, queue="q") for n in range(40)]

    with ThreadPoolExecutor(8) as threads:
        ids = [job_id for found in threads.map(enqueue, range(8)) for job_id in found]
    assert len(set(ids)) == 320
    assert pooled_client.queue_counts("q").available == 320
    use_every_verb(pooled_client)
    assert left_behind(pooled_dsn) == CLEAN


def test_what_would_be_left_behind_is_seen(dsn: str, pooled_dsn: str) -> None:
    with psycopg.connect(pooled_dsn, autocommit=True) as conn:
        conn.execute("SET jit = off")
        conn.execute("LISTEN somewhere")
        assert left_behind(pooled_dsn) != CLEAN
        conn.execute("DISCARD ALL")


def test_an_application_s_own_transaction_through_the_pooler(
    client: awa.Client, pooled_dsn: str, pooled_client: awa.Client
) -> None:
    for committed in range(12):
        with psycopg.connect(pooled_dsn) as conn:  # with psycopg's default threshold
            for _ in range(2):
                pooled_client.enqueue("work", {"n": 1}, queue="q", connection=conn)
                assert client.queue_counts("q").available == committed
                conn.rollback()
            pooled_client.enqueue_many_copy([{"n": 2}], kind="work", queue="q", connection=conn)
            taken = awa.Unique(on_conflict="skip")
            ids = pooled_client.enqueue_many_copy([{}, {}], kind="one", unique=taken, connection=conn, return_ids=True)
            assert [bool(job_id) for job_id in ids] == [not committed, False]
            conn.commit()
    assert client.queue_counts("q").available == 12
    assert client.queue_counts("default").available == 1
    assert left_behind(pooled_dsn) == CLEAN


def test_migrate_goes_through(pgbouncer: PgBouncer, empty_dsn: str) -> None:
    pooled = pgbouncer.dsn(str(psycopg.conninfo.conninfo_to_dict(empty_dsn)["dbname"]))
    for _ in range(2):
        done = run(pooled, "migrate")
        assert done.returncode == 0, done.stderr
    with awa.Client(pooled) as client:
        assert client.enqueue("work") == 1


def test_start_up_options_that_the_pooler_refuses_are_named(pooled_dsn: str) -> None:
    refused = make_conninfo(pooled_dsn, options="-c statement_timeout=5s")
    with (
        awa.Client(refused, connect_timeout=2) as client,
        pytest.raises(awa.DatabaseUnavailable, match="unsupported startup parameter: options"),
    ):
        client.enqueue("work")
