"""rotate_ring and prune_ring: how the rings turn, what keeps them from it, and for how long what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal, NamedTuple, cast

import psycopg
from attrs import asdict, fields
from psycopg import sql

from awa.errors import ConfigurationError
from awa.postgres import Connection, tuple_cursor
from awa.rings import Ring, SlotStatus, StorageSettings

ROTATE_RING: Final = "SELECT awa.rotate_ring(%s::text, %s::bool, coalesce(%s::timestamptz, clock_timestamp()))"
PRUNE_RING: Final = """
    SELECT slot, verdict FROM awa.prune_ring(%s::text, %s::int2[], coalesce(%s::timestamptz, clock_timestamp()), %s::float8)
"""
MATERIALIZE_ATTEMPTS: Final = "SELECT awa.materialize_attempts(%s::int4, coalesce(%s::timestamptz, clock_timestamp()))"
STORAGE_STATUS: Final = """
    SELECT ring, slot, is_current, generation, began_at, sealed_at, closed_at, prunes, bytes, held_reason, held_since
    FROM awa.storage_status()
"""
HISTORY_BYTES: Final = "SELECT awa.history_bytes()"
LOCK_BUDGET: Final = 0.01
"""Seconds a prune may wait for table locks in all: so long everybody waits who comes after it."""

Rotated = Literal["rotated", "idle", "young", "held", "raced", "locked"]


class SlotVerdict(NamedTuple):
    """What became of a slot that was looked at: pruned, or held for a reason."""

    slot: int
    reason: str | None

    @property
    def is_pruned(self) -> bool:
        """Whether it is empty now."""
        return self.reason is None


def rotate_ring(conn: Connection, ring: Ring, *, force: bool = False, now: datetime | None = None) -> Rotated:
    """Seal the ring's current slot if it is old or large enough, and go on with an empty one.

    Args:
        conn: a connection that commits at once.
        ring: which.
        force: also when it is neither.
        now: instead of the server's clock.
    """
    return cast(Rotated, tuple_cursor(conn).execute(ROTATE_RING, (ring, force, now)).fetchall()[0][0])


def prune_ring(
    conn: Connection,
    ring: Ring,
    *,
    skip: Sequence[int] = (),
    now: datetime | None = None,
    lock_budget: float = LOCK_BUDGET,
) -> list[SlotVerdict]:
    """Empty the oldest sealed slot that may be; the slots looked at, the pruned one, if any, last.

    Args:
        conn: a connection that commits at once.
        ring: which.
        skip: slots not to look at.
        now: instead of the server's clock.
        lock_budget: seconds.
    """
    rows = tuple_cursor(conn).execute(PRUNE_RING, (ring, list(skip), now, lock_budget)).fetchall()
    return [SlotVerdict(slot, None if verdict == "pruned" else verdict) for slot, verdict in rows]


def materialize_attempts(conn: Connection, limit: int, *, now: datetime | None = None) -> int:
    """Give long attempts leases of their own, so that they hold no slot; how many."""
    return int(tuple_cursor(conn).execute(MATERIALIZE_ATTEMPTS, (limit, now)).fetchall()[0][0])


def storage_status(conn: Connection) -> list[SlotStatus]:
    """Every slot of every ring. Waits for no lock longer than a moment."""
    names = [attribute.name for attribute in fields(SlotStatus)]
    rows = tuple_cursor(conn).execute(STORAGE_STATUS).fetchall()
    return [SlotStatus(**dict(zip(names, row, strict=True))) for row in rows]


def history_bytes(conn: Connection) -> int:
    """What completed jobs occupy. Waits for the locks of the slots' tables."""
    return int(tuple_cursor(conn).execute(HISTORY_BYTES).fetchall()[0][0])


def read_settings(conn: Connection) -> StorageSettings:
    """For how long what is kept."""
    names = [attribute.name for attribute in fields(StorageSettings)]
    query = sql.SQL("SELECT {} FROM awa.storage_settings").format(sql.SQL(", ").join(map(sql.Identifier, names)))
    return StorageSettings(**dict(zip(names, tuple_cursor(conn).execute(query).fetchall()[0], strict=True)))


def write_settings(conn: Connection, settings: StorageSettings) -> None:
    """Change them. Maintenance reads them at every turn."""
    values = asdict(settings)
    pairs = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder()) for name in values]
    query = sql.SQL("UPDATE awa.storage_settings SET {}").format(sql.SQL(", ").join(pairs))
    try:
        tuple_cursor(conn).execute(query, list(values.values()))
    except psycopg.errors.CheckViolation as error:
        raise ConfigurationError(str(error.diag.message_primary)) from error
