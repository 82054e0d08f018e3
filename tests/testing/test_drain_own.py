"""drain(connection=...): jobs of an open transaction are run and ended inside it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import psycopg
import pytest
from psycopg.pq import TransactionStatus

import awa
from awa.errors import AwaError, ConfigurationError, IsolationError, UnusableConnection
from awa.job import NewJob
from awa.testing import Clock, drain
from awa.testing.attempts import UnknownKind
from tests.sql.engine import claim_all, read
from tests.testing.support import Ledger, state_of

Tasks = dict[str, awa.Task[..., Any, Any]]
Connection = psycopg.Connection[Any]


def test_uncommitted_jobs_run_and_a_rollback_undoes_everything(
    client: awa.Client, tasks: Tasks, ledger: Ledger, tx: Connection, conn: Connection
) -> None:
    tx.execute("CREATE TABLE business ()")
    ids = client.enqueue_many([{"n": n} for n in range(3)], kind=tasks["work"], connection=tx)
    done = drain(connection=tx)
    assert ledger.lines == [0, 1, 2]
    assert done.completed == 3
    assert [state_of(tx, job_id) for job_id in ids] == ["completed"] * 3
    assert tx.info.transaction_status == TransactionStatus.INTRANS
    assert drain(connection=tx).total == 0
    tx.rollback()
    assert read(conn, "SELECT to_regclass('business'), (SELECT count(*) FROM awa.jobs)") == [(None, 0)]


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("retry", "retryable"),
        ("snooze", "scheduled"),
        ("cancel", "cancelled"),
        ("fail", "dead_lettered"),
        ("fail_quietly", "failed"),
        ("wait", "waiting"),
    ],
)
def test_an_outcome_ends_the_job_as_in_a_worker(
    client: awa.Client, tasks: Tasks, tx: Connection, kind: str, state: str
) -> None:
    with Clock() as clock:
        clock.move(hours=1)
        job_id = client.enqueue(tasks[kind], connection=tx)
        done = drain(connection=tx)
    assert [(job.id, job.attempt, job.state) for job in done.jobs] == [(job_id, 1, state)]
    tx.commit()
    job = client.get_job(job_id)
    assert job is not None
    assert job.state == state
    assert job.run_lease == 1
    if state in ("retryable", "scheduled"):
        assert job.run_at > datetime.now(UTC) + timedelta(hours=1), "its delay counts from the moved clock"
    if state == "waiting":
        assert client.complete_external(job_id, {"paid": True})
        assert client.result(job_id, timeout=0) == {"paid": True}


def test_a_callback_id_given_inside_is_good_after_the_commit(client: awa.Client, tx: Connection) -> None:
    given: list[str] = []

    @awa.task(queue="q")
    def ask(ctx: awa.JobContext) -> None:
        given.append(ctx.register_callback())
        ctx.wait_for_callback()

    job_id = client.enqueue(ask, connection=tx)
    assert drain(connection=tx).waiting == 1
    tx.commit()
    assert client.complete_external(given[0], "yes")
    assert client.result(job_id, timeout=0) == "yes"


def test_jobs_of_savepoints_are_the_transactions_own(
    client: awa.Client, tasks: Tasks, ledger: Ledger, tx: Connection
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)

    def both(n: int) -> None:
        client.enqueue(tasks["work"], {"n": n}, connection=tx)
        client.enqueue(tasks["work"], {"n": n + 1}, run_at=later, connection=tx)

    tx.execute("SELECT 1")
    with tx.transaction():
        both(1)
        with tx.transaction():
            both(3)
    with tx.transaction(force_rollback=True):
        both(5)
    assert drain(connection=tx, with_scheduled=True).completed == 4
    assert sorted(ledger.lines) == [1, 2, 3, 4]


def test_deferred_jobs_of_a_savepoint_alone_are_found(
    client: awa.Client, tasks: Tasks, ledger: Ledger, tx: Connection
) -> None:
    tx.execute("CREATE TEMP TABLE first ()")
    with tx.transaction():
        client.enqueue(tasks["work"], {"n": 1}, run_at=datetime.now(UTC) + timedelta(hours=1), connection=tx)
    with Clock() as clock:
        assert drain(connection=tx).total == 0
        clock.move(hours=1)
        assert drain(connection=tx).completed == 1


def test_what_others_have_committed_is_not_touched(
    client: awa.Client, tasks: Tasks, ledger: Ledger, tx: Connection, conn: Connection
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    client.enqueue_many([NewJob({"n": 1}), NewJob({"n": 2}, options=awa.JobOptions(run_at=later))], kind=tasks["work"])
    client.enqueue(tasks["work"], {"n": 3}, connection=tx)
    # Younger than the transaction, so it is not told by age.
    client.enqueue_many([NewJob({"n": 4}), NewJob({"n": 5}, options=awa.JobOptions(run_at=later))], kind=tasks["work"])
    assert drain(connection=tx, with_scheduled=True).completed == 1
    assert ledger.lines == [3]
    tx.rollback()
    assert claim_all(conn) == [1, 4]
    assert client.queue_counts("q").scheduled == 2


def test_an_open_drain_blocks_nobody(client: awa.Client, tasks: Tasks, tx: Connection, conn: Connection) -> None:
    client.enqueue(tasks["work"], {"n": 1})
    other = client.enqueue(tasks["work"], {"n": 2})
    client.enqueue(tasks["work"], {"n": 3}, connection=tx)
    drain(connection=tx)
    assert client.cancel(other)
    client.enqueue(tasks["work"], {"n": 4})
    assert claim_all(conn) == [1, 4]
    tx.commit()
    assert claim_all(conn) == []


def test_the_handlers_writes_and_the_ending_are_one_savepoint(client: awa.Client, tx: Connection) -> None:
    tx.execute("CREATE TABLE charges (n int)")

    @awa.task(queue="q")
    def charge(ctx: awa.JobContext, n: int) -> None:
        with ctx.transaction() as conn:
            assert conn is tx
            conn.execute("INSERT INTO charges VALUES (%s)", (n,))

    @awa.task(queue="q", retry=False)
    def change_ones_mind(ctx: awa.JobContext) -> None:
        with ctx.transaction() as conn:
            conn.execute("INSERT INTO charges VALUES (99)")
            raise LookupError("no")

    charged = client.enqueue(charge, {"n": 1}, connection=tx)
    failed = client.enqueue(change_ones_mind, connection=tx)
    assert drain(connection=tx, raises=False).total == 2
    assert read(tx, "SELECT n FROM charges") == [(1,)]
    assert (state_of(tx, charged), state_of(tx, failed)) == ("completed", "dead_lettered")


def test_a_handlers_failed_statement_leaves_the_transaction_usable(client: awa.Client, tx: Connection) -> None:
    tx.execute("CREATE TABLE numbers (n int PRIMARY KEY)")

    @awa.task(queue="q")
    def insert_twice() -> None:
        tx.execute("INSERT INTO numbers VALUES (1)")
        tx.execute("INSERT INTO numbers VALUES (1)")

    job_id = client.enqueue(insert_twice, connection=tx)
    with pytest.raises(psycopg.errors.UniqueViolation):
        drain(connection=tx)
    assert state_of(tx, job_id) == "retryable"
    assert read(tx, "SELECT n FROM numbers") == []


def test_a_handler_that_swallows_a_failed_statement_is_told(client: awa.Client, tx: Connection) -> None:
    @awa.task(queue="q")
    def swallow() -> None:
        with pytest.raises(psycopg.errors.UndefinedTable):
            tx.execute("SELECT 1 FROM nothing_here")

    job_id = client.enqueue(swallow, connection=tx)
    with pytest.raises(AwaError, match="put what may fail into a savepoint"):
        drain(connection=tx)
    assert state_of(tx, job_id) == "retryable"


def test_writes_of_a_handler_that_fails_in_python_stay(client: awa.Client, tx: Connection) -> None:
    """As those of a worker's handler do that has not put them into a transaction."""
    tx.execute("CREATE TABLE notes ()")

    @awa.task(queue="q")
    def note_and_fail() -> NoReturn:
        tx.execute("INSERT INTO notes DEFAULT VALUES")
        raise ValueError("later")

    client.enqueue(note_and_fail, connection=tx)
    drain(connection=tx, raises=False)
    assert read(tx, "SELECT count(*) FROM notes") == [(1,)]


