"""A partitioned queue wherever a queue is asked for."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

import awa
from awa.keys import partition_for_ordering_key, shard_for_ordering_key
from awa.partitions import AnyQueue
from awa.postgres import Connection
from awa.storage.dead_letters import EndedState
from tests.sql.engine import claim, fail, finalize, read
from tests.storage.conftest import Application
from tests.waiting import wait_for
from tests.worker.support import wait_for_counts

EMAIL = awa.PartitionedQueue("email", 4)


def queues_of(conn: Connection) -> dict[Any, str]:
    """The physical queue of every job by its argument n."""
    return dict(
        read(conn, "SELECT (r.args ->> 'n')::int, l.queue FROM awa.ready_entries r JOIN awa.queue_lanes l USING (lane_id)")
    )


def keyed(args: Any) -> awa.JobOptions:
    """The job's number is its key."""
    return awa.JobOptions(ordering_key=str(args["n"]))


EXPECTED = {n: EMAIL.physical_queues[partition_for_ordering_key(str(n), 4)] for n in range(40)}


@pytest.mark.parametrize("way", ["enqueue", "task", "options", "many", "copy", "copy ids", "route_by_key"])
def test_a_key_goes_to_its_partition_by_every_way(client: awa.Client, conn: Connection, way: str) -> None:
    @awa.task(queue=EMAIL)
    def send(n: int) -> None: ...

    batch = [{"n": n} for n in range(40)]
    if way == "many":
        client.enqueue_many(batch, kind="send", queue=EMAIL, opts=keyed)
    elif way == "copy":
        client.enqueue_many_copy(batch, kind=send, opts=keyed)
    elif way == "copy ids":
        client.enqueue_many_copy(
            batch, kind="send", opts=[awa.JobOptions(queue=EMAIL, ordering_key=str(n)) for n in range(40)]
        )
    for n in range(40 if way in ("enqueue", "task", "options", "route_by_key") else 0):
        match way:
            case "enqueue":
                client.enqueue("send", {"n": n}, queue=EMAIL, ordering_key=str(n))
            case "task":
                send.options(client=client, ordering_key=str(n)).enqueue(n)
            case "options":
                client.enqueue(send, {"n": n}, ordering_key=str(n).encode())
            case _:
                client.enqueue("send", {"n": n}, **EMAIL.route_by_key(str(n)))  # type: ignore[arg-type]
    assert queues_of(conn) == EXPECTED


def test_jobs_without_a_key_are_spread(client: awa.Client, conn: Connection) -> None:
    client.enqueue_many([{"n": n} for n in range(8)], kind="send", queue=EMAIL)
    for n in range(8, 16):
        client.enqueue("send", {"n": n}, queue=EMAIL)
    assert Counter(queues_of(conn).values()) == dict.fromkeys(EMAIL.physical_queues, 4)


def test_a_partition_has_shards_and_a_key_s_are_independent(client: awa.Client, conn: Connection) -> None:
    client.set_enqueue_shards(EMAIL, 2)
    client.enqueue_many([{"n": n} for n in range(200)], kind="send", queue=EMAIL, opts=keyed)
    rows = read(
        conn,
        "SELECT (r.args ->> 'n')::int, l.queue, l.enqueue_shard"
        " FROM awa.ready_entries r JOIN awa.queue_lanes l USING (lane_id)",
    )
    assert {(queue, shard) for _, queue, shard in rows} == {
        (queue, shard) for queue in EMAIL.physical_queues for shard in (0, 1)
    }
    assert all(
        (queue, shard) == (EMAIL.queue_for_key(str(n)), shard_for_ordering_key(str(n), 2)) for n, queue, shard in rows
    )


def test_counts_are_summed_and_each_partition_has_its_own(client: awa.Client, conn: Connection) -> None:
    for index in range(4):
        client.enqueue_many([{"n": n} for n in range(index + 1)], kind="send", **EMAIL.route_by_index(index))  # type: ignore[arg-type]
    claim(conn, 2, queue="email__p3")
    counts = client.queue_counts(EMAIL)
    assert (counts.queue, counts.available, counts.running, counts.unfinished) == ("email", 8, 2, 10)
    parts = client.partition_counts(EMAIL)
    assert [(part.queue, part.available, part.running) for part in parts] == [
        ("email", 1, 0),
        ("email__p1", 2, 0),
        ("email__p2", 3, 0),
        ("email__p3", 2, 2),
    ]


