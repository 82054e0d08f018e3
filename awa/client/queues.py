"""Queues: how full they are, pausing and draining them, their shards."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from attrs import fields

from awa.client.sessions import Sessions
from awa.errors import ConfigurationError, WaitTimeout
from awa.job import QueueCounts
from awa.partitions import AnyQueue, PartitionedQueue, checked_queues
from awa.postgres import Connection
from awa.storage import jobs as stored
from awa.storage.kinds import set_dead_letter
from awa.storage.lanes import MAX_SHARDS, enqueue_shards, set_enqueue_shards

STATES = tuple(attribute.name for attribute in fields(QueueCounts)[2:])


class Queues(Sessions):
    """What is done to whole queues, partitioned ones among them: all of their partitions at once."""

    def queue_counts(self, queue: AnyQueue, *, exact: bool = True) -> QueueCounts:
        """How many jobs of a queue are in each state; zeros for a queue that never had one.

        Of a partitioned queue the sums over its partitions, under its logical name; paused if all of them are.
        Completed, failed and cancelled are totals since the queue's first job, whatever history is kept.

        Args:
            queue: its name.
            exact: count what there is, which costs the more the more history is kept. False: add up counters, which is as
                exact but for a backlog of more than 100 000 jobs, of which it says 100 000; for dashboards and metrics.

        >>> client.queue_counts("nobody").available
        0
        """
        if isinstance(queue, PartitionedQueue):
            parts = self.partition_counts(queue, exact=exact)
            sums = {state: sum(getattr(part, state) for part in parts) for state in STATES}
            return QueueCounts(queue=queue.logical, paused=all(part.paused for part in parts), **sums)
        with self._connection() as conn:
            return _counts_of(conn, checked_queues(queue)[0], exact)

    def partition_counts(self, queue: PartitionedQueue, *, exact: bool = True) -> list[QueueCounts]:
        """The counts of each partition, in their order; `exact` as for `queue_counts`.

        >>> import awa
        >>> [counts.queue for counts in client.partition_counts(awa.PartitionedQueue("email", 2))]
        ['email', 'email__p1']
        """
        with self._connection() as conn:
            return [_counts_of(conn, name, exact) for name in queue.physical_queues]

    def list_queues(self, *, exact: bool = True) -> list[QueueCounts]:
        """The counts of every physical queue that ever had a job, by name; `exact` as for `queue_counts`.

        >>> all(counts.running >= 0 for counts in client.list_queues())
        True
        """
        with self._connection() as conn:
            return stored.queue_counts(conn, None, exact=exact)

    def pause_queue(self, queue: AnyQueue) -> None:
        """Workers claim nothing of the queue until `resume_queue`; enqueues and running jobs go on.

        >>> client.pause_queue("reports"); client.resume_queue("reports")
        """
        with self._connection() as conn, conn.transaction():
            for name in _checked(queue):
                stored.pause_queue(conn, name)

    def resume_queue(self, queue: AnyQueue) -> None:
        """Undo `pause_queue`."""
        with self._connection() as conn, conn.transaction():
            for name in _checked(queue):
                stored.resume_queue(conn, name)

    def enqueue_shards(self, queue: AnyQueue) -> int:
        """Over how many lanes of each priority a queue's jobs are spread; 1 where nobody has said otherwise.

        Of a partitioned queue the number of its partition 0.

        >>> client.enqueue_shards("email")
        1
        """
        with self._connection() as conn:
            return enqueue_shards(conn, _checked(queue)[0])

    def set_enqueue_shards(self, queue: AnyQueue, shards: int) -> None:
        """Spread what is enqueued to a queue over so many lanes of each priority, which several claimers can empty at once.

        Jobs of one ordering key share a lane, the others go to the next in turn. Jobs that are there stay where they are
        and are worked off. Other processes learn of it within five seconds.

        Args:
            queue: its name; of a partitioned queue each partition gets so many.
            shards: 1 to 64.

        Raises:
            ConfigurationError: a number out of bounds.

        >>> client.set_enqueue_shards("email", 4)
        >>> client.enqueue_shards("email")
        4
        """
        if not isinstance(shards, int) or isinstance(shards, bool) or not 1 <= shards <= MAX_SHARDS:
            raise ConfigurationError(f"shards must be an integer between 1 and {MAX_SHARDS}, not {shards!r}")
        with self._connection() as conn:
            with conn.transaction():
                for name in _checked(queue):
                    set_enqueue_shards(conn, name, shards)
            self._lane_book(conn).forget(_checked(queue))

    def wait_until_empty(
        self, queue: AnyQueue, *, timeout: float, progress: Callable[[QueueCounts], object] | None = None
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

    def set_dead_letter(self, queue: AnyQueue, dead_letter: bool | None) -> None:
        """Whether exhausted jobs of a queue go to the dead-letter queue, which is so by default; tasks may say otherwise.

        >>> client.set_dead_letter("reports", False); client.set_dead_letter("reports", None)
        """
        with self._connection() as conn, conn.transaction():
            for name in _checked(queue):
                set_dead_letter(conn, queue=name, dead_letter=dead_letter)


def _checked(queue: AnyQueue) -> Sequence[str]:
    """The physical queues of a queue, sorted, so that two calls for the same cannot wait for each other."""
    return sorted(checked_queues(queue))


def _counts_of(conn: Connection, queue: str, exact: bool) -> QueueCounts:
    counts = stored.queue_counts(conn, queue, exact=exact)
    if counts:
        return counts[0]
    return QueueCounts(queue=queue, paused=stored.is_paused(conn, queue), **dict.fromkeys(STATES, 0))
