"""complete_jobs and finalize_attempts: how attempts end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import psycopg
from attrs import frozen

from awa.claim import Claim
from awa.postgres import Connection, tuple_cursor

COMPLETE_JOBS: Final = "SELECT * FROM awa.complete_jobs(%s::int8, %s::int8, %s::int2[], %s::int8[], %s::int8[], %s::text[])"
FINALIZE_ATTEMPTS: Final = "SELECT * FROM awa.finalize_attempts(%s::int8, %s::int8, %s::json)"


class Completion(NamedTuple):
    """Items of one claim that succeeded; `None` for all of them."""

    claim: Claim
    items: list[int] | None


@frozen
class Ending:
    """How one attempt ended that did not simply succeed.

    `delay_after` is in seconds; None means no other try for what has failed, and no timeout for what waits. `error` is what
    the job's `errors` will show, `result` JSON text, `follow_ups` jobs to be enqueued with the ending, as
    `enqueue_parameters` has them.
    """

    claim: Claim
    item: int
    outcome: Literal["completed", "failed", "snoozed", "released", "cancelled", "waiting"]
    delay_after: float | None = 0.0
    error: dict[str, Any] | None = None
    result: str | None = None
    follow_ups: tuple[str | None, str | None, list[str] | None] | None = None


class NotAccepted(NamedTuple):
    """What a flush could not end: `busy` for another try, `refused` for good. `item` None: all that was handed in."""

    claim_id: int
    item: int | None
    verdict: Literal["busy", "refused"]


def complete_jobs(
    conn: Connection, runtime_id: int, flush_id: int, completions: Sequence[Completion]
) -> psycopg.Cursor[tuple[Any, ...]]:
    """Send the successes; `not_accepted` reads the answer, so that a pipeline can send more before.

    Args:
        conn: an autocommit connection, or the handler's own transaction.
        runtime_id: the claims' runtime.
        flush_id: random per flush, and the same when a flush is repeated.
        completions: at most one per claim.
    """
    return tuple_cursor(conn).execute(
        COMPLETE_JOBS,
        (
            runtime_id,
            flush_id,
            [done.claim.claim_slot for done in completions],
            [done.claim.claim_id for done in completions],
            [done.claim.token for done in completions],
            [None if done.items is None else f"{{{','.join(map(str, done.items))}}}" for done in completions],
        ),
        prepare=True,
    )


def finalize_attempts(
    conn: Connection, runtime_id: int, flush_id: int, endings: Sequence[Ending]
) -> psycopg.Cursor[tuple[Any, ...]]:
    """Send every other ending; `not_accepted` reads the answer."""
    outcomes = json.dumps([_outcome(ending) for ending in endings])
    return tuple_cursor(conn).execute(FINALIZE_ATTEMPTS, (runtime_id, flush_id, outcomes), prepare=True)


def not_accepted(cursor: psycopg.Cursor[tuple[Any, ...]]) -> list[NotAccepted]:
    """What the flush did not end."""
    return [NotAccepted(*row) for row in cursor.fetchall()]


def _outcome(ending: Ending) -> dict[str, Any]:
    outcome: dict[str, Any] = {
        "claim_slot": ending.claim.claim_slot,
        "claim_id": ending.claim.claim_id,
        "token": ending.claim.token,
        "item": ending.item,
        "outcome": ending.outcome,
        "delay_after": ending.delay_after,
    }
    if ending.error is not None:
        outcome["error"] = ending.error
    if ending.result is not None:
        outcome["result"] = ending.result
    if ending.follow_ups is not None:
        outcome["ready"], outcome["deferred"], outcome["notify"] = ending.follow_ups
    return outcome
