"""Looking: jobs, results, workers."""

from __future__ import annotations

import time
from typing import Any

from awa.client.sessions import Sessions
from awa.errors import JobNotFound, JobUnsuccessful, WaitTimeout
from awa.job import Job, RuntimeInfo
from awa.storage import jobs as stored
from awa.storage.runtimes import list_runtimes


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
