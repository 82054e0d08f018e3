"""The backend for django.tasks, which Django has since 6.0."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.core.checks import run_checks
from django.db import transaction
from django.test import override_settings

import awa
from tests.contrib.django import project
from tests.contrib.django.shop.models import Order
from tests.waiting import wait_for
from tests.worker.support import wait_for_counts

if not project.HAS_TASKS:
    pytest.skip("this Django has no django.tasks", allow_module_level=True)

from django.tasks import TaskResult, TaskResultStatus, default_task_backend, task_backends
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist, TaskResultMismatch
from django.tasks.signals import task_enqueued, task_finished, task_started

from awa.contrib.django.tasks import AwaBackend
from tests.contrib.django.shop import django_tasks as tasks

pytestmark = pytest.mark.usefixtures("djangos_database")


@pytest.fixture
def worker(dsn: str) -> Iterator[awa.Worker]:
    """A worker of the queues that the tests use."""
    with awa.Worker({"default": 4, "urgent": 1}, dsn=dsn) as worker:
        yield worker


@pytest.fixture
def signalled() -> Iterator[list[tuple[str, str, str]]]:
    """What the signals said: which, of what job, in what state."""
    said: list[tuple[str, str, str]] = []
    receivers = {}
    for name, signal in (("enqueued", task_enqueued), ("started", task_started), ("finished", task_finished)):

        def receive(sender: Any, task_result: TaskResult, name: str = name, **_: Any) -> None:
            assert sender is AwaBackend
            said.append((name, task_result.id, task_result.status))

        signal.connect(receive)
        receivers[signal] = receive
    yield said
    for signal, receive in receivers.items():
        signal.disconnect(receive)


def finished(result: TaskResult) -> TaskResult:
    """The result, once its task has ended."""

    def look() -> bool:
        result.refresh()
        return bool(result.is_finished)

    wait_for(look, what=f"task {result.id} finished")
    return result


def enqueued(task: Any, *args: Any) -> TaskResult:
    """The result of a task that no worker can have seen before its signal was sent."""
    with transaction.atomic():
        return task.enqueue(*args)


def test_a_task_commits_with_the_transaction_and_is_run(outside: awa.Client, worker: awa.Worker) -> None:
    with transaction.atomic():
        result = tasks.order.enqueue("a", times=2)
        assert (result.status, result.args, result.kwargs) == (TaskResultStatus.READY, ["a"], {"times": 2})
        assert outside.get_job(int(result.id)) is None
        assert tasks.order.get_result(result.id).status == TaskResultStatus.READY
    finished(result)
    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.return_value == ["a 0", "a 1"]
    assert result.errors == []
    assert result.attempts == 1
    assert result.enqueued_at <= result.started_at == result.last_attempted_at <= result.finished_at
    assert Order.objects.count() == 2


def test_a_task_rolls_back_with_the_transaction(outside: awa.Client) -> None:
    with project.rolled_back():
        result = tasks.order.enqueue("a")
    with pytest.raises(TaskResultDoesNotExist):
        tasks.order.get_result(result.id)
    assert outside.queue_counts("default").available == 0


def test_a_task_without_a_result_costs_no_row_of_its_own(outside: awa.Client, worker: awa.Worker, dsn: str) -> None:
    result = finished(tasks.look.using(queue_name="default").enqueue())
    assert result.return_value is None
    with psycopg.connect(dsn) as conn:
        assert conn.execute("SELECT count(*) FROM awa.receipt_completion_batches").fetchall() == [(1,)]
        assert conn.execute("SELECT count(*) FROM awa.done_entries").fetchall() == [(0,)]


def test_a_coroutine_runs(worker: awa.Worker) -> None:
    assert finished(tasks.fetch.enqueue("http://x")).return_value == {"url": "http://x", "orders": "0"}


def test_priority_queue_and_context_arrive(worker: awa.Worker, outside: awa.Client) -> None:
    tasks.seen.clear()
    result = tasks.look.enqueue(1, 2)
    job = outside.get_job(int(result.id))
    assert job is not None
    assert (job.queue, job.priority) == ("urgent", 1)
    finished(result)
    assert tasks.seen == [(1, result.id, TaskResultStatus.RUNNING, [1, 2], 1, 70)]
    again = default_task_backend.get_result(result.id)
    assert (again.task.priority, again.task.queue_name, again.task.run_after) == (70, "urgent", None)


@pytest.mark.parametrize(
    ("priority", "stored"), [(100, 1), (50, 1), (49, 2), (0, 2), (-1, 3), (-50, 3), (-51, 4), (-100, 4)]
)
def test_priorities_are_mapped_and_come_back_as_given(priority: int, stored: int, outside: awa.Client) -> None:
    result = tasks.order.using(priority=priority).enqueue("a")
    job = outside.get_job(int(result.id))
    assert job is not None
    assert job.priority == stored
    assert default_task_backend.get_result(result.id).task.priority == priority


def test_a_task_for_later_waits(outside: awa.Client) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    result = tasks.order.using(run_after=at).enqueue("a")
    job = outside.get_job(int(result.id))
    assert job is not None
    assert (job.state, job.run_at) == ("scheduled", at)
    again = default_task_backend.get_result(result.id)
    assert (again.status, again.task.run_after) == (TaskResultStatus.READY, at)


def test_a_task_that_raises_has_failed(worker: awa.Worker) -> None:
    result = finished(tasks.fail.enqueue("no paper"))
    assert result.status == TaskResultStatus.FAILED
    with pytest.raises(ValueError, match="Task failed"):
        _ = result.return_value
    (error,) = result.errors
    assert error.exception_class is LookupError
    assert "LookupError: no paper" in error.traceback
    assert "in fail" in error.traceback
    assert result.attempts == 1
    assert result.finished_at is not None


def test_with_a_retry_option_it_is_tried_again(worker: awa.Worker, signalled: list[Any]) -> None:
    result = finished(enqueued(tasks.third_time, 3))
    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.return_value == 3
    assert result.attempts == 3
    assert [error.exception_class for error in result.errors] == [ConnectionError, ConnectionError]
    assert result.started_at < result.last_attempted_at
    assert [name for name, *_ in signalled] == ["enqueued", "started", "started", "started", "finished"]


def test_the_last_attempt_is_the_end(worker: awa.Worker, signalled: list[Any]) -> None:
    result = finished(enqueued(tasks.third_time, 9))
    assert result.status == TaskResultStatus.FAILED
    assert len(result.errors) == result.attempts == 3
    assert signalled[-1] == ("finished", result.id, TaskResultStatus.FAILED)
    assert [name for name, *_ in signalled].count("finished") == 1


@pytest.mark.parametrize("task", [tasks.unstorable, tasks.huge], ids=["no JSON", "too long"])
def test_a_result_that_cannot_be_stored_is_a_failure(task: Any, worker: awa.Worker, signalled: list[Any]) -> None:
    result = finished(enqueued(task))
    assert result.status == TaskResultStatus.FAILED
    assert signalled[-1] == ("finished", result.id, TaskResultStatus.FAILED)


def test_a_task_may_end_as_awas_do(worker: awa.Worker) -> None:
    result = finished(tasks.give_up.enqueue())
    assert result.status == TaskResultStatus.FAILED
    assert result.errors[0].exception_class is awa.Cancel


def test_signals_are_sent(worker: awa.Worker, signalled: list[Any]) -> None:
    for task in (tasks.order, tasks.fetch, tasks.fail):
        result = finished(enqueued(task, "a"))
        assert signalled == [
            ("enqueued", result.id, TaskResultStatus.READY),
            ("started", result.id, TaskResultStatus.RUNNING),
            ("finished", result.id, result.status),
        ]
        signalled.clear()


def test_a_receiver_that_raises_fails_no_task(worker: awa.Worker, caplog: pytest.LogCaptureFixture) -> None:
    def receive(**_: Any) -> None:
        raise RuntimeError("in a receiver")

    task_started.connect(receive)
    try:
        assert finished(tasks.order.enqueue("a")).status == TaskResultStatus.SUCCESSFUL
    finally:
        task_started.disconnect(receive)
    assert "in a receiver" in caplog.text


def test_the_asynchronous_variants_work(worker: awa.Worker) -> None:
    async def use() -> TaskResult:
        result = await tasks.order.aenqueue("a")
        while not result.is_finished:
            await result.arefresh()
        return await tasks.order.aget_result(result.id)

    try:
        assert asyncio.run(asyncio.wait_for(use(), 30)).return_value == ["a 0"]
    finally:
        from asgiref.sync import async_to_sync, sync_to_async
        from django.db import connections

        async_to_sync(sync_to_async(connections.close_all))()


def test_results_are_refused_to_strangers(outside: awa.Client) -> None:
    mine = tasks.order.enqueue("a")
    with pytest.raises(TaskResultMismatch):
        tasks.fail.get_result(mine.id)
    other = str(outside.enqueue("tests.contrib.django.shop.django_tasks.order", {"name": "not by django.tasks"}))
    gone = outside.enqueue("shop.gone.task", {}, metadata={"django": {}})
    function = outside.enqueue("tests.contrib.django.shop.django_tasks.not_a_task", {}, metadata={"django": {}})
    for unknown in ("0", "x", "-1", str(2**63), other, str(gone), str(function)):
        with pytest.raises(TaskResultDoesNotExist):
            default_task_backend.get_result(unknown)


def test_arguments_that_are_no_json_are_refused(outside: awa.Client) -> None:
    with pytest.raises(TypeError):
        tasks.order.enqueue(object())
    with pytest.raises(awa.InvalidJob, match=r"args\.args\[0\]"):
        tasks.order.enqueue(float("nan"))
    assert outside.queue_counts("default").available == 0


def test_a_cancelled_task_has_failed(outside: awa.Client) -> None:
    result = tasks.order.enqueue("a")
    assert outside.cancel(int(result.id))
    result.refresh()
    assert (result.status, result.errors, result.attempts) == (TaskResultStatus.FAILED, [], 0)


def test_a_job_has_attempts_left_for_workers_that_die_although_tasks_are_not_retried(outside: awa.Client) -> None:
    job = outside.get_job(int(tasks.order.enqueue("a").id))
    assert job is not None
    assert job.max_attempts == 25


def test_the_flags_are_true_to_the_facts() -> None:
    backend = default_task_backend
    assert backend.supports_defer
    assert backend.supports_async_task
    assert backend.supports_get_result
    assert backend.supports_priority


def test_what_base_classes_refuse_is_refused() -> None:
    with override_settings(TASKS={"default": {"BACKEND": "awa.contrib.django.tasks.AwaBackend", "QUEUES": ["mail"]}}):
        with pytest.raises(InvalidTask, match="Queue 'default' is not valid"):
            tasks.order.enqueue("a")
        assert tasks.order.using(queue_name="mail").queue_name == "mail"
    with pytest.raises(InvalidTask, match="priority"):
        tasks.order.using(priority=101)
    with pytest.raises(InvalidTask, match="aware"):
        tasks.order.using(run_after=datetime(2100, 1, 1))  # noqa: DTZ001


def test_without_time_zones_naive_instants_come_and_go(dsn: str) -> None:
    at = datetime(2100, 1, 1, 12)  # noqa: DTZ001
    with override_settings(USE_TZ=False, TIME_ZONE="Europe/Vienna"):
        project.use_database("default", dsn)
        result = tasks.order.using(run_after=at).enqueue("a")
        again = default_task_backend.get_result(result.id)
        assert again.task.run_after == at
        assert again.enqueued_at.tzinfo is None
    project.use_database("default", dsn)
    with awa.Client(dsn) as client:
        job = client.get_job(int(result.id))
    assert job is not None
    assert job.run_at == datetime(2100, 1, 1, 11, tzinfo=UTC)


def checked(backend: dict[str, Any], **settings: Any) -> list[str | None]:
    """The ids of the checks that find something."""
    with override_settings(TASKS={"default": {"BACKEND": "awa.contrib.django.tasks.AwaBackend", **backend}}, **settings):
        return [message.id for message in run_checks() if (message.id or "").startswith("awa.")]


def test_system_checks_look_at_the_backend() -> None:
    assert checked({}) == []
    assert checked({"OPTIONS": {"retry": None, "max_attempts": 3, "timeout": 5, "dead_letter": False}}) == []
    assert checked({"OPTIONS": {"attempts": 3}}) == ["awa.E102"]
    assert checked({"OPTIONS": {"max_attempts": 0}}) == ["awa.E102"]
    assert checked({"OPTIONS": {"retry": "often"}}) == ["awa.E102"]
    assert checked({"QUEUES": ["default", "mail"]}) == ["awa.W101"]
    assert checked({"QUEUES": ["default", "mail"]}, AWA={"QUEUES": {"mail": 1, "default": 2}}) == []
    mail = awa.PartitionedQueue("mail", 2)
    assert checked({"QUEUES": ["mail", "mail__p1"]}, AWA={"QUEUES": {mail: 1}}) == []


def test_a_second_definition_of_backends_leaves_kinds_alone(outside: awa.Client, worker: awa.Worker) -> None:
    used = tasks.order.using(backend="stubborn", queue_name="default")
    assert finished(used.enqueue("a")).backend == "stubborn"
    assert task_backends["stubborn"].get_result(used.enqueue("b").id).task.backend == "stubborn"
    wait_for_counts(outside, "default", completed=2)
