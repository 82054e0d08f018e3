"""`awa enqueue`: one job, or a file of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import awa
from tests.cli.commands import AWA, environment, run, run_json


def written(path: Path, lines: Sequence[object]) -> str:
    """A file of these lines: text as it is, anything else as JSON."""
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), "utf-8")
    return str(path)


def jobs_of(client: awa.Client, ids: list[int]) -> list[awa.Job]:
    """The jobs of these ids."""
    return [job for job_id in ids if (job := client.get_job(job_id))]


def total(client: awa.Client) -> int:
    """How many jobs there are in all queues."""
    return sum(counts.unfinished for counts in client.list_queues())


def test_a_job_is_enqueued_with_everything_that_was_said(dsn: str, client: awa.Client) -> None:
    options = [
        "--queue",
        "email",
        "--priority",
        "1",
        "--max-attempts",
        "3",
        "--tag",
        "a",
        "--tag",
        "b",
        "--ordering-key",
        "k",
    ]
    found = run_json(
        dsn,
        "enqueue",
        "send",
        "--args",
        '{"to": "ada"}',
        *options,
        "--run-at",
        "2100-01-01T01:00:00+01:00",
        "--metadata",
        '{"m": 1}',
    )
    (job,) = jobs_of(client, found["ids"])
    assert (job.kind, job.args, job.queue, job.priority, job.max_attempts) == ("send", {"to": "ada"}, "email", 1, 3)
    assert (job.tags, job.metadata, job.run_at) == (("a", "b"), {"m": 1}, datetime(2100, 1, 1, tzinfo=UTC))


def test_a_job_needs_no_arguments(dsn: str, client: awa.Client) -> None:
    done = run(dsn, "enqueue", "report")
    (job,) = jobs_of(client, [int(done.stdout.split()[1])])
    assert (done.returncode, done.stdout) == (0, f"job {job.id} is enqueued\n")
    assert (job.kind, job.args, job.queue) == ("report", {}, "default")


def test_a_unique_job_conflicts_with_exit_code_4(dsn: str, client: awa.Client) -> None:
    first = run_json(dsn, "enqueue", "refresh", "--args", '{"user": 7, "why": "a"}', "--unique-by", "user")["ids"][0]
    again = ("enqueue", "refresh", "--args", '{"user": 7, "why": "b"}', "--unique-by", "user")
    done = run(dsn, *again)
    assert (done.returncode, done.stdout) == (4, "")
    assert f"job {first} has the unique key; nothing was enqueued" in done.stderr
    assert run(dsn, *again, "--on-conflict", "skip").stdout == "skipped: another job has the unique key\n"
    assert run_json(dsn, *again, "--on-conflict", "return_existing") == {"ids": [first]}
    assert run_json(dsn, *again, "--on-conflict", "replace")["ids"] != [first]
    assert total(client) == 1


def test_a_file_is_enqueued_and_what_a_line_says_wins(dsn: str, client: awa.Client, tmp_path: Path) -> None:
    lines = [
        {"args": {"n": 0}},
        {
            "args": {"n": 1},
            "kind": "other",
            "queue": "bulk",
            "priority": 4,
            "max_attempts": 2,
            "tags": ["x"],
            "metadata": {"m": 1},
        },
        {"args": {"n": 2}, "run_at": "2100-01-01T00:00:00Z", "queue": None},
        {},
    ]
    file = written(tmp_path / "jobs.ndjson", lines)
    found = run_json(dsn, "enqueue", "work", "--file", file, "--queue", "email", "--tag", "t")
    jobs = jobs_of(client, found["ids"])
    assert [(job.kind, job.queue, job.priority, job.max_attempts) for job in jobs] == [
        ("work", "email", 2, 25),
        ("other", "bulk", 4, 2),
        ("work", "default", 2, 25),
        ("work", "email", 2, 25),
    ]
    assert [(job.tags, job.metadata, job.state) for job in jobs] == [
        (("t",), {}, "available"),
        (("x",), {"m": 1}, "available"),
        (("t",), {}, "scheduled"),
        (("t",), {}, "available"),
    ]
    assert [job.args for job in jobs] == [{"n": 0}, {"n": 1}, {"n": 2}, {}]


def test_a_file_goes_to_the_partitions_of_its_keys(dsn: str, client: awa.Client, tmp_path: Path) -> None:
    email = awa.PartitionedQueue("email", 4)
    lines = [{"args": {"n": n}, "ordering_key": f"customer-{n}"} for n in range(20)]
    file = written(tmp_path / "jobs.ndjson", lines)
    done = run(dsn, "enqueue", "send", "--file", file, "--queue", "email/4")
    assert (done.returncode, done.stdout, done.stderr) == (0, "20 jobs are enqueued\n", "")
    expected = [email.queue_for_key(f"customer-{n}") for n in range(20)]
    assert [part.available for part in client.partition_counts(email)] == [
        expected.count(name) for name in email.physical_queues
    ]


def test_standard_input_is_a_file_too(dsn: str, client: awa.Client) -> None:
    text = "".join(f'{{"kind": "work", "args": {{"n": {n}}}}}\n' for n in range(3000))
    done = subprocess.run(
        [*AWA, "enqueue", "--file", "-"],
        env=environment(dsn),
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3,000 jobs are enqueued\n", "")
    assert client.queue_counts("default").available == 3000


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 3 is not JSON: "),
        ("", "line 3 is empty"),
        ("[1]", "line 3 must be a JSON object, not list"),
        ({"arguments": {}}, "line 3: arguments: is none of kind, args, queue"),
        ({"args": {"a": ["x\u0000"]}}, "line 3: args.a[0]: contains NUL"),
        ({"args": 7}, "line 3: args: must be a JSON object"),
        ({"priority": 9}, "line 3: priority: must be between 1 and 4, not 9"),
        ({"priority": "1"}, "line 3: priority: must be an integer, not str"),
        ({"queue": 5}, "line 3: queue: must be text, not int"),
        ({"queue": "q/0"}, "line 3: queue: partitions must be between 1 and 32767"),
        ({"run_at": "tomorrow"}, "line 3: run_at: 'tomorrow' is no ISO 8601 instant"),
        ({"run_at": "2026-01-01T00:00:00"}, "line 3: run_at: must carry a time zone"),
        ({"tags": "t"}, "line 3: tags: must be a list, not str"),
        ({"unique": {"by": "x"}}, "line 3: unique: "),
        ({"unique": {"by_args": ["x"]}}, "line 3: unique.by_args: the job has no argument 'x'"),
        ({"ordering_key": 7}, "line 3: ordering_key: must be text or bytes, not int"),
        ({"kind": ""}, "line 3: kind: must not be empty"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_enqueued(
    dsn: str, client: awa.Client, tmp_path: Path, line: Any, said: str
) -> None:
    file = written(tmp_path / "jobs.ndjson", [{"args": {"n": 1}}, {}, line, {}])
    done = run(dsn, "enqueue", "work", "--file", file)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"Error: {said}" in done.stderr
    assert done.stderr.endswith("; nothing was enqueued\n")
    assert total(client) == 0


def test_what_is_no_text_is_named_by_its_line(dsn: str, client: awa.Client, tmp_path: Path) -> None:
    (tmp_path / "jobs.ndjson").write_bytes(b'{}\n{"args": {"a": "\xff"}}\n')
    done = run(dsn, "enqueue", "work", "--file", str(tmp_path / "jobs.ndjson"))
    assert (done.returncode, total(client)) == (1, 0)
    assert "line 2 is not UTF-8" in done.stderr


def test_a_conflict_in_a_file_names_its_line_and_undoes_the_file(dsn: str, client: awa.Client, tmp_path: Path) -> None:
    lines = [{"args": {"user": user}} for user in (1, 2, 1)]
    file = written(tmp_path / "jobs.ndjson", lines)
    done = run(dsn, "enqueue", "refresh", "--file", file, "--unique")
    assert done.returncode == 4
    assert "line 3: job" in done.stderr
    assert total(client) == 0
    ids = run_json(dsn, "enqueue", "refresh", "--file", file, "--unique", "--on-conflict", "skip")["ids"]
    assert (len(ids), ids[2], total(client)) == (3, 0, 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give a KIND, or --file"),
        (("k", "--args", "{"), "Invalid value for --args: not JSON"),
        (("k", "--args", "[1]"), "Invalid value for --args: must be a JSON object"),
        (("k", "--args", "{}", "--file", "x"), "--args and --file exclude each other"),
        (("k", "--on-conflict", "skip"), "--on-conflict goes with --unique"),
        (("k", "--queue", "q/0"), "partitions must be between 1 and 32767, not 0"),
        (("k", "--file", "/nowhere/at/all"), "No such file"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_exit_code_2(dsn: str, arguments: tuple[str, ...], said: str) -> None:
    done = run(dsn, "enqueue", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_refused_job_is_exit_code_1(dsn: str, client: awa.Client) -> None:
    done = run(dsn, "enqueue", "k", "--priority", "7")
    assert (done.returncode, total(client)) == (1, 0)
    assert "priority: must be between 1 and 4, not 7; nothing was enqueued" in done.stderr


def test_queues_are_named_with_their_partitions(dsn: str, client: awa.Client) -> None:
    email = awa.PartitionedQueue("email", 2)
    assert run(dsn, "queue", "pause", "email/2").stdout == "queue email/2 is paused\n"
    assert client.queue_counts(email).paused
    client.enqueue("k", queue="email__p1")
    assert run(dsn, "queue", "drain", "email/2", "--timeout", "0").returncode == 1
    assert run(dsn, "queue", "resume", "email/2").returncode == 0
    assert not client.queue_counts("email__p1").paused


def test_a_queue_s_shards_are_shown_and_set(dsn: str, client: awa.Client) -> None:
    assert run(dsn, "queue", "shards", "email").stdout == "queue email has 1 shard\n"
    assert run(dsn, "queue", "shards", "email/2", "4").stdout == "queue email/2 has 4 shards\n"
    assert run_json(dsn, "queue", "shards", "email__p1") == {"queue": "email__p1", "enqueue_shards": 4}
    assert client.enqueue_shards("email") == 4
    assert run(dsn, "queue", "shards", "email", "65").returncode == 2