def test_follow_ups_results_progress_and_checkpoints_work(
    client: awa.Client, tasks: Tasks, ledger: Ledger, tx: Connection
) -> None:
    @awa.task(queue="q", retry=[5])
    def steps(ctx: awa.JobContext) -> None:
        if ctx.last_checkpoint is None:
            ctx.checkpoint({"step": 1})
            raise awa.Retry
        ctx.progress(100, "done")

    client.enqueue(tasks["parent"], {"n": 5}, connection=tx)
    added = client.enqueue(tasks["add"], {"a": 1, "b": 2}, connection=tx)
    stepped = client.enqueue(steps, connection=tx)
    with Clock() as clock:
        assert drain(connection=tx).total == 4
        clock.move(seconds=6)
        assert drain(connection=tx).total == 1
    assert ledger.lines == [5]
    tx.commit()
    assert client.result(added, timeout=0) == 3
    job = client.get_job(stepped)
    assert job is not None
    assert (job.state, job.attempt, job.run_lease, job.checkpoint) == ("completed", 2, 2, {"step": 1})
    assert job.progress is not None
    assert job.progress["message"] == "done"


def test_a_handler_that_drains_does_not_take_itself(
    client: awa.Client, tasks: Tasks, ledger: Ledger, tx: Connection
) -> None:
    @awa.task(queue="q")
    def nested() -> None:
        ledger.lines.append(drain(connection=tx).total)

    client.enqueue(nested, connection=tx)
    client.enqueue(tasks["work"], {"n": 1}, connection=tx)
    assert drain(connection=tx).total == 1
    assert ledger.lines == [1, 1]


