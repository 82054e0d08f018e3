"""What a handler gets, and what becomes of what it raises."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from contextvars import ContextVar

import attrs
import pytest

import awa
from tests.waiting import PATIENCE, wait_for
from tests.worker.support import job_in_state, wait_for_counts

_mark: ContextVar[str] = ContextVar("mark", default="clean")


@attrs.define
class Line:
    sku: str
    quantity: int = 1


@attrs.define
class Order:
    number: int
    lines: list[Line]


@dataclasses.dataclass
class Address:
    city: str


@dataclasses.dataclass
class Person:
    name: str
    address: Address
    nick: str = "none"


def test_sync_and_async_handlers_run_with_their_arguments(dsn: str, client: awa.Client) -> None:
    seen: list[object] = []

    @awa.task
    def add(a: int, b: int = 2, *, c: int = 3) -> None:
        seen.append(("sync", a, b, c))

    @awa.task
    async def fetch(url: str) -> None:
        await asyncio.sleep(0)
        seen.append(("async", url, threading.current_thread().name))

    add.options(client=client).enqueue(1, c=5)
    fetch.options(client=client).enqueue("http://x")
    with awa.Worker({"default": 2}, dsn=dsn):
        wait_for_counts(client, "default", completed=2)
    assert sorted(map(str, seen)) == ["('async', 'http://x', 'awa-loop')", "('sync', 1, 2, 5)"]


def test_async_handlers_of_one_queue_run_at_the_same_time(dsn: str, client: awa.Client) -> None:
    together = threading.Barrier(3, timeout=PATIENCE)

    @awa.task
    async def meet() -> None:
        await asyncio.to_thread(together.wait)

    client.enqueue_many([{}] * 3, kind=meet)
    with awa.Worker({"default": 3}, dsn=dsn):
        wait_for_counts(client, "default", completed=3)
    assert not together.broken


def test_the_context_comes_by_parameter_and_by_current_job(dsn: str, client: awa.Client) -> None:
    seen: dict[str, awa.JobContext] = {}

    @awa.task(max_attempts=7, tags=["red"], metadata={"trace": "t1"})
    def look(ctx: awa.JobContext, where: str) -> None:
        assert awa.current_job() is ctx
        seen[where] = ctx

    @awa.task
    async def look_later(where: str) -> None:
        await asyncio.sleep(0)
        seen[where] = awa.current_job()

    first = look.options(client=client, priority=1).enqueue("parameter")
    second = look_later.options(client=client).enqueue("async")
    with awa.Worker({"default": 2}, dsn=dsn):
        wait_for_counts(client, "default", completed=2)
    ctx = seen["parameter"]
    assert (ctx.id, ctx.kind, ctx.queue, ctx.priority) == (first, "look", "default", 1)
    assert (ctx.attempt, ctx.max_attempts, ctx.run_lease, ctx.tags, ctx.errors) == (1, 7, 1, ("red",), ())
    assert ctx.metadata == {"trace": "t1"}
    stored = job_in_state(client, first, "completed")
    assert (ctx.created_at, ctx.run_at) == (stored.created_at, stored.run_at)
    assert seen["async"].id == second
    with pytest.raises(awa.AwaError, match="no job is running here"):
        awa.current_job()


def test_context_variables_set_by_one_job_are_not_seen_by_the_next(dsn: str, client: awa.Client) -> None:
    found: list[str] = []

    @awa.task
    def spoil() -> None:
        found.append(_mark.get())
        _mark.set("spoilt")

    @awa.task
    async def spoil_async() -> None:
        found.append(_mark.get())
        _mark.set("spoilt")

    client.enqueue_many([{}] * 3, kind=spoil)
    client.enqueue_many([{}] * 3, kind=spoil_async)
    with awa.Worker({"default": 1}, dsn=dsn):
        wait_for_counts(client, "default", completed=6)
    assert found == ["clean"] * 6


def test_a_record_class_takes_the_whole_arguments(dsn: str, client: awa.Client) -> None:
    seen: list[object] = []

    @awa.task
    def ship(order: Order) -> None:
        seen.append(order)

    @awa.task
    def move(ctx: awa.JobContext, person: Person) -> None:
        seen.append(person)
        assert ctx.kind == "move"

    order = Order(7, [Line("a"), Line("b", 2)])
    person = Person("Ada", Address("London"))
    ship.options(client=client).enqueue(order)
    move.options(client=client).enqueue(person)
    client.enqueue("move", {"name": "Bob", "address": {"city": "Rome", "new_field": 1}, "nick": "b"})
    with awa.Worker({"default": 1}, dsn=dsn):
        wait_for_counts(client, "default", completed=3)
    assert seen == [order, person, Person("Bob", Address("Rome"), "b")]


def test_positional_only_parameters_are_filled(dsn: str, client: awa.Client) -> None:
    seen: list[object] = []

    @awa.task
    def ship(ctx: awa.JobContext, order: Order, /) -> None:
        seen.append((ctx.kind, order))

    @awa.task
    def add(a: int, b: int = 2, /, *, c: int) -> None:
        seen.append((a, b, c))

    ship.options(client=client, max_attempts=1).enqueue(Order(1, []))
    add.options(client=client, max_attempts=1).enqueue(1, c=3)
    with awa.Worker({"default": 1}, dsn=dsn):
        wait_for(lambda: client.queue_counts("default").unfinished == 0)
    assert seen == [("ship", Order(1, [])), (1, 2, 3)]


def test_a_failing_handler_is_retried_and_its_errors_are_kept(dsn: str, client: awa.Client) -> None:
    attempts: list[int] = []

    @awa.task(max_attempts=3, retry=[0.01])
    def flaky() -> None:
        ctx = awa.current_job()
        attempts.append(ctx.attempt)
        assert [error["attempt"] for error in ctx.errors] == list(range(1, ctx.attempt))
        raise ValueError(f"boom {ctx.attempt}")

    job_id = flaky.options(client=client).enqueue()
    with awa.Worker({"default": 1}, dsn=dsn, promote_every=0.01) as worker:
        job = job_in_state(client, job_id, "dead_lettered")
        wait_for(lambda: worker.stats().failed == 3)
    assert attempts == [1, 2, 3]
    assert (job.attempt, job.run_lease) == (3, 3)
    assert [(error["type"], error["message"]) for error in job.errors] == [("ValueError", f"boom {n}") for n in (1, 2, 3)]


def test_a_retry_waits_for_its_delay(dsn: str, client: awa.Client) -> None:
    @awa.task
    def flaky() -> None:
        raise ValueError("x" * 5000 + "\x00\ud800")

    job_id = flaky.options(client=client).enqueue()
    with awa.Worker({"default": 1}, dsn=dsn, promote_every=600):
        job = job_in_state(client, job_id, "retryable")
    assert job.claimed_at is None
    assert job.run_at > job.created_at
    assert job.errors[0]["message"] == "x" * 2000


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_an_exit_in_a_handler_fails_the_job_and_nothing_else(
    dsn: str, client: awa.Client, kind: type[BaseException], how: str
) -> None:
    @awa.task(max_attempts=1)
    def leave() -> None:
        raise kind("bye")

    @awa.task(max_attempts=1)
    async def leave_async() -> None:
        raise kind("bye")

    @awa.task
    async def stay() -> None:
        await asyncio.sleep(0)

    job_id = client.enqueue(leave if how == "sync" else leave_async)
    with awa.Worker({"default": 1}, dsn=dsn):
        job = job_in_state(client, job_id, "dead_lettered")
        client.enqueue(stay)
        wait_for_counts(client, "default", dead_lettered=1, completed=1)
    assert (job.errors[0]["type"], job.errors[0]["message"]) == (kind.__name__, "bye")


def test_arguments_that_do_not_fit_fail_the_attempt(dsn: str, client: awa.Client) -> None:
    @awa.task
    def exact(a: int) -> None: ...

    job_id = client.enqueue(exact, {"b": 1}, max_attempts=1)
    with awa.Worker({"default": 1}, dsn=dsn):
        job = job_in_state(client, job_id, "dead_lettered")
    assert job.errors[0]["type"] == "TypeError"


def test_a_failure_is_logged_with_stable_keys(dsn: str, client: awa.Client, caplog: pytest.LogCaptureFixture) -> None:
    @awa.task(max_attempts=1)
    def fails() -> None:
        raise ValueError("why")

    job_id = fails.options(client=client).enqueue()
    with caplog.at_level(logging.WARNING, "awa.worker"), awa.Worker({"default": 1}, dsn=dsn):
        job_in_state(client, job_id, "dead_lettered")
    (record,) = [record for record in caplog.records if "failed on attempt 1 of 1: why" in record.getMessage()]
    fields = {key: value for key, value in vars(record).items() if key.startswith("awa_")}
    assert fields == {"awa_job_id": job_id, "awa_kind": "fails", "awa_queue": "default", "awa_attempt": 1}
    assert record.exc_info is not None
