"""The nouns: a job to be enqueued, a job as stored, a queue's counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

from attrs import field, frozen

JobState = Literal["available", "scheduled", "retryable", "running", "completed", "failed"]


def _tuple(tags: Iterable[str]) -> tuple[str, ...]:
    return tuple(tags)


@frozen(kw_only=True)
class JobOptions:
    """How a job is to be run. `None` means: as the task, then the library, has it by default.

    >>> JobOptions(queue="email", priority=1).max_attempts is None
    True
    """

    queue: str | None = None
    priority: int | None = None
    max_attempts: int | None = None
    run_at: datetime | None = None
    tags: tuple[str, ...] = field(default=(), converter=_tuple)
    metadata: Mapping[str, Any] | None = None


@frozen
class NewJob:
    """One job for `enqueue_many` and `enqueue_many_copy` that differs from its batch.

    Args:
        args: a JSON object: a mapping, an attrs or a dataclass instance.
        kind: the kind or the task; `None` takes the batch's.
        options: what differs; `None` takes the batch's.

    >>> NewJob({"to": "ada"}, options=JobOptions(priority=1)).options.priority
    1
    """

    args: object
    kind: Any = None
    options: JobOptions | None = None


@frozen(kw_only=True)
class Job:
    """A job as the database has it.

    `errors` holds the newest ten failed attempts, oldest first, each with `attempt`, `at`, `type` and `message`.
    """

    id: int
    queue: str
    priority: int
    kind: str
    args: dict[str, Any]
    state: JobState
    attempt: int
    max_attempts: int
    run_lease: int
    run_at: datetime
    created_at: datetime
    claimed_at: datetime | None
    finalized_at: datetime | None
    runtime_id: int | None
    tags: tuple[str, ...]
    metadata: dict[str, Any]
    errors: tuple[dict[str, Any], ...]


@frozen(kw_only=True)
class QueueCounts:
    """How many jobs of one queue are in each state."""

    queue: str
    paused: bool
    available: int
    running: int
    scheduled: int
    retryable: int
    completed: int
    failed: int

    @property
    def unfinished(self) -> int:
        """Jobs that have not ended."""
        return self.available + self.running + self.scheduled + self.retryable
