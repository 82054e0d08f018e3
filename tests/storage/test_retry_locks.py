"""retry_jobs beside others that want the same keys and rows."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

import psycopg

import awa
from awa.postgres import connect
from awa.storage.complete import Ending
from awa.storage.dead_letters import retry_jobs
from tests.sql.engine import claim, finalize
from tests.waiting import wait_for

KEYS = "SELECT unique_key, job_id FROM awa.job_unique_claims ORDER BY unique_key"
WAITS = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"


def test_a_retry_takes_keys_in_the_order_in_which_enqueues_do(
    dsn: str, client: awa.Client, conn: psycopg.Connection[Any]
) -> None:
    @awa.task(queue="q", unique=awa.Unique(by_args=True))
    def quick(n: int) -> None: ...

    ns = {client.enqueue(quick, {"n": n}): n for n in range(30)}
    batch = claim(conn)
    assert finalize(conn, *(Ending(c, item, "failed", None) for c, item, _ in batch.jobs)) == []
    # The job whose key comes last has to come first by its id.
    keys = [job_id for _, job_id in conn.execute(KEYS).fetchall()]
    first, second = next((b, a) for a, b in pairwise(keys) if b < a)
    verdicts: dict[int, Any] = {}
    enqueued: list[Any] = []

    with connect(dsn, "retry") as retrying, connect(dsn, "enqueue") as enqueuing, connect(dsn, "gate") as gate:
        with gate.transaction():
            gate.execute("SELECT FROM awa.dlq_entries WHERE job_id = %s FOR UPDATE", (second,))
            retry = threading.Thread(target=lambda: verdicts.update(retry_jobs(retrying, [first, second])))
            retry.start()
            wait_for(lambda: conn.execute(WAITS, (retrying.info.backend_pid,)).fetchall()[0][0], what="the retry waits")
            again = [{"n": ns[first]}, {"n": ns[second]}]
            enqueue = threading.Thread(
                target=lambda: enqueued.extend(client.enqueue_many(again, kind=quick, connection=enqueuing))
            )
            enqueue.start()
            wait_for(
                lambda: not enqueue.is_alive() or conn.execute(WAITS, (enqueuing.info.backend_pid,)).fetchall()[0][0],
                what="the enqueue has ended or waits",
            )
        retry.join()
        enqueue.join()
    assert len(enqueued) == 2
    assert verdicts == {first: "conflict", second: "conflict"}
