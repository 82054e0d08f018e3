"""A dump in another cluster: refused where its transaction ids lie in the future, and whole after a rebase."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from attrs import evolve, frozen

import awa
from awa.claim import JOB_ID
from awa.embedded import EmbeddedPostgres
from awa.errors import RebaseNeeded
from awa.migrate import migrate
from awa.postgres import Connection, connect
from awa.rings import PRUNE_ORDER
from awa.storage.attempts import save_progress
from awa.storage.complete import Ending
from awa.storage.counters import count_closed_claims
from awa.storage.external import callback_id
from awa.storage.rebase import needs_rebase, rebase
from awa.storage.rings import prune_ring, rotate_ring
from tests.cli.commands import run, run_json
from tests.servers import create_database, private_server
from tests.sql.engine import RUNTIME, claim, complete, fail, finalize, jobs, promote_all, read
from tests.worker.support import job_in_state, wait_for_counts

BURNT = 60_000  # transaction ids that the original has used before the first job; a restore takes one or two thousand
ONE = awa.Unique(by_args=["user"])
LATER = datetime.now(UTC) + timedelta(days=1)
Lane = tuple[str, int]


@frozen
class Original:
    """What the original database holds, its dump, and in which order it hands its waiting jobs out."""

    server: EmbeddedPostgres
    dump: str
    rows: dict[int, tuple[Any, ...]]  # by job id: state and whatever else the job is
    counts: dict[str, awa.QueueCounts]
    ran: list[int]  # in the order of their claims
    parked: int
    callback: str
    order: dict[Lane, list[int]]  # of the jobs that wait, as claims of the original took them after the dump


def burn(conn: Connection, ids: int) -> None:
    """Use transaction ids up."""
    conn.execute(f"DO $$ BEGIN FOR i IN 1..{ids} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$".encode())


def all_rows(conn: Connection) -> dict[int, tuple[Any, ...]]:
    """Every job once, as awa.jobs shows it."""
    found = read(
        conn,
        "SELECT job_id, state, queue, priority, kind, args::text, attempt, max_attempts, run_lease, run_at,"
        " created_at, payload FROM awa.jobs",
    )
    rows = {row[0]: row[1:] for row in found}
    assert len(rows) == len(found)
    return rows


def claim_by_lane(conn: Connection) -> dict[Lane, list[int]]:
    """Claim all that waits; the job ids in their order, by lane."""
    order: dict[Lane, list[int]] = {}
    for (queue,) in read(conn, "SELECT DISTINCT queue FROM awa.queue_lanes"):
        while (batch := claim(conn, 3, queue=queue)).jobs:
            for claimed, _, row in batch.jobs:
                order.setdefault((queue, claimed.priority), []).append(row[JOB_ID])
    return order


def prune_a_lanes_claims(conn: Connection, client: awa.Client) -> None:
    """A lane whose cursor is known from its saved head only; three of its jobs wait."""
    client.enqueue_many(jobs(*range(5)), kind="work", queue="pruned")
    assert complete(conn, (claim(conn, 2, queue="pruned").claim, None)) == []
    kept = client.storage_settings().completed_retention
    client.storage_settings(completed_retention=0.0)
    assert rotate_ring(conn, "claim", force=True) == "rotated"
    assert [verdict.is_pruned for verdict in prune_ring(conn, "claim")] == [True]
    client.storage_settings(completed_retention=kept)
    assert read(conn, "SELECT count(*) FROM awa.queue_claim_heads") == [(1,)]
    assert client.queue_counts("pruned").completed == 2


def keep_a_proved_slot(conn: Connection, client: awa.Client) -> None:
    """Completed jobs whose claim slot is proved closed, counted, and kept."""
    client.enqueue_many(jobs(*range(3)), kind="work", queue="history")
    assert complete(conn, (claim(conn, 3, queue="history").claim, None)) == []
    assert rotate_ring(conn, "claim", force=True) == "rotated"
    assert [verdict.reason for verdict in prune_ring(conn, "claim")] == ["retention"]
    assert ("claim", "history", 3) in {
        (count.ring, count.queue, count.counted) for count in client.check_terminal_counters()
    }


def tell_the_lanes_story(conn: Connection, client: awa.Client, dsn: str) -> list[int]:
    """Stragglers, endings of every kind and a cursor in the middle of them, in one lane; the ids of those that run."""
    with psycopg.connect(dsn) as first, psycopg.connect(dsn) as second:
        early = client.enqueue_many(jobs(*range(3)), kind="work", queue="q", connection=first)
        client.enqueue_many(jobs(*range(3, 5)), kind="work", queue="q", connection=second)
        client.enqueue_many(jobs(*range(10, 16)), kind="work", queue="q", max_attempts=1)
        whole = claim(conn, 2).claim
        rest = claim(conn, 100)
        assert rest.ns == [12, 13, 14, 15]  # and the window is used up, with both transactions in progress
        assert complete(conn, (whole, None), (rest.claim, [1])) == []
        first.commit()
        client.enqueue_many(jobs(20, 21, 22), kind="work", queue="q")
        straggler = claim(conn, 1)
        assert straggler.ids == early[:1]
        assert finalize(conn, Ending(straggler.claim, 1, "completed", result='{"sum": 3}')) == []
        second.commit()
    client.enqueue_many(jobs(30, 31), kind="work", queue="q")
    assert client.cancel(client.enqueue("work", {"n": 40}, queue="q"))
    assert finalize(conn, fail(rest.claim, 2)) == []  # its last attempt: a dead letter
    assert save_progress(conn, RUNTIME, rest.claim, 3, '{"percent": 50}', '{"page": 7}') == "saved"
    return rest.ids[2:]


def end_in_other_ways(conn: Connection, client: awa.Client) -> None:
    """Jobs that are failed, retryable, cancelled while they ran, snoozed and scheduled."""
    client.set_dead_letter("plain", False)
    client.enqueue_many(jobs(*range(4)), kind="work", queue="plain")
    taken = claim(conn, 4, queue="plain").claim
    hopeless: Ending = evolve(fail(taken, 1), delay_after=None)
    endings = [hopeless, fail(taken, 2, delay_after=9e4), Ending(taken, 3, "cancelled"), Ending(taken, 4, "snoozed", 9e4)]
    assert finalize(conn, *endings) == []
    client.enqueue("work", {"n": 9}, queue="plain", run_at=LATER)


def write_original(dsn: str) -> tuple[list[int], int, str]:
    """A database with jobs in every state: those that run, the one that is parked, and its callback."""
    with connect(dsn, "test") as conn, awa.Client(dsn) as client:
        migrate(conn)
        burn(conn, BURNT)
        prune_a_lanes_claims(conn, client)
        keep_a_proved_slot(conn, client)
        ran = tell_the_lanes_story(conn, client, dsn)
        end_in_other_ways(conn, client)
        for priority in (4, 1, 3):
            client.enqueue_many(jobs(*range(5)), kind="work", queue="q", priority=priority)
        client.enqueue("work", {"user": 1}, queue="keyed", unique=ONE)
        ran += claim(conn, 1, queue="keyed").ids
        client.enqueue("work", {"user": 2}, queue="keyed", unique=ONE)
        assert count_closed_claims(conn, 0) > 0
        parked = client.enqueue("work", {"n": 0}, queue="parked")
        waits = claim(conn, 1, queue="parked").claim
        assert finalize(conn, Ending(waits, 1, "waiting", None)) == []
        return ran, parked, callback_id(waits, 1)


def program(server: EmbeddedPostgres, name: str, *arguments: str, given: str | None = None) -> str:
    """What one of the server's programs prints."""
    done = subprocess.run([str(server.bin_dir / name), *arguments], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def dump_of(server: EmbeddedPostgres, dsn: str) -> str:
    """What pg_dump says of a database."""
    return program(server, "pg_dump", "--no-owner", dsn)


def restore(server: EmbeddedPostgres, original: Original | str, name: str) -> str:
    """A new database with the dump in it; its connection URL."""
    dump = original if isinstance(original, str) else original.dump
    dsn = create_database(server.dsn, name)
    program(server, "psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", dsn, given=dump)
    return dsn


@pytest.fixture(scope="module")
def original() -> Iterator[Original]:
    """The database that was dumped."""
    with private_server() as server:
        dsn = create_database(server.dsn, "original")
        ran, parked, callback = write_original(dsn)
        dump = dump_of(server, dsn)
        with connect(dsn, "test") as conn, awa.Client(dsn) as client:
            rows = all_rows(conn)
            counts = {counts.queue: counts for counts in client.list_queues()}
            order = claim_by_lane(conn)
        yield Original(server, dump, rows, counts, ran, parked, callback, order)


@pytest.fixture(scope="module")
def young() -> Iterator[EmbeddedPostgres]:
    """A cluster that has used far fewer transaction ids."""
    with private_server() as server:
        yield server


def test_the_original_has_all_there_is(original: Original) -> None:
    assert {row[0] for row in original.rows.values()} == {
        "available",
        "scheduled",
        "retryable",
        "running",
        "waiting",
        "completed",
        "failed",
        "cancelled",
        "dead_lettered",
    }
    assert set(original.order) == {("q", 1), ("q", 2), ("q", 3), ("q", 4), ("keyed", 2), ("pruned", 2)}
    args = [original.rows[job_id][4] for job_id in original.order["q", 2]]
    assert [json.loads(text)["n"] for text in args] == [1, 2, 20, 21, 22, 3, 4, 30, 31]
    assert [original.rows[job_id][0] for job_id in original.ran] == ["running"] * 3


def test_a_younger_cluster_is_refused_by_clients_and_workers_and_the_command_named(
    original: Original, young: EmbeddedPostgres
) -> None:
    dsn = restore(young, original, "refused")
    with awa.Client(dsn) as client, psycopg.connect(dsn) as own:
        for call in (
            lambda: client.enqueue("work", queue="q"),
            lambda: client.enqueue("work", queue="q", connection=own),
            lambda: client.get_job(1),
            client.list_queues,
        ):
            with pytest.raises(RebaseNeeded, match="run `awa storage rebase`"):
                call()
    with pytest.raises(RebaseNeeded, match="run `awa storage rebase`"):
        awa.Worker({"q": 1}, dsn=dsn, tasks=[]).start()
    supervised = run(dsn, "worker", "--queues", "q:1")
    assert supervised.returncode == 1
    assert "awa storage rebase" in supervised.stderr
    with connect(dsn, "test") as conn:
        assert all_rows(conn) == original.rows


@pytest.mark.parametrize("kept", ["rows only", "a cursor only"])
def test_rows_and_cursors_alone_tell_that_a_rebase_is_needed(original: Original, young: EmbeddedPostgres, kept: str) -> None:
    name = kept.replace(" ", "_")
    dsn = create_database(original.server.dsn, name)
    with connect(dsn, "test") as conn, awa.Client(dsn) as client:
        migrate(conn)
        client.enqueue("work", queue="q")
        if kept == "a cursor only":
            client.storage_settings(completed_retention=0.0)
            assert complete(conn, (claim(conn).claim, None)) == []
            for ring in PRUNE_ORDER[:2]:
                assert rotate_ring(conn, ring, force=True) == "rotated"
                assert [verdict.is_pruned for verdict in prune_ring(conn, ring)] == [True]
            assert all_rows(conn) == {}
        assert not needs_rebase(conn)
    restored = restore(young, dump_of(original.server, dsn), name)
    with connect(restored, "test") as conn:
        assert needs_rebase(conn)
        rebase(conn)
        assert not needs_rebase(conn)
    with awa.Client(restored) as client, connect(restored, "test") as conn:
        job_id = client.enqueue("work", queue="q")
        assert claim(conn).ids[-1] == job_id


def test_a_rebase_keeps_every_job_and_every_count(original: Original, young: EmbeddedPostgres) -> None:
    dsn = restore(young, original, "kept")
    with connect(dsn, "test") as conn:
        waiting = sum(len(ids) for ids in original.order.values())
        completed = sum(row[0] == "completed" for row in original.rows.values())
        assert rebase(conn) == (len(original.ran), waiting, completed)
        assert not needs_rebase(conn)
        assert rebase(conn) == (0, 0, 0)
        found = all_rows(conn)
    assert found.keys() == original.rows.keys()
    for job_id, (state, *rest) in original.rows.items():
        if state == "running":  # its attempt does not count; its progress and checkpoint stay
            rest[4] -= 1
        assert found[job_id] == ("available" if state == "running" else state, *rest)
    with awa.Client(dsn) as client:
        for exact in (True, False):
            after = {counts.queue: counts for counts in client.list_queues(exact=exact)}
            assert after == {
                queue: evolve(counts, available=counts.available + counts.running, running=0)
                for queue, counts in original.counts.items()
            }
        assert [count for count in client.check_terminal_counters() if count.drift] == []
        assert client.list_runtimes() == []
        leased = client.get_job(original.ran[0])
        assert leased is not None
        assert leased.checkpoint == {"page": 7}


def test_a_rebase_keeps_the_order_of_every_lane_behind_the_jobs_that_ran(
    original: Original, young: EmbeddedPostgres
) -> None:
    dsn = restore(young, original, "ordered")
    expected = {lane: list(ids) for lane, ids in original.order.items()}
    for job_id in reversed(original.ran):
        _, queue, priority, *_ = original.rows[job_id]
        expected[queue, priority].insert(0, job_id)
    with connect(dsn, "test") as conn, awa.Client(dsn) as client:
        rebase(conn)
        behind = client.enqueue("work", {"n": 99}, queue="q")
        expected["q", 2].append(behind)
        assert claim_by_lane(conn) == expected


def test_after_a_rebase_keys_are_held_and_a_worker_runs_all_that_is_left(
    original: Original, young: EmbeddedPostgres
) -> None:
    dsn = restore(young, original, "worked")
    attempts: dict[int, int] = {}

    @awa.task
    def work(ctx: awa.JobContext, n: int = 0, user: int = 0) -> None:
        attempts[ctx.id] = ctx.attempt

    looked = run(dsn, "storage", "status")
    assert (looked.returncode, "run `awa storage rebase`" in looked.stderr) == (0, True)
    assert run_json(dsn, "storage", "status")["needs_rebase"] is True
    rotated = run(dsn, "storage", "rotate", "claim", "--force")
    assert (rotated.returncode, "awa storage rebase" in rotated.stderr) == (1, True)
    assert run_json(dsn, "storage", "rebase", "--yes")["running"] == len(original.ran)
    with connect(dsn, "test") as conn, awa.Client(dsn) as client:
        assert not needs_rebase(conn)
        for user in (1, 2):
            with pytest.raises(awa.UniqueConflict) as refused:
                client.enqueue("work", {"user": user}, queue="keyed", unique=ONE)
            assert original.rows[refused.value.job_id][4] == f'{{"user":{user}}}'
        assert promote_all(conn) == 3
        with awa.Worker({"q": 2, "plain": 1, "keyed": 1, "pruned": 1, "parked": 1}, dsn=dsn, tasks=[work]):
            for queue in original.counts:
                wait_for_counts(client, queue, available=0, running=0)
            assert client.complete_external(original.callback, {"paid": True})
        assert job_in_state(client, original.parked, "completed").result == {"paid": True}
        ended = ("completed", "failed", "cancelled", "dead_lettered", "waiting")
        left = {job_id for job_id, row in original.rows.items() if row[0] not in ended}
        assert set(attempts) == left
        assert {attempts[job_id] for job_id in original.ran} == {1}
        assert all(job.unfinished == 0 for job in client.list_queues())


def test_what_a_rebased_worker_leaves_is_pruned_as_ever(original: Original, young: EmbeddedPostgres) -> None:
    dsn = restore(young, original, "pruned")
    with connect(dsn, "test") as conn, awa.Client(dsn) as client:
        rebase(conn)
        before = client.queue_counts("pruned")
        taken = claim(conn, 100, queue="pruned").claim
        claim_by_lane(conn)
        assert complete(conn, (taken, None)) == []
        assert client.queue_counts("pruned", exact=False).completed == before.completed + before.available


def test_a_parked_job_may_be_answered_by_its_number_too(original: Original, young: EmbeddedPostgres) -> None:
    dsn = restore(young, original, "answered")
    with connect(dsn, "test") as conn, awa.Client(dsn) as client:
        rebase(conn)
        assert client.retry_external(original.parked)
        assert claim(conn, queue="parked").ids == [original.parked]


def test_an_older_cluster_needs_no_rebase(original: Original) -> None:
    with private_server() as older:
        with connect(older.dsn, "test") as conn:
            burn(conn, 2 * BURNT)
        dsn = restore(older, original, "older")
        with connect(dsn, "test") as conn, awa.Client(dsn) as client:
            assert not needs_rebase(conn)
            assert all_rows(conn) == original.rows
            assert {counts.queue: counts for counts in client.list_queues()} == original.counts
            behind = client.enqueue("work", {"n": 99}, queue="q")
            assert claim_by_lane(conn) == {**original.order, ("q", 2): [*original.order["q", 2], behind]}
