"""enqueue(connection=...): the job commits and rolls back with the caller, whose connection stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row, dict_row, namedtuple_row, scalar_row

import awa
from awa.errors import UnusableConnection
from tests.storage.conftest import Application

Connection = psycopg.Connection[Any]
Enqueue = Callable[[awa.Client, Connection], object]


def one(client: awa.Client, conn: Connection) -> object:
    """The three ways to put a job into the queue: this is one job."""
    return client.enqueue("work", {"n": 1}, queue="q", connection=conn)


def many(client: awa.Client, conn: Connection) -> object:
    """A batch, some of it for later."""
    later = awa.JobOptions(run_at=datetime(2100, 1, 1, tzinfo=UTC), queue="later")
    return client.enqueue_many([{"n": 1}, awa.NewJob({"n": 2}, options=later)], kind="work", queue="q", connection=conn)


def copied(client: awa.Client, conn: Connection) -> object:
    """Through COPY."""
    return client.enqueue_many_copy([{"n": 1}], kind="work", queue="q", connection=conn)


every_way = pytest.mark.parametrize("enqueue", [one, many, copied])

FACTORIES: list[dict[str, Any]] = [
    {"row_factory": dict_row},
    {"row_factory": namedtuple_row},
    {"row_factory": scalar_row},
    {"row_factory": class_row(dict)},
    {"cursor_factory": psycopg.ClientCursor},
    {"cursor_factory": psycopg.RawCursor},
    {"cursor_factory": psycopg.ClientCursor, "row_factory": dict_row},
    {"prepare_threshold": None},
    {"prepare_threshold": 0},
]


def in_queue(client: awa.Client) -> int:
    """How many jobs wait in q, as everybody else sees it."""
    return client.queue_counts("q").available


@every_way
def test_jobs_commit_with_the_caller(client: awa.Client, application: Application, enqueue: Enqueue) -> None:
    conn = application()
    enqueue(client, conn)
    assert conn.info.transaction_status == TransactionStatus.INTRANS
    assert in_queue(client) == 0
    conn.commit()
    assert in_queue(client) == 1


@every_way
def test_jobs_roll_back_with_the_caller(client: awa.Client, application: Application, enqueue: Enqueue) -> None:
    conn = application()
    conn.execute("CREATE TABLE business (id int)")
    enqueue(client, conn)
    conn.rollback()
    assert in_queue(client) == 0
    assert client.queue_counts("later").scheduled == 0
    assert conn.execute("SELECT to_regclass('business')").fetchall() == [(None,)]


@every_way
def test_on_an_autocommit_connection_jobs_are_committed_at_once(
    client: awa.Client, application: Application, enqueue: Enqueue
) -> None:
    conn = application(autocommit=True)
    enqueue(client, conn)
    assert conn.info.transaction_status == TransactionStatus.IDLE
    assert in_queue(client) == 1


@every_way
def test_a_transaction_block_on_an_autocommit_connection_is_respected(
    client: awa.Client, application: Application, enqueue: Enqueue
) -> None:
    conn = application(autocommit=True)
    with conn.transaction(force_rollback=True):
        enqueue(client, conn)
        assert in_queue(client) == 0
    assert in_queue(client) == 0
    with conn.transaction():
        enqueue(client, conn)
        assert in_queue(client) == 0
    assert in_queue(client) == 1


@every_way
def test_jobs_of_a_rolled_back_savepoint_are_gone_and_the_others_stay(
    client: awa.Client, application: Application, enqueue: Enqueue
) -> None:
    conn = application()
    enqueue(client, conn)
    with conn.transaction(force_rollback=True):
        enqueue(client, conn)
    with conn.transaction():
        enqueue(client, conn)
    assert conn.info.transaction_status == TransactionStatus.INTRANS
    conn.commit()
    assert in_queue(client) == 2


@every_way
def test_any_row_and_cursor_factory_will_do(client: awa.Client, application: Application, enqueue: Enqueue) -> None:
    for number, options in enumerate(FACTORIES):
        conn = application(**options)
        for _ in range(2):
            enqueue(client, conn)
        conn.commit()
        assert in_queue(client) == 2 * number + 2, options


@every_way
def test_a_failed_transaction_is_refused_and_named(client: awa.Client, application: Application, enqueue: Enqueue) -> None:
    conn = application()
    with pytest.raises(psycopg.errors.DivisionByZero):
        conn.execute("SELECT 1 / 0")
    with pytest.raises(UnusableConnection, match="has failed"):
        enqueue(client, conn)
    assert conn.info.transaction_status == TransactionStatus.INERROR
    conn.rollback()
    enqueue(client, conn)
    conn.commit()
    assert in_queue(client) == 1


@every_way
@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
def test_a_caller_with_an_older_snapshot_may_enqueue_to_a_lane_made_after_it(
    client: awa.Client, application: Application, enqueue: Enqueue, level: psycopg.IsolationLevel
) -> None:
    conn = application()
    conn.isolation_level = level
    conn.execute("SELECT count(*) FROM awa.queue_lanes")
    enqueue(client, conn)
    conn.commit()
    assert in_queue(client) == 1


@every_way
def test_the_caller_s_connection_is_as_it_was(client: awa.Client, application: Application, enqueue: Enqueue) -> None:
    conn = application(row_factory=dict_row, cursor_factory=psycopg.ClientCursor, prepare_threshold=3)

    def settings() -> list[Any]:
        return conn.execute("SELECT name, setting FROM pg_settings ORDER BY name").fetchall()

    conn.execute("DO 'BEGIN END'")  # loads plpgsql, which has settings of its own
    before = settings()
    enqueue(client, conn)
    assert settings() == before
    assert (conn.autocommit, conn.isolation_level, conn.prepare_threshold) == (False, None, 3)
    assert (conn.row_factory, conn.cursor_factory) == (dict_row, psycopg.ClientCursor)
    conn.commit()
    assert settings() == before


def test_reading_in_between_sees_the_caller_s_own_jobs(client: awa.Client, application: Application) -> None:
    conn = application()
    job_id = client.enqueue("work", {"n": 1}, queue="q", connection=conn)
    assert conn.execute("SELECT state FROM awa.jobs WHERE job_id = %s", (job_id,)).fetchall() == [("available",)]
    assert client.get_job(job_id) is None
    conn.commit()
    assert client.get_job(job_id) is not None


def test_a_refused_job_leaves_the_caller_s_transaction_usable(client: awa.Client, application: Application) -> None:
    conn = application()
    client.enqueue("work", {"n": 1}, queue="q", connection=conn)
    with pytest.raises(awa.InvalidJob):
        client.enqueue("work", {"n": float("nan")}, queue="q", connection=conn)
    with pytest.raises(awa.InvalidJob):
        client.enqueue_many([{"n": 2}, {"n": float("nan")}], kind="work", queue="q", connection=conn)
    conn.commit()
    assert in_queue(client) == 1
