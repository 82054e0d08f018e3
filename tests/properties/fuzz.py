"""The fuzz's moving parts: producers, claimers, and those who disturb them. What happened is written down in a ledger."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
from attrs import define, field

import awa
from awa.claim import JOB_ID, RUN_LEASE, Claim
from awa.postgres import connect
from awa.storage.claim import claim_jobs, prepare_claiming, random_id, read_claims, redeliver_claims
from awa.storage.complete import Completion, Ending, NotAccepted, complete_jobs, finalize_attempts, not_accepted
from awa.storage.promote import promote_due
from tests.sql.engine import register

QUEUES = ("red", "green", "blue")
RINGS = ("queue", "claim")
LOST = (psycopg.OperationalError, awa.DatabaseUnavailable)  # what a terminated connection raises


@define(eq=False)
class Ledger:
    """What producers and claimers know to have happened. Sets and counters of texts and numbers; one lock for all."""

    committed: set[str] = field(factory=set)
    rolled_back: set[str] = field(factory=set)
    unknown: set[str] = field(factory=set)  # the commit's acknowledgement was lost
    handed_out: Counter[tuple[int, int]] = field(factory=Counter)  # (job_id, run_lease), by committed claims
    done: Counter[str] = field(factory=Counter)  # what was exercised
    lock: threading.Lock = field(factory=threading.Lock)

    def note(self, fate: set[str], uids: list[str]) -> None:
        with self.lock:
            fate.update(uids)

    def count(self, what: str, n: int = 1) -> None:
        with self.lock:
            self.done[what] += n


class Party(threading.Thread):
    """A thread that repeats `act` until told to stop and keeps what it died of."""

    def __init__(self, name: str, seed: int, ledger: Ledger) -> None:
        super().__init__(name=name, daemon=True)
        self.random = random.Random(f"{seed}/{name}")
        self.ledger = ledger
        self.stopping = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stopping.is_set():
                self.act()
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.error = error
        finally:
            self.finish()

    def act(self) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Let go of connections."""


