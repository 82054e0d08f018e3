"""claim_jobs: a batch of a queue's jobs for one runtime."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

import psycopg
from psycopg.adapt import Loader
from psycopg.types.numeric import Int8BinaryLoader
from psycopg.types.string import TextBinaryLoader

from awa.claim import CLAIM_ID, CLAIM_SLOT, CLAIMED_AT, DEADLINE_AT, KIND, PRIORITY, Claim, ClaimedRow
from awa.errors import RuntimeDeclaredDead, from_database
from awa.postgres import Connection, set_session

CLAIM_JOBS: Final = "SELECT * FROM awa.claim_jobs(%s::text, %s::int4, %s::int8, %s::int8, %s::float8)"
SET_LOCAL: Final = "SELECT set_config(%s, %s, true)"
REDELIVER_CLAIMS: Final = "SELECT * FROM awa.redeliver_claims(%s::int8, %s::int8, %s::int8)"

Settings = Sequence[tuple[str, str]]


def random_id() -> int:
    """A random positive int8."""
    return secrets.randbits(63)


def prepare_claiming(conn: Connection, *, durable: bool = False, statement_timeout: float | None = None) -> Settings:
    """Make `conn` a connection to claim on: rows arrive undecoded, and by default commits do not wait for the disk.

    A claim lost in a server crash is claimed again, and a durable completion flushes the WAL of its own claim.

    Returns:
        What could not be set for the session, because a pooler has none, and is to be set in each claim's transaction.

    Args:
        conn: an autocommit connection.
        durable: commits wait for the disk all the same.
        statement_timeout: seconds a claim may take.
    """
    conn.adapters.register_loader("json", TextBinaryLoader)
    conn.adapters.register_loader("jsonb", JsonbTextLoader)
    conn.adapters.register_loader("timestamptz", Int8BinaryLoader)
    settings = [] if durable else [("synchronous_commit", "off")]
    if statement_timeout is not None:
        settings.append(("statement_timeout", f"{round(statement_timeout * 1000)}ms"))
    return [(name, value) for name, value in settings if not set_session(conn, name, value)]


class JsonbTextLoader(Loader):
    """The text of a binary jsonb, behind its version byte."""

    format = psycopg.pq.Format.BINARY

    def load(self, data: bytes | bytearray | memoryview) -> str:
        return bytes(data)[1:].decode()


def claim_jobs(
    conn: Connection,
    queue: str,
    limit: int,
    runtime_id: int,
    token: int,
    deadline_after: float | None = None,
    local: Settings = (),
) -> list[ClaimedRow]:
    """Claim up to `limit` jobs of `queue`.

    Args:
        conn: an autocommit connection through `prepare_claiming`.
        queue: its name.
        limit: 1 to 32767 jobs.
        runtime_id: who claims; registered and alive.
        token: random, new for every call.
        deadline_after: seconds until the claim's jobs may be taken from the runtime; `None` for no deadline.
        local: what `prepare_claiming` returned.

    Raises:
        RuntimeDeclaredDead: nobody would rescue what this runtime claims.
    """
    cursor = psycopg.Cursor(conn)
    parameters = (queue, limit, runtime_id, token, deadline_after)
    try:
        if local:
            # Up to its end a pipeline is one transaction, and one flush of the network.
            with conn.pipeline():
                for setting in local:
                    conn.execute(SET_LOCAL, setting)
                cursor.execute(CLAIM_JOBS, parameters, binary=True)
        else:
            cursor.execute(CLAIM_JOBS, parameters, prepare=True, binary=True)
    except psycopg.Error as error:
        if isinstance(known := from_database(error), RuntimeDeclaredDead):
            raise known from error
        raise
    return cursor.fetchall()


def redeliver_claims(conn: Connection, runtime_id: int, token: int, after_claim_id: int) -> list[ClaimedRow]:
    """The rows of the claim call that used `token` and whose answer never came; none when it was never committed.

    Args:
        conn: as for `claim_jobs`.
        runtime_id: who claimed.
        token: of the lost call.
        after_claim_id: the newest claim whose answer did come, or 0.
    """
    return psycopg.Cursor(conn).execute(REDELIVER_CLAIMS, (runtime_id, token, after_claim_id), binary=True).fetchall()


def read_claims(rows: list[ClaimedRow], queue: str, token: int) -> list[tuple[Claim, int, ClaimedRow]]:
    """Pair every row with its claim and its item there, but for those whose job has ended: they come without a kind."""
    jobs = []
    claim: Claim | None = None
    item = 0
    for row in rows:
        if row[CLAIM_ID] is not None:
            claim = Claim(row[CLAIM_SLOT], row[CLAIM_ID], token, queue, row[PRIORITY], row[CLAIMED_AT], row[DEADLINE_AT])
            item = 0
        assert claim is not None
        item += 1
        claim.n = item
        if row[KIND] is not None:
            jobs.append((claim, item, row))
    return jobs
