"""Workers behind PgBouncer: polling, or with a direct connection for wake-ups."""

from __future__ import annotations

import itertools
import logging
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

import awa
from awa.errors import from_database
from awa.postgres import connect
from awa.storage.claim import claim_jobs, prepare_claiming, random_id
from awa.worker import dispatcher
from tests.chaos.fleet import living
from tests.cli.commands import started
from tests.pgbouncer.conftest import PgBouncer
from tests.pgbouncer.test_client import CLEAN, left_behind
from tests.sql.engine import RUNTIME
from tests.waiting import PATIENCE, wait_for
from tests.worker.support import handed_out_twice, job_in_state, terminate, wait_for_counts


@pytest.fixture
def quick() -> awa.Task[..., Any, Any]:
    """A task that does nothing."""

    @awa.task(queue="q")
    def quick() -> None: ...

    return quick


def test_a_worker_polls_and_says_why(
    pooled_dsn: str, pooled_client: awa.Client, quick: awa.Task[..., Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with awa.Worker({"q": 4}, dsn=pooled_dsn, poll_every=0.05) as worker:
        assert worker.wait_until_ready(PATIENCE)
        for n in range(1, 31):
            pooled_client.enqueue(quick)
            if n % 10 == 0:
                wait_for_counts(pooled_client, "q", completed=n)
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1
    assert "a pooler is between here and PostgreSQL" in said[0]
    assert "--listen-dsn (AWA_LISTEN_DSN)" in said[0]
    assert left_behind(pooled_dsn) == CLEAN


def test_everything_a_handler_may_ask_for_works(pooled_dsn: str, dsn: str, pooled_client: awa.Client) -> None:
    @awa.task(queue="q", max_attempts=3, retry=[0.05])
    def ask(job: awa.JobContext) -> str:
        job.checkpoint(job.attempt)
        job.progress(50, "half")
        if job.attempt == 1:
            raise RuntimeError("once")
        with job.transaction() as conn:
            conn.execute("CREATE TABLE business (id int)")
            job.enqueue("quick", queue="later")
        return "done"

    with awa.Worker({"q": 4}, dsn=pooled_dsn, poll_every=0.05) as worker:
        assert worker.wait_until_ready(PATIENCE)
        job_id = pooled_client.enqueue(ask)
        deferred = pooled_client.enqueue(ask, run_at=datetime.now(UTC) + timedelta(seconds=0.2), max_attempts=1)
        job_in_state(pooled_client, job_id, "completed")
        job_in_state(pooled_client, deferred, "dead_lettered")  # promoted by the leader, which leads through the pooler
    assert pooled_client.queue_counts("later").available == 1
    assert left_behind(pooled_dsn) == CLEAN


def test_a_running_job_is_cancelled_by_asking(pooled_dsn: str, pooled_client: awa.Client) -> None:
    @awa.task(queue="q")
    def hold(job: awa.JobContext) -> None:
        wait_for(lambda: job.cancelled)

    with awa.Worker({"q": 1}, dsn=pooled_dsn, poll_every=0.05) as worker:
        assert worker.wait_until_ready(PATIENCE)
        job_id = pooled_client.enqueue(hold)
        job_in_state(pooled_client, job_id, "running")
        assert pooled_client.cancel(job_id)
        wait_for(lambda: worker.stats().running == 0)
    job_in_state(pooled_client, job_id, "cancelled")


def test_a_direct_connection_wakes_a_worker_that_would_poll_much_later(
    pooled_dsn: str, dsn: str, pooled_client: awa.Client, quick: awa.Task[..., Any, Any]
) -> None:
    with awa.Worker({"q": 1}, dsn=pooled_dsn, listen_dsn=dsn, poll_every=600) as worker:
        assert worker.wait_until_ready(PATIENCE)
        for n in range(1, 4):
            pooled_client.enqueue(quick)
            wait_for_counts(pooled_client, "q", completed=n)
        with connect(dsn, "awa test") as conn:
            listening = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'awa listener'"
            assert conn.execute(listening + " AND datname = current_database()").fetchall() == [(1,)]
    assert left_behind(pooled_dsn) == CLEAN


def test_a_listening_connection_that_is_lost_comes_again(
    pooled_dsn: str,
    dsn: str,
    conn: psycopg.Connection[Any],
    pooled_client: awa.Client,
    quick: awa.Task[..., Any, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatcher, "LISTEN_AGAIN_AFTER", 0.05)
    with awa.Worker({"q": 1}, dsn=pooled_dsn, listen_dsn=dsn, poll_every=0.5) as worker:
        assert worker.wait_until_ready(PATIENCE)
        for n in range(1, 4):
            worker._dispatcher.listener.heard_itself.clear()
            assert terminate(conn, ["awa listener"]) == 1
            assert worker.wait_until_ready(PATIENCE)
            pooled_client.enqueue(quick)
            wait_for_counts(pooled_client, "q", completed=n)


def test_listening_through_a_pooler_too_is_an_error_that_costs_only_wake_ups(
    pooled_dsn: str, pooled_client: awa.Client, quick: awa.Task[..., Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with awa.Worker({"q": 1}, dsn=pooled_dsn, listen_dsn=pooled_dsn, poll_every=0.05):
        pooled_client.enqueue(quick)
        wait_for_counts(pooled_client, "q", completed=1)
        wait_for(lambda: "leads to a pooler, too" in caplog.text)
    assert left_behind(pooled_dsn) == CLEAN


def test_a_listening_connection_to_nowhere_costs_only_wake_ups(
    pooled_dsn: str, pooled_client: awa.Client, quick: awa.Task[..., Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with awa.Worker({"q": 1}, dsn=pooled_dsn, listen_dsn="host=/nowhere", poll_every=0.05):
        pooled_client.enqueue(quick)
        wait_for_counts(pooled_client, "q", completed=1)
        wait_for(lambda: "no wake-ups for now, polling goes on" in caplog.text)


@pytest.mark.parametrize("pooled", [True, False])
def test_a_claim_is_on_the_clock(dsn: str, pooled_dsn: str, client: awa.Client, pooled: bool) -> None:
    client.enqueue("work", queue="q")
    with connect(pooled_dsn if pooled else dsn, "awa test") as claiming, psycopg.connect(dsn) as other:
        local = prepare_claiming(claiming, statement_timeout=0.2)
        assert bool(local) is pooled
        other.execute("LOCK awa.lease_claim_batches")
        with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
            claim_jobs(claiming, "q", 1, RUNTIME, random_id(), local=local)
        other.rollback()
        assert len(claim_jobs(claiming, "q", 1, RUNTIME, random_id(), local=local)) == 1


def test_a_database_whose_transactions_are_not_read_committed_is_refused_by_name(
    dsn: str, pooled_dsn: str, client: awa.Client
) -> None:
    client.enqueue("work", queue="q")
    with connect(dsn, "awa test") as conn:
        conn.execute(
            "DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', "
            "current_database()); END$$"
        )
    with connect(pooled_dsn, "awa test") as claiming:
        local = prepare_claiming(claiming)
        with pytest.raises(psycopg.Error) as refused:
            claim_jobs(claiming, "q", 1, RUNTIME, random_id(), local=local)
    assert "READ COMMITTED" in str(from_database(refused.value))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a module of tasks."""
    (tmp_path / "app_tasks.py").write_text("import awa\n\n@awa.task(queue='q')\ndef quick(n: int) -> None: ...\n")
    return tmp_path


def test_wake_ups_do_not_hurry_the_way_back_to_a_pooler_that_is_gone(
    own_pgbouncer: PgBouncer,
    dsn: str,
    client: awa.Client,
    quick: awa.Task[..., Any, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def pauses() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.message.startswith("claiming pauses")]

    pooled = own_pgbouncer.dsn(str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]))
    with awa.Worker({"q": 2}, dsn=pooled, listen_dsn=dsn, poll_every=0.2) as worker:
        assert worker.wait_until_ready(PATIENCE)
        own_pgbouncer.stop(signal.SIGKILL)
        enqueued = 0
        while len(pauses()) < 4:
            client.enqueue(quick)
            enqueued += 1
        for earlier, later in itertools.pairwise(pauses()):
            assert isinstance(earlier.args, tuple)
            assert later.created - earlier.created >= 0.9 * float(str(earlier.args[0]))
        own_pgbouncer.start()
        wait_for_counts(client, "q", completed=enqueued)


def test_a_fleet_survives_the_pooler(own_pgbouncer: PgBouncer, dsn: str, client: awa.Client, folder: Path) -> None:
    pooled = own_pgbouncer.dsn(str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]))
    command = ["worker", "--queues", "q:4", "--import", "app_tasks", "--processes", "2", "--poll-every", "0.2"]
    with started(pooled, *command, "--listen-dsn", dsn, cwd=folder, log=folder / "log") as process:
        done = 0
        wait_for(lambda: len(living(client)) == 2, what="both processes to be at work")
        for how in (None, signal.SIGKILL, signal.SIGTERM):
            if how is not None:
                own_pgbouncer.stop(how)
                client.enqueue_many([{"n": n} for n in range(100)], kind="quick", queue="q")
                own_pgbouncer.start()
            with awa.Client(pooled) as pooled_client, ThreadPoolExecutor(4) as threads:
                list(threads.map(lambda n: pooled_client.enqueue("quick", {"n": n}, queue="q"), range(100)))
            done += 100 + 100 * (how is not None)
            wait_for_counts(client, "q", completed=done)
        process.terminate()
        assert process.wait(PATIENCE) == 0, (folder / "log").read_text()
    assert handed_out_twice(dsn) == []
    assert b"Traceback" not in (folder / "log").read_bytes()