def test_priorities_queues_limits_and_pauses_are_kept(
    client: awa.Client, tasks: Tasks, ledger: Ledger, tx: Connection
) -> None:
    for n, (queue, priority) in enumerate([("a", 2), ("a", 1), ("b", 1), ("paused", 1)]):
        client.enqueue(tasks["work"], {"n": n}, queue=queue, priority=priority, connection=tx)
    later = datetime.now(UTC) + timedelta(hours=1)
    client.enqueue(tasks["work"], {"n": 9}, queue="paused", run_at=later, connection=tx)
    client.pause_queue("paused")
    assert drain(connection=tx, queue="b", limit=5).total == 1
    assert drain(connection=tx, limit=1).total == 1
    assert drain(connection=tx, with_scheduled=True).total == 1
    assert ledger.lines == [2, 1, 0]


def test_a_partitioned_queue_of_the_transaction_is_drained_whole(
    client: awa.Client, tasks: Tasks, ledger: Ledger, tx: Connection
) -> None:
    email = awa.PartitionedQueue("email", 3)
    client.set_enqueue_shards(email, 2)
    client.enqueue_many([{"n": n} for n in range(6)], kind=tasks["work"], queue=email, connection=tx)
    client.enqueue(tasks["work"], {"n": 7}, queue="rest", connection=tx)
    assert drain(connection=tx, queue=email).total == 6
    assert sorted(ledger.lines) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("return_ids", [False, True])
def test_jobs_of_a_copy_run_in_the_transaction_too(
    client: awa.Client, tasks: Tasks, ledger: Ledger, tx: Connection, return_ids: bool
) -> None:
    later = awa.JobOptions(run_at=datetime.now(UTC) + timedelta(hours=1))
    unique = awa.JobOptions(unique=awa.Unique(), tags=["t"])
    client.enqueue_many_copy(
        ({"n": n} for n in range(9)),
        kind=tasks["work"],
        opts=lambda args: (None, later, unique)[args["n"] % 3],
        connection=tx,
        return_ids=return_ids,
    )
    assert drain(connection=tx).completed == 6
    assert drain(connection=tx, with_scheduled=True).completed == 3
    assert sorted(ledger.lines) == list(range(9))
    tx.rollback()
    assert client.queue_counts("q").completed == 0


def test_a_job_cancelled_in_the_same_transaction_does_not_run(client: awa.Client, tasks: Tasks, tx: Connection) -> None:
    job_id = client.enqueue(tasks["work"], {"n": 1}, connection=tx)
    assert read(tx, "SELECT awa.cancel_job(%s)", (job_id,)) == [("cancelled",)]
    assert drain(connection=tx).total == 0


def test_an_unknown_kind_is_named(client: awa.Client, tx: Connection) -> None:
    job_id = client.enqueue("nobody_knows", connection=tx)
    with pytest.raises(UnknownKind, match="nobody_knows"):
        drain(connection=tx)
    assert state_of(tx, job_id) == "scheduled"


def test_an_interrupt_leaves_the_job_where_it_was(client: awa.Client, tx: Connection) -> None:
    @awa.task(queue="q")
    def interrupted() -> None:
        raise KeyboardInterrupt

    job_id = client.enqueue(interrupted, connection=tx)
    with pytest.raises(KeyboardInterrupt):
        drain(connection=tx)
    assert state_of(tx, job_id) == "available"


def test_a_connection_without_a_transaction_is_refused(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn, pytest.raises(ConfigurationError, match="in no transaction"):
        drain(connection=conn)


def test_a_transaction_that_has_not_begun_has_no_jobs(tx: Connection) -> None:
    assert drain(connection=tx).total == 0
    assert tx.info.transaction_status == TransactionStatus.IDLE


def test_a_failed_transaction_is_refused(tx: Connection) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        tx.execute("SELECT 1/0")
    with pytest.raises(UnusableConnection):
        drain(connection=tx)


def test_a_transaction_of_another_isolation_level_is_refused_and_goes_on(
    client: awa.Client, tasks: Tasks, tx: Connection
) -> None:
    tx.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    client.enqueue(tasks["work"], {"n": 1}, connection=tx)
    with pytest.raises(IsolationError, match="REPEATABLE READ"):
        drain(connection=tx)
    assert tx.info.transaction_status == TransactionStatus.INTRANS
