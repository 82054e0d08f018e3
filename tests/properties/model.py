"""What the engine should say: a model of jobs, transactions and claims in a few dictionaries."""

from __future__ import annotations

from collections import Counter
from typing import Any

import psycopg
from attrs import define, field

from awa.storage.claim import Claim, random_id

STATES = ("available", "running", "scheduled", "retryable", "completed", "failed")


@define(eq=False)
class ModelJob:
    """A committed job."""

    queue: str
    priority: int
    max_attempts: int
    due_after: float  # seconds; 0: at once
    state: str
    began: int = 0  # the step at which the transaction that made its newest body began to write
    committed: int = 0
    attempt: int = 0
    run_lease: int = 0
    due_early: bool = False  # by a moved clock

    @property
    def row(self) -> tuple[str, int, str, int, int, int]:
        """As awa.jobs shows it."""
        return (self.queue, self.priority, self.state, self.attempt, self.max_attempts, self.run_lease)


@define(eq=False)
class ModelClaim:
    """A committed claim and what has become of its items."""

    runtime: int
    claim: Claim
    job_ids: list[int]
    ended: dict[int, str] = field(factory=dict)  # item -> outcome

    @property
    def open_items(self) -> list[int]:
        return [item for item in range(1, len(self.job_ids) + 1) if item not in self.ended]


@define(eq=False)
class Model:
    """All of it."""

    jobs: dict[int, ModelJob] = field(factory=dict)
    claims: list[ModelClaim] = field(factory=list)
    paused: set[str] = field(factory=set)
    queues: set[str] = field(factory=set)  # that have a lane
    step: int = 0

    def of(self, queue: str, state: str) -> dict[int, ModelJob]:
        return {i: job for i, job in self.jobs.items() if job.queue == queue and job.state == state}

    def counts(self) -> dict[str, tuple[bool, tuple[int, ...]]]:
        """As queue_counts has them."""
        tally = Counter((job.queue, job.state) for job in self.jobs.values())
        return {queue: (queue in self.paused, tuple(tally[queue, state] for state in STATES)) for queue in self.queues}

    def ready_again(self, job: ModelJob) -> None:
        """A new body of the job was committed just now."""
        job.due_early = job.due_early or job.due_after > 0
        job.state, job.due_after, job.began, job.committed = "available", 0.0, self.step, self.step

    def end(self, claim: ModelClaim, item: int, outcome: str, delay_after: float) -> None:
        """An ending was accepted."""
        job = self.jobs[claim.job_ids[item - 1]]
        claim.ended[item] = outcome
        if outcome == "completed":
            job.state = "completed"
        elif outcome == "failed":
            job.state = "failed" if job.attempt >= job.max_attempts else "retryable"
            job.due_after = delay_after
        else:
            job.attempt -= 1
            if delay_after:
                job.state, job.due_after = "scheduled", delay_after
            else:
                self.ready_again(job)


@define(eq=False)
class Producing:
    """A producer's open transaction: per savepoint, the jobs it made there."""

    conn: psycopg.Connection[Any]
    began: int = 0
    frames: list[list[tuple[int, ModelJob]]] = field(factory=lambda: [[]])
    is_open: bool = False


@define(eq=False)
class Runtime:
    """A claimer, and the claims of its open transaction."""

    conn: psycopg.Connection[Any]
    id: int = field(factory=random_id)
    held: list[ModelClaim] | None = None
    held_queue: str = ""
