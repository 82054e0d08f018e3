"""end_external: attempts that wait for the world outside are ended by it."""

from __future__ import annotations

import json
import re
from typing import Any, Final, Literal

from awa import trace
from awa.claim import Claim
from awa.postgres import Connection, tuple_cursor

END_EXTERNAL: Final = "SELECT awa.end_external(%s::int8, %s::int8, %s::int2, %s::int8, %s::jsonb)"
DEFAULT_DELAY: Final = -1.0
"""As `delay_after` of a failure: the delay that the database takes where no task's policy is at hand."""


def callback_id(claim: Claim, item: int) -> str:
    """The name of an attempt for the world outside. It holds the claim's random token, so it cannot be guessed."""
    return f"{claim.claim_id:x}-{item:x}-{claim.token:016x}"


def parse_callback_id(text: str) -> tuple[int, int, int] | None:
    """Claim id, item and token of a callback id; None for what is none.

    >>> parse_callback_id("2a-1-00000000000000ff")
    (42, 1, 255)
    """
    match = re.fullmatch(r"([0-9a-f]{1,16})-([0-9a-f]{1,4})-([0-9a-f]{16})", text)
    if match is None:
        return None
    claim_id, item, token = (int(part, 16) for part in match.groups())
    return (claim_id, item, token) if max(claim_id, token) < 2**63 and item < 2**15 else None


def end_external(
    conn: Connection,
    id: int | str,
    outcome: Literal["completed", "failed", "released"],
    *,
    result: str | None = None,
    error: dict[str, Any] | None = None,
    delay_after: float | None = 0.0,
) -> Literal["accepted", "refused", "busy"]:
    """End a waiting attempt; `busy` asks for another try.

    Args:
        conn: a connection that commits at once.
        id: of the job, while it waits, or its attempt's callback id.
        outcome: as in finalize_attempts.
        result: JSON text of a success.
        error: of a failure.
        delay_after: seconds until a failed job's next try; `None` for no other, `DEFAULT_DELAY` for the usual.
    """
    said: dict[str, Any] = {"outcome": outcome, "delay_after": delay_after}
    if result is not None:
        said["result"] = result
    if error is not None:
        said["error"] = error
    if isinstance(id, int):
        parameters: tuple[Any, ...] = (id, None, None, None, json.dumps(said))
    else:
        receipt = parse_callback_id(id)
        if receipt is None:
            return "refused"
        parameters = (None, *receipt, json.dumps(said))
    verdict: Literal["accepted", "refused", "busy"]
    verdict = tuple_cursor(conn).execute(END_EXTERNAL, parameters).fetchall()[0][0]
    if trace.on:
        trace.answered(parameters[0], parameters[1], parameters[2], outcome, verdict, delay_after)
    return verdict
