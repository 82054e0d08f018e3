"""What the engine should say: a model of jobs, transactions, claims and runtimes in a few dictionaries.

The model's clock stands still at 0 while a walk runs; instants are seconds from there, and what lies ahead is reached by
handing the engine a moved clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
from attrs import define, field

from awa.claim import Claim
from awa.storage.claim import random_id

STATES = (
    "available",
    "running",
    "scheduled",
    "retryable",
    "waiting",
    "completed",
    "failed",
    "cancelled",
    "dead_lettered",
)
PENDING = frozenset({"available", "running", "scheduled", "retryable", "waiting"})
DEFERRED = frozenset({"scheduled", "retryable"})
BRIEF = 8.0  # no delay that the database takes by itself is longer here


@define(eq=False)
class ModelJob:
    """A committed job."""

    queue: str
    priority: int
    max_attempts: int
    due_after: float  # seconds; 0: at once
    state: str
    kind: str = "x"
    began: int = 0  # the step at which the transaction that made its newest body began to write
    committed: int = 0
    attempt: int = 0
    run_lease: int = 0
    due_early: bool = False  # by a moved clock
    completed_by: ModelClaim | None = None  # compactly: it goes when the claim goes

    @property
    def row(self) -> tuple[str, int, str, int, int, int]:
        """As awa.jobs shows it."""
        return (self.queue, self.priority, self.state, self.attempt, self.max_attempts, self.run_lease)


@define(eq=False)
class ModelGhost:
    """A body that nobody is to run: its job was cancelled or deleted before a claim, and none has passed over it yet."""

    job_id: int
    queue: str
    priority: int
    run_lease: int  # of the claim that will pass over it
    began: int
    committed: int
    due_early: bool = False


@define(eq=False)
class ModelLease:
    """An attempt that has a row of its own."""

    state: str
    deadline: float | None


@define(eq=False)
class ModelClaim:
    """A committed claim and what has become of its items."""

    runtime: int
    claim: Claim
    deadline: float | None = None
    job_ids: list[int] = field(factory=list)
    run_leases: list[int] = field(factory=list)
    is_pruned: bool = False  # nothing is left of it but leases
    closures: dict[int, str] = field(factory=dict)  # item -> outcome, as awa.claim_items has it
    leases: dict[int, ModelLease] = field(factory=dict)  # item -> its lease, while there is one

    @property
    def open(self) -> list[int]:
        """Items that run without a lease."""
        return [item for item in range(1, len(self.job_ids) + 1) if item not in self.closures]

    @property
    def live(self) -> list[int]:
        """Items that have not ended."""
        return [item for item in range(1, len(self.job_ids) + 1) if item not in self.closures or item in self.leases]

    @property
    def running(self) -> list[int]:
        """Items whose handlers run."""
        return [item for item in self.live if item not in self.leases or self.leases[item].state == "running"]

    @property
    def ended(self) -> list[int]:
        return [item for item in self.closures if item not in self.leases]

    def expired(self, now: float) -> list[int]:
        """Items past their deadline, be it the claim's or their own."""
        return [item for item in self.live if (at := self.deadline_of(item)) is not None and at <= now]

    def deadline_of(self, item: int) -> float | None:
        return self.leases[item].deadline if item in self.leases else self.deadline


@define(eq=False)
class ModelRuntime:
    """A registered runtime."""

    id: int
    supervisor: int
    pid: int
    last_seen: float = 0.0
    dead_at: float | None = None
    look_at: float | None = None

    def die(self, at: float) -> None:
        self.dead_at = self.look_at = at


