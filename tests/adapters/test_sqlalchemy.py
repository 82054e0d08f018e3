"""enqueue(connection=...) with SQLAlchemy: the job commits and rolls back with the session."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import awa
from awa.errors import UnusableConnection
from tests.adapters.conftest import sqlalchemy_url

numbers = itertools.count()
Enqueue = Callable[[awa.Client, Any], object]


def one(client: awa.Client, given: Any) -> object:
    """The ways to put a job into the queue: this is one job."""
    return client.enqueue("work", {"n": 1}, queue="q", connection=given)


def many(client: awa.Client, given: Any) -> object:
    """A batch of one."""
    return client.enqueue_many([{"n": 1}], kind="work", queue="q", connection=given)


def copied(client: awa.Client, given: Any) -> object:
    """Through COPY."""
    return client.enqueue_many_copy([{"n": 1}], kind="work", queue="q", connection=given)


def copied_in_full(client: awa.Client, given: Any) -> object:
    """Through COPY, with everything that one can ask of it."""
    (job_id,) = client.enqueue_many_copy(
        [{"n": next(numbers)}],
        kind="work",
        queue=awa.PartitionedQueue("q", 1),
        unique=awa.Unique(),
        opts=lambda args: awa.JobOptions(ordering_key=str(args["n"]), tags=["é"], metadata={"n": args["n"]}),
        progress=lambda done: done,
        connection=given,
        return_ids=True,
    )
    return job_id


def unique(client: awa.Client, given: Any) -> object:
    """With a key that no other job has."""
    return client.enqueue("work", {"n": next(numbers)}, queue="q", unique=awa.Unique(), connection=given)


def by_task(client: awa.Client, given: Any) -> object:
    """Through a task's options."""

    @awa.task(kind="work", queue="q")
    def work(n: int) -> None: ...

    return work.options(client=client, connection=given).enqueue(n=1)


every_way = pytest.mark.parametrize("enqueue", [one, many, copied, copied_in_full, unique, by_task])


@contextmanager
def a_session(engine: Engine) -> Iterator[Session]:
    """The things SQLAlchemy has transactions in: this is a session."""
    with Session(engine) as session:
        yield session


@contextmanager
def a_scoped_session(engine: Engine) -> Iterator[scoped_session[Session]]:
    """What Flask-SQLAlchemy's db.session is."""
    session = scoped_session(sessionmaker(engine))
    yield session
    session.remove()


@contextmanager
def a_connection(engine: Engine) -> Iterator[sqlalchemy.Connection]:
    """Without the ORM."""
    with engine.connect() as conn:
        yield conn


every_kind = pytest.mark.parametrize("opened", [a_session, a_scoped_session, a_connection])


def in_queue(client: awa.Client) -> int:
    """How many jobs wait in q, as everybody else sees it."""
    return client.queue_counts("q").available


@every_kind
@every_way
def test_jobs_commit_with_sqlalchemys_transaction(client: awa.Client, engine: Engine, opened: Any, enqueue: Enqueue) -> None:
    with opened(engine) as given:
        enqueue(client, given)
        assert in_queue(client) == 0
        given.commit()
        assert in_queue(client) == 1


@every_kind
@every_way
def test_jobs_roll_back_with_sqlalchemys_transaction(
    client: awa.Client, engine: Engine, opened: Any, enqueue: Enqueue
) -> None:
    with opened(engine) as given:
        given.execute(text("CREATE TABLE business (id int)"))
        enqueue(client, given)
        given.rollback()
        assert given.execute(text("SELECT to_regclass('business') IS NULL")).scalar_one()
    assert in_queue(client) == 0


@every_kind
def test_an_enqueue_alone_is_a_transaction_that_commit_ends(client: awa.Client, engine: Engine, opened: Any) -> None:
    with opened(engine) as given:
        for count in (1, 2):
            one(client, given)
            given.commit()
            assert in_queue(client) == count
        one(client, given)
    assert in_queue(client) == 2  # closing without a commit rolls back


@every_kind
@every_way
def test_jobs_of_a_rolled_back_savepoint_are_gone_and_the_others_stay(
    client: awa.Client, engine: Engine, opened: Any, enqueue: Enqueue
) -> None:
    with opened(engine) as given:
        enqueue(client, given)
        nested = given.begin_nested()
        enqueue(client, given)
        nested.rollback()
        with given.begin_nested():
            given.execute(text("SELECT 1"))
            client.enqueue("work", {"n": "kept"}, queue="q", connection=given)
        given.commit()
    assert in_queue(client) == 2


