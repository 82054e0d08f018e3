"""A transaction may enqueue and claim, in any order, and loses nothing."""

from __future__ import annotations

from typing import Any

import psycopg

import awa
from awa.claim import JOB_ID
from awa.storage.claim import claim_jobs, random_id
from tests.sql.engine import RUNTIME


def claimed(conn: psycopg.Connection[Any], queue: str = "q") -> list[int]:
    """The ids of the next jobs of a queue."""
    return [row[JOB_ID] for row in claim_jobs(conn, queue, 100, RUNTIME, random_id())]


def test_what_a_transaction_enqueues_after_its_own_claim_is_claimed_once_it_has_committed(
    client: awa.Client, conn: psycopg.Connection[Any]
) -> None:
    earlier = client.enqueue("k", queue="q")
    with conn.transaction():
        before = client.enqueue("k", queue="q", connection=conn)
        assert claimed(conn) == [earlier]
        after = client.enqueue("k", queue="q", connection=conn)
        assert claimed(conn) == []
        assert client.queue_counts("q").available == 1  # seen from outside: the claim is not committed either
    assert claimed(conn) == [before, after]


def test_a_second_claim_of_a_transaction_does_not_pass_over_its_later_jobs(
    client: awa.Client, conn: psycopg.Connection[Any]
) -> None:
    first = client.enqueue("k", queue="other")
    with conn.transaction():
        assert claimed(conn, "other") == [first]  # gives the transaction its id
        assert claimed(conn) == []
        job_id = client.enqueue("k", queue="q", connection=conn)
        assert claimed(conn) == []
    assert claimed(conn) == [job_id]
