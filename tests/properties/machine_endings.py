"""The walk's endings: by the runtime, by request, from outside; once, twice, too late, and by those who may not."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from awa.postgres import Connection
from awa.storage.attempts import save_progress
from awa.storage.cancel import cancel_job
from awa.storage.claim import random_id
from awa.storage.complete import Completion, Ending, NotAccepted, complete_jobs, finalize_attempts, not_accepted
from awa.storage.external import DEFAULT_DELAY, callback_id, end_external
from awa.storage.kinds import set_dead_letter
from awa.storage.rescue import expire_attempt
from tests.properties.machine import KINDS, LATE, QUEUES, SOON, Walk
from tests.properties.model import BRIEF, PENDING, Flush, ModelClaim, ModelJob

WAYS = ("completed", "stored", "followed", "failed", "failed", "hopeless", "snoozed", "released", "cancelled", "waiting")
_follow_ups = itertools.count(1)


class EndingWalk(Walk):
    """Ends what the claims have handed out."""

    # -- by the runtime --------------------------------------------------------------------------------------------

    @precondition(lambda self: any(c.live for c in self.model.claims))
    @rule(
        data=st.data(),
        way=st.sampled_from(("completed", *WAYS)),
        delay=st.sampled_from([0.0, SOON, LATE]),
        whole=st.booleans(),
        then=st.sampled_from(["commit", "commit", "commit", "commit", "roll back", "hold"]),
    )
    def end(self, data: st.DataObject, way: str, delay: float | None, whole: bool, then: str) -> None:
        claim = data.draw(st.sampled_from([c for c in self.model.claims if c.live]), "claim")
        items = claim.live
        if not whole:
            items = sorted(data.draw(st.lists(st.sampled_from(items), min_size=1, unique=True), "items"))
        outcome, delay = (way, delay) if way not in {"stored", "followed", "hopeless"} else ("completed", delay)
        if way == "hopeless":
            outcome, delay = "failed", None
        flush_id, follow_up = random_id(), self._follow_up(claim) if way == "followed" else None

        def send(conn: Connection, flush_id: int = flush_id) -> list[NotAccepted]:
            return self._send(conn, claim, flush_id, items, way, delay, follow_up)

        if self.is_busy(claim):
            assert {a.verdict for a in send(self.reader)} == {"busy"}
            return
        if then == "roll back":
            with self.reader.transaction(force_rollback=True):
                assert send(self.reader) == []
            return
        if then == "hold" and self.flush is None and way not in {"stored", "followed"}:
            self.flusher.execute("BEGIN")
            assert send(self.flusher) == []
            self.flush = Flush(claim, items, outcome, delay, self.model.step + 1)
            self.model.step += 1
            return
        assert send(self.reader) == []
        self.model.step += 1
        self.done[way] += 1
        self.done["late ending of a dead runtime"] += not self.lives(claim.runtime)
        leased = [item for item in items if item in claim.leases]
        for item in items:
            self.model.end(claim, item, outcome, delay)
        self._expect_follow_ups(follow_up, claim, len(items))
        if way == "waiting":  # not an ending: whoever has the receipt may still end it
            assert send(self.reader) == [], "a flush sent twice is accepted"
            return
        # A lease that has ended leaves no trace of the flush that ended it.
        again = {a.item for a in send(self.reader)}
        assert again <= set(leased), "a flush sent twice is accepted"
        late = send(self.reader, random_id())
        assert [a.verdict for a in late] == ["refused"] * len(items), "another flush comes too late"

    @precondition(lambda self: self.flush is not None)
    @rule(commit=st.booleans())
    def end_held_flush(self, commit: bool) -> None:
        flush, self.flush = self.flush, None
        assert flush is not None
        self.flusher.execute("COMMIT" if commit else "ROLLBACK")
        self.model.step += 1
        self.done["held flush"] += commit
        for item in flush.items if commit else ():
            self.model.end(flush.claim, item, flush.outcome, flush.delay, began=flush.began)

    @precondition(lambda self: any(c.ended for c in self.model.claims))
    @rule(data=st.data(), way=st.sampled_from(WAYS))
    def repeat_an_old_ending(self, data: st.DataObject, way: str) -> None:
        """Rescued, expired, cancelled, buried or ended by its own runtime: whoever comes later is refused."""
        claim = data.draw(st.sampled_from([c for c in self.model.claims if c.ended]), "claim")
        item = data.draw(st.sampled_from(sorted(claim.ended)), "item")
        self.done[f"too late: {claim.closures[item]}"] += 1
        if self.is_busy(claim):
            return
        refused = [NotAccepted(claim.claim.claim_id, item, "refused")]
        follow_up = self._follow_up(claim) if way == "followed" else None
        assert self._send(self.reader, claim, random_id(), [item], way, 0.0, follow_up) == refused
        assert end_external(self.reader, callback_id(claim.claim, item), "completed", result="1") == "refused"
        assert save_progress(self.reader, claim.runtime, claim.claim, item, '{"percent": 1}', "1") == "refused"
        expired = expire_attempt(self.reader, claim.runtime, claim.claim.claim_id, item)
        assert expired == ("unknown" if claim.is_pruned else "refused")

    @precondition(lambda self: any(c.live for c in self.model.claims))
    @rule(
        data=st.data(),
        way=st.sampled_from(("completed", "stored", "failed", "waiting")),
        wrong=st.sampled_from(["runtime", "token", "item"]),
    )
    def end_what_is_not_yours(self, data: st.DataObject, way: str, wrong: str) -> None:
        claim = data.draw(st.sampled_from([c for c in self.model.claims if c.live]), "claim")
        if self.is_busy(claim):
            return
        item = 99 if wrong == "item" else claim.live[0]
        before = claim.claim.token, claim.runtime
        claim.claim.token += wrong == "token"
        claim.runtime += wrong == "runtime"
        answer = self._send(self.reader, claim, random_id(), [item], way, 0.0)
        progress = save_progress(self.reader, claim.runtime, claim.claim, item, '{"percent": 1}', None)
        expired = expire_attempt(self.reader, claim.runtime, claim.claim.claim_id, item) if wrong != "token" else "refused"
        outside = "refused" if wrong == "runtime" else end_external(self.reader, callback_id(claim.claim, item), "completed")
        claim.claim.token, claim.runtime = before
        assert [(a.claim_id, a.verdict) for a in answer] == [(claim.claim.claim_id, "refused")]
        assert (progress, outside) == ("refused", "refused")
        assert expired in {"refused", "unknown"}

    @precondition(lambda self: any(c.live for c in self.model.claims))
    @rule(data=st.data(), checkpoint=st.booleans())
    def tell_progress(self, data: st.DataObject, checkpoint: bool) -> None:
        claim = data.draw(st.sampled_from([c for c in self.model.claims if c.live]), "claim")
        item = data.draw(st.sampled_from(claim.live), "item")
        percent = data.draw(st.integers(0, 100), "percent")
        said = json.dumps({"percent": percent})
        verdict = save_progress(self.reader, claim.runtime, claim.claim, item, said, said if checkpoint else None)
        if self.is_busy(claim):
            assert verdict == "busy"
            return
        assert verdict == "saved"
        self.done["progress"] += 1
        self.model.materialise(claim, item)
        job = self.client.get_job(claim.job_ids[item - 1])
        assert job is not None
        assert job.progress == {"percent": percent}
        assert not checkpoint or job.checkpoint == {"percent": percent}
        with self.reader.transaction(force_rollback=True):
            compact = complete_jobs(self.reader, claim.runtime, random_id(), [Completion(claim.claim, [item])])
            assert not_accepted(compact) == [], "whoever does not know of the lease may still complete"
            assert cancel_job(self.reader, claim.job_ids[item - 1]) == "ended"

    # -- by request and from outside -------------------------------------------------------------------------------

    @rule(data=st.data(), state=st.sampled_from(["any", "available", "running", "waiting", "deferred", "uncommitted"]))
    def cancel(self, data: st.DataObject, state: str) -> None:
        jobs = self.model.jobs
        if state == "uncommitted":
            for job_id in self.uncommitted()[:2]:
                assert cancel_job(self.reader, job_id) == "unknown"
            return
        states = {"any": set(PENDING) | {"completed", "failed", "cancelled", "dead_lettered"}}
        states["deferred"] = {"scheduled", "retryable"}
        ids = [i for i, job in jobs.items() if job.state in states.get(state, {state})]
        if not ids:
            return
        job_id = data.draw(st.sampled_from(ids), "job")
        job = jobs[job_id]
        verdict = cancel_job(self.reader, job_id)
        self.model.step += 1
        before = job.state
        self.done[f"cancel {before}: {verdict}"] += 1
        if verdict == "busy":
            claim = self.model.receipt(job_id)[0] if before in {"running", "waiting"} else None
            assert self.lanes_are_held(job.queue) or (claim is not None and self.is_busy(claim))
            return
        if before not in PENDING:
            assert verdict == "ended"
            return
        assert verdict == "cancelled"
        if before == "available":
            assert all(job_id not in claim.job_ids for claim in self.held_claims(job.queue))
            self.model.bury(job_id)
        elif before in {"running", "waiting"}:
            claim, item = self.model.receipt(job_id)
            assert not self.is_busy(claim)
            self.model.end(claim, item, "cancelled")
        else:
            job.state = "cancelled"
        assert cancel_job(self.reader, job_id) == "ended" or self.lanes_are_held(job.queue)

    @precondition(lambda self: any(c.leases for c in self.model.claims))
    @rule(
        data=st.data(),
        by=st.sampled_from(["job", "callback"]),
        outcome=st.sampled_from(["completed", "stored", "failed", "released"]),
        delay=st.sampled_from([0.0, SOON, None, DEFAULT_DELAY]),
    )
    def answer_from_outside(self, data: st.DataObject, by: str, outcome: str, delay: float | None) -> None:
        claim = data.draw(st.sampled_from([c for c in self.model.claims if c.leases]), "claim")
        item = data.draw(st.sampled_from(sorted(claim.leases)), "item")
        stored = outcome == "stored"
        if outcome != "failed":
            outcome, delay = "completed" if stored else outcome, 0.0
        id = claim.job_ids[item - 1] if by == "job" else callback_id(claim.claim, item)
        verdict = end_external(
            self.reader,
            id,
            outcome,  # type: ignore[arg-type]
            result='{"x": 1}' if stored else None,
            error={"message": "no"} if outcome == "failed" else None,
            delay_after=delay,
        )
        if by == "job" and claim.leases[item].state != "waiting":
            assert verdict == "refused"
        elif self.is_busy(claim):
            assert verdict == "busy"
        else:
            assert verdict == "accepted"
            self.done[f"answered by {by}"] += 1
            self.model.step += 1
            self.model.end(claim, item, outcome, BRIEF if delay == DEFAULT_DELAY else delay)
            assert end_external(self.reader, id, "completed") == "refused"

    @precondition(lambda self: self.flush is None)
    @rule(name=st.sampled_from((*QUEUES, *KINDS)), keep=st.sampled_from([True, False, False, None]))
    def choose_dead_letters(self, name: str, keep: bool | None) -> None:
        of = {"queue" if name in QUEUES else "kind": name + self.suffix}
        set_dead_letter(self.reader, dead_letter=keep, **of)
        self.model.dead_letter[name + self.suffix] = keep

    # -- what they share -------------------------------------------------------------------------------------------

    def is_busy(self, claim: ModelClaim) -> bool:
        """An open transaction is ending items of it."""
        return self.flush is not None and self.flush.claim is claim

    def _send(
        self,
        conn: Connection,
        claim: ModelClaim,
        flush_id: int,
        items: list[int],
        way: str,
        delay: float | None,
        follow_up: tuple[str, None, list[str]] | None = None,
    ) -> list[NotAccepted]:
        if way == "completed" and not set(items) & set(claim.leases) and not self._ended_with_lease(claim, items):
            whole = set(items) == set(range(1, len(claim.job_ids) + 1)) and not claim.is_pruned
            given = None if whole else items
            return not_accepted(complete_jobs(conn, claim.runtime, flush_id, [Completion(claim.claim, given)]))
        outcome: Any = {"stored": "completed", "followed": "completed", "hopeless": "failed"}.get(way, way)
        result = '{"x": 1}' if way == "stored" else None
        error = {"message": "boom"} if outcome == "failed" else None
        endings = [Ending(claim.claim, item, outcome, delay, error, result, follow_up) for item in items]
        return not_accepted(finalize_attempts(conn, claim.runtime, flush_id, endings))

    def _ended_with_lease(self, claim: ModelClaim, items: list[int]) -> bool:
        return any(claim.closures.get(item) == "materialised" for item in items)

    def _follow_up(self, claim: ModelClaim) -> tuple[str, None, list[str]]:
        """One new job for every item that ends with it."""
        queue = "a" + self.suffix
        row = self.reader.execute("SELECT lane_id, priority FROM awa.queue_lanes WHERE queue = %s", (queue,)).fetchone()
        assert row is not None
        record = {"lane_id": row[0], "kind": "x" + self.suffix, "max_attempts": 2, "args": {"follow": next(_follow_ups)}}
        return (json.dumps([record]), None, [queue])

    def _expect_follow_ups(self, follow_up: tuple[str, None, list[str]] | None, claim: ModelClaim, n: int) -> None:
        if follow_up is None:
            return
        (record,) = json.loads(follow_up[0])
        rows = self.reader.execute(
            "SELECT job_id, queue, priority FROM awa.ready_entries JOIN awa.queue_lanes USING (lane_id) "
            "WHERE args->>'follow' = %s",
            (str(record["args"]["follow"]),),
        ).fetchall()
        assert len(rows) == n
        for job_id, queue, priority in rows:
            step = self.model.step
            self.model.jobs[job_id] = ModelJob(queue, priority, 2, 0.0, "available", record["kind"], step, step)
