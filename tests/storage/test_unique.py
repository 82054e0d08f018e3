"""At most one job of a key at a time."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Literal

import psycopg
import pytest

import awa
from awa import trace
from awa.errors import InvalidJob, JobBusy
from awa.postgres import Connection
from awa.storage.complete import Ending
from awa.storage.dead_letters import retry_jobs
from awa.unique import Unique
from tests.sql.engine import claim, complete, fail, finalize, promote_all
from tests.sql.engine import read as rows
from tests.sql.rings import start, stopped
from tests.waiting import PATIENCE, wait_for

ONE = Unique(by_args=["user"])


def enqueue(client: awa.Client, user: int, unique: Unique = ONE, **options: object) -> int:
    """A job of that user."""
    return client.enqueue("refresh", {"user": user, "noise": 1}, queue="q", unique=unique, **options)  # type: ignore[arg-type]


def test_a_second_job_of_a_key_is_refused_and_names_the_first(client: awa.Client) -> None:
    first = enqueue(client, 1)
    with pytest.raises(awa.UniqueConflict) as refused:
        enqueue(client, 1)
    assert (refused.value.job_id, refused.value.index) == (first, 0)
    assert enqueue(client, 2) > 0
    assert client.queue_counts("q").available == 2


def test_a_conflict_undoes_its_batch_and_spares_the_callers_transaction(client: awa.Client, dsn: str) -> None:
    first = enqueue(client, 2)
    with psycopg.connect(dsn) as own:
        client.enqueue("before", {}, queue="q", connection=own)
        with pytest.raises(awa.UniqueConflict) as refused:
            client.enqueue_many([{"user": n} for n in (1, 2, 3)], kind="refresh", queue="q", unique=ONE, connection=own)
        assert (refused.value.job_id, refused.value.index) == (first, 1)
        client.enqueue("after", {}, queue="q", connection=own)
    assert client.queue_counts("q").available == 3


def test_a_unique_job_on_an_idle_connection_of_the_caller_is_the_callers_to_commit(client: awa.Client, dsn: str) -> None:
    with psycopg.connect(dsn) as own:
        enqueue(client, 1, connection=own)
        own.rollback()
        # The client knows the connection now, so that its enqueue is the first to begin a transaction there.
        enqueue(client, 1, connection=own)
        own.rollback()
        assert client.queue_counts("q").available == 0
        enqueue(client, 1, connection=own)
    assert client.queue_counts("q").available == 1


def test_policies(client: awa.Client) -> None:
    first = enqueue(client, 1)
    assert enqueue(client, 1, Unique(by_args=["user"], on_conflict="skip")) == 0
    assert enqueue(client, 1, Unique(by_args=["user"], on_conflict="return_existing")) == first
    second = enqueue(client, 1, Unique(by_args=["user"], on_conflict="replace"))
    assert second != first
    assert [job.state for id in (first, second) if (job := client.get_job(id))] == ["cancelled", "available"]


def test_a_trace_tells_of_new_jobs_only(client: awa.Client, tmp_path: Path) -> None:
    trace.start(tmp_path / "trace.jsonl")
    try:
        first = enqueue(client, 1)
        for on_conflict in ("skip", "return_existing"):
            enqueue(client, 1, Unique(by_args=["user"], on_conflict=on_conflict))
        client.enqueue_many_copy(
            [{"user": n} for n in (1, 2, 3)], kind="refresh", queue="q", unique=Unique(by_args=["user"], on_conflict="skip")
        )
    finally:
        trace.stop()
    written = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert [(fact["event"], fact.get("job"), fact.get("n")) for fact in written] == [
        ("enqueued", first, None),
        ("copied", None, 2),
    ]


def test_a_running_holder_is_not_replaced(client: awa.Client, conn: Connection) -> None:
    first = enqueue(client, 1)
    claim(conn)
    assert enqueue(client, 1, Unique(by_args=["user"], on_conflict="replace")) == first
    with pytest.raises(InvalidJob, match="needs a transaction of its own"):
        enqueue(client, 1, Unique(on_conflict="replace"), connection=conn)
    job = client.get_job(first)
    assert job is not None
    assert job.state == "running"


@pytest.mark.parametrize("end", ["complete", "fail for good", "cancel"])
def test_a_key_is_free_when_its_job_has_ended(client: awa.Client, conn: Connection, end: str) -> None:
    first = enqueue(client, 1)
    if end == "cancel":
        client.cancel(first)
    else:
        taken = claim(conn).claim
        with pytest.raises(awa.UniqueConflict):
            enqueue(client, 1)  # running
        if end == "complete":
            assert complete(conn, (taken, None)) == []
        else:
            assert finalize(conn, fail(taken, 1, delay_after=None)) == []  # type: ignore[arg-type]
    assert enqueue(client, 1) > first


def test_a_job_that_waits_for_its_retry_keeps_its_key(client: awa.Client, conn: Connection) -> None:
    enqueue(client, 1)
    assert finalize(conn, fail(claim(conn).claim, 1, delay_after=60)) == []
    with pytest.raises(awa.UniqueConflict):
        enqueue(client, 1)
    promote_all(conn)
    with pytest.raises(awa.UniqueConflict):
        enqueue(client, 1)


def test_a_completed_job_holds_its_key_for_the_period(client: awa.Client, conn: Connection) -> None:
    hour = Unique(by_args=["user"], period=3600)
    enqueue(client, 1, hour)
    assert complete(conn, (claim(conn).claim, None)) == []
    with pytest.raises(awa.UniqueConflict):
        enqueue(client, 1, hour)
    conn.execute("UPDATE awa.job_unique_claims SET expires_at = now() - interval '1 s'")  # the clock moves on
    assert enqueue(client, 1, hour) > 0


def test_the_second_of_two_open_transactions_waits_for_the_first(client: awa.Client, dsn: str) -> None:
    outcome: list[object] = []
    with psycopg.connect(dsn) as first:
        held = enqueue(client, 1, connection=first)

        def second() -> None:
            with awa.Client(dsn) as own:
                try:
                    outcome.append(enqueue(own, 1))
                except awa.UniqueConflict as error:
                    outcome.append(error.job_id)

        thread = threading.Thread(target=second)
        thread.start()
        enqueue(client, 2)  # another key waits for nobody
        assert outcome == []
        first.commit()
        thread.join(PATIENCE)
    assert outcome == [held]


def test_a_key_whose_holder_comes_to_life_at_that_moment_is_not_taken_from_it(
    client: awa.Client, conn: Connection, dsn: str
) -> None:
    held = enqueue(client, 1)
    assert finalize(conn, Ending(claim(conn).claim, 1, "failed", None)) == []
    skip = Unique(by_args=["user"], on_conflict="skip")
    locks = "SELECT u.* INTO v_holder FROM awa.job_unique_claims u WHERE u.unique_key = p_key FOR UPDATE;"
    with stopped(conn, dsn, "take_unique_key", locks, lambda other: enqueue(client, 1, skip, connection=other)) as taking:
        assert retry_jobs(conn, [held]) == {held: "retried"}
    assert taking.value() == 0
    assert client.queue_counts("q").available == 1


@pytest.mark.parametrize("is_swept", [False, True], ids=["kept", "swept"])
@pytest.mark.parametrize("ends", ["failed", "cancelled"])
def test_a_retry_keeps_the_scope_that_the_key_had(
    client: awa.Client, conn: Connection, ends: Literal["failed", "cancelled"], is_swept: bool
) -> None:
    """Also when the leader has swept in between, as it does every ten seconds."""
    hour = Unique(by_args=["user"], period=3600)
    first = enqueue(client, 1, hour)
    assert finalize(conn, Ending(claim(conn).claim, 1, ends, None)) == []
    before = rows(conn, "SELECT job_id, expires_at, states FROM awa.job_unique_claims")
    if is_swept:
        conn.execute("SELECT awa.sweep_unique_claims(NULL, 100)")
    assert retry_jobs(conn, [first]) == {first: "retried"}
    assert rows(conn, "SELECT job_id, expires_at, states FROM awa.job_unique_claims") == before
    assert complete(conn, (claim(conn).claim, None)) == []
    with pytest.raises(awa.UniqueConflict):
        enqueue(client, 1, hour)
    conn.execute("UPDATE awa.job_unique_claims SET expires_at = now() - interval '1 s'")  # the clock moves on
    assert enqueue(client, 1, hour) > first


def test_a_key_of_a_job_that_may_be_retried_is_free_all_the_same(client: awa.Client, conn: Connection) -> None:
    hour = Unique(by_args=["user"], period=3600)
    enqueue(client, 1, hour)
    assert finalize(conn, Ending(claim(conn).claim, 1, "failed", None)) == []
    conn.execute("SELECT awa.sweep_unique_claims(NULL, 100)")
    assert enqueue(client, 1, hour) > 0


@pytest.mark.parametrize("by", ["itself", "another", "nobody"])
def test_a_retry_after_the_period_has_the_key_until_the_job_ends_again(
    client: awa.Client, conn: Connection, by: str
) -> None:
    """Whoever had the key last: a completed job holds it no longer than its period, and this one is over."""
    hour = Unique(by_args=["user"], period=3600)
    first = enqueue(client, 1, hour)
    assert finalize(conn, Ending(claim(conn).claim, 1, "failed", None)) == []
    over = "UPDATE awa.job_unique_claims SET expires_at = now() - interval '1 s'"  # the clock moves on
    conn.execute(over)
    if by == "another":
        enqueue(client, 1, hour)
        assert complete(conn, (claim(conn).claim, None)) == []
        conn.execute(over)
    elif by == "nobody":
        conn.execute("SELECT awa.sweep_unique_claims(NULL, 100)")
    assert retry_jobs(conn, [first]) == {first: "retried"}
    with pytest.raises(awa.UniqueConflict):
        enqueue(client, 1, hour)
    assert complete(conn, (claim(conn).claim, None)) == []
    assert enqueue(client, 1, hour) > first


def test_a_retry_takes_no_key_from_a_job_that_comes_to_life_at_that_moment(
    client: awa.Client, conn: Connection, dsn: str
) -> None:
    dead = []
    for _ in range(2):  # the second takes the key of the first, which is dead
        dead.append(enqueue(client, 1))
        assert finalize(conn, Ending(claim(conn).claim, 1, "failed", None)) == []
    locks = "SELECT u.* INTO v_holder FROM awa.job_unique_claims u WHERE u.unique_key = p_unique_key FOR UPDATE;"
    with stopped(conn, dsn, "retake_unique_key", locks, lambda other: retry_jobs(other, [dead[0]])) as other:
        assert retry_jobs(conn, [dead[1]]) == {dead[1]: "retried"}
    assert other.value() == {dead[0]: "conflict"}


def test_a_job_that_took_an_expired_key_at_that_moment_is_not_replaced_unseen(
    client: awa.Client, conn: Connection, dsn: str
) -> None:
    first = enqueue(client, 1, Unique(by_args=["user"], period=1))
    replaces = """
        SELECT awa.take_unique_key(u.unique_key, 4711, 'infinity', awa.unfinished_states(), true, '{}', clock_timestamp())
        FROM awa.job_unique_claims u"""
    locks = "SELECT u.* INTO v_holder FROM awa.job_unique_claims u WHERE u.unique_key = p_key FOR UPDATE;"
    take = Unique(by_args=["user"], on_conflict="skip", period=600)
    with stopped(conn, dsn, "take_unique_key", locks, lambda other: rows(other, replaces)) as replacing:
        second = wait_for(lambda: enqueue(client, 1, take, connection=conn), what="the end of the first key's period")
    assert replacing.value() == [(None,)]
    # It was met as a holder like any other, and cancelled because it had not begun.
    assert [job.state for id in (first, second) if (job := client.get_job(id))] == ["cancelled", "cancelled"]


def test_replacing_waits_for_a_busy_lane_and_says_so_when_it_stays_busy(
    client: awa.Client, conn: Connection, dsn: str
) -> None:
    replace = Unique(by_args=["user"], on_conflict="replace")
    first = enqueue(client, 1)
    with psycopg.connect(dsn) as busy:
        rows(busy, "SELECT awa.try_lock_lane(lane_id) FROM awa.queue_lanes")
        with pytest.raises(JobBusy, match="cannot be cancelled now"):
            enqueue(client, 1, replace)
        with pytest.raises(JobBusy, match="cannot be cancelled now"):
            client.enqueue_many_copy([{"user": 1, "noise": 1}], kind="refresh", queue="q", unique=replace)
        busy.rollback()
        rows(busy, "SELECT awa.try_lock_lane(lane_id) FROM awa.queue_lanes")
        replacing = start(dsn, lambda other: enqueue(client, 1, replace))
        wait_for(lambda: rows(conn, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")[0][0], what="the wait")
        busy.rollback()
        second = replacing.value()
    assert second != first
    assert [job.state for id in (first, second) if (job := client.get_job(id))] == ["cancelled", "available"]


def test_keys_of_nobody_are_swept(client: awa.Client, conn: Connection) -> None:
    _, second, third = (enqueue(client, user) for user in (1, 2, 3))
    assert complete(conn, (claim(conn, 1).claim, None)) == []
    client.cancel(third)
    assert rows(conn, "SELECT awa.sweep_unique_claims(NULL, 100)") == [(None,)]
    assert rows(conn, "SELECT job_id FROM awa.job_unique_claims ORDER BY 1") == [(second,), (third,)]
    assert client.delete(third)  # and so it cannot be retried any more
    assert rows(conn, "SELECT awa.sweep_unique_claims(NULL, 100)") == [(None,)]
    assert rows(conn, "SELECT job_id FROM awa.job_unique_claims") == [(second,)]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"states": ["completed"]}, "unique.states"),
        ({"period": 0}, "unique.period"),
        ({"by_args": []}, "unique.by_args"),
        ({"on_conflict": "explode"}, "unique.on_conflict"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(options: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidJob) as refused:
        Unique(**options)  # type: ignore[arg-type]
    assert refused.value.field == field


def test_a_missing_argument_is_refused(client: awa.Client) -> None:
    with pytest.raises(InvalidJob, match="no argument 'user'"):
        client.enqueue("refresh", {"other": 1}, unique=ONE)


def test_the_key_is_what_it_was() -> None:
    claimed = Unique(by_args=["b", "a"]).claim("kind", "queue", '{"a":1,"b":{"y":2,"x":"ü"},"c":3}')
    assert claimed.key.hex() == Unique(by_args=("a", "b")).claim("kind", "other", '{"b":{"x":"ü","y":2},"a":1}').key.hex()
    assert Unique(by_queue=True).claim("k", "q", "{}").key != Unique().claim("k", "q", "{}").key
    assert Unique().claim("k", "q", '{"n":1}').key.hex() == "c7c7d47d05bb48ba8fc47507014b53b9"
