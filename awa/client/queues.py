"""Queues: how full they are, pausing and draining them."""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import fields

from awa.client.sessions import Sessions
from awa.errors import WaitTimeout
from awa.job import QueueCounts
from awa.plan import check_name
from awa.storage import jobs as stored
from awa.storage.kinds import set_dead_letter


class Queues(Sessions):
    """What is done to whole queues."""

    def queue_counts(self, queue: str, *, exact: bool = True) -> QueueCounts:
        """How many jobs of a queue are in each state; zeros for a queue that never had one.

        Completed, failed and cancelled are totals since the queue's first job, whatever history is kept.

        Args:
            queue: its name.
            exact: count what there is, which costs the more the more history is kept. False: add up counters, which is as
                exact but for a backlog of more than 100 000 jobs, of which it says 100 000; for dashboards and metrics.

        >>> client.queue_counts("nobody").available
        0
        """
        with self._connection() as conn:
            counts = stored.queue_counts(conn, check_name(queue, "queue", 200), exact=exact)
        if counts:
            return counts[0]
        states = [attribute.name for attribute in fields(QueueCounts)[2:]]
        return QueueCounts(queue=queue, paused=False, **dict.fromkeys(states, 0))

    def list_queues(self, *, exact: bool = True) -> list[QueueCounts]:
        """The counts of every queue that ever had a job, by name; `exact` as for `queue_counts`.

        >>> all(counts.running >= 0 for counts in client.list_queues())
        True
        """
        with self._connection() as conn:
            return stored.queue_counts(conn, None, exact=exact)

    def pause_queue(self, queue: str) -> None:
        """Workers claim nothing of the queue until `resume_queue`; enqueues and running jobs go on.

        >>> client.pause_queue("reports"); client.resume_queue("reports")
        """
        with self._connection() as conn:
            stored.pause_queue(conn, check_name(queue, "queue", 200))

    def resume_queue(self, queue: str) -> None:
        """Undo `pause_queue`."""
        with self._connection() as conn:
            stored.resume_queue(conn, check_name(queue, "queue", 200))

    def wait_until_empty(
        self, queue: str, *, timeout: float, progress: Callable[[QueueCounts], object] | None = None
    ) -> None:
        """Wait until a queue has nothing available, running or waiting; jobs due later do not count.

        Args:
            queue: its name.
            timeout: seconds.
            progress: called with the counts at every look.

        Raises:
            WaitTimeout: it still has.

        >>> client.wait_until_empty("nobody", timeout=1)
        """
        deadline = time.monotonic() + timeout
        pause = 0.01
        while True:
            counts = self.queue_counts(queue, exact=False)
            if progress is not None:
                progress(counts)
            if counts.available + counts.running + counts.waiting == 0:
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeout(
                    f"queue {queue} has {counts.available} available, {counts.running} running and {counts.waiting} waiting "
                    f"jobs after {timeout:g} s"
                )
            time.sleep(min(pause, left))
            pause = min(pause * 2, 0.5)

    def set_dead_letter(self, queue: str, dead_letter: bool | None) -> None:
        """Whether exhausted jobs of a queue go to the dead-letter queue, which is so by default; tasks may say otherwise.

        >>> client.set_dead_letter("reports", False); client.set_dead_letter("reports", None)
        """
        with self._connection() as conn:
            set_dead_letter(conn, queue=check_name(queue, "queue", 200), dead_letter=dead_letter)
