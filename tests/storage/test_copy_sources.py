"""Where the jobs of a COPY come from, and who watches it: queries on the same connection, and things that break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

import awa
from awa.client import enqueueing
from awa.errors import DatabaseUnavailable, UnusableConnection
from awa.postgres import Connection
from awa.storage.copy import NUMBERED_CHUNK
from tests.sql.engine import read
from tests.storage.conftest import Application
from tests.storage.test_copy import total

pytestmark = pytest.mark.timeout(60)

COUNT = 2 * NUMBERED_CHUNK + 3
LATER = awa.JobOptions(run_at=awa.clock.utc_now().replace(year=2100))
Options = dict[str, Any]

plainly: Options = {}
with_ids: Options = {"return_ids": True}
with_keys: Options = {"unique": awa.Unique()}
every_way = pytest.mark.parametrize("options", [plainly, with_ids, with_keys], ids=["plain", "ids", "keys"])


@pytest.fixture
def caller(application: Application) -> psycopg.Connection[Any]:
    """A transaction of the application, which has a table of orders."""
    conn = application()
    conn.execute("CREATE TEMP TABLE orders AS SELECT generate_series(1, %s) AS n", (COUNT,))
    return conn


def from_portal(conn: psycopg.Connection[Any]) -> Iterator[dict[str, int]]:
    """Orders, fetched as they are wanted."""
    with conn.cursor("orders", row_factory=dict_row) as cursor:
        cursor.itersize = 1000
        yield from cursor.execute("SELECT n FROM orders ORDER BY n")


def one_by_one(conn: psycopg.Connection[Any]) -> Iterator[dict[str, int]]:
    """A query for each order."""
    for n in range(1, COUNT + 1):
        if n % 1000 == 0:
            assert conn.execute("SELECT n FROM orders WHERE n = %s", (n,)).fetchone() == (n,)
        yield {"n": n}


@every_way
@pytest.mark.parametrize("source", [from_portal, one_by_one])
def test_jobs_may_come_from_queries_on_the_connection_they_go_to(
    client: awa.Client, caller: psycopg.Connection[Any], options: Options, source: Callable[..., Iterator[dict[str, int]]]
) -> None:
    client.enqueue_many_copy(source(caller), kind="ship", queue="q", connection=caller, **options)
    assert total(client) == 0
    caller.commit()
    assert total(client) == COUNT
    ids = [job.args["n"] for job in client.list_jobs(limit=3)]
    assert ids == [COUNT, COUNT - 1, COUNT - 2]


def test_jobs_read_ahead_keep_their_order_and_options(client: awa.Client, caller: psycopg.Connection[Any]) -> None:
    """Plain, wide, deferred and unique ones, whose rows take different statements, over several chunks."""
    unique, wide = awa.JobOptions(unique=awa.Unique()), awa.JobOptions(tags=["t"])
    kinds = [None, None, wide, LATER, None, LATER]
    seen: list[int] = []
    count = client.enqueue_many_copy(
        ({"n": n} for n in range(COUNT)),
        kind="ship",
        queue="q",
        opts=lambda args: unique if args["n"] % 4999 == 4998 else kinds[args["n"] % 6],
        progress=seen.append,
        connection=caller,
    )
    caller.commit()
    assert (count, seen[-1]) == (COUNT, COUNT)
    assert seen == sorted(set(seen))
    counts = client.queue_counts("q")
    assert (counts.available + counts.scheduled, counts.unfinished) == (COUNT, COUNT)
    with psycopg.connect(caller.info.dsn) as conn:
        ready = [row[0] for row in conn.execute("SELECT (args->>'n')::int FROM awa.ready_entries ORDER BY lane_seq")]
    assert ready == sorted(ready)
    assert all(job.tags == ("t",) for job in client.list_jobs(state="available", limit=1000) if job.args["n"] % 6 == 2)


def test_a_progress_callback_and_options_may_use_the_connection(client: awa.Client, caller: psycopg.Connection[Any]) -> None:
    caller.execute("CREATE TEMP TABLE bar (done int)")

    def show(done: int) -> None:
        caller.execute("INSERT INTO bar VALUES (%s)", (done,))

    def choose(args: dict[str, int]) -> awa.JobOptions:
        caller.execute("SELECT 1")
        return awa.JobOptions(priority=1)

    client.enqueue_many_copy(({"n": n} for n in range(COUNT)), kind="ship", opts=choose, progress=show, connection=caller)
    assert caller.execute("SELECT array_agg(done ORDER BY done) FROM bar").fetchone() == (
        [NUMBERED_CHUNK, 2 * NUMBERED_CHUNK, COUNT],
    )


def test_a_source_may_enqueue_on_the_connection_itself(client: awa.Client, caller: psycopg.Connection[Any]) -> None:
    def source() -> Iterator[dict[str, int]]:
        for _ in range(5):
            yield {"parent": client.enqueue("parent", connection=caller)}

    assert client.enqueue_many_copy(source(), kind="child", connection=caller) == 5
    caller.commit()
    assert total(client) == 10


def test_a_source_may_enqueue_with_the_client_itself(client: awa.Client) -> None:
    source = ({"parent": client.enqueue("parent", queue="parents")} for _ in range(5))
    assert client.enqueue_many_copy(source, kind="child") == 5
    assert total(client) == 10


@every_way
def test_a_stream_on_the_connection_is_refused_and_closed(
    client: awa.Client, caller: psycopg.Connection[Any], options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """psycopg would wait for the stream's end, and the stream for us."""
    monkeypatch.setattr("awa.connections.BUSY_FOR", 0.05)
    with pytest.raises(UnusableConnection, match="in the middle of a COPY or of a streamed result"):
        client.enqueue_many_copy(
            ({"n": n} for (n,) in caller.cursor().stream("SELECT n FROM orders")),
            kind="ship",
            connection=caller,
            **options,
        )
    assert caller.info.transaction_status == TransactionStatus.INTRANS
    client.enqueue("after", connection=caller)
    caller.commit()
    assert total(client) == 1