@define(eq=False)
class Model:
    """All of it."""

    jobs: dict[int, ModelJob] = field(factory=dict)
    claims: list[ModelClaim] = field(factory=list)
    runtimes: dict[int, ModelRuntime] = field(factory=dict)
    paused: set[str] = field(factory=set)
    queues: set[str] = field(factory=set)  # that have a lane
    dead_letter: dict[str, bool | None] = field(factory=dict)  # by queue or kind
    handed_out: set[tuple[int, int]] = field(factory=set)  # (job_id, run_lease)
    ghosts: list[ModelGhost] = field(factory=list)
    gone: list[int] = field(factory=list)  # ids of jobs that were pruned, deleted or discarded
    pruned: Counter[tuple[str, str]] = field(factory=Counter)  # (queue, state): what is only counted any more
    step: int = 0

    def of(self, queue: str, state: str) -> dict[int, ModelJob]:
        return {i: job for i, job in self.jobs.items() if job.queue == queue and job.state == state}

    def counts(self) -> dict[str, tuple[bool, tuple[int, ...]]]:
        """As queue_counts has them."""
        tally = Counter((job.queue, job.state) for job in self.jobs.values()) + self.pruned
        return {queue: (queue in self.paused, tuple(tally[queue, state] for state in STATES)) for queue in self.queues}

    def items(self, claims: Iterable[ModelClaim]) -> Iterator[tuple[ModelClaim, int, int]]:
        """Every item of the claims, with its job."""
        for claim in claims:
            for item, job_id in enumerate(claim.job_ids, 1):
                yield claim, item, job_id

    def receipt(self, job_id: int) -> tuple[ModelClaim, int]:
        """The attempt of a job that runs or waits."""
        return next((claim, item) for claim, item, i in self.items(self.claims) if i == job_id and item in claim.live)

    def ready_again(self, job: ModelJob, began: int | None = None) -> None:
        """A new body of the job was committed just now, by a transaction that began at that step."""
        job.due_early = job.due_early or job.due_after > 0
        job.state, job.due_after = "available", 0.0
        job.began, job.committed = self.step if began is None else began, self.step

    def end(
        self,
        claim: ModelClaim,
        item: int,
        outcome: str,
        delay: float | None = 0.0,
        *,
        began: int | None = None,
    ) -> None:
        """An ending was accepted. `outcome` is one of finalize_attempts."""
        job = self.jobs[claim.job_ids[item - 1]]
        had_lease = claim.leases.pop(item, None) is not None
        closure = outcome
        if outcome == "completed":
            job.state, job.completed_by = "completed", None if had_lease else claim
        elif outcome == "waiting":
            job.state, closure = "waiting", "materialised"
            claim.leases[item] = ModelLease("waiting", delay)
        elif outcome == "cancelled":
            job.state = "cancelled"
        elif outcome in {"snoozed", "released"}:
            job.attempt -= 1
            if outcome == "released" and not delay:
                self.ready_again(job, began)
            else:
                job.state, job.due_after = "scheduled", delay or 0.0
        elif job.attempt >= job.max_attempts or (outcome == "failed" and delay is None):
            job.state = "dead_lettered" if self.dead_letters(job) else "failed"
        elif outcome in {"rescued", "expired"} and job.attempt == 1:  # the database's delay before a second attempt is none
            self.ready_again(job, began)
        else:
            job.state, job.due_after = "retryable", BRIEF if outcome != "failed" or delay is None else delay
            closure = "retryable" if outcome == "failed" else outcome
        claim.closures.setdefault(item, closure)

    def dead_letters(self, job: ModelJob) -> bool:
        """As its kind says, else its queue, else yes."""
        for name in (job.kind, job.queue):
            if (said := self.dead_letter.get(name)) is not None:
                return said
        return True

    def bury(self, job_id: int) -> None:
        """It was cancelled before a claim, which uses up the lease of the claim that will pass over it."""
        job = self.jobs[job_id]
        job.state = "cancelled"
        job.run_lease += 1
        self.ghosts.append(ModelGhost(job_id, job.queue, job.priority, job.run_lease, job.began, job.committed))

    def delete(self, job_id: int) -> None:
        """It was removed, whatever it did."""
        job = self.jobs[job_id]
        if job.state == "available":
            self.bury(job_id)
        elif job.state in {"running", "waiting"}:
            claim, item = self.receipt(job_id)
            claim.leases.pop(item, None)
            claim.closures.setdefault(item, "deleted")
        self.forget(job_id)

    def prune(self, job_id: int) -> None:
        """Its history is over; it counts for ever."""
        job = self.jobs[job_id]
        self.pruned[job.queue, job.state] += 1
        self.forget(job_id)

    def forget(self, job_id: int) -> None:
        """Nothing shows it any more."""
        del self.jobs[job_id]
        self.gone.append(job_id)

    def retry(self, job_id: int) -> None:
        """It has ended badly and begins anew."""
        job = self.jobs[job_id]
        job.attempt = 0
        self.ready_again(job)

    def bodies(self, queue: str) -> dict[tuple[int, int], ModelJob | ModelGhost]:
        """What a claim may take or pass over, by job and the lease that it gets."""
        bodies: dict[tuple[int, int], ModelJob | ModelGhost] = {
            (g.job_id, g.run_lease): g for g in self.ghosts if g.queue == queue
        }
        return bodies | {(i, job.run_lease + 1): job for i, job in self.of(queue, "available").items()}

    def materialise(self, claim: ModelClaim, item: int) -> None:
        """A running attempt has got a lease."""
        if item not in claim.leases:
            claim.leases[item] = ModelLease("running", claim.deadline)
            claim.closures[item] = "materialised"

    def commit(self, claim: ModelClaim) -> None:
        """A claim was committed: what was cancelled before is buried, the others run."""
        self.claims.append(claim)
        for item, (job_id, run_lease) in enumerate(zip(claim.job_ids, claim.run_leases, strict=True), 1):
            ghost = next((g for g in self.ghosts if (g.job_id, g.run_lease) == (job_id, run_lease)), None)
            if ghost is not None:
                self.ghosts.remove(ghost)
                claim.closures[item] = "buried"
                continue
            job = self.jobs[job_id]
            job.state, job.attempt, job.run_lease = "running", job.attempt + 1, job.run_lease + 1
            assert (job_id, job.run_lease) not in self.handed_out
            self.handed_out.add((job_id, job.run_lease))


@define(eq=False)
class Producing:
    """A producer's open transaction: per savepoint, the jobs it made there."""

    conn: psycopg.Connection[Any]
    began: int = 0
    frames: list[list[tuple[int, ModelJob]]] = field(factory=lambda: [[]])
    is_open: bool = False


@define(eq=False)
class Runtime:
    """A process: its identity of the moment, and the claims of its open transaction."""

    conn: psycopg.Connection[Any]
    pid: int
    supervisor: int
    id: int = field(factory=random_id)
    held: list[ModelClaim] | None = None
    held_queue: str = ""


@define(eq=False)
class Flush:
    """An open transaction that has ended items of one claim."""

    claim: ModelClaim
    items: list[int]
    outcome: str
    delay: float | None
    began: int
