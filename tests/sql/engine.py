"""One line a step: the engine's verbs as the tests of `sql/` use them, always through `awa.storage` and the client."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from attrs import frozen

from awa.claim import ARGS, JOB_ID, Claim, ClaimedRow
from awa.postgres import Connection
from awa.storage import runtimes
from awa.storage.claim import claim_jobs, random_id, read_claims, redeliver_claims
from awa.storage.complete import Completion, Ending, NotAccepted, complete_jobs, finalize_attempts, not_accepted

RUNTIME = 4711
_flushes = itertools.count(1)


@frozen
class Batch:
    """What one claim call handed out."""

    token: int
    jobs: list[tuple[Claim, int, ClaimedRow]]

    @property
    def ids(self) -> list[int]:
        """The jobs' ids in the order handed out."""
        return [row[JOB_ID] for _, _, row in self.jobs]

    @property
    def ns(self) -> list[Any]:
        """The jobs' argument `n` in the order handed out."""
        return [row[ARGS]["n"] for _, _, row in self.jobs]

    @property
    def claims(self) -> list[Claim]:
        """Each claim of the call once, in order."""
        return list({claim.claim_id: claim for claim, _, _ in self.jobs}.values())

    @property
    def claim(self) -> Claim:
        """The only claim of the call."""
        (only,) = self.claims
        return only


def jobs(*ns: object) -> list[dict[str, object]]:
    """Arguments that tell jobs apart."""
    return [{"n": n} for n in ns]


def register(conn: Connection, *runtime_ids: int) -> None:
    """Make runtimes known, each its own supervisor, with its id for a pid; those that are known stay as they are."""
    known = {runtime.runtime_id for runtime in runtimes.list_runtimes(conn)}
    for runtime_id in runtime_ids:
        if runtime_id not in known:
            runtimes.register_runtime(
                conn,
                runtime_id=runtime_id,
                supervisor_id=runtime_id,
                pid=runtime_id % 2**31,
                hostname="test",
                release="test",
                queues={},
            )


def claim(
    conn: Connection,
    limit: int = 100,
    *,
    queue: str = "q",
    runtime_id: int = RUNTIME,
    deadline_after: float | None = None,
) -> Batch:
    """Claim jobs of a queue."""
    register(conn, runtime_id)
    token = random_id()
    return Batch(token, read_claims(claim_jobs(conn, queue, limit, runtime_id, token, deadline_after), queue, token))


def claim_all(conn: Connection, limit: int = 100, *, queue: str = "q") -> list[Any]:
    """The `n` of every job that claims hand out until one comes back empty."""
    ns: list[Any] = []
    while batch := claim(conn, limit, queue=queue).ns:
        ns += batch
        assert len(ns) <= 30_000, "jobs come back for ever"
    return ns


def redeliver(conn: Connection, token: int, *, after: int = 0, runtime_id: int = RUNTIME) -> Batch:
    """Ask again for the answer of the claim call that used `token`."""
    return Batch(token, read_claims(redeliver_claims(conn, runtime_id, token, after), "q", token))


def complete(
    conn: Connection, *done: tuple[Claim, list[int] | None], runtime_id: int = RUNTIME, flush_id: int | None = None
) -> list[NotAccepted]:
    """Complete items of claims (None: all) in one flush; what was not accepted."""
    flush_id = next(_flushes) if flush_id is None else flush_id
    completions = [Completion(claim, items) for claim, items in done]
    return not_accepted(complete_jobs(conn, runtime_id, flush_id, completions))


def finalize(
    conn: Connection, *endings: Ending, runtime_id: int = RUNTIME, flush_id: int | None = None
) -> list[NotAccepted]:
    """End attempts in one flush; what was not accepted."""
    flush_id = next(_flushes) if flush_id is None else flush_id
    return not_accepted(finalize_attempts(conn, runtime_id, flush_id, endings))


def fail(claim: Claim, item: int, *, delay_after: float = 0.0, message: str = "boom") -> Ending:
    """A failed attempt."""
    return Ending(claim, item, "failed", delay_after, {"message": message})


def promote_all(conn: Connection) -> int:
    """Make every deferred job ready, whenever it is due."""
    return int(read(conn, "SELECT awa.promote_due(30000, 'infinity')")[0][0])


def rotate(conn: Connection, ring: str) -> None:
    """Let a ring fill its next slot."""
    conn.execute(
        "INSERT INTO awa.ring_rotations (ring, generation, slot)"
        " SELECT ring, max(generation) + 1, (max(generation) + 1) %% 8 FROM awa.ring_rotations"
        " WHERE ring = %s GROUP BY ring",
        (ring,),
    )


def read(conn: Connection, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """All rows of a query."""
    return psycopg.Cursor(conn).execute(query.encode(), parameters).fetchall()


@contextmanager
def writes(conn: Connection) -> Iterator[dict[str, tuple[int, int, int]]]:
    """Rows inserted, updated and deleted inside the block, by ring or table. The block is one transaction."""
    seen: dict[str, tuple[int, int, int]] = {}
    with conn.transaction():
        before = _written(conn)
        yield seen
        for name, after in _written(conn).items():
            inserted, updated, deleted = (now - then for now, then in zip(after, before.get(name, (0, 0, 0)), strict=True))
            if (inserted, updated, deleted) != (0, 0, 0):
                seen[name] = (inserted, updated, deleted)


def _written(conn: Connection) -> dict[str, tuple[int, int, int]]:
    """What the session has written and not yet reported, which may include earlier transactions."""
    rows = read(
        conn,
        "SELECT regexp_replace(relname, '_[0-7]$', ''), sum(n_tup_ins)::int, sum(n_tup_upd)::int, sum(n_tup_del)::int"
        " FROM pg_stat_xact_user_tables WHERE schemaname = 'awa' GROUP BY 1",
    )
    return {name: (inserted, updated, deleted) for name, inserted, updated, deleted in rows}
