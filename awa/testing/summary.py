"""What a drain has done."""

from __future__ import annotations

from collections import Counter

from attrs import frozen


@frozen(kw_only=True)
class DrainedJob:
    """One attempt that a drain has run.

    `state` is the job's after the attempt, `error` what its handler raised, or None. A job tried twice is there twice.
    """

    id: int
    kind: str
    queue: str
    attempt: int
    state: str
    error: BaseException | None = None


@frozen
class Drained:
    """The attempts of one drain in their order, and how many left their jobs in each state.

    >>> from awa.testing import Drained, DrainedJob
    >>> done = Drained((DrainedJob(id=7, kind="greet", queue="default", attempt=1, state="completed"),))
    >>> done.completed, done.retryable, str(done)
    (1, 0, '1 attempt: 1 completed')
    """

    jobs: tuple[DrainedJob, ...] = ()

    def count(self, state: str) -> int:
        """How many attempts left their jobs in this state."""
        return sum(job.state == state for job in self.jobs)

    @property
    def total(self) -> int:
        """Attempts."""
        return len(self.jobs)

    @property
    def errors(self) -> tuple[BaseException, ...]:
        """What handlers raised, in order; `Retry`, `Snooze`, `Cancel` and `Fail` too."""
        return tuple(job.error for job in self.jobs if job.error is not None)

    @property
    def completed(self) -> int:
        """Ended well."""
        return self.count("completed")

    @property
    def retryable(self) -> int:
        """Failed, and to be tried again."""
        return self.count("retryable")

    @property
    def scheduled(self) -> int:
        """Put off: snoozed, or put back because no task here has their kind."""
        return self.count("scheduled")

    @property
    def cancelled(self) -> int:
        """Ended by `Cancel`."""
        return self.count("cancelled")

    @property
    def failed(self) -> int:
        """Failed for good, in the dead-letter queue or not."""
        return self.count("failed") + self.count("dead_lettered")

    @property
    def waiting(self) -> int:
        """Parked until they are answered from outside."""
        return self.count("waiting")

    def __str__(self) -> str:
        states = ", ".join(f"{n} {state}" for state, n in Counter(job.state for job in self.jobs).items())
        return f"{self.total} attempt{'' if self.total == 1 else 's'}{': ' if states else ''}{states}"
