"""Ten thousand jobs through real workers that are killed, frozen and cut off: every job ends, every attempt is explained."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import awa
from awa.migrate import migrate
from awa.postgres import Connection, connect
from tests.chaos.fleet import (
    Fleet,
    fleet,
    kill_a_process,
    kill_a_supervisor,
    kill_a_worker,
    kill_the_leader,
    living,
)
from tests.servers import private_server
from tests.waiting import wait_for
from tests.worker.support import handed_out_twice, job_in_state

JOBS = 10_000
ROUNDS = 5

CREATE_EFFECTS = "CREATE TABLE effects (job_id int8, run_lease int4, attempt int4)"

Torment = Callable[[Fleet, awa.Client], None]


def suffer(dsn: str, client: awa.Client, workers: Fleet, torment: Torment) -> None:
    """Enqueue in rounds, each with a torment in the middle of its work, and check what came of it."""
    ids: list[int] = []
    for _ in range(ROUNDS):
        before = ended(client)
        ids += client.enqueue_many([{"n": n} for n in range(JOBS // ROUNDS)], kind="effect")
        wait_for(lambda before=before: ended(client) > before + 100, what="work in this round")  # type: ignore[misc]
        torment(workers, client)
    wait_for(lambda: unfinished(client) == 0, what="every job's end")
    check(dsn, client, ids)


def ended(client: awa.Client) -> int:
    """Jobs that are done."""
    return client.queue_counts("default").completed


def unfinished(client: awa.Client) -> int:
    """Jobs that are not."""
    return client.queue_counts("default").unfinished


def check(dsn: str, client: awa.Client, ids: list[int]) -> None:
    """Every job has ended, well, within its attempts, and what its handlers did explains every one of them."""
    counts = client.queue_counts("default")
    assert counts.completed == len(ids) == JOBS
    assert (counts.failed, counts.dead_lettered, counts.cancelled) == (0, 0, 0)
    with connect(dsn, "awa test") as conn:
        assert conn.execute("SELECT count(*) FROM awa.jobs WHERE attempt > max_attempts").fetchall() == [(0,)]
        twice = conn.execute("SELECT job_id, run_lease FROM effects GROUP BY 1, 2 HAVING count(*) > 1").fetchall()
        assert twice == [], "one hand-out ran twice"
        unexplained = conn.execute(
            "SELECT e.job_id FROM effects e LEFT JOIN awa.claim_items i USING (job_id, run_lease) WHERE i.job_id IS NULL"
        ).fetchall()
        assert unexplained == [], "a job ran that nobody had claimed"
        silent = conn.execute(
            "SELECT i.job_id FROM awa.claim_items i LEFT JOIN effects e USING (job_id, run_lease)"
            " WHERE i.outcome = 'completed' AND e.job_id IS NULL"
        ).fetchall()
        assert silent == [], "a job completed that never ran"
        endings = conn.execute(
            "SELECT job_id FROM awa.claim_items WHERE outcome = 'completed' GROUP BY 1 HAVING count(*) <> 1"
        ).fetchall()
        assert endings == [], "a job completed twice"
    assert handed_out_twice(dsn) == []


def terminate_backends(fleet: Fleet, client: awa.Client) -> None:
    """Cut every connection of every worker."""
    with connect(fleet.dsn, "torment") as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name LIKE 'awa %' AND application_name <> 'awa client'"
        )


def deafen(fleet: Fleet, client: awa.Client) -> None:
    """Let the listening connections of some processes fall silent: from then on they poll."""
    ids = client.enqueue_many([{}] * 40, kind="go_deaf", queue="deaf")
    wait_for(lambda: all((job := client.get_job(i)) and job.state == "completed" for i in ids), what="silence")


@pytest.mark.slow
@pytest.mark.parametrize(
    "torment",
    [kill_a_process, kill_the_leader, kill_a_supervisor, kill_a_worker, terminate_backends, deafen],
    ids=lambda t: t.__name__,
)
def test_every_job_ends_whatever_happens_to_its_workers(
    dsn: str, client: awa.Client, conn: Connection, tmp_path: Path, torment: Torment
) -> None:
    conn.execute(CREATE_EFFECTS)
    with fleet(dsn, tmp_path / "log") as workers:
        suffer(dsn, client, workers, torment)


@pytest.mark.slow
def test_every_job_ends_whatever_happens_to_the_server(tmp_path: Path) -> None:
    with private_server() as server:
        dsn = server.database("chaos")
        with connect(dsn, "awa migrate") as conn:
            migrate(conn)
            conn.execute(CREATE_EFFECTS)

        def crash(workers: Fleet, client: awa.Client) -> None:
            server.crash()
            server.restart_after_crash()
            client.close()

        with awa.Client(dsn) as client, fleet(dsn, tmp_path / "log") as workers:
            suffer(dsn, client, workers, crash)


@pytest.mark.slow
def test_a_worker_that_was_frozen_past_its_staleness_ends_nothing_twice(
    dsn: str, client: awa.Client, conn: Connection, tmp_path: Path
) -> None:
    conn.execute(CREATE_EFFECTS)
    with fleet(dsn, tmp_path / "log") as workers:
        wait_for(lambda: len(living(client)) == 4, what="four processes")
        ids = client.enqueue_many([{"n": n} for n in range(JOBS)], kind="effect")
        wait_for(lambda: ended(client) > 500, what="work")
        frozen = workers.workers[0]
        workers.signal_group(frozen, signal.SIGSTOP)
        wait_for(lambda: len(living(client)) == 2, what="the frozen processes' death by silence")
        wait_for(lambda: unfinished(client) == 0, what="every job's end by the others")
        check(dsn, client, ids)
        workers.signal_group(frozen, signal.SIGCONT)
        wait_for(lambda: len(living(client)) == 4, what="their new identities")
        again = client.enqueue_many([{"n": 1}] * 200, kind="effect")
        wait_for(lambda: ended(client) == JOBS + len(again))
        rows = conn.execute("SELECT job_id, run_lease FROM effects GROUP BY 1, 2 HAVING count(*) > 1").fetchall()
        assert rows == []
    assert handed_out_twice(dsn) == []


@pytest.mark.slow
def test_a_handler_that_holds_the_interpreter_is_not_rescued(dsn: str, client: awa.Client, tmp_path: Path) -> None:
    with fleet(dsn, tmp_path / "log", workers=2, jobs=1, processes=1):
        wait_for(lambda: len(living(client)) == 2, what="two processes")
        job_id = client.enqueue("hold_the_gil", {"seconds": 14})  # stale after 10
        wait_for(lambda: (job := client.get_job(job_id)) is not None and job.state == "running")
        job = wait_for(lambda: j if (j := client.get_job(job_id)) is not None and j.state != "running" else None)
    assert job is not None
    assert (job.state, job.attempt, job.run_lease, job.errors) == ("completed", 1, 1, ())


@pytest.mark.slow
def test_an_orphaned_process_finishes_what_it_runs(dsn: str, client: awa.Client, tmp_path: Path) -> None:
    with fleet(dsn, tmp_path / "log", workers=2, jobs=1, processes=1) as workers:
        wait_for(lambda: len(living(client)) == 2, what="two processes")
        job_id = client.enqueue("patient", {"seconds": 14})  # stale after 10
        owner = job_in_state(client, job_id, "running").runtime_id
        supervisor = next(
            worker
            for worker in workers.workers
            if os.getpgid(next(r.pid for r in living(client) if r.runtime_id == owner)) == worker.pid
        )
        supervisor.kill()
        supervisor.wait()
        job = job_in_state(client, job_id, "completed")
        assert (job.attempt, job.run_lease, job.errors) == (1, 1, ())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stubborn", "stubborn_in_c"])
def test_a_handler_that_ignores_its_timeout_costs_its_process_and_no_other_job_an_attempt(
    dsn: str, client: awa.Client, tmp_path: Path, kind: str
) -> None:
    with fleet(dsn, tmp_path / "log", workers=1, jobs=2, processes=1, more=["--hard-stop-after", "0.5"]) as workers:
        innocent = client.enqueue("patient", {"seconds": 300})
        job_in_state(client, innocent, "running")
        (before,) = living(client)
        guilty = client.enqueue(kind, max_attempts=1)
        job = job_in_state(client, guilty, "dead_lettered")
        assert [error["type"] for error in job.errors] == ["JobTimeout" if kind == "stubborn" else "DeadlineExpired"]
        wait_for(lambda: [r.pid for r in living(client)] not in ([], [before.pid]), what="a new process")
        second = wait_for(lambda: j if (j := client.get_job(innocent)) is not None and j.run_lease > 1 else None)
        assert second is not None
        assert (second.attempt, second.run_lease, second.errors) == (1, 2, ())
        assert workers.workers[0].poll() is None


@pytest.mark.parametrize("step", ["before", "begun", "between", "written", "completed", "committed"])
def test_effects_in_the_handlers_transaction_happen_exactly_once_wherever_the_process_dies(
    dsn: str, client: awa.Client, conn: Connection, tmp_path: Path, step: str
) -> None:
    conn.execute("CREATE TABLE business (job_id int8, n int4)")
    with fleet(dsn, tmp_path / "log", workers=1, jobs=1, processes=1):
        job_id = client.enqueue("exactly_once", {"step": step})
        job = job_in_state(client, job_id, "completed")
        assert conn.execute("SELECT n FROM business WHERE job_id = %s ORDER BY n", (job_id,)).fetchall() == [(1,), (2,)]
        assert job.run_lease == (1 if step == "committed" else 2)
