"""enqueue_sql: statements for other drivers, executed by those drivers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import asyncpg
import psycopg
import psycopg2
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import awa
from awa import enqueue_sql
from awa.statement import Statement
from tests.adapters.conftest import sqlalchemy_url

OPTIONS: dict[str, Any] = {
    "queue": "qüeue",
    "priority": 1,
    "max_attempts": 3,
    "run_at": datetime(2100, 1, 1, 12, 30, tzinfo=UTC),
    "tags": ["plain", 'with "quotes"', "back\\slash", "a,b", "{}", "NULL", "%s :kind ? $1"],
    "metadata": {"trace": [1, 2.5, None, "%s"]},
}
ARGS = {"text": "it's 100 % :kind ? $1 \\ \"", "float": 1e300, "none": None}


def by_raw_cursor(dsn: str, statement: Statement) -> int:
    """The drivers: this is psycopg, with the server's own parameters."""
    with psycopg.connect(dsn) as conn:
        return int(psycopg.RawCursor(conn).execute(statement.text, statement.parameters).fetchall()[0][0])


def by_asyncpg(dsn: str, statement: Statement) -> int:
    """asyncpg."""
    given = conninfo_to_dict(dsn)

    async def execute() -> int:
        conn = await asyncpg.connect(
            user=given.get("user"),
            password=given.get("password"),
            database=given["dbname"],
            host=given["host"],
            port=given.get("port"),
        )
        async with conn.transaction():
            job_id = await conn.fetchval(statement.text, *statement.parameters)
        await conn.close()
        return int(job_id)

    return asyncio.run(execute())


def by_psycopg2(dsn: str, statement: Statement) -> int:
    """psycopg2."""
    with closing(psycopg2.connect(dsn)) as conn, conn, conn.cursor() as cursor:
        cursor.execute(statement.text, statement.parameters)
        return int(cursor.fetchone()[0])


def by_psycopg(dsn: str, statement: Statement) -> int:
    """psycopg 3."""
    with psycopg.connect(dsn) as conn:
        return int(conn.execute(statement.text.encode(), statement.parameters).fetchall()[0][0])


def by_question_marks(dsn: str, statement: Statement) -> int:
    """What JDBC and ODBC make of question marks: parameters by number, all texts but the integers."""
    numbers = iter(range(1, 100))
    assert "'" not in statement.text
    return by_raw_cursor(dsn, Statement(re.sub(r"\?", lambda _: f"${next(numbers)}", statement.text), statement.parameters))


def by_sqlalchemy(driver: str) -> Callable[[str, Statement], int]:
    """SQLAlchemy's asynchronous session."""

    def run(dsn: str, statement: Statement) -> int:
        async def execute() -> int:
            engine = create_async_engine(sqlalchemy_url(dsn, driver))
            async with AsyncSession(engine) as session, session.begin():
                job_id = (await session.execute(text(statement.text), statement.parameters)).scalar_one()
            await engine.dispose()
            return int(job_id)

        return asyncio.run(execute())

    run.__name__ = f"by_sqlalchemy_{driver}"
    return run


DRIVERS = [
    ("numeric_dollar", by_raw_cursor),
    ("numeric_dollar", by_asyncpg),
    ("format", by_psycopg2),
    ("format", by_psycopg),
    ("qmark", by_question_marks),
    ("named", by_sqlalchemy("psycopg")),
    ("named", by_sqlalchemy("asyncpg")),
]


@pytest.mark.parametrize(("style", "execute"), DRIVERS, ids=[execute.__name__ for _, execute in DRIVERS])
def test_a_job_is_the_same_as_the_client_s(
    dsn: str, client: awa.Client, style: Any, execute: Callable[[str, Statement], int]
) -> None:
    for options in ({}, OPTIONS):
        found = client.get_job(execute(dsn, enqueue_sql("work", ARGS, paramstyle=style, **options)))
        expected = client.get_job(client.enqueue("work", ARGS, **options))
        assert found is not None
        assert expected is not None
        same = ("kind", "args", "queue", "priority", "max_attempts", "tags", "metadata", "state")
        assert [getattr(found, name) for name in same] == [getattr(expected, name) for name in same]
        if options:
            assert found.run_at == OPTIONS["run_at"]


