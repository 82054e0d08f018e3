"""The server's clock is set back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

import awa
from awa.storage.rescue import rescue_expired
from awa.storage.runtimes import elect_leader
from tests.sql.engine import claim, jobs


def _later(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def test_deadlines_before_the_walks_position_are_seen_all_the_same(
    client: awa.Client, conn: psycopg.Connection[Any]
) -> None:
    client.enqueue_many(jobs(1, 2), kind="k", queue="q")
    claim(conn, 1, deadline_after=3600)
    rescued, position = rescue_expired(conn, now=_later(7200))
    assert rescued.rescued == 1
    claim(conn, 1, deadline_after=1)
    rescued, position = rescue_expired(conn, position, now=_later(600))
    assert rescued.rescued == 1
    assert rescue_expired(conn, position, now=_later(601))[0].rescued == 0


def test_a_leader_that_is_gone_does_not_lead_for_as_long_as_the_clock_was_set_back(conn: psycopg.Connection[Any]) -> None:
    assert elect_leader(conn, 1, 3.0, _later(7200))
    assert not elect_leader(conn, 2, 3.0, _later(7201))
    assert elect_leader(conn, 2, 3.0, _later(0))
    assert not elect_leader(conn, 1, 3.0, _later(1))
