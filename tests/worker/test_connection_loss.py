"""The database ends the worker's connections, again and again; no job is lost and none ends twice."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

import awa
from awa.claim import Claim
from awa.postgres import connect
from awa.storage.claim import claim_jobs, random_id
from awa.storage.complete import Ending, finalize_attempts, not_accepted
from tests.waiting import PATIENCE, wait_for
from tests.worker.support import handed_out_twice, job_in_state, terminate, wait_for_counts

BACKENDS = ("awa dispatcher", "awa completer", "awa maintainer")


def test_a_worker_survives_the_loss_of_all_its_connections_under_load(
    dsn: str, client: awa.Client, conn: psycopg.Connection[Any]
) -> None:
    ran: list[int] = []

    @awa.task
    def note(n: int) -> None:
        ran.append(n)

    lost = 0
    with awa.Worker({"default": 4}, dsn=dsn) as worker:
        for start in range(0, 6000, 500):
            client.enqueue_many([{"n": n} for n in range(start, start + 500)], kind=note)
            wait_for(lambda start=start: len(ran) > start)  # type: ignore[misc]
            lost += terminate(conn, BACKENDS)
        # One more while everything is quiet, then work for the new connections.
        wait_for_counts(client, "default", completed=6000, running=0)
        terminate(conn, BACKENDS)
        job_in_state(client, client.enqueue(note, {"n": 6000}), "completed")
        wait_for(lambda: worker.stats().claimed == 6001)
    assert lost >= 12
    assert sorted(ran) == list(range(6001))
    assert client.queue_counts("default").completed == 6001
    assert handed_out_twice(dsn) == []


def test_an_idle_worker_connects_again_at_once(dsn: str, client: awa.Client, conn: psycopg.Connection[Any]) -> None:
    @awa.task
    def note() -> None: ...

    # Nothing is due for ten minutes, so only the lost connection itself can say that it is lost.
    with awa.Worker({"default": 1}, dsn=dsn, claim_spacing=600, poll_every=600) as worker:
        dispatcher = worker._dispatcher
        for n in range(1, 4):
            assert worker.wait_until_ready(PATIENCE)
            before = wait_for(lambda: dispatcher._conn)
            assert before is not None
            wait_for(lambda n=n: dispatcher.claims >= n, what="a claim on this connection")  # type: ignore[misc]
            assert terminate(conn, BACKENDS) > 0
            wait_for(lambda old=before: dispatcher._conn not in (None, old), what="a new connection")  # type: ignore[misc]
        client.enqueue(note)
        wait_for_counts(client, "default", completed=1)


def test_a_claim_whose_answer_is_lost_strands_no_job(dsn: str, client: awa.Client, conn: psycopg.Connection[Any]) -> None:
    @awa.task
    def quick() -> None: ...

    jobs = 30_000
    client.enqueue_many_copy([{}] * jobs, kind=quick)
    hits = 0
    with awa.Worker({"default": 2}, dsn=dsn, claim_limit=300) as worker:

        def hit() -> bool:
            nonlocal hits
            hits += len(
                conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND application_name = 'awa dispatcher' AND state = 'active' AND query LIKE '%claim_jobs%'"
                ).fetchall()
            )
            return hits >= 8 or client.queue_counts("default").unfinished == 0

        wait_for(hit)
        wait_for_counts(client, "default", completed=jobs, running=0)
        assert worker.stats().completed == jobs
    assert hits > 0, "no backend was met while it claimed"
    assert handed_out_twice(dsn) == []


def test_a_claim_that_was_committed_unanswered_is_found_again(
    dsn: str, client: awa.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[int] = []
    lost: list[int] = []

    @awa.task
    def note(n: int) -> None:
        ran.append(n)

    def claim_and_lose_the_first_answer(*args: Any) -> Any:
        rows = claim_jobs(*args)
        if rows and not lost:
            lost.append(len(rows))
            raise psycopg.OperationalError("the answer was lost")
        return rows

    monkeypatch.setattr("awa.worker.dispatcher.claim_jobs", claim_and_lose_the_first_answer)
    client.enqueue_many([{"n": n} for n in range(10)], kind=note)
    with awa.Worker({"default": 2}, dsn=dsn) as worker:
        wait_for_counts(client, "default", completed=10, running=0)
        assert worker.stats().claimed == 10
    assert lost[0] > 0
    assert f"{lost[0]} jobs of queue 'default' were claimed by a call whose answer was lost" in caplog.text
    assert sorted(ran) == list(range(10))
    assert handed_out_twice(dsn) == []


def test_an_ending_that_comes_too_late_is_refused_and_counted(
    dsn: str, client: awa.Client, conn: psycopg.Connection[Any]
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    @awa.task
    def slow() -> None:
        entered.set()
        assert go_on.wait(PATIENCE)

    job_id = slow.options(client=client).enqueue()
    with awa.Worker({"default": 1}, dsn=dsn) as worker:
        assert entered.wait(PATIENCE)
        client.pause_queue("default")
        row = conn.execute("SELECT claim_slot, claim_id, token FROM awa.lease_claim_batches").fetchone()
        assert row is not None
        taken_away = Ending(Claim(row[0], row[1], row[2], "default", 2, 0), 1, "released")
        assert not_accepted(finalize_attempts(conn, worker.runtime_id, random_id(), [taken_away])) == []
        go_on.set()
        wait_for(lambda: worker.stats().refused == 1)
        assert (worker.stats().completed, worker.stats().failed) == (0, 0)
        assert job_in_state(client, job_id, "available").attempt == 0
    assert client.queue_counts("default").completed == 0


def test_a_worker_waits_for_a_database_that_is_away(dsn: str, client: awa.Client, conn: psycopg.Connection[Any]) -> None:
    @awa.task
    def note() -> None: ...

    name = conn.execute("SELECT current_database()").fetchone()
    assert name is not None
    with awa.Worker({"default": 1}, dsn=dsn) as worker:
        assert worker.wait_until_ready(PATIENCE)
        job_in_state(client, client.enqueue(note), "completed")
        with connect(dsn, "awa test", connect_timeout=5) as keeper:
            maintenance = psycopg.conninfo.make_conninfo(dsn, dbname="postgres")
            with psycopg.connect(maintenance, autocommit=True) as door:
                door.execute(f'ALTER DATABASE "{name[0]}" ALLOW_CONNECTIONS false')
                terminate(keeper, BACKENDS)
                wait_for(lambda: not worker._dispatcher.connected.is_set(), what="the dispatcher's retries")
                door.execute(f'ALTER DATABASE "{name[0]}" ALLOW_CONNECTIONS true')
        job_in_state(client, client.enqueue(note), "completed")
