"""promote_due: due jobs of the backlog go to their lanes."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from awa import trace
from awa.postgres import Connection, tuple_cursor

PROMOTE_DUE: Final = "SELECT awa.promote_due(%s::int4, coalesce(%s::timestamptz, clock_timestamp()))"


def promote_due(conn: Connection, limit: int, now: datetime | None = None) -> int:
    """Promote up to `limit` jobs that are due at `now` (the server's clock by default); how many there were."""
    count = int(tuple_cursor(conn).execute(PROMOTE_DUE, (limit, now)).fetchall()[0][0])
    if trace.on:
        trace.counted("promoted", count)
    return count
