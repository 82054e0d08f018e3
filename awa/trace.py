"""What the engine does, one JSON line an event, for whoever wants to check or replay it: `AWA_TRACE=file`.

Every process that has the variable appends to the same file; a batch is one write at the file's end, so lines stay whole. An
event is written after the database has acknowledged it: what a killed process had done and not yet written is missing. Off,
it costs one truth test a batch. `tla/replay.py` holds a trace against the model of a job's life.

    enqueued    job, max_attempts, deferred, in_transaction (the caller's: it may roll back)
    copied      n jobs through COPY
    claimed     job, run_lease, attempt, max_attempts, claim, item, runtime
    ended       the same, outcome, verdict (accepted, refused), again (there may be another try), soon (without a delay)
    saved       the same, verdict: progress or a checkpoint, whose first makes a lease of the attempt
    answered    job or claim and item, outcome, verdict, again, soon: an attempt that waited was ended from outside
    cancelled   job, verdict (cancelled, ended, unknown)
    deleted     job, verdict (deleted, unknown)
    retried     job: it had ended badly and begins again
    promoted    n jobs
    rescued     n attempts, by (dead, expired)

Each has `at` (seconds since 1970), `mono` (seconds on the process's monotonic clock) and `pid`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from awa.claim import ATTEMPT, JOB_ID, MAX_ATTEMPTS, RUN_LEASE, Claim, ClaimedRow

if TYPE_CHECKING:
    from awa.plan import PlannedJob

on = False
"""Whether events are written. Look at it before anything else: it is the only cost of a trace that nobody takes."""

_file: int | None = None
_claimed: dict[tuple[int, int, int], dict[str, Any]] = {}  # by claim id, token and item, until the attempt has ended


def start(path: str | Path) -> None:
    """Append this process's events to the file from now on.

    Raises:
        OSError: it cannot be opened.
    """
    global on, _file  # noqa: PLW0603 - the switch of a process
    stop()
    _file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    on = True


def stop() -> None:
    """Write no more."""
    global on, _file  # noqa: PLW0603
    on = False
    file, _file = _file, None
    _claimed.clear()
    if file is not None:
        os.close(file)


def enqueued(jobs: Sequence[PlannedJob], ids: Sequence[int], *, in_transaction: bool) -> None:
    """Jobs were appended."""
    _write(
        {
            "event": "enqueued",
            "job": job_id,
            "max_attempts": job.max_attempts,
            "deferred": job.deferred,
            "in_transaction": in_transaction,
        }
        for job, job_id in zip(jobs, ids, strict=True)
    )


def counted(event: str, n: int, **more: Any) -> None:
    """Something happened to `n` jobs of which only the number is known here. Nothing for none."""
    if n:
        _write([{"event": event, "n": n, **more}])


def claimed(jobs: Iterable[tuple[Claim, int, ClaimedRow]], runtime_id: int) -> None:
    """Jobs were handed to this process."""
    facts = []
    for claim, item, row in jobs:
        fact = {
            "job": row[JOB_ID],
            "run_lease": row[RUN_LEASE],
            "attempt": row[ATTEMPT],
            "max_attempts": row[MAX_ATTEMPTS],
            "claim": claim.claim_id,
            "item": item,
            "runtime": runtime_id,
        }
        _claimed[claim.claim_id, claim.token, item] = fact
        facts.append({"event": "claimed", **fact})
    _write(facts)


def ended(endings: Iterable[tuple[Claim, int, str, str, float | None]]) -> None:
    """Attempts were ended, or not: claim, item, outcome, verdict and the delay after which there may be another try.

    What was `busy` is handed in again and is no event.
    """
    facts = []
    for claim, item, outcome, verdict, delay_after in endings:
        if verdict != "busy":
            # A parked attempt is ended by another.
            fact = _claimed.pop((claim.claim_id, claim.token, item), {"claim": claim.claim_id, "item": item})
            facts.append({"event": "ended", **fact, "outcome": outcome, "verdict": verdict, **_delay(delay_after)})
    _write(facts)


def saved(claim: Claim, item: int, verdict: str) -> None:
    """An attempt has said something of itself."""
    fact = _claimed.get((claim.claim_id, claim.token, item), {"claim": claim.claim_id, "item": item})
    if verdict != "busy":
        _write([{"event": "saved", **fact, "verdict": "accepted" if verdict == "saved" else verdict}])


def answered(
    job_id: int | None, claim_id: int | None, item: int | None, outcome: str, verdict: str, delay: float | None
) -> None:
    """An attempt was ended by the world outside, or not."""
    if verdict != "busy":
        _write(
            [
                {
                    "event": "answered",
                    "job": job_id,
                    "claim": claim_id,
                    "item": item,
                    "outcome": outcome,
                    "verdict": verdict,
                    # A negative delay is the database's default, which is not nought.
                    **_delay(delay),
                }
            ]
        )


def asked_for(event: Literal["cancelled", "deleted"], job_id: int, verdict: str) -> None:
    """A job was to be cancelled or deleted."""
    if verdict != "busy":
        _write([{"event": event, "job": job_id, "verdict": verdict}])


def retried(job_ids: Iterable[int]) -> None:
    """Jobs that had ended badly were put back to their lanes."""
    _write({"event": "retried", "job": job_id} for job_id in job_ids)


def _delay(delay_after: float | None) -> dict[str, bool]:
    return {"again": delay_after is not None, "soon": delay_after == 0}


def _write(facts: Iterable[dict[str, Any]]) -> None:
    now = {"at": time.time(), "mono": time.monotonic(), "pid": os.getpid()}
    text = "".join(json.dumps({**fact, **now}) + "\n" for fact in facts)
    if text and _file is not None:
        os.write(_file, text.encode())


if os.environ.get("AWA_TRACE"):
    start(os.environ["AWA_TRACE"])
