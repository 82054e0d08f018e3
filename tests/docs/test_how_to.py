"""The Python and the SQL on the pages run as they stand there, and do what the pages say."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import attrs
import psycopg
import psycopg2
import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import awa
from awa import hooks
from awa.client import set_default_client
from awa.testing import drain
from tests.adapters.conftest import sqlalchemy_url
from tests.docs.pages import blocks, pages, run_block
from tests.worker.support import wait_for_counts

Names = dict[str, Any]
Enqueued = Callable[[], list[tuple[str, str]]]

ELSEWHERE = {
    "docs/how-to/testing.md": "tests/testing/test_docs.py",
    "docs/how-to/django.md": "tests/contrib/django/test_page.py",
    "docs/tutorial.md": "test_tutorial.py",
    "docs/how-to/migrate.md": "an Alembic migration",
}
"""Pages whose Python is run by other tests, or not by us."""


@pytest.fixture
def names(client: awa.Client, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """What the pages take for granted."""
    monkeypatch.setenv("AWA_DSN", dsn)
    before = set_default_client(lambda: client)
    yield {
        "awa": awa,
        "client": client,
        "dsn": dsn,
        "psycopg": psycopg,
        "datetime": datetime,
        "timedelta": timedelta,
        "UTC": UTC,
    }
    set_default_client(before)


@pytest.fixture
def tables(dsn: str) -> None:
    """What the pages write besides jobs."""
    with psycopg.connect(dsn) as conn:
        conn.execute("CREATE TABLE users (name text)")
        conn.execute("CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text, charged bool)")
        conn.execute("CREATE TABLE subscribers (email text)")
        conn.execute("INSERT INTO subscribers VALUES ('ada@example.com'), ('eve@example.com')")


@pytest.fixture
def enqueued(client: awa.Client) -> Enqueued:
    """Queue and kind of every job, oldest first."""
    return lambda: [(job.queue, job.kind) for job in client.list_jobs(limit=1000)][::-1]


def run_page(page: str, names: Names) -> None:
    """All Python of a page."""

    async def run() -> None:
        for block in blocks(page, "python"):
            await run_block(block, names)

    asyncio.run(run())


def test_the_readme(names: Names, tables: None, enqueued: Enqueued) -> None:
    run_page("README.md", names)
    assert enqueued() == [("email", "send_welcome")] * 2


def test_enqueue(names: Names, tables: None, client: awa.Client, enqueued: Enqueued) -> None:
    @awa.task
    def ship_order(order_id: int) -> None: ...

    @awa.task
    def send_welcome(to: str, name: str) -> None: ...

    @awa.task
    def send(to: str, queue: str) -> None: ...

    @awa.task
    def remind(user: int) -> None: ...

    people = [("ada@example.com", "Ada"), ("eve@example.com", "Eve")]
    rows = [{"to": "ada", "queue": "fast"}, {"to": "eve", "queue": "slow"}]
    tasks = {task.kind: task for task in (ship_order, send_welcome, send, remind)}
    names.update(tasks, people=people, everybody=iter(people), rows=rows)
    run_page("docs/how-to/enqueue.md", names)
    assert names["count"] == len(names["ids"]) == 2
    assert enqueued() == [
        ("default", "ship_order"),
        *[("default", "send_welcome"), ("bulk", "send_welcome"), ("default", "send_welcome")],
        *[("default", "send_welcome")] * 4,
        *[("fast", "send"), ("slow", "send"), ("default", "send"), ("default", "send"), ("default", "other")],
        ("default", "remind"),
    ]
    assert client.queue_counts("default").scheduled == 1


def test_partitions(names: Names, enqueued: Enqueued) -> None:
    names["rows"] = [{"to": f"user {n}"} for n in range(20)]
    run_page("docs/how-to/partitions.md", names)
    email = awa.PartitionedQueue("email", 4)
    found = enqueued()
    assert found[:2] == [(email.queue_for_key("customer-42"), "send")] * 2
    assert {queue for queue, _ in found[2:]} == set(email.physical_queues)


def test_unique(names: Names, enqueued: Enqueued) -> None:
    with pytest.raises(awa.UniqueConflict):
        run_page("docs/how-to/unique.md", names)
    assert enqueued() == [("default", "refresh")]


def test_sql(names: Names, tables: None, dsn: str, enqueued: Enqueued) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for block in blocks("docs/how-to/sql.md", "sql"):
            conn.execute(block.text.encode())
        conn.execute("INSERT INTO orders (item) VALUES ('teapot')")
    assert enqueued() == [
        ("default", "send_email"),
        *[("mail", "send_email")] * 2,
        ("orders", "confirm_order"),
    ]

    async def run() -> None:
        parts = conninfo_to_dict(dsn)
        given = {name: parts[name] for name in ("user", "password", "host", "port") if name in parts}
        names["asyncpg_connection"] = await asyncpg.connect(database=parts["dbname"], **given)
        for block in blocks("docs/how-to/sql.md", "python"):
            await run_block(block, names)
        await names["asyncpg_connection"].close()

    with closing(psycopg2.connect(dsn)) as other, other, other.cursor() as cursor:
        names["psycopg2_cursor"] = cursor
        asyncio.run(run())
    assert enqueued()[4:] == [("mail", "send_email"), ("default", "send_email")]


class Base(DeclarativeBase):
    """Of the SQLAlchemy page."""


class Order(Base):
    """A row of the application's."""

    __tablename__ = "orders_of_sqlalchemy"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


