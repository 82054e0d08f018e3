"""`awa dlq`, and what `awa job` does to jobs that have ended: named ones, or all that filters leave."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import awa
from awa.postgres import Connection
from tests.cli.commands import run, run_json
from tests.sql.engine import claim, fail, finalize, jobs
from tests.worker.support import job_in_state

WIDE = {"COLUMNS": "200"}


def ended(
    conn: Connection, client: awa.Client, queue: str, n: int, kind: str = "work", *, dead_letter: bool = True
) -> list[int]:
    """Jobs of a queue after their only attempt has failed."""
    client.set_dead_letter(queue, dead_letter)
    ids = client.enqueue_many(jobs(*range(n)), kind=kind, queue=queue, max_attempts=1)
    taken = claim(conn, n, queue=queue).claim
    assert finalize(conn, *(fail(taken, item, message=f"[boom] {item}") for item in range(1, n + 1))) == []
    return ids


def states(client: awa.Client, ids: list[int]) -> list[str]:
    """What the jobs are; gone ones have no state."""
    return [job.state if (job := client.get_job(job_id)) else "gone" for job_id in ids]


def test_dead_letters_are_listed_newest_first_and_page_by_page(dsn: str, conn: Connection, client: awa.Client) -> None:
    ids = ended(conn, client, "email", 3)
    ended(conn, client, "sms", 1)
    first = run_json(dsn, "dlq", "list", "--queue", "email", "--limit", "2")
    assert [job["id"] for job in first["jobs"]] == [ids[2], ids[1]]
    assert first["jobs"][0]["errors"][-1]["message"] == "[boom] 3"
    rest = run_json(dsn, "dlq", "list", "--queue", "email", "--limit", "2", "--before-id", str(first["next_before_id"]))
    assert ([job["id"] for job in rest["jobs"]], rest["next_before_id"]) == ([ids[0]], None)
    assert run_json(dsn, "dlq", "list", "--before", "1h")["jobs"] == []
    table = run(dsn, "dlq", "list", "--limit", "4", env=WIDE).stdout
    assert "[boom] 3" in table
    assert f"more with --before-id {ids[0]}" in table


def test_named_dead_letters_are_retried_and_purged(dsn: str, conn: Connection, client: awa.Client) -> None:
    ids = ended(conn, client, "email", 4)
    retried = run_json(dsn, "dlq", "retry", str(ids[0]), str(ids[1]))
    assert retried == {"jobs": [{"id": ids[0], "verdict": "retried"}, {"id": ids[1], "verdict": "retried"}]}
    assert run(dsn, "dlq", "purge", str(ids[2])).stdout == f"job {ids[2]}: purged\n"
    assert states(client, ids) == ["available", "available", "gone", "dead_lettered"]


def test_a_named_job_that_is_no_dead_letter_is_left_and_tells_by_the_exit_code(
    dsn: str, conn: Connection, client: awa.Client
) -> None:
    (failed,) = ended(conn, client, "plain", 1, dead_letter=False)
    waiting = client.enqueue("work", queue="q")
    purged = run(dsn, "dlq", "purge", str(waiting), str(failed), "987654")
    assert (purged.returncode, purged.stdout.count("no dead letter")) == (1, 3)
    retried = run(dsn, "dlq", "retry", str(waiting), "987654")
    assert (retried.returncode, retried.stdout) == (
        1,
        f"job {waiting}: not failed, cancelled or dead-lettered\njob 987654: unknown\n",
    )
    assert states(client, [waiting, failed]) == ["available", "failed"]
    moved = run(dsn, "dlq", "move", str(waiting), str(failed))
    assert (moved.returncode, moved.stdout) == (1, f"job {waiting}: not failed\njob {failed}: moved\n")
    assert states(client, [waiting, failed]) == ["available", "dead_lettered"]


def test_a_job_whose_key_is_taken_is_left(dsn: str, conn: Connection, client: awa.Client) -> None:
    one = awa.Unique(by_args=["user"])
    first = client.enqueue("refresh", {"user": 1}, queue="q", unique=one, max_attempts=1)
    assert finalize(conn, fail(claim(conn).claim, 1)) == []
    second = client.enqueue("refresh", {"user": 1}, queue="q", unique=one)
    done = run(dsn, "dlq", "retry", str(first))
    assert (done.returncode, done.stdout) == (1, f"job {first}: left: another job has its unique key\n")
    assert run_json(dsn, "dlq", "retry", "--all", "--yes") == {"retried": 0, "conflict": 1}
    assert states(client, [first, second]) == ["dead_lettered", "available"]


def test_filters_choose_what_is_retried(dsn: str, conn: Connection, client: awa.Client) -> None:
    email, sms = ended(conn, client, "email", 3), ended(conn, client, "sms", 2, kind="text")
    assert run_json(dsn, "dlq", "retry", "--before", "1h", "--yes") == {"retried": 0, "conflict": 0}
    assert run_json(dsn, "dlq", "retry", "--kind", "text", "--yes") == {"retried": 2, "conflict": 0}
    assert states(client, email + sms) == ["dead_lettered"] * 3 + ["available"] * 2
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    done = run(dsn, "dlq", "retry", "--queue", "email", "--before", later, "--yes")
    assert (done.returncode, done.stdout) == (0, "3 retried, 0 conflict\n")
    assert states(client, email) == ["available"] * 3


def test_many_are_touched_only_after_a_yes(dsn: str, conn: Connection, client: awa.Client) -> None:
    ids = ended(conn, client, "email", 2)
    for words in (("dlq", "purge"), ("dlq", "retry"), ("job", "discard", "--state", "dead_lettered")):
        declined = run(dsn, *words, "--queue", "email")
        assert declined.returncode == 1
        assert "all dead-lettered jobs of queue email" in declined.stderr
    assert states(client, ids) == ["dead_lettered"] * 2
    assert run_json(dsn, "dlq", "purge", "--queue", "email", "--yes") == {"purged": 2}
    assert states(client, ids) == ["gone"] * 2


@pytest.mark.parametrize("command", ["retry", "purge", "move"])
def test_a_bare_command_and_a_mixed_one_are_refused(dsn: str, command: str) -> None:
    assert "name jobs, or choose them" in run(dsn, "dlq", command).stderr
    mixed = run(dsn, "dlq", command, "1", "--all")
    assert mixed.returncode == 2
    assert "not both" in mixed.stderr


def test_failed_jobs_are_moved_in_bulk(dsn: str, conn: Connection, client: awa.Client) -> None:
    ids, others = ended(conn, client, "plain", 3, dead_letter=False), ended(conn, client, "other", 1, dead_letter=False)
    assert run_json(dsn, "dlq", "move", "--queue", "plain", "--yes") == {"moved": 3}
    assert states(client, ids + others) == ["dead_lettered"] * 3 + ["failed"]


def test_a_before_that_is_no_time_is_refused(dsn: str) -> None:
    for text, said in (("soon", "neither a span"), ("2026-01-31T12:00", "has no time zone")):
        done = run(dsn, "dlq", "list", "--before", text, env=WIDE)
        assert done.returncode == 2
        assert said in " ".join(done.stderr.split())


def test_jobs_are_listed_by_queue_kind_and_state(dsn: str, conn: Connection, client: awa.Client) -> None:
    ids = client.enqueue_many(jobs(*range(3)), kind="work", queue="q")
    client.enqueue("rest", queue="other")
    claim(conn, 1)
    listed = run_json(dsn, "job", "list", "--queue", "q", "--kind", "work", "--state", "available")
    assert ([job["id"] for job in listed["jobs"]], listed["next_before_id"]) == ([ids[2], ids[1]], None)
    assert len(run_json(dsn, "job", "list")["jobs"]) == 4
    assert "running" in run(dsn, "job", "list", env=WIDE).stdout
    assert run(dsn, "job", "list", "--state", "asleep").returncode == 2


def test_jobs_are_retried_by_name_and_by_state(dsn: str, conn: Connection, client: awa.Client) -> None:
    ids = ended(conn, client, "plain", 3, dead_letter=False)
    assert run(dsn, "job", "retry", str(ids[0])).stdout == f"job {ids[0]}: retried\n"
    assert run_json(dsn, "job", "retry", "--state", "failed", "--kind", "work", "--yes") == {"retried": 2, "conflict": 0}
    assert states(client, ids) == ["available"] * 3
    for words in ((), ("1", "--state", "failed"), ("--queue", "plain")):
        assert run(dsn, "job", "retry", *words).returncode == 2


def test_all_partitions_of_a_queue_are_one_queue_to_filters(dsn: str, conn: Connection, client: awa.Client) -> None:
    names = ("email", "email__p1", "sms")
    ids = [job_id for name in names for job_id in ended(conn, client, name, 2)]
    of_email = ids[:4]
    listed = run_json(dsn, "dlq", "list", "--queue", "email/2")
    assert [job["id"] for job in listed["jobs"]] == of_email[::-1]
    assert run_json(dsn, "job", "list", "--queue", "email/2") == listed
    assert "all dead-lettered jobs of queue email/2 for good?" in run(dsn, "dlq", "purge", "--queue", "email/2").stderr
    assert run_json(dsn, "dlq", "retry", "--queue", "email/2", "--yes") == {"retried": 4, "conflict": 0}
    assert states(client, ids) == ["available"] * 4 + ["dead_lettered"] * 2
    assert run(dsn, "dlq", "list", "--queue", "email/0").returncode == 2
    assert run_json(dsn, "dlq", "list", "--queue", "email/2/1")["jobs"] == []  # the queue that is called email/2


def test_jobs_are_deleted_in_whatever_state(dsn: str, conn: Connection, client: awa.Client) -> None:
    ids = client.enqueue_many(jobs(*range(2)), kind="work", queue="q")
    assert claim(conn, 1).ids == ids[:1]
    job_in_state(client, ids[0], "running")
    assert run(dsn, "job", "delete", *map(str, ids)).returncode == 0
    assert states(client, ids) == ["gone", "gone"]
    again = run(dsn, "job", "delete", str(ids[0]))
    assert (again.returncode, again.stdout) == (1, f"job {ids[0]}: unknown\n")


def test_jobs_of_a_kind_are_discarded(dsn: str, conn: Connection, client: awa.Client) -> None:
    work, text = ended(conn, client, "a", 2, dead_letter=False), ended(conn, client, "b", 2, kind="text", dead_letter=False)
    assert run_json(dsn, "job", "discard", "--state", "failed", "--kind", "text", "--yes") == {"discarded": 2}
    assert states(client, work + text) == ["failed"] * 2 + ["gone"] * 2
    assert client.queue_counts("b", exact=False) == client.queue_counts("b")
    assert run(dsn, "job", "discard").returncode == 2


def test_a_queue_is_counted_exactly_and_fast(dsn: str, conn: Connection, client: awa.Client) -> None:
    ended(conn, client, "email", 2)
    client.enqueue("work", queue="email")
    for words in ((), ("--fast",)):
        counted = run_json(dsn, "queue", "counts", "email", *words)
        assert (counted["queue"], counted["available"], counted["dead_lettered"]) == ("email", 1, 2)
        assert run_json(dsn, "queue", "list", *words)["queues"] == [counted]
    assert "email" in run(dsn, "queue", "counts", "email", "--fast", env=WIDE).stdout
    assert run_json(dsn, "queue", "counts", "nobody")["available"] == 0
