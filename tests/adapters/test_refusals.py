"""What connection= does not take, by name, with what to do instead; and connections in a state that takes no job."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import psycopg
import psycopg2
import psycopg_pool
import pytest
import sqlalchemy
from psycopg.pq import TransactionStatus
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

import awa
from awa import connections
from awa.connections import unwrap_connection
from awa.errors import UnusableConnection
from tests.adapters.conftest import sqlalchemy_url
from tests.adapters.test_sqlalchemy import every_way, in_queue, one
from tests.storage.conftest import Application
from tests.waiting import wait_for


@pytest.mark.parametrize("thing", [42, object(), ["conn"], {}, 0, b"", False, lambda: None])
def test_anything_else_is_a_type_error_that_says_what_to_pass(client: awa.Client, thing: object) -> None:
    with pytest.raises(TypeError, match=r"pass a psycopg 3 Connection or Cursor, a Django alias .* SQLAlchemy Session"):
        one(client, thing)


def test_a_text_without_django_is_refused_and_explained(dsn: str) -> None:
    program = (
        "import sys, awa, awa.connections\n"
        "try: awa.connections.unwrap_connection('default')\n"
        "except TypeError as error: print(error)\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('django', 'sqlalchemy', 'flask')))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    said, imported = run.stdout.splitlines()
    assert "a text, which names a Django connection where Django is in use" in said
    assert imported == "[]"


def test_sqlalchemy_on_psycopg2_is_refused_by_name(client: awa.Client, dsn: str) -> None:
    engine = sqlalchemy.create_engine(sqlalchemy_url(dsn, "psycopg2"))
    with engine.connect() as conn, Session(engine) as session:
        for given in (conn, session):
            with pytest.raises(TypeError, match=r"\+psycopg2: use postgresql\+psycopg, or .*enqueue_sql"):
                one(client, given)
    engine.dispose()


def test_sqlalchemy_on_asyncpg_is_refused_by_name(client: awa.Client, dsn: str) -> None:
    asyncio.run(refused_in_asyncpg(client, dsn))


async def refused_in_asyncpg(client: awa.Client, dsn: str) -> None:
    """Both the asynchronous objects and the synchronous ones behind them."""
    engine = create_async_engine(sqlalchemy_url(dsn, "asyncpg"))
    async with AsyncSession(engine) as session, engine.connect() as conn:
        for given in (session, conn):
            with pytest.raises(TypeError, match=r"is asynchronous: .*enqueue_sql"):
                one(client, given)
        with pytest.raises(TypeError, match=r"postgresql\+asyncpg"):
            await session.run_sync(lambda inner: one(client, inner))
    await engine.dispose()


def test_sqlalchemy_s_asynchronous_psycopg_is_refused_by_name(client: awa.Client, dsn: str) -> None:
    async def refused() -> None:
        engine = create_async_engine(sqlalchemy_url(dsn))
        async with AsyncSession(engine) as session:
            with pytest.raises(TypeError, match=r"AsyncSession is asynchronous: .*enqueue_sql"):
                one(client, session)
            with pytest.raises(TypeError, match=r"is asynchronous: .*enqueue_sql"):
                await session.run_sync(lambda inner: one(client, inner))
        await engine.dispose()

    asyncio.run(refused())


def test_psycopg_s_asynchronous_connection_is_refused_by_name(client: awa.Client, dsn: str) -> None:
    async def refused() -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as conn:
            for given in (conn, conn.cursor()):
                with pytest.raises(TypeError, match=r"Async\w+ is asynchronous: .*enqueue_sql"):
                    one(client, given)

    asyncio.run(refused())


def test_other_drivers_connections_are_refused_by_name(client: awa.Client, dsn: str) -> None:
    conn = psycopg2.connect(dsn)
    for given in (conn, conn.cursor()):
        with pytest.raises(TypeError, match=r"belongs to psycopg2, and awa speaks psycopg 3: .*enqueue_sql"):
            one(client, given)
    conn.close()

    async def refused() -> None:
        given = psycopg.conninfo.conninfo_to_dict(dsn)
        conn = await asyncpg.connect(
            user=given.get("user"),
            password=given.get("password"),
            database=given["dbname"],
            host=given["host"],
            port=given.get("port"),
        )
        with pytest.raises(TypeError, match=r"belongs to asyncpg, and awa speaks psycopg 3: .*enqueue_sql"):
            one(client, conn)
        await conn.close()

    asyncio.run(refused())


def test_what_has_no_transaction_is_refused_by_name(client: awa.Client, dsn: str, engine: sqlalchemy.Engine) -> None:
    with psycopg_pool.ConnectionPool(dsn, min_size=0, max_size=1, open=False) as pool:
        for given in (engine, sessionmaker(engine), pool):
            with pytest.raises(TypeError, match=r"has no transaction: pass"):
                one(client, given)


def test_another_database_of_sqlalchemy_is_refused_by_name(client: awa.Client) -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as conn, pytest.raises(TypeError, match=r"sqlite\+pysqlite: awa's jobs live in PostgreSQL"):
        one(client, conn)
    engine.dispose()


@every_way
def test_a_closed_connection_is_refused_by_name(client: awa.Client, application: Application, enqueue: Any) -> None:
    conn = application()
    conn.close()
    with pytest.raises(UnusableConnection, match="is closed"):
        enqueue(client, conn)


@every_way
def test_a_connection_the_server_has_ended_is_refused_or_lost(
    client: awa.Client, application: Application, enqueue: Any
) -> None:
    conn = application()
    pid = conn.info.backend_pid
    with client._connection() as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    with pytest.raises(psycopg.OperationalError):
        enqueue(client, conn)
    with pytest.raises(UnusableConnection, match="is closed"):
        enqueue(client, conn)


@every_way
def test_a_connection_in_the_middle_of_a_copy_is_refused_by_name(
    client: awa.Client, application: Application, enqueue: Any
) -> None:
    conn = application()
    with conn.cursor() as cursor, cursor.copy("COPY (SELECT generate_series(1, 3)) TO STDOUT") as copy:
        with pytest.raises(UnusableConnection, match="in the middle of a COPY"):
            enqueue(client, conn)
        assert len([*copy]) == 3
    enqueue(client, conn)
    conn.commit()
    assert in_queue(client) == 1


@every_way
def test_a_connection_whose_result_is_streamed_is_refused_by_name(
    client: awa.Client, application: Application, enqueue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BUSY_FOR", 0.01)
    conn = application()
    for row in conn.cursor().stream("SELECT generate_series(1, 3)"):
        assert row
        with pytest.raises(UnusableConnection, match="streamed result"):
            enqueue(client, conn)
    enqueue(client, conn)
    conn.commit()
    assert in_queue(client) == 1


def test_a_connection_that_another_thread_uses_is_waited_for(client: awa.Client, application: Application) -> None:
    conn = application(autocommit=True)
    other = application(autocommit=True)
    other.execute("SELECT pg_advisory_lock(1)")
    with ThreadPoolExecutor(2) as threads:
        statement = threads.submit(conn.execute, "SELECT pg_advisory_lock(1)")
        wait_for(lambda: conn.info.transaction_status == TransactionStatus.ACTIVE)
        enqueueing = threads.submit(one, client, conn)
        other.execute("SELECT pg_advisory_unlock(1)")
        statement.result()
        assert enqueueing.result()
    assert in_queue(client) == 1


def test_a_cursor_stands_for_its_connection(client: awa.Client, application: Application) -> None:
    conn = application()
    assert unwrap_connection(conn.cursor(binary=True)) is conn
    with conn.cursor("on_the_server") as cursor:
        cursor.execute("SELECT generate_series(1, 3)")
        one(client, cursor)
        assert cursor.fetchall() == [(1,), (2,), (3,)]
    conn.commit()
    assert in_queue(client) == 1


def test_a_connection_to_a_database_without_awa_is_told_to_migrate(client: awa.Client, empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn) as conn, pytest.raises(awa.SchemaOutOfDate, match="awa migrate"):
        one(client, conn)
