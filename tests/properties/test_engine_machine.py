"""Whatever is done to the engine in whatever order, it says what a small model says."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

import awa
from awa.postgres import connect
from awa.storage.claim import JOB_ID, RUN_LEASE, claim_jobs, prepare_claiming, random_id, read_claims
from awa.storage.complete import Completion, Ending, NotAccepted, complete_jobs, finalize_attempts, not_accepted
from awa.storage.jobs import get_job, pause_queue, queue_counts, resume_queue
from awa.storage.promote import promote_due
from tests.properties.fuzz import rotate
from tests.properties.model import STATES, Model, ModelClaim, ModelJob, Producing, Runtime

SOON, LATE = 100.0, 5000.0  # seconds of delay
_numbers = itertools.count(1)


class EngineMachine(RuleBasedStateMachine):
    """Walks in one database, each with queues of its own."""

    dsn = ""
    done: ClassVar[Counter[str]] = Counter()  # over all walks: what was exercised

    @initialize()
    def connect(self) -> None:
        self.suffix = f"-{next(_numbers)}"  # queues of its own: making a database takes longer than a walk
        self.model = Model()
        self.client = awa.Client(self.dsn)
        self.reader = connect(self.dsn, "reader")
        self.producers = [Producing(connect(self.dsn, "producer")) for _ in range(2)]
        self.runtimes = [Runtime(connect(self.dsn, "runtime")) for _ in range(3)]
        for runtime in self.runtimes:
            prepare_claiming(runtime.conn)
        # Something of everything to begin with: few random walks get far by themselves.
        for queue, delay in (("a", 0.0), ("b", 0.0), ("a", SOON)):
            self.enqueue(0, queue, 1, 2, delay, 5, False)
            self.enqueue(1, queue, 3, 5, delay, 2, False)
        self.claim(0, "a", 6, "commit")
        self.claim(1, "b", 3, "commit")

    # -- enqueueing ------------------------------------------------------------------------------------------------

    @rule(
        who=st.integers(0, 1),
        queue=st.sampled_from(["a", "b"]),
        priority=st.sampled_from([1, 3]),
        max_attempts=st.sampled_from([1, 2, 5]),
        delay=st.sampled_from([0.0, 0.0, 0.0, SOON, LATE]),
        n=st.sampled_from([1, 2, 5]),
        in_transaction=st.booleans(),
    )
    def enqueue(
        self, who: int, queue: str, priority: int, max_attempts: int, delay: float, n: int, in_transaction: bool
    ) -> None:
        producer, queue = self.producers[who], queue + self.suffix
        self.model.step += 1
        if in_transaction and not producer.is_open:
            producer.conn.execute("BEGIN")
            producer.is_open, producer.began, producer.frames = True, self.model.step, [[]]
        run_at = datetime.now(UTC) + timedelta(seconds=delay) if delay else None
        ids = self.client.enqueue_many(
            [{"n": n}] * n,
            kind="x",
            queue=queue,
            priority=priority,
            max_attempts=max_attempts,
            run_at=run_at,
            connection=producer.conn,
        )
        self.model.queues.add(queue)
        state = "scheduled" if delay else "available"
        for job_id in ids:
            job = ModelJob(queue, priority, max_attempts, delay, state)
            if producer.is_open:
                producer.frames[-1].append((job_id, job))
            else:
                job.began = job.committed = self.model.step
                self.model.jobs[job_id] = job

    @precondition(lambda self: any(p.is_open for p in self.producers))
    @rule(data=st.data(), what=st.sampled_from(["savepoint", "release", "undo"]))
    def move_in_savepoints(self, data: st.DataObject, what: str) -> None:
        producer = data.draw(st.sampled_from([p for p in self.producers if p.is_open]), "producer")
        depth = len(producer.frames)
        if what == "savepoint" or depth == 1:
            producer.conn.execute(f"SAVEPOINT s{depth}")
            producer.frames.append([])
        elif what == "release":
            producer.conn.execute(f"RELEASE s{depth - 1}")
            producer.frames[-2].extend(producer.frames.pop())
        else:
            producer.conn.execute(f"ROLLBACK TO s{depth - 1}")
            producer.frames[-1].clear()

    @precondition(lambda self: any(p.is_open for p in self.producers))
    @rule(data=st.data(), commit=st.booleans())
    def end_transaction(self, data: st.DataObject, commit: bool) -> None:
        producer = data.draw(st.sampled_from([p for p in self.producers if p.is_open]), "producer")
        producer.conn.execute("COMMIT" if commit else "ROLLBACK")
        producer.is_open = False
        self.model.step += 1
        for job_id, job in itertools.chain(*producer.frames) if commit else ():
            job.began, job.committed = producer.began, self.model.step
            self.model.jobs[job_id] = job

    # -- claiming --------------------------------------------------------------------------------------------------

    @rule(
        who=st.integers(0, 2),
        queue=st.sampled_from(["a", "b"]),
        limit=st.sampled_from([1, 2, 4, 50]),
        then=st.sampled_from(["commit", "commit", "commit", "roll back", "hold"]),
    )
    def claim(self, who: int, queue: str, limit: int, then: str) -> None:
        runtime, queue = self.runtimes[who], queue + self.suffix
        if runtime.held is not None:
            return
        busy = [r.held for r in self.runtimes if r.held is not None and r.held_queue == queue]
        available = self.model.of(queue, "available")
        runtime.conn.execute("BEGIN")
        token = random_id()
        jobs = read_claims(claim_jobs(runtime.conn, queue, limit, runtime.id, token), queue, token)
        ids = [row[JOB_ID] for _, _, row in jobs]
        assert set(ids) <= set(available)
        assert len(ids) == len(set(ids))
        if queue in self.model.paused:
            assert ids == []
        elif not busy:
            # A claim may end with a lane's window, before the limit and before what was committed after the window.
            assert min(1, len(available)) <= len(ids) <= limit
            # A lane whose head was promoted by a moved clock is not due yet and ranks lower.
            if not any(job.run_lease or job.due_early for job in available.values()):
                priorities = [available[i].priority for i in ids]
                assert priorities == sorted(priorities)
                assert priorities[:1] == sorted(job.priority for job in available.values())[:1]
        for other in itertools.chain(*busy):
            assert not set(other.job_ids) & set(ids)
        for _, _, row in jobs:
            job = available.pop(row[JOB_ID])
            assert row[RUN_LEASE] == job.run_lease + 1
            earlier = [i for i, left in available.items() if left.priority == job.priority and left.committed < job.began]
            assert earlier == [], "claimed before jobs of its lane that were committed before it began"
        claims = [ModelClaim(runtime.id, claim, []) for claim in {claim: None for claim, _, _ in jobs}]
        for claim, item, row in jobs:
            mine = next(c for c in claims if c.claim is claim)
            mine.job_ids.append(row[JOB_ID])
            assert item == len(mine.job_ids)
        runtime.held, runtime.held_queue = claims, queue
        if then != "hold":
            self._end_claim(runtime, then == "commit")

    @precondition(lambda self: any(r.held is not None for r in self.runtimes))
    @rule(data=st.data(), commit=st.booleans())
    def end_held_claim(self, data: st.DataObject, commit: bool) -> None:
        self._end_claim(data.draw(st.sampled_from([r for r in self.runtimes if r.held is not None]), "runtime"), commit)

    def _end_claim(self, runtime: Runtime, commit: bool) -> None:
        runtime.conn.execute("COMMIT" if commit else "ROLLBACK")
        claims, runtime.held = runtime.held or [], None
        self.done["claim committed" if commit else "claim rolled back"] += bool(claims)
        for claim in claims if commit else ():
            self.model.claims.append(claim)
            for job_id in claim.job_ids:
                job = self.model.jobs[job_id]
                job.state, job.attempt, job.run_lease = "running", job.attempt + 1, job.run_lease + 1

    # -- ending ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: any(c.open_items for c in self.model.claims))
    @rule(
        data=st.data(),
        outcome=st.sampled_from(["completed", "completed", "failed", "released"]),
        delay=st.sampled_from([0.0, SOON, LATE]),
        whole=st.booleans(),
        roll_back=st.sampled_from([False, False, False, True]),
    )
    def end(self, data: st.DataObject, outcome: str, delay: float, whole: bool, roll_back: bool) -> None:
        claim = data.draw(st.sampled_from([c for c in self.model.claims if c.open_items]), "claim")
        items = claim.open_items
        if not whole:
            items = data.draw(st.lists(st.sampled_from(items), min_size=1, unique=True), "items")
        flush_id = random_id()
        with self.reader.transaction(force_rollback=roll_back):
            assert self._send(claim, flush_id, items, outcome, delay) == []
        if roll_back:
            return
        self.model.step += 1
        self.done[outcome] += 1
        for item in sorted(items):
            self.model.end(claim, item, outcome, delay)
        assert self._send(claim, flush_id, items, outcome, delay) == [], "a flush sent twice is accepted"
        late = self._send(claim, random_id(), items, outcome, delay)
        assert [a.verdict for a in late] == ["refused"] * len(items), "another flush comes too late"

    @precondition(lambda self: any(c.ended for c in self.model.claims))
    @rule(data=st.data(), outcome=st.sampled_from(["completed", "failed", "released"]))
    def repeat_an_old_ending(self, data: st.DataObject, outcome: str) -> None:
        self.done["repeated"] += 1
        claim = data.draw(st.sampled_from([c for c in self.model.claims if c.ended]), "claim")
        item = data.draw(st.sampled_from(sorted(claim.ended)), "item")
        refused = [NotAccepted(claim.claim.claim_id, item, "refused")]
        assert self._send(claim, random_id(), [item], outcome, 0.0) == refused

    @precondition(lambda self: any(c.open_items for c in self.model.claims))
    @rule(
        data=st.data(), outcome=st.sampled_from(["completed", "failed"]), wrong=st.sampled_from(["runtime", "token", "item"])
    )
    def end_what_is_not_yours(self, data: st.DataObject, outcome: str, wrong: str) -> None:
        claim = data.draw(st.sampled_from([c for c in self.model.claims if c.open_items]), "claim")
        item = 99 if wrong == "item" else claim.open_items[0]
        before = claim.claim.token, claim.runtime
        claim.claim.token += wrong == "token"
        claim.runtime += wrong == "runtime"
        answer = self._send(claim, random_id(), [item], outcome, 0.0)
        claim.claim.token, claim.runtime = before
        assert [(a.claim_id, a.verdict) for a in answer] == [(claim.claim.claim_id, "refused")]

    def _send(self, claim: ModelClaim, flush_id: int, items: list[int], outcome: Any, delay: float) -> list[NotAccepted]:
        if outcome == "completed":
            given = None if set(items) == set(range(1, len(claim.job_ids) + 1)) else items
            return not_accepted(complete_jobs(self.reader, claim.runtime, flush_id, [Completion(claim.claim, given)]))
        endings = [Ending(claim.claim, item, outcome, delay_after=delay) for item in items]
        return not_accepted(finalize_attempts(self.reader, claim.runtime, flush_id, endings))

    # -- the rest --------------------------------------------------------------------------------------------------

    @rule(ahead=st.sampled_from([0.0, 1000.0, 10_000.0]), limit=st.sampled_from([1, 100]))
    def promote(self, ahead: float, limit: int) -> None:
        due = {
            i: job
            for i, job in self.model.jobs.items()
            if job.state in {"scheduled", "retryable"} and job.due_after <= ahead
        }
        now = datetime.now(UTC) + timedelta(seconds=ahead + 1)
        assert promote_due(self.reader, limit, now) == min(limit, len(due))
        left = {row[0] for row in self.reader.execute("SELECT job_id FROM awa.deferred_jobs").fetchall()}
        assert left <= {i for i, job in self.model.jobs.items() if job.state in {"scheduled", "retryable"}}
        gone = [i for i in due if i not in left]
        assert len(gone) == min(limit, len(due))
        self.model.step += 1
        for job_id in gone:
            self.model.ready_again(due[job_id])

    @rule(queue=st.sampled_from(["a", "b"]), paused=st.booleans())
    def pause_or_resume(self, queue: str, paused: bool) -> None:
        queue += self.suffix
        (pause_queue if paused else resume_queue)(self.reader, queue)
        (self.model.paused.add if paused else self.model.paused.discard)(queue)

    @rule(ring=st.sampled_from(["queue", "claim", "terminal"]))
    def rotate(self, ring: str) -> None:
        rotate(self.reader, ring)

    # -- what always holds -----------------------------------------------------------------------------------------

    @invariant()
    def every_job_is_once_in_the_state_that_the_model_says(self) -> None:
        rows = self.reader.execute(
            "SELECT job_id, queue, priority, state, attempt, max_attempts, run_lease FROM awa.jobs WHERE queue LIKE %s",
            (f"%{self.suffix}",),
        ).fetchall()
        assert sorted(rows) == sorted((job_id, *job.row) for job_id, job in self.model.jobs.items())

    @invariant()
    def get_job_agrees(self) -> None:
        for job_id in list(self.model.jobs)[-6:]:
            job = get_job(self.reader, job_id)
            assert job is not None
            seen = (job.queue, job.priority, job.state, job.attempt, job.max_attempts, job.run_lease)
            assert seen == self.model.jobs[job_id].row
        for producer in self.producers:
            for job_id, _ in itertools.chain(*producer.frames) if producer.is_open else ():
                assert get_job(self.reader, job_id) is None

    @invariant()
    def queue_counts_agree(self) -> None:
        counts = {c.queue: (c.paused, tuple(getattr(c, s) for s in STATES)) for c in queue_counts(self.reader, None)}
        assert {queue: c for queue, c in counts.items() if queue.endswith(self.suffix)} == self.model.counts()

    @invariant()
    def every_item_is_open_or_ended_once(self) -> None:
        rows = self.reader.execute(
            "SELECT claim_id, item, job_id, outcome FROM awa.claim_items JOIN awa.queue_lanes USING (lane_id) "
            "WHERE queue LIKE %s",
            (f"%{self.suffix}",),
        ).fetchall()
        modelled = []
        for claim in self.model.claims:
            for item, job_id in enumerate(claim.job_ids, 1):
                modelled.append((claim.claim.claim_id, item, job_id, claim.ended.get(item)))
        as_ended = [(c, i, j, "failed" if o == "retryable" else o) for c, i, j, o in rows]
        assert sorted(as_ended, key=str) == sorted(modelled, key=str)

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        conns = [self.reader, *(p.conn for p in self.producers), *(r.conn for r in self.runtimes)]
        for conn in conns:
            conn.execute("ROLLBACK" if conn.info.transaction_status else "SELECT 1")
            promote_due(conn, 10_000, datetime.now(UTC) + timedelta(days=1))  # nothing deferred is left to the next walk
            conn.execute("SELECT pg_stat_force_next_flush()")
        changed = self.reader.execute(
            "SELECT relname FROM pg_stat_user_tables WHERE n_tup_upd + n_tup_del > 0 AND relname <> ALL (%s)",
            (["deferred_jobs", "queue_controls", "queue_meta"],),
        ).fetchall()
        for conn in conns:
            conn.close()
        self.client.close()
        assert changed == []


def test_the_engine_says_what_the_model_says(dsn: str) -> None:
    class Machine(EngineMachine):
        pass

    Machine.dsn = dsn
    scale = settings().max_examples  # 40, or 400 in the long profile
    run_state_machine_as_test(Machine, settings=settings(max_examples=scale * 3 // 4, stateful_step_count=40, deadline=None))
    exercised = ("completed", "failed", "released", "repeated", "claim committed", "claim rolled back")
    assert all(EngineMachine.done[what] > 0 for what in exercised), EngineMachine.done
