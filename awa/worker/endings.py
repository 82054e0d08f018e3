"""What an attempt's return value or exception means for its job."""

from __future__ import annotations

import asyncio
import concurrent.futures
import enum
import linecache
import logging
import re
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

from awa.arguments import encode_value
from awa.claim import Claim
from awa.context import JobContext
from awa.errors import JobCancelled
from awa.outcome import Cancel, Fail, Outcome, Park, Retry, Snooze
from awa.retry import resolve_delay
from awa.storage.complete import Ending
from awa.task import TaskPolicy
from awa.worker.services import AttemptServices

log = logging.getLogger("awa.worker")

MAX_MESSAGE: Final = 2000  # characters of an error kept with the job
MAX_TRACEBACK: Final = 4000  # characters
MAX_FRAMES: Final = 20
_OURS: Final = re.compile("/awa/(worker|testing)/")


class Verdict(enum.Enum):
    """What is left to do."""

    FINISHED = "a compact completion"
    ENDING = "another ending"
    DURABLE = "nothing: its own transaction has completed it"
    NOTHING = "nothing: it was ended by somebody else"


def judge(
    job: JobContext,
    claim: Claim,
    item: int,
    policy: TaskPolicy,
    error: BaseException | None,
    value: object,
    duration: float,
    services: AttemptServices | None,
) -> tuple[Verdict, Ending | None]:
    """How the attempt has ended.

    Args:
        job, claim, item: the attempt.
        policy: its task's.
        error: what the handler raised.
        value: what it returned otherwise.
        duration: seconds it ran.
        services: for the lanes of follow-up jobs.
    """
    state = job.attempt_state()
    if error is None and isinstance(value, Outcome):
        error = value
    if state.told is not None and isinstance(error, asyncio.CancelledError | concurrent.futures.CancelledError):
        error = state.told()  # how a coroutine was told
    if state.has_ended:
        if error is not None:
            log.warning("job %d (%s) had completed when it raised: %r", job.id, job.kind, error, extra=job.log_fields())
        return Verdict.DURABLE, None
    if error is None:
        result = None
        try:
            # A stored null would be read as what no stored result is read as, and cost a wide row.
            result = encode_value(value, "result") if policy.result and value is not None else None
            follow_ups = services.follow_ups(state.follow_ups) if services and state.follow_ups else None
        except Exception as unfit:  # noqa: BLE001 - a result that is no JSON, or no database to make a lane in
            error = unfit
        else:
            if result is None and follow_ups is None and not state.has_lease:
                return Verdict.FINISHED, None
            return Verdict.ENDING, Ending(claim, item, "completed", result=result, follow_ups=follow_ups)
    if isinstance(error, JobCancelled):
        log.info("job %d (%s) stopped: it was cancelled", job.id, job.kind, extra=job.log_fields())
        return Verdict.NOTHING, None
    if isinstance(error, Snooze):
        return Verdict.ENDING, Ending(claim, item, "snoozed", delay_after=error.seconds)
    if isinstance(error, Park):
        return Verdict.ENDING, Ending(claim, item, "waiting", delay_after=error.timeout)
    described = describe_error(job.attempt, error, duration)
    if isinstance(error, Cancel):
        return Verdict.ENDING, Ending(claim, item, "cancelled", error=described)
    return Verdict.ENDING, failure(job, claim, item, policy, error, described)


def failure(
    job: JobContext, claim: Claim, item: int, policy: TaskPolicy, error: BaseException, described: dict[str, Any]
) -> Ending:
    """A failed attempt: when it is tried again, and what is kept of it."""
    delay: float | None
    if isinstance(error, Fail):
        delay = None
    elif isinstance(error, Retry) and error.after is not None:
        delay = error.after
    else:
        delay = resolve_delay(policy.retry, policy.retry_for, job.attempt, error)
    log.warning(
        "job %d (%s) failed on attempt %d of %d: %s",
        job.id,
        job.kind,
        job.attempt,
        job.max_attempts,
        described["message"],
        exc_info=None if isinstance(error, Outcome) else error,
        extra=job.log_fields(),
    )
    return Ending(claim, item, "failed", delay_after=delay, error=described)


def describe_error(attempt: int, error: BaseException, duration: float | None = None) -> dict[str, Any]:
    """What a job keeps of an exception.

    Args:
        attempt: that it ended.
        error: the exception.
        duration: seconds the attempt ran.
    """
    # Survives a __str__ that raises, and leaves out notes.
    message = str(traceback.TracebackException(type(error), error, None)) or type(error).__name__
    described: dict[str, Any] = {
        "attempt": attempt,
        "at": datetime.now(UTC).isoformat(),
        "type": type(error).__name__,
        "class": f"{type(error).__module__}.{type(error).__qualname__}",
        "message": _storable(message)[:MAX_MESSAGE],
    }
    if duration is not None:
        described["runtime"] = round(duration, 6)
    if not isinstance(error, Outcome) and (frames := _trimmed(error.__traceback__)):
        described["traceback"] = frames
    return described


def _trimmed(tb: TracebackType | None) -> str:
    """The newest frames of the handler's own code: the worker's say nothing to its author."""
    frames = []
    while tb is not None:
        filename = tb.tb_frame.f_code.co_filename
        if not _OURS.search(filename.replace("\\", "/")):
            frames.append((filename, tb.tb_lineno, tb.tb_frame.f_code.co_name))
        tb = tb.tb_next
    # Not traceback.extract_tb, which asks the disk about every file every time: failures come by the thousand.
    text = "".join(
        f'  File "{filename}", line {line}, in {name}\n    {linecache.getline(filename, line).strip()}\n'
        for filename, line, name in frames[-MAX_FRAMES:]
    )
    return _storable(text)[-MAX_TRACEBACK:]


def _storable(text: str) -> str:
    """NUL and lone surrogates are legal in an exception and not in jsonb."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
