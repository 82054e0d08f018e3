"""Looking: jobs, results, workers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from heapq import merge
from itertools import islice
from typing import Any, Final, get_args

from awa.client.sessions import Sessions
from awa.errors import ConfigurationError, JobNotFound, JobUnsuccessful, WaitTimeout
from awa.job import Job, JobState, RuntimeInfo
from awa.partitions import AnyQueue, checked_queues
from awa.storage import jobs as stored
from awa.storage.runtimes import list_runtimes

MAX_PAGE: Final = 1000  # jobs


class Looking(Sessions):
    """What an application reads."""

    def get_job(self, job_id: int) -> Job | None:
        """The job of that id, or None.

        >>> client.get_job(0) is None
        True
        """
        if self.diversion is not None:
            return self.diversion.get_job(job_id)
        with self._reading() as conn:
            return stored.get_job(conn, job_id)

    def list_jobs(
        self,
        *,
        queue: AnyQueue | None = None,
        kind: str | None = None,
        state: JobState | None = None,
        ended_before: datetime | None = None,
        before_id: int | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """Jobs, the newest ids first; what it costs does not depend on the history, see docs/how-to/storage.md.

        Args:
            queue, kind, state: only of that one; of a partitioned queue the jobs of all its partitions.
            ended_before: only those that ended before this instant.
            before_id: the last id of the page before, for the next one.
            limit: at most so many, 1 to 1000.

        Raises:
            ConfigurationError: no such state, or a limit out of bounds.

        >>> first = client.enqueue("report", queue="docs-list"); second = client.enqueue("report", queue="docs-list")
        >>> page = client.list_jobs(queue="docs-list", state="available", limit=1)
        >>> page[0].id == second, client.list_jobs(queue="docs-list", before_id=page[-1].id)[0].id == first
        (True, True)
        """
        if state is not None and state not in get_args(JobState):
            raise ConfigurationError(f"state must be one of {', '.join(get_args(JobState))}, not {state!r}")
        if not 1 <= limit <= MAX_PAGE:
            raise ConfigurationError(f"limit must be between 1 and {MAX_PAGE}, not {limit}")
        names: Sequence[str | None] = [None] if queue is None else checked_queues(queue)
        with self._connection() as conn:
            pages = [
                stored.list_jobs(
                    conn, queue=name, kind=kind, state=state, ended_before=ended_before, before_id=before_id, limit=limit
                )
                for name in names
            ]
        return list(islice(merge(*pages, key=lambda job: job.id, reverse=True), limit))

    def list_runtimes(self) -> list[RuntimeInfo]:
        """The worker processes, and those that died within the last day.

        >>> [runtime.pid for runtime in client.list_runtimes() if runtime.is_leader]
        []
        """
        with self._reading() as conn:
            return list_runtimes(conn)

    def result(self, job_id: int, *, timeout: float) -> Any:
        """What the job's handler returned, once it has; its task must be one with `result=True`.

        Args:
            job_id: of the job.
            timeout: seconds to wait for its end.

        Raises:
            JobNotFound: there is no such job.
            JobUnsuccessful: it failed or was cancelled.
            WaitTimeout: it has not ended in time.

        >>> client.result(client.enqueue("nobody_runs_this", queue="docs"), timeout=0)
        Traceback (most recent call last):
        awa.errors.WaitTimeout: job ... is available after 0 s
        """
        deadline = time.monotonic() + timeout
        pause = 0.005
        while True:
            job = self.get_job(job_id)
            if job is None:
                raise JobNotFound(f"there is no job {job_id}")
            if job.state == "completed":
                return job.result
            if job.state in ("failed", "cancelled", "dead_lettered"):
                raise JobUnsuccessful(job)
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeout(f"job {job_id} is {job.state} after {timeout:g} s")
            time.sleep(min(pause, left))
            pause = min(pause * 2, 0.25)
