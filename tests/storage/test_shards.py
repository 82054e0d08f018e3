"""Enqueue shards: several lanes of one queue and priority."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import awa
from awa.keys import shard_for_ordering_key
from awa.plan import Route
from awa.postgres import Connection
from awa.storage.complete import Ending
from awa.storage.dead_letters import EndedState
from awa.storage.lanes import SHARDS_KNOWN_FOR, LaneBook
from awa.storage.rescue import rescue_dead
from awa.storage.runtimes import declare_dead
from tests.sql.conftest import session
from tests.sql.engine import RUNTIME, claim, claim_all, complete, fail, finalize, promote_all, read, register
from tests.storage.conftest import Application

__all__ = ["session"]
Enqueue = Callable[[awa.Client, list[dict[str, Any]], Any], object]


def one(client: awa.Client, batch: list[dict[str, Any]], opts: Any) -> object:
    """Job by job."""
    for args in batch:
        options = opts(args)
        client.enqueue("work", args, queue="q", ordering_key=None if options is None else options.ordering_key)
    return None


def many(client: awa.Client, batch: list[dict[str, Any]], opts: Any) -> object:
    """In one statement."""
    return client.enqueue_many(batch, kind="work", queue="q", opts=opts)


def copied(client: awa.Client, batch: list[dict[str, Any]], opts: Any) -> object:
    """Through COPY."""
    return client.enqueue_many_copy(batch, kind="work", queue="q", opts=opts)


def numbered(client: awa.Client, batch: list[dict[str, Any]], opts: Any) -> object:
    """Through COPY, ids wanted."""
    return client.enqueue_many_copy(batch, kind="work", queue="q", opts=opts, return_ids=True)


every_way = pytest.mark.parametrize("enqueue", [one, many, copied, numbered])


def shards_of(conn: Connection, queue: str = "q") -> dict[Any, int]:
    """The shard of every job by its argument n."""
    rows = read(
        conn,
        "SELECT (r.args ->> 'n')::int, l.enqueue_shard FROM awa.ready_entries r JOIN awa.queue_lanes l USING (lane_id)"
        " WHERE l.queue = %s",
        (queue,),
    )
    return dict(rows)


def keyed(args: dict[str, Any]) -> awa.JobOptions:
    """The job's number is its key."""
    return awa.JobOptions(ordering_key=str(args["n"]))


@every_way
def test_a_key_goes_to_its_shard(client: awa.Client, conn: Connection, enqueue: Enqueue) -> None:
    client.set_enqueue_shards("q", 4)
    enqueue(client, [{"n": n} for n in range(40)], keyed)
    assert shards_of(conn) == {n: shard_for_ordering_key(str(n), 4) for n in range(40)}


@every_way
def test_jobs_without_a_key_go_round(client: awa.Client, conn: Connection, enqueue: Enqueue) -> None:
    client.set_enqueue_shards("q", 4)
    enqueue(client, [{"n": n} for n in range(12)], lambda _: None)
    seen = shards_of(conn)
    assert set(seen.values()) == {0, 1, 2, 3}
    assert [seen[n] for n in range(4, 12)] == [seen[n] for n in range(8)]


@every_way
def test_a_queue_has_one_shard_by_default(client: awa.Client, conn: Connection, enqueue: Enqueue) -> None:
    enqueue(client, [{"n": n} for n in range(5)], keyed)
    assert set(shards_of(conn).values()) == {0}
    assert client.enqueue_shards("q") == 1


