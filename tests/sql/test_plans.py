"""The hot statements are planned as index probes, on empty slots, on full ones and on slots that have been truncated."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
import pytest
from attrs import field, frozen

import awa
from tests.sql.engine import claim, complete, fail, finalize, jobs, read, redeliver, rotate

Connection = psycopg.Connection[Any]
Node = dict[str, Any]

RINGS: Final = re.compile(
    r"(ready_entries|lease_claim_batches|receipt_completion_batches|lease_claim_closures|done_entries|deferred_jobs)"
)
FULL: Final = 20_000
CLAIM_SIZE: Final = 2_000


@frozen
class Planned:
    """A statement that ran, nested or not, and its plan."""

    text: str
    nodes: list[Node] = field(repr=False)

    def of(self, kind: str) -> list[Node]:
        """The plan's nodes of one type."""
        return [node for node in self.nodes if node["Node Type"] == kind]


def walk(node: Node) -> Iterator[Node]:
    """A plan's nodes."""
    yield node
    for child in node.get("Plans", ()):
        yield from walk(child)


@contextmanager
def explained(dsn: str, *, analyze: bool = False) -> Iterator[tuple[Connection, list[Planned]]]:
    """A new session and the plans of all statements it runs, those inside functions included."""
    seen: list[Planned] = []

    def on_notice(diagnostic: psycopg.errors.Diagnostic) -> None:
        message = diagnostic.message_primary or ""
        if (start := message.find("{")) >= 0 and "plan:" in message[:start]:
            document = json.loads(message[start:])
            seen.append(Planned(document["Query Text"], list(walk(document["Plan"]))))

    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("LOAD 'auto_explain'")
        for name, value in {
            "auto_explain.log_min_duration": "0",
            "auto_explain.log_nested_statements": "on",
            "auto_explain.log_format": "json",
            "auto_explain.log_analyze": str(analyze),
            "auto_explain.log_level": "notice",
            "client_min_messages": "notice",
        }.items():
            conn.execute("SELECT set_config(%s, %s, false)", (name, value))
        conn.add_notice_handler(on_notice)
        seen.clear()
        yield conn, seen


def is_probe(node: Node) -> bool:
    """Whether a scan goes where its condition says. A whole index read in order is a Seq Scan in disguise."""
    if node["Node Type"] == "Bitmap Heap Scan":
        return all("Index Cond" in child for child in walk(node) if child["Node Type"] == "Bitmap Index Scan")
    return node["Node Type"] in ("Index Scan", "Index Only Scan") and "Index Cond" in node


def assert_index_probes(planned: list[Planned], *reads: str) -> None:
    """Rings and backlog are read by index conditions only, and `reads` are among what was read."""
    scans = [
        (node, statement)
        for statement in planned
        for node in statement.nodes
        if RINGS.match(node.get("Relation Name", "")) and node["Node Type"] != "ModifyTable"
    ]
    found = {match[0] for node, _ in scans if (match := RINGS.match(node["Relation Name"]))}
    assert found >= set(reads)
    assert [
        f"{node['Node Type']} on {node['Relation Name']} in {statement.text}"
        for node, statement in scans
        if not is_probe(node)
    ] == []


def no_jobs(conn: Connection, client: awa.Client) -> None:
    """A database as it was made, with one lane."""
    assert read(conn, "SELECT awa.ensure_lane('q', 2::int2)") == [(1,)]


