"""rescue_dead and rescue_expired: attempts whose workers are gone or too late."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, NamedTuple

from attrs import frozen

from awa import trace
from awa.postgres import Connection, tuple_cursor

RESCUE_DEAD: Final = """
    SELECT rescued, stuck, more
    FROM awa.rescue_dead(%s::int4, %s::int8, %s::text, coalesce(%s::timestamptz, clock_timestamp()))
"""
RESCUE_EXPIRED: Final = """
    SELECT rescued, stuck, more, at::text, claim_id, open_at::text, open_claim_id
    FROM awa.rescue_expired(%s::timestamptz, %s::int8, %s::int4, coalesce(%s::timestamptz, clock_timestamp()))
"""
EXPIRE_ATTEMPT: Final = "SELECT awa.expire_attempt(%s::int8, %s::int8, %s::int2)"
SETTLE_TOMBSTONES: Final = "SELECT awa.settle_tombstones()"
RESCUE_LIMIT: Final = 2000
"""Attempts a call ends at about the most. Each may be a claim's lock, of which a server with default settings has 6 400."""


class Rescued(NamedTuple):
    """What one call has done: attempts ended, attempts that cannot be ended, whether more work is at hand."""

    rescued: int
    stuck: int
    more: bool


@frozen
class ExpiryPosition:
    """How far a walk along the claims' deadlines has come, and the first claim it had to leave open."""

    at: str = "-infinity"
    claim_id: int = 0
    open_at: str | None = None
    open_claim_id: int = 0


def rescue_dead(
    conn: Connection,
    limit: int = RESCUE_LIMIT,
    *,
    runtime_id: int | None = None,
    outcome: Literal["rescued", "released"] = "rescued",
    now: datetime | None = None,
) -> Rescued:
    """End what dead runtimes have left open.

    Args:
        conn: a connection that commits at once.
        limit: attempts, about.
        runtime_id: only of this one, due or not.
        outcome: `released` does not count the attempts: the process was ended on purpose.
        now: instead of the server's clock.
    """
    row = tuple_cursor(conn).execute(RESCUE_DEAD, (limit, runtime_id, outcome, now)).fetchall()[0]
    if trace.on:
        trace.counted("rescued", row[0], by="dead")
    return Rescued(*row)


def rescue_expired(
    conn: Connection, position: ExpiryPosition | None = None, limit: int = RESCUE_LIMIT, *, now: datetime | None = None
) -> tuple[Rescued, ExpiryPosition]:
    """End attempts past their deadlines, walking on from `position`.

    Args:
        conn: a connection that commits at once.
        position: what the last call returned; `None` begins anew.
        limit: claims to look at.
        now: instead of the server's clock.
    """
    start = position or ExpiryPosition()
    row = tuple_cursor(conn).execute(RESCUE_EXPIRED, (start.at, start.claim_id, limit, now)).fetchall()[0]
    rescued = Rescued(*row[:3])
    if trace.on:
        trace.counted("rescued", rescued.rescued, by="expired")
    opened_at, opened_id = (row[5], row[6]) if start.open_at is None else (start.open_at, start.open_claim_id)
    if rescued.more or opened_at is None:
        return rescued, ExpiryPosition(row[3], row[4], opened_at, opened_id or 0)
    # The end is reached: the next walk begins at what this one had to leave.
    return rescued, ExpiryPosition(opened_at, opened_id)


def expire_attempt(conn: Connection, runtime_id: int, claim_id: int, item: int) -> str | None:
    """End one attempt as past its deadline on behalf of its runtime; None when that was accepted."""
    verdict: str | None = tuple_cursor(conn).execute(EXPIRE_ATTEMPT, (runtime_id, claim_id, item)).fetchall()[0][0]
    if trace.on:
        trace.counted("rescued", int(verdict is None), by="expired")
    return verdict


def settle_tombstones(conn: Connection) -> int:
    """Let lanes whose cancelled jobs have been passed look for none any more; how many."""
    return int(tuple_cursor(conn).execute(SETTLE_TOMBSTONES).fetchall()[0][0])
