"""Producers, claimers, terminated backends and turning rings, all at once: each committed job is claimed once a lease."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import psycopg

import awa
from awa.postgres import connect
from tests.properties.fuzz import Claimer, Disturber, Ledger, Party, Producer
from tests.waiting import PATIENCE, wait_for

RUN = 7.0  # seconds of producing
PRODUCERS = 12
CLAIMERS = 3


def test_every_committed_job_is_claimed_once_a_lease_and_none_is_lost(
    dsn: str, client: awa.Client, conn: psycopg.Connection[Any]
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # shown with a failure
    ledger = Ledger()
    producers: list[Party] = [Producer(f"p{i}", seed, ledger, dsn, client) for i in range(PRODUCERS)]
    claimers: list[Party] = [Claimer(f"c{i}", seed, ledger, dsn) for i in range(CLAIMERS)]
    disturber = Disturber("d", seed, ledger, dsn)
    everybody = [*producers, *claimers, disturber]
    for party in everybody:
        party.start()
    try:
        ends_at = time.monotonic() + RUN
        wait_for(lambda: _look(conn, everybody) or time.monotonic() > ends_at, what="the end of the run")
        _end(producers)
        wait_for(lambda: _look(conn, everybody) or _unfinished(conn) == 0, what="every job's end")
    finally:
        _end(everybody)
    assert [party.error for party in everybody if party.error] == []

    jobs = conn.execute("SELECT job_id, args->>'uid', state, run_lease, attempt, max_attempts FROM awa.jobs").fetchall()
    stored = {uid for _, uid, *_ in jobs}
    assert len(jobs) == len(stored), "a job is stored twice"
    assert ledger.committed <= stored, "a committed job is lost"
    assert not ledger.rolled_back & stored, "a job that was rolled back is there"
    assert stored <= ledger.committed | ledger.unknown
    assert {state for _, _, state, *_ in jobs} == {"completed", "dead_lettered"}
    assert all(attempt == most for _, _, state, _, attempt, most in jobs if state == "dead_lettered")
    assert all(attempt <= most for *_, attempt, most in jobs)
    leases = {(job_id, lease) for job_id, _, _, last, *_ in jobs for lease in range(1, last + 1)}
    assert set(ledger.handed_out) == leases, "a lease was skipped, or a job handed out that was never committed"
    assert set(ledger.handed_out.values()) == {1}, "a job was handed out twice under one lease"
    assert _open_items(conn) == 0
    written = conn.execute(
        "SELECT sum(n_tup_ins) > 1000, sum(n_tup_upd), sum(n_tup_del) FROM pg_stat_user_tables "
        "WHERE relname ~ '^(ready_|lease_claim_|receipt_|leases_|done_|queue_terminal_count_).*[0-7]$'"
    ).fetchone()
    assert written == (True, 0, 0)
    exercised = ("savepoint rolled back", "claim rolled back", "rotations", "terminations", "claimer reconnects", "failed")
    assert all(ledger.done[what] > 3 for what in exercised), ledger.done
    assert len(ledger.committed) > 500


def _look(conn: psycopg.Connection[Any], everybody: list[Party]) -> bool:
    """While it runs: whether somebody gave up; and no job is ever seen in two states."""
    twice = conn.execute("SELECT job_id, count(*) FROM awa.jobs GROUP BY job_id HAVING count(*) > 1").fetchall()
    assert twice == []
    threading.Event().wait(0.2)  # between looks; nothing depends on its length
    return any(party.error for party in everybody)


def _end(parties: list[Party]) -> None:
    for party in parties:
        party.stopping.set()
    for party in parties:
        party.join(PATIENCE)
        assert not party.is_alive(), party.name


def _unfinished(conn: psycopg.Connection[Any]) -> int:
    counts = conn.execute("SELECT sum(available + running + scheduled + retryable)::int8 FROM awa.queue_counts()").fetchone()
    assert counts is not None
    return int(counts[0])


def _open_items(conn: psycopg.Connection[Any]) -> int:
    """Every item of every claim has ended, exactly once."""
    claimed = conn.execute("SELECT sum(n) FROM awa.lease_claim_batches").fetchone()
    ended = conn.execute(
        "SELECT (SELECT sum(n) FROM awa.receipt_completion_batches) + (SELECT count(*) FROM awa.lease_claim_closures)"
    ).fetchone()
    assert claimed is not None
    assert ended is not None
    return int(claimed[0] - ended[0])


class _Teller(Party):
    """Commits small transactions on one lane and remembers when each began and was committed."""

    def __init__(self, name: str, seed: int, ledger: Ledger, dsn: str, client: awa.Client) -> None:
        super().__init__(name, seed, ledger)
        self.spans: dict[str, tuple[float, float]] = {}
        self._client = client
        self._conn = connect(dsn, "teller")
        self._conn.autocommit = False

    def act(self) -> None:
        tx = f"{self.name}-{len(self.spans)}"
        began = time.monotonic()
        for n in range(self.random.randint(1, 5)):
            self._client.enqueue("tell", {"tx": tx, "n": n}, queue="tales", connection=self._conn)
            self.stopping.wait(self.random.choice((0.0, 0.0, 0.001, 0.01, 0.1)) * self.random.random())
        self._conn.commit()
        self.spans[tx] = (began, time.monotonic())

    def finish(self) -> None:
        self._conn.close()


def test_one_consumer_gets_a_lane_in_causal_order(dsn: str, client: awa.Client, conn: psycopg.Connection[Any]) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    ledger = Ledger()
    tellers = [_Teller(f"t{i}", seed, ledger, dsn, client) for i in range(8)]
    told: list[tuple[str, int]] = []

    def claim() -> bool:
        undo = chance.random() < 0.2
        with conn.transaction(force_rollback=undo):
            rows = conn.execute(
                "SELECT args FROM awa.claim_jobs('tales', %s, 4711, %s)", (chance.choice((1, 4, 30)), chance.getrandbits(60))
            ).fetchall()
        if not undo:
            told.extend((args["tx"], args["n"]) for (args,) in rows)
        return bool(rows) or undo

    for teller in tellers:
        teller.start()
    ends_at = time.monotonic() + 2.0
    wait_for(lambda: (claim() and False) or time.monotonic() > ends_at)
    _end([*tellers])
    wait_for(lambda: not claim(), what="the lane's end")

    spans = {tx: span for teller in tellers for tx, span in teller.spans.items()}
    assert [teller.error for teller in tellers if teller.error] == []
    assert {tx for tx, _ in told} == set(spans)
    newest_begin = 0.0
    next_of: dict[str, int] = {}
    for tx, n in told:
        began, committed = spans[tx]
        assert committed >= newest_begin, f"{tx} was committed before one began that was claimed first"
        newest_begin = max(newest_begin, began)
        assert n == next_of.get(tx, 0), f"{tx}: its jobs came out of order"
        next_of[tx] = n + 1
    assert len(told) > 100
