"""The counters of ended jobs: folding, checking and rebuilding them."""

from __future__ import annotations

from typing import Final, NamedTuple

from awa.postgres import Connection, tuple_cursor

FOLD_TERMINAL_COUNTS: Final = "SELECT awa.fold_terminal_counts(%s::int4, %s::float8)"
COUNT_CLOSED_CLAIMS: Final = "SELECT awa.count_closed_claims(%s::int4)"
CHECK_TERMINAL_COUNTERS: Final = "SELECT ring, slot, queue, state, counted, actual FROM awa.check_terminal_counters()"
REBUILD_TERMINAL_COUNTERS: Final = """
    SELECT ring, slot, queue, state, counted, actual FROM awa.rebuild_terminal_counters(%s::float8)
"""


class TerminalCount(NamedTuple):
    """What a counter says, and what there is."""

    ring: str  # claim, terminal or dlq
    slot: int
    queue: str
    state: str
    counted: int
    actual: int

    @property
    def drift(self) -> int:
        """By how much the counter is wrong."""
        return self.counted - self.actual


def fold_terminal_counts(conn: Connection, min_rows: int, lock_budget: float = 0.01) -> int:
    """Fold the deltas of slots that have more than `min_rows` of them; how many slots.

    Args:
        conn: a connection that commits at once.
        min_rows: below that folding does not pay.
        lock_budget: seconds to wait for a slot's deltas, for which others wait, too.
    """
    return int(tuple_cursor(conn).execute(FOLD_TERMINAL_COUNTS, (min_rows, lock_budget)).fetchall()[0][0])


def count_closed_claims(conn: Connection, min_claims: int) -> int:
    """Count the completions of slots that have more than `min_claims` claims not counted yet; how many claims.

    Args:
        conn: a connection that commits at once.
        min_claims: that many a fast count may look at one by one.
    """
    return int(tuple_cursor(conn).execute(COUNT_CLOSED_CLAIMS, (min_claims,)).fetchall()[0][0])


def check_terminal_counters(conn: Connection) -> list[TerminalCount]:
    """Every counter beside the truth, in one snapshot. Changes nothing."""
    return [TerminalCount(*row) for row in tuple_cursor(conn).execute(CHECK_TERMINAL_COUNTERS).fetchall()]


def rebuild_terminal_counters(conn: Connection, lock_budget: float = 0.05) -> list[TerminalCount]:
    """Make every counter say the truth; what they said before.

    Raises:
        psycopg.errors.LockNotAvailable: not to be had within `lock_budget` seconds a table; nothing was changed.
    """
    return [TerminalCount(*row) for row in tuple_cursor(conn).execute(REBUILD_TERMINAL_COUNTERS, (lock_budget,)).fetchall()]
