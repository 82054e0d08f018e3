"""A backend for `django.tasks`, which came with Django 6: its tasks are awa's jobs, in Django's own transaction.

    TASKS = {"default": {"BACKEND": "awa.contrib.django.tasks.AwaBackend", "QUEUES": ["default", "email"]}}

A task's kind is its import path. Django's tasks know nothing of retries, so one that raises has failed; a job whose worker
died under it runs again, up to `max_attempts`. `OPTIONS` may change both.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from attrs import field, fields, frozen
from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist
from django.tasks.signals import task_enqueued, task_finished, task_started
from django.utils import timezone
from django.utils.json import normalize_json
from django.utils.module_loading import import_string

import awa
from awa.arguments import encode_value
from awa.config import DEFAULT_MAX_ATTEMPTS
from awa.context import JobContext
from awa.contrib.django.clients import client
from awa.contrib.django.conf import awa_settings, problems
from awa.errors import AwaError, ConfigurationError, JobCancelled
from awa.job import Job
from awa.outcome import Cancel, Fail, Outcome, Retry
from awa.plan import make_template
from awa.retry import RetryPolicy, resolve_delay
from awa.task import TaskPolicy, registered_tasks

UNKNOWN_WORKER: Final = "unknown"
"""The worker of an attempt that has ended: awa keeps no record of it."""

STATUSES: Final[Mapping[str, TaskResultStatus]] = {
    "available": TaskResultStatus.READY,
    "scheduled": TaskResultStatus.READY,
    "retryable": TaskResultStatus.READY,
    "running": TaskResultStatus.RUNNING,
    "waiting": TaskResultStatus.RUNNING,  # for an answer from outside
    "completed": TaskResultStatus.SUCCESSFUL,
    "failed": TaskResultStatus.FAILED,
    "cancelled": TaskResultStatus.FAILED,
    "dead_lettered": TaskResultStatus.FAILED,
}


def priority_of(django_priority: int) -> int:
    """awa's four priorities, 1 first, for Django's two hundred: 50 and more is 1, 0 and more 2, -50 and more 3, else 4.

    >>> [priority_of(number) for number in (100, 50, 49, 0, -1, -50, -51, -100)]
    [1, 1, 2, 2, 3, 3, 4, 4]
    """
    return 1 if django_priority >= 50 else 2 if django_priority >= 0 else 3 if django_priority >= -50 else 4


@frozen(kw_only=True)
class BackendOptions:
    """`OPTIONS` of the backend; the keys are lower case, as of `awa.task`."""

    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    retry: RetryPolicy | None = False  # of what the task raises; None: the default backoff
    timeout: float | None = None  # seconds, of an attempt
    dead_letter: bool | None = None
    policy: TaskPolicy = field(init=False)

    def __attrs_post_init__(self) -> None:
        make_template("task", awa.JobOptions(max_attempts=self.max_attempts))
        policy = TaskPolicy(retry=self.retry, timeout=self.timeout, dead_letter=self.dead_letter, result=True)
        object.__setattr__(self, "policy", policy)


class AwaTask(Task):  # type: ignore[misc, unused-ignore]
    """A Django task whose jobs awa's workers can run."""

    def __post_init__(self) -> None:
        Task.__post_init__(self)
        _make_runnable(self)


