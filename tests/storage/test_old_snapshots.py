"""Callers under REPEATABLE READ, whose snapshots are older than a prune."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import awa
from awa.postgres import connect
from awa.storage.rings import materialize_attempts, prune_ring, rotate_ring
from tests.sql.engine import claim


def _turn_over(conn: psycopg.Connection[Any]) -> None:
    """Prune what can be pruned in two hours, which moves running attempts to leases."""
    later = datetime.now(UTC) + timedelta(hours=2)
    for ring in ("claim", "queue"):
        assert rotate_ring(conn, ring, force=True) == "rotated"
    assert materialize_attempts(conn, 10, now=later) == 1
    for hours in (0, 2):  # proved closed, then past its retention
        prune_ring(conn, "claim", now=later + timedelta(hours=hours))
    assert prune_ring(conn, "queue", now=later)[-1].is_pruned


def test_a_key_is_not_taken_from_a_running_job_that_an_old_snapshot_misses(
    dsn: str, client: awa.Client, conn: psycopg.Connection[Any]
) -> None:
    @awa.task(queue="q", unique=awa.Unique(by_args=True))
    def long(n: int) -> None: ...

    job_id = client.enqueue(long, {"n": 1})
    assert claim(conn).ids == [job_id]
    with connect(dsn, "somebody's application") as caller:
        caller.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with caller.transaction(force_rollback=True):
            caller.execute("SELECT 1")
            _turn_over(conn)
            with pytest.raises(awa.UniqueConflict):
                client.enqueue(long, {"n": 1}, connection=caller)
    assert client.queue_counts("q").unfinished == 1
    with pytest.raises(awa.UniqueConflict):
        client.enqueue(long, {"n": 1})
