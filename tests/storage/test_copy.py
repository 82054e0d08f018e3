"""enqueue_many_copy with ids, unique keys and options of each job: the same as enqueue_many, in bounded memory."""

from __future__ import annotations

import threading
import tracemalloc
from array import array
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

import awa
from awa.postgres import Connection
from awa.storage.copy import COPY_CHUNK, NUMBERED_CHUNK
from awa.unique import UNFINISHED, OnConflict
from awa.worker.runtime import resident_mib
from tests.sql.engine import claim, claim_all, complete, promote_all, read
from tests.storage.conftest import Application
from tests.waiting import wait_for

LATER = awa.JobOptions(run_at=datetime(2100, 1, 1, tzinfo=UTC))
URGENT = awa.JobOptions(priority=1)
OTHER = awa.JobOptions(queue="other", tags=["t"])
BIG = 1_000_000


def total(client: awa.Client) -> int:
    """How many jobs there are in all queues."""
    return sum(counts.unfinished for counts in client.list_queues())


def by_user(on_conflict: OnConflict = "raise") -> awa.Unique:
    """One job a user."""
    return awa.Unique(by_args=["user"], on_conflict=on_conflict)


def users(*numbers: int) -> list[dict[str, int]]:
    """Arguments of users' jobs."""
    return [{"user": number} for number in numbers]


# -- ids ----------------------------------------------------------------------------------------------------------------


def test_ids_are_in_the_order_of_the_jobs_whatever_becomes_of_them(client: awa.Client) -> None:
    options = [None, LATER, URGENT, OTHER]
    ids = client.enqueue_many_copy(
        ({"n": n} for n in range(40)), kind="work", queue="q", opts=(options[n % 4] for n in range(40)), return_ids=True
    )
    found = [job for job_id in ids if (job := client.get_job(job_id))]
    assert [job.args["n"] for job in found] == list(range(40))
    assert [job.state for job in found] == ["available", "scheduled", "available", "available"] * 10
    assert [(job.queue, job.priority, job.tags) for job in found[:4]] == [
        ("q", 2, ()),
        ("q", 2, ()),
        ("q", 1, ()),
        ("other", 2, ("t",)),
    ]


def test_ids_of_more_than_one_chunk_ascend_and_are_eight_bytes_each(client: awa.Client) -> None:
    written: list[int] = []
    count = 2 * NUMBERED_CHUNK + 3
    ids = client.enqueue_many_copy(
        ({"n": n} for n in range(count)), kind="work", queue="q", return_ids=True, progress=written.append
    )
    assert isinstance(ids, array)
    assert (ids.itemsize, len(ids)) == (8, count)
    assert all(one < next_one for one, next_one in pairwise(ids))
    assert written == [NUMBERED_CHUNK, 2 * NUMBERED_CHUNK, count]
    for place in (0, NUMBERED_CHUNK - 1, NUMBERED_CHUNK, count - 1):
        job = client.get_job(ids[place])
        assert job is not None
        assert job.args == {"n": place}


def test_no_jobs_have_no_ids(client: awa.Client) -> None:
    assert client.enqueue_many_copy([], kind="work", return_ids=True) == array("q")


def test_numbered_jobs_keep_their_order_within_a_lane(client: awa.Client, conn: Connection) -> None:
    unique = awa.Unique(by_args=["n"])
    jobs = [awa.NewJob({"n": n}, options=awa.JobOptions(unique=unique) if n % 3 == 0 else None) for n in range(3000)]
    assert client.enqueue_many_copy(jobs, kind="work", queue="q") == 3000
    assert claim_all(conn) == list(range(3000))


# -- unique jobs --------------------------------------------------------------------------------------------------------


def many(client: awa.Client, *args: Any, **options: Any) -> list[int]:
    """A batch in one statement."""
    return client.enqueue_many(*args, **options)


def copied(client: awa.Client, *args: Any, **options: Any) -> list[int]:
    """The same through COPY."""
    return list(client.enqueue_many_copy(*args, **options, return_ids=True))


both_ways = pytest.mark.parametrize("way", [many, copied])
Way = Callable[..., list[int]]


