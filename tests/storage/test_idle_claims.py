"""A worker that polls an idle queue costs the server reads and nothing else."""

from __future__ import annotations

from typing import Any

import psycopg

import awa
from awa.storage.claim import claim_jobs, random_id
from tests.sql.engine import RUNTIME


def test_a_hundred_empty_claims_spend_no_transaction_id_and_no_claim_number(
    client: awa.Client, conn: psycopg.Connection[Any]
) -> None:
    client.enqueue("k", queue="q")
    assert len(claim_jobs(conn, "q", 10, RUNTIME, random_id())) == 1

    def claim_number() -> int:
        row = conn.execute("SELECT last_value FROM awa.claim_id_seq").fetchone()
        assert row is not None
        return int(row[0])

    before = claim_number()
    for _ in range(100):
        with conn.transaction():
            assert claim_jobs(conn, "q", 10, RUNTIME, random_id()) == []
            assigned = conn.execute("SELECT pg_current_xact_id_if_assigned()").fetchone()
            assert assigned == (None,)
    assert claim_number() == before