def test_all_partitions_are_paused_and_resumed(client: awa.Client, conn: Connection) -> None:
    client.enqueue_many([{"n": n} for n in range(8)], kind="send", queue=EMAIL)
    assert not client.queue_counts(EMAIL).paused
    client.pause_queue(EMAIL)
    assert client.queue_counts(EMAIL).paused
    assert [claim(conn, queue=name).ns for name in EMAIL.physical_queues] == [[]] * 4
    client.resume_queue("email__p2")
    assert not client.queue_counts(EMAIL).paused
    assert [part.paused for part in client.partition_counts(EMAIL)] == [True, True, False, True]
    client.resume_queue(EMAIL)
    assert sum(len(claim(conn, queue=name).ns) for name in EMAIL.physical_queues) == 8


def test_the_dead_letter_switch_is_for_all_partitions(client: awa.Client, conn: Connection) -> None:
    client.set_dead_letter(EMAIL, False)
    assert read(conn, "SELECT queue, dead_letter FROM awa.queue_controls ORDER BY queue") == [
        (name, False) for name in EMAIL.physical_queues
    ]


@pytest.mark.parametrize("by_configs", [False, True])
def test_a_worker_serves_all_partitions(client: awa.Client, dsn: str, by_configs: bool) -> None:
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    counting, enough = threading.Lock(), threading.Event()

    @awa.task(queue=EMAIL)
    def send(ctx: awa.JobContext, n: int) -> None:
        with counting:
            running[ctx.queue] += 1
            most[ctx.queue] = max(most[ctx.queue], running[ctx.queue])
        assert enough.wait(30)
        with counting:
            running[ctx.queue] -= 1

    client.enqueue_many([{"n": n} for n in range(40)], kind=send)
    queues: dict[AnyQueue, int] = {EMAIL: 2}
    with awa.Worker(EMAIL.queue_configs(2) if by_configs else queues, dsn=dsn, tasks=[send]):
        wait_for(lambda: running == dict.fromkeys(EMAIL.physical_queues, 2), what="two jobs of each partition run")
        enough.set()
        client.wait_until_empty(EMAIL, timeout=30)
    assert most == dict.fromkeys(EMAIL.physical_queues, 2)
    assert client.queue_counts(EMAIL).completed == 40


def test_jobs_of_one_key_run_in_their_order_where_a_partition_has_one_thread(client: awa.Client, dsn: str) -> None:
    seen: list[tuple[str, int]] = []

    @awa.task(queue=EMAIL)
    def step(key: str, n: int) -> None:
        seen.append((key, n))

    keys = [f"customer-{number}" for number in range(10)]
    batch = [{"key": key, "n": n} for n in range(30) for key in keys]
    client.enqueue_many_copy(batch, kind=step, opts=lambda args: awa.JobOptions(ordering_key=args["key"]))
    queues: dict[AnyQueue, int] = {EMAIL: 1}
    with awa.Worker(queues, dsn=dsn, tasks=[step]):
        client.wait_until_empty(EMAIL, timeout=30)
    for key in keys:
        assert [n for one, n in seen if one == key] == list(range(30))


def test_a_drain_waits_for_all_partitions(client: awa.Client, conn: Connection) -> None:
    client.enqueue("send", queue="email__p3")
    with pytest.raises(TimeoutError, match="queue email/4 has 1 available"):
        client.wait_until_empty(EMAIL, timeout=0)


def test_jobs_of_all_partitions_are_listed_together_newest_first(client: awa.Client) -> None:
    ids = client.enqueue_many([{"n": n} for n in range(10)], kind="send", queue=EMAIL)
    client.enqueue("send", queue="other")
    assert [job.id for job in client.list_jobs(queue=EMAIL)] == ids[::-1]
    assert [job.id for job in client.list_jobs(queue=EMAIL, limit=3)] == ids[:-4:-1]
    assert [job.id for job in client.list_jobs(queue=EMAIL, limit=3, before_id=ids[4])] == ids[3:0:-1]
    assert {job.queue for job in client.list_jobs(queue=EMAIL, limit=4)} == set(EMAIL.physical_queues)