@both_ways
def test_a_conflict_names_the_holder_and_the_place_and_leaves_nothing(client: awa.Client, way: Way) -> None:
    (first,) = way(client, users(7), kind="refresh", queue="q", unique=by_user())
    with pytest.raises(awa.UniqueConflict) as refused:
        way(client, users(1, 2, 7, 3), kind="refresh", queue="q", unique=by_user())
    assert (refused.value.job_id, refused.value.index) == (first, 2)
    assert total(client) == 1
    assert len(way(client, users(1, 2, 3), kind="refresh", queue="q", unique=by_user())) == 3


@both_ways
def test_two_jobs_of_one_batch_conflict_with_each_other(client: awa.Client, way: Way) -> None:
    with pytest.raises(awa.UniqueConflict) as refused:
        way(client, users(1, 2, 1), kind="refresh", queue="q", unique=by_user())
    assert refused.value.index == 2
    assert total(client) == 0


@both_ways
def test_skipped_jobs_have_the_id_0(client: awa.Client, way: Way) -> None:
    way(client, users(2), kind="refresh", queue="q", unique=by_user())
    ids = way(client, users(1, 2, 3, 1), kind="refresh", queue="q", unique=by_user("skip"))
    assert [bool(job_id) for job_id in ids] == [True, False, True, False]
    assert total(client) == 3


@both_ways
def test_existing_jobs_have_their_own_ids(client: awa.Client, way: Way) -> None:
    (first,) = way(client, users(2), kind="refresh", queue="q", unique=by_user())
    ids = way(client, users(1, 2, 3, 1), kind="refresh", queue="q", unique=by_user("return_existing"))
    assert (ids[1], ids[3]) == (first, ids[0])
    assert total(client) == 3


@both_ways
def test_jobs_that_have_not_begun_are_replaced(client: awa.Client, way: Way, conn: Connection) -> None:
    (running,) = way(client, users(9), kind="refresh", queue="q", unique=by_user())
    claim(conn)
    (first,) = way(client, users(1), kind="refresh", queue="q", unique=by_user())
    ids = way(client, users(9, 1, 2, 2), kind="refresh", queue="q", unique=by_user("replace"))
    states = [job.state for job_id in (running, first, *ids) if (job := client.get_job(job_id))]
    assert states == ["running", "cancelled", "running", "available", "cancelled", "available"]


@both_ways
def test_replacing_needs_a_transaction_of_its_own(client: awa.Client, way: Way, application: Application) -> None:
    caller = application()
    with pytest.raises(awa.InvalidJob, match="replace needs a transaction of its own"):
        way(client, users(1), kind="refresh", unique=by_user("replace"), connection=caller)
    caller.commit()
    assert total(client) == 0


@pytest.mark.parametrize("first", [0, NUMBERED_CHUNK])
def test_replacing_is_for_one_chunk_at_the_most(client: awa.Client, first: int) -> None:
    plain, replacing = awa.JobOptions(), awa.JobOptions(unique=by_user("replace"))
    with pytest.raises(awa.InvalidJob, match=rf"jobs\[{first}\]\.unique\.on_conflict: .* at most 5,000 jobs"):
        client.enqueue_many_copy(
            users(*range(NUMBERED_CHUNK + 1)),
            kind="refresh",
            opts=(replacing if n == first else plain for n in range(NUMBERED_CHUNK + 1)),
            return_ids=True,
        )
    assert total(client) == 0


@pytest.mark.parametrize("ended", [False, True])
def test_a_key_is_judged_as_with_a_batch(client: awa.Client, conn: Connection, ended: bool) -> None:
    client.enqueue_many_copy(users(1), kind="refresh", queue="q", unique=by_user())
    taken = claim(conn).claim
    if ended:
        assert complete(conn, (taken, None)) == []
    assert client.enqueue_many_copy(users(1, 2), kind="refresh", queue="q", unique=by_user("skip")) == (2 if ended else 1)


def test_the_kept_key_travels_with_the_job(client: awa.Client, conn: Connection) -> None:
    client.enqueue_many_copy(users(1, 2), kind="refresh", queue="q", unique=by_user(), opts=[None, LATER])
    held = read(conn, "SELECT unique_key, job_id FROM awa.job_unique_claims ORDER BY job_id")
    assert read(conn, "SELECT unique_key, job_id FROM awa.ready_entries") == held[:1]
    assert read(conn, "SELECT unique_key, job_id FROM awa.deferred_jobs") == held[1:]
    assert promote_all(conn) == 1
    assert [row[0] for row in read(conn, "SELECT unique_key FROM awa.ready_entries ORDER BY job_id")] == [
        key for key, _ in held
    ]