class Producer(Party):
    """Enqueues in every way there is; now and then it thinks for up to two seconds before it commits."""

    def __init__(self, name: str, seed: int, ledger: Ledger, dsn: str, client: awa.Client) -> None:
        super().__init__(name, seed, ledger)
        self._dsn = dsn
        self._client = client
        self._conn: psycopg.Connection[Any] | None = None
        self._n = 0

    def act(self) -> None:
        way = self.random.choice(
            ("transaction", "transaction", "transaction", "autocommit", "pool", "pool many", "pool copy")
        )
        self.ledger.count(way)
        uids: list[str] = []
        try:
            if way == "transaction":
                self._transact(uids)
                return
            if way == "autocommit":
                conn = self._connection()
                conn.autocommit = True
                self._enqueue(uids, conn)
            elif way == "pool":
                self._enqueue(uids, None)
            elif way == "pool many":
                self._enqueue_many(uids, None)
            else:
                self._copy(uids, None)
            self.ledger.note(self.ledger.committed, uids)
        except LOST:
            self.ledger.note(self.ledger.unknown, uids)
            self._forget()
        self.stopping.wait(self.random.random() * 0.02)

    def finish(self) -> None:
        self._forget()

    def _transact(self, uids: list[str]) -> None:
        undone: list[str] = []
        try:
            conn = self._connection()
            conn.autocommit = False
            conn.execute("SELECT 1")  # begins it: a block on an idle connection would commit it instead of a savepoint
            for _ in range(self.random.randint(1, 4)):
                if self.random.random() < 0.4:
                    self._savepoint(conn, uids, undone)
                else:
                    self._any(uids, conn)
                if self.random.random() < 0.3:
                    self._think()
            if self.random.random() < 0.25:
                conn.rollback()
                self.ledger.note(self.ledger.rolled_back, uids + undone)
                return
        except LOST:  # before COMMIT was sent
            self.ledger.note(self.ledger.rolled_back, uids + undone)
            self._forget()
            return
        self.ledger.note(self.ledger.rolled_back, undone)
        try:
            conn.commit()
        except LOST:
            self.ledger.note(self.ledger.unknown, uids)
            self._forget()
        else:
            self.ledger.note(self.ledger.committed, uids)

    def _savepoint(self, conn: psycopg.Connection[Any], uids: list[str], undone: list[str]) -> None:
        inside: list[str] = []
        keep = self.random.random() < 0.5
        self.ledger.count("savepoint kept" if keep else "savepoint rolled back")
        try:
            with conn.transaction(force_rollback=not keep):
                self._any(inside, conn)
        finally:
            (uids if keep else undone).extend(inside)
        if conn.closed:  # psycopg ignores that when it rolls a savepoint back on request
            raise psycopg.OperationalError("the connection was lost in a rollback to a savepoint")

    def _think(self) -> None:
        """Usually a moment; sometimes long enough for everybody to pass by."""
        self.stopping.wait(2.0 * self.random.random() if self.random.random() < 0.1 else 0.03 * self.random.random())

    def _any(self, uids: list[str], conn: psycopg.Connection[Any]) -> None:
        self.random.choice((self._enqueue, self._enqueue, self._enqueue_many, self._copy))(uids, conn)

    def _enqueue(self, uids: list[str], conn: psycopg.Connection[Any] | None) -> None:
        self._client.enqueue("fuzz", self._new(uids), connection=conn, **self._route())

    def _enqueue_many(self, uids: list[str], conn: psycopg.Connection[Any] | None) -> None:
        jobs = [
            awa.NewJob(self._new(uids), options=awa.JobOptions(**self._route())) for _ in range(self.random.randint(1, 8))
        ]
        self._client.enqueue_many(jobs, kind="fuzz", connection=conn)

    def _copy(self, uids: list[str], conn: psycopg.Connection[Any] | None) -> None:
        jobs = [self._new(uids) for _ in range(self.random.randint(1, 12))]
        self._client.enqueue_many_copy(jobs, kind="fuzz", connection=conn, **self._route())

    def _new(self, uids: list[str]) -> dict[str, str]:
        self._n += 1
        uids.append(f"{self.name}-{self._n}")
        return {"uid": uids[-1]}

    def _route(self) -> dict[str, Any]:
        return {
            "queue": self.random.choice(QUEUES),
            "priority": self.random.randint(1, 3),
            "max_attempts": self.random.choice((1, 2, 25)),
        }

    def _connection(self) -> psycopg.Connection[Any]:
        if self._conn is None:
            self._conn = connect(self._dsn, "fuzz producer")
        return self._conn

    def _forget(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()


class Claimer(Party):
    """A runtime: claims from any queue, rolls some claims back, and ends what it got in all ways.

    Where no history is kept (`forgets`), a flush repeated after a lost acknowledgement may come to claims that are gone.
    """

    def __init__(self, name: str, seed: int, ledger: Ledger, dsn: str, *, forgets: bool = False) -> None:
        super().__init__(name, seed, ledger)
        self._forgets = forgets
        self._lost = 0
        self.runtime_id = random_id()
        with connect(dsn, "awa test") as conn:
            register(conn, self.runtime_id)
        self._dsn = dsn
        self._conn: psycopg.Connection[Any] | None = None

    def act(self) -> None:
        token = random_id()
        queue, limit = self.random.choice(QUEUES), self.random.choice((1, 3, 10, 60))
        how = self.random.choice(("alone", "alone", "in a transaction", "rolled back"))
        self.ledger.count(f"claim {how}")
        try:
            conn = self._connection()
            if how == "alone":
                rows = claim_jobs(conn, queue, limit, self.runtime_id, token)
            else:
                with conn.transaction(force_rollback=how == "rolled back"):
                    rows = claim_jobs(conn, queue, limit, self.runtime_id, token)
                    if self.random.random() < 0.2:
                        self.stopping.wait(0.02 * self.random.random())
        except LOST:
            rows = self._insist(lambda conn: redeliver_claims(conn, self.runtime_id, token, 0))
            self.ledger.count("claims found again", bool(rows))
        else:
            if how == "rolled back":
                return
        if not rows:
            self._insist(lambda conn: promote_due(conn, 100))
            self.stopping.wait(0.01)
            return
        jobs = read_claims(rows, queue, token)
        with self.ledger.lock:
            self.ledger.handed_out.update((row[JOB_ID], row[RUN_LEASE]) for _, _, row in jobs)
        self._end(jobs)

    def finish(self) -> None:
        self._forget()

    def _end(self, jobs: list[tuple[Claim, int, Any]]) -> None:
        left = [(claim, item) for claim, item, _ in jobs]
        self.random.shuffle(left)
        while left:
            n = self.random.randint(1, len(left))
            batch, left = left[:n], left[n:]
            flush_id, ending = random_id(), self.random.choice(("completed", "completed", "failed", "released"))
            self.ledger.count(ending)
            lost = self._lost
            refused = self._insist(partial(self._flush, flush_id=flush_id, batch=batch, ending=ending))
            if refused and self._forgets and self._lost > lost:
                self.ledger.count("acknowledged by nobody")
            else:
                assert refused == [], f"{ending} refused: {refused}"

    def _flush(
        self, conn: psycopg.Connection[Any], flush_id: int, batch: list[tuple[Claim, int]], ending: str
    ) -> list[tuple[int, int | None]]:
        while True:
            if ending == "completed":
                items: dict[Claim, list[int]] = {}
                for claim, item in batch:
                    items.setdefault(claim, []).append(item)
                whole = [Completion(c, None if len(i) == c.n and not c.by_item else i) for c, i in items.items()]
                answer = not_accepted(complete_jobs(conn, self.runtime_id, flush_id, whole))
                for claim in [c for c in items if (c.claim_id, None, "refused") in answer]:
                    claim.by_item = True  # it was pruned: what goes on of it are leases
                    answer = [a for a in answer if a.claim_id != claim.claim_id]
                    answer.append(NotAccepted(claim.claim_id, None, "busy"))
            else:
                outcome: Any = ending
                ends = [Ending(claim, item, outcome) for claim, item in batch]
                answer = not_accepted(finalize_attempts(conn, self.runtime_id, flush_id, ends))
            refused = [(a.claim_id, a.item) for a in answer if a.verdict == "refused"]
            if refused or not answer:
                return refused
            # busy: the backend of a terminated connection still lets go of its locks. What was accepted is not sent again.
            busy = {(a.claim_id, a.item) for a in answer}
            batch = [(c, i) for c, i in batch if {(c.claim_id, None), (c.claim_id, i)} & busy]

    def _insist(self, act: Callable[[psycopg.Connection[Any]], Any]) -> Any:
        while True:
            try:
                return act(self._connection())
            except LOST:
                self.ledger.count("claimer reconnects")
                self._lost += 1
                self._forget()

    def _connection(self) -> psycopg.Connection[Any]:
        if self._conn is None:
            self._conn = connect(self._dsn, "fuzz claimer")
            prepare_claiming(self._conn)
        return self._conn

    def _forget(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()


class Disturber(Party):
    """Turns both rings, if it is to, and terminates somebody's backend, every few hundredths of a second."""

    def __init__(self, name: str, seed: int, ledger: Ledger, dsn: str, *, rotates: bool = True) -> None:
        super().__init__(name, seed, ledger)
        self._rotates = rotates
        self._conn = connect(dsn, "fuzz disturber")

    def act(self) -> None:
        self.stopping.wait(0.02 + 0.08 * self.random.random())
        if self._rotates:
            rotate(self._conn, self.random.choice(RINGS))
            self.ledger.count("rotations")
        victims = self._conn.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name IN ('fuzz producer', 'fuzz claimer', 'awa client') ORDER BY pid"
        ).fetchall()
        if victims and self.random.random() < 0.6:
            self._conn.execute("SELECT pg_terminate_backend(%s)", self.random.choice(victims))
            self.ledger.count("terminations")

    def finish(self) -> None:
        with suppress(psycopg.Error):
            self._conn.close()


def rotate(conn: psycopg.Connection[Any], ring: str) -> None:
    """Begin the ring's next slot."""
    conn.execute(
        "INSERT INTO awa.ring_rotations (ring, generation, slot) SELECT ring, generation + 1, (slot + 1) %% 8 "
        "FROM awa.ring_rotations WHERE ring = %s ORDER BY generation DESC LIMIT 1",
        (ring,),
    )
