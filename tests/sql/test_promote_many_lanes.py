"""Promotion beside many lanes that have nothing due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

import awa
from awa.storage.promote import promote_due
from tests.sql.engine import jobs

DUE, LANES, LIMIT = 4000, 100, 50
READ = """
    SELECT sum(pg_stat_get_xact_tuples_returned(i.indexrelid)) FROM pg_index i
    WHERE i.indrelid = 'awa.deferred_jobs'::regclass
"""


def test_empty_lanes_do_not_read_what_is_due_in_another(client: awa.Client, conn: psycopg.Connection[Any]) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    client.enqueue_many_copy(jobs(*range(DUE)), kind="k", queue="busy", run_at=soon)
    conn.execute("SELECT awa.ensure_lane('empty' || i, 2::int2) FROM generate_series(1, %s) i", (LANES,))
    conn.execute("ANALYZE awa.deferred_jobs")
    with conn.transaction():
        assert promote_due(conn, LIMIT, soon) == LIMIT
        ((read,),) = conn.execute(READ).fetchall()
    # A look whether anything is due, and each promoted row by its lane and by its id.
    assert LIMIT <= read <= 4 * LIMIT