def test_a_rollback_takes_the_job_with_it(dsn: str, client: awa.Client) -> None:
    with closing(psycopg2.connect(dsn)) as conn, conn.cursor() as cursor:
        cursor.execute(*enqueue_sql("work", paramstyle="format", queue="q"))
        conn.rollback()
        cursor.execute(*enqueue_sql("work", paramstyle="format", queue="q"))
        assert client.queue_counts("q").available == 0
        conn.commit()
    assert client.queue_counts("q").available == 1


def test_a_unique_key_goes_along(dsn: str) -> None:
    first = by_psycopg2(dsn, enqueue_sql("work", paramstyle="format", unique_key="o'clock"))
    assert by_psycopg2(dsn, enqueue_sql("work", paramstyle="format", unique_key="o'clock")) == first
    assert by_psycopg2(dsn, enqueue_sql("work", paramstyle="format", unique_key="other")) != first


def test_a_task_brings_its_options() -> None:
    @awa.task(kind="send", queue="mail", priority=3, tags=["t"])
    def send(to: str) -> None: ...

    statement = enqueue_sql(send, {"to": "ada"}, priority=1, paramstyle="named")
    assert statement.parameters == {
        "kind": "send",
        "args": '{"to":"ada"}',
        "queue": "mail",
        "priority": 1,
        "max_attempts": 25,
        "tags": '{"t"}',
    }


def test_a_key_chooses_the_partition(dsn: str, client: awa.Client) -> None:
    queue = awa.PartitionedQueue("mail", 4)
    for key in ("ada", b"\x00\xff", ""):
        job = client.get_job(by_psycopg2(dsn, enqueue_sql("work", paramstyle="format", queue=queue, ordering_key=key)))
        assert job is not None
        assert job.queue == queue.queue_for_key(key)
    anywhere = {enqueue_sql("work", queue=queue).parameters[2] for _ in range(200)}
    assert anywhere == set(queue.physical_queues)


def test_jobs_that_differ_in_values_have_one_text() -> None:
    texts = {enqueue_sql("a", {"n": n}, queue=f"q{n}", tags=["t"] * (n + 1)).text for n in range(3)}
    assert len(texts) == 1
    assert enqueue_sql("a", paramstyle="qmark").text == (
        "SELECT awa.enqueue(kind => CAST(? AS text), args => CAST(? AS json), queue => CAST(? AS text), "
        "priority => CAST(? AS int4), max_attempts => CAST(? AS int4)) AS job_id"
    )


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("queue", {"queue": ""}),
        ("priority", {"priority": 5}),
        ("args", {"args": [1]}),
        ("args.n", {"args": {"n": float("nan")}}),
        ("run_at", {"run_at": datetime(2100, 1, 1)}),  # noqa: DTZ001 - that is what is wrong with it
        ("tags[0]", {"tags": [""]}),
        ("metadata.x", {"metadata": {"x": "\x00"}}),
        ("unique_key", {"unique_key": ""}),
        ("unique_key", {"unique_key": "k" * 1001}),
        ("unique_key", {"unique_key": "\x00"}),
        ("unique_key", {"unique_key": 1}),
    ],
)
def test_a_bad_job_is_refused_before_there_is_a_statement(field: str, options: dict[str, Any]) -> None:
    with pytest.raises(awa.InvalidJob) as refused:
        enqueue_sql("work", **{"args": {}, **options})
    assert refused.value.field == field


def test_a_task_with_a_unique_key_of_the_client_s_is_refused() -> None:
    @awa.task(kind="once", unique=awa.Unique())
    def once() -> None: ...

    with pytest.raises(awa.InvalidJob, match="pass unique_key"):
        enqueue_sql(once)


def test_an_unknown_style_is_refused_with_the_known_ones() -> None:
    with pytest.raises(awa.ConfigurationError, match="numeric_dollar, format, qmark, named, not 'dollar'"):
        enqueue_sql("work", paramstyle="dollar")  # type: ignore[arg-type]
