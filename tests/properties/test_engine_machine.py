"""Whatever is done to the engine in whatever order, it says what a small model says."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from awa.storage.attempts import ended_elsewhere
from awa.storage.cancel import cancel_job
from awa.storage.jobs import get_job, queue_counts, resume_queue
from awa.storage.promote import promote_due
from awa.storage.rescue import rescue_dead
from awa.storage.runtimes import declare_dead, list_runtimes
from tests.properties.machine import AFTER_LATE, QUEUES
from tests.properties.machine_recoveries import AT_ONCE
from tests.properties.machine_rings import RingWalk, prepare_ground
from tests.properties.model import PENDING, STATES
from tests.servers import create_database, drop_database

_numbers = itertools.count(1)

DAY = 86_000.0  # a moved clock ahead of everything, and not yet a day: dead runtimes are not forgotten
EXERCISED = (
    *("completed", "stored", "followed", "failed", "hopeless", "snoozed", "released", "waiting", "progress", "buried"),
    *("claim committed", "claim rolled back", "claim of a dead runtime", "held flush", "died", "stale", "retired"),
    *("rescued", "expired", "answered by job", "answered by callback", "late ending of a dead runtime"),
    *("too late: rescued", "too late: expired", "too late: cancelled", "too late: materialised"),
    *(f"cancel {state}: cancelled" for state in sorted(PENDING)),
)

# Of the rings, what the order of prunes, claims and endings could spoil: by any run, and by a long one.
EXERCISED_BY_RINGS = (
    *("evidence pruned before its bodies", "claim on a lane whose evidence was pruned", "claim pruned under its leases"),
    *("completed after its claim was pruned", "queue: pruned", "ended jobs pruned", "materialised"),
    *("claim: attempts are open", "claim: retention", "queue: its jobs' claims are kept", "queue: jobs wait in it"),
)
EXERCISED_BY_RINGS_IN_TIME = (
    *("claim: pruned out of order", "an older claim outlives the newest", "a straggler's rows keep their slot"),
    *("folds", "claims counted in their slot", "rebuilds"),
    *("rotate queue: idle", "retry cancelled: retried", "delete completed: deleted"),
)

# By the few walks of an ordinary run; the long profile has to get everywhere.
EXERCISED_AT_LEAST = ("claim committed", "stale", "rescued", "claim of a dead runtime")


class EngineMachine(RingWalk):
    """What always holds."""

    @invariant()
    def every_job_is_once_in_the_state_that_the_model_says(self) -> None:
        rows = self.reader.execute(
            "SELECT job_id, queue, priority, state, attempt, max_attempts, run_lease FROM awa.jobs WHERE queue = ANY (%s)",
            ([queue + self.suffix for queue in QUEUES],),
        ).fetchall()
        assert sorted(rows) == sorted((job_id, *job.row) for job_id, job in self.model.jobs.items())
        assert all(attempt <= most for *_, attempt, most, _ in rows)

    @invariant()
    def get_job_agrees(self) -> None:
        seen = self.__dict__.setdefault("seen", {})
        changed = [i for i, job in self.model.jobs.items() if seen.get(i) != job.row]
        for job_id in {*changed[:8], *list(self.model.jobs)[-3:]}:
            job = get_job(self.reader, job_id)
            assert job is not None
            row = (job.queue, job.priority, job.state, job.attempt, job.max_attempts, job.run_lease)
            assert row == self.model.jobs[job_id].row
            seen[job_id] = row
        for job_id in (*self.uncommitted(), *self.model.gone[-3:]):
            assert get_job(self.reader, job_id) is None

    @invariant()
    def queue_counts_agree(self) -> None:
        for exact in (True, False):
            counts = {
                count.queue: (count.paused, tuple(getattr(count, state) for state in STATES))
                for queue in QUEUES
                for count in queue_counts(self.reader, queue + self.suffix, exact=exact)
            }
            assert counts == self.model.counts(), f"{exact=}"

    @invariant()
    def no_counter_drifts(self) -> None:
        assert self.counters_that_drift() == []

    @invariant()
    def every_item_is_open_or_ended_once(self) -> None:
        ids = [c.claim.claim_id for c in self.model.claims]
        rows = self.reader.execute(
            "SELECT claim_id, item, job_id, outcome FROM awa.claim_items JOIN awa.queue_lanes USING (lane_id) "
            "WHERE queue = ANY (%s)",
            ([queue + self.suffix for queue in QUEUES],),
        ).fetchall()
        items = list(self.model.items(self.model.claims))
        modelled = [(c.claim.claim_id, item, job_id, c.closures.get(item)) for c, item, job_id in items if not c.is_pruned]
        assert sorted(rows, key=str) == sorted(modelled, key=str)
        leases = self.reader.execute(
            "SELECT claim_id, item, job_id, state, deadline_at IS NULL FROM awa.leases WHERE claim_id = ANY (%s)", (ids,)
        ).fetchall()
        assert sorted(leases) == sorted(
            (c.claim.claim_id, item, job_id, c.leases[item].state, c.leases[item].deadline is None)
            for c, item, job_id in items
            if item in c.leases
        )
        told = ended_elsewhere(self.reader, [(c.claim, item) for c, item, _ in items])
        ended = [(c, item) for c, item, _ in items if item in c.ended]
        assert sorted(told) == sorted(
            (c.claim.claim_id, item, "gone" if c.is_pruned else c.closures[item]) for c, item in ended
        )

    @invariant()
    def runtimes_live_or_are_dead(self) -> None:
        supervisors = {runtime.supervisor for runtime in self.runtimes}
        listed = {r.runtime_id: r.dead_at is None for r in list_runtimes(self.reader) if r.supervisor_id in supervisors}
        assert listed == {r.id: r.dead_at is None for r in self.model.runtimes.values()}

    def teardown(self) -> None:
        if not hasattr(self, "flush"):
            return
        try:
            self.bring_everything_to_an_end()
        except BaseException:
            type(self).dsn = type(self).new_database()  # what this walk has left behind must not fail the next, too
            raise
        finally:
            changed = self.clean_up()
        assert changed == []

    def bring_everything_to_an_end(self) -> None:
        """Nothing is lost: whatever the walk has left where, it can be ended."""
        for conn in (self.flusher, *(p.conn for p in self.producers), *(r.conn for r in self.runtimes)):
            conn.execute("ROLLBACK" if conn.info.transaction_status else "SELECT 1")
        self.flush = None
        for producer in self.producers:
            producer.is_open = False
        for runtime in self.runtimes:
            runtime.held = None
            if self.lives(runtime.id):
                declare_dead(self.reader, runtime.supervisor, [runtime.pid])
                self.model.runtimes[runtime.id].die(0.0)
        for dead in self.model.runtimes.values():
            count = rescue_dead(self.reader, runtime_id=dead.id, now=self.at(AT_ONCE)).rescued
            self._rescued([dead], AT_ONCE, 5000, "rescued", count)
        rescue_dead(self.reader, now=self.at(DAY))
        for queue in QUEUES:
            resume_queue(self.reader, queue + self.suffix)
        self.model.paused.clear()
        for job_id, job in self.model.jobs.items():
            if job.state == "waiting":
                assert cancel_job(self.reader, job_id) == "cancelled"
                self.model.end(*self.model.receipt(job_id), "cancelled")
        while True:
            promoted = promote_due(self.reader, 10_000, self.at(DAY))
            assert promoted == sum(job.state in {"scheduled", "retryable"} for job in self.model.jobs.values())
            for job in self.model.jobs.values():
                if job.state in {"scheduled", "retryable"}:
                    self.model.ready_again(job)
            before = len(self.model.claims)
            for queue in QUEUES:
                self.claim(0, queue, 50, None, "commit")
            for claim in self.model.claims[before:]:
                if claim.open:
                    assert self._send(self.reader, claim, 1, claim.open, "completed", 0.0) == []
                for item in claim.open:
                    self.model.end(claim, item, "completed")
            if len(self.model.claims) == before:
                break
        declare_dead(self.reader, self.runtimes[0].supervisor, [self.runtimes[0].pid])
        rescue_dead(self.reader, now=self.at(AFTER_LATE * 2))
        assert not PENDING & {job.state for job in self.model.jobs.values()}
        self.every_job_is_once_in_the_state_that_the_model_says()
        self.empty_the_rings()
        self.every_job_is_once_in_the_state_that_the_model_says()
        self.queue_counts_agree()
        self.no_counter_drifts()


# Rules that a walk about rings does without, so that it gets farther in as many steps.
ELSEWHERE = (
    *(
        "beat",
        "die",
        "declare_stale",
        "retire",
        "rescue_one",
        "rescue_dead",
        "rescue_expired",
        "resume_expiry",
        "expire_one",
    ),
    *("end_what_is_not_yours", "choose_dead_letters", "pause_or_resume", "move_in_savepoints", "redeliver", "keep_for"),
    *("answer_from_outside", "tell_progress", "settle_tombstones"),
)
assert all(hasattr(EngineMachine, name) for name in ELSEWHERE)
RingMachine = type("RingMachine", (EngineMachine,), dict.fromkeys(ELSEWHERE))


@pytest.fixture
def new_database(server: str, template: str) -> Iterator[Callable[[], str]]:
    """Makes databases for walks."""
    made: list[str] = []

    def make() -> str:
        made.append(f"awa_walk_{os.getpid()}_{next(_numbers)}")
        return prepare_ground(create_database(server, made[-1], template))

    yield make
    for name in made:
        drop_database(server, name)


def walk(machine: type[EngineMachine], new_database: Callable[[], str], examples: int) -> None:
    """Let it walk, all walks in one database; what they did is in `done`."""
    EngineMachine.done.clear()
    own = type(machine.__name__, (machine,), {"dsn": new_database(), "new_database": staticmethod(new_database)})
    run_state_machine_as_test(own, settings=settings(max_examples=examples, stateful_step_count=40, deadline=None))


def test_the_engine_says_what_the_model_says(new_database: Callable[[], str]) -> None:
    scale = settings().max_examples  # 40, or 400 in the long profile
    walk(EngineMachine, new_database, scale // 2)
    missing = [what for what in (EXERCISED if scale >= 400 else EXERCISED_AT_LEAST) if EngineMachine.done[what] == 0]
    assert missing == [], EngineMachine.done


def test_whatever_turns_and_goes_is_neither_lost_nor_done_twice(new_database: Callable[[], str]) -> None:
    scale = settings().max_examples
    walk(RingMachine, new_database, scale // 2)
    expected = (*EXERCISED_BY_RINGS, *(EXERCISED_BY_RINGS_IN_TIME if scale >= 400 else ()))
    missing = [what for what in expected if EngineMachine.done[what] == 0]
    assert missing == [], EngineMachine.done
