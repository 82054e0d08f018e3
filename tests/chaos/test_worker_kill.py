"""A worker process dies without a word."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

import awa
from tests.waiting import wait_for
from tests.worker.support import handed_out_twice, wait_for_counts

NEVER = 10**9


@contextmanager
def worker_process(dsn: str, gate: int) -> Iterator[subprocess.Popen[str]]:
    """A worker that is killed at the latest at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.program", dsn, str(gate)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _effects(conn: psycopg.Connection[Any]) -> Counter[int]:
    return Counter(row[0] for row in conn.execute("SELECT job_id FROM effects").fetchall())


def test_what_a_killed_worker_had_completed_is_kept_and_the_rest_goes_on(
    dsn: str, client: awa.Client, conn: psycopg.Connection[Any]
) -> None:
    conn.execute("CREATE TABLE effects (job_id int8, run_lease int4)")
    ids = client.enqueue_many([{"n": n} for n in range(1500)], kind="effect")
    with worker_process(dsn, gate=700) as process:
        assert process.stdout is not None
        blocked = {process.stdout.readline() for _ in range(4)}  # every thread stands in the middle of a job
        assert all(line.startswith("blocked ") for line in blocked)
        completed_before = wait_for(lambda: _complete_as_effects(client, conn))
        process.kill()
        process.wait()
    wait_for(lambda: _backends(conn) == 0, what="the end of the dead worker's backends")

    counts = client.queue_counts("default")
    assert counts.completed == completed_before == 700
    assert counts.running >= 4  # claimed and not ended: they stay so until silence has proved their runtime dead
    assert counts.completed + counts.running + counts.available == 1500
    stuck = {row[0] for row in conn.execute("SELECT job_id FROM awa.jobs WHERE state = 'running'").fetchall()}
    assert not stuck & set(_effects(conn))

    with worker_process(dsn, NEVER):
        wait_for_counts(client, "default", completed=1500)
    effects = _effects(conn)
    assert set(effects) == set(ids)
    assert set(effects.values()) == {1}
    assert handed_out_twice(dsn) == []
    leases = dict(conn.execute("SELECT job_id, run_lease FROM awa.jobs").fetchall())
    assert all(leases[job_id] == (2 if job_id in stuck else 1) for job_id in ids)


def test_workers_killed_at_any_moment_lose_and_repeat_no_completed_job(
    dsn: str, client: awa.Client, conn: psycopg.Connection[Any]
) -> None:
    conn.execute("CREATE TABLE effects (job_id int8, run_lease int4)")
    stop = threading.Event()
    ids: list[int] = []

    def produce() -> None:
        while not stop.is_set():
            ids.extend(client.enqueue_many([{"n": 0}] * 20, kind="effect"))
            stop.wait(0.005)

    producer = threading.Thread(target=produce)
    producer.start()
    ended: set[int] = set()
    try:
        for _ in range(3):
            with worker_process(dsn, NEVER) as process:
                floor = len(ended) + 150
                wait_for(lambda floor=floor: client.queue_counts("default").completed > floor)  # type: ignore[misc]
                process.kill()  # while it claims, runs and flushes
            now_ended = {row[0] for row in conn.execute("SELECT job_id FROM awa.jobs WHERE state = 'completed'").fetchall()}
            assert ended <= now_ended, "a completed job is not completed any more"
            ended = now_ended
    finally:
        stop.set()
        producer.join()
    wait_for(lambda: _backends(conn) == 0)
    with worker_process(dsn, NEVER):
        wait_for_counts(client, "default", completed=len(ids))
    completed = {row[0] for row in conn.execute("SELECT job_id FROM awa.jobs WHERE state = 'completed'").fetchall()}
    assert completed == set(ids) == set(_effects(conn))
    twice = conn.execute("SELECT job_id, run_lease FROM effects GROUP BY 1, 2 HAVING count(*) > 1").fetchall()
    assert twice == []
    assert handed_out_twice(dsn) == []


def _complete_as_effects(client: awa.Client, conn: psycopg.Connection[Any]) -> int:
    """How many are completed, once that is all that have had their effect."""
    completed = client.queue_counts("default").completed
    return completed if completed == len(_effects(conn)) else 0


def _backends(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name IN ('awa dispatcher', 'awa completer', 'awa maintainer', 'effects')"
    ).fetchone()
    assert row is not None
    return int(row[0])
