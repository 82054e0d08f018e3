"""inline: every job runs as it is enqueued, and no database is asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import psycopg
import pytest

import awa
from awa.errors import AwaError, ConfigurationError, JobUnsuccessful, UniqueConflict
from awa.testing import Clock, Inline, drain, inline
from awa.testing.attempts import UnknownKind
from tests.testing.support import Ledger

Tasks = dict[str, awa.Task[..., Any, Any]]


@attrs.frozen
class Address:
    """Of a record within a record."""

    street: str


@attrs.frozen
class Parcel:
    """All arguments of a job."""

    to: Address
    weights: list[int]


@pytest.fixture
def nowhere() -> Iterator[awa.Client]:
    """A client of a database that does not exist."""
    with awa.Client("postgresql:///?host=/nonexistent", connect_timeout=0.1) as client:
        yield client


@pytest.fixture
def ran() -> Iterator[Inline]:
    """Jobs run as they are enqueued."""
    with inline() as ran:
        yield ran


def test_all_ways_to_enqueue_run_at_once(nowhere: awa.Client, tasks: Tasks, ledger: Ledger, ran: Inline) -> None:
    assert tasks["work"].options(client=nowhere).enqueue(n=1) == 1
    assert nowhere.enqueue("work", {"n": 2}) == 2
    assert nowhere.enqueue_many([{"n": 3}, {"n": 4}], kind="work") == [3, 4]
    assert nowhere.enqueue_many_copy(({"n": n} for n in (5, 6)), kind="work") == 2
    assert ledger.lines == [1, 2, 3, 4, 5, 6]
    assert [job.state for job in ran.jobs] == ["completed"] * 6


def test_arguments_make_the_journey_through_json(nowhere: awa.Client, ran: Inline) -> None:
    got: list[object] = []

    @awa.task
    def deliver(parcel: Parcel) -> None:
        got.append(parcel)

    @awa.task
    def plain(pair: object) -> None:
        got.append(pair)

    nowhere.enqueue(deliver, Parcel(Address("Elm"), [1, 2]))
    nowhere.enqueue(plain, {"pair": (1, 2)})
    assert got == [Parcel(Address("Elm"), [1, 2]), [1, 2]]
    with pytest.raises(awa.InvalidJob, match=r"args\.pair: datetime is not JSON"):
        nowhere.enqueue(plain, {"pair": datetime.now(UTC)})
    with pytest.raises(awa.InvalidJob, match="priority: must be between 1 and 4"):
        nowhere.enqueue(plain, {"pair": 1}, priority=9)


@pytest.mark.parametrize(
    ("kind", "state", "attempt"),
    [
        ("retry", "retryable", 1),
        ("snooze", "scheduled", 0),
        ("cancel", "cancelled", 1),
        ("fail", "dead_lettered", 1),
        ("wait", "waiting", 1),
    ],
)
def test_an_outcome_is_the_jobs_state(
    nowhere: awa.Client, tasks: Tasks, ran: Inline, kind: str, state: str, attempt: int
) -> None:
    job = nowhere.get_job(nowhere.enqueue(tasks[kind]))
    assert job is not None
    assert (job.state, job.attempt) == (state, attempt)


def test_results_are_readable(nowhere: awa.Client, tasks: Tasks, ran: Inline) -> None:
    assert nowhere.result(tasks["add"].options(client=nowhere).enqueue(1, 2), timeout=0) == 3
    with pytest.raises(JobUnsuccessful, match="no such address"):
        nowhere.result(nowhere.enqueue(tasks["fail"]), timeout=0)
    with pytest.raises(awa.errors.JobNotFound):
        nowhere.result(4711, timeout=0)


def test_an_exception_comes_to_who_enqueues(nowhere: awa.Client, tasks: Tasks, ran: Inline) -> None:
    with pytest.raises(ValueError, match="boom"):
        nowhere.enqueue(tasks["boom"])
    assert [(job.state, job.errors[0]["type"]) for job in ran.jobs] == [("retryable", "ValueError")]


def test_an_exception_is_kept_with_the_job_where_it_is_not_to_be_raised(nowhere: awa.Client, tasks: Tasks) -> None:
    with inline(raises=False) as ran:
        nowhere.enqueue(tasks["boom"], max_attempts=1)
    assert [(job.state, job.errors[0]["message"]) for job in ran.jobs] == [("dead_lettered", "boom")]


def test_jobs_of_handlers_and_follow_ups_run_too(nowhere: awa.Client, tasks: Tasks, ledger: Ledger, ran: Inline) -> None:
    @awa.task
    def grandparent() -> None:
        nowhere.enqueue(tasks["parent"], {"n": 3})

    nowhere.enqueue(grandparent)
    assert ledger.lines == [3]
    assert [job.kind for job in ran.jobs] == ["grandparent", "parent", "work"]


def test_a_circle_of_jobs_is_named(nowhere: awa.Client, ran: Inline) -> None:
    @awa.task
    def again() -> None:
        nowhere.enqueue(again)

    with pytest.raises(AwaError, match="50 jobs have enqueued one another in a line: does 'again' enqueue itself"):
        nowhere.enqueue(again)


def test_progress_checkpoints_coroutines_and_contexts_work(nowhere: awa.Client, ran: Inline) -> None:
    @awa.task
    async def steps(ctx: awa.JobContext) -> None:
        ctx.checkpoint({"step": 1})
        ctx.progress(100, ctx.metadata["who"])

    nowhere.enqueue(steps, metadata={"who": "Ada"}, tags=["vip"])
    (job,) = ran.jobs
    assert (job.checkpoint, job.tags, job.metadata) == ({"step": 1}, ("vip",), {"who": "Ada"})
    assert job.progress is not None
    assert job.progress["message"] == "Ada"


def test_an_unknown_kind_is_named(nowhere: awa.Client, ran: Inline) -> None:
    with pytest.raises(UnknownKind, match="no task for kind 'nobody_knows'"):
        nowhere.enqueue("nobody_knows")


def test_unique_keys_are_kept_while_their_period_lasts(nowhere: awa.Client, tasks: Tasks, ran: Inline) -> None:
    def enqueue(on_conflict: Any) -> int:
        return nowhere.enqueue(tasks["work"], {"n": 1}, unique=awa.Unique(period=60, on_conflict=on_conflict))

    with Clock() as clock:
        first = enqueue("raise")
        with pytest.raises(UniqueConflict):
            enqueue("raise")
        assert enqueue("skip") == 0
        assert enqueue("return_existing") == first
        with pytest.raises(UniqueConflict):
            enqueue("replace")  # it has begun
        clock.move(seconds=61)
        assert enqueue("raise") != first
    assert len(ran.jobs) == 2


def test_a_replaced_job_is_cancelled(nowhere: awa.Client, tasks: Tasks, ran: Inline) -> None:
    unique = awa.Unique(on_conflict="replace")
    nowhere.enqueue(tasks["snooze"], unique=unique)
    nowhere.enqueue(tasks["snooze"], unique=unique)
    assert [job.state for job in ran.jobs] == ["cancelled", "scheduled"]


@pytest.mark.parametrize(
    ("on_conflict", "ids"), [("skip", [1, 0, 2]), ("return_existing", [1, 1, 2]), ("replace", [1, 2, 3])]
)
def test_a_copy_counts_and_numbers_jobs_as_ever(
    nowhere: awa.Client, tasks: Tasks, ledger: Ledger, ran: Inline, on_conflict: Any, ids: list[int]
) -> None:
    told: list[object] = []
    nowhere.on_enqueued = told.append
    batch = [{"n": 7}, {"n": 7}, {"n": 8}]
    unique = awa.Unique(on_conflict=on_conflict)
    found = nowhere.enqueue_many_copy(batch, kind=tasks["work"], unique=unique, progress=told.append, return_ids=True)
    assert list(found) == ids
    new = len(set(ids) - {0})
    assert told == [{"q": new}, 3]
    assert len(ran.jobs) == len(ledger.lines) == new
    assert nowhere.enqueue_many_copy(batch, kind=tasks["work"], unique=unique) == new
    assert nowhere.enqueue_many_copy([], kind=tasks["work"], progress=told.append) == 0
    assert told[3:] == []


def test_a_batch_that_conflicts_with_itself_runs_nothing(nowhere: awa.Client, tasks: Tasks, ran: Inline) -> None:
    for enqueue in (nowhere.enqueue_many, nowhere.enqueue_many_copy):
        with pytest.raises(UniqueConflict) as refused:
            enqueue([{"n": 7}, {"n": 8}, {"n": 7}], kind=tasks["work"], unique=awa.Unique())
        assert refused.value.index == 2
    assert ran.jobs == []


def test_what_a_caller_s_transaction_cannot_do_is_refused_as_ever(
    nowhere: awa.Client, tasks: Tasks, ran: Inline, tx: psycopg.Connection[Any]
) -> None:
    options: dict[str, Any] = {"unique": awa.Unique(on_conflict="replace"), "connection": tx}
    for enqueue in (nowhere.enqueue_many, nowhere.enqueue_many_copy):
        with pytest.raises(awa.InvalidJob, match="replace needs a transaction of its own"):
            enqueue([{"n": 1}], kind=tasks["work"], **options)
    assert ran.jobs == []


def test_partitions_and_keys_are_chosen_as_ever(nowhere: awa.Client, tasks: Tasks, ran: Inline) -> None:
    email = awa.PartitionedQueue("email", 4)
    nowhere.enqueue_many_copy(
        [{"n": n} for n in range(20)],
        kind=tasks["work"],
        queue=email,
        opts=lambda a: awa.JobOptions(ordering_key=str(a["n"])),
    )
    assert [job.queue for job in ran.jobs] == [email.queue_for_key(str(n)) for n in range(20)]


def test_run_at_is_not_waited_for(nowhere: awa.Client, tasks: Tasks, ledger: Ledger, ran: Inline) -> None:
    nowhere.enqueue(tasks["work"], {"n": 1}, run_at=datetime.now(UTC) + timedelta(days=1))
    assert ledger.lines == [1]


def test_a_transaction_is_a_savepoint_of_the_enqueuers(client: awa.Client, tx: psycopg.Connection[Any], ran: Inline) -> None:
    @awa.task
    def write(ctx: awa.JobContext) -> None:
        with ctx.transaction() as conn:
            assert conn is tx
            conn.execute("CREATE TABLE written ()")

    client.enqueue(write, connection=tx)
    assert [job.state for job in ran.jobs] == ["completed"]
    assert tx.execute("SELECT to_regclass('written')").fetchall() == [("written",)]
    tx.rollback()
    assert tx.execute("SELECT to_regclass('written')").fetchall() == [(None,)]


def test_after_the_block_jobs_go_to_the_database_again(client: awa.Client, tasks: Tasks, ledger: Ledger) -> None:
    with inline():
        client.enqueue(tasks["work"], {"n": 1})
    client.enqueue(tasks["work"], {"n": 2})
    assert ledger.lines == [1]
    assert drain(client=client).completed == 1


def test_blocks_do_not_nest(ran: Inline) -> None:
    with pytest.raises(ConfigurationError, match="inline already"), inline():
        pass
