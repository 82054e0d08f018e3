"""Running attempts: what they say of themselves, and whether they have ended without their handlers' knowledge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from awa import trace
from awa.claim import Claim
from awa.postgres import Connection, tuple_cursor

SAVE_PROGRESS: Final = """
    SELECT awa.save_progress(%s::int8, %s::int2, %s::int8, %s::int8, %s::int2, %s::jsonb, %s::jsonb)
"""
ENDED_ELSEWHERE: Final = "SELECT * FROM awa.ended_elsewhere(%s::int2[], %s::int8[], %s::int2[])"


def save_progress(
    conn: Connection, runtime_id: int, claim: Claim, item: int, progress: str | None, checkpoint: str | None
) -> Literal["saved", "refused", "busy"]:
    """Keep an attempt's progress and checkpoint on its lease, which it gets by the first call.

    Args:
        conn: a connection that commits at once.
        runtime_id: the claim's runtime.
        claim, item: the receipt.
        progress, checkpoint: JSON texts; `None` leaves what there was.
    """
    parameters = (runtime_id, claim.claim_slot, claim.claim_id, claim.token, item, progress, checkpoint)
    verdict: Literal["saved", "refused", "busy"] = tuple_cursor(conn).execute(SAVE_PROGRESS, parameters).fetchall()[0][0]
    if trace.on:
        trace.saved(claim, item, verdict)
    return verdict


def ended_elsewhere(conn: Connection, receipts: Sequence[tuple[Claim, int]]) -> list[tuple[int, int, str]]:
    """Which of these attempts have ended: (claim id, item, outcome)."""
    parameters = (
        [claim.claim_slot for claim, _ in receipts],
        [claim.claim_id for claim, _ in receipts],
        [item for _, item in receipts],
    )
    return [(row[0], row[1], row[2]) for row in tuple_cursor(conn).execute(ENDED_ELSEWHERE, parameters).fetchall()]
