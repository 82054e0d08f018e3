"""The rings turn every few milliseconds under full load: nothing is lost, nothing comes twice, nobody waits for long."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import psycopg
import pytest

import awa
from awa.claim import JOB_ID, RUN_LEASE
from awa.postgres import connect
from awa.rings import PRUNE_ORDER, RINGS
from awa.storage.claim import claim_jobs, random_id, read_claims
from awa.storage.complete import Completion, complete_jobs, not_accepted
from awa.storage.counters import (
    check_terminal_counters,
    count_closed_claims,
    fold_terminal_counts,
    rebuild_terminal_counters,
)
from awa.storage.jobs import queue_counts
from awa.storage.rings import materialize_attempts, prune_ring, rotate_ring
from tests.properties.fuzz import QUEUES, Claimer, Disturber, Ledger, Party, Producer
from tests.sql.engine import register
from tests.waiting import wait_for

RUN = 7.0  # seconds of producing
PRODUCERS = 6
CLAIMERS = 3
LONGEST_WAIT = 0.05  # seconds that anybody may wait for maintenance


class Turner(Party):
    """A leader's storage keeper without its pauses: everything turns at once, all the time. There may be two."""

    def __init__(self, name: str, seed: int, ledger: Ledger, dsn: str) -> None:
        super().__init__(name, seed, ledger)
        self.took: list[float] = []  # seconds, by prunes that succeeded
        self._conn = connect(dsn, "fuzz turner")
        self._conn.execute("SET deadlock_timeout = '100ms'")

    def act(self) -> None:
        for ring in RINGS:
            self.ledger.count(f"rotate {ring}: {rotate_ring(self._conn, ring)}")
        if self.random.random() < 0.5:
            self.ledger.count("materialised", materialize_attempts(self._conn, 50))
        for ring in PRUNE_ORDER:
            began = time.monotonic()
            for _, reason in prune_ring(self._conn, ring):
                self.ledger.count(f"{ring}: {reason or 'pruned'}")
                if reason is None:
                    self.took.append(time.monotonic() - began)
        if self.random.random() < 0.2:
            self.ledger.count("folds", fold_terminal_counts(self._conn, 0))
        if self.random.random() < 0.2:
            self.ledger.count("claims counted in their slot", count_closed_claims(self._conn, 0))
        if self.random.random() < 0.05:
            with suppress(psycopg.errors.LockNotAvailable):
                drift = [count for count in rebuild_terminal_counters(self._conn) if count.drift]
                assert drift == []
                self.ledger.count("rebuilds")
        self.stopping.wait(0.005 * self.random.random())

    def finish(self) -> None:
        self._conn.close()


class Reader(Party):
    """Reads in all ways, also for long, also with an old snapshot; and never sees what cannot be."""

    def __init__(self, name: str, seed: int, ledger: Ledger, dsn: str) -> None:
        super().__init__(name, seed, ledger)
        self._conn = connect(dsn, "fuzz reader")
        self._last: dict[str, int] = {}

    def act(self) -> None:
        way = self.random.choice(("exact", "fast", "fast", "twice", "old snapshot", "locks a child", "counters"))
        self.ledger.count(f"read {way}")
        if way in {"exact", "fast"}:
            for counts in queue_counts(self._conn, None, exact=way == "exact"):
                ended = counts.completed
                assert ended >= self._last.get(counts.queue, 0), f"{way}: completed jobs of {counts.queue} became fewer"
                self._last[counts.queue] = ended
        elif way == "twice":
            with self._conn.transaction():
                self._conn.execute("SELECT awa.share_prune_lock()")
                twice = self._conn.execute("SELECT job_id FROM awa.jobs GROUP BY job_id HAVING count(*) > 1").fetchall()
            assert twice == []
        elif way == "old snapshot":
            with self._conn.transaction():
                self._conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                self._conn.execute("SELECT 1")
                self.stopping.wait(self.random.random())
        elif way == "locks a child":
            table = self.random.choice(("ready_entries", "lease_claim_batches", "done_entries", "leases"))
            with self._conn.transaction():
                self._conn.execute(f"SELECT count(*) FROM awa.{table}_{self.random.randrange(8)}".encode())
                self.stopping.wait(0.2 * self.random.random())
        else:
            assert [count for count in check_terminal_counters(self._conn) if count.drift] == []
        self.stopping.wait(0.4 * self.random.random())

    def finish(self) -> None:
        self._conn.close()


