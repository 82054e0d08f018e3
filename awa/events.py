"""What happens to jobs in this process, for whoever wants to know: metrics, tests, logs.

Callbacks run in the worker's own threads: after the ending is durable in the database, and for `JobStarted` just before the
handler. They should be quick. One that raises is logged and hurts nobody.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen

if TYPE_CHECKING:
    from awa.context import JobContext
    from awa.storage.complete import Ending

log = logging.getLogger("awa.worker")


@frozen(kw_only=True)
class JobEvent:
    """Something happened to a job. `at` is the instant it was noticed here."""

    job_id: int
    kind: str
    queue: str
    attempt: int
    at: datetime


@frozen(kw_only=True)
class JobStarted(JobEvent):
    """Its handler is about to run."""


@frozen(kw_only=True)
class JobCompleted(JobEvent):
    """It succeeded, and that is durable."""


@frozen(kw_only=True)
class JobRetried(JobEvent):
    """An attempt failed, and the job will be tried again."""

    error: str
    delay: float


@frozen(kw_only=True)
class JobFailed(JobEvent):
    """It failed and will not be tried again."""

    error: str


@frozen(kw_only=True)
class JobSnoozed(JobEvent):
    """It put itself off, in seconds."""

    delay: float


@frozen(kw_only=True)
class JobCancelled(JobEvent):
    """Its handler cancelled it."""


@frozen(kw_only=True)
class JobReleased(JobEvent):
    """It was given back without counting the attempt."""


@frozen(kw_only=True)
class JobWaiting(JobEvent):
    """It is parked until it is answered from outside."""


E = TypeVar("E", bound=JobEvent)
Callback = Callable[[Any], object]


class Subscription:
    """A callback's registration; `close` ends it, as the end of a `with` block does."""

    def __init__(self, callback: Callback, types: tuple[type[JobEvent], ...]) -> None:
        self.callback = callback
        self.types = types

    def close(self) -> None:
        """No more events."""
        _remove(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


listeners: list[Subscription] = []
"""Who listens. Asked for its truth once or twice a job: what nobody hears is not made."""
_changing = threading.Lock()


def subscribe(callback: Callable[[E], object], *types: type[E]) -> Subscription:
    """Call `callback` with every event of these types, or of all types when none is named.

    Args:
        callback: is given the event.
        types: subclasses of `JobEvent`.

    >>> from awa import events
    >>> failures = []
    >>> with events.subscribe(failures.append, events.JobFailed):
    ...     pass
    >>> failures
    []
    """
    subscription = Subscription(callback, types or (JobEvent,))
    with _changing:
        listeners.append(subscription)
    return subscription


def started(job: JobContext) -> JobStarted:
    """The event of an attempt's beginning."""
    return JobStarted(**_fields(job))


def completed(job: JobContext) -> JobCompleted:
    """The event of a success."""
    return JobCompleted(**_fields(job))


def ended(job: JobContext, ending: Ending) -> JobEvent:
    """The event of any other ending."""
    fields = _fields(job)
    error = str((ending.error or {}).get("message", ""))
    match ending.outcome:
        case "completed":
            return JobCompleted(**fields)
        case "failed" if ending.delay_after is None or job.attempt >= job.max_attempts:
            return JobFailed(**fields, error=error)
        case "failed":
            return JobRetried(**fields, error=error, delay=ending.delay_after or 0.0)
        case "snoozed":
            return JobSnoozed(**fields, delay=ending.delay_after or 0.0)
        case "cancelled":
            return JobCancelled(**fields)
        case "waiting":
            return JobWaiting(**fields)
        case "released":
            return JobReleased(**fields)


def _fields(job: JobContext) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "kind": job.kind,
        "queue": job.queue,
        "attempt": job.attempt,
        "at": datetime.now(UTC),
    }


def emit(event: JobEvent) -> None:
    """Tell whoever listens."""
    for subscription in tuple(listeners):
        if isinstance(event, subscription.types):
            try:
                subscription.callback(event)
            except Exception:
                log.exception("a callback failed on %r", event)


def _remove(subscription: Subscription) -> None:
    with _changing:
        if subscription in listeners:
            listeners.remove(subscription)