def test_a_stream_that_cannot_be_closed_costs_the_connection_and_commits_nothing(
    client: awa.Client, caller: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("awa.connections.BUSY_FOR", 0.05)
    rows = caller.cursor().stream("SELECT n FROM orders")
    with pytest.raises(UnusableConnection, match="in the middle of a COPY or of a streamed result"):
        client.enqueue_many_copy(({"n": n} for (n,) in rows), kind="ship", connection=caller)
    assert caller.closed
    with pytest.raises(psycopg.OperationalError):
        next(rows)
    assert total(client) == 0


def test_a_source_that_breaks_the_transaction_is_told(client: awa.Client, caller: psycopg.Connection[Any]) -> None:
    def source() -> Iterator[dict[str, int]]:
        with pytest.raises(psycopg.errors.DivisionByZero):
            caller.execute("SELECT 1/0")
        yield {"n": 1}

    with pytest.raises(UnusableConnection, match="transaction has failed"):
        client.enqueue_many_copy(source(), kind="ship", connection=caller)
    assert caller.info.transaction_status == TransactionStatus.INTRANS  # the savepoint was all there was to lose
    caller.commit()
    assert total(client) == 0


class Broken(Exception):
    """Something of the application's."""


@every_way
@pytest.mark.parametrize("own", [True, False], ids=["own", "caller's"])
def test_a_progress_callback_that_raises_leaves_nothing(
    client: awa.Client, caller: psycopg.Connection[Any], options: Options, own: bool
) -> None:
    def fail(done: int) -> None:
        raise Broken

    connection = None if own else caller
    with pytest.raises(Broken):
        client.enqueue_many_copy(
            ({"n": n} for n in range(COUNT)), kind="ship", progress=fail, connection=connection, **options
        )
    client.enqueue("after", connection=connection)
    caller.commit()
    assert total(client) == 1
    assert client.enqueue_many_copy([{"n": 0}], kind="ship", unique=awa.Unique()) == 1  # no key is left either


@every_way
def test_a_failed_copy_within_savepoints_undoes_its_own_rows_only(
    client: awa.Client, caller: psycopg.Connection[Any], options: Options
) -> None:
    def source() -> Iterator[dict[str, Any]]:
        yield from ({"n": n} for n in range(NUMBERED_CHUNK + 5))
        yield {"n": float("nan")}

    with caller.transaction():
        client.enqueue_many_copy([{"n": -1}], kind="ship", connection=caller, **options)
        with caller.transaction(), pytest.raises(awa.InvalidJob, match=rf"jobs\[{NUMBERED_CHUNK + 5}\]\.args\.n: nan"):
            client.enqueue_many_copy(source(), kind="ship", connection=caller, **options)
        caller.execute("SAVEPOINT mine")
        client.enqueue_many_copy([{"n": -2}], kind="ship", connection=caller, **options)
        caller.execute("ROLLBACK TO SAVEPOINT mine")
        client.enqueue_many_copy([{"n": -3}], kind="ship", connection=caller, **options)
    caller.commit()
    assert sorted(job.args["n"] for job in client.list_jobs()) == [-3, -1]


END_CLIENTS = """
    SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
    WHERE application_name = 'awa client' AND datname = current_database()
"""


@every_way
def test_a_connection_that_is_lost_half_way_leaves_nothing(client: awa.Client, conn: Connection, options: Options) -> None:
    def source() -> Iterator[dict[str, int]]:
        for n in range(COUNT):
            if n == NUMBERED_CHUNK + 5:
                assert read(conn, END_CLIENTS)[0][0] >= 1
            yield {"n": n}

    with pytest.raises(DatabaseUnavailable):
        client.enqueue_many_copy(source(), kind="ship", **options)
    assert total(client) == 0
    assert client.enqueue_many_copy([{"n": 0}], kind="ship", unique=awa.Unique()) == 1


def test_an_interrupt_leaves_nothing_and_the_pool_whole(client: awa.Client) -> None:
    def source() -> Iterator[dict[str, int]]:
        yield {"n": 1}
        raise KeyboardInterrupt

    for _ in range(2 * client.settings.max_connections):
        with pytest.raises(KeyboardInterrupt):
            client.enqueue_many_copy(source(), kind="ship")
    assert total(client) == 0


def test_the_client_s_own_connection_is_written_to_while_jobs_are_read(client: awa.Client) -> None:
    """What reading ahead costs is paid only where the connection is shared."""
    assert not enqueueing.Enqueueing.shares_connections
    watched: list[str] = []

    def source() -> Iterator[dict[str, int]]:
        for n in range(100):
            if n == 50:
                with awa.Client(client._dsn) as other, other._connection() as conn:
                    query = "SELECT query FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY awa.%%'"
                    watched.extend(row[0] for row in conn.execute(query))
            yield {"n": n}

    assert client.enqueue_many_copy(source(), kind="ship") == 100
    assert len(watched) == 1
