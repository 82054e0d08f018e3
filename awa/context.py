"""What a running handler can know about its job."""

from __future__ import annotations

import json
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from awa.errors import AwaError

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_current: ContextVar[JobContext] = ContextVar("awa_job")


class JobContext:
    """The running job. A handler gets it by a parameter annotated with this class, or from `awa.current_job()`.

    Attributes:
        id: of the job.
        kind: its kind.
        queue: its queue.
        priority: 1 (first) to 4.
        attempt: 1 for the first try.
        max_attempts: counted attempts before the job has failed.
        run_lease: grows with every claim of the job, counted or not.

    >>> import awa
    >>> @awa.task
    ... def audit(ctx: awa.JobContext, table: str) -> None:
    ...     print(ctx.id, ctx.attempt, table)
    """

    __slots__ = (
        "_created_at",
        "_payload",
        "_run_at",
        "attempt",
        "id",
        "kind",
        "max_attempts",
        "priority",
        "queue",
        "run_lease",
    )

    def __init__(
        self,
        queue: str,
        priority: int,
        id: int,
        kind: str,
        attempt: int,
        max_attempts: int,
        run_lease: int,
        run_at: int,
        created_at: int,
        payload: str | None,
    ) -> None:
        self.queue = queue
        self.priority = priority
        self.id = id
        self.kind = kind
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.run_lease = run_lease
        # Microseconds since 2000, and JSON text: most handlers never look, so nothing is decoded for them.
        self._run_at = run_at
        self._created_at = created_at
        self._payload = payload

    @property
    def run_at(self) -> datetime:
        """When the job was due."""
        return _EPOCH + timedelta(microseconds=self._run_at)

    @property
    def created_at(self) -> datetime:
        """When the job was enqueued."""
        return _EPOCH + timedelta(microseconds=self._created_at)

    @property
    def tags(self) -> tuple[str, ...]:
        """The labels it was enqueued with."""
        return tuple(self._decoded().get("tags", ()))

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata it was enqueued with."""
        metadata: dict[str, Any] = self._decoded().get("metadata", {})
        return metadata

    @property
    def errors(self) -> tuple[dict[str, Any], ...]:
        """The newest ten failed attempts, oldest first."""
        return tuple(self._decoded().get("errors", ()))

    def log_fields(self) -> dict[str, Any]:
        """For `logging`'s extra: the keys are stable."""
        return {
            "awa_job_id": self.id,
            "awa_kind": self.kind,
            "awa_queue": self.queue,
            "awa_attempt": self.attempt,
        }

    def __repr__(self) -> str:
        return f"<awa job {self.id} {self.kind!r} attempt {self.attempt}/{self.max_attempts}>"

    def _decoded(self) -> dict[str, Any]:
        return json.loads(self._payload) if self._payload else {}


def current_job() -> JobContext:
    """The job that the calling handler runs for.

    Raises:
        AwaError: called outside a handler.

    >>> import awa
    >>> awa.current_job()
    Traceback (most recent call last):
    awa.errors.AwaError: no job is running here
    """
    try:
        return _current.get()
    except LookupError:
        raise AwaError("no job is running here") from None


def enter_job(job: JobContext) -> None:
    """Make `job` the current one in this context."""
    _current.set(job)
