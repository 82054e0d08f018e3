"""What type checkers know about tasks: mypy reads this file, and tests read what it says of `wrong_tasks.txt`."""

from __future__ import annotations

from typing import assert_type

import awa


@awa.task
def plain(name: str, times: int = 2, *, loud: bool = False) -> str:
    """Bare decorator."""
    return name * times + "!" * loud


@awa.task(queue="email", priority=1)
def configured(to: str) -> int:
    """Decorator with options."""
    return len(to)


@awa.task
def with_context(ctx: awa.JobContext, table: str) -> float:
    """The context is no argument of the job."""
    return ctx.attempt + len(table)


@awa.task(max_attempts=3)
def configured_with_context(ctx: awa.JobContext, *, table: str) -> None:
    """Both."""


@awa.task
async def asynchronous(url: str) -> bytes:
    """A coroutine function."""
    return url.encode()


def calls(ctx: awa.JobContext, client: awa.Client) -> None:
    """Calling a task is calling its function."""
    assert_type(plain("a", 3, loud=True), str)
    assert_type(configured("ada"), int)
    assert_type(with_context(ctx, "users"), float)


async def awaited() -> None:
    """A coroutine function stays one."""
    assert_type(await asynchronous("https://example.com"), bytes)


def enqueues(client: awa.Client) -> None:
    """Enqueueing takes the function's arguments, without the context."""
    assert_type(plain.enqueue("a"), int)
    assert_type(plain.enqueue("a", 3, loud=True), int)
    assert_type(configured.enqueue(to="ada"), int)
    assert_type(with_context.enqueue("users"), int)
    assert_type(with_context.enqueue(table="users"), int)
    assert_type(configured_with_context.enqueue(table="users"), int)
    assert_type(asynchronous.enqueue("https://example.com"), int)
    assert_type(plain.options(priority=1, client=client).enqueue("a", loud=True), int)
    assert_type(with_context.options(queue="slow").enqueue("users"), int)
    assert_type(client.enqueue(plain, {"name": "a"}), int)
    assert_type(client.enqueue_many([{"name": "a"}], kind=configured), list[int])


def attributes() -> None:
    """A task knows itself."""
    assert_type(plain.kind, str)
    assert_type(plain.defaults, awa.JobOptions)
    assert_type(plain.is_async, bool)
