"""The processes that work: who lives, who died, who leads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from awa.job import RuntimeInfo
from awa.postgres import Connection, tuple_cursor

REGISTER_RUNTIME: Final = "SELECT awa.register_runtime(%s::int8, %s::int8, %s::int4, %s::text, %s::text, %s::jsonb)"
BEAT: Final = "SELECT awa.beat(%s::int8, %s::int4[])"
DECLARE_DEAD: Final = "SELECT awa.declare_dead(%s::int8, %s::int4[])"
DECLARE_STALE: Final = "SELECT awa.declare_stale(%s::float8, coalesce(%s::timestamptz, clock_timestamp()))"
SERVER_TIME: Final = "SELECT clock_timestamp()"
RETIRE_RUNTIME: Final = "SELECT awa.retire_runtime(%s::int8)"
LIST_RUNTIMES: Final = """
    SELECT runtime_id, supervisor_id, pid, hostname, release, queues::text, started_at, last_seen, dead_at, is_leader
    FROM awa.list_runtimes()
"""
ELECT_LEADER: Final = "SELECT awa.elect_leader(%s::int8, %s::float8, coalesce(%s::timestamptz, clock_timestamp()))"
RESIGN_LEADER: Final = "SELECT awa.resign_leader(%s::int8)"


def register_runtime(
    conn: Connection,
    *,
    runtime_id: int,
    supervisor_id: int,
    pid: int,
    hostname: str,
    release: str,
    queues: Mapping[str, int],
) -> None:
    """Make a process known before its first claim."""
    parameters = (runtime_id, supervisor_id, pid, hostname, release, json.dumps(dict(queues)))
    tuple_cursor(conn).execute(REGISTER_RUNTIME, parameters)


def beat(conn: Connection, supervisor_id: int, pids: Sequence[int]) -> list[int]:
    """Say that these processes live; those that were declared dead meanwhile, whom this does not revive."""
    return [row[0] for row in tuple_cursor(conn).execute(BEAT, (supervisor_id, list(pids))).fetchall()]


def declare_dead(conn: Connection, supervisor_id: int, pids: Sequence[int]) -> list[int]:
    """These processes of a supervisor have ended; their runtime ids."""
    return [row[0] for row in tuple_cursor(conn).execute(DECLARE_DEAD, (supervisor_id, list(pids))).fetchall()]


def declare_stale(conn: Connection, stale_after: float, now: datetime | None = None) -> list[int]:
    """Declare dead whoever was not seen for `stale_after` seconds; their runtime ids."""
    return [row[0] for row in tuple_cursor(conn).execute(DECLARE_STALE, (stale_after, now)).fetchall()]


def server_time(conn: Connection) -> datetime:
    """What the server's clock says."""
    now: datetime = tuple_cursor(conn, binary=True).execute(SERVER_TIME).fetchall()[0][0]
    return now


def retire_runtime(conn: Connection, runtime_id: int) -> None:
    """A process has ended well and has recorded everything; what it has not counts as left by a dead one."""
    tuple_cursor(conn).execute(RETIRE_RUNTIME, (runtime_id,))


def list_runtimes(conn: Connection) -> list[RuntimeInfo]:
    """Who works, and who died not long ago."""
    names = ("runtime_id", "supervisor_id", "pid", "hostname", "release", "queues")
    times = ("started_at", "last_seen", "dead_at", "is_leader")
    return [
        RuntimeInfo(**dict(zip((*names, *times), (*row[:5], json.loads(row[5]), *row[6:]), strict=True)))
        for row in tuple_cursor(conn).execute(LIST_RUNTIMES).fetchall()
    ]


def elect_leader(conn: Connection, runtime_id: int, ttl: float, now: datetime | None = None) -> bool:
    """Whether `runtime_id` leads for the next `ttl` seconds. To be asked again before they are over."""
    return bool(tuple_cursor(conn).execute(ELECT_LEADER, (runtime_id, ttl, now)).fetchall()[0][0])


def resign_leader(conn: Connection, runtime_id: int) -> None:
    """Let the next one lead at once."""
    tuple_cursor(conn).execute(RESIGN_LEADER, (runtime_id,))
