"""Claims that the server commits after their worker has gone."""

from __future__ import annotations

import os
import socket
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

import awa
from awa.postgres import connect
from awa.storage.rescue import rescue_dead
from tests.waiting import wait_for
from tests.worker.support import job_in_state

WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE '%claim_jobs%' AND wait_event_type = 'Lock'
"""
CLAIMED = "SELECT count(*) FROM awa.lease_claim_batches"


def test_a_claim_that_is_committed_after_its_worker_has_stopped_is_rescued(
    dsn: str, client: awa.Client, conn: psycopg.Connection[Any]
) -> None:
    @awa.task
    def quick() -> None: ...

    worker = awa.Worker({"default": 1}, dsn=dsn)
    worker.start()
    assert worker.wait_until_ready()
    job_in_state(client, client.enqueue(quick), "completed")
    with connect(dsn, "somebody who repacks tables") as holder, holder.transaction():
        holder.execute("LOCK TABLE awa.queue_claim_heads IN ACCESS EXCLUSIVE MODE")
        job_id = client.enqueue(quick)
        wait_for(lambda: conn.execute(WAITING).fetchall()[0][0], what="a claim that waits")
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        wait_for(lambda: worker._dispatcher._stopping)
        # The network goes: the server's process waits for the lock and does not learn of it.
        claiming = worker._dispatcher._conn
        assert claiming is not None
        with socket.socket(fileno=os.dup(claiming.fileno())) as cut:
            cut.shutdown(socket.SHUT_RDWR)
        stopping.join()
        assert conn.execute(CLAIMED).fetchall()[0][0] == 1
    wait_for(lambda: conn.execute(CLAIMED).fetchall()[0][0] == 2, what="the claim's commit")

    job_in_state(client, job_id, "running")
    assert rescue_dead(conn, now=datetime.now(UTC) + timedelta(seconds=10)).rescued == 1
    job_in_state(client, job_id, "available")