def test_an_orm_flush_and_its_job_are_one_transaction(client: awa.Client, engine: Engine) -> None:
    metadata = sqlalchemy.MetaData()
    orders = sqlalchemy.Table("orders", metadata, sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True))
    metadata.create_all(engine)
    for fails in (True, False):
        with pytest.raises(ZeroDivisionError) if fails else Session(engine), Session(engine) as session, session.begin():
            order_id = session.execute(orders.insert().returning(orders.c.id)).scalar_one()
            client.enqueue("ship", {"order": order_id}, queue="q", connection=session)
            if fails:
                raise ZeroDivisionError
    with engine.connect() as conn:
        assert conn.execute(sqlalchemy.select(orders.c.id)).scalars().all() == [order_id]
    assert in_queue(client) == 1


def test_an_autocommit_engine_commits_at_once(client: awa.Client, engine: Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        one(client, conn)
        assert in_queue(client) == 1


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_any_isolation_level_will_do(client: awa.Client, engine: Engine, level: str) -> None:
    with engine.connect().execution_options(isolation_level=level) as conn:
        one(client, conn)
        assert conn.execute(text("SHOW transaction_isolation")).scalar_one() == level.lower()
        conn.commit()
    assert in_queue(client) == 1


def test_a_unique_conflict_leaves_the_session_usable(client: awa.Client, engine: Engine) -> None:
    holder = client.enqueue("work", {"n": 1}, queue="q", unique=awa.Unique())
    with Session(engine) as session:
        with pytest.raises(awa.UniqueConflict) as conflict:
            client.enqueue("work", {"n": 1}, queue="q", unique=awa.Unique(), connection=session)
        assert conflict.value.job_id == holder
        one(client, session)
        session.commit()
    assert in_queue(client) == 2


def test_the_pooled_connection_goes_back_as_it_came(client: awa.Client, dsn: str) -> None:
    engine = sqlalchemy.create_engine(
        sqlalchemy_url(dsn),
        pool_size=1,
        connect_args={"cursor_factory": psycopg.ClientCursor, "prepare_threshold": 0},
    )
    prepared = "SELECT count(*) FROM pg_prepared_statements"
    with engine.connect() as conn:
        driver = conn.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        conn.rollback()
        for enqueue in (one, many, copied, copied_in_full, unique):
            enqueue(client, conn)
            conn.commit()
        with psycopg.Cursor(driver) as cursor:
            assert cursor.execute(prepared, prepare=False).fetchall() == [(0,)]
        assert (driver.cursor_factory, driver.prepare_threshold, driver.autocommit) == (psycopg.ClientCursor, 0, False)
    engine.dispose()
    assert in_queue(client) == 5


def test_a_session_that_must_be_rolled_back_is_refused_by_name(client: awa.Client, engine: Engine) -> None:
    with Session(engine) as session:
        session.begin()
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            session.execute(text("SELECT 1/0"))
        with pytest.raises(UnusableConnection, match="has failed"):
            one(client, session)
        session.rollback()
        one(client, session)
        session.commit()
    assert in_queue(client) == 1


def test_a_session_whose_flush_has_failed_is_refused_by_name(client: awa.Client, engine: Engine) -> None:
    class Base(sqlalchemy.orm.DeclarativeBase): ...

    class Order(Base):
        __tablename__ = "orders"
        id: sqlalchemy.orm.Mapped[int] = sqlalchemy.orm.mapped_column(primary_key=True)

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.execute(sqlalchemy.insert(Order).values(id=1))
        session.add(Order(id=1))
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            session.flush()
        with pytest.raises(UnusableConnection, match="session's transaction has failed"):
            one(client, session)


def test_a_savepoint_that_was_lost_is_refused_by_name(client: awa.Client, engine: Engine) -> None:
    with engine.connect() as conn:
        outer = conn.begin()
        conn.begin_nested()
        outer.rollback()
        one(client, conn)  # a new transaction begins
        conn.commit()
        assert in_queue(client) == 1
        lost = conn.begin()
        lost.rollback()
        conn.close()
        with pytest.raises(UnusableConnection, match="closed"):
            one(client, conn)


def test_a_database_without_awa_is_named(server: str, empty_dsn: str) -> None:
    engine = sqlalchemy.create_engine(sqlalchemy_url(empty_dsn))
    with awa.Client(empty_dsn) as client, Session(engine) as session:
        with pytest.raises(awa.SchemaOutOfDate, match="awa migrate"):
            one(client, session)
        assert session.execute(text("SELECT 1")).scalar_one() == 1
    engine.dispose()
