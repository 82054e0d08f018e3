"""The server dies without a checkpoint, with claims that had not reached the disk; everybody goes on by themselves."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import psycopg

import awa
from awa.job import Job
from awa.migrate import migrate
from awa.postgres import connect
from tests.servers import private_server
from tests.waiting import wait_for
from tests.worker.support import handed_out_twice

CRASHES = 3
PRODUCERS = 3


class Observer:
    """Remembers every job that the database has acknowledged as completed."""

    def __init__(self) -> None:
        self.completed: set[int] = set()

    def look(self, dsn: str) -> int:
        with connect(dsn, "observer") as conn:
            # Whatever is durably there now must be there for ever; a claim alone needs not be.
            rows = conn.execute("SELECT job_id FROM awa.terminal_jobs WHERE state = 'completed'").fetchall()
        now = {row[0] for row in rows}
        assert self.completed <= now, "an acknowledged completion is gone"
        self.completed = now
        return len(now)


def test_a_crashed_server_loses_nothing_it_acknowledged() -> None:
    stop = threading.Event()
    ran: Counter[int] = Counter()
    acknowledged: list[list[int]] = [[] for _ in range(PRODUCERS)]
    unknown = [0] * PRODUCERS

    @awa.task(max_attempts=3)
    def work(n: int) -> None:
        ran[awa.current_job().id] += 1

    with private_server() as server:
        dsn = server.database("crash")
        with connect(dsn, "awa migrate") as conn:
            migrate(conn)

        def produce(me: int) -> None:
            with awa.Client(dsn, connect_timeout=30) as own:
                while not stop.is_set():
                    try:
                        ids = own.enqueue_many([{"n": me}] * (15 if me else 1), kind=work)
                        acknowledged[me].extend(ids)
                    except (awa.DatabaseUnavailable, psycopg.OperationalError):
                        unknown[me] += 1
                    stop.wait(0.004)

        producers = [threading.Thread(target=produce, args=(me,)) for me in range(PRODUCERS)]
        observer = Observer()
        with awa.Worker({"default": 4}, dsn=dsn, promote_every=0.05) as worker:
            for producer in producers:
                producer.start()
            try:
                for _ in range(CRASHES):
                    before = len(acknowledged[0]), worker.stats().completed, observer.look(dsn)
                    wait_for(lambda b=before: len(acknowledged[0]) > b[0] + 20)  # type: ignore[misc]
                    wait_for(lambda b=before: worker.stats().completed > b[1] + 300)  # type: ignore[misc]
                    observer.look(dsn)
                    server.crash()
                    server.restart_after_crash()
                    observer.look(dsn)
                after = len(acknowledged[0]), worker.stats().completed
                wait_for(lambda: len(acknowledged[0]) > after[0], what="a producer that went on")
                wait_for(lambda: worker.stats().completed > after[1], what="a worker that went on")
            finally:
                stop.set()
                for producer in producers:
                    producer.join()
            with awa.Client(dsn) as client:
                wait_for(lambda: client.queue_counts("default").unfinished == 0, what="every job's end")
                observer.look(dsn)
                promised = {job_id for ids in acknowledged for job_id in ids}
                counts = client.queue_counts("default")
                sample = [client.get_job(job_id) for job_id in sorted(promised)[::50]]
        assert promised <= observer.completed, "an acknowledged enqueue is lost"
        assert all(isinstance(job, Job) and job.state == "completed" for job in sample)
        assert (counts.running, counts.failed, counts.completed) == (0, 0, len(observer.completed))
        assert set(ran) >= observer.completed, "completed and never run"
        assert handed_out_twice(dsn) == []
        assert _completed_twice(dsn) == []
    assert len(promised) > 500


def _completed_twice(dsn: str) -> list[Any]:
    with connect(dsn, "awa test") as conn:
        return conn.execute(
            "SELECT job_id, run_lease FROM awa.claim_items WHERE outcome = 'completed' GROUP BY 1, 2 HAVING count(*) > 1"
        ).fetchall()