def test_jobs_with_different_policies_states_and_periods_share_a_copy(client: awa.Client, conn: Connection) -> None:
    hour = awa.Unique(by_args=["user"], period=3600, on_conflict="skip")
    kept = awa.Unique(by_args=["user"], states=[*UNFINISHED, "completed"])
    options = [awa.JobOptions(unique=unique) for unique in (by_user(), hour, kept)]
    assert client.enqueue_many_copy(users(1, 2, 3), kind="k", queue="q", opts=options) == 3
    assert complete(conn, (claim(conn).claim, None)) == []
    assert client.enqueue_many_copy(users(1, 2), kind="k", queue="q", opts=options[:2]) == 1
    with pytest.raises(awa.UniqueConflict):
        client.enqueue_many_copy(users(3), kind="k", queue="q", unique=kept)


def test_a_key_of_an_earlier_chunk_is_held(client: awa.Client) -> None:
    jobs = users(*range(NUMBERED_CHUNK + 5), 3)
    with pytest.raises(awa.UniqueConflict) as refused:
        client.enqueue_many_copy(jobs, kind="refresh", queue="q", unique=by_user())
    assert refused.value.index == NUMBERED_CHUNK + 5
    assert total(client) == 0
    assert client.enqueue_many_copy(jobs, kind="refresh", queue="q", unique=by_user("skip")) == len(jobs) - 1


def test_a_conflict_costs_the_caller_a_savepoint_and_no_error(client: awa.Client, application: Application) -> None:
    client.enqueue("refresh", {"user": 7}, queue="q", unique=by_user())
    caller = application()
    client.enqueue("mine", queue="mine", connection=caller)
    with pytest.raises(awa.UniqueConflict):
        client.enqueue_many_copy(users(*range(10)), kind="refresh", queue="q", unique=by_user(), connection=caller)
    assert caller.info.transaction_status == TransactionStatus.INTRANS
    client.enqueue_many_copy(users(8, 9), kind="refresh", queue="q", unique=by_user(), connection=caller)
    caller.commit()
    assert client.queue_counts("q").available == 3
    assert client.queue_counts("mine").available == 1


def test_unique_jobs_on_an_idle_connection_are_the_caller_s_to_commit(client: awa.Client, application: Application) -> None:
    caller = application()
    for _ in range(2):
        assert client.enqueue_many_copy(users(1), kind="refresh", queue="q", unique=by_user(), connection=caller) == 1
        caller.rollback()
    assert total(client) == 0


# -- several producers --------------------------------------------------------------------------------------------------