def test_sqlalchemy(names: Names, dsn: str, enqueued: Enqueued) -> None:
    @awa.task(queue="shipping")
    def ship_order(order_id: int) -> None: ...

    engine = sqlalchemy.create_engine(sqlalchemy_url(dsn))
    Base.metadata.create_all(engine)
    names.update(Session=Session, engine=engine, Order=Order, ship_order=ship_order, text=sqlalchemy.text)
    transaction, statement = blocks("docs/how-to/sqlalchemy.md", "python")

    async def run() -> None:
        await run_block(transaction, names)
        names["order"] = SimpleNamespace(id=1)  # that of the block above is detached by now
        async_engine = create_async_engine(sqlalchemy_url(dsn, "asyncpg"))
        async with AsyncSession(async_engine) as names["async_session"], names["async_session"].begin():
            await run_block(statement, names)
        await async_engine.dispose()

    asyncio.run(run())
    assert enqueued() == [("shipping", "ship_order")] * 2
    with Session(engine) as session:
        assert session.scalars(sqlalchemy.select(Order.item)).all() == ["teapot"]
    engine.dispose()


def test_flask(names: Names, dsn: str, enqueued: Enqueued) -> None:
    @awa.task(queue="email")
    def send_welcome(to: str) -> None: ...

    (block,) = blocks("docs/how-to/flask.md", "python")
    here = attrs.evolve(block, text=block.text.replace("postgresql://db/app", dsn))
    names["__name__"] = "shop"
    asyncio.run(run_block(here, names))
    app = names["create_app"]()
    app.post("/welcome")(lambda: str(send_welcome.enqueue(to="ada@example.com")))
    assert app.test_client().post("/welcome").text == "1"
    assert enqueued() == [("email", "send_welcome")]
    app.extensions["awa"].close()
    assert app.test_cli_runner().invoke(args=["awa", "queue", "counts", "email", "--json"]).exit_code == 0


def test_endings(names: Names, tables: None, client: awa.Client) -> None:
    def result(job_id: int, *, timeout: float) -> Any:
        drain(client=client)
        return client.result(job_id, timeout=timeout)

    names.update(
        client=SimpleNamespace(result=result), post=lambda url: SimpleNamespace(status=200), withdrawn=lambda url: False
    )
    run_page("docs/how-to/endings.md", names)
    names["charge"].enqueue(order=1)
    names["deliver"].enqueue("https://example.com")
    for name in "abcd":
        names[name].enqueue()
    assert drain(client=client).completed == 6


def test_long_jobs(names: Names, dsn: str, client: awa.Client) -> None:
    references: list[str] = []
    gateway = SimpleNamespace(charge=lambda order, reference: references.append(reference))
    names.update(rows=lambda path, after: [(n, "row") for n in range(after + 1, 3001)], total=3000, gateway=gateway)
    importing, paying, answering = blocks("docs/how-to/long-jobs.md", "python")
    for block in (importing, paying):
        asyncio.run(run_block(block, names))
    with awa.Worker({"default": 1}, dsn=dsn):
        imported = names["import_file"].enqueue("x.csv")
        paid = names["pay"].enqueue(order=1)
        wait_for_counts(client, "default", completed=1, waiting=1)
        names["reference"] = references[0]
        asyncio.run(run_block(answering, names))
        assert client.result(paid, timeout=30) == {"receipt": "r-17"}
    job = client.get_job(imported)
    assert job is not None
    assert job.checkpoint == {"line": 3000}


def test_workers(names: Names, dsn: str, client: awa.Client, caplog: pytest.LogCaptureFixture) -> None:
    traced: list[str] = []

    @contextmanager
    def start_span(kind: str) -> Iterator[None]:
        traced.append(kind)
        yield

    names.update(
        log=logging.getLogger("app"),
        attrs=attrs,
        contextmanager=contextmanager,
        Iterator=Iterator,
        tracer=SimpleNamespace(start_span=start_span),
    )
    with kept_hooks(), caplog.at_level(logging.INFO, "app"):
        run_page("docs/how-to/workers.md", names)
        names["resize"].enqueue("a.png")
        names["ship"].enqueue(names["Order"](1, ["teapot"]))
        with awa.Worker({"default": 1}, dsn=dsn):
            wait_for_counts(client, "default", completed=2)
    assert traced == ["resize", "ship"]
    assert "attempt 1" in caplog.text


@contextmanager
def kept_hooks() -> Iterator[None]:
    """Forget the hooks that the block registers."""
    before = list(hooks.hooks)
    yield
    hooks.hooks[:] = before


def test_no_page_is_left_out() -> None:
    tested = {name for name in globals() if name.startswith("test_")}
    left_out = [
        page
        for page in pages()
        if blocks(page, "python") and page not in ELSEWHERE
        if f"test_{'the_' * (page == 'README.md')}{Path(page).stem.replace('-', '_').lower()}" not in tested
    ]
    assert left_out == []
