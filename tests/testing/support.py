"""Tasks that end in every way, and connections of an application under test."""

from __future__ import annotations

from typing import Any, NoReturn

import awa
from awa.postgres import Connection
from awa.storage.jobs import get_job


class Ledger:
    """What handlers have done, in order."""

    def __init__(self) -> None:
        self.lines: list[Any] = []


def state_of(conn: Connection, job_id: int) -> str:
    """A job's state, as this connection sees it."""
    job = get_job(conn, job_id)
    assert job is not None
    return job.state


def make_tasks(ledger: Ledger) -> dict[str, awa.Task[..., Any, Any]]:
    """One task for every outcome, registered under the outcome's name."""

    @awa.task(queue="q")
    def work(n: int) -> None:
        ledger.lines.append(n)

    @awa.task(queue="q", max_attempts=2, retry=[60])
    def boom(n: int = 0) -> NoReturn:
        ledger.lines.append(f"boom {n}")
        raise ValueError("boom")

    @awa.task(queue="q", result=True)
    def add(a: int, b: int) -> int:
        return a + b

    @awa.task(queue="q")
    def retry() -> NoReturn:
        raise awa.Retry(after=30, reason="busy")

    @awa.task(queue="q")
    def snooze() -> awa.Snooze:
        ledger.lines.append("snooze")
        return awa.Snooze(300)

    @awa.task(queue="q")
    def cancel() -> NoReturn:
        raise awa.Cancel("nobody wants it")

    @awa.task(queue="q")
    def fail() -> NoReturn:
        raise awa.Fail("no such address")

    @awa.task(queue="q", dead_letter=False)
    def fail_quietly() -> NoReturn:
        raise awa.Fail("no such address")

    @awa.task(queue="q")
    def wait(ctx: awa.JobContext) -> None:
        ctx.register_callback()
        ctx.wait_for_callback(timeout=60)

    @awa.task(queue="q")
    def parent(ctx: awa.JobContext, n: int) -> None:
        ctx.enqueue(work, {"n": n})

    tasks = (work, boom, add, retry, snooze, cancel, fail, fail_quietly, wait, parent)
    return {task.kind: task for task in tasks}
