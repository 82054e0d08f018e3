"""Stopping while the server answers no ending."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

import awa
from awa.postgres import connect
from tests.waiting import wait_for
from tests.worker.support import wait_for_counts

WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'awa completer' AND wait_event_type = 'Lock'
"""


def test_a_worker_stops_while_a_table_is_locked(
    dsn: str, client: awa.Client, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    @awa.task
    def quick() -> None: ...

    monkeypatch.setattr("awa.worker.runtime.RECORD_FOR", 0.5)
    worker = awa.Worker({"default": 1}, dsn=dsn)
    worker.start()
    assert worker.wait_until_ready()
    finished: list[bool] = []
    with connect(dsn, "somebody who repacks tables") as holder, holder.transaction():
        holder.execute("LOCK TABLE awa.receipt_completion_batches IN EXCLUSIVE MODE")
        client.enqueue(quick)
        wait_for(lambda: conn.execute(WAITING).fetchall()[0][0], what="an ending that waits")
        stopping = threading.Thread(target=lambda: finished.append(worker.stop()))
        stopping.start()
        wait_for(lambda: not stopping.is_alive(), 10, "the end of the worker")
    assert finished == [False]
    with awa.Worker({"default": 1}, dsn=dsn):
        wait_for_counts(client, "default", completed=1)
