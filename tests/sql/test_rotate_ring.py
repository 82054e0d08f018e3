"""When a ring's current slot is sealed, and what comes next."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

import awa
from awa.postgres import Connection
from awa.rings import RINGS, Ring
from awa.storage.rings import rotate_ring
from tests.sql.engine import claim, complete, fail, finalize, jobs, read, writes
from tests.sql.rings import LATER, start, stopped, turn


@pytest.mark.parametrize("ring", RINGS)
def test_an_empty_slot_is_not_sealed_and_nothing_is_written(conn: Connection, ring: Ring) -> None:
    with writes(conn) as written:
        assert rotate_ring(conn, ring, force=True, now=LATER) == "idle"
    assert written == {}


def test_a_young_and_small_slot_goes_on_being_filled_until_it_is_old(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 1}, queue="q")
    began = read(conn, "SELECT rotated_at FROM awa.ring_rotations WHERE ring = 'queue'")[0][0]
    assert rotate_ring(conn, "queue", now=began + timedelta(seconds=899)) == "young"
    assert rotate_ring(conn, "queue", now=began + timedelta(seconds=901)) == "rotated"
    slots = read(
        conn, "SELECT slot, sealed_at IS NULL, generation FROM awa.ring_slots WHERE ring = 'queue' AND slot < 2 ORDER BY 1"
    )
    assert slots == [(0, False, 0), (1, True, 1)]
    client.enqueue("work", {"n": 2}, queue="q")
    assert read(conn, "SELECT args->>'n', ready_slot FROM awa.ready_entries ORDER BY 1") == [("1", 0), ("2", 1)]


def test_a_large_slot_is_sealed_however_young(conn: Connection, client: awa.Client) -> None:
    conn.execute("UPDATE awa.storage_settings SET history_max_bytes = 1048576")
    client.enqueue_many(jobs(*range(2000)), kind="work", queue="q")
    assert rotate_ring(conn, "queue") == "rotated"


def test_leases_turn_by_size_only(conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": "x" * 5000}, queue="q")
    batch = claim(conn)
    conn.execute(
        "SELECT awa.save_progress(4711, %s, %s, %s, 1::int2, '{}', NULL)",
        (batch.claim.claim_slot, batch.claim.claim_id, batch.token),
    )
    assert rotate_ring(conn, "lease", now=LATER) == "young"
    conn.execute("UPDATE awa.storage_settings SET lease_rotate_bytes = 8192")
    assert rotate_ring(conn, "lease") == "rotated"


def test_a_slot_in_use_is_skipped_and_a_full_ring_is_held(conn: Connection, client: awa.Client) -> None:
    for n in range(7):
        client.enqueue("work", {"n": n}, queue="q")
        assert turn(conn, "queue") == n
    client.enqueue("work", {"n": 7}, queue="q")
    assert rotate_ring(conn, "queue", force=True) == "held"
    conn.execute("TRUNCATE awa.ready_entries_3")
    assert rotate_ring(conn, "queue", force=True) == "rotated"
    assert read(conn, "SELECT slot FROM awa.current_slot('queue')") == [(3,)]


def test_two_that_rotate_at_once_make_one_generation(dsn: str, conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 1}, queue="q")
    with psycopg.connect(dsn) as first:
        assert read(first, "SELECT awa.rotate_ring('queue', true)") == [("rotated",)]
        second = start(dsn, lambda other: rotate_ring(other, "queue", force=True))
        assert second.value() == "locked"  # waits for nobody: the first may still be undone
    assert read(conn, "SELECT count(*) FROM awa.ring_rotations WHERE ring = 'queue'") == [(2,)]
    assert rotate_ring(conn, "queue", force=True) == "idle"


def test_who_finds_the_ring_turned_leaves_it(dsn: str, conn: Connection, client: awa.Client) -> None:
    client.enqueue("work", {"n": 1}, queue="q")
    with stopped(
        conn, dsn, "rotate_ring", "    FOR v_step IN", lambda other: rotate_ring(other, "queue", force=True)
    ) as second:
        turn(conn, "queue")
        (before,) = read(conn, "SELECT array_agg(s ORDER BY s.slot) FROM awa.ring_slots s WHERE s.ring = 'queue'")
    assert second.value() == "raced"
    assert read(conn, "SELECT array_agg(s ORDER BY s.slot) FROM awa.ring_slots s WHERE s.ring = 'queue'") == [before]


def test_a_claim_slot_that_is_current_again_is_proved_anew(conn: Connection, client: awa.Client) -> None:
    conn.execute("UPDATE awa.ring_slots SET closed_at = now() WHERE ring = 'claim' AND slot = 1")
    client.enqueue("work", {"n": 1}, queue="q")
    assert complete(conn, (claim(conn).claim, None)) == []
    turn(conn, "claim")
    assert read(conn, "SELECT closed_at FROM awa.ring_slots WHERE ring = 'claim' AND slot = 1") == [(None,)]


def test_old_rotations_are_forgotten(conn: Connection, client: awa.Client) -> None:
    for n in range(30):
        client.enqueue("work", {"n": n}, queue="q")
        slot = turn(conn, "queue")
        conn.execute(f"TRUNCATE awa.ready_entries_{slot}".encode())
    assert read(conn, "SELECT count(*) < 20, max(generation) FROM awa.ring_rotations WHERE ring = 'queue'") == [(True, 30)]


def test_there_is_no_ring_of_another_name(conn: Connection) -> None:
    with pytest.raises(psycopg.DatabaseError, match="no ring ready"):
        conn.execute("SELECT awa.rotate_ring('ready')")


def test_endings_go_to_the_slot_that_is_current(conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(1, 2), kind="work", queue="q", max_attempts=1)
    conn.execute("SELECT awa.set_dead_letter(NULL, 'q', false)")
    taken = claim(conn).claim
    assert finalize(conn, fail(taken, 1)) == []
    turn(conn, "terminal")
    assert finalize(conn, fail(taken, 2)) == []
    assert read(conn, "SELECT args->>'n', terminal_slot FROM awa.done_entries ORDER BY 1") == [("1", 0), ("2", 1)]