class LongRunner(Party):
    """Claims a few jobs and ends them only when their claim and their bodies may be gone."""

    def __init__(self, name: str, seed: int, ledger: Ledger, dsn: str) -> None:
        super().__init__(name, seed, ledger)
        self.runtime_id = random_id()
        self._conn = connect(dsn, "fuzz runner")
        register(self._conn, self.runtime_id)

    def act(self) -> None:
        token = random_id()
        queue = self.random.choice(QUEUES)
        jobs = read_claims(claim_jobs(self._conn, queue, 3, self.runtime_id, token), queue, token)
        with self.ledger.lock:
            self.ledger.handed_out.update((row[JOB_ID], row[RUN_LEASE]) for _, _, row in jobs)
        self.stopping.wait(0.5 + 2.0 * self.random.random())
        for claim, item, _ in jobs:
            left = self._conn.execute(
                "SELECT 1 FROM awa.lease_claim_batches WHERE claim_id = %s", (claim.claim_id,)
            ).fetchall()
            self.ledger.count("completed after its claim was pruned", left == [])
            while answer := not_accepted(
                complete_jobs(self._conn, self.runtime_id, random_id(), [Completion(claim, [item])])
            ):
                assert {a.verdict for a in answer} == {"busy"}, answer

    def finish(self) -> None:
        self._conn.close()


class Watch(Party):
    """Who waits for maintenance, and for how long. A backend looks every millisecond, and notes when it was late itself."""

    def __init__(self, name: str, seed: int, ledger: Ledger, dsn: str) -> None:
        super().__init__(name, seed, ledger)
        self._conn = connect(dsn, "fuzz watch")
        self._conn.execute(
            """
            CREATE TEMP TABLE looks (at timestamptz, late interval);
            CREATE TEMP TABLE waits (who text, waited_since timestamptz, seen_at timestamptz);
            CREATE FUNCTION pg_temp.watch(p_looks int4) RETURNS void LANGUAGE plpgsql AS $$
            DECLARE
                v_looked_at timestamptz := clock_timestamp();
            BEGIN
                FOR v_look IN 1..p_looks LOOP
                    PERFORM pg_sleep(0.001);
                    INSERT INTO waits
                    SELECT a.application_name || ': ' || l.locktype || ' ' || l.mode, l.waitstart, clock_timestamp()
                    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
                    WHERE NOT l.granted AND l.waitstart IS NOT NULL AND a.application_name <> 'fuzz turner'
                      AND EXISTS (SELECT 1 FROM unnest(pg_blocking_pids(l.pid)) AS b (pid)
                                  JOIN pg_stat_activity t ON t.pid = b.pid WHERE t.application_name = 'fuzz turner');
                    INSERT INTO looks
                    SELECT clock_timestamp(), clock_timestamp() - v_looked_at - '5 milliseconds'::interval;
                    v_looked_at := clock_timestamp();
                END LOOP;
            END
            $$
            """
        )

    def act(self) -> None:
        self._conn.execute("SELECT pg_temp.watch(50)")

    @property
    def looks(self) -> int:
        """How often it has looked."""
        return int(self._conn.execute("SELECT count(*) FROM looks").fetchall()[0][0])

    def waits(self) -> list[tuple[str, float, float]]:
        """Who waited, for how many seconds, and for how many of them a backend that waits for nobody was let run."""
        return self._conn.execute(
            """
            SELECT DISTINCT ON (w.who) w.who, extract(epoch FROM w.seen_at - w.waited_since)::float8,
                   extract(epoch FROM w.seen_at - w.waited_since - s.late)::float8 AS ran
            FROM waits w CROSS JOIN LATERAL (
                SELECT coalesce(sum(k.late), '0') AS late FROM looks k
                WHERE k.late > '0' AND k.at BETWEEN w.waited_since AND w.seen_at + '10 milliseconds'::interval
            ) s
            ORDER BY w.who, ran DESC
            """
        ).fetchall()

    def close(self) -> None:
        self._conn.close()


def _prepare(conn: psycopg.Connection[Any], client: awa.Client) -> list[int]:
    """Nothing is kept, and a paused queue's jobs lie in the first slot."""
    conn.execute(
        "UPDATE awa.storage_settings SET completed_retention = 0, terminal_retention = 0, materialize_after = 0, "
        "lease_rotate_bytes = 8192"
    )
    paused = client.enqueue_many([{"uid": f"paused-{n}"} for n in range(5)], kind="fuzz", queue="paused")
    client.pause_queue("paused")
    return paused


def _end(parties: list[Party]) -> None:
    for party in parties:
        party.stopping.set()
    for party in parties:
        party.join(60)
        assert not party.is_alive(), party.name


def _has_failed(parties: list[Party]) -> bool:
    return any(party.error for party in parties)


