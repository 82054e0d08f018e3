"""`awa queue` and `awa job`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import awa
from tests.cli.commands import run, run_json


def test_queues_are_listed_with_their_counts(dsn: str, client: awa.Client) -> None:
    client.enqueue_many([{}] * 3, kind="k", queue="email")
    client.enqueue("k", queue="later", run_at=datetime.now(UTC) + timedelta(days=1))
    client.pause_queue("later")
    unfinished = ("available", "running", "scheduled", "retryable", "waiting")
    empty = dict.fromkeys((*unfinished, "completed", "failed", "cancelled", "dead_lettered"), 0)
    assert run_json(dsn, "queue", "list") == {
        "queues": [
            {"queue": "email", "paused": False, **empty, "available": 3},
            {"queue": "later", "paused": True, **empty, "scheduled": 1},
        ]
    }
    table = run(dsn, "queue", "list", env={"COLUMNS": "200"}).stdout
    assert "email" in table
    assert "later (paused)" in table


def test_without_queues_the_list_is_empty(dsn: str) -> None:
    assert run_json(dsn, "queue", "list") == {"queues": []}


def test_a_queue_is_paused_and_resumed(dsn: str, client: awa.Client) -> None:
    client.enqueue("k", queue="email")
    assert run(dsn, "queue", "pause", "email").stdout == "queue email is paused\n"
    assert client.queue_counts("email").paused
    assert run(dsn, "queue", "resume", "email").stdout == "queue email is resumed\n"
    assert not client.queue_counts("email").paused


def test_a_queue_whose_name_is_none_is_refused(dsn: str) -> None:
    done = run(dsn, "queue", "pause", "q" * 201)
    assert done.returncode == 1
    assert "201 characters, the limit is 200" in done.stderr


def test_a_job_is_shown(dsn: str, client: awa.Client) -> None:
    job_id = client.enqueue("send", {"to": "ada"}, queue="email", tags=["a"], metadata={"by": "bob"}, priority=1)
    shown = run_json(dsn, "job", "show", str(job_id))
    assert (shown["id"], shown["kind"], shown["args"], shown["state"]) == (job_id, "send", {"to": "ada"}, "available")
    assert (shown["tags"], shown["metadata"], shown["priority"]) == (["a"], {"by": "bob"}, 1)
    table = run(dsn, "job", "show", str(job_id))
    assert table.returncode == 0
    assert "available" in table.stdout


def test_a_job_that_is_not_there_is_an_error(dsn: str) -> None:
    done = run(dsn, "job", "show", "123456")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Error: there is no job 123456\n")


def test_without_a_schema_the_command_to_run_is_named(empty_dsn: str) -> None:
    done = run(empty_dsn, "queue", "list")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "awa migrate" in done.stderr


def test_brackets_are_text_and_not_markup(dsn: str, client: awa.Client) -> None:
    job_id = client.enqueue("k", {"text": "[/b] [red]"}, queue="q[red]")
    client.pause_queue("q[red]")
    assert "[/b] [red]" in run(dsn, "job", "show", str(job_id)).stdout
    assert "q[red] (paused)" in run(dsn, "queue", "list", env={"COLUMNS": "200"}).stdout
    assert run(dsn, "queue", "resume", "q[red]").stdout == "queue q[red] is resumed\n"
    assert "[embedded]" in run("host=h [embedded]", "queue", "list").stderr


def test_runtimes_are_listed_and_jobs_cancelled_and_queues_drained(dsn: str, client: awa.Client) -> None:
    job_id = client.enqueue("work", {}, queue="email")
    with awa.Worker({"other": 3}, dsn=dsn, tasks=[]) as worker:
        listed = run_json(dsn, "runtime", "list")["runtimes"]
        assert [one["queues"] for one in listed if one["runtime_id"] == worker.runtime_id] == [{"other": 3}]
    assert run(dsn, "queue", "drain", "email", "--timeout", "0").returncode == 1
    assert run(dsn, "job", "cancel", str(job_id)).returncode == 0
    assert run(dsn, "job", "cancel", str(job_id)).returncode == 1
    assert run(dsn, "queue", "drain", "email").returncode == 0
    assert run(dsn, "queue", "dead-letter", "email", "--off").returncode == 0
    assert client.queue_counts("email").cancelled == 1
