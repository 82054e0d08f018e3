"""Jobs that have ended: retrying, moving, discarding and deleting them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import get_args

from awa.client.ending import insist
from awa.client.sessions import Sessions
from awa.errors import ConfigurationError, JobNotFound, UniqueConflict
from awa.partitions import AnyQueue, checked_queues
from awa.postgres import Connection
from awa.storage.cancel import delete_job
from awa.storage.dead_letters import EndedState, dead_letter_jobs, discard_jobs, retry_jobs, select_ended

BATCH = 500  # jobs a transaction

Progress = Callable[[int], object]


class Ended(Sessions):
    """What is done to jobs that have ended, one or many at a time."""

    def retry(self, job_id: int) -> bool:
        """Put a job that has failed, was cancelled or lies in the dead-letter queue back, with all its attempts before it.

        Args:
            job_id: of the job.

        Returns:
            Whether it was put back; False for one that has not ended, or has completed.

        Raises:
            JobNotFound: there is no such job.
            UniqueConflict: another job has its unique key now.

        >>> job_id = client.enqueue("report", queue="docs")
        >>> client.cancel(job_id), client.retry(job_id), client.get_job(job_id).state
        (True, True, 'available')
        """
        with self._connection() as conn:
            verdict = retry_jobs(conn, [job_id])[job_id]
        if verdict == "unknown":
            raise JobNotFound(f"there is no job {job_id}")
        if verdict == "conflict":
            raise UniqueConflict(job_id)
        return verdict == "retried"

    def retry_ended(
        self,
        state: EndedState,
        *,
        queue: AnyQueue | None = None,
        kind: str | None = None,
        before: datetime | None = None,
        progress: Progress | None = None,
    ) -> dict[str, int]:
        """Put all jobs of a state back, 500 a transaction.

        Args:
            state: "failed", "cancelled" or "dead_lettered".
            queue, kind: only of that one; of a partitioned queue the jobs of all its partitions.
            before: only those that ended before this instant.
            progress: called with the number of jobs looked at so far.

        Returns:
            How many were "retried", and how many were left because of a "conflict": another job has their unique key.

        >>> client.retry_ended("dead_lettered", queue="nobody")
        {'retried': 0, 'conflict': 0}
        """

        def act(conn: Connection, ids: list[int]) -> Counter[str]:
            return Counter(retry_jobs(conn, ids).values())

        done = self._for_all(act, state, queue, kind, before, progress)
        return {"retried": done["retried"], "conflict": done["conflict"]}

    def move_to_dead_letters(
        self, *, queue: AnyQueue | None = None, kind: str | None = None, progress: Progress | None = None
    ) -> int:
        """Move jobs that were kept as failed to the dead-letter queue; how many.

        Args:
            queue, kind, progress: as for `retry_ended`.

        >>> client.move_to_dead_letters(queue="nobody")
        0
        """
        return self._for_all(dead_letter_jobs, "failed", queue, kind, None, progress)["moved"]

    def dead_letter(self, job_id: int) -> bool:
        """Move a job that was kept as failed to the dead-letter queue; False when it is not one.

        Args:
            job_id: of the job.

        >>> client.dead_letter(client.enqueue("report", queue="docs"))
        False
        """
        with self._connection() as conn:
            return dead_letter_jobs(conn, [job_id])["moved"] == 1

    def discard(self, job_id: int) -> bool:
        """Remove a job that has failed, was cancelled or lies in the dead-letter queue; False for every other, which stays.

        Args:
            job_id: of the job.

        >>> job_id = client.enqueue("report", queue="docs")
        >>> client.discard(job_id), client.cancel(job_id), client.discard(job_id)
        (False, True, True)
        """
        with self._connection() as conn:
            return discard_jobs(conn, [job_id])["discarded"] == 1

    def discard_ended(
        self,
        state: EndedState,
        *,
        queue: AnyQueue | None = None,
        kind: str | None = None,
        before: datetime | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Remove all jobs of a state for good; how many.

        Args:
            state, queue, kind, before, progress: as for `retry_ended`.

        >>> client.discard_ended("failed", kind="nobody_runs_this")
        0
        """
        return self._for_all(discard_jobs, state, queue, kind, before, progress)["discarded"]

    def delete(self, job_id: int) -> bool:
        """Remove a job in whatever state it is, as if it had never been; a running handler is told to stop.

        Args:
            job_id: of the job.

        Returns:
            False when there is no such job.

        Raises:
            JobBusy: something held it for five seconds; nothing was changed.

        >>> client.delete(client.enqueue("report", queue="docs"))
        True
        """
        with self._connection() as conn:
            return insist(lambda: delete_job(conn, job_id), f"job {job_id}") == "deleted"

    def _for_all(
        self,
        act: Callable[[Connection, list[int]], Counter[str]],
        state: EndedState,
        queue: AnyQueue | None,
        kind: str | None,
        before: datetime | None,
        progress: Progress | None,
    ) -> Counter[str]:
        """Walk by id, so that jobs which cannot be acted on keep nothing behind them from its turn."""
        if state not in get_args(EndedState):
            raise ConfigurationError(f"state must be one of {', '.join(get_args(EndedState))}, not {state!r}")
        names: Sequence[str | None] = [None] if queue is None else checked_queues(queue)
        done: Counter[str] = Counter()
        seen = 0
        with self._connection() as conn:
            for name in names:
                last = 0
                while ids := select_ended(conn, state, queue=name, kind=kind, before=before, after_job_id=last, limit=BATCH):
                    done += act(conn, ids)
                    last = ids[-1]
                    seen += len(ids)
                    if progress is not None:
                        progress(seen)
        return done
