"""What a handler says is what its job becomes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import awa
from awa import events
from awa.errors import JobUnsuccessful, WaitTimeout
from awa.postgres import Connection
from awa.worker import dispatcher
from tests.waiting import PATIENCE, wait_for
from tests.worker.support import job_in_state, wait_for_counts


@pytest.fixture
def seen() -> Iterator[list[events.JobEvent]]:
    """Every event of the test."""
    found: list[events.JobEvent] = []
    with events.subscribe(found.append):
        yield found


def run(client: awa.Client, dsn: str, *ids: int, state: str, **settings: Any) -> list[awa.Job]:
    """Let a worker bring these jobs to a state."""
    with awa.Worker({"default": 2}, dsn=dsn, promote_every=0.01, **settings):
        return [job_in_state(client, job_id, state) for job_id in ids]


@pytest.mark.parametrize("raised", [True, False], ids=["raised", "returned"])
@pytest.mark.parametrize(
    ("outcome", "state", "attempt", "types", "event"),
    [
        (awa.Snooze(600), "scheduled", 0, [], events.JobSnoozed),
        (awa.Retry(after=600, reason="later"), "retryable", 1, ["Retry"], events.JobRetried),
        (awa.Cancel("unwanted"), "cancelled", 1, ["Cancel"], events.JobCancelled),
        (awa.Fail("hopeless"), "dead_lettered", 1, ["Fail"], events.JobFailed),
    ],
)
def test_an_outcome_may_be_raised_or_returned(
    dsn: str,
    client: awa.Client,
    seen: list[events.JobEvent],
    outcome: Exception,
    state: str,
    attempt: int,
    types: list[str],
    event: type[events.JobEvent],
    raised: bool,
) -> None:
    @awa.task
    def say() -> object:
        if raised:
            raise outcome
        return outcome

    (job,) = run(client, dsn, client.enqueue(say), state=state)
    assert (job.attempt, [error["type"] for error in job.errors]) == (attempt, types)
    assert [type(e) for e in seen] == [events.JobStarted, event]


def test_an_error_keeps_its_traceback_and_runtime_and_none_of_the_workers_frames(dsn: str, client: awa.Client) -> None:
    def helper() -> None:
        raise LookupError("deep down")

    @awa.task(max_attempts=1)
    def fails() -> None:
        helper()

    (job,) = run(client, dsn, client.enqueue(fails), state="dead_lettered")
    (error,) = job.errors
    assert error["type"], error["message"] == ("LookupError", "deep down")
    assert "in fails" in error["traceback"]
    assert "in helper" in error["traceback"]
    assert "raise LookupError" in error["traceback"]
    assert "executor" not in error["traceback"]
    assert 0 <= error["runtime"] < 10


def test_a_policy_by_exception_decides_whether_there_is_another_try(dsn: str, client: awa.Client) -> None:
    @awa.task(retry=[0.01], retry_for={LookupError: False, KeyError: [0.02]})
    def fails(kind: str) -> None:
        if awa.current_job().attempt == 1 or kind == "index":
            raise {"value": ValueError, "key": KeyError, "index": IndexError}[kind]("no")

    value, key, index = (client.enqueue(fails, {"kind": kind}) for kind in ("value", "key", "index"))
    run(client, dsn, value, key, state="completed")
    job = job_in_state(client, index, "dead_lettered")
    assert (job.attempt, job.max_attempts) == (1, 25)


def test_a_policy_that_fails_itself_loses_no_job(dsn: str, client: awa.Client) -> None:
    @awa.task(retry=lambda attempt, error: 1 / 0)
    def fails() -> None:
        raise ValueError("no")

    (job,) = run(client, dsn, client.enqueue(fails), state="retryable")
    assert 0.5 < (job.run_at - job.created_at).total_seconds() < 30


def test_dead_letters_are_switched_off_by_the_task_and_by_the_queue_and_the_task_wins(dsn: str, client: awa.Client) -> None:
    @awa.task(dead_letter=False)
    def quiet() -> None:
        raise awa.Fail

    @awa.task(dead_letter=True)
    def loud() -> None:
        raise awa.Fail

    @awa.task
    def plain() -> None:
        raise awa.Fail

    client.set_dead_letter("default", False)
    ids = [client.enqueue(task) for task in (quiet, loud, plain)]
    run(client, dsn, ids[0], ids[2], state="failed")
    job_in_state(client, ids[1], "dead_lettered")
    counts = client.queue_counts("default")
    assert (counts.failed, counts.dead_lettered) == (2, 1)


def test_a_result_is_stored_when_its_task_says_so(dsn: str, client: awa.Client, seen: list[events.JobEvent]) -> None:
    @awa.task(result=True)
    def add(a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}

    @awa.task
    def ignored() -> object:
        return object()

    @awa.task(result=True, max_attempts=1)
    def no_json() -> object:
        return object()

    @awa.task(result=True)
    def nothing() -> None: ...

    ids = [client.enqueue(add, {"a": 1, "b": 2}), client.enqueue(ignored), client.enqueue(nothing)]
    bad = client.enqueue(no_json)
    with pytest.raises(WaitTimeout, match="is available"):
        client.result(ids[0], timeout=0)
    with awa.Worker({"default": 1}, dsn=dsn):
        assert [client.result(job_id, timeout=PATIENCE) for job_id in ids] == [{"sum": 3}, None, None]
        with pytest.raises(JobUnsuccessful, match="object is not JSON") as failed:
            client.result(bad, timeout=PATIENCE)
    assert failed.value.job.id == bad
    assert sum(isinstance(e, events.JobCompleted) for e in seen) == 3


def test_follow_up_jobs_come_with_success_and_only_then(dsn: str, client: awa.Client) -> None:
    @awa.task
    def child(of: str) -> None: ...

    @awa.task(max_attempts=1)
    def parent(name: str, fail: bool) -> None:
        ctx = awa.current_job()
        ctx.enqueue(child, {"of": name}, queue="children")
        with pytest.raises(awa.InvalidJob, match="priority"):
            ctx.enqueue(child, {"of": name}, priority=9)
        if fail:
            raise ValueError("no")

    good, bad = (client.enqueue(parent, {"name": str(fail), "fail": fail}) for fail in (False, True))
    run(client, dsn, good, state="completed")
    job_in_state(client, bad, "dead_lettered")
    assert client.queue_counts("children").available == 1


def test_a_transaction_of_the_handler_commits_its_writes_with_the_completion(
    dsn: str, client: awa.Client, conn: Connection
) -> None:
    conn.execute("CREATE TABLE business (job_id int8)")

    @awa.task
    def child() -> None: ...

    @awa.task(max_attempts=1)
    def work(ctx: awa.JobContext, fail: bool) -> None:
        ctx.enqueue(child, queue="children")
        with ctx.transaction() as own:
            own.execute("INSERT INTO business VALUES (%s)", (ctx.id,))
            if fail:
                raise ValueError("before the end")
        if not fail:
            raise ValueError("after it: the job has completed")

    good, bad = (client.enqueue(work, {"fail": fail}) for fail in (False, True))
    run(client, dsn, good, state="completed")
    job_in_state(client, bad, "dead_lettered")
    assert conn.execute("SELECT job_id FROM business").fetchall() == [(good,)]
    assert client.queue_counts("children").available == 1


def test_a_transaction_whose_job_was_cancelled_writes_nothing(dsn: str, client: awa.Client, conn: Connection) -> None:
    conn.execute("CREATE TABLE business (job_id int8)")
    inside, go_on = threading.Event(), threading.Event()
    lost: list[BaseException] = []

    @awa.task
    def work(ctx: awa.JobContext) -> None:
        try:
            with ctx.transaction() as own:
                own.execute("INSERT INTO business VALUES (%s)", (ctx.id,))
                inside.set()
                go_on.wait(PATIENCE)
        except BaseException as error:
            lost.append(error)
            raise

    job_id = client.enqueue(work)
    with awa.Worker({"default": 1}, dsn=dsn):
        assert inside.wait(PATIENCE)
        assert client.cancel(job_id)
        go_on.set()
        wait_for(lambda: lost, what="the handler's end")
    assert type(lost[0]).__name__ in ("AttemptLost", "JobCancelled")
    assert conn.execute("SELECT count(*) FROM business").fetchall() == [(0,)]
    assert job_in_state(client, job_id, "cancelled").attempt == 1


def test_progress_and_checkpoints_are_seen_and_survive_a_retry(dsn: str, client: awa.Client) -> None:
    found: list[object] = []

    @awa.task(retry=[0.01])
    def work(ctx: awa.JobContext) -> None:
        found.append(ctx.last_checkpoint)
        if ctx.attempt == 1:
            ctx.progress(40, "almost half")
            ctx.checkpoint({"line": 7})
            raise ValueError("no")

    (job,) = run(client, dsn, client.enqueue(work), state="completed")
    assert found == [None, {"line": 7}]
    assert job.progress is not None
    assert (job.progress["percent"], job.progress["message"], job.checkpoint) == (40, "almost half", {"line": 7})
    assert (job.attempt, job.run_lease) == (2, 2)


@pytest.mark.parametrize("by", ["callback", "job"])
@pytest.mark.parametrize("how", ["complete", "fail", "give up", "retry"])
def test_a_parked_job_frees_its_thread_and_is_ended_from_outside(dsn: str, client: awa.Client, by: str, how: str) -> None:
    callbacks: list[str] = []

    @awa.task
    def wait(ctx: awa.JobContext) -> None:
        if ctx.run_lease > 1:
            return
        callbacks.append(ctx.register_callback())
        ctx.wait_for_callback(timeout=600)

    job_id = client.enqueue(wait)
    with awa.Worker({"default": 1}, dsn=dsn) as worker:
        job_in_state(client, job_id, "waiting")
        wait_for(lambda: worker.stats().running == 0, what="a free thread")
        assert client.queue_counts("default").waiting == 1
        name = callbacks[0] if by == "callback" else job_id
        if how == "complete":
            assert client.complete_external(name, {"paid": 1})
            assert client.result(job_id, timeout=0) == {"paid": 1}
        elif how == "fail":
            assert client.fail_external(name, "card refused")
            assert [e["message"] for e in job_in_state(client, job_id, "retryable").errors] == ["card refused"]
        elif how == "give up":
            assert client.fail_external(name, "card refused", retry=False)
            job_in_state(client, job_id, "dead_lettered")
        else:
            assert client.retry_external(name)
            assert job_in_state(client, job_id, "completed").attempt == 1
        assert not client.complete_external(callbacks[0], None)
        assert not client.complete_external(callbacks[0][:-1] + "x", None)


def test_a_coroutine_that_runs_too_long_is_cancelled_and_counts(dsn: str, client: awa.Client) -> None:
    import asyncio

    @awa.task(timeout=0.1, max_attempts=1)
    async def forever() -> None:
        await asyncio.Event().wait()

    (job,) = run(client, dsn, client.enqueue(forever), state="dead_lettered")
    assert [error["type"] for error in job.errors] == ["JobTimeout"]


def test_a_handler_that_runs_too_long_is_interrupted_and_the_next_job_is_not(dsn: str, client: awa.Client) -> None:
    @awa.task(retry=[0.01])
    def spin(ctx: awa.JobContext, forever: bool) -> None:
        event = threading.Event()
        while forever and ctx.attempt == 1:
            event.wait(0.001)

    ids = [client.enqueue(spin, {"forever": n % 2 == 0}) for n in range(20)]
    jobs = run(client, dsn, *ids, state="completed", timeouts={"default": 0.15})
    assert [job.attempt for job in jobs] == [2, 1] * 10
    assert {error["type"] for job in jobs for error in job.errors} == {"JobTimeout"}


def test_a_job_that_could_not_run_for_its_time_before_its_claim_s_deadline_goes_back_at_once(
    dsn: str, client: awa.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    @awa.task(timeout=500)
    def work() -> None: ...

    monkeypatch.setattr(dispatcher, "DEADLINE_SLACK", -11.0)  # the claim's deadline falls into every attempt's time
    job_id = client.enqueue(work)
    with awa.Worker({"default": 1}, dsn=dsn, tasks=[work]) as worker:
        wait_for(lambda: worker.stats().failed > 0, what="a job put back")
    job = client.get_job(job_id)
    assert job is not None
    assert (job.state, job.attempt, job.errors) == ("available", 0, ())


def test_a_cancelled_handler_is_told_within_a_second_and_its_ending_is_refused(dsn: str, client: awa.Client) -> None:
    import time

    started = threading.Event()
    told: list[float] = []

    @awa.task
    def work(ctx: awa.JobContext) -> None:
        started.set()
        try:
            while True:
                threading.Event().wait(0.005)
        finally:
            told.append(time.monotonic())
            assert ctx.cancelled

    job_id = client.enqueue(work)
    with awa.Worker({"default": 1}, dsn=dsn) as worker:
        assert started.wait(PATIENCE)
        before = time.monotonic()
        assert client.cancel(job_id)
        wait_for(lambda: told, what="the handler's end")
        assert told[0] - before < 1.0
        wait_for(lambda: worker.stats().running == 0)
        assert not client.cancel(job_id)
    assert job_in_state(client, job_id, "cancelled").attempt == 1
    assert worker.stats().refused == 0  # it sent none


def test_a_cancel_is_noticed_without_notifications(dsn: str, client: awa.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("awa.notify.CANCEL_CHANNEL", "awa_nobody_speaks_here")
    started, told = threading.Event(), threading.Event()

    @awa.task
    def work() -> None:
        started.set()
        try:
            while True:
                threading.Event().wait(0.005)
        finally:
            told.set()

    job_id = client.enqueue(work)
    with awa.Worker({"default": 1}, dsn=dsn):
        assert started.wait(PATIENCE)
        assert client.cancel(job_id)
        assert told.wait(5)


def test_a_worker_that_was_declared_dead_goes_on_as_somebody_else(dsn: str, client: awa.Client, conn: Connection) -> None:
    started, go_on = threading.Event(), threading.Event()
    ran: list[tuple[int, int]] = []

    @awa.task
    def work(ctx: awa.JobContext) -> None:
        ran.append((ctx.id, ctx.run_lease))
        if ctx.run_lease == 1 and len(ran) == 1:
            started.set()
            go_on.wait(PATIENCE)

    first = client.enqueue(work)
    # Two threads: it is by a claim that a worker learns of its death, and it claims nothing while all of them are busy.
    with awa.Worker({"default": 2}, dsn=dsn) as worker:
        assert started.wait(PATIENCE)
        before = worker.runtime_id
        conn.execute(
            "SELECT awa.declare_dead(supervisor_id, ARRAY[pid]) FROM awa.runtime_instances WHERE runtime_id = %s", (before,)
        )
        wait_for(lambda: worker.runtime_id != before, what="another identity")
        second = client.enqueue(work)
        go_on.set()
        wait_for_counts(client, "default", completed=2)
    assert sorted(ran) == [(first, 1), (first, 2), (second, 1)]
    job = client.get_job(first)
    assert job is not None
    assert [error["type"] for error in job.errors] == ["WorkerDied"]


def test_a_job_past_the_deadline_of_its_claim_is_not_started(dsn: str, client: awa.Client) -> None:
    started: list[int] = []
    blocked, go_on = threading.Event(), threading.Event()

    @awa.task(timeout=0.4)
    def work(n: int) -> None:
        started.append(n)
        if n == 0:
            blocked.set()
            go_on.wait(PATIENCE)

    client.enqueue_many([{"n": n} for n in range(3)], kind=work)
    with awa.Worker({"default": 2}, dsn=dsn) as worker:
        assert blocked.wait(PATIENCE)
        go_on.set()
        wait_for_counts(client, "default", completed=3)
    assert sorted(set(started)) == [0, 1, 2]
    assert worker.stats().refused == 0


def test_drain_runs_until_the_queues_are_empty_and_leaves_what_is_due_later(dsn: str, client: awa.Client) -> None:
    from datetime import UTC, datetime, timedelta

    @awa.task
    def work(n: int) -> None: ...

    client.enqueue_many([{"n": n} for n in range(500)], kind=work)
    later = client.enqueue(work, {"n": -1}, run_at=datetime.now(UTC) + timedelta(hours=1))
    assert awa.Worker({"default": 2}, dsn=dsn, drain=True).run()
    assert client.queue_counts("default").completed == 500
    job_in_state(client, later, "scheduled")


def test_a_process_that_has_run_its_number_of_jobs_wants_to_be_replaced(dsn: str, client: awa.Client) -> None:
    @awa.task
    def work(n: int) -> None: ...

    client.enqueue_many([{"n": n} for n in range(50)], kind=work)
    worker = awa.Worker({"default": 2}, dsn=dsn, max_jobs=20)
    assert worker.run()
    assert worker.wants_recycling
    assert client.queue_counts("default").running == 0


def test_a_process_that_has_grown_too_large_wants_to_be_replaced(dsn: str) -> None:
    worker = awa.Worker({"default": 1}, dsn=dsn, tasks=[], max_memory=1.0)
    assert worker.run()
    assert worker.wants_recycling


def test_a_second_request_to_stop_ends_the_wait(dsn: str, client: awa.Client) -> None:
    started, go_on = threading.Event(), threading.Event()

    @awa.task
    def work() -> None:
        started.set()
        go_on.wait(PATIENCE)

    job_id = client.enqueue(work)
    worker = awa.Worker({"default": 1}, dsn=dsn, stop_timeout=600.0)
    clean: list[bool] = []
    thread = threading.Thread(target=lambda: clean.append(worker.run()))
    thread.start()
    assert started.wait(PATIENCE)
    worker.request_stop()
    worker.request_stop()
    thread.join(PATIENCE)
    go_on.set()
    assert clean == [False]
    job = job_in_state(client, job_id, "available")
    assert (job.attempt, job.run_lease) == (0, 1)
