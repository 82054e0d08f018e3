"""Hooks are around every handler, in its thread and context, and what they raise is the attempt's failure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import awa
from awa.hooks import around_jobs
from tests.worker.support import job_in_state

_pushed: ContextVar[str] = ContextVar("pushed", default="nothing")


def test_hooks_are_nested_around_a_function_in_its_thread_and_context(dsn: str, client: awa.Client) -> None:
    seen: list[object] = []

    @contextmanager
    def outer(job: awa.JobContext) -> Iterator[None]:
        _pushed.set(f"by the hook of {job.kind}")
        seen.append(("enter outer", threading.get_ident()))
        yield
        seen.append(("leave outer", threading.get_ident()))

    @contextmanager
    def inner(job: awa.JobContext) -> Iterator[None]:
        seen.append("enter inner")
        yield
        seen.append("leave inner")

    @awa.task
    def work() -> None:
        seen.append((_pushed.get(), threading.get_ident()))

    with around_jobs(outer), around_jobs(inner), awa.Worker({"default": 1}, dsn=dsn):
        job_in_state(client, work.options(client=client).enqueue(), "completed")
    first: Any = seen[0]
    thread: int = first[1]
    assert seen == [
        ("enter outer", thread),
        "enter inner",
        ("by the hook of work", thread),
        "leave inner",
        ("leave outer", thread),
    ]
    assert thread != threading.get_ident()


def test_a_coroutine_has_its_own_kind_of_hook_on_the_loop(dsn: str, client: awa.Client) -> None:
    seen: list[object] = []

    @contextmanager
    def of_functions(job: awa.JobContext) -> Iterator[None]:
        seen.append("of functions")
        yield

    @asynccontextmanager
    async def of_coroutines(job: awa.JobContext) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        seen.append(("enter", job.kind))
        yield
        seen.append("leave")

    @awa.task
    async def fetch() -> None:
        seen.append("run")

    with around_jobs(of_functions, coroutines=of_coroutines), awa.Worker({"default": 1}, dsn=dsn):
        job_in_state(client, fetch.options(client=client).enqueue(), "completed")
    assert seen == [("enter", "fetch"), "run", "leave"]


def test_a_hook_sees_the_handlers_exception_and_its_own_fails_the_attempt(dsn: str, client: awa.Client) -> None:
    seen: list[str] = []

    @contextmanager
    def hook(job: awa.JobContext) -> Iterator[None]:
        if job.kind == "unwanted":
            raise PermissionError("not here")
        try:
            yield
        except ValueError as error:
            seen.append(str(error))
            raise

    @awa.task(retry=False)
    def fail() -> None:
        raise ValueError("no")

    @awa.task(retry=False)
    def unwanted() -> None:
        seen.append("it ran")

    with around_jobs(hook), awa.Worker({"default": 1}, dsn=dsn):
        failed = job_in_state(client, fail.options(client=client).enqueue(), "dead_lettered")
        refused = job_in_state(client, unwanted.options(client=client).enqueue(), "dead_lettered")
    assert seen == ["no"]
    assert failed.errors[0]["class"] == "builtins.ValueError"
    assert (refused.errors[0]["class"], refused.errors[0]["message"]) == ("builtins.PermissionError", "not here")


def test_a_closed_hook_is_gone(dsn: str, client: awa.Client) -> None:
    seen: list[str] = []

    @contextmanager
    def hook(job: awa.JobContext) -> Iterator[None]:
        seen.append("hook")
        yield

    @awa.task
    def work() -> None:
        seen.append("work")

    around_jobs(hook).close()
    with awa.Worker({"default": 1}, dsn=dsn):
        job_in_state(client, work.options(client=client).enqueue(), "completed")
    assert seen == ["work"]
