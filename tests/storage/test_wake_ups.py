"""Who is woken by an enqueue, and when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

import awa
from tests.storage.conftest import Application
from tests.waiting import PATIENCE

Connection = psycopg.Connection[Any]


@pytest.fixture
def listener(conn: Connection) -> Connection:
    """A session that listens."""
    conn.execute("LISTEN awa")
    return conn


def heard(listener: Connection) -> list[str]:
    """Every wake-up so far: what comes before one sent now."""
    listener.execute("NOTIFY awa, 'end of test'")
    payloads: list[str] = []
    for notify in listener.notifies(timeout=PATIENCE):
        if notify.payload == "end of test":
            return payloads
        payloads.append(notify.payload)
    raise AssertionError("the server does not deliver notifications")


def test_a_committed_job_wakes_its_queue(listener: Connection, client: awa.Client) -> None:
    client.enqueue("work", queue="q")
    assert heard(listener) == ["q"]


def test_whoever_is_woken_finds_the_job_committed(listener: Connection, client: awa.Client) -> None:
    client.enqueue("work", queue="q")
    (notify,) = listener.notifies(timeout=PATIENCE, stop_after=1)
    assert notify.payload == "q"
    assert listener.execute("SELECT state FROM awa.jobs").fetchall() == [("available",)]


def test_a_batch_wakes_each_of_its_queues_once(listener: Connection, client: awa.Client) -> None:
    batch = [awa.NewJob({}, options=awa.JobOptions(queue=queue)) for queue in ("b", "a", "b", "c")]
    client.enqueue_many(batch, kind="work")
    assert sorted(heard(listener)) == ["a", "b", "c"]


def test_a_copy_wakes_each_of_its_queues_once(listener: Connection, client: awa.Client) -> None:
    batch = [awa.NewJob({}, options=awa.JobOptions(queue=queue)) for queue in ("b", "a", "b")]
    client.enqueue_many_copy(batch, kind="work")
    assert sorted(heard(listener)) == ["a", "b"]


def test_a_job_for_later_wakes_nobody(listener: Connection, client: awa.Client) -> None:
    client.enqueue("work", queue="q", run_at=datetime(2100, 1, 1, tzinfo=UTC))
    assert heard(listener) == []


@pytest.mark.parametrize("copied", [False, True])
def test_a_caller_s_job_wakes_its_queue_at_the_commit_and_not_before(
    listener: Connection, client: awa.Client, application: Application, copied: bool
) -> None:
    caller = application()
    if copied:
        client.enqueue_many_copy([{}], kind="work", queue="q", connection=caller)
    else:
        client.enqueue("work", queue="q", connection=caller)
    assert heard(listener) == []
    caller.commit()
    assert heard(listener) == ["q"]


@pytest.mark.parametrize("copied", [False, True])
def test_a_rolled_back_job_wakes_nobody(
    listener: Connection, client: awa.Client, application: Application, copied: bool
) -> None:
    caller = application()
    if copied:
        client.enqueue_many_copy([{}], kind="work", queue="q", connection=caller)
    else:
        client.enqueue("work", queue="q", connection=caller)
    caller.rollback()
    assert heard(listener) == []


def test_a_resumed_queue_is_woken(listener: Connection, client: awa.Client) -> None:
    client.pause_queue("q")
    assert heard(listener) == []
    client.resume_queue("q")
    assert heard(listener) == ["q"]
