"""enqueue(connection=...) whatever the application has taught psycopg, or its connection, or the session."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper, Loader
from psycopg.rows import dict_row
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg.types.numeric import IntDumper
from psycopg.types.string import StrDumper

import awa
from awa.errors import UnusableConnection
from tests.adapters.test_sqlalchemy import Enqueue, copied, copied_in_full, every_way, in_queue, many, one, unique
from tests.storage.conftest import Application

Connection = psycopg.Connection[Any]


class Shouting(Dumper):
    """Dumps everything as a text that no type accepts."""

    def dump(self, obj: object) -> bytes:
        return b"!"


class Deaf(Loader):
    """Loads everything as None."""

    def load(self, data: object) -> None:
        return None


def with_dumpers(context: AdaptContext) -> None:
    """What an application may register: this is for what goes in."""
    for kind in (int, str, list, type(None)):
        context.adapters.register_dumper(kind, Shouting)


def with_loaders(context: AdaptContext) -> None:
    """For what comes out."""
    for name in ("int4", "int8", "int2", "text", "bool", "json", "jsonb", "uuid"):
        context.adapters.register_loader(name, Deaf)


def with_json(context: AdaptContext) -> None:
    """For JSON."""
    set_json_dumps(lambda value: "!", context)
    set_json_loads(lambda data: None, context)


every_lesson = pytest.mark.parametrize("teach", [with_dumpers, with_loaders, with_json])


@every_lesson
@every_way
def test_loaders_and_dumpers_of_the_connection_are_not_used(
    client: awa.Client, application: Application, teach: Callable[[AdaptContext], None], enqueue: Enqueue
) -> None:
    conn = application()
    teach(conn)
    assert enqueue(client, conn) in (1, [1])
    conn.commit()
    assert in_queue(client) == 1


@pytest.fixture
def global_adapters() -> Iterator[AdaptContext]:
    """psycopg's own, restored afterwards."""
    adapters = psycopg.adapters
    before = psycopg.adapt.AdaptersMap(adapters)
    yield adapters
    for name in ("_dumpers", "_dumpers_by_oid", "_loaders"):
        setattr(adapters, name, getattr(before, name))


@every_lesson
def test_loaders_and_dumpers_of_all_connections_are_not_used(
    dsn: str, global_adapters: AdaptContext, teach: Callable[[AdaptContext], None]
) -> None:
    teach(global_adapters)
    with psycopg.connect(dsn) as conn, awa.Client(dsn) as client:
        for enqueue in (one, many, copied, copied_in_full, unique):
            enqueue(client, conn)
        conn.commit()
        assert [len(client.enqueue_many([{"n": 1}], kind="work", queue="q"))] == [1]
        assert in_queue(client) == 6
        client.enqueue("work", {"text": "é"}, queue="q", tags=["a"])
        assert client.enqueue("work", {"n": 1}, queue="q", unique=awa.Unique()) == 8


@every_way
@pytest.mark.parametrize("autocommit", [False, True])
def test_in_a_pipeline(client: awa.Client, application: Application, enqueue: Enqueue, autocommit: bool) -> None:
    conn = application(autocommit=autocommit)
    with conn.pipeline():
        conn.execute("SELECT 1")
        if enqueue in (copied, copied_in_full):
            with pytest.raises(UnusableConnection, match="pipeline mode: use enqueue_many"):
                enqueue(client, conn)
        else:
            assert enqueue(client, conn)
    assert in_queue(client) == int(autocommit and enqueue not in (copied, copied_in_full))
    conn.rollback()
    assert in_queue(client) == int(autocommit and enqueue not in (copied, copied_in_full))


def test_a_unique_conflict_in_a_pipeline_leaves_it_usable(client: awa.Client, application: Application) -> None:
    holder = client.enqueue("work", {"n": 1}, queue="q", unique=awa.Unique())
    conn = application()
    with conn.pipeline():
        first = conn.execute("SELECT 'before'")
        with pytest.raises(awa.UniqueConflict):
            client.enqueue("work", {"n": 1}, queue="q", unique=awa.Unique(), connection=conn)
        found = client.enqueue(
            "work", {"n": 1}, queue="q", unique=awa.Unique(on_conflict="return_existing"), connection=conn
        )
        assert found == holder
        last = conn.execute("SELECT 'after'")
        one(client, conn)
    assert (first.fetchall(), last.fetchall()) == ([("before",)], [("after",)])
    conn.commit()
    assert in_queue(client) == 2