def end_badly(client: awa.Client, conn: Connection, *, dead_letter: bool) -> None:
    """Two jobs of each partition, and two of another queue, after their only attempt has failed."""
    for name in (*EMAIL.physical_queues, "other"):
        client.set_dead_letter(name, dead_letter)
        client.enqueue_many([{"n": n} for n in range(2)], kind="send", queue=name, max_attempts=1)
        taken = claim(conn, queue=name).claim
        assert finalize(conn, fail(taken, 1), fail(taken, 2)) == []


@pytest.mark.parametrize("dead_letter", [False, True])
def test_what_is_done_to_ended_jobs_is_done_in_all_partitions(
    client: awa.Client, conn: Connection, dead_letter: bool
) -> None:
    state: EndedState = "dead_lettered" if dead_letter else "failed"
    end_badly(client, conn, dead_letter=dead_letter)
    seen: list[int] = []
    assert client.retry_ended(state, queue=EMAIL, progress=seen.append) == {"retried": 8, "conflict": 0}
    assert (seen, client.queue_counts(EMAIL).available) == ([2, 4, 6, 8], 8)
    end_badly(client, conn, dead_letter=False)
    assert client.move_to_dead_letters(queue=EMAIL) == 8
    assert client.discard_ended("dead_lettered", queue=EMAIL) == 8
    assert client.queue_counts("other").failed + client.queue_counts("other").dead_lettered == 4


def test_a_follow_up_job_goes_to_its_key_s_partition(client: awa.Client, dsn: str, conn: Connection) -> None:
    @awa.task
    def start(ctx: awa.JobContext) -> None:
        for n in range(40):
            ctx.enqueue("send", {"n": n}, queue=EMAIL, ordering_key=str(n))

    with awa.Worker({"start": 1}, dsn=dsn, tasks=[start]):
        client.enqueue(start, queue="start")
        client.wait_until_empty("start", timeout=30)
    found = queues_of(conn)
    del found[None]  # the job that enqueued them
    assert found == EXPECTED


def test_follow_up_jobs_without_a_queue_are_spread_over_a_partitioned_default(client: awa.Client, dsn: str) -> None:
    @awa.task
    def start(ctx: awa.JobContext) -> None:
        ctx.enqueue("send", ordering_key="ada")
        ctx.enqueue("send", {"n": 1})

    with awa.Worker({"start": 1}, dsn=dsn, tasks=[start], default_queue=EMAIL):
        client.enqueue(start, queue="start")
        client.wait_until_empty("start", timeout=30)
    assert client.queue_counts(EMAIL).available == 2
    assert client.queue_counts(EMAIL.queue_for_key("ada")).available >= 1


def test_whoever_counts_is_told_of_physical_queues(client: awa.Client, application: Application) -> None:
    told: list[dict[str, int]] = []
    client.on_enqueued = lambda counts: told.append(dict(counts))
    one = awa.Unique(on_conflict="skip")
    client.enqueue("send", {"n": 1}, **EMAIL.route_by_index(2), unique=one)  # type: ignore[arg-type]
    client.enqueue_many([{"n": n} for n in range(4)], kind="send", queue=EMAIL)
    client.enqueue_many([{"n": n} for n in range(3)], kind="send", queue="plain", connection=application())
    client.enqueue_many_copy([{"n": n} for n in range(8)], kind="send", queue=EMAIL)
    client.enqueue_many_copy([{"n": n} for n in range(4)], kind="send", queue="plain", unique=one)
    client.enqueue_many([{"n": n} for n in range(5)], kind="send", queue="plain", unique=one)
    client.enqueue("send", {"n": 1}, queue="plain", unique=one)
    assert told == [
        {"email__p2": 1},
        dict.fromkeys(EMAIL.physical_queues, 1),
        {"plain": 3},
        dict.fromkeys(EMAIL.physical_queues, 2),
        {"plain": 3},
        {"plain": 1},
    ]


def test_a_counter_that_fails_costs_no_job(client: awa.Client, caplog: pytest.LogCaptureFixture) -> None:
    def broken(counts: object) -> None:
        raise ValueError("no such counter")

    client.on_enqueued = broken
    assert client.enqueue("send", queue="q") > 0
    assert client.enqueue_many_copy([{}], kind="send", queue="q") == 1
    assert caplog.text.count("on_enqueued failed") == 2
    wait_for_counts(client, "q", available=2)
