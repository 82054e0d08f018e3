"""Every order in which jobs may be completed, claimed, rescued, and their rows go: 720 of them, one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import permutations
from typing import Any

import psycopg

import awa
from awa.claim import JOB_ID
from awa.rings import Ring
from awa.storage.counters import count_closed_claims
from awa.storage.jobs import queue_counts
from awa.storage.rescue import rescue_dead
from awa.storage.rings import rotate_ring
from awa.storage.runtimes import declare_dead
from tests.sql.engine import Batch, claim, complete
from tests.sql.rings import assert_counts_are_exact, keep_nothing, prune

RINGS: tuple[Ring, ...] = ("queue", "claim")
JOBS = 5
FIRST = 3  # claimed by a worker that then is declared dead; the others wait


class Course:
    """Jobs of one queue through the steps in some order."""

    def __init__(self, conn: psycopg.Connection[Any], client: awa.Client, number: int) -> None:
        self.conn, self.queue, self.first, self.second = conn, f"q{number}", 2 * number + 1, 2 * number + 2
        self.completed: Counter[int] = Counter()
        self.ids = client.enqueue_many([{}] * JOBS, kind="work", queue=self.queue)
        self.batch = self.claim(FIRST, self.first)
        assert self.batch.ids == self.ids[:FIRST]

    def claim(self, limit: int, runtime_id: int) -> Batch:
        batch = claim(self.conn, limit, queue=self.queue, runtime_id=runtime_id)
        again = [job_id for job_id in batch.ids if self.completed[job_id]]
        assert again == [], "a finished job is handed out again"
        return batch

    def end(self, batch: Batch, runtime_id: int) -> None:
        """Complete whatever is accepted."""
        refused = {
            answer.claim_id for answer in complete(self.conn, *((c, None) for c in batch.claims), runtime_id=runtime_id)
        }
        for owner, _, row in batch.jobs:
            self.completed[row[JOB_ID]] += owner.claim_id not in refused

    def complete(self) -> None:
        self.end(self.batch, self.first)

    def claim_on(self) -> None:
        self.end(self.claim(1, self.second), self.second)

    def rescue(self) -> None:
        declare_dead(self.conn, self.first, [self.first])
        rescue_dead(self.conn, runtime_id=self.first)

    def rotate(self) -> None:
        for ring in RINGS:
            assert rotate_ring(self.conn, ring, force=True) in ("rotated", "idle")

    def prune_claims(self) -> None:
        prune(self.conn, "claim")

    def prune_ready(self) -> None:
        prune(self.conn, "queue")

    def running_is_not_completed(self) -> None:
        """What has completed is not counted as anything else."""
        (counts,) = queue_counts(self.conn, self.queue)
        assert counts.completed == self.completed.total()
        assert counts.available + counts.running == JOBS - counts.completed

    def to_the_end(self) -> None:
        """Somebody does the rest, and every job has completed once."""
        self.rescue()
        while (batch := self.claim(JOBS, self.second)).jobs:
            self.end(batch, self.second)
        assert self.completed == Counter(self.ids), "a job is lost, or was completed twice"
        self.running_is_not_completed()


STEPS: tuple[Callable[[Course], None], ...] = (
    Course.complete,
    Course.claim_on,
    Course.rescue,
    Course.rotate,
    Course.prune_claims,
    Course.prune_ready,
)


def test_in_no_order_is_a_job_lost_or_handed_out_after_it_has_completed(
    conn: psycopg.Connection[Any], client: awa.Client
) -> None:
    keep_nothing(conn)
    for number, order in enumerate(permutations(STEPS)):
        course = Course(conn, client, number)
        try:
            for step in order:
                step(course)
                if number % 2:
                    count_closed_claims(conn, 0)
                    assert queue_counts(conn, course.queue, exact=False) == queue_counts(conn, course.queue)
                course.running_is_not_completed()
            course.to_the_end()
        except BaseException as error:
            error.add_note(f"order {number}: {', '.join(step.__name__ for step in order)}")
            raise
        if number % 4 == 3:  # the rings have eight slots
            course.rotate()
            course.prune_claims()
            course.prune_ready()
    assert_counts_are_exact(conn)
