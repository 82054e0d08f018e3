"""Tasks of django.tasks."""

from __future__ import annotations

from typing import Any

from django.tasks import TaskContext, task

import awa
from tests.contrib.django.shop.models import Order

seen: list[Any] = []


@task
def order(name: str, *, times: int = 1) -> list[str]:
    """Write something through the ORM, and return something."""
    return [Order.objects.create(name=f"{name} {n}").name for n in range(times)]


@task
async def fetch(url: str) -> dict[str, str]:
    """A coroutine."""
    return {"url": url, "orders": str(await Order.objects.acount())}


@task(priority=70, queue_name="urgent", takes_context=True)
def look(context: TaskContext, *args: int) -> None:
    """Look at the context."""
    result = context.task_result
    seen.append((context.attempt, result.id, result.status, result.args, len(result.worker_ids), result.task.priority))


@task
def fail(message: str) -> None:
    """Fail for good."""
    raise LookupError(message)


@task
def give_up() -> None:
    """Say that nobody wants it."""
    raise awa.Cancel("nobody wants it")


@task(backend="stubborn", takes_context=True)
def third_time(context: TaskContext, until: int) -> Any:
    """Fail until the attempt of that number."""
    if context.attempt < until:
        raise ConnectionError(f"attempt {context.attempt}")
    return context.attempt


@task
def unstorable() -> object:
    """Return what is no JSON."""
    return object()


@task
def huge() -> str:
    """Return more than is stored."""
    return "x" * 100_000


not_a_task = order.func
