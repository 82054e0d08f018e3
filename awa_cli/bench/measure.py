"""What a run cost: WAL, transactions, dead tuples, CPU, read from the server and the kernel before and after."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path
from typing import Any, Final

import psycopg
from attrs import define, frozen
from psycopg.rows import tuple_row

import awa
from awa.postgres import connect

SETTINGS: Final = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_level",
    "wal_compression",
    "shared_buffers",
    "max_wal_size",
    "autovacuum",
)

READ_XACTS: Final = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
READ_WAL: Final = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
# An update or a delete leaves a dead tuple whether or not autovacuum has been there before we look.
READ_DEAD: Final = """
    SELECT regexp_replace(relname, '_[0-9]+$', ''), sum(greatest(n_dead_tup, n_tup_upd + n_tup_del))::int8
    FROM pg_stat_user_tables WHERE schemaname = 'awa' GROUP BY 1 ORDER BY 1
"""
OTHERS: Final = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'awa %'
"""


@frozen(kw_only=True)
class Snapshot:
    """Counters at one instant."""

    wal_bytes: int
    xacts: int
    dead: dict[str, int]
    server_cpu: float | None  # seconds


@define
class Latencies:
    """Samples in milliseconds."""

    samples: list[float]

    def percentiles(self) -> dict[str, float | None]:
        """p50, p95 and p99; None without samples."""
        ordered = sorted(self.samples)
        return {name: percentile(ordered, share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}


def percentile(ordered: list[float], share: float) -> float | None:
    """The nearest-rank percentile of sorted samples.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5)
    2.0
    """
    if not ordered:
        return None
    rank = max(1, -(-len(ordered) * round(share * 100) // 100))
    return round(ordered[rank - 1], 3)


class Meter:
    """Reads the counters. Its own connection's few transactions are in the figures."""

    def __init__(self, dsn: str) -> None:
        self._conn = connect(dsn, "meter")
        self._postmaster = self._find_postmaster()

    def checkpoint(self) -> None:
        """Begin from the same place every time, where we are allowed to."""
        try:
            self._conn.execute("CHECKPOINT")
        except psycopg.errors.InsufficientPrivilege:
            return

    def read(self) -> Snapshot:
        """The counters now, once every backend of the run is gone: a backend reports its statistics when it ends."""
        deadline = time.monotonic() + 10
        while self._one(OTHERS) > 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        self._conn.execute("SELECT pg_stat_clear_snapshot()")
        return Snapshot(
            wal_bytes=int(self._one(READ_WAL)),
            xacts=int(self._one(READ_XACTS)),
            dead=dict(self._conn.execute(READ_DEAD).fetchall()),
            server_cpu=self._server_cpu(),
        )

    def environment(self) -> dict[str, Any]:
        """Where the figures come from."""
        rows = self._conn.execute(
            "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name", (list(SETTINGS),)
        ).fetchall()
        return {
            "postgres": dict(rows),
            "awa": awa.__version__,
            "python": platform.python_version(),
            "psycopg": f"{psycopg.__version__} ({psycopg.pq.__impl__})",
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "server_is_local": self._postmaster is not None,
        }

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self._conn.close()

    def _one(self, query: str) -> Any:
        row = self._conn.cursor(row_factory=tuple_row).execute(query).fetchone()
        assert row is not None
        return row[0]

    def _find_postmaster(self) -> int | None:
        """The server's process id when it runs on this machine and /proc shows it."""
        pid = self._conn.info.backend_pid
        stat = _proc_stat(pid)
        if stat is None or "postgres" not in stat[0]:
            return None
        return stat[1]

    def _server_cpu(self) -> float | None:
        """Seconds used by the server: its own, its dead children's and its living children's."""
        if self._postmaster is None:
            return None
        own = _proc_stat(self._postmaster)
        if own is None:
            return None
        total = own[2] + own[3]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (stat := _proc_stat(int(entry.name))) and stat[1] == self._postmaster:
                total += stat[2]
        return total / os.sysconf("SC_CLK_TCK")


def report(
    scenario: str,
    jobs: int,
    seconds: float,
    latencies: Latencies,
    before: Snapshot,
    after: Snapshot,
    client_cpu: float,
    **extra: Any,
) -> dict[str, Any]:
    """One run as the documented JSON object, without its environment; `client_cpu` is in seconds, imports not counted."""
    per_1k = 1000 / jobs
    server = None
    if before.server_cpu is not None and after.server_cpu is not None:
        server = round((after.server_cpu - before.server_cpu) * per_1k, 5)
    return {
        "scenario": scenario,
        "jobs": jobs,
        "seconds": round(seconds, 4),
        "jobs_per_s": round(jobs / seconds, 1),
        "latency_ms": latencies.percentiles(),
        "wal_bytes_per_job": round((after.wal_bytes - before.wal_bytes) / jobs, 1),
        "xacts_per_job": round((after.xacts - before.xacts) / jobs, 5),
        "dead_tuples": {table: count - before.dead.get(table, 0) for table, count in after.dead.items()},
        "server_cpu_s_per_1k": server,
        "client_cpu_s_per_1k": round(client_cpu * per_1k, 5),
        **extra,
    }


def _proc_stat(pid: int) -> tuple[str, int, int, int] | None:
    """(command, parent, own ticks, reaped children's ticks) of a process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    match = re.match(r"\d+ \((.*)\) (.*)", text, re.DOTALL)
    if match is None:
        return None
    fields = match[2].split()
    return match[1], int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
