"""The clock of tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

import awa
from awa import clock as process_clock
from awa.errors import AwaError, ConfigurationError, UniqueConflict
from awa.migrate import migrate
from awa.postgres import connect
from awa.testing import Clock, all_enqueued, clear_jobs, drain
from awa.testing.cleaning import KEPT
from tests.sql.engine import claim


def test_it_moves_ahead_and_is_put_right() -> None:
    with Clock() as clock:
        clock.move(minutes=1, seconds=5)
        clock.move(hours=1)
        assert process_clock.seconds_ahead() == 3665
        assert clock.now() - datetime.now(UTC) == pytest.approx(timedelta(seconds=3665), abs=timedelta(seconds=5))
        new_year = datetime(2090, 1, 1, tzinfo=UTC)
        assert clock.travel_to(new_year) >= new_year
    assert process_clock.moved_now() is None


def test_it_does_not_go_back() -> None:
    with Clock() as clock:
        with pytest.raises(ConfigurationError, match="moves ahead"):
            clock.move(seconds=-1)
        with pytest.raises(ConfigurationError, match="moves ahead"):
            clock.travel_to(datetime(2020, 1, 1, tzinfo=UTC))
        with pytest.raises(ConfigurationError, match="time zone"):
            clock.travel_to(datetime(2090, 1, 1))  # noqa: DTZ001 - that is what is refused


def test_there_is_one_at_a_time() -> None:
    with Clock() as clock:
        clock.move(seconds=1)
        with pytest.raises(ConfigurationError, match="move that one"), Clock():
            pass
        assert process_clock.seconds_ahead() == 1


def test_what_is_due_is_judged_by_it(client: awa.Client) -> None:
    with Clock() as clock:
        clock.move(hours=2)
        client.enqueue("a", run_at=datetime.now(UTC) + timedelta(hours=1))
        client.enqueue("b", run_at=clock.now() + timedelta(hours=1))
    assert [(job.kind, job.state) for job in all_enqueued(client=client)] == [("a", "available"), ("b", "scheduled")]


def test_unique_periods_pass_by_it(client: awa.Client) -> None:
    @awa.task(queue="q", unique=awa.Unique(period=3600))
    def hourly() -> None: ...

    with Clock() as clock:
        client.enqueue(hourly)
        assert drain(client=client).completed == 1
        clock.move(minutes=59)
        with pytest.raises(UniqueConflict):
            client.enqueue(hourly)
        clock.move(minutes=2)
        client.enqueue(hourly)


def rows_by_table(conn: psycopg.Connection[Any]) -> dict[str, int]:
    """How many rows every table of the schema has."""
    names = conn.execute(
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'awa'::regnamespace"
        " AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
    ).fetchall()
    count = sql.SQL("SELECT count(*) FROM awa.{}")
    return {name: conn.execute(count.format(sql.Identifier(name))).fetchall()[0][0] for (name,) in names}


def test_a_cleared_queue_is_like_a_new_one(client: awa.Client, dsn: str, empty_dsn: str) -> None:
    @awa.task(queue="q")
    def work() -> None: ...

    with connect(dsn, "test") as conn, connect(empty_dsn, "test") as fresh:
        migrate(fresh)
        client.enqueue_many([{}, {}, {}], kind=work, unique=awa.Unique(by_args=False, on_conflict="skip"))
        client.enqueue(work, run_at=datetime(2090, 1, 1, tzinfo=UTC))
        client.enqueue("failing", queue="dead")
        client.cancel(client.enqueue(work))
        client.pause_queue("paused")
        drain(client=client, queue="q")
        assert claim(conn, queue="dead").ids
        clear_jobs(client)
        counts, expected = rows_by_table(conn), rows_by_table(fresh)
        assert counts | {"queue_lanes": 0} == expected | {"queue_lanes": 0}
        assert counts["queue_lanes"] > 0
        assert set(KEPT) <= set(expected)
        client.enqueue(work)
        assert drain(client=client).completed == 1
        assert client.queue_counts("q").completed == 1


def test_a_transaction_left_open_is_named(
    client: awa.Client, tx: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("awa.testing.cleaning.LOCK_TIMEOUT", 0.05)
    client.enqueue("committed", queue="q")
    client.enqueue("uncommitted", queue="q", connection=tx)
    with pytest.raises(AwaError, match="a transaction that was left open has held on to it"):
        clear_jobs(client)
