"""A database of an earlier release that has counted only whole claim slots counts on, and nothing twice.

`schema_0004.sql.gz` is a plain-SQL dump that release made after its own engine had completed four jobs in a slot that is
proved closed, and three in the current one, where a fourth runs.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import awa
from awa.migrate import migrate, plan_migration
from awa.postgres import Connection, connect
from awa.storage.counters import check_terminal_counters, count_closed_claims
from awa.storage.rescue import rescue_dead
from awa.storage.runtimes import declare_dead
from tests.sql.engine import RUNTIME, read
from tests.sql.rings import assert_counts_are_exact, keep_nothing, prune, turn


@pytest.fixture
def old(empty_dsn: str) -> Iterator[Connection]:
    """A connection to the earlier release's database."""
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(gzip.decompress((Path(__file__).parent / "schema_0004.sql.gz").read_bytes()))
    with connect(empty_dsn, "awa test") as conn:
        # The dump's transactions must lie in this server's past, as they do where nothing was restored.
        while read(conn, "SELECT pg_current_xact_id() < '2000'::xid8")[0][0]:
            pass
        yield conn


def test_what_was_counted_is_not_counted_again(old: Connection, empty_dsn: str) -> None:
    assert plan_migration(old).from_version == 4
    migrate(old)
    with awa.Client(empty_dsn) as client:
        assert_counts_are_exact(old)
        assert [count.counted for count in check_terminal_counters(old)] == [4]
        assert count_closed_claims(old, 0) == 1  # of the current slot, whose other claim is open
        assert_counts_are_exact(old)
        assert sum(count.counted for count in check_terminal_counters(old)) == 6
        assert declare_dead(old, RUNTIME, [RUNTIME]) == [RUNTIME]
        assert rescue_dead(old).rescued == 1
        keep_nothing(old)
        turn(old, "claim")
        for _ in range(2):
            assert "pruned" in prune(old, "claim").values()
        assert client.queue_counts("q", exact=False).completed == 7
        assert_counts_are_exact(old)
