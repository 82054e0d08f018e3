"""Stopping: what runs may finish, what waits goes back, and nothing stays claimed."""

from __future__ import annotations

import threading

import awa
from tests.waiting import PATIENCE, wait_for
from tests.worker.support import handed_out_twice, job_in_state, wait_for_counts


def test_a_running_job_finishes_and_what_waits_goes_back_uncounted(dsn: str, client: awa.Client) -> None:
    blocked, go_on = threading.Event(), threading.Event()
    ran: list[int] = []

    @awa.task
    def work(n: int) -> None:
        if n == 600:
            blocked.set()
            assert go_on.wait(PATIENCE)
        ran.append(n)

    ids = client.enqueue_many([{"n": n} for n in range(2000)], kind=work)
    # The first jobs teach the worker that the handler is fast, so it holds hundreds when one of them blocks.
    worker = awa.Worker({"default": 1}, dsn=dsn, prefetch_span=10.0)
    worker.start()
    assert blocked.wait(PATIENCE)
    wait_for(lambda: worker.stats().waiting > 0, what="jobs in the buffer")
    finished: list[bool] = []
    stopping = threading.Thread(target=lambda: finished.append(worker.stop()))
    stopping.start()
    wait_for(lambda: worker.stats().waiting == 0, what="the buffer given back")
    assert stopping.is_alive()
    go_on.set()
    stopping.join(PATIENCE)
    assert finished == [True]

    counts = client.queue_counts("default")
    assert (counts.running, counts.completed, counts.available) == (0, len(ran), 2000 - len(ran))
    assert 600 in ran
    assert job_in_state(client, ids[600], "completed").attempt == 1
    returned = [
        job for job_id in ids[601:] if (job := client.get_job(job_id)) and job.run_lease == 1 and job.state == "available"
    ]
    assert returned
    assert {job.attempt for job in returned} == {0}

    with awa.Worker({"default": 2}, dsn=dsn):
        wait_for_counts(client, "default", completed=2000)
    assert sorted(ran) == list(range(2000))
    assert handed_out_twice(dsn) == []


def test_stopping_under_load_leaves_nothing_running(dsn: str, client: awa.Client) -> None:
    ran: list[int] = []

    @awa.task
    def work(n: int) -> None:
        ran.append(n)

    client.enqueue_many_copy(({"n": n} for n in range(12_000)), kind=work)
    for _ in range(8):
        enough = min(len(ran) + 300, 12_000)  # a fast machine may have run them all before the last round
        worker = awa.Worker({"default": 4}, dsn=dsn, prefetch_span=1.0)
        worker.start()
        wait_for(lambda enough=enough: len(ran) >= enough)  # type: ignore[misc]
        assert worker.stop()
        stats = worker.stats()
        assert (stats.waiting, stats.running, stats.refused) == (0, 0, 0)
        counts = client.queue_counts("default")
        assert (counts.running, counts.completed) == (0, len(ran))
    with awa.Worker({"default": 4}, dsn=dsn):
        wait_for_counts(client, "default", completed=12_000)
    assert sorted(ran) == list(range(12_000))


def test_what_outlasts_the_timeout_is_given_back_and_its_late_ending_changes_nothing(dsn: str, client: awa.Client) -> None:
    entered, go_on, left = threading.Semaphore(0), threading.Event(), threading.Semaphore(0)
    attempts: list[int] = []

    @awa.task
    def slow() -> None:
        attempts.append(awa.current_job().attempt)
        entered.release()
        assert go_on.wait(PATIENCE)
        left.release()

    job_id = slow.options(client=client).enqueue()
    first = awa.Worker({"default": 1}, dsn=dsn)
    first.start()
    try:
        assert entered.acquire(timeout=PATIENCE)
        assert first.stop(timeout=0.05) is False
        job = job_in_state(client, job_id, "available")
        assert (job.attempt, job.run_lease) == (0, 1)
        with awa.Worker({"default": 1}, dsn=dsn):
            assert entered.acquire(timeout=PATIENCE)  # both run it now, and each has its own lease
            go_on.set()
            job = job_in_state(client, job_id, "completed")
            assert left.acquire(timeout=PATIENCE)
            assert left.acquire(timeout=PATIENCE)
    finally:
        go_on.set()
    assert (job.attempt, job.run_lease, attempts) == (1, 2, [1, 1])
    assert client.queue_counts("default").completed == 1
    assert handed_out_twice(dsn) == []


def test_stop_before_start_and_twice_is_harmless(dsn: str, client: awa.Client) -> None:
    worker = awa.Worker({"default": 1}, dsn=dsn)
    assert worker.stop()
    worker.start()
    assert worker.wait_until_ready(PATIENCE)
    assert worker.stop()
    assert worker.stop()
    assert client.list_queues() == []
