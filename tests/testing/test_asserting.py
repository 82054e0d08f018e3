"""assert_enqueued and its kin, and what they say when they fail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY

import psycopg
import pytest

import awa
from awa.errors import ConfigurationError
from awa.testing import all_enqueued, assert_enqueued, drain, refute_enqueued

Connection = psycopg.Connection[Any]
SOON = datetime(2090, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def welcome(client: awa.Client) -> awa.Task[..., Any, Any]:
    """A task of which three jobs are enqueued, among others."""

    @awa.task(queue="email")
    def send_welcome(to: str, name: str, flags: list[dict[str, int]] | None = None) -> None: ...

    client.enqueue("report", {"day": "2026-01-01"}, queue="slow")
    client.enqueue(send_welcome, {"to": "ada@example.com", "name": "Ada", "flags": [{"x": 1, "y": 2}]}, tags=["vip", "eu"])
    client.enqueue(send_welcome, {"to": "bob@example.com", "name": "Bob"}, priority=1)
    client.enqueue(send_welcome, {"to": "cyd@example.com", "name": "Cyd"}, run_at=SOON, unique=awa.Unique(by_args=["to"]))
    return send_welcome


def message(**expected: Any) -> list[str]:
    """The lines that assert_enqueued fails with."""
    with pytest.raises(AssertionError) as caught:
        assert_enqueued(**expected)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("expected", "names"),
    [
        ({}, ["Ada", "Bob", "Cyd"]),
        ({"args": {"name": "Bob"}}, ["Bob"]),
        ({"args": {"to": ANY, "flags": [{"x": 1}]}}, ["Ada"]),
        ({"priority": 1}, ["Bob"]),
        ({"queue": "email", "tags": ["eu"]}, ["Ada"]),
        ({"tags": "vip"}, ["Ada"]),
        ({"run_at": SOON}, ["Cyd"]),
        ({"run_at": SOON + timedelta(seconds=50), "within": 60}, ["Cyd"]),
        ({"unique": True}, ["Cyd"]),
        ({"unique": False, "count": 2}, ["Ada", "Bob"]),
    ],
)
def test_what_matches_is_returned(
    client: awa.Client, welcome: awa.Task[..., Any, Any], expected: dict[str, Any], names: list[str]
) -> None:
    assert [job.args["name"] for job in assert_enqueued(welcome, client=client, **expected)] == names
    assert [job.args["name"] for job in assert_enqueued("send_welcome", client=client, **expected)] == names
    with pytest.raises(AssertionError, match=r"should not: send_welcome"):
        refute_enqueued(welcome, client=client, **{k: v for k, v in expected.items() if k != "count"})


@pytest.mark.parametrize(
    "expected",
    [
        {"args": {"name": "Eve"}},
        {"args": {"nme": "Ada"}},
        {"args": {"flags": [{"x": 1}, {"x": 2}]}},
        {"args": {"flags": [{"x": 2}]}},
        {"priority": 3},
        {"queue": "slow"},
        {"tags": ["vip", "us"]},
        {"run_at": SOON + timedelta(seconds=50)},
        {"unique": True, "priority": 1},
    ],
)
def test_what_does_not_match_is_refuted(
    client: awa.Client, welcome: awa.Task[..., Any, Any], expected: dict[str, Any]
) -> None:
    refute_enqueued(welcome, client=client, **expected)
    assert message(task_or_kind=welcome, client=client, **expected)[0].startswith(
        "expected at least one waiting, found none: send_welcome "
    )


def test_a_failure_lists_what_is_enqueued_the_closest_first(client: awa.Client, welcome: awa.Task[..., Any, Any]) -> None:
    lines = message(task_or_kind=welcome, args={"name": "Bob", "to": "bob@example.org"}, priority=1, client=client)
    assert lines[0] == (
        "expected at least one waiting, found none: "
        "send_welcome with args {'name': 'Bob', 'to': 'bob@example.org'} with priority 1"
    )
    assert lines[1] == "enqueued are, the closest first:"
    assert [line.split()[0] for line in lines[2:]] == ["3", "2", "4", "1"]
    assert lines[2].startswith(
        "  3 send_welcome {'to': 'bob@example.com', 'name': 'Bob'} queue='email' priority=1 available run_at="
    )
    assert lines[2].endswith("  <- args.to is 'bob@example.com', not 'bob@example.org'")
    assert lines[5].endswith("  <- kind is 'report'; args.name is missing; args.to is missing; priority is 2")


def test_a_partitioned_queue_is_all_its_partitions(client: awa.Client) -> None:
    email = awa.PartitionedQueue("email", 3)
    client.enqueue_many([{"n": n} for n in range(6)], kind="send", queue=email)
    client.enqueue("send", queue="email__p3")
    assert len(assert_enqueued("send", queue=email, count=6, client=client)) == 6
    assert len(all_enqueued("send", queue=email, client=client)) == 6
    refute_enqueued("send", queue=awa.PartitionedQueue("sms", 3), client=client)
    lines = message(task_or_kind="send", queue=awa.PartitionedQueue("sms", 3), client=client)
    assert lines[0] == "expected at least one waiting, found none: send in queue 'sms/3'"
    assert lines[2].endswith("<- queue is 'email'") or "<- queue is 'email__p" in lines[2]


def test_a_wrong_count_says_how_many(client: awa.Client, welcome: awa.Task[..., Any, Any]) -> None:
    lines = message(task_or_kind=welcome, queue="email", count=2, client=client)
    assert lines[0] == "expected 2 waiting, found 3: send_welcome in queue 'email'"
    assert [line.split()[0] for line in lines[2:]] == ["2", "3", "4", "1"]
    assert message(task_or_kind="report", count=2, client=client)[0] == "expected 2 waiting, found 1: report"
    assert message(task_or_kind="report", count=0, client=client)[0] == "expected 0 waiting, found 1: report"


def test_nothing_enqueued_is_said_with_what_may_be_missing(client: awa.Client, tx: Connection) -> None:
    client.enqueue("report", connection=tx)
    assert message(task_or_kind="report", client=client) == [
        "expected at least one waiting, found none: report",
        "nothing is enqueued (what a transaction has not committed is seen with its connection= only)",
    ]


def test_jobs_of_the_kind_that_have_ended_are_named(client: awa.Client) -> None:
    @awa.task(queue="q")
    def done_already() -> None: ...

    client.enqueue(done_already)
    drain(client=client)
    assert message(task_or_kind=done_already, client=client)[2:] == [
        "of that kind there is too:",
        "  1 done_already {} queue='q' priority=2 completed",
    ]


def test_a_long_list_is_cut(client: awa.Client) -> None:
    client.enqueue_many([{"text": "x" * 500}] * 25, kind="long")
    lines = message(task_or_kind="other", client=client)
    assert lines[-1] == "  and 5 more"
    assert len(lines) == 23
    assert all(len(line) < 500 for line in lines)


def test_uncommitted_jobs_are_seen_through_their_connection(client: awa.Client, tx: Connection) -> None:
    client.enqueue("report", {"day": 1}, connection=tx)
    client.enqueue("report", {"day": 2}, run_at=SOON, connection=tx)
    assert [job.args["day"] for job in assert_enqueued("report", count=2, connection=tx)] == [1, 2]
    refute_enqueued("report", client=client)
    with pytest.raises(AssertionError, match="2 jobs wait that should not: report"):
        refute_enqueued("report", connection=tx)
    tx.rollback()
    refute_enqueued("report", connection=tx)


def test_all_enqueued_lists_what_waits(client: awa.Client, welcome: awa.Task[..., Any, Any]) -> None:
    assert [job.kind for job in all_enqueued(client=client)] == ["report", *["send_welcome"] * 3]
    assert [job.args["name"] for job in all_enqueued(welcome, client=client)] == ["Ada", "Bob", "Cyd"]
    assert [job.kind for job in all_enqueued(queue="slow", client=client)] == ["report"]
    drain(client=client, queue="email")
    assert [job.state for job in all_enqueued(welcome, client=client)] == ["scheduled"]


def test_nonsense_is_refused(client: awa.Client, tx: Connection) -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        assert_enqueued(client=client, connection=tx)
    with pytest.raises(ConfigurationError, match="time zone"):
        assert_enqueued(run_at=datetime(2030, 1, 1), client=client)  # noqa: DTZ001 - that is what is refused
    with pytest.raises(awa.InvalidJob, match="args: must be a JSON object"):
        assert_enqueued(args=3, client=client)
