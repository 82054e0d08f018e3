"""The walk's rings: they turn, are pruned, folded and rebuilt; history is retried, moved, discarded, purged and deleted."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from awa.postgres import connect
from awa.rings import PRUNE_ORDER, RINGS, Ring
from awa.storage.cancel import cancel_job, delete_job
from awa.storage.claim import random_id
from awa.storage.complete import Completion, NotAccepted, complete_jobs, not_accepted
from awa.storage.counters import (
    check_terminal_counters,
    count_closed_claims,
    fold_terminal_counts,
    rebuild_terminal_counters,
)
from awa.storage.dead_letters import EndedState, dead_letter_jobs, discard_jobs, purge_dead_letters, retry_jobs, select_ended
from awa.storage.rings import materialize_attempts, prune_ring, rotate_ring
from tests.properties.machine import QUEUES
from tests.properties.machine_recoveries import RecoveryWalk
from tests.properties.model import PENDING, ModelClaim, Runtime

MINUTES, HOUR, WEEK, AGES = 120.0, 3700.0, 700_000.0, 1e9
KEPT_COMPLETED, KEPT_ENDED, MATERIALIZE_AFTER = 3600.0, 604_800.0, 60.0  # the database's defaults
PRELUDE = ("work", "work", "turn", "turn", "claim", "materialize", "delete")
TABLES = {
    "queue": ("ready_entries",),
    "claim": ("lease_claim_batches",),
    "lease": ("leases",),
    "terminal": ("done_entries", "queue_terminal_count_deltas"),
}


class RingWalk(RecoveryWalk):
    """Turns the rings under everything else. Their clock only goes forward; no walk leaves anything in them to the next."""

    @initialize(prelude=st.lists(st.sampled_from(PRELUDE), min_size=3, max_size=8))
    def connect(self, prelude: list[str]) -> None:
        self.clock = 0.0  # of the rings
        self.keep = {
            "completed_retention": KEPT_COMPLETED,
            "terminal_retention": KEPT_ENDED,
            "materialize_after": MATERIALIZE_AFTER,
        }
        self.sealed: dict[tuple[Ring, int], float] = {}
        self.sealed_step: dict[tuple[Ring, int], int] = {}
        self.closed: dict[int, float] = {}  # claim slots proved closed
        self.bare: set[tuple[str, int]] = set()  # lanes whose evidence went while bodies stayed
        super().connect()
        for move in prelude:
            if move == "work":
                self.work("a", 1)
            elif move == "turn":
                self.turn(["claim"], HOUR)
            elif move == "claim":
                self.claim(0, "a", 2, None, "commit")
            elif move == "materialize":
                self.materialize(MINUTES, 100)
            else:
                self.delete_some("a", "available", 3)

    # -- turning ---------------------------------------------------------------------------------------------------

    @rule(ring=st.sampled_from(RINGS), ahead=st.sampled_from([0.0, MINUTES]))
    def rotate(self, ring: Ring, ahead: float) -> None:
        """An empty slot is not sealed, a full ring does not turn."""
        self.clock += ahead
        slot = self._current(ring)
        filled = {s for s in range(8) if self._is_filled(ring, s)}
        verdict = rotate_ring(self.reader, ring, force=True, now=self.at(self.clock))
        expected = "idle" if slot not in filled else "held" if len(filled) == 8 else "rotated"
        assert verdict == expected
        self.done[f"rotate {ring}: {verdict}"] += 1
        if verdict == "rotated":
            assert self._current(ring) not in filled
            self.sealed[ring, slot], self.sealed_step[ring, slot] = self.clock, self.model.step
            self.sealed.pop((ring, self._current(ring)), None)

    @rule(ring=st.sampled_from(RINGS), ahead=st.sampled_from([0.0, MINUTES, HOUR, HOUR, WEEK]))
    def prune(self, ring: Ring, ahead: float) -> None:
        self._prune(ring, ahead)

    def _prune(self, ring: Ring, ahead: float) -> bool:
        """Each slot that is held is held for a reason that the model knows; whether one was pruned."""
        self.clock += ahead
        self.model.step += 1
        sealed = [s for s in self._by_age(ring) if self._is_filled(ring, s)]
        ready = defaultdict(list)
        for slot, job_id, run_lease in self.reader.execute(
            "SELECT ready_slot, job_id, run_lease FROM awa.ready_entries"
        ).fetchall():
            ready[slot].append((job_id, run_lease))
        named = {s for s in range(8) if self._is_named(s)}
        ended = defaultdict(list)
        for slot, job_id in self.reader.execute("SELECT terminal_slot, job_id FROM awa.done_entries").fetchall():
            ended[slot].append(job_id)
        kept = {s for s in range(8) if self._is_kept(s)}
        leased = {s: self._leases(s) for s in range(8)}

        verdicts = prune_ring(self.reader, ring, now=self.at(self.clock))
        looked = [v.slot for v in verdicts]
        if ring == "lease":  # what updates have left behind is worth a prune, too
            looked = [s for s in looked if s in sealed]
        assert looked == (sealed if not any(v.is_pruned for v in verdicts) else sealed[: len(looked)])
        for slot, reason in verdicts:
            said = "pruned" if reason is None else reason
            if ring == "claim":
                allowed = self._claim_verdicts(slot, said)
            elif ring == "queue":
                allowed = self._queue_verdicts(slot, ready[slot], slot in named)
            elif ring == "lease":
                allowed = {"pruned"} | ({"locked", "its attempts are being ended"} if self._is_open(leased[slot]) else set())
            else:
                allowed = {"retention"} if slot in kept else {"pruned"} | ({"locked"} if self._is_open([]) else set())
            assert said in allowed, f"{ring} slot {slot}: {said}, not {allowed}"
            self.done[f"{ring}: {said}"] += 1
        if not verdicts or not verdicts[-1].is_pruned:
            return False
        slot = verdicts[-1].slot
        self.sealed.pop((ring, slot), None)
        self.done[f"{ring}: pruned out of order"] += len(verdicts) > 1
        if ring == "claim":
            self._claims_are_gone(slot, {job_id for rows in ready.values() for job_id, _ in rows})
        elif ring == "lease":
            self.done["lease moved"] += len(leased[slot])
        elif ring == "terminal":
            for job_id in [i for i in ended[slot] if i in self.model.jobs]:
                self.done["ended jobs pruned"] += 1
                self.model.prune(job_id)
        return True

    @rule(
        rings=st.lists(st.sampled_from(PRUNE_ORDER), min_size=1, unique=True),
        ahead=st.sampled_from([MINUTES, HOUR, HOUR, WEEK]),
    )
    def turn(self, rings: list[Ring], ahead: float) -> None:
        """As maintenance does it: seal, materialise sometimes, prune. Twice, for what is closed begins to age then."""
        for ring in rings:
            self.rotate(ring, 0.0)
        for ring in rings:
            self.prune(ring, 0.0)
            self.prune(ring, ahead)

    @rule(ahead=st.sampled_from([0.0, MINUTES]), limit=st.sampled_from([1, 100]))
    def materialize(self, ahead: float, limit: int) -> None:
        """Attempts of slots that were sealed long enough ago go on as leases, the oldest first."""
        self.clock += ahead
        due = []
        for slot in self._by_age("claim"):
            since = self.sealed.get(("claim", slot))
            if since is None or slot in self.closed or since > self.clock - self.keep["materialize_after"]:
                continue
            here = [c for c in self.model.claims if c.claim.claim_slot == slot and not c.is_pruned and not self.is_busy(c)]
            due += [(c, item) for c in sorted(here, key=lambda c: c.claim.claim_id) for item in c.open]
        assert materialize_attempts(self.reader, limit, now=self.at(self.clock)) == min(limit, len(due))
        for claim, item in due[:limit]:
            self.model.materialise(claim, item)
            self.done["materialised"] += 1

    @rule(
        completed=st.sampled_from([0.0, KEPT_COMPLETED]),
        ended=st.sampled_from([0.0, KEPT_ENDED]),
        materialize_after=st.sampled_from([0.0, MATERIALIZE_AFTER]),
    )
    def keep_for(self, completed: float, ended: float, materialize_after: float) -> None:
        self._keep_for(completed, ended, materialize_after)

    def _keep_for(self, completed: float, ended: float, materialize_after: float) -> None:
        self.keep = {"completed_retention": completed, "terminal_retention": ended, "materialize_after": materialize_after}
        self.reader.execute(
            "UPDATE awa.storage_settings SET completed_retention = %(completed_retention)s, "
            "terminal_retention = %(terminal_retention)s, materialize_after = %(materialize_after)s",
            self.keep,
        )

    # -- work that the rings like --------------------------------------------------------------------------------------

    @rule(queue=st.sampled_from(QUEUES), limit=st.sampled_from([1, 2, 4]))
    def work(self, queue: str, limit: int) -> None:
        """Claim and complete, and nothing comes between."""
        before = len(self.model.claims)
        self.claim(1, queue, limit, None, "commit")
        for claim in self.model.claims[before:]:
            if items := claim.open:
                assert self._send(self.reader, claim, random_id(), items, "completed", 0.0) == []
                self.model.step += 1
                for item in items:
                    self.model.end(claim, item, "completed")

    @precondition(lambda self: any(c.leases for c in self.model.claims))
    @rule(data=st.data(), whole=st.booleans())
    def complete_leases(self, data: st.DataObject, whole: bool) -> None:
        """By a worker that does not know of its leases: of a claim that is gone it is told to come item by item."""
        claims = [c for c in self.model.claims if c.leases]
        claim = data.draw(st.sampled_from([c for c in claims if c.is_pruned] or claims), "claim")
        items = sorted(claim.leases)
        if self.is_busy(claim):
            return
        if whole and claim.is_pruned:
            answer = not_accepted(complete_jobs(self.reader, claim.runtime, random_id(), [Completion(claim.claim, None)]))
            assert answer == [NotAccepted(claim.claim.claim_id, None, "refused")]
        assert not_accepted(complete_jobs(self.reader, claim.runtime, random_id(), [Completion(claim.claim, items)])) == []
        self.model.step += 1
        self.done["completed after its claim was pruned"] += claim.is_pruned
        for item in items:
            self.model.end(claim, item, "completed")

    @rule(queue=st.sampled_from(QUEUES), limit=st.sampled_from([1, 2]))
    def outlive(self, queue: str, limit: int) -> None:
        """Attempts that run for longer than their claims are kept."""
        self.claim(2, queue, limit, None, "commit")
        self.rotate("claim", 0.0)
        self.materialize(MINUTES, 100)
        self.turn(["claim"], HOUR)

    @rule(who=st.integers(0, 1), queue=st.sampled_from(QUEUES), commit=st.booleans())
    def straggle(self, who: int, queue: str, commit: bool) -> None:
        """A transaction that wrote before the seal of its slot and ends after it."""
        if not self.producers[who].is_open:
            self.enqueue(who, queue, 1, "x", 2, 0.0, 1, True)
        self.work(queue, 4)
        self.turn(["queue", "claim"], HOUR)
        if commit:
            self._end_transaction(self.producers[who], True)
        self.prune("queue", 0.0)

    # -- counters ------------------------------------------------------------------------------------------------------

    @rule()
    def fold(self) -> None:
        """Seen by nobody."""
        self.done["folds"] += fold_terminal_counts(self.reader, 0)

    @rule()
    def count(self) -> None:
        """Seen by nobody either."""
        self.done["claims counted in their slot"] += count_closed_claims(self.reader, 0)

    @rule()
    def rebuild(self) -> None:
        """Which finds nothing to mend."""
        try:
            found = rebuild_terminal_counters(self.reader)
        except psycopg.errors.LockNotAvailable:
            assert self._is_open([])
        else:
            assert [count for count in found if count.drift] == []
            self.done["rebuilds"] += 1

    # -- history -------------------------------------------------------------------------------------------------------

    @rule(data=st.data(), state=st.sampled_from(["failed", "cancelled", "cancelled", "dead_lettered", "any"]))
    def retry(self, data: st.DataObject, state: str) -> None:
        ids = (
            data.draw(st.lists(st.sampled_from(self._ids(state)), max_size=3, unique=True), "jobs")
            if self._ids(state)
            else []
        )
        expected = {}
        self.model.step += 1
        for job_id in ids:
            before = self.model.jobs[job_id].state
            expected[job_id] = "unfinished" if before in PENDING else "completed" if before == "completed" else "retried"
            self.done[f"retry {before}: {expected[job_id]}"] += 1
            if expected[job_id] == "retried":
                self.model.retry(job_id)
        for job_id in self.model.gone[-2:]:
            expected[job_id] = "unknown"
        assert retry_jobs(self.reader, list(expected)) == expected

    @rule(n=st.sampled_from([1, 10]))
    def dead_letter(self, n: int) -> None:
        ids = self._ids("failed")[:n]
        assert dead_letter_jobs(self.reader, [*ids, *self._ids("completed")[:2]]) == {"moved": len(ids)}
        self.done["dead-lettered"] += len(ids)
        for job_id in ids:
            self.model.jobs[job_id].state = "dead_lettered"

    @rule(state=st.sampled_from(["failed", "cancelled", "dead_lettered"]), n=st.sampled_from([1, 10]))
    def discard(self, state: EndedState, n: int) -> None:
        ids = self._ids(state)
        found = [i for q in QUEUES for i in select_ended(self.reader, state, queue=q + self.suffix)]
        assert sorted(found) == sorted(ids)
        assert discard_jobs(self.reader, [*ids[:n], *self._ids("completed")[:2]]) == {"discarded": len(ids[:n])}
        self.done["discarded"] += len(ids[:n])
        for job_id in ids[:n]:
            self.model.forget(job_id)

    @rule(ahead=st.sampled_from([0.0, AGES]))
    def purge(self, ahead: float) -> None:
        """Dead letters have an age, too."""
        gone = self._ids("dead_lettered") if ahead else []
        assert purge_dead_letters(self.reader, 10_000, self.at(ahead)) >= len(gone)
        self.done["purged"] += len(gone)
        for job_id in gone:
            self.model.forget(job_id)

    @rule(
        data=st.data(), state=st.sampled_from(["any", "available", "completed", "completed", "running", "deferred", "bad"])
    )
    def delete(self, data: st.DataObject, state: str) -> None:
        ids = self._ids(state)
        if not ids:
            return
        job_id = data.draw(st.sampled_from(ids), "job")
        job = self.model.jobs[job_id]
        verdict = delete_job(self.reader, job_id)
        self.model.step += 1
        self.done[f"delete {job.state}: {verdict}"] += 1
        if verdict == "busy":
            claim = self.model.receipt(job_id)[0] if job.state in {"running", "waiting"} else None
            assert self.lanes_are_held(job.queue) or (claim is not None and self.is_busy(claim))
            return
        assert verdict == "deleted"
        self.model.delete(job_id)
        if not self.lanes_are_held(job.queue):
            assert delete_job(self.reader, job_id) == "unknown"
            assert cancel_job(self.reader, job_id) == "unknown"

    @rule(
        queue=st.sampled_from(QUEUES),
        state=st.sampled_from(["available", "completed", "bad", "any"]),
        most=st.sampled_from([2, 5]),
    )
    def delete_some(self, queue: str, state: str, most: int) -> None:
        """By the view, and by a condition: either all of them or none."""
        if self.lanes_are_held(queue + self.suffix) or self.flush is not None:
            return  # it would insist for a second
        ids = [i for i in self._ids(state) if self.model.jobs[i].queue == queue + self.suffix][:most]
        query = "DELETE FROM awa.jobs WHERE queue = %s AND job_id = ANY (%s)"
        with self.reader.transaction(force_rollback=True):
            assert self.reader.execute(query, (queue + self.suffix, ids)).rowcount == len(ids)
        assert self.reader.execute(query, (queue + self.suffix, ids)).rowcount == len(ids)
        self.model.step += 1
        for job_id in ids:
            self.done[f"bulk delete {self.model.jobs[job_id].state}"] += 1
            self.model.delete(job_id)

    # -- the end -------------------------------------------------------------------------------------------------------

    def empty_the_rings(self) -> None:
        """When all has ended and its time is over, nothing is left but counts."""
        self._keep_for(KEPT_COMPLETED, KEPT_ENDED, MATERIALIZE_AFTER)
        for _ in range(
            3
        ):  # what is proved closed now begins to age now; a ring of which all slots are full turns after a prune
            for ring in PRUNE_ORDER:
                self.rotate(ring, 0.0)
                while self._prune(ring, AGES):
                    pass
        assert [(r, s) for r in RINGS for s in range(8) if r != "terminal" and self._is_filled(r, s)] == []
        self.purge(AGES)
        assert self.model.jobs == {}

    # -- what they share -----------------------------------------------------------------------------------------------

    def counters_that_drift(self) -> list[Any]:
        """Counters that do not say what there is."""
        return [count for count in check_terminal_counters(self.reader) if count.drift]

    def _end_claim(self, runtime: Runtime, commit: bool) -> None:
        claims = runtime.held or []
        super()._end_claim(runtime, commit)
        for claim in claims if commit else ():
            self.done["claim on a lane whose evidence was pruned"] += (claim.claim.queue, claim.claim.priority) in self.bare

    def _claim_verdicts(self, slot: int, said: str) -> set[str]:
        claims = self._claims_in(slot)
        if slot not in self.closed:
            if any(c.open for c in claims):
                return {"attempts are open"}
            if any(r.held is not None for r in self.runtimes) and said == "attempts are open":
                return {said}  # whoever holds a lane may be about to claim into the slot
            self.closed[slot] = self.clock
        if self.clock < self.closed[slot] + self.keep["completed_retention"]:
            return {"retention"}
        return {"pruned"} | ({"locked", "a lane is busy"} if self._is_open([]) else set())

    def _claims_in(self, slot: int) -> list[ModelClaim]:
        return [c for c in self.model.claims if c.claim.claim_slot == slot and not c.is_pruned]

    def _claims_are_gone(self, slot: int, bodies: set[int]) -> None:
        del self.closed[slot]
        for claim in self._claims_in(slot):
            claim.is_pruned = True
            gone = [i for i, job in self.model.jobs.items() if job.completed_by is claim and job.state == "completed"]
            if bodies & set(gone):
                self.bare.add((claim.claim.queue, claim.claim.priority))
                self.done["evidence pruned before its bodies"] += 1
            self.done["claim pruned under its leases"] += bool(claim.leases)
            lane = (claim.claim.queue, claim.claim.priority)
            others = [c for c in self.model.claims if not c.is_pruned and (c.claim.queue, c.claim.priority) == lane]
            if others and all(c.claim.claim_id < claim.claim.claim_id for c in others):
                self.done["an older claim outlives the newest"] += 1
            for job_id in gone:
                self.model.prune(job_id)

    def _queue_verdicts(self, slot: int, rows: list[tuple[int, int]], is_named: bool) -> set[str]:
        ghosts = {(g.job_id, g.run_lease - 1) for g in self.model.ghosts}
        jobs = self.model.jobs
        waiting = [i for i, lease in rows if i in jobs and (jobs[i].state, jobs[i].run_lease) == ("available", lease)]
        if waiting or ghosts & set(rows):
            sealed = self.sealed_step.get(("queue", slot), -1)
            self.done["a straggler's rows keep their slot"] += any(
                jobs[i].began <= sealed < jobs[i].committed and jobs[i].run_lease == 0 for i in waiting
            )
            return {"jobs wait in it"}
        if is_named:
            return {"its jobs' claims are kept"}
        return {"pruned"} | ({"locked"} if self._is_open([]) else set())

    def _is_open(self, leases: list[int]) -> bool:
        """Whether somebody's transaction is open, or is ending one of these claims."""
        if self.flush is not None and self.flush.claim.claim.claim_id in leases:
            return True
        return (
            self.flush is not None
            or any(r.held is not None for r in self.runtimes)
            or any(p.is_open for p in self.producers)
        )

    def _ids(self, state: str) -> list[int]:
        states = {
            "any": {job.state for job in self.model.jobs.values()},
            "deferred": {"scheduled", "retryable"},
            "bad": {"failed", "cancelled", "dead_lettered"},
        }.get(state, {state})
        return [i for i, job in self.model.jobs.items() if job.state in states]

    def _current(self, ring: Ring) -> int:
        row = self.reader.execute("SELECT slot FROM awa.current_slot(%s)", (ring,)).fetchone()
        assert row is not None
        return int(row[0])

    def _by_age(self, ring: Ring) -> list[int]:
        query = "SELECT slot FROM awa.ring_slots WHERE ring = %s AND slot <> %s ORDER BY generation NULLS FIRST, slot"
        return [slot for (slot,) in self.reader.execute(query, (ring, self._current(ring))).fetchall()]

    def _is_filled(self, ring: Ring, slot: int) -> bool:
        return any(self._is_true(f"SELECT EXISTS (SELECT 1 FROM awa.{table}_{slot})") for table in TABLES[ring])

    def _is_named(self, slot: int) -> bool:
        return self._is_true(f"SELECT EXISTS (SELECT 1 FROM awa.lease_claim_batches WHERE ready_slots & {1 << slot} <> 0)")

    def _is_kept(self, slot: int) -> bool:
        query = f"SELECT EXISTS (SELECT 1 FROM awa.done_entries_{slot} WHERE finalized_at > %s)"
        row = self.reader.execute(query.encode(), (self.at(self.clock - self.keep["terminal_retention"]),)).fetchone()
        assert row is not None
        return bool(row[0])

    def _leases(self, slot: int) -> list[int]:
        return [row[0] for row in self.reader.execute(f"SELECT claim_id FROM awa.leases_{slot}".encode()).fetchall()]

    def _is_true(self, query: str) -> bool:
        row = self.reader.execute(query.encode()).fetchone()
        assert row is not None
        return bool(row[0])


def prepare_ground(dsn: str) -> str:
    """Nobody else has a runtime, which a moved clock would make stale, or locks a slot for a moment, as ANALYZE does."""
    with connect(dsn, "awa test") as conn:
        conn.execute("DELETE FROM awa.runtime_instances")
        children = conn.execute(
            "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'awa'::regnamespace AND c.relispartition "
            "AND c.relkind = 'r'"
        ).fetchall()
        for (child,) in children:
            conn.execute(f"ALTER TABLE {child} SET (autovacuum_enabled = off)".encode())
    return dsn
