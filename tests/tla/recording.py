"""A real run of `awa worker` with something of all, recorded: `python -m tests.tla.recording FILE` makes a fixture."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import awa
from awa import trace
from awa.migrate import migrate
from awa.postgres import connect
from tests.chaos.fleet import living
from tests.servers import private_server
from tests.waiting import PATIENCE, wait_for
from tests.worker.support import job_in_state

ROUNDS = 5
ENDS = {
    "works": "completed",
    "fails_twice": "completed",
    "always_fails": "dead_lettered",
    "gives_up": "dead_lettered",
    "snoozes": "completed",
    "withdraws": "cancelled",
    "reports": "completed",
    "in_transaction": "completed",
    "comes_too_late": "cancelled",
}
ATTEMPTS = {"always_fails": 2}


@contextmanager
def traced_worker(dsn: str, file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An `awa worker` of two processes that writes its trace to `file`; told to stop at the end."""
    worker = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "awa_cli",
            "worker",
            "--queues",
            "default:4",
            "--processes",
            "2",
            "--import",
            "tests.tla.tasks",
        ],
        env={**os.environ, "AWA_DSN": dsn, "AWA_TRACE": str(file)},
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
    )
    try:
        yield worker
        worker.terminate()
        assert worker.wait(PATIENCE) == 0
    finally:
        worker.kill()
        worker.wait()


def record(dsn: str, file: Path) -> None:
    """Let real processes run jobs that end in every way, and write the trace of all of them, this one included."""
    trace.start(file)
    try:
        with awa.Client(dsn) as client, traced_worker(dsn, file):
            _work(client)
            # One dies on its own in the middle of others' work.
            ids = client.enqueue_many([{}] * 50, kind="works")
            killer = client.enqueue("dies_once", max_attempts=3)
            assert job_in_state(client, killer, "completed").run_lease == 2
            for job_id in ids:
                job_in_state(client, job_id, "completed")
            # A process that is still starting when it is told to stop has no ear for it yet.
            wait_for(lambda: len(living(client)) == 2, what="the dead process's successor")
    finally:
        trace.stop()


def _work(client: awa.Client) -> None:
    jobs = [
        (client.enqueue(kind, max_attempts=ATTEMPTS.get(kind)), state) for kind, state in ENDS.items() for _ in range(ROUNDS)
    ]
    jobs += [(client.enqueue("works", run_at=datetime.now(UTC) + timedelta(seconds=0.1)), "completed")]
    scheduled = client.enqueue("works", run_at=datetime.now(UTC) + timedelta(hours=1))
    assert client.cancel(scheduled)
    for answer, state in (("complete", "completed"), ("fail", "dead_lettered"), ("retry", "completed")):
        asking = client.enqueue("asks", max_attempts=1)
        job_in_state(client, asking, "waiting")
        if answer == "fail":
            assert client.fail_external(asking, "no")
        else:
            if answer == "retry":
                assert client.retry_external(asking)
                wait_for(lambda job_id=asking: (j := client.get_job(job_id)) and j.run_lease == 2 and j.state == "waiting")  # type: ignore[misc]
            assert client.complete_external(asking, {"ok": True})
        assert not client.complete_external(asking)
        jobs.append((asking, state))
    again = client.enqueue("fails_until_retried", max_attempts=1)
    job_in_state(client, again, "dead_lettered")
    assert client.retry(again)
    jobs.append((again, "completed"))
    unwanted = client.enqueue("gives_up")
    job_in_state(client, unwanted, "dead_lettered")
    assert client.delete(unwanted)
    running = client.enqueue("patient")
    job_in_state(client, running, "running")
    assert client.cancel(running)
    assert not client.cancel(running)
    for job_id, state in jobs:
        job_in_state(client, job_id, state)


def main() -> None:
    """Record on a server of its own."""
    with private_server() as server:
        dsn = server.database("recording")
        with connect(dsn, "awa migrate") as conn:
            migrate(conn)
        record(dsn, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
