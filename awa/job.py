"""The nouns: a job to be enqueued, a job as stored, a queue's counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from attrs import field, frozen

if TYPE_CHECKING:
    from awa.partitions import AnyQueue
    from awa.unique import Unique

JobState = Literal[
    "available",
    "scheduled",
    "retryable",
    "running",
    "waiting",
    "completed",
    "failed",
    "cancelled",
    "dead_lettered",
]

STATES: Final[tuple[JobState, ...]] = get_args(JobState)


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return self.name


UNSET: Final = Unset.UNSET
"""What an option is that nobody has set, where None means something else: to have none, whatever the batch has."""


def _tuple(tags: Iterable[str]) -> tuple[str, ...]:
    return tuple(tags)


@frozen(kw_only=True)
class JobOptions:
    """How a job is to be run. What is not set is as the batch, then the task, then the library has it.

    `queue=None` and `ordering_key=None` say: not the batch's. Such a job goes to its task's queue, or has no key.

    >>> JobOptions(queue="email", priority=1).max_attempts is None
    True
    """

    queue: AnyQueue | Unset | None = UNSET
    priority: int | None = None
    max_attempts: int | None = None
    run_at: datetime | None = None
    tags: tuple[str, ...] = field(default=(), converter=_tuple)
    metadata: Mapping[str, Any] | None = None
    unique: Unique | None = None
    ordering_key: str | bytes | Unset | None = UNSET

    @property
    def names_queue(self) -> bool:
        """Whether these options say which queue.

        >>> JobOptions(queue=None).names_queue
        False
        """
        return self.queue not in (None, UNSET)


def given(value: Any) -> Any:
    """An argument of which None means that it was not given, as an option."""
    return UNSET if value is None else value


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

    `errors` holds the newest ten failed attempts, oldest first, each with `attempt`, `at`, `type`, `message` and, where a
    handler raised, `class` (its import path), `traceback` and `runtime` (seconds). `progress` is what its handler said:
    `percent`, `message`, `at`; `checkpoint` is what it keeps for its next attempt, `result` what it returned where its task
    stores that.
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
    progress: dict[str, Any] | None = None
    checkpoint: Any = None
    result: Any = None


@frozen(kw_only=True)
class RuntimeInfo:
    """A worker process as the database knows it. `dead_at` is set for one that died or was not heard of for too long."""

    runtime_id: int
    supervisor_id: int
    pid: int
    hostname: str
    release: str
    queues: dict[str, int]
    started_at: datetime
    last_seen: datetime
    dead_at: datetime | None
    is_leader: bool


@frozen(kw_only=True)
class QueueCounts:
    """How many jobs of one queue are in each state."""

    queue: str
    paused: bool
    available: int
    running: int
    scheduled: int
    retryable: int
    waiting: int
    completed: int
    failed: int
    cancelled: int
    dead_lettered: int

    @property
    def unfinished(self) -> int:
        """Jobs that have not ended."""
        return self.available + self.running + self.scheduled + self.retryable + self.waiting
