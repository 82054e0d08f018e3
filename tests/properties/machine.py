"""The walk's ground: connections, enqueueing and claiming."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import awa
from awa.claim import JOB_ID, KIND, RUN_LEASE
from awa.postgres import connect
from awa.storage.claim import claim_jobs, prepare_claiming, random_id, read_claims, redeliver_claims
from awa.storage.runtimes import register_runtime
from tests.properties.model import Flush, Model, ModelClaim, ModelGhost, ModelJob, ModelRuntime, Producing, Runtime

NEAR, SOON, LATE = 300.0, 1000.0, 5000.0  # seconds; delays are SOON or LATE, and a moved clock stands well between them
AFTER_SOON, AFTER_LATE = 2000.0, 10_000.0
QUEUES, KINDS = ("a", "b"), ("x", "y")
_numbers = itertools.count(1)


class Walk(RuleBasedStateMachine):
    """Walks in one database, each with queues of its own."""

    dsn = ""
    new_database: ClassVar[Callable[[], str]]
    done: ClassVar[Counter[str]] = Counter()  # over all walks: what was exercised

    @initialize()
    def connect(self) -> None:
        self.suffix = f"-{next(_numbers)}"  # queues of its own: making a database takes longer than a walk
        self.model = Model()
        self.client = awa.Client(self.dsn)
        self.reader = connect(self.dsn, "reader")
        self.flusher = connect(self.dsn, "flusher")
        self.producers = [Producing(connect(self.dsn, "producer")) for _ in range(2)]
        supervisors = [random_id(), random_id()]
        self.runtimes = [Runtime(connect(self.dsn, "runtime"), pid, supervisors[pid % 2]) for pid in range(1, 4)]
        self.flush: Flush | None = None
        now = self.reader.execute("SELECT clock_timestamp()").fetchone()
        assert now is not None
        self.epoch: datetime = now[0]
        for runtime in self.runtimes:
            prepare_claiming(runtime.conn)
            self._register(runtime)
        # Something of everything to begin with: few random walks get far by themselves.
        for queue, delay in (("a", 0.0), ("b", 0.0), ("a", SOON)):
            self.enqueue(0, queue, 1, "x", 2, delay, 5, False)
            self.enqueue(1, queue, 3, "y", 5, delay, 2, False)
        self.claim(0, "a", 6, None, "commit")
        self.claim(1, "b", 3, SOON, "commit")

    def at(self, ahead: float) -> datetime:
        """The moved clock."""
        return self.epoch + timedelta(seconds=ahead)

    def _register(self, runtime: Runtime) -> None:
        runtime.id = random_id()
        register_runtime(
            self.reader,
            runtime_id=runtime.id,
            supervisor_id=runtime.supervisor,
            pid=runtime.pid,
            hostname="walk",
            release="1",
            queues={"a" + self.suffix: 1},
        )
        self.model.runtimes[runtime.id] = ModelRuntime(runtime.id, runtime.supervisor, runtime.pid)

    def lives(self, runtime_id: int) -> bool:
        known = self.model.runtimes.get(runtime_id)
        return known is not None and known.dead_at is None

    # -- enqueueing ------------------------------------------------------------------------------------------------

    @rule(
        who=st.integers(0, 1),
        queue=st.sampled_from(QUEUES),
        priority=st.sampled_from([1, 3]),
        kind=st.sampled_from(KINDS),
        max_attempts=st.sampled_from([1, 2, 5]),
        delay=st.sampled_from([0.0, 0.0, 0.0, SOON, LATE]),
        n=st.sampled_from([1, 2, 5]),
        in_transaction=st.booleans(),
    )
    def enqueue(
        self, who: int, queue: str, priority: int, kind: str, max_attempts: int, delay: float, n: int, in_transaction: bool
    ) -> None:
        producer, queue, kind = self.producers[who], queue + self.suffix, kind + self.suffix
        self.model.step += 1
        if in_transaction and not producer.is_open:
            producer.conn.execute("BEGIN")
            producer.is_open, producer.began, producer.frames = True, self.model.step, [[]]
        ids = self.client.enqueue_many(
            [{"n": n}] * n,
            kind=kind,
            queue=queue,
            priority=priority,
            max_attempts=max_attempts,
            run_at=datetime.now(UTC) + timedelta(seconds=delay) if delay else None,
            connection=producer.conn,
        )
        self.model.queues.add(queue)
        for job_id in ids:
            job = ModelJob(queue, priority, max_attempts, delay, "scheduled" if delay else "available", kind)
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
        self._end_transaction(data.draw(st.sampled_from([p for p in self.producers if p.is_open]), "producer"), commit)

    def _end_transaction(self, producer: Producing, commit: bool) -> None:
        producer.conn.execute("COMMIT" if commit else "ROLLBACK")
        producer.is_open = False
        self.model.step += 1
        for job_id, job in itertools.chain(*producer.frames) if commit else ():
            job.began, job.committed = producer.began, self.model.step
            self.model.jobs[job_id] = job

    def uncommitted(self) -> list[int]:
        """Jobs of open transactions."""
        frames = itertools.chain(*(p.frames for p in self.producers if p.is_open))
        return [job_id for job_id, _ in itertools.chain(*frames)]

    # -- claiming --------------------------------------------------------------------------------------------------

    @rule(
        who=st.integers(0, 2),
        queue=st.sampled_from(QUEUES),
        limit=st.sampled_from([1, 2, 4, 50]),
        deadline=st.sampled_from([None, None, SOON, LATE]),
        then=st.sampled_from(["commit", "commit", "commit", "roll back", "hold"]),
    )
    def claim(self, who: int, queue: str, limit: int, deadline: float | None, then: str) -> None:
        runtime, queue = self.runtimes[who], queue + self.suffix
        if runtime.held is not None:
            return
        token = random_id()
        if not self.lives(runtime.id):
            self.done["claim of a dead runtime"] += 1
            with pytest.raises(awa.errors.RuntimeDeclaredDead):
                claim_jobs(runtime.conn, queue, limit, runtime.id, token, deadline)
            self._register(runtime)
        busy = self.held_claims(queue)
        here = self.model.bodies(queue)
        runtime.conn.execute("BEGIN")
        rows = claim_jobs(runtime.conn, queue, limit, runtime.id, token, deadline)
        ids = [(row[JOB_ID], row[RUN_LEASE]) for row in rows]
        assert len(ids) == len(set(ids)) <= limit
        assert set(ids) <= set(here)
        assert all((row[KIND] is None) == isinstance(here[id], ModelGhost) for id, row in zip(ids, rows, strict=True))
        if queue in self.model.paused:
            assert ids == []
        elif not busy:
            # A claim may end with a lane's window, before the limit and before what was committed after the window.
            assert min(1, len(here)) <= len(ids)
            # A lane whose head was promoted by a moved clock is not due yet and ranks lower.
            if not any(job.run_lease or job.due_early for job in here.values()):
                priorities = [here[i].priority for i in ids]
                assert priorities == sorted(priorities)
                assert priorities[:1] == sorted(job.priority for job in here.values())[:1]
        for other in busy:
            assert not set(zip(other.job_ids, other.run_leases, strict=True)) & set(ids)
        claims: list[ModelClaim] = []
        for claim, item, row in read_claims([(*row[:KIND], "", *row[KIND + 1 :]) for row in rows], queue, token):
            if item == 1:
                claims.append(ModelClaim(runtime.id, claim, deadline))
                assert (claim.deadline_at is None) == (deadline is None)
            claims[-1].job_ids.append(row[JOB_ID])
            claims[-1].run_leases.append(row[RUN_LEASE])
            assert item == len(claims[-1].job_ids)
            job = here.pop((row[JOB_ID], row[RUN_LEASE]))
            earlier = [i for i, left in here.items() if left.priority == job.priority and left.committed < job.began]
            assert earlier == [], "claimed before jobs of its lane that were committed before it began"
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
            self.model.commit(claim)
            self.done["buried"] += "buried" in claim.closures.values()
            self.done["claim committed after its runtime's death"] += not self.lives(claim.runtime)

    def held_claims(self, queue: str) -> list[ModelClaim]:
        """Claims of open transactions: their lanes are locked."""
        return [claim for r in self.runtimes if r.held is not None and r.held_queue == queue for claim in r.held]

    def lanes_are_held(self, queue: str) -> bool:
        return any(r.held is not None and r.held_queue == queue for r in self.runtimes)

    @precondition(lambda self: self.model.claims)
    @rule(data=st.data())
    def redeliver(self, data: st.DataObject) -> None:
        """The answer of a claim call was lost: the same again, but for what has ended meanwhile or has got a lease."""
        claim = data.draw(st.sampled_from(self.model.claims), "claim")
        rows = redeliver_claims(self.runtimes[0].conn, claim.runtime, claim.claim.token, claim.claim.claim_id - 1)
        jobs = [(c.claim_id, item, row[JOB_ID], row[RUN_LEASE]) for c, item, row in read_claims(rows, "", 0)]
        mine = [(item, job_id, lease) for claim_id, item, job_id, lease in jobs if claim_id == claim.claim.claim_id]
        assert mine == [(i, claim.job_ids[i - 1], self.model.jobs[claim.job_ids[i - 1]].run_lease) for i in claim.open]

    def clean_up(self) -> list[str]:
        """Nothing is left to the next walk; tables that only grow but were written otherwise."""
        conns: list[Any] = [self.reader, self.flusher, *(p.conn for p in self.producers), *(r.conn for r in self.runtimes)]
        for conn in conns:
            conn.execute("ROLLBACK" if conn.info.transaction_status else "SELECT 1")
            conn.execute("SELECT pg_stat_force_next_flush()")
            conn.execute("SELECT 1")
        changed = self.reader.execute(
            "SELECT relname FROM pg_stat_user_tables WHERE schemaname = 'awa' AND n_tup_upd + n_tup_del > 0 "
            "AND relname <> ALL (%s) AND relname !~ '^(leases|done_entries)_[0-7]$' ORDER BY relname",
            (
                [
                    "deferred_jobs",
                    "queue_controls",
                    "queue_lanes",
                    "kind_controls",
                    "queue_meta",
                    "runtime_instances",
                    "leader",
                    "ring_slots",
                    "ring_rotations",
                    "queue_claim_heads",
                    "queue_terminal_live_counts",
                    "queue_terminal_rollups",
                    "storage_settings",
                    "dlq_entries",
                ],
            ),
        ).fetchall()
        for conn in conns:
            conn.close()
        self.client.close()
        return [name for (name,) in changed]
