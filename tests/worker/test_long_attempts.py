"""An attempt of six hours: its claim slot and its ready slot are pruned meanwhile, and it ends as any other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import define, field

import awa
from awa.postgres import Connection
from awa.storage.rescue import rescue_dead
from awa.storage.rings import materialize_attempts, prune_ring, rotate_ring
from awa.storage.runtimes import declare_dead
from tests.sql.engine import read
from tests.sql.rings import assert_counts_are_exact
from tests.waiting import wait_for
from tests.worker.support import job_in_state

SIX_HOURS = timedelta(hours=6)


@define
class Hours:
    """A handler's time, which the test holds."""

    began: threading.Event = field(factory=threading.Event)
    over: threading.Event = field(factory=threading.Event)
    told: list[type[BaseException]] = field(factory=list)
    runs: list[int] = field(factory=list)


@pytest.fixture
def hours() -> Iterator[Hours]:
    """Over at the latest when the test is."""
    hours = Hours()
    yield hours
    hours.over.set()


def pass_six_hours(conn: Connection, *, leases: int = 1) -> None:
    """Nothing of the running attempt's claim and body is left in the rings but its lease."""
    sealed = datetime.now(UTC)
    assert rotate_ring(conn, "claim", force=True, now=sealed) == "rotated"
    assert rotate_ring(conn, "queue", force=True, now=sealed) == "rotated"
    assert materialize_attempts(conn, 100, now=sealed + timedelta(seconds=61)) == leases
    assert [v.reason for v in prune_ring(conn, "claim", now=sealed + timedelta(hours=1))] == ["retention"]
    assert [v.is_pruned for v in prune_ring(conn, "claim", now=sealed + SIX_HOURS)] == [True]
    assert [v.is_pruned for v in prune_ring(conn, "queue", now=sealed + SIX_HOURS)] == [True]
    assert read(conn, "SELECT count(*) FROM awa.lease_claim_batches") == [(0,)]
    assert read(conn, "SELECT count(*) FROM awa.ready_entries") == [(0,)]


@pytest.fixture
def long_task(hours: Hours) -> awa.Task[Any, ..., None]:
    """A task that takes as long as the test wants, and says what it was told."""

    @awa.task(max_attempts=3, retry=[0.01])
    def take_long(ctx: awa.JobContext, fail: bool = False, progress: bool = False) -> None:
        hours.runs.append(ctx.attempt)
        if ctx.attempt > 1:
            return
        if progress:
            ctx.progress(10, "begun")
        hours.began.set()
        try:
            while not hours.over.wait(0.01):
                ctx.raise_if_cancelled()
        except BaseException as error:
            hours.told.append(type(error))
            raise
        if progress:
            ctx.progress(100, "done")
        if fail:
            raise LookupError("after six hours")

    return take_long


def began(hours: Hours) -> None:
    wait_for(hours.began.is_set, what="the handler's begin")


@pytest.mark.parametrize("progress", [False, True], ids=["silent", "with progress"])
def test_it_completes_once(
    dsn: str, client: awa.Client, conn: Connection, long_task: awa.Task[Any, ..., None], hours: Hours, progress: bool
) -> None:
    job_id = client.enqueue(long_task, {"progress": progress})
    with awa.Worker({"default": 2}, dsn=dsn):
        began(hours)
        pass_six_hours(conn, leases=0 if progress else 1)
        assert job_in_state(client, job_id, "running").attempt == 1
        hours.over.set()
        job = job_in_state(client, job_id, "completed")
    assert (job.attempt, job.run_lease, hours.runs) == (1, 1, [1])
    assert (job.progress or {}).get("percent") == (100 if progress else None)
    assert client.queue_counts("default").completed == 1
    assert_counts_are_exact(conn)


def test_it_fails_and_is_tried_again(
    dsn: str, client: awa.Client, conn: Connection, long_task: awa.Task[Any, ..., None], hours: Hours
) -> None:
    job_id = client.enqueue(long_task, {"fail": True})
    with awa.Worker({"default": 2}, dsn=dsn, promote_every=0.01):
        began(hours)
        pass_six_hours(conn)
        hours.over.set()
        job = job_in_state(client, job_id, "completed")
    assert (job.attempt, job.run_lease, hours.runs) == (2, 2, [1, 2])
    assert [error["message"] for error in job.errors] == ["after six hours"]
    assert_counts_are_exact(conn)


def test_it_is_cancelled_and_its_handler_told(
    dsn: str, client: awa.Client, conn: Connection, long_task: awa.Task[Any, ..., None], hours: Hours
) -> None:
    job_id = client.enqueue(long_task)
    with awa.Worker({"default": 2}, dsn=dsn):
        began(hours)
        pass_six_hours(conn)
        assert client.cancel(job_id)
        wait_for(lambda: hours.told, what="the handler to be told")
        job = job_in_state(client, job_id, "cancelled")
    assert hours.told == [awa.errors.JobCancelled]
    assert (job.attempt, hours.runs) == (1, [1])
    assert client.queue_counts("default").cancelled == 1
    assert_counts_are_exact(conn)


def test_its_runtime_is_declared_dead_and_its_late_ending_changes_nothing(
    dsn: str, client: awa.Client, conn: Connection, long_task: awa.Task[Any, ..., None], hours: Hours
) -> None:
    job_id = client.enqueue(long_task)
    with awa.Worker({"default": 2}, dsn=dsn, promote_every=0.01):
        began(hours)
        pass_six_hours(conn)
        ((runtime_id, supervisor_id, pid),) = read(
            conn, "SELECT runtime_id, supervisor_id, pid FROM awa.runtime_instances WHERE runtime_id <> 4711"
        )
        assert declare_dead(conn, supervisor_id, [pid]) == [runtime_id]
        rescued = rescue_dead(conn, runtime_id=runtime_id).rescued  # its own leader may have been faster
        assert rescued in (0, 1)
        hours.over.set()
        job = job_in_state(client, job_id, "completed")
    assert (job.attempt, job.run_lease, hours.runs) == (2, 2, [1, 2])
    assert [error["type"] for error in job.errors] == ["WorkerDied"]
    assert_counts_are_exact(conn)