def in_threads(*calls: Callable[[], object]) -> list[BaseException]:
    """Run calls at once; what they raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        barrier.wait(30)
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return errors


def test_copies_to_one_lane_at_once_lose_and_mix_up_nothing(client: awa.Client, conn: Connection) -> None:
    count = 3 * COPY_CHUNK

    def producer(number: int) -> Callable[[], object]:
        return lambda: client.enqueue_many_copy(
            ({"n": [number, n]} for n in range(count)), kind="work", queue="q", return_ids=number % 2 == 0
        )

    assert in_threads(*(producer(number) for number in range(4))) == []
    seen = claim_all(conn, 32767)
    assert len(seen) == 4 * count
    for number in range(4):
        assert [n for one, n in seen if one == number] == list(range(count))


def test_copies_that_want_each_other_s_keys_in_opposite_order_do_not_wait_for_each_other_for_ever(
    client: awa.Client,
) -> None:
    numbers = range(2 * NUMBERED_CHUNK + 10)
    counts: list[int] = []

    def producer(order: range) -> Callable[[], object]:
        return lambda: counts.append(
            client.enqueue_many_copy(users(*order), kind="refresh", queue="q", unique=by_user("skip"))
        )

    assert in_threads(producer(numbers), producer(numbers[::-1])) == []
    assert sum(counts) == total(client) == len(numbers)


def test_an_open_transaction_with_a_copy_of_unique_jobs_makes_others_wait_for_its_keys_only(
    client: awa.Client, application: Application
) -> None:
    caller = application()
    client.enqueue_many_copy(users(1, 2), kind="refresh", queue="q", unique=by_user(), connection=caller)
    assert client.enqueue_many_copy(users(3, 4), kind="refresh", queue="q", unique=by_user()) == 2
    outcome: list[object] = []
    waiting = threading.Thread(
        target=lambda: outcome.append(
            client.enqueue_many_copy(users(5, 2), kind="refresh", queue="q", unique=by_user("skip"))
        )
    )
    waiting.start()
    with psycopg.connect(caller.info.dsn, autocommit=True) as watcher:
        wait_for(
            lambda: read(watcher, "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"),
            what="the third producer waits for the first",
        )
    assert outcome == []
    caller.commit()
    waiting.join(30)
    assert outcome == [1]


# -- a million ----------------------------------------------------------------------------------------------------------


def million(spoiled_at: int | None = None) -> Iterator[dict[str, int]]:
    """Arguments of a million jobs, made as they are read."""
    for n in range(BIG):
        if n == spoiled_at:
            raise OSError("the source ended early")
        yield {"n": n}


def rows_of(conn: Connection) -> int:
    """Jobs in the ready ring that anybody can see."""
    return int(read(conn, "SELECT count(*) FROM awa.ready_entries")[0][0])


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False], ids=["own", "caller's"])
def test_a_million_jobs_take_no_more_memory_than_a_chunk(
    client: awa.Client, conn: Connection, application: Application, own: bool
) -> None:
    caller = None if own else application()
    resident: list[float] = []

    def note(done: int) -> None:
        if done % 50_000 == 0:
            resident.append(resident_mib())

    assert client.enqueue_many_copy(million(), kind="work", queue="q", progress=note, connection=caller) == BIG
    if caller is not None:
        assert rows_of(conn) == 0
        caller.commit()
    assert len(resident) == 20
    assert max(resident) - resident[0] < 8  # the arguments alone are 400 MiB of objects
    assert rows_of(conn) == BIG


@pytest.mark.slow
def test_ids_take_eight_bytes_each(client: awa.Client) -> None:
    peaks: list[int] = []

    def note(done: int) -> None:
        if done % 25_000 == 0:
            peaks.append(tracemalloc.get_traced_memory()[1] - 8 * done)

    count = 100_000
    tracemalloc.start(1)
    try:
        ids = client.enqueue_many_copy(
            ({"n": n} for n in range(count)), kind="work", queue="q", return_ids=True, progress=note
        )
    finally:
        tracemalloc.stop()
    assert (len(ids), len(set(ids))) == (count, count)
    # An array grows by an eighth and is copied as it does: the rest is a chunk's.
    assert max(peaks) < 20 * 2**20
    assert peaks[-1] - peaks[0] < 8 * count


@pytest.mark.slow
@pytest.mark.parametrize("in_callers_transaction", [False, True])
def test_a_million_jobs_whose_source_breaks_half_way_leave_nothing(
    client: awa.Client, conn: Connection, application: Application, in_callers_transaction: bool
) -> None:
    caller = application() if in_callers_transaction else None
    with pytest.raises(OSError, match="early"):
        client.enqueue_many_copy(million(BIG // 2), kind="work", queue="q", connection=caller)
    if caller is not None:
        caller.commit()
    assert total(client) == rows_of(conn) == 0


@pytest.mark.slow
def test_a_conflict_at_the_last_of_a_million_jobs_leaves_nothing(client: awa.Client, conn: Connection) -> None:
    holder = client.enqueue("refresh", {"user": 1}, queue="q", unique=by_user())
    one = awa.NewJob({"user": 1}, options=awa.JobOptions(unique=by_user()))

    def jobs() -> Iterator[object]:
        yield from ({"user": n} for n in range(BIG - 1))
        yield one

    with pytest.raises(awa.UniqueConflict) as refused:
        client.enqueue_many_copy(jobs(), kind="refresh", queue="q")
    assert (refused.value.job_id, refused.value.index) == (holder, BIG - 1)
    assert total(client) == rows_of(conn) == 1


@pytest.mark.slow
def test_a_conflict_at_the_last_of_many_unique_jobs_leaves_no_key(client: awa.Client, conn: Connection) -> None:
    count = 100_000
    holder = client.enqueue("refresh", {"user": count - 1}, queue="q", unique=by_user())
    with pytest.raises(awa.UniqueConflict) as refused:
        client.enqueue_many_copy(({"user": n} for n in range(count)), kind="refresh", queue="q", unique=by_user())
    assert (refused.value.job_id, refused.value.index) == (holder, count - 1)
    assert read(conn, "SELECT job_id FROM awa.job_unique_claims") == [(holder,)]
    assert rows_of(conn) == 1
