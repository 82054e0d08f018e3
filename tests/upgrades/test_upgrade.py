"""A database of an earlier release, with jobs in every state, is migrated and works on.

`schema_0002.sql.gz` is a plain-SQL dump that release made after its own engine had put the jobs where they are.
"""

from __future__ import annotations

import gzip
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

import awa
from awa.migrate import migrate, plan_migration
from awa.postgres import connect
from awa.rings import PRUNE_ORDER, RINGS
from awa.storage.counters import check_terminal_counters
from awa.storage.rebase import needs_rebase
from awa.storage.rescue import rescue_dead
from awa.storage.rings import prune_ring, rotate_ring
from awa.storage.runtimes import declare_dead
from tests.sql.engine import RUNTIME, claim_all, read

Connection = psycopg.Connection[Any]

JOBS = "SELECT job_id, args->>'n', state, attempt, run_lease, payload->'result' FROM awa.jobs ORDER BY job_id"
STATES = {
    "completed": 6,
    "failed": 1,
    "cancelled": 2,
    "dead_lettered": 1,
    "scheduled": 2,
    "waiting": 1,
    "running": 3,
    "available": 8,
}


@pytest.fixture
def old(empty_dsn: str) -> Any:
    """A connection to the earlier release's database."""
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(gzip.decompress((Path(__file__).parent / "schema_0002.sql.gz").read_bytes()))
    with connect(empty_dsn, "awa test") as conn:
        # The dump's transactions must lie in this server's past, as they do where nothing was restored.
        while read(conn, "SELECT pg_current_xact_id() < '1000'::xid8")[0][0]:
            pass
        yield conn


def states(conn: Connection) -> Counter[str]:
    """How many jobs awa.jobs has in each state."""
    return Counter(state for (state,) in read(conn, "SELECT state FROM awa.jobs"))


def test_every_job_is_where_it_was(old: Connection) -> None:
    before = read(
        old, "SELECT job_id, args->>'n', state, attempt, run_lease, payload->'result' FROM awa.jobs ORDER BY job_id"
    )
    assert states(old) == STATES
    assert plan_migration(old).from_version == 2
    migrate(old)
    after = read(
        old, "SELECT job_id, args->>'n', state, attempt, run_lease, payload->'result' FROM awa.jobs ORDER BY job_id"
    )
    assert after == before
    assert not needs_rebase(old)


def test_what_had_ended_is_counted(old: Connection, empty_dsn: str) -> None:
    migrate(old)
    assert [count for count in check_terminal_counters(old) if count.drift] == []
    with awa.Client(empty_dsn) as client:
        counts = client.queue_counts("q")
        assert client.queue_counts("q", exact=False) == counts
        assert {state: getattr(counts, state) for state in STATES} == {**STATES, "available": 6}  # two are of another queue


def test_the_jobs_go_on_and_their_slots_are_emptied(old: Connection, empty_dsn: str) -> None:
    migrate(old)
    assert claim_all(old) == ["mixed 4", *(f"pending {n}" for n in range(5))]
    assert declare_dead(old, RUNTIME, [RUNTIME]) == [RUNTIME]
    assert rescue_dead(old).rescued == 3 + 6
    with awa.Client(empty_dsn) as client:
        before = client.queue_counts("q")
        assert (before.running, before.dead_lettered) == (
            0,
            1 + 4,
        )  # four had one attempt only
        later = datetime.now(UTC) + timedelta(days=30)
        for ring in RINGS:
            assert rotate_ring(old, ring, force=True) in ("rotated", "idle")
        prune_ring(old, "claim", now=later)  # proves that all of it has ended, from which on it is kept for a while
        later += timedelta(days=1)
        pruned = {ring for ring in PRUNE_ORDER for verdict in prune_ring(old, ring, now=later) if verdict.is_pruned}
        assert {"claim", "lease", "terminal"} <= pruned
        after = client.queue_counts("q")
        assert (after.completed, after.failed, after.dead_lettered) == (6, 1, before.dead_lettered)
        assert client.queue_counts("q", exact=False) == after
