"""copy_jobs: the same plan as enqueue_jobs, through COPY."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from attrs import define, frozen
from psycopg.errors import SerializationFailure

from awa.errors import InvalidJob, UniqueConflict
from awa.plan import PlannedJob, Route
from awa.postgres import Connection, tuple_cursor
from awa.storage.unique import enqueue_unique, holders_since

CURRENT_SLOT: Final = "SELECT slot FROM awa.current_slot('queue')"
# A default cannot be asked for inside a COPY, so rows that need none of run_at and payload leave the columns out.
COPY_READY_PLAIN: Final = "COPY awa.ready_entries (ready_slot, lane_id, kind, args, max_attempts) FROM STDIN"
COPY_READY: Final = "COPY awa.ready_entries (ready_slot, lane_id, kind, args, max_attempts, run_at, payload) FROM STDIN"
COPY_DEFERRED: Final = "COPY awa.deferred_jobs (lane_id, kind, args, max_attempts, run_at, payload) FROM STDIN"
COPY_READY_NUMBERED: Final = (
    "COPY awa.ready_entries (ready_slot, lane_id, kind, args, max_attempts, run_at, payload, job_id, unique_key) FROM STDIN"
)
COPY_DEFERRED_NUMBERED: Final = (
    "COPY awa.deferred_jobs (lane_id, kind, args, max_attempts, run_at, payload, job_id, unique_key) FROM STDIN"
)
RESERVE_JOB_IDS: Final = "SELECT awa.reserve_job_ids(%s::int4)"
LOCK_UNIQUE_COPIES: Final = "SELECT awa.lock_unique_copies()"
TAKE_UNIQUE_KEYS: Final = (
    "SELECT place, holder FROM awa.take_unique_keys(%s::bytea[], %s::int8[], %s::int2[], %s::json) ORDER BY place"
)

COPY_CHUNK: Final = 2000
"""Deferred jobs held back while ready ones stream: a connection runs one COPY at a time. Also the step of `progress`."""
NUMBERED_CHUNK: Final = 5000
"""Jobs whose ids and keys are taken at once, before the COPY that writes them; or that are read ahead of it."""


def current_queue_slot(conn: Connection) -> int:
    """The ready slot being filled. It may be sealed by the time rows land in it, which is legal."""
    return int(tuple_cursor(conn).execute(CURRENT_SLOT).fetchall()[0][0])


@frozen
class CopyTarget:
    """Where the rows of one `copy_jobs` go.

    Args:
        ready_slot: from `current_queue_slot`.
        lane_of: the lane of a job; not to be asked on the connection that copies.
        single: the lanes of routes that have one, filled by `lane_of`: a dictionary answers sooner than a function.
        check: of a connection that others use as well: called before each statement that follows upon reading `jobs`. Such a
            connection is left free while they are read, because their source may be a query on it.
    """

    ready_slot: int
    lane_of: Callable[[PlannedJob], int]
    single: Mapping[Route, int]
    check: Callable[[], object] | None = None


@define
class Copied:
    """What `copy_jobs` has written."""

    count: int = 0
    ids: array[int] | None = None  # eight bytes a job, in the order of the jobs; 0 for one that was skipped
    by_queue: dict[str, int] | None = None  # jobs enqueued, by physical queue, where somebody wants to know


def copy_jobs(
    conn: Connection,
    jobs: Iterable[PlannedJob],
    target: CopyTarget,
    progress: Callable[[int], object] | None = None,
    *,
    with_ids: bool = False,
    count_queues: bool = False,
) -> Copied:
    """Append `jobs` in the connection's transaction as they are read; memory does not grow with them, but for the ids.

    Ready jobs stream while the next are planned. Where ids are wanted or a unique key is met, NUMBERED_CHUNK jobs at a time
    are held: a connection answers nothing during a COPY, so their ids are reserved and their keys taken before it. So many
    are also held where the connection is not ours alone: who reads jobs from it while a COPY runs on it would wait for ever.

    Args:
        conn: a connection in a transaction, not in pipeline mode.
        jobs: planned jobs; the order within a lane is kept.
        target: where to.
        progress: called with the number of jobs read and written so far, every few thousand and at the end.
        with_ids: return the jobs' ids.
        count_queues: return how many jobs went to each queue.

    Raises:
        UniqueConflict: a key is taken; the caller's transaction or savepoint is to be rolled back.
    """
    result = Copied(ids=array("q") if with_ids else None, by_queue={} if count_queues else None)
    return _Copying(conn, iter(jobs), target, progress, result).run()


class _Copying:
    def __init__(
        self,
        conn: Connection,
        source: Iterator[PlannedJob],
        target: CopyTarget,
        progress: Callable[[int], object] | None,
        result: Copied,
    ) -> None:
        self._conn = conn
        self._source = source
        self._ahead: Iterator[PlannedJob] = iter(())  # jobs that were read and are not written, before those of the source
        self._target = target
        self._progress = progress
        self._result = result
        self._read = 0
        self._said = 0
        self._now = datetime.now(UTC)
        self._plain = True  # until a job needs the other columns; from then on all rows fill them
        self._has_unique = False
        self._snapshot_stays: bool | None = None  # above READ COMMITTED; asked when the first key is wanted

    def run(self) -> Copied:
        job = next(self._source, None)
        while job is not None:
            if self._result.ids is not None or job.unique is not None:
                job = self._write_numbered(job)
            elif self._target.check is not None:
                job = self._write_held(job)
            else:
                job = self._stream(job, self._source, self._progress)
        if self._progress and self._said != self._read:
            self._progress(self._read)
        return self._result

    def _write_held(self, first: PlannedJob) -> PlannedJob | None:
        """Write jobs that have been read, so that nobody wants the connection meanwhile; the next one, or None."""
        self._ahead = iter(self._take(NUMBERED_CHUNK - 1))
        self._check()
        job = self._stream(first, self._ahead, None)
        if self._progress:
            self._progress(self._read)
            self._said = self._read
        return self._following() if job is None else job

    def _take(self, limit: int) -> list[PlannedJob]:
        """The next jobs."""
        taken = list(islice(self._ahead, limit))
        taken += islice(self._source, limit - len(taken))
        return taken

    def _following(self) -> PlannedJob | None:
        """The next job."""
        job = next(self._ahead, None)
        return next(self._source, None) if job is None else job

    def _check(self) -> None:
        if self._target.check is not None:
            self._target.check()

    def _stream(
        self, first: PlannedJob, source: Iterator[PlannedJob], progress: Callable[[int], object] | None
    ) -> PlannedJob | None:
        """Write jobs as they come; the first that is not written, or None at the end of `source`."""
        job: PlannedJob | None = first
        count = began = self._read
        plain, now = self._plain, self._now
        ready_slot, single, lane_of = self._target.ready_slot, self._target.single, self._target.lane_of
        deferred: list[Sequence[Any]] = []
        by_queue = self._result.by_queue
        with tuple_cursor(self._conn) as cursor, cursor.copy(COPY_READY_PLAIN if plain else COPY_READY) as copy:
            write = copy.write_row
            # The server takes rows in while the next ones are planned.
            while job is not None and len(deferred) < COPY_CHUNK:
                route, kind, args, max_attempts, run_at, payload, is_deferred, unique, _ = job
                if unique is not None:
                    break
                lane_id = single.get(route) or lane_of(job)
                if is_deferred:
                    deferred.append((lane_id, kind, args, max_attempts, run_at, payload))
                elif not plain:
                    write((ready_slot, lane_id, kind, args, max_attempts, run_at or now, payload))
                elif run_at is None and payload is None:
                    write((ready_slot, lane_id, kind, args, max_attempts))
                else:
                    self._plain = False
                    break
                count += 1
                if by_queue is not None:
                    by_queue[route.queue] = by_queue.get(route.queue, 0) + 1
                if progress and count % COPY_CHUNK == 0:
                    progress(count)
                    self._said = count
                job = next(source, None)
        _copy_rows(self._conn, COPY_DEFERRED, deferred)
        self._read = count
        self._result.count += count - began
        return job

    def _write_numbered(self, first: PlannedJob) -> PlannedJob | None:
        """Write jobs whose ids are known beforehand; the first that is not written, or None at the end."""
        chunk = [first, *self._take(NUMBERED_CHUNK - 1)]
        following = self._following()
        self._check()
        result, first_index = self._result, self._read
        ids: list[int] = tuple_cursor(self._conn, binary=True).execute(RESERVE_JOB_IDS, (len(chunk),)).fetchall()[0][0]
        if not self._has_unique and any(job.unique is not None for job in chunk):
            self._has_unique = True
            if following is not None:
                tuple_cursor(self._conn).execute(LOCK_UNIQUE_COPIES)
        replacing = [place for place, job in enumerate(chunk) if job.unique and job.unique.on_conflict == "replace"]
        if replacing and (following is not None or first_index):
            raise InvalidJob(
                f"jobs[{first_index + replacing[0]}].unique.on_conflict",
                f"replace holds up claims of the jobs it replaces, so a COPY with it has at most {NUMBERED_CHUNK:,} jobs",
            )
        left_out = set(replacing)
        for place, holder in self._take_keys(chunk, ids):
            unique = chunk[place].unique
            assert unique is not None
            if unique.on_conflict == "raise":
                raise UniqueConflict(holder, first_index + place)
            left_out.add(place)
            ids[place] = 0 if unique.on_conflict == "skip" else holder
        self._copy_numbered(chunk, ids, left_out)
        for place in self._replace(chunk, ids, replacing):
            left_out.discard(place)
        result.count += len(chunk) - len(left_out)
        if result.ids is not None:
            result.ids.extend(ids)
        if result.by_queue is not None:
            for place, job in enumerate(chunk):
                if place not in left_out:
                    result.by_queue[job.route.queue] = result.by_queue.get(job.route.queue, 0) + 1
        self._read += len(chunk)
        if self._progress:
            self._progress(self._read)
            self._said = self._read
        return following

    def _take_keys(self, chunk: list[PlannedJob], ids: list[int]) -> list[tuple[int, int]]:
        """Take the keys of the chunk's unique jobs; place and holder of those that are taken, by place."""
        unique = {place: job for place, job in enumerate(chunk) if job.unique is not None}
        if not unique:
            return []
        if self._snapshot_stays is None:
            isolation = tuple_cursor(self._conn).execute("SHOW transaction_isolation").fetchall()[0][0]
            self._snapshot_stays = isolation != "read committed"
        held: dict[int, int] = {}
        while True:
            try:
                with self._conn.transaction() if self._snapshot_stays else nullcontext():
                    taken = self._take_free_keys(chunk, ids, held)
                return sorted([*held.items(), *taken])
            except SerializationFailure:
                found = holders_since(self._conn, {place: job for place, job in unique.items() if place not in held})
                if not found:
                    raise
                held |= found

    def _take_free_keys(self, chunk: list[PlannedJob], ids: list[int], held: Mapping[int, int]) -> list[tuple[int, int]]:
        places, keys, claim_of = [], [], []
        claims: dict[tuple[float | None, tuple[str, ...]], int] = {}
        for place, job in enumerate(chunk):
            if job.unique is not None and job.unique.on_conflict != "replace" and place not in held:
                places.append(place)
                keys.append(job.unique.key)
                claim_of.append(claims.setdefault((job.unique.period, job.unique.states), len(claims) + 1))
        if not places:
            return []
        described = json.dumps([{"period": period, "states": states} for period, states in claims])
        parameters = (keys, [ids[place] for place in places], claim_of, described)
        taken = tuple_cursor(self._conn).execute(TAKE_UNIQUE_KEYS, parameters).fetchall()
        return [(places[place - 1], holder) for place, holder in taken]

    def _copy_numbered(self, chunk: list[PlannedJob], ids: list[int], left_out: set[int]) -> None:
        ready: list[Sequence[Any]] = []
        deferred: list[Sequence[Any]] = []
        target, now = self._target, self._now
        for place, (job, job_id) in enumerate(zip(chunk, ids, strict=True)):
            if place in left_out:
                continue
            route, kind, args, max_attempts, run_at, payload, is_deferred, unique, _ = job
            key = None if unique is None else unique.key
            lane_id = target.single.get(route) or target.lane_of(job)
            if is_deferred:
                deferred.append((lane_id, kind, args, max_attempts, run_at, payload, job_id, key))
            else:
                ready.append((target.ready_slot, lane_id, kind, args, max_attempts, run_at or now, payload, job_id, key))
        _copy_rows(self._conn, COPY_READY_NUMBERED, ready)
        _copy_rows(self._conn, COPY_DEFERRED_NUMBERED, deferred)

    def _replace(self, chunk: list[PlannedJob], ids: list[int], places: list[int]) -> list[int]:
        """Enqueue the jobs that replace others, one by one as enqueue_many does; the places of those that were enqueued."""
        if not places:
            return []
        # The lane stands in for the route, which says nothing of a shard yet.
        lanes = {Route("", 0, place): self._target.lane_of(chunk[place]) for place in places}
        answers = enqueue_unique(self._conn, [chunk[place]._replace(route=Route("", 0, place)) for place in places], lanes)
        for place, (job_id, _) in zip(places, answers, strict=True):
            ids[place] = job_id
        return [place for place, (_, is_new) in zip(places, answers, strict=True) if is_new]


def _copy_rows(conn: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        with tuple_cursor(conn) as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