def test_a_pipeline_that_has_failed_is_refused_by_name(client: awa.Client, application: Application) -> None:
    conn = application()
    with contextlib.suppress(psycopg.errors.DivisionByZero), conn.pipeline() as pipeline:
        failed = conn.execute("SELECT 1/0")
        with pytest.raises(psycopg.errors.DivisionByZero):
            failed.fetchall()
        with pytest.raises(UnusableConnection, match="has failed"):
            one(client, conn)
        pipeline.sync()
    conn.rollback()
    one(client, conn)
    conn.commit()
    assert in_queue(client) == 1


@pytest.mark.parametrize("threshold", [0, 1, 5, None])
def test_nothing_is_prepared_on_a_caller_s_connection(
    client: awa.Client, application: Application, threshold: int | None
) -> None:
    conn = application(prepare_threshold=threshold)
    for _ in range(10):
        for enqueue in (one, many, copied, copied_in_full, unique):
            enqueue(client, conn)
    assert conn.execute("SELECT name FROM pg_prepared_statements", prepare=False).fetchall() == []
    conn.commit()
    assert in_queue(client) == 50


def test_the_caller_s_prepared_statements_stay(client: awa.Client, application: Application) -> None:
    conn = application()
    conn.execute("SELECT 'mine'", prepare=True)
    conn.commit()
    for enqueue in (one, many, copied, copied_in_full, unique):
        enqueue(client, conn)
    assert conn.execute("SELECT statement FROM pg_prepared_statements").fetchall() == [("SELECT 'mine'",)]


SESSIONS = [
    "SET search_path = ''",
    "SET search_path = pg_temp, public",
    "SET DateStyle = 'German, DMY'",
    "SET TimeZone = 'Asia/Kathmandu'",
    "SET IntervalStyle = 'sql_standard'",
    "SET bytea_output = 'escape'",
    "SET standard_conforming_strings = off",
    "SET escape_string_warning = off; SET standard_conforming_strings = off",
    "SET default_transaction_isolation = 'serializable'",
    "SET plan_cache_mode = 'force_generic_plan'",
    "SET client_encoding = 'LATIN1'",
]


@pytest.mark.parametrize("statement", SESSIONS)
def test_in_a_session_of_any_settings(client: awa.Client, application: Application, statement: str) -> None:
    conn = application()
    conn.execute(statement.encode())
    conn.commit()
    before = conn.execute("SELECT name, setting FROM pg_settings WHERE source = 'session' ORDER BY name").fetchall()
    ids = [one(client, conn), *client.enqueue_many([{"é": "é"}], kind="work", queue="q", connection=conn)]
    copied(client, conn)
    copied_in_full(client, conn)
    unique(client, conn)
    conn.commit()
    assert conn.execute("SELECT name, setting FROM pg_settings WHERE source = 'session' ORDER BY name").fetchall() == before
    assert in_queue(client) == 5
    job = client.get_job(int(str(ids[1])))
    assert job is not None
    assert job.args == {"é": "é"}


@every_way
def test_beside_an_open_server_side_cursor(client: awa.Client, application: Application, enqueue: Enqueue) -> None:
    conn = application(row_factory=dict_row)
    with conn.cursor("portal") as cursor:
        cursor.execute("SELECT generate_series(1, 300) AS n")
        assert cursor.fetchone() == {"n": 1}
        enqueue(client, conn)
        assert len(cursor.fetchall()) == 299
    conn.commit()
    assert in_queue(client) == 1


def test_subclasses_of_psycopg_s_own_dumpers_are_not_used_either(client: awa.Client, application: Application) -> None:
    class MyInt(IntDumper):
        def dump(self, obj: Any) -> bytes:
            raise AssertionError

    class MyStr(StrDumper):
        def dump(self, obj: Any) -> bytes:
            raise AssertionError

    conn = application()
    conn.adapters.register_dumper(int, MyInt)
    conn.adapters.register_dumper(str, MyStr)
    for enqueue in (one, many, copied, copied_in_full, unique):
        enqueue(client, conn)
    conn.commit()
    assert in_queue(client) == 5
