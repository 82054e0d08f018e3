"""SQLAlchemy's sessions: their jobs run in their transactions."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import awa
from awa.testing import assert_enqueued, drain, refute_enqueued


class Base(DeclarativeBase):
    """Of the tests' tables."""


class User(Base):
    """Somebody."""

    __tablename__ = "users"
    name: Mapped[str] = mapped_column(primary_key=True)


@pytest.fixture
def engine(dsn: str) -> Iterator[Engine]:
    """An application's engine on a database that has its tables."""
    made = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    Base.metadata.create_all(made)
    yield made
    made.dispose()


def test_a_sessions_jobs_run_in_its_transaction(client: awa.Client, engine: Engine) -> None:
    with Session(engine) as session:

        @awa.task(queue="q")
        def create(name: str) -> None:
            session.add(User(name=name))
            session.flush()

        client.enqueue(create, {"name": "ada"}, connection=session)
        assert_enqueued(create, args={"name": "ada"}, connection=session)
        assert drain(connection=session).completed == 1
        assert session.get(User, "ada") is not None
        session.rollback()
        assert session.get(User, "ada") is None
        refute_enqueued(create, connection=session)
        assert drain(connection=session).total == 0


def test_a_session_joined_to_an_outer_transaction_works_as_its_recipe_has_it(client: awa.Client, engine: Engine) -> None:
    """What SQLAlchemy's documentation shows for test suites: a session's commits are savepoints of the test's."""
    with engine.connect() as connection, connection.begin() as outer:
        with Session(connection, join_transaction_mode="create_savepoint") as session:

            @awa.task(queue="q")
            def create(name: str) -> None:
                with Session(connection, join_transaction_mode="create_savepoint") as own:
                    own.add(User(name=name))
                    own.commit()

            client.enqueue(create, {"name": "ada"}, connection=session)
            session.commit()
            assert drain(connection=session).completed == 1
            assert session.get(User, "ada") is not None
        outer.rollback()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM users")) == 0
        assert connection.scalar(text("SELECT count(*) FROM awa.jobs")) == 0


def test_a_session_that_commits_after_all_keeps_the_endings(client: awa.Client, engine: Engine) -> None:
    @awa.task(queue="q", result=True)
    def add(a: int, b: int) -> int:
        return a + b

    with Session(engine) as session:
        job_id = client.enqueue(add, {"a": 1, "b": 2}, connection=session)
        drain(connection=session)
        session.commit()
    assert client.result(job_id, timeout=0) == 3
    assert drain(client=client).total == 0


def test_a_handlers_failed_statement_leaves_the_session_usable(client: awa.Client, engine: Engine) -> None:
    with Session(engine) as session:
        session.add(User(name="ada"))
        session.flush()

        @awa.task(queue="q", retry=False)
        def create_again() -> None:
            with session.begin_nested():
                session.execute(text("INSERT INTO users VALUES ('ada')"))

        client.enqueue(create_again, connection=session)
        assert drain(connection=session, raises=False).failed == 1
        assert session.scalar(text("SELECT count(*) FROM users")) == 1
