"""The walk's recoveries: runtimes that beat, die, come back and retire; rescue, expiry, promotion and chores."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from attrs import frozen
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from awa.storage.jobs import pause_queue, resume_queue
from awa.storage.promote import promote_due
from awa.storage.rescue import ExpiryPosition, expire_attempt, rescue_dead, rescue_expired
from awa.storage.runtimes import beat, declare_dead, declare_stale, retire_runtime
from tests.properties.machine import AFTER_LATE, AFTER_SOON, NEAR, QUEUES
from tests.properties.machine_endings import EndingWalk
from tests.properties.model import DEFERRED, ModelClaim, ModelRuntime

AT_ONCE = 50.0  # within the minute for which a dead runtime is looked at again; a walk is over long before
STALE = 600.0
MINUTE, AGAIN = 60.0, 5.0  # rescue_dead's own


@frozen
class Left:
    """An expiry walk that had to leave something open."""

    position: ExpiryPosition
    ahead: float
    items: list[tuple[ModelClaim, int]]


class RecoveryWalk(EndingWalk):
    """Takes jobs from those who do not end them."""

    left: Left | None = None

    # -- runtimes --------------------------------------------------------------------------------------------------

    @rule(pids=st.sets(st.integers(1, 3), min_size=1), ahead=st.sampled_from([0.0, AFTER_SOON, AFTER_LATE]))
    def beat(self, pids: set[int], ahead: float) -> None:
        """A beat says who was declared dead; it revives nobody, and a new identity of the same process is not dead."""
        supervisor = self.runtimes[0].supervisor
        mine = [r for r in self.model.runtimes.values() if r.supervisor == supervisor and r.pid in pids]
        alive = {r.pid for r in mine if r.dead_at is None}
        told = beat(self.reader, supervisor, sorted(pids))
        assert set(told) == {r.pid for r in mine} - alive
        self.reader.execute("SELECT awa.beat(%s, %s, %s)", (supervisor, sorted(pids), self.at(ahead)))
        for runtime in mine:
            if runtime.dead_at is None:
                runtime.last_seen = ahead

    @rule(who=st.integers(0, 2))
    def die(self, who: int) -> None:
        """Its supervisor has seen it end. Its claim call may be under way, and its endings may still arrive."""
        runtime = self.runtimes[who]
        expected = [runtime.id] if self.lives(runtime.id) else []
        assert declare_dead(self.reader, runtime.supervisor, [runtime.pid]) == expected
        for runtime_id in expected:
            self.model.runtimes[runtime_id].die(0.0)
            self.done["died"] += 1

    @rule(ahead=st.sampled_from([NEAR, AFTER_SOON, AFTER_LATE]))
    def declare_stale(self, ahead: float) -> None:
        stale = {r.id for r in self.model.runtimes.values() if r.dead_at is None and r.last_seen + STALE < ahead}
        assert set(declare_stale(self.reader, STALE, self.at(ahead))) == stale
        self.done["stale"] += len(stale)
        for runtime_id in stale:
            self.model.runtimes[runtime_id].die(ahead)

    @rule(who=st.integers(0, 2))
    def retire(self, who: int) -> None:
        """What it has left open counts as a dead one's; with nothing open it is forgotten, and what waits is nobody's."""
        runtime = self.runtimes[who]
        if runtime.held is not None or not self.lives(runtime.id):  # a process retires when its claim calls are over
            return
        retire_runtime(self.reader, runtime.id)
        self.done["retired"] += 1
        if any(c.running for c in self.model.claims if c.runtime == runtime.id):
            self.model.runtimes[runtime.id].die(0.0)
        else:
            del self.model.runtimes[runtime.id]

    # -- rescue ----------------------------------------------------------------------------------------------------

    @rule(ahead=st.sampled_from([AT_ONCE, NEAR, AFTER_SOON, AFTER_LATE]), limit=st.sampled_from([1, 100]))
    def rescue_dead(self, ahead: float, limit: int) -> None:
        looked = [r for r in self.model.runtimes.values() if r.look_at is not None and r.look_at <= ahead]
        rescued = 0
        for _ in range(100):
            answer = rescue_dead(self.reader, limit, now=self.at(ahead))
            assert answer.stuck == 0
            rescued += answer.rescued
            if not answer.more:
                break
        else:
            raise AssertionError("there is always more to rescue")
        self._rescued(looked, ahead, limit, "rescued", rescued)

    @precondition(lambda self: any(r.dead_at is not None for r in self.model.runtimes.values()))
    @rule(data=st.data(), outcome=st.sampled_from(["rescued", "released"]))
    def rescue_one(self, data: st.DataObject, outcome: Literal["rescued", "released"]) -> None:
        """Of one dead runtime, whether it is due or not."""
        runtime = data.draw(st.sampled_from(list(self.model.runtimes.values())), "runtime")
        answer = rescue_dead(self.reader, runtime_id=runtime.id, outcome=outcome, now=self.at(AT_ONCE))
        assert not answer.more
        self._rescued([runtime] if runtime.dead_at is not None else [], AT_ONCE, 5000, outcome, answer.rescued)

    def _rescued(self, runtimes: list[ModelRuntime], ahead: float, limit: int, outcome: str, count: int) -> None:
        self.model.step += 1
        ids = {r.id for r in runtimes}
        claims = [c for c in self.model.claims if c.runtime in ids and c.running]
        busy = [c for c in claims if self.is_busy(c)]
        due = [(c, item) for c in claims if c not in busy for item in c.running]
        gone = self._gone(due)
        assert len(gone) == count
        # A lease that is being ended may hide as many as the limit behind it until the next look.
        hides = limit == 1 and any(c.leases for c in busy)
        assert len(gone) == len(due) or (hides and all(item in c.leases for c, item in due if (c, item) not in gone))
        self.done[outcome] += count
        self.done["rescue meets a busy claim"] += bool(busy)
        for claim, item in gone:
            self.model.end(claim, item, outcome)
        for runtime in runtimes:
            assert runtime.dead_at is not None
            stays = any(c.runtime == runtime.id for c in busy) or ahead < runtime.dead_at + MINUTE
            runtime.look_at = ahead + AGAIN if stays else None

    @rule(ahead=st.sampled_from([NEAR, AFTER_SOON, AFTER_LATE]), limit=st.sampled_from([1, 3, 100]))
    def rescue_expired(self, ahead: float, limit: int) -> None:
        """A walk from the beginning; where it left something open, the next begins there."""
        due = [(c, item) for c in self.model.claims for item in c.expired(ahead)]
        self._walk_deadlines(None, ahead, limit, due)

    @precondition(lambda self: self.left is not None)
    @rule(limit=st.sampled_from([1, 100]))
    def resume_expiry(self, limit: int) -> None:
        left = self.left
        assert left is not None
        self.done["expiry resumed"] += 1
        due = [(c, item) for c in self.model.claims for item in c.expired(left.ahead)]
        must = [(c, item) for c, item in left.items if item in c.expired(left.ahead)]
        self._walk_deadlines(left.position, left.ahead, limit, due, must)

    def _walk_deadlines(
        self,
        position: ExpiryPosition | None,
        ahead: float,
        limit: int,
        due: list[tuple[ModelClaim, int]],
        must: list[tuple[ModelClaim, int]] | None = None,
    ) -> None:
        count = 0
        for _ in range(500):
            answer, position = rescue_expired(self.reader, position, limit, now=self.at(ahead))
            assert answer.stuck == 0
            count += answer.rescued
            if not answer.more:
                break
        else:
            raise AssertionError("the deadlines have no end")
        self.model.step += 1
        gone = self._gone(due)
        assert len(gone) == count
        open_ = [(c, item) for c, item in (due if must is None else must) if (c, item) not in gone]
        # As many leases as the limit that are being ended hide those behind them until the next walk.
        hides = self.flush is not None and sum(i in self.flush.claim.leases for i in self.flush.items) >= limit
        assert all(self.is_busy(c) or (hides and item in c.leases) for c, item in open_)
        self.done["expired"] += count
        self.done["expiry meets a busy claim"] += any(self.is_busy(c) for c, _ in open_)
        for claim, item in gone:
            self.model.end(claim, item, "expired")
        without_lease = [(c, item) for c, item in open_ if item not in c.leases]
        self.left = Left(position, ahead, without_lease) if position and without_lease else None

    @precondition(lambda self: any(c.running for c in self.model.claims))
    @rule(data=st.data())
    def expire_one(self, data: st.DataObject) -> None:
        """Its worker says that its handler does not come back."""
        claim = data.draw(st.sampled_from([c for c in self.model.claims if c.running]), "claim")
        item = data.draw(st.sampled_from(claim.running), "item")
        verdict = expire_attempt(self.reader, claim.runtime, claim.claim.claim_id, item)
        assert verdict == ("busy" if self.is_busy(claim) else None)
        if verdict is None:
            self.model.step += 1
            self.model.end(claim, item, "expired")

    def _gone(self, items: Iterable[tuple[ModelClaim, int]]) -> list[tuple[ModelClaim, int]]:
        """Those of `items` that have ended by now."""
        ids = sorted({c.claim.claim_id for c, _ in items})
        open_ = self.reader.execute(
            "SELECT claim_id, item FROM awa.claim_items WHERE claim_id = ANY (%s) AND outcome IS NULL "
            "UNION ALL SELECT claim_id, item FROM awa.leases",
            (ids,),
        ).fetchall()
        return [(c, item) for c, item in items if (c.claim.claim_id, item) not in set(open_)]

    # -- promotion and chores --------------------------------------------------------------------------------------

    @rule(ahead=st.sampled_from([NEAR, AFTER_SOON, AFTER_LATE]), limit=st.sampled_from([1, 100]))
    def promote(self, ahead: float, limit: int) -> None:
        due = {
            i: job
            for i, job in self.model.jobs.items()
            if job.state in DEFERRED and job.due_after <= ahead and job.queue not in self.model.paused
        }
        assert promote_due(self.reader, limit, self.at(ahead)) == min(limit, len(due))
        left = {row[0] for row in self.reader.execute("SELECT job_id FROM awa.deferred_jobs").fetchall()}
        gone = [i for i in due if i not in left]
        assert len(gone) == min(limit, len(due))
        self.model.step += 1
        for job_id in gone:
            self.model.ready_again(due[job_id])

    @rule(queue=st.sampled_from(QUEUES), paused=st.booleans())
    def pause_or_resume(self, queue: str, paused: bool) -> None:
        queue += self.suffix
        (pause_queue if paused else resume_queue)(self.reader, queue)
        (self.model.paused.add if paused else self.model.paused.discard)(queue)

    @rule()
    def settle_tombstones(self) -> None:
        """Seen by nobody; a lane that is being claimed from is left alone."""
        self.reader.execute("SELECT awa.settle_tombstones()")
