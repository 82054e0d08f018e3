"""A database or role whose sessions write dates in another style."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

import awa
from awa.postgres import connect
from awa.storage.rescue import rescue_expired
from tests.sql.engine import claim, jobs

SETTINGS = [("SQL, DMY", "Asia/Kolkata"), ("Postgres, MDY", "Asia/Shanghai"), ("German", "Asia/Jerusalem")]


@pytest.mark.parametrize(("style", "zone"), SETTINGS)
def test_dates_are_read_as_they_are_meant(dsn: str, conn: psycopg.Connection[Any], style: str, zone: str) -> None:
    for name, value in (("datestyle", style), ("timezone", zone)):
        database = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(database, sql.SQL(name), value))
    now = datetime.now(UTC)
    with awa.Client(dsn) as client, connect(dsn, "awa test") as styled:
        first, second = client.enqueue_many(jobs(1, 2), kind="k", queue="q")
        job = client.get_job(first)
        assert job is not None
        assert abs(job.created_at - now) < timedelta(minutes=1)

        claim(styled, 1, deadline_after=1)
        rescued, position = rescue_expired(styled, now=now + timedelta(minutes=1))
        assert rescued.rescued == 1
        assert claim(styled, 1, deadline_after=600).ids == [second]
        # Long before what an abbreviation of the zone may be mistaken for.
        assert rescue_expired(styled, position, now=now + timedelta(minutes=11))[0].rescued == 1