def test_priorities_have_shards_of_their_own(client: awa.Client, conn: Connection) -> None:
    client.set_enqueue_shards("q", 2)
    options = [awa.JobOptions(priority=1), awa.JobOptions(priority=4)]
    client.enqueue_many([{"n": n} for n in range(8)], kind="work", queue="q", opts=[options[n // 4] for n in range(8)])
    assert read(conn, "SELECT priority, enqueue_shard FROM awa.queue_lanes WHERE queue = 'q' ORDER BY 1, 2") == [
        (1, 0),
        (1, 1),
        (4, 0),
        (4, 1),
    ]


def test_unique_jobs_have_shards_too(client: awa.Client, conn: Connection) -> None:
    client.set_enqueue_shards("q", 4)
    unique = awa.Unique(by_args=["n"])
    client.enqueue_many([{"n": n} for n in range(8)], kind="work", queue="q", unique=unique, opts=keyed)
    client.enqueue_many_copy([{"n": n} for n in range(8, 16)], kind="work", queue="q", unique=unique, opts=keyed)
    replace = awa.Unique(by_args=["n"], on_conflict="replace")
    client.enqueue_many_copy([{"n": n} for n in range(16, 20)], kind="work", queue="q", unique=replace, opts=keyed)
    assert shards_of(conn) == {n: shard_for_ordering_key(str(n), 4) for n in range(20)}


def test_jobs_of_one_key_are_claimed_in_their_order(client: awa.Client, conn: Connection) -> None:
    client.set_enqueue_shards("q", 3)
    for first in range(0, 60, 20):
        batch = [{"n": n} for n in range(first, first + 20)]
        client.enqueue_many(batch, kind="work", queue="q", opts=lambda args: awa.JobOptions(ordering_key=str(args["n"] % 5)))
    seen = claim_all(conn, 7)
    assert sorted(seen) == list(range(60))
    for key in range(5):
        assert [n for n in seen if n % 5 == key] == list(range(key, 60, 5))


def test_two_claimers_of_one_queue_hold_different_shards_at_once(
    client: awa.Client, conn: Connection, session: Callable[[], Connection]
) -> None:
    client.set_enqueue_shards("q", 2)
    client.enqueue_many([{"n": n} for n in range(20)], kind="work", queue="q")
    register(conn, 1, 2)
    first, second = session(), session()
    of_first = claim(first, 10, runtime_id=1).ns  # its transaction stays open
    of_second = claim(second, 10, runtime_id=2).ns
    assert len(of_first) == len(of_second) == 10
    assert not set(of_first) & set(of_second)


def test_a_retried_a_released_and_a_promoted_job_keep_their_lane(client: awa.Client, conn: Connection) -> None:
    client.set_enqueue_shards("q", 4)
    client.enqueue_many([{"n": n} for n in range(16)], kind="work", queue="q", opts=keyed)
    before = dict(read(conn, "SELECT job_id, lane_id FROM awa.ready_entries"))
    client.set_enqueue_shards("q", 2)  # what is there does not move, even when it comes back
    batch = claim(conn, 100)
    for taken, item, _ in batch.jobs:
        assert finalize(conn, fail(taken, item, delay_after=60)) == []
    assert read(conn, "SELECT count(*) FROM awa.deferred_jobs") == [(16,)]
    promote_all(conn)
    again = claim(conn, 100)
    assert {
        row[0]: row[1] for row in read(conn, "SELECT job_id, lane_id FROM awa.ready_entries WHERE run_lease = 1")
    } == before
    assert sorted(again.ns) == list(range(16))
    assert complete(conn, *((taken, None) for taken in again.claims)) == []
    assert client.queue_counts("q").completed == 16


FATES = ["retried", "snoozed", "released", "rescued", "dead letter", "failed", "cancelled"]


@pytest.mark.parametrize("fate", FATES)
def test_a_job_keeps_its_lane_whatever_becomes_of_it(client: awa.Client, conn: Connection, fate: str) -> None:
    client.set_enqueue_shards("q", 4)
    client.set_dead_letter("q", fate == "dead letter")
    attempts = 1 if fate in ("dead letter", "failed") else 5
    ids = client.enqueue_many([{"n": n} for n in range(16)], kind="work", queue="q", max_attempts=attempts, opts=keyed)
    before = dict(read(conn, "SELECT job_id, lane_id FROM awa.ready_entries"))
    assert len(set(before.values())) == 4
    client.set_enqueue_shards("q", 2)
    if fate == "cancelled":
        assert all(client.cancel(job_id) and client.retry(job_id) for job_id in ids)
    else:
        for taken, item, _ in claim(conn, 100).jobs:
            match fate:
                case "snoozed" | "released":
                    assert finalize(conn, Ending(taken, item, fate, 60)) == []
                case "retried" | "dead letter" | "failed":
                    assert finalize(conn, fail(taken, item, delay_after=60)) == []
        if fate == "rescued":
            assert declare_dead(conn, RUNTIME, [RUNTIME]) == [RUNTIME]
            assert rescue_dead(conn).rescued == 16
        if fate in ("dead letter", "failed"):
            state: EndedState = "failed" if fate == "failed" else "dead_lettered"
            assert client.retry_ended(state, queue="q") == {"retried": 16, "conflict": 0}
    promote_all(conn)
    written = read(conn, "SELECT job_id, lane_id FROM awa.ready_entries ORDER BY lane_seq")
    assert (len(written), dict(written[16:])) == (32, before)
    assert sorted(claim(conn, 100, runtime_id=RUNTIME + 1).ns) == list(range(16))


def test_lanes_of_fewer_shards_are_worked_off(client: awa.Client, conn: Connection) -> None:
    client.set_enqueue_shards("q", 4)
    client.enqueue_many([{"n": n} for n in range(8)], kind="work", queue="q")
    client.set_enqueue_shards("q", 1)
    client.enqueue_many([{"n": n} for n in range(8, 12)], kind="work", queue="q")
    assert {shards_of(conn)[n] for n in range(8, 12)} == {0}
    assert client.queue_counts("q").available == 12
    assert sorted(claim_all(conn)) == list(range(12))


def test_another_client_goes_on_for_a_while_and_then_learns(client: awa.Client, dsn: str, conn: Connection) -> None:
    clock = [0.0]
    with awa.Client(dsn) as other:
        other.enqueue("work", {"n": 0}, queue="q")
        (install,) = other._lane_books
        other._lane_books[install]._clock = lambda: clock[0]
        other._lane_books[install].forget(["q"])
        other.enqueue("work", {"n": 0}, queue="q")
        client.set_enqueue_shards("q", 2)
        other.enqueue_many([{"n": n} for n in range(1, 5)], kind="work", queue="q")
        assert set(shards_of(conn).values()) == {0}
        clock[0] += SHARDS_KNOWN_FOR
        other.enqueue_many([{"n": n} for n in range(5, 9)], kind="work", queue="q")
        assert {shards_of(conn)[n] for n in range(5, 9)} == {0, 1}


def test_a_lane_s_number_is_asked_for_again_once_and_not_for_every_job() -> None:
    clock = [0.0]
    book = LaneBook(lambda: clock[0])
    route = Route("q", 2)
    assert book.known(route) is None
    assert book.renew(route, 1) is None
    book.learn(route, (7,))
    assert book.known(route) == (7,)
    clock[0] = SHARDS_KNOWN_FOR
    assert book.known(route) is None
    assert book.renew(route, 2) is None
    assert book.renew(route, 1) == (7,)
    assert book.known(route) == (7,)


def test_the_number_is_the_database_s(client: awa.Client, dsn: str) -> None:
    client.set_enqueue_shards("q", 8)
    client.pause_queue("q")
    client.resume_queue("q")
    with awa.Client(dsn) as other:
        assert other.enqueue_shards("q") == 8


@pytest.mark.parametrize("shards", [0, 65, -1, True, 1.5])
def test_a_number_out_of_bounds_is_refused(client: awa.Client, shards: Any) -> None:
    with pytest.raises(awa.ConfigurationError, match="between 1 and 64"):
        client.set_enqueue_shards("q", shards)
    assert client.enqueue_shards("q") == 1


def test_the_database_refuses_it_too(conn: Connection) -> None:
    with pytest.raises(psycopg.Error, match="between 1 and 64, not 65") as refused:
        conn.execute("SELECT awa.set_enqueue_shards('q', 65)")
    assert refused.value.sqlstate == "AWA02"


def test_the_first_job_of_a_new_shard_in_an_open_transaction_blocks_nobody(
    client: awa.Client, application: Application
) -> None:
    client.set_enqueue_shards("q", 2)
    caller = application(options="-c lock_timeout=5s")
    client.enqueue_many([{"n": n} for n in range(2)], kind="work", queue="q", connection=caller)
    client.enqueue_many([{"n": n} for n in range(2)], kind="work", queue="q")
    assert client.queue_counts("q").available == 2
    caller.rollback()


def test_a_follow_up_job_goes_to_its_key_s_shard(client: awa.Client, dsn: str, conn: Connection) -> None:
    client.set_enqueue_shards("q", 4)

    @awa.task
    def start(ctx: awa.JobContext) -> None:
        for n in range(8):
            ctx.enqueue("work", {"n": n}, queue="q", ordering_key=str(n))

    with awa.Worker({"default": 1}, dsn=dsn, tasks=[start]):
        client.enqueue(start)
        client.wait_until_empty("default", timeout=30)
    assert shards_of(conn) == {n: shard_for_ordering_key(str(n), 4) for n in range(8)}
