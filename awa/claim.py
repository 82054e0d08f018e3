"""What a claim gives the runtime that made it."""

from __future__ import annotations

import time
from typing import Any

from attrs import define, field

# Where a claimed row has what. The five leading columns are constant for a claim and stand in its first row only.
CLAIM_ID, CLAIM_SLOT, PRIORITY, CLAIMED_AT, DEADLINE_AT = range(5)
JOB_ID, KIND, ARGS, ATTEMPT, MAX_ATTEMPTS, RUN_LEASE, RUN_AT, CREATED_AT, PAYLOAD = range(5, 14)

ClaimedRow = tuple[Any, ...]
"""A job as claimed: arguments as JSON text, instants as microseconds since 2000."""


@define(eq=False)
class Claim:
    """What a claim's receipts have in common."""

    claim_slot: int
    claim_id: int
    token: int
    queue: str
    priority: int
    claimed_at: int  # microseconds since 2000
    deadline_at: int | None = None  # microseconds since 2000
    n: int = 0
    by_item: bool = False  # its row is gone: what goes on of it are leases, to be ended one by one
    finished: list[int] = field(factory=list)  # items waiting for the next flush
    received_at: float = field(factory=time.monotonic)  # monotonic: here, where the clock may differ from the server's