def _unfinished(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("SELECT sum(available + running + scheduled + retryable)::int8 FROM awa.queue_counts()").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("turners", [1, 2], ids=["one leader", "two leaders"])
def test_nothing_is_lost_and_nothing_comes_twice_while_everything_turns(
    dsn: str, client: awa.Client, conn: psycopg.Connection[Any], turners: int
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    ledger = Ledger()
    paused = _prepare(conn, client)
    producers: list[Party] = [Producer(f"p{i}", seed, ledger, dsn, client) for i in range(PRODUCERS)]
    others: list[Party] = [
        *(Claimer(f"c{i}", seed, ledger, dsn, forgets=True) for i in range(CLAIMERS)),
        *(Turner(f"t{i}", seed, ledger, dsn) for i in range(turners)),
        Reader("r", seed, ledger, dsn),
        *(LongRunner(f"l{i}", seed, ledger, dsn) for i in range(2)),
        Disturber("d", seed, ledger, dsn, rotates=False),
    ]
    everybody = [*producers, *others]
    for party in everybody:
        party.start()
    try:
        ends_at = time.monotonic() + RUN
        wait_for(lambda: _has_failed(everybody) or time.monotonic() > ends_at, what="the end of the run")
        _end(producers)
        wait_for(lambda: _has_failed(everybody) or _unfinished(conn) == len(paused), 60, "every job's end")
    finally:
        _end(everybody)
    assert [party.error for party in everybody if party.error] == []

    # Each committed job has ended once: the totals say so, for most of the jobs are gone.
    known = len(ledger.committed)
    ended = sum(count.completed + count.dead_lettered + count.failed for count in queue_counts(conn, None))
    assert known <= ended <= known + len(ledger.unknown), (known, ended, len(ledger.unknown))
    assert set(ledger.handed_out.values()) == {1}, "a job was handed out twice under one lease"
    leases = Counter(job_id for job_id, _ in ledger.handed_out)
    newest = {job_id: max(lease for i, lease in ledger.handed_out if i == job_id) for job_id in list(leases)[-200:]}
    assert all(leases[job_id] == lease for job_id, lease in newest.items()), "a lease was skipped"
    assert queue_counts(conn, None) == queue_counts(conn, None, exact=False)
    assert [count for count in check_terminal_counters(conn) if count.drift] == []

    client.resume_queue("paused")
    token = random_id()
    register(conn, 99)
    rows = read_claims(claim_jobs(conn, "paused", 100, 99, token), "paused", token)
    assert [row[JOB_ID] for _, _, row in rows] == paused
    prunes = dict(conn.execute("SELECT ring, sum(prunes)::int FROM awa.ring_slots GROUP BY 1").fetchall())
    assert prunes["claim"] > 10, (prunes, ledger.done)
    assert prunes["queue"] > 5, (prunes, ledger.done)
    pinned = conn.execute("SELECT prunes FROM awa.ring_slots WHERE ring = 'queue' AND slot = 0").fetchall()
    assert pinned == [(0,)]
    written = conn.execute(
        "SELECT sum(n_tup_upd), sum(n_tup_del) FROM pg_stat_user_tables "
        "WHERE relname ~ '^(ready_|lease_claim_|receipt_|done_|queue_terminal_count_).*[0-7]$'"
    ).fetchall()
    assert written == [(0, 0)]
    deadlocks = conn.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchall()
    assert deadlocks == [(0,)]
    exercised = (
        "materialised",
        "completed after its claim was pruned",
        "terminations",
        "claims counted in their slot",
        "claim: pruned",
        "lease: pruned",
    )
    assert [what for what in exercised if ledger.done[what] == 0] == [], ledger.done
    assert known > 200


def test_nobody_waits_for_maintenance_for_longer_than_a_moment(
    dsn: str, client: awa.Client, conn: psycopg.Connection[Any]
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    ledger = Ledger()
    _prepare(conn, client)
    watch = Watch("w", seed, ledger, dsn)
    everybody: list[Party] = [
        *(Producer(f"p{i}", seed, ledger, dsn, client) for i in range(PRODUCERS)),
        *(Claimer(f"c{i}", seed, ledger, dsn, forgets=True) for i in range(CLAIMERS)),
        turner := Turner("t", seed, ledger, dsn),
        *(Reader(f"r{i}", seed, ledger, dsn) for i in range(2)),
        LongRunner("l", seed, ledger, dsn),
        watch,
    ]
    for party in everybody:
        party.start()
    try:
        ends_at = time.monotonic() + RUN
        wait_for(lambda: _has_failed(everybody) or time.monotonic() > ends_at, what="the end of the run")
    finally:
        _end(everybody)
    assert [party.error for party in everybody if party.error] == []
    waits = watch.waits()
    print(f"{watch.looks} looks, waits {waits}, prunes {sorted(turner.took)[-5:]}")
    assert watch.looks > 500
    watch.close()
    assert ledger.done["claim: pruned"] + ledger.done["queue: pruned"] > 20, ledger.done
    assert [wait for wait in waits if wait[2] > LONGEST_WAIT] == []
