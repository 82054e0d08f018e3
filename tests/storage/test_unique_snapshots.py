"""Unique keys in a transaction whose snapshot is older than the job that has the key: a conflict, and no database error."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import IsolationLevel, sql
from psycopg.errors import SerializationFailure
from psycopg.pq import TransactionStatus

import awa
from awa.postgres import Connection
from awa.storage.copy import NUMBERED_CHUNK
from awa.unique import OnConflict
from tests.sql.engine import claim, complete
from tests.storage.conftest import Application

at_every_level = pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
Way = Callable[..., list[int]]


def one_user(on_conflict: OnConflict = "raise") -> awa.Unique:
    """One job a user."""
    return awa.Unique(by_args=["user"], on_conflict=on_conflict)


def with_old_snapshot(application: Application, level: IsolationLevel) -> psycopg.Connection[object]:
    """An application's transaction that has looked at the database already."""
    caller = application()
    caller.isolation_level = level
    caller.execute("SELECT count(*) FROM awa.queue_lanes")
    return caller


def many(client: awa.Client, users: list[int], unique: awa.Unique, caller: object) -> list[int]:
    """In one statement."""
    return client.enqueue_many(
        [{"user": user} for user in users], kind="refresh", queue="q", unique=unique, connection=caller
    )


def copied(client: awa.Client, users: list[int], unique: awa.Unique, caller: object) -> list[int]:
    """Through COPY."""
    ids: array[int] = client.enqueue_many_copy(
        ({"user": user} for user in users), kind="refresh", queue="q", unique=unique, connection=caller, return_ids=True
    )
    return list(ids)


both_ways = pytest.mark.parametrize("way", [many, copied])


@both_ways
@at_every_level
def test_a_key_taken_meanwhile_is_a_conflict(
    client: awa.Client, application: Application, way: Way, level: IsolationLevel
) -> None:
    caller = with_old_snapshot(application, level)
    holder = client.enqueue("refresh", {"user": 2}, queue="q", unique=one_user())
    with pytest.raises(awa.UniqueConflict) as refused:
        way(client, [1, 2, 3], one_user(), caller)
    assert (refused.value.job_id, refused.value.index) == (holder, 1)
    assert caller.info.transaction_status == TransactionStatus.INTRANS
    way(client, [1, 3], one_user(), caller)
    caller.commit()
    assert client.queue_counts("q").available == 3


@both_ways
@at_every_level
def test_a_key_taken_meanwhile_is_skipped_or_its_job_returned(
    client: awa.Client, application: Application, way: Way, level: IsolationLevel
) -> None:
    caller = with_old_snapshot(application, level)
    holders = [client.enqueue("refresh", {"user": user}, queue="q", unique=one_user()) for user in (2, 4)]
    ids = way(client, [1, 2, 3, 4], one_user("skip"), caller)
    assert [bool(job_id) for job_id in ids] == [True, False, True, False]
    again = way(client, [4, 5, 2], one_user("return_existing"), caller)
    assert (again[0], again[2]) == (holders[1], holders[0])
    caller.commit()
    assert client.queue_counts("q").available == 5


@both_ways
@at_every_level
@pytest.mark.parametrize("later", [False, True])
def test_a_key_of_the_transaction_itself_is_held_although_it_does_not_see_the_new_lane(
    client: awa.Client, application: Application, way: Way, level: IsolationLevel, later: bool
) -> None:
    caller = with_old_snapshot(application, level)
    run_at = datetime(2100, 1, 1, tzinfo=UTC) if later else None
    own = client.enqueue("refresh", {"user": 1}, queue="q", unique=one_user(), run_at=run_at, connection=caller)
    assert caller.execute("SELECT count(*) FROM awa.queue_lanes").fetchall() == [(0,)]
    with pytest.raises(awa.UniqueConflict) as refused:
        way(client, [1], one_user(), caller)
    assert refused.value.job_id == own
    caller.commit()
    assert client.queue_counts("q").unfinished == 1


@at_every_level
def test_keys_of_a_later_chunk_and_of_the_transaction_itself_are_told_apart(
    client: awa.Client, application: Application, level: IsolationLevel
) -> None:
    caller = with_old_snapshot(application, level)
    own = client.enqueue("refresh", {"user": 0}, queue="q", unique=one_user(), connection=caller)
    holder = client.enqueue("refresh", {"user": NUMBERED_CHUNK + 1}, queue="q", unique=one_user())
    ids = copied(client, list(range(NUMBERED_CHUNK + 2)), one_user("return_existing"), caller)
    assert (ids[0], ids[-1]) == (own, holder)
    caller.commit()
    assert client.queue_counts("q").available == NUMBERED_CHUNK + 2


@both_ways
@at_every_level
def test_a_key_taken_and_released_meanwhile_is_the_database_s_failure_and_costs_a_savepoint(
    client: awa.Client, conn: Connection, application: Application, way: Way, level: IsolationLevel
) -> None:
    caller = with_old_snapshot(application, level)
    client.enqueue("refresh", {"user": 1}, queue="q", unique=one_user())
    assert complete(conn, (claim(conn).claim, None)) == []
    with pytest.raises(SerializationFailure):
        way(client, [1], one_user(), caller)
    assert caller.info.transaction_status == TransactionStatus.INTRANS
    caller.rollback()
    assert len(way(client, [1], one_user(), caller)) == 1
    caller.commit()
    assert client.queue_counts("q").available == 1


@at_every_level
def test_in_a_pipeline_too(client: awa.Client, application: Application, level: IsolationLevel) -> None:
    caller = with_old_snapshot(application, level)
    holder = client.enqueue("refresh", {"user": 2}, queue="q", unique=one_user())
    with caller.pipeline():
        before = caller.execute("SELECT 'before'")
        with pytest.raises(awa.UniqueConflict):
            many(client, [1, 2], one_user(), caller)
        assert many(client, [1, 2], one_user("return_existing"), caller)[1] == holder
        after = caller.execute("SELECT 'after'")
    assert (before.fetchall(), after.fetchall()) == ([("before",)], [("after",)])
    caller.commit()
    assert client.queue_counts("q").available == 2


@both_ways
def test_the_client_s_own_transactions_may_be_of_any_level(client: awa.Client, conn: Connection, dsn: str, way: Way) -> None:
    setting = sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'")
    conn.execute(setting.format(sql.Identifier(conn.info.dbname)))
    with awa.Client(dsn) as strict:
        (holder,) = way(strict, [1], one_user(), None)
        assert way(strict, [2, 1], one_user("return_existing"), None)[1] == holder
        with pytest.raises(awa.UniqueConflict):
            way(strict, [3, 1], one_user(), None)
    assert client.queue_counts("q").available == 2