def twenty_thousand_jobs(conn: Connection, client: awa.Client) -> None:
    """Half of them claimed, three quarters of those completed, a few failed; two slots; analyzed."""
    client.enqueue_many_copy(jobs(*range(FULL // 2)), kind="work", queue="q")
    rotate(conn, "queue")
    client.enqueue_many_copy(jobs(*range(FULL // 2)), kind="work", queue="q")
    for number in range(FULL // 2 // CLAIM_SIZE):
        taken = claim(conn, CLAIM_SIZE).claim
        if number == 2:
            rotate(conn, "claim")
        if number % 4:
            assert complete(conn, (taken, list(range(1, CLAIM_SIZE)))) == []
            assert finalize(conn, fail(taken, CLAIM_SIZE, delay_after=3600)) == []
    conn.execute("ANALYZE")


def the_same_unanalyzed(conn: Connection, client: awa.Client) -> None:
    """As `twenty_thousand_jobs`, with statistics from when all was empty."""
    conn.execute("ANALYZE")
    for relation in ("ready_entries", "lease_claim_batches", "receipt_completion_batches", "lease_claim_closures"):
        for slot in range(8):
            conn.execute(f"ALTER TABLE awa.{relation}_{slot} SET (autovacuum_enabled = off)".encode())
    client.enqueue_many_copy(jobs(*range(FULL)), kind="work", queue="q")
    for _ in range(2):
        assert complete(conn, (claim(conn, CLAIM_SIZE).claim, None)) == []


def truncated_slots(conn: Connection, client: awa.Client) -> None:
    """Slots that were full when they were analyzed and are empty now; a saved cursor."""
    twenty_thousand_jobs(conn, client)
    conn.execute(
        "INSERT INTO awa.queue_claim_heads SELECT l.lane_id, c.* FROM awa.queue_lanes l, awa.lane_cursor(l.lane_id) c"
    )
    conn.execute("TRUNCATE awa.ready_entries, awa.lease_claim_batches, awa.receipt_completion_batches")
    conn.execute("TRUNCATE awa.lease_claim_closures, awa.deferred_jobs")


Shape = Callable[[Connection, awa.Client], None]


@pytest.fixture(params=[no_jobs, twenty_thousand_jobs, the_same_unanalyzed, truncated_slots])
def shape(request: pytest.FixtureRequest, conn: Connection, client: awa.Client) -> None:
    """The database in one of the shapes."""
    make: Shape = request.param
    make(conn, client)


@pytest.mark.usefixtures("shape")
def test_hot_statements_probe_indexes(dsn: str, client: awa.Client) -> None:
    with explained(dsn) as (conn, planned):
        # A straggler makes the window's ranges more than one.
        late = psycopg.connect(dsn)
        client.enqueue("work", {"n": "late"}, queue="q", connection=late)
        client.enqueue_many(jobs(*range(50)), kind="work", queue="q")
        while claim(conn, 30_000).ns:
            pass
        late.commit()
        late.close()
        ids = client.enqueue_many(jobs(*range(50)), kind="work", queue="q")
        planned.clear()
        batch = claim(conn, 20)
        assert batch.ns[0] == "late"
        assert_index_probes(planned, "ready_entries", "lease_claim_batches")
        windows = [statement for statement in planned if "awa.window_rows" in statement.text]
        assert windows
        for statement in windows:
            # The window comes in index order and stops at the limit: nothing below a LIMIT is sorted.
            below = [node for limit in statement.of("Limit") for node in walk(limit)]
            assert any(RINGS.match(node.get("Relation Name", "")) for node in below)
            assert [node for node in below if "Sort" in node["Node Type"]] == []
            assert {node["Node Type"] for node in below if "Relation Name" in node} == {"Index Scan"}

        planned.clear()
        assert complete(conn, (batch.claim, [1, 2])) == []
        assert_index_probes(planned, "lease_claim_batches", "receipt_completion_batches", "lease_claim_closures")

        planned.clear()
        assert finalize(conn, fail(batch.claim, 3, delay_after=60)) == []
        assert_index_probes(planned, "lease_claim_batches", "ready_entries", "lease_claim_closures")

        planned.clear()
        assert (
            redeliver(conn, batch.token, after=batch.claim.claim_id - 1).ids == batch.ids[3:]
        )  # what has ended is not to be run
        assert_index_probes(planned, "lease_claim_batches", "ready_entries")

        for job_id, state in (
            (ids[3], "running"),
            (ids[-1], "available"),
            (batch.ids[0], "completed"),
            (batch.ids[2], "retryable"),
        ):
            planned.clear()
            assert read(conn, "SELECT state FROM awa.get_job(%s)", (job_id,)) == [(state,)]
            assert_index_probes(planned, "deferred_jobs")


def rows_read_in_vain(planned: list[Planned]) -> int:
    """Ring rows fetched and then thrown away by a filter."""
    return sum(
        node.get("Rows Removed by Filter", 0) * node.get("Actual Loops", 1)
        for statement in planned
        for node in statement.nodes
        if RINGS.match(node.get("Relation Name", ""))
    )


def test_a_lane_never_reads_the_claims_of_another(dsn: str, conn: Connection, client: awa.Client) -> None:
    client.enqueue_many(jobs(*range(300)), kind="work", queue="q")
    for _ in range(3):
        for _ in range(100):
            claim(conn, 1)
        rotate(conn, "claim")
    conn.execute("ANALYZE")
    job_id = client.enqueue("work", {"n": "new"}, queue="new")
    with explained(dsn, analyze=True) as (other, planned):
        taken = claim(other, queue="new")
        assert taken.ns == ["new"]
        assert planned
        assert rows_read_in_vain(planned) == 0
        assert read(other, "SELECT state FROM awa.get_job(%s)", (job_id,)) == [("running",)]
        assert complete(other, (taken.claim, None)) == []
        assert read(other, "SELECT state FROM awa.get_job(%s)", (job_id,)) == [("completed",)]
        assert rows_read_in_vain(planned) == 0
