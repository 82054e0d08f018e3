"""Appending planned jobs: in one statement, with unique keys, by COPY; in the caller's transaction or in one of its own."""

from __future__ import annotations

import logging
from array import array
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from psycopg.errors import LockNotAvailable, SerializationFailure

from awa import trace
from awa.client.sessions import Diversion, Sessions
from awa.connections import AnyConnection, check_usable, unwrap_connection, wait_for_lock
from awa.errors import InvalidJob, JobBusy, UniqueConflict
from awa.migrate import guarded_schema
from awa.notify import NOTIFY
from awa.plan import PlannedJob, Route
from awa.postgres import Connection, flush_output, tuple_cursor
from awa.storage.copy import Copied, CopyTarget, copy_jobs, current_queue_slot
from awa.storage.enqueue import ENQUEUE_JOBS, enqueue_jobs, enqueue_parameters, ids_in_order
from awa.storage.unique import enqueue_unique, holders_since

log = logging.getLogger("awa.client")

REPLACE_NEEDS_OWN: Final = "replace needs a transaction of its own: leave connection out"


class Appending(Sessions):
    """What writes jobs that have been planned."""

    def _append(self, planned: list[PlannedJob], given: AnyConnection) -> list[int]:
        if given is not None and any(job.unique is not None and job.unique.on_conflict == "replace" for job in planned):
            raise InvalidJob("unique.on_conflict", REPLACE_NEEDS_OWN)
        if self.diversion is not None:
            return [job_id for job_id, _ in self._divert(self.diversion, planned, given)]
        conn = None if given is None else unwrap_connection(given)
        if any(job.unique is not None for job in planned):
            return self._append_unique(planned, conn)
        ids = self._append_plain(planned, conn)
        if trace.on:
            trace.enqueued(planned, ids, in_transaction=given is not None)
        return ids

    def _append_plain(self, planned: list[PlannedJob], connection: Connection | None) -> list[int]:
        woken = sorted({job.route.queue for job in planned if not job.deferred})
        if connection is not None:
            with guarded_schema():
                placed, lanes = self._place(connection, planned)
                ids = enqueue_jobs(connection, placed, lanes, woken)
            self._tell(planned)
            return ids
        with self._connection() as conn:
            placed, lanes = self._place(conn, planned)
            due = [queue for queue in woken if self._quiet.is_due(queue)]
            if due:
                # Two transactions in one network flush: the wake-up must find the job committed.
                with conn.pipeline() as pipeline:
                    cursor = conn.execute(ENQUEUE_JOBS, enqueue_parameters(placed, lanes, None), prepare=True)
                    flush_output(conn)
                    pipeline.sync()
                    for queue in due:
                        conn.execute(NOTIFY, (queue,), prepare=True)
                for queue in due:
                    self._quiet.mark(queue)
                ids = [row[0] for row in cursor.fetchall()]
            else:
                cursor = conn.execute(ENQUEUE_JOBS, enqueue_parameters(placed, lanes, None), prepare=True)
                ids = [row[0] for row in cursor.fetchall()]
            # A commit that took longer than the quiet period came too late for the look that quietness relies on.
            self._wake(conn, [queue for queue in woken if queue not in due])
        self._tell(planned)
        return ids_in_order(planned, ids)

    def _append_unique(self, planned: list[PlannedJob], connection: Connection | None) -> list[int]:
        """All or nothing, in a transaction, or a savepoint of the caller's: a conflict is no database error."""
        if connection is not None:
            with guarded_schema():
                placed, lanes = self._place(connection, planned)
                # On a caller's idle connection this begins the transaction, without which the block below would not be a
                # savepoint of it but a transaction that is committed.
                tuple_cursor(connection).execute("SELECT")
                return self._enqueue_unique(connection, placed, lanes, is_given=True)
        with self._connection() as conn:
            placed, lanes = self._place(conn, planned)
            with _busy_jobs_named():
                return self._enqueue_unique(conn, placed, lanes, is_given=False)

    def _enqueue_unique(
        self, conn: Connection, planned: Sequence[PlannedJob], lanes: Mapping[Route, int], *, is_given: bool
    ) -> list[int]:
        held: dict[int, int] = {}  # places whose keys were taken after the transaction's snapshot, and by whom
        while True:
            try:
                return self._enqueue_free(conn, planned, lanes, held, is_given=is_given)
            except SerializationFailure:
                rest = {index: job for index, job in enumerate(planned) if job.unique is not None and index not in held}
                found = holders_since(conn, rest)
                if not found:
                    raise
                held |= found

    def _enqueue_free(
        self,
        conn: Connection,
        planned: Sequence[PlannedJob],
        lanes: Mapping[Route, int],
        held: Mapping[int, int],
        *,
        is_given: bool,
    ) -> list[int]:
        unique = [index for index, job in enumerate(planned) if job.unique is not None]
        wanted = [index for index in unique if index not in held]
        plain = [index for index, job in enumerate(planned) if job.unique is None]
        ids = [0] * len(planned)
        enqueued = list(plain)
        woken = sorted({job.route.queue for job in planned if not job.deferred})
        with conn.transaction():
            answers = enqueue_unique(conn, [planned[index] for index in wanted], lanes, woken, prepare=not is_given)
            answer_of = dict(zip(wanted, answers, strict=True))
            for index in unique:
                job_id, is_new = (held[index], False) if index in held else answer_of[index]
                claim = planned[index].unique
                assert claim is not None
                if not is_new and claim.on_conflict == "raise":
                    raise UniqueConflict(job_id, index)
                ids[index] = job_id if is_new or claim.on_conflict != "skip" else 0
                if is_new:
                    enqueued.append(index)
            others = enqueue_jobs(conn, [planned[i] for i in plain], lanes, prepare=not is_given)
            for index, job_id in zip(plain, others, strict=True):
                ids[index] = job_id
        new = [planned[index] for index in enqueued]
        if trace.on:
            trace.enqueued(new, [ids[index] for index in enqueued], in_transaction=is_given)
        self._tell(new)
        return ids

    def _append_copy(
        self,
        planned: Generator[PlannedJob, None, None],
        given: AnyConnection,
        progress: Callable[[int], object] | None,
        *,
        with_ids: bool,
    ) -> Copied:
        if given is not None:
            planned = _without_replace(planned)
        if self.diversion is not None:
            answers = self._divert(self.diversion, list(planned), given)
            if progress is not None and answers:
                progress(len(answers))
            ids = array("q", [job_id for job_id, _ in answers]) if with_ids else None
            return Copied(sum(is_new for _, is_new in answers), ids, None)
        if given is not None:
            conn = unwrap_connection(given, for_copy=True)
            return self._copy(conn, planned, progress, is_given=True, with_ids=with_ids)
        with self._connection() as conn, _busy_jobs_named():
            return self._copy(conn, planned, progress, is_given=False, with_ids=with_ids)

    def _copy(
        self,
        conn: Connection,
        planned: Generator[PlannedJob, None, None],
        progress: Callable[[int], object] | None,
        *,
        is_given: bool,
        with_ids: bool,
    ) -> Copied:
        with guarded_schema():
            book = self._lane_book(conn)  # before the COPY, during which the connection answers nothing else
            # Outside the block: on a caller's idle connection this begins the transaction, without which the block would
            # not be a savepoint of the caller's transaction but a transaction that it commits.
            slot = current_queue_slot(conn)
        single: dict[Route, int] = {}
        several: dict[Route, tuple[int, ...]] = {}

        def lane_of(job: PlannedJob) -> int:
            lanes = several.get(job.route)
            if lanes is None:
                lanes = several[job.route] = self._lanes_of(conn, book, job.route, busy=True)
                if len(lanes) == 1:
                    single[job.route] = lanes[0]
            return lanes[book.shard(job, len(lanes))]

        is_shared = is_given or self.shares_connections
        target = CopyTarget(slot, lane_of, single, partial(check_usable, conn, for_copy=True) if is_shared else None)
        count_queues = self.on_enqueued is not None
        with guarded_schema(), conn.transaction(), _giving_up(planned, conn):
            copied = copy_jobs(conn, planned, target, progress, with_ids=with_ids, count_queues=count_queues)
            # A queue that got deferred jobs only is woken in vain, which is harmless.
            woken = sorted({route.queue for route in several})
            if is_given:
                for queue in woken:
                    tuple_cursor(conn).execute(NOTIFY, (queue,))
        if not is_given:
            self._wake(conn, woken)
        if trace.on:
            trace.counted("copied", copied.count)
        self._tell_counts(copied.by_queue)
        return copied

    def _divert(self, diversion: Diversion, planned: list[PlannedJob], given: AnyConnection) -> list[tuple[int, bool]]:
        answers = diversion.run(planned, given)
        self._tell([job for job, (_, is_new) in zip(planned, answers, strict=True) if is_new])
        return answers

    def _tell(self, enqueued: Sequence[PlannedJob]) -> None:
        if self.on_enqueued is not None and enqueued:
            self._tell_counts(Counter(job.route.queue for job in enqueued))

    def _tell_counts(self, by_queue: Mapping[str, int] | None) -> None:
        if self.on_enqueued is not None and by_queue:
            try:
                self.on_enqueued(by_queue)
            except Exception:
                log.exception("on_enqueued failed on %r", by_queue)

    def _wake(self, conn: Connection, queues: Iterable[str]) -> None:
        for queue in queues:
            if self._quiet.is_due(queue):
                conn.execute(NOTIFY, (queue,))
                self._quiet.mark(queue)


@contextmanager
def _busy_jobs_named() -> Iterator[None]:
    """What is to be replaced, and is locked for too long, is a fault of its own."""
    try:
        yield
    except LockNotAvailable as error:
        raise JobBusy(f"nothing was enqueued: {error.diag.message_primary}") from error


@contextmanager
def _giving_up(planned: Generator[PlannedJob, None, None], conn: Connection) -> Iterator[None]:
    """Leave the connection free for a rollback when the block fails, whatever the source of the jobs is doing on it."""
    try:
        yield
    except BaseException:
        planned.close()
        # Somebody still streams a result in the middle of which the jobs were read. To wait for its end would be to wait for
        # ourselves, and the rows that were written must not be committed.
        if not wait_for_lock(conn):
            conn.close()
        raise


def _without_replace(planned: Iterator[PlannedJob]) -> Generator[PlannedJob, None, None]:
    for index, job in enumerate(planned):
        if job.unique is not None and job.unique.on_conflict == "replace":
            raise InvalidJob(f"jobs[{index}].unique.on_conflict", REPLACE_NEEDS_OWN)
        yield job
