"""What the storage keeper makes of what the rings say."""

from __future__ import annotations

import pytest

import awa
from awa.maintenance.rings import RingKeeper
from awa.postgres import Connection
from tests.sql.engine import claim, fail, finalize
from tests.sql.rings import assert_counts_are_exact, completed, keep_nothing, prune, rows_in, turn


def test_a_ring_that_cannot_be_pruned_keeps_no_other_from_its_turn(
    conn: Connection, client: awa.Client, caplog: pytest.LogCaptureFixture
) -> None:
    keep_nothing(conn)
    completed(conn, client, 1)
    conn.execute("SELECT awa.set_dead_letter('q', NULL, false)")
    client.enqueue("work", {"n": 2}, queue="q", max_attempts=1)
    assert finalize(conn, fail(claim(conn).claim, 1)) == []
    turn(conn, "claim")
    turn(conn, "terminal")
    conn.execute("ALTER TABLE awa.queue_claim_heads ADD CONSTRAINT disk_is_full CHECK (false) NOT VALID")
    keeper = RingKeeper()
    assert keeper.prune(conn)
    assert (keeper.pruned, rows_in(conn, "done_entries")) == (1, 0)
    assert "pruning of the claim ring failed, and is tried again" in caplog.text
    assert "disk_is_full" in caplog.text
    conn.execute("ALTER TABLE awa.queue_claim_heads DROP CONSTRAINT disk_is_full")
    assert keeper.prune(conn)
    assert rows_in(conn, "lease_claim_batches") == 0
    assert_counts_are_exact(conn)


def test_a_slot_that_is_held_is_left_alone_for_a_while(conn: Connection, client: awa.Client) -> None:
    completed(conn, client, 1)
    turn(conn, "claim")
    keeper = RingKeeper()
    assert not keeper.prune(conn)
    keep_nothing(conn)
    assert not keeper.prune(conn)  # it was held a moment ago
    assert prune(conn, "claim") == {0: "pruned"}
