"""drain(client=...): the jobs of a database are claimed and ended by the engine, in the test's own thread."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import awa
from awa import events
from awa.client import set_default_client
from awa.errors import AwaError, ConfigurationError
from awa.job import NewJob
from awa.postgres import connect
from awa.testing import Clock, drain
from awa.testing.attempts import UnknownKind
from tests.sql.engine import RUNTIME, claim, register
from tests.testing.support import Ledger

Tasks = dict[str, awa.Task[..., Any, Any]]


def test_jobs_run_in_the_calling_thread_and_in_order(client: awa.Client, ledger: Ledger) -> None:
    @awa.task(queue="q")
    def note(n: int) -> None:
        ledger.lines.append((n, threading.get_ident()))

    client.enqueue_many([{"n": n} for n in range(5)], kind=note)
    done = drain(client=client)
    assert ledger.lines == [(n, threading.get_ident()) for n in range(5)]
    assert (done.total, done.completed, str(done)) == (5, 5, "5 attempts: 5 completed")
    assert client.queue_counts("q").completed == 5


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("retry", "retryable"),
        ("snooze", "scheduled"),
        ("cancel", "cancelled"),
        ("fail", "dead_lettered"),
        ("fail_quietly", "failed"),
        ("wait", "waiting"),
    ],
)
def test_an_outcome_ends_the_job_as_in_a_worker(client: awa.Client, tasks: Tasks, kind: str, state: str) -> None:
    job_id = client.enqueue(tasks[kind])
    done = drain(client=client)
    job = client.get_job(job_id)
    assert job is not None
    assert job.state == state
    assert [(ran.id, ran.kind, ran.state) for ran in done.jobs] == [(job_id, kind, state)]
    assert sum([done.retryable, done.scheduled, done.cancelled, done.failed, done.waiting]) == done.total == 1


def test_a_handlers_exception_is_recorded_and_then_raised(client: awa.Client, tasks: Tasks, ledger: Ledger) -> None:
    first, second = client.enqueue_many([{"n": 1}, {"n": 2}], kind=tasks["boom"])
    with pytest.raises(ValueError, match="boom"):
        drain(client=client)
    job, untouched = client.get_job(first), client.get_job(second)
    assert job is not None
    assert untouched is not None
    assert (job.state, job.attempt, job.errors[0]["type"]) == ("retryable", 1, "ValueError")
    assert "awa/testing" not in job.errors[0]["traceback"]
    assert (untouched.state, untouched.run_lease) == ("available", 0)
    assert ledger.lines == ["boom 1"]


def test_exceptions_are_collected_where_they_are_not_to_be_raised(client: awa.Client, tasks: Tasks) -> None:
    client.enqueue_many([{"n": 1}, {"n": 2}], kind=tasks["boom"])
    done = drain(client=client, raises=False)
    assert [str(error) for error in done.errors] == ["boom", "boom"]
    assert done.retryable == 2


def test_retries_run_when_the_clock_says_so_until_the_last(client: awa.Client, tasks: Tasks) -> None:
    job_id = client.enqueue(tasks["boom"])
    with Clock() as clock:
        assert drain(client=client, raises=False).retryable == 1
        assert drain(client=client).total == 0
        clock.move(seconds=61)
        assert drain(client=client, raises=False).failed == 1
    job = client.get_job(job_id)
    assert job is not None
    assert (job.state, job.attempt) == ("dead_lettered", 2)


def test_a_delay_counts_from_the_moved_clock(client: awa.Client, tasks: Tasks) -> None:
    with Clock() as clock:
        clock.move(hours=5)
        client.enqueue(tasks["boom"])
        client.enqueue(tasks["snooze"])
        assert drain(client=client, raises=False).total == 2
        assert drain(client=client).total == 0, "60 and 300 seconds of the moved clock have not passed"
        clock.move(seconds=301)
        assert drain(client=client, raises=False).total == 2


def test_scheduled_jobs_wait_unless_they_are_wanted(client: awa.Client, tasks: Tasks, ledger: Ledger) -> None:
    with Clock() as clock:
        tasks["work"].options(client=client, run_at=clock.now().replace(year=2090)).enqueue(n=1)
    assert drain(client=client).total == 0
    assert drain(client=client, with_scheduled=True).completed == 1
    assert ledger.lines == [1]


def test_with_scheduled_runs_what_is_put_off_meanwhile_only_next_time(client: awa.Client, tasks: Tasks) -> None:
    client.enqueue(tasks["snooze"])
    assert drain(client=client, with_scheduled=True).total == 1
    assert drain(client=client, with_scheduled=True).total == 1


def test_jobs_enqueued_by_handlers_run_too(client: awa.Client, tasks: Tasks, ledger: Ledger) -> None:
    @awa.task(queue="other")
    def grandparent() -> None:
        client.enqueue(tasks["parent"], {"n": 7})

    client.enqueue(grandparent)
    assert drain(client=client).completed == 3
    assert ledger.lines == [7]


def test_a_limit_and_queues_are_kept(client: awa.Client, tasks: Tasks, ledger: Ledger) -> None:
    for n, queue in enumerate(["a", "a", "b", "c"]):
        client.enqueue(tasks["work"], {"n": n}, queue=queue)
    assert drain(client=client, queue="a", limit=1).total == 1
    assert ledger.lines == [0]
    assert drain(client=client, queue=["a", "b"]).total == 2
    assert ledger.lines == [0, 1, 2]
    assert client.queue_counts("c").available == 1


def test_a_partitioned_queue_is_drained_whole(client: awa.Client, tasks: Tasks, ledger: Ledger) -> None:
    email = awa.PartitionedQueue("email", 3)
    client.enqueue_many([{"n": n} for n in range(6)], kind=tasks["work"], queue=email)
    client.enqueue(tasks["work"], {"n": 6}, queue="other")
    client.enqueue(tasks["work"], {"n": 7}, queue="rest")
    assert drain(client=client, queue=email).total == 6
    assert sorted(ledger.lines) == [0, 1, 2, 3, 4, 5]
    client.enqueue_many([{"n": n} for n in range(3)], kind=tasks["work"], queue=email)
    assert drain(client=client, queue=[email, "other"]).total == 4
    assert client.queue_counts("rest").available == 1


def test_the_most_urgent_goes_first(client: awa.Client, tasks: Tasks, ledger: Ledger) -> None:
    for n, priority in enumerate([4, 2, 1, 3]):
        client.enqueue(tasks["work"], {"n": n}, priority=priority)
    drain(client=client)
    assert ledger.lines == [2, 1, 3, 0]


def test_paused_queues_are_left_alone(client: awa.Client, tasks: Tasks) -> None:
    client.enqueue(tasks["work"], {"n": 1})
    client.pause_queue("q")
    assert drain(client=client).total == 0
    client.resume_queue("q")
    assert drain(client=client).total == 1


def test_a_cancelled_job_keeps_no_other_from_running(client: awa.Client, tasks: Tasks, ledger: Ledger) -> None:
    first = client.enqueue(tasks["work"], {"n": 1})
    client.enqueue(tasks["work"], {"n": 2})
    assert client.cancel(first)
    assert drain(client=client).completed == 1
    assert ledger.lines == [2]


def test_results_coroutines_records_and_contexts_work(client: awa.Client, tasks: Tasks) -> None:
    @awa.task(queue="q", result=True)
    async def aloud(ctx: awa.JobContext, word: str) -> list[object]:
        return [word, ctx.attempt, awa.current_job().id == ctx.id]

    added = client.enqueue(tasks["add"], {"a": 1, "b": 2})
    said = client.enqueue(aloud, {"word": "hello"})
    assert drain(client=client).completed == 2
    assert client.result(added, timeout=0) == 3
    assert client.result(said, timeout=0) == ["hello", 1, True]
    with pytest.raises(AwaError, match="no job is running here"):
        awa.current_job()


def test_a_result_that_is_no_json_is_an_error_of_the_test(client: awa.Client) -> None:
    @awa.task(queue="q", result=True)
    def odd() -> object:
        return object()

    client.enqueue(odd)
    with pytest.raises(AwaError, match="object is not JSON"):
        drain(client=client)


def test_progress_checkpoints_and_own_transactions_work(client: awa.Client, dsn: str) -> None:
    @awa.task(queue="q", retry=[0])
    def steps(ctx: awa.JobContext) -> None:
        if ctx.last_checkpoint is None:
            ctx.checkpoint({"step": 1})
            raise awa.Retry(after=0)
        ctx.progress(100, "done")

    @awa.task(queue="q")
    def write(ctx: awa.JobContext) -> None:
        with ctx.transaction() as conn:
            conn.execute("CREATE TABLE written ()")

    job_id = client.enqueue(steps)
    client.enqueue(write)
    done = drain(client=client)
    assert [job.state for job in done.jobs] == ["retryable", "completed", "completed"]
    job = client.get_job(job_id)
    assert job is not None
    assert (job.attempt, job.progress and job.progress["message"]) == (2, "done")


def test_an_unknown_kind_is_put_back_and_named(client: awa.Client) -> None:
    job_id = client.enqueue("nobody_knows", queue="q")
    with pytest.raises(UnknownKind, match="no task for kind 'nobody_knows' here"):
        drain(client=client)
    job = client.get_job(job_id)
    assert job is not None
    assert (job.state, job.attempt) == ("scheduled", 0)


def test_a_job_that_enqueues_itself_does_not_run_for_ever(client: awa.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("awa.testing.draining.MAX_ATTEMPTS", 20)

    @awa.task(queue="q")
    def again() -> None:
        client.enqueue(again)

    client.enqueue(again)
    with pytest.raises(AwaError, match="20 attempts and no end: does again enqueue itself"):
        drain(client=client)


def test_what_ends_the_test_is_not_the_jobs_fault(client: awa.Client) -> None:
    @awa.task(queue="q")
    def interrupted() -> None:
        raise KeyboardInterrupt

    job_id = client.enqueue(interrupted)
    with pytest.raises(KeyboardInterrupt):
        drain(client=client, raises=False)
    job = client.get_job(job_id)
    assert job is not None
    assert (job.state, job.attempt, job.errors) == ("available", 0, ())


def test_a_drain_leaves_no_runtime_behind(client: awa.Client, tasks: Tasks) -> None:
    before = client.list_runtimes()
    client.enqueue(tasks["boom"])
    drain(client=client, raises=False)
    assert client.list_runtimes() == before


def test_a_moved_clock_finds_workers_stale_and_runs_their_jobs(client: awa.Client, tasks: Tasks, dsn: str) -> None:
    client.enqueue(tasks["work"], {"n": 1})
    with connect(dsn, "worker") as conn:
        register(conn, RUNTIME)
        assert len(claim(conn).ids) == 1
    assert drain(client=client).total == 0
    with Clock() as clock:
        clock.move(seconds=30)
        assert drain(client=client).completed == 1


def test_a_moved_clock_ends_what_waits_too_long(client: awa.Client, tasks: Tasks) -> None:
    job_id = client.enqueue(tasks["wait"])
    with Clock() as clock:
        assert drain(client=client).waiting == 1
        clock.move(seconds=59)
        assert drain(client=client).total == 0
        clock.move(seconds=2)
        drain(client=client)
    job = client.get_job(job_id)
    assert job is not None
    assert job.errors[0]["type"] == "DeadlineExpired"


def test_events_tell_of_drained_jobs(client: awa.Client, tasks: Tasks) -> None:
    heard: list[type[events.JobEvent]] = []
    client.enqueue_many([NewJob({"n": 1}, tasks["work"]), NewJob({}, tasks["retry"])])
    with events.subscribe(lambda event: heard.append(type(event))):
        drain(client=client)
    assert heard == [events.JobStarted, events.JobCompleted, events.JobStarted, events.JobRetried]


def test_without_a_client_the_default_one_is_drained(client: awa.Client, tasks: Tasks) -> None:
    before = set_default_client(lambda: client)
    try:
        tasks["work"].enqueue(n=1)
        assert drain().completed == 1
    finally:
        set_default_client(before)


def test_nonsense_is_refused(client: awa.Client) -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        drain(client=client, connection="default")
    with pytest.raises(ConfigurationError, match="limit must be positive"):
        drain(client=client, limit=0)