class AwaBackend(BaseTaskBackend):
    """Enqueues on Django's own connection to `AWA["DATABASE"]`."""

    task_class = AwaTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        self._options: BackendOptions | None = None

    def backend_options(self) -> BackendOptions:
        """`OPTIONS`, validated.

        Raises:
            ConfigurationError: naming the option.
        """
        if self._options is None:
            known = [attribute.name for attribute in fields(BackendOptions) if attribute.init]
            if unknown := [name for name in self.options if name not in known]:
                raise ConfigurationError(f"TASKS[{self.alias!r}]: OPTIONS has {unknown[0]!r}, and knows {', '.join(known)}")
            try:
                self._options = BackendOptions(**self.options)
            except (AwaError, TypeError) as error:
                raise ConfigurationError(f"TASKS[{self.alias!r}]: OPTIONS: {error}") from error
        return self._options

    def enqueue(self, task: Task, args: Any, kwargs: Any) -> TaskResult:
        """Enqueue one job; it is committed with the transaction that Django's connection is in, if it is in one."""
        self.validate_task(task)
        _make_runnable(task)
        given = {"args": normalize_json(list(args)), "kwargs": normalize_json(dict(kwargs))}
        job_id = client().enqueue(
            task.module_path,
            given,
            queue=task.queue_name,
            priority=priority_of(task.priority),
            max_attempts=self.backend_options().max_attempts,
            run_at=_aware(task.run_after),
            metadata={"django": _stored(task)},
        )
        result = TaskResult(
            task=task,
            id=str(job_id),
            status=TaskResultStatus.READY,
            enqueued_at=timezone.now(),
            started_at=None,
            finished_at=None,
            last_attempted_at=None,
            args=given["args"],
            kwargs=given["kwargs"],
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> TaskResult:
        """The job of that id, read on Django's connection, so that a transaction sees what it has enqueued.

        Raises:
            TaskResultDoesNotExist: there is none, it is no Django task's, or its task is no longer in the code.
        """
        job = client().get_job(int(result_id)) if str(result_id).isdecimal() and int(result_id) < 2**63 else None
        if job is None or "django" not in job.metadata:
            raise TaskResultDoesNotExist(result_id)
        try:
            task = import_string(job.kind)
        except ImportError as error:
            raise TaskResultDoesNotExist(f"{result_id}: {error}") from error
        if not isinstance(task, Task):
            raise TaskResultDoesNotExist(f"{result_id}: {job.kind} is not a task any more")
        return _result(job, task)

    def check(self, **_: Any) -> list[CheckMessage]:
        """E101: the app is not installed; E102: OPTIONS; W101: queues that `manage.py awa worker` would not serve."""
        found: list[CheckMessage] = []
        if not apps.is_installed("awa.contrib.django"):
            found.append(
                Error(
                    f"TASKS[{self.alias!r}] is awa's backend, whose app is not installed",
                    hint='Put "awa.contrib.django" into INSTALLED_APPS.',
                    id="awa.E101",
                )
            )
        try:
            self.backend_options()
        except ConfigurationError as error:
            found.append(Error(str(error), id="awa.E102"))
        if not problems(getattr(settings, "AWA", {})) and (unserved := sorted(self.queues - set(awa_settings().queues))):
            found.append(
                Warning(
                    f"TASKS[{self.alias!r}]: `manage.py awa worker` does not serve {', '.join(map(repr, unserved))}",
                    hint='Add them to AWA["QUEUES"], or run a worker with --queues.',
                    id="awa.W101",
                )
            )
        return found


# -- in the worker -----------------------------------------------------------------------------------------------------


def _make_runnable(task: Task) -> None:
    """Give workers of this process a handler for the task's kind, once."""
    backend = task.get_backend()
    if not isinstance(backend, AwaBackend) or task.module_path in registered_tasks():
        return
    policy = backend.backend_options().policy
    maker = _coroutine_handler if inspect.iscoroutinefunction(task.func) else _handler
    awa.task(
        kind=task.module_path,
        retry=policy.retry,
        timeout=policy.timeout,
        dead_letter=policy.dead_letter,
        result=policy.result,
    )(maker(task, policy))


def _handler(task: Task, policy: TaskPolicy) -> Any:
    def run(ctx: JobContext, args: list[Any], kwargs: dict[str, Any]) -> Any:
        result = _starting(ctx, task, args, kwargs)
        sender = type(task.get_backend())
        task_started.send_robust(sender, task_result=result)
        try:
            value = _checked(task.func(*_context(task, result), *args, **kwargs))
        except BaseException as error:
            if _note_failure(ctx, policy, result, error):
                task_finished.send_robust(sender, task_result=result)
            raise
        _note_success(result, value)
        task_finished.send_robust(sender, task_result=result)
        return value

    return run


def _coroutine_handler(task: Task, policy: TaskPolicy) -> Any:
    async def run(ctx: JobContext, args: list[Any], kwargs: dict[str, Any]) -> Any:
        result = _starting(ctx, task, args, kwargs)
        sender = type(task.get_backend())
        await task_started.asend_robust(sender, task_result=result)
        try:
            value = _checked(await task.func(*_context(task, result), *args, **kwargs))
        except BaseException as error:
            if _note_failure(ctx, policy, result, error):
                await task_finished.asend_robust(sender, task_result=result)
            raise
        _note_success(result, value)
        await task_finished.asend_robust(sender, task_result=result)
        return value

    return run


def _checked(value: Any) -> Any:
    """What the task returned as it will be read: the worker would refuse it only after `task_finished` had said success."""
    plain = normalize_json(value)
    encode_value(plain, "result")
    return plain


def _context(task: Task, result: TaskResult) -> list[TaskContext]:
    return [TaskContext(task_result=result)] if task.takes_context else []


def _starting(ctx: JobContext, task: Task, args: list[Any], kwargs: dict[str, Any]) -> TaskResult:
    now = timezone.now()
    errors = [_error(described) for described in ctx.errors]
    return TaskResult(
        task=task,
        id=str(ctx.id),
        status=TaskResultStatus.RUNNING,
        enqueued_at=_localised(ctx.created_at),
        started_at=_first_start(ctx.errors) or now,
        finished_at=None,
        last_attempted_at=now,
        args=args,
        kwargs=kwargs,
        backend=task.backend,
        errors=errors,
        worker_ids=[*[UNKNOWN_WORKER] * (ctx.attempt - 1), str(ctx.runtime_id)],
    )


def _note_success(result: TaskResult, value: Any) -> None:
    _change(result, status=TaskResultStatus.SUCCESSFUL, finished_at=timezone.now(), _return_value=value)


def _note_failure(ctx: JobContext, policy: TaskPolicy, result: TaskResult, error: BaseException) -> bool:
    """Whether the task has ended, which is then noted."""
    if isinstance(error, Outcome) and not isinstance(error, Cancel | Fail | Retry):
        return False
    last = ctx.attempt >= ctx.max_attempts or isinstance(error, Cancel | Fail | JobCancelled)
    asked = isinstance(error, Retry) and error.after is not None
    if not last and (asked or resolve_delay(policy.retry, policy.retry_for, ctx.attempt, error) is not None):
        return False
    described = TaskError(
        exception_class_path=f"{type(error).__module__}.{type(error).__qualname__}",
        traceback="".join(traceback.format_exception(error)),
    )
    _change(result, status=TaskResultStatus.FAILED, finished_at=timezone.now(), errors=[*result.errors, described])
    return True


def _change(result: TaskResult, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(result, name, value)  # it is frozen for everybody but backends


# -- what is stored, as Django has it ----------------------------------------------------------------------------------


def _stored(task: Task) -> dict[str, Any]:
    """What get_result cannot tell from the job: its priority is coarser, and its run_at moves with every retry."""
    run_after = None if task.run_after is None else task.run_after.isoformat()
    return {"backend": task.backend, "priority": task.priority, "run_after": run_after}


def _result(job: Job, task: Task) -> TaskResult:
    stored = job.metadata["django"]
    run_after = None if stored["run_after"] is None else datetime.fromisoformat(stored["run_after"])
    used = task.using(queue_name=job.queue, priority=stored["priority"], run_after=run_after, backend=stored["backend"])
    result = TaskResult(
        task=used,
        id=str(job.id),
        status=STATUSES[job.state],
        enqueued_at=_localised(job.created_at),
        started_at=_first_start(job.errors) or _localised(job.claimed_at),
        finished_at=_localised(job.finalized_at),
        last_attempted_at=_localised(job.claimed_at) or _start(job.errors[-1] if job.errors else {}),
        args=job.args["args"],
        kwargs=job.args["kwargs"],
        backend=stored["backend"],
        errors=[_error(described) for described in job.errors],
        worker_ids=[UNKNOWN_WORKER] * job.attempt,
    )
    if job.runtime_id is not None:
        result.worker_ids[-1] = str(job.runtime_id)
    _change(result, _return_value=job.result)
    return result


def _error(described: Mapping[str, Any]) -> TaskError:
    name, message = described.get("type", "AwaError"), described.get("message", "")
    return TaskError(
        # Without one it was not a handler that raised: its worker died, or it was cancelled from outside.
        exception_class_path=described.get("class", "awa.errors.AwaError"),
        traceback=f"Traceback (most recent call last):\n{described.get('traceback', '')}{name}: {message}\n",
    )


def _first_start(errors: Any) -> datetime | None:
    return _start(errors[0]) if errors and errors[0].get("attempt") == 1 else None


def _start(described: Mapping[str, Any]) -> datetime | None:
    if "at" not in described or "runtime" not in described:
        return None
    return _localised(datetime.fromisoformat(described["at"]) - timedelta(seconds=described["runtime"]))


def _localised(at: datetime | None) -> datetime | None:
    return at if at is None or settings.USE_TZ else timezone.make_naive(at)


def _aware(at: datetime | None) -> datetime | None:
    return at if at is None or timezone.is_aware(at) else timezone.make_aware(at)
