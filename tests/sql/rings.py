"""The rings' verbs, with a clock that the test moves, and sessions that stand still where the test wants them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import psycopg
from attrs import define, field

import awa
from awa.migrate import load_sql
from awa.postgres import Connection, connect
from awa.rings import Ring
from awa.storage.attempts import save_progress
from awa.storage.counters import check_terminal_counters
from awa.storage.jobs import queue_counts
from awa.storage.rings import SlotVerdict, prune_ring, rotate_ring
from tests.sql.engine import RUNTIME, Batch, claim, complete, jobs, read
from tests.waiting import wait_for

T = TypeVar("T")

LATER = datetime.now(UTC) + timedelta(days=400)
MUCH_LATER = LATER + timedelta(days=400)
"""An age after LATER: what was proved closed then is over now."""


def turn(conn: Connection, ring: Ring) -> int:
    """Seal the current slot of a ring; which it was."""
    ((slot,),) = read(conn, "SELECT slot FROM awa.current_slot(%s)", (ring,))
    assert rotate_ring(conn, ring, force=True) == "rotated"
    return int(slot)


def prune(conn: Connection, ring: Ring, *, now: datetime | None = None) -> dict[int, str]:
    """What became of each slot that was looked at."""
    return said(prune_ring(conn, ring, now=now))


def said(verdicts: list[SlotVerdict]) -> dict[int, str]:
    """Verdicts by slot."""
    return {slot: reason or "pruned" for slot, reason in verdicts}


def keep_nothing(conn: Connection) -> None:
    """No retention of anything."""
    conn.execute("UPDATE awa.storage_settings SET completed_retention = 0, terminal_retention = 0, materialize_after = 0")


def rows_in(conn: Connection, table: str) -> int:
    """How many rows a table of the schema has."""
    return int(read(conn, f"SELECT count(*) FROM awa.{table}")[0][0])


def assert_counts_are_exact(conn: Connection) -> None:
    """Both counts say the same, and no counter drifts."""
    exact, fast = (queue_counts(conn, None, exact=exact) for exact in (True, False))
    assert exact == fast
    assert [count for count in check_terminal_counters(conn) if count.drift] == []


@contextmanager
def changed(conn: Connection, name: str, **texts: str) -> Iterator[None]:
    """A function of the schema with other texts inside the block."""
    (text,) = [file.text for file in load_sql().functions if file.name == name]
    other = text
    for old, new in texts.items():
        assert old in other
        other = other.replace(old, new)
    conn.execute(other.encode())
    try:
        yield
    finally:
        conn.execute(text.encode())


@define(eq=False)
class Call(Generic[T]):
    """A call in a thread and a session of its own."""

    pid: int
    thread: threading.Thread
    result: list[T] = field(factory=list)
    errors: list[BaseException] = field(factory=list)

    def value(self) -> T:
        """Its answer, once it has one."""
        self.thread.join(30)
        assert not self.thread.is_alive()
        if self.errors:
            raise self.errors[0]
        return self.result[0]


def start(dsn: str, act: Callable[[psycopg.Connection[Any]], T], options: str = "") -> Call[T]:
    """Call `act` in another session."""
    conn = connect(dsn, "awa call")
    conn.execute("SET deadlock_timeout = '200ms'")
    call: Call[T] = Call(conn.info.backend_pid, threading.Thread())

    def run() -> None:
        with conn:
            try:
                call.result.append(act(conn))
            except BaseException as error:  # noqa: BLE001 - value() raises it
                call.errors.append(error)

    call.thread = threading.Thread(target=run, daemon=True)
    call.thread.start()
    return call


@contextmanager
def stopped(
    conn: Connection, dsn: str, name: str, before: str, act: Callable[[psycopg.Connection[Any]], T]
) -> Iterator[Call[T]]:
    """`act` in another session, which stands still in a function, before a text of it, until the block ends."""
    wait = "set_config('lock_timeout', '20s', true), pg_advisory_xact_lock(0, 0), set_config('lock_timeout', '10ms', true)"
    with psycopg.connect(dsn) as barrier:
        barrier.execute("SELECT pg_advisory_xact_lock(0, 0)")
        with changed(conn, name, **{before: f"PERFORM {wait};\n{before}"}):
            call = start(dsn, act)
            wait_until_blocked(conn, call)
        yield call
        barrier.rollback()


def wait_until_blocked(conn: Connection, call: Call[Any]) -> None:
    """Until a call waits for a lock of somebody else."""
    wait_for(lambda: call.errors or read(conn, "SELECT pg_blocking_pids(%s) <> '{}'", (call.pid,))[0][0], 10, "the wait")
    assert not call.errors, call.errors


def completed(conn: Connection, client: awa.Client, *ns: int) -> list[int]:
    """Jobs that were enqueued, claimed together and completed."""
    ids = client.enqueue_many(jobs(*ns), kind="work", queue="q")
    assert complete(conn, (claim(conn, len(ns)).claim, None)) == []
    return ids


def progress(conn: Connection, batch: Batch, item: int = 1) -> None:
    """Give an attempt a lease."""
    assert save_progress(conn, RUNTIME, batch.claim, item, '{"percent": 1}', None) == "saved"
