"""What a running handler can know about its job."""

from __future__ import annotations

import json
import time
from concurrent.futures import Future
from contextlib import AbstractContextManager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from attrs import define, field

from awa.arguments import encode_object, encode_value
from awa.claim import ATTEMPT, CREATED_AT, JOB_ID, KIND, MAX_ATTEMPTS, PAYLOAD, RUN_AT, RUN_LEASE, Claim, ClaimedRow
from awa.errors import AwaError, InvalidJob, JobInterrupted
from awa.outcome import Park

if TYPE_CHECKING:
    from awa.plan import PlannedJob
    from awa.postgres import Connection
    from awa.worker.services import AttemptServices

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
PROGRESS_EVERY: Final = 1.0
"""Seconds between two writes of a job's progress."""

_current: ContextVar[JobContext] = ContextVar("awa_job")


@define(eq=False)
class AttemptState:
    """What is known of an attempt beyond its claim."""

    told: type[JobInterrupted] | None = None  # to stop, and why
    future: Future[Any] | None = None  # of a coroutine
    has_lease: bool = False  # so it ends by its lease, not by a compact completion
    has_ended: bool = False  # by its own transaction
    unsaid: str | None = None  # progress that waits for the next write
    said_at: float = 0.0  # monotonic
    follow_ups: list[PlannedJob] = field(factory=list)


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

    # Made for every job, and most handlers never look: so the facts stay in the claimed row until they are asked for.
    __slots__ = ("_attempt_state", "_claim", "_item", "_row", "_services")

    def __init__(self, claim: Claim, item: int, row: ClaimedRow, services: AttemptServices | None = None) -> None:
        self._claim = claim
        self._item = item
        self._row = row
        self._services = services
        self._attempt_state: AttemptState | None = None  # most attempts never need one

    @property
    def queue(self) -> str:
        return self._claim.queue

    @property
    def priority(self) -> int:
        return self._claim.priority

    @property
    def id(self) -> int:
        return cast(int, self._row[JOB_ID])

    @property
    def kind(self) -> str:
        return cast(str, self._row[KIND])

    @property
    def attempt(self) -> int:
        return cast(int, self._row[ATTEMPT])

    @property
    def max_attempts(self) -> int:
        return cast(int, self._row[MAX_ATTEMPTS])

    @property
    def run_lease(self) -> int:
        return cast(int, self._row[RUN_LEASE])

    # -- being told to stop --------------------------------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        """Whether the attempt has completed in a transaction of its own: what the handler does now is after the job."""
        return self._attempt_state is not None and self._attempt_state.has_ended

    @property
    def cancelled(self) -> bool:
        """Whether the handler is to stop: the job was cancelled, or the attempt has reached its timeout."""
        return self._attempt_state is not None and self._attempt_state.told is not None

    def raise_if_cancelled(self) -> None:
        """Stop here if the handler is to stop.

        Raises:
            JobCancelled, JobTimeout: it is.
        """
        if self._attempt_state is not None and self._attempt_state.told is not None:
            raise self._attempt_state.told

    # -- long attempts -------------------------------------------------------------------------------------------------

    def progress(self, percent: float, message: str = "") -> None:
        """Say how far the attempt is. Written at most once a second; a later call carries what an earlier one left out.

        Args:
            percent: 0 to 100.
            message: up to 500 characters.

        Raises:
            InvalidJob: `percent` or `message` is out of bounds.
            AttemptLost: the attempt has ended already.
        """
        if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 <= percent <= 100:
            raise InvalidJob("percent", f"must be between 0 and 100, not {percent!r}")
        if len(message) > 500:
            raise InvalidJob("message", f"{len(message)} characters, the limit is 500")
        state = self.attempt_state()
        said = {"percent": percent, "message": message, "at": datetime.now(UTC).isoformat()}
        state.unsaid = encode_object(said, "progress")
        now = time.monotonic()
        if now - state.said_at >= PROGRESS_EVERY or percent == 100:
            state.said_at = now
            self._save(None)

    def checkpoint(self, data: object) -> None:
        """Keep `data`, at once and durably, for the next attempt if this one does not end well.

        Args:
            data: anything that is JSON, up to 64 KiB.

        Raises:
            InvalidJob: it is not.
            AttemptLost: the attempt has ended already.
        """
        self._save(encode_value(data, "checkpoint"))

    @property
    def last_checkpoint(self) -> Any:
        """What an earlier attempt kept with `checkpoint`, or None."""
        return self._decoded().get("checkpoint")

    def register_callback(self) -> str:
        """A name for this attempt, for `Client.complete_external` and its like; from now on it may be answered.

        Raises:
            AttemptLost: the attempt has ended already.
        """
        self._save(None)
        return self._attempt_services().callback_id(self)

    def wait_for_callback(self, timeout: float | None = None) -> NoReturn:
        """End the handler here and leave the job waiting until it is answered from outside.

        Args:
            timeout: seconds after which the attempt counts as failed; `None` waits for ever.
        """
        raise Park(timeout)

    # -- endings -------------------------------------------------------------------------------------------------------

    def enqueue(self, task_or_kind: Any, args: object = None, **options: Any) -> None:
        """Enqueue a job in the transaction that records this attempt's success; nothing if it does not succeed.

        Args:
            task_or_kind: as for `Client.enqueue`.
            args: a JSON object.
            options: queue, priority, max_attempts, run_at, tags, metadata, ordering_key, as for `Client.enqueue`.

        Raises:
            InvalidJob: the job would be refused.
        """
        self.attempt_state().follow_ups.append(self._attempt_services().plan(task_or_kind, args, options))

    def transaction(self) -> AbstractContextManager[Connection]:
        """A transaction in which the handler writes and the attempt completes: both are committed, or neither is.

        Gives a psycopg connection. The completion is the last statement before the commit, follow-up jobs included.
        An exception inside the block undoes all of it and goes on.

        Raises:
            AttemptLost: at the end of the block: the job was cancelled or rescued meanwhile, and nothing was written.
            AwaError: the attempt has completed already.
        """
        return self._attempt_services().transaction(self)

    def attempt_state(self) -> AttemptState:
        """What the worker keeps about an attempt that does more than return."""
        if self._attempt_state is None:
            self._attempt_state = AttemptState()
        return self._attempt_state

    def _save(self, checkpoint: str | None) -> None:
        state = self.attempt_state()
        progress, state.unsaid = state.unsaid, None
        self._attempt_services().save(self, progress, checkpoint)
        state.has_lease = True

    def _attempt_services(self) -> AttemptServices:
        if self._services is None:
            raise AwaError("this job does not run in a worker")
        return self._services

    @property
    def run_at(self) -> datetime:
        """When the job was due."""
        return _EPOCH + timedelta(microseconds=self._row[RUN_AT])

    @property
    def created_at(self) -> datetime:
        """When the job was enqueued."""
        return _EPOCH + timedelta(microseconds=self._row[CREATED_AT])

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

    @property
    def runtime_id(self) -> int:
        """The worker process it runs in, as `awa runtime list` has it."""
        return self._attempt_services().runtime_id

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
        payload = self._row[PAYLOAD]
        return json.loads(payload) if payload else {}


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
