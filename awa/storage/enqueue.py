"""enqueue_jobs: any number of planned jobs in one statement."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from awa.plan import PlannedJob, Route
from awa.postgres import Connection, tuple_cursor

ENQUEUE_JOBS: Final = "SELECT awa.enqueue_jobs(%s::json, %s::json, %s::text[])"

_text = json.JSONEncoder(ensure_ascii=False).encode


def enqueue_parameters(
    jobs: Sequence[PlannedJob], lanes: Mapping[Route, int], notify: Iterable[str] | None
) -> tuple[str | None, str | None, list[str] | None]:
    """The parameters of ENQUEUE_JOBS."""
    if any(job.deferred for job in jobs):
        ready = [job for job in jobs if not job.deferred]
        deferred = [job for job in jobs if job.deferred]
    else:
        ready, deferred = list(jobs), []
    return (
        _records(ready, lanes),
        _records(deferred, lanes),
        None if notify is None else list(notify),
    )


def enqueue_jobs(
    conn: Connection,
    jobs: Sequence[PlannedJob],
    lanes: Mapping[Route, int],
    notify: Iterable[str] | None = None,
    *,
    prepare: bool = False,
) -> list[int]:
    """Append `jobs` in the connection's transaction; ids in the order of `jobs`.

    Args:
        conn: anybody's connection, in or out of a transaction.
        jobs: planned jobs.
        lanes: the lane of every route that occurs.
        notify: queues to wake at commit.
        prepare: the statement, on a connection of awa's own.
    """
    cursor = tuple_cursor(conn).execute(ENQUEUE_JOBS, enqueue_parameters(jobs, lanes, notify), prepare=prepare)
    return ids_in_order(jobs, [row[0] for row in cursor.fetchall()])


def ids_in_order(jobs: Sequence[PlannedJob], ids: Sequence[int]) -> list[int]:
    """The server answers for the ready jobs first, then for the deferred ones."""
    if not any(job.deferred for job in jobs):
        return list(ids)
    ready = iter(ids)
    deferred = iter(ids[sum(not job.deferred for job in jobs) :])
    return [next(deferred if job.deferred else ready) for job in jobs]


def _records(jobs: Sequence[PlannedJob], lanes: Mapping[Route, int]) -> str | None:
    """A JSON array of records, put together from texts that are JSON already."""
    if not jobs:
        return None
    kinds: dict[str, str] = {}
    parts = []
    for route, kind, args, max_attempts, run_at, payload, _, _, _ in jobs:
        name = kinds.get(kind)
        if name is None:
            name = kinds[kind] = _text(kind)
        record = f'{{"lane_id":{lanes[route]},"kind":{name},"max_attempts":{max_attempts},"args":{args}'
        if run_at is not None:
            record += f',"run_at":"{run_at.isoformat()}"'
        if payload is not None:
            record += f',"payload":{payload}'
        parts.append(record + "}")
    return f"[{','.join(parts)}]"
