"""Jobs with a time, and queues at rest."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

import awa
from awa.storage.promote import promote_due
from tests.waiting import PATIENCE
from tests.worker.support import job_in_state, wait_for_counts


def test_a_scheduled_job_runs_after_its_time_and_not_before(dsn: str, client: awa.Client) -> None:
    ran: list[datetime] = []

    @awa.task
    def note() -> None:
        ran.append(datetime.now(UTC))

    run_at = datetime.now(UTC) + timedelta(seconds=0.5)
    job_id = note.options(client=client, run_at=run_at).enqueue()
    with awa.Worker({"default": 1}, dsn=dsn, promote_every=0.02) as worker:
        job = job_in_state(client, job_id, "completed")
        assert worker.stats().promoted == 1
    assert job.run_at == run_at
    assert job.claimed_at is not None
    assert job.claimed_at >= run_at
    assert ran[0] >= run_at


def test_many_due_jobs_are_promoted_and_run_while_the_future_waits(
    dsn: str, client: awa.Client, conn: psycopg.Connection[Any]
) -> None:
    ran: list[int] = []

    @awa.task
    def note(n: int) -> None:
        ran.append(n)

    hour = timedelta(hours=1)
    client.enqueue_many_copy([{"n": n} for n in range(2500)], kind=note, run_at=datetime.now(UTC) + hour)
    client.enqueue_many([{"n": n} for n in range(2500, 2510)], kind=note, run_at=datetime.now(UTC) + 3 * hour)
    with awa.Worker({"default": 2}, dsn=dsn) as worker:
        assert worker.wait_until_ready(PATIENCE)
        assert promote_due(conn, 5000, datetime.now(UTC) + 2 * hour) == 2500  # the clock moves on
        counts = wait_for_counts(client, "default", completed=2500)
    assert counts.scheduled == 10
    assert sorted(ran) == list(range(2500))


def test_a_paused_queue_rests_and_a_running_job_goes_on(dsn: str, client: awa.Client) -> None:
    entered, go_on = threading.Event(), threading.Event()
    ran: list[str] = []

    @awa.task
    def work(name: str) -> None:
        if name == "first":
            entered.set()
            assert go_on.wait(PATIENCE)
        ran.append(name)

    with awa.Worker({"busy": 2, "other": 1}, dsn=dsn, poll_every=600) as worker:
        assert worker.wait_until_ready(PATIENCE)
        work.options(client=client, queue="busy").enqueue("first")
        assert entered.wait(PATIENCE)
        client.pause_queue("busy")
        waiting = work.options(client=client, queue="busy").enqueue("second")
        work.options(client=client, queue="other").enqueue("elsewhere")
        wait_for_counts(client, "other", completed=1)
        go_on.set()
        counts = wait_for_counts(client, "busy", completed=1)
        assert (counts.paused, counts.available) == (True, 1)
        assert ran == ["elsewhere", "first"]
        client.resume_queue("busy")
        job_in_state(client, waiting, "completed")
    assert ran == ["elsewhere", "first", "second"]
