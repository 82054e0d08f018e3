"""Enqueueing: one job, a batch, a COPY; in the caller's transaction or in one of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from awa import trace
from awa.client.sessions import Sessions
from awa.clock import utc_now
from awa.connections import AnyConnection, unwrap_connection
from awa.errors import InvalidJob, UniqueConflict
from awa.job import JobOptions, NewJob
from awa.migrate import guarded_schema
from awa.notify import NOTIFY
from awa.plan import JobTemplate, PlannedJob, Route, make_template, merge_options
from awa.postgres import Connection, tuple_cursor
from awa.storage.copy import copy_jobs, current_queue_slot
from awa.storage.enqueue import ENQUEUE_JOBS, enqueue_jobs, enqueue_parameters, ids_in_order
from awa.storage.unique import enqueue_unique
from awa.task import Task
from awa.unique import Unique

MAX_TEMPLATES: Final = 1000
"""Shapes of jobs whose validation is remembered."""


class Enqueueing(Sessions):
    """The ways in."""

    def enqueue(
        self,
        task_or_kind: Task[..., Any, Any] | str,
        args: object = None,
        *,
        queue: str | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        run_at: datetime | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        unique: Unique | None = None,
        connection: AnyConnection = None,
    ) -> int:
        """Enqueue one job and return its id. Without `connection` it is committed when this returns.

        A job whose unique key is taken returns the holder's id with `on_conflict="return_existing"`, and with `"skip"` 0,
        which is no job's id.

        Args:
            task_or_kind: a task, or a kind as text for a task this process does not import.
            args: a JSON object: a mapping, an attrs or a dataclass instance; `None` is an empty one.
            queue: 1 to 200 characters; the task's, then "default".
            priority: 1 (first) to 4.
            max_attempts: counted attempts before the job has failed, 1 to 32767.
            run_at: not before this instant (with a time zone); the past is now.
            tags: up to 32 labels of up to 100 characters.
            metadata: a JSON object that travels with the job.
            unique: at most one job of a key at a time; see `awa.Unique`.
            connection: yours: a psycopg connection or cursor, a Django alias or connection, a SQLAlchemy session or
                connection on psycopg. The job commits or rolls back with its transaction, which is neither committed nor
                altered; see `awa.connections.unwrap_connection`.

        Raises:
            InvalidJob: refused before the database saw it; names the field and the limit.
            TypeError: `connection` is none of those.
            UnusableConnection: it is closed or busy, or its transaction has failed.
            UniqueConflict: another job has the unique key; nothing was enqueued.
            SchemaOutOfDate: run `awa migrate`.
            DatabaseUnavailable: no connection in time.

        >>> client.enqueue("send_email", {"to": "ada@example.com"}, priority=1) > 0
        True
        """
        options = JobOptions(
            queue=queue,
            priority=priority,
            max_attempts=max_attempts,
            run_at=run_at,
            tags=tags,
            metadata=metadata,
            unique=unique,
        )
        job = self._template(task_or_kind, options).plan({} if args is None else args, utc_now())
        return self._append([job], connection)[0]

    def enqueue_many(
        self,
        jobs: Iterable[object],
        *,
        kind: Task[..., Any, Any] | str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        run_at: datetime | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        unique: Unique | None = None,
        connection: AnyConnection = None,
    ) -> list[int]:
        """Enqueue a batch in one statement, all or nothing, and return its ids in order.

        Args:
            jobs: arguments (JSON objects), or `NewJob` where one differs from the batch.
            kind: of all jobs that do not bring their own.
            queue, priority, max_attempts, run_at, tags, metadata, unique, connection: as for `enqueue`.

        Raises:
            InvalidJob, UniqueConflict, SchemaOutOfDate, DatabaseUnavailable: as for `enqueue`; nothing was enqueued.

        >>> len(client.enqueue_many([{"n": 1}, {"n": 2}], kind="count"))
        2
        """
        options = JobOptions(
            queue=queue,
            priority=priority,
            max_attempts=max_attempts,
            run_at=run_at,
            tags=tags,
            metadata=metadata,
            unique=unique,
        )
        planned = list(self._plan_many(jobs, kind, options))
        return self._append(planned, connection) if planned else []

    def enqueue_many_copy(
        self,
        jobs: Iterable[object],
        *,
        kind: Task[..., Any, Any] | str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        run_at: datetime | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        unique: Unique | None = None,
        connection: AnyConnection = None,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Enqueue any number of jobs through COPY, all or nothing, and return how many.

        Memory does not grow with the number of jobs: `jobs` is read as it is written.

        Args:
            jobs: any iterable, as for `enqueue_many`; unique ones are refused.
            kind, queue, priority, max_attempts, run_at, tags, metadata, connection: as for `enqueue_many`.
            progress: called with the number of jobs written so far, every few thousand.

        Raises:
            InvalidJob, SchemaOutOfDate, DatabaseUnavailable: as for `enqueue`; nothing was enqueued.

        >>> client.enqueue_many_copy(({"n": n} for n in range(5000)), kind="count", queue="bulk")
        5000
        """
        options = JobOptions(
            queue=queue,
            priority=priority,
            max_attempts=max_attempts,
            run_at=run_at,
            tags=tags,
            metadata=metadata,
            unique=unique,
        )
        return self._append_copy(_without_unique(self._plan_many(jobs, kind, options)), connection, progress)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _template(self, task_or_kind: Task[..., Any, Any] | str, options: JobOptions) -> JobTemplate:
        # Web views enqueue the same few shapes for ever: validating them once saves a tenth of an enqueue.
        key = None
        if options.metadata is None and options.run_at is None and options.unique is None:
            numbers = (options.priority, options.max_attempts)
            # With their types: True equals 1, and is not a priority.
            key = (task_or_kind, options.queue, options.tags, numbers, tuple(map(type, numbers)))
            try:
                if known := self._templates.get(key):
                    return known
            except TypeError:  # an option that cannot be hashed is about to be refused
                key = None
        kind: object = task_or_kind
        merged = options
        if isinstance(task_or_kind, Task):
            kind, merged = task_or_kind.kind, merge_options(task_or_kind.defaults, options)
        template = make_template(kind, merged, max_args_bytes=self.settings.max_args_bytes)
        if key is not None and len(self._templates) < MAX_TEMPLATES:
            self._templates[key] = template
        return template

    def _plan_many(
        self, jobs: Iterable[object], kind: Task[..., Any, Any] | str | None, options: JobOptions
    ) -> Iterator[PlannedJob]:
        batch = None if kind is None else self._template(kind, options)
        now = utc_now()
        # By identity, with the options kept so that no other can take their place; jobs of one shape share one object.
        shapes: dict[tuple[object, int], tuple[JobOptions | None, JobTemplate]] = {}
        for index, job in enumerate(jobs):
            try:
                if not isinstance(job, NewJob):
                    if batch is None:
                        raise InvalidJob("kind", "is missing: pass kind=, or NewJob with a kind each")
                    yield batch.plan(job, now)
                    continue
                own_kind = kind if job.kind is None else job.kind
                if own_kind is None:
                    raise InvalidJob("kind", "is missing, and the batch has none")
                shape = shapes.get((own_kind, id(job.options)))
                if shape is None:
                    shape = (job.options, self._template(own_kind, merge_options(options, job.options)))
                    if len(shapes) < MAX_TEMPLATES:
                        shapes[own_kind, id(job.options)] = shape
                yield shape[1].plan(job.args, now)
            except InvalidJob as error:
                raise InvalidJob(f"jobs[{index}].{error.field}", error.reason) from error

    def _append(self, planned: list[PlannedJob], given: AnyConnection) -> list[int]:
        if self.diversion is not None:
            return self.diversion.run(planned, given)
        ids = self._append_somehow(planned, None if given is None else unwrap_connection(given))
        if trace.on:
            trace.enqueued(planned, ids, in_transaction=given is not None)
        return ids

    def _append_somehow(self, planned: list[PlannedJob], connection: Connection | None) -> list[int]:
        if any(job.unique is not None for job in planned):
            return self._append_unique(planned, connection)
        woken = sorted({job.route.queue for job in planned if not job.deferred})
        if connection is not None:
            with guarded_schema():
                return enqueue_jobs(connection, planned, self._lanes_for(connection, planned), woken)
        with self._connection() as conn:
            lanes = self._lanes_for(conn, planned)
            due = [queue for queue in woken if self._quiet.is_due(queue)]
            if due:
                # Two transactions in one network flush: the wake-up must find the job committed.
                with conn.pipeline() as pipeline:
                    cursor = conn.execute(ENQUEUE_JOBS, enqueue_parameters(planned, lanes, None), prepare=True)
                    pipeline.sync()
                    for queue in due:
                        conn.execute(NOTIFY, (queue,), prepare=True)
                for queue in due:
                    self._quiet.mark(queue)
                ids = [row[0] for row in cursor.fetchall()]
            else:
                cursor = conn.execute(ENQUEUE_JOBS, enqueue_parameters(planned, lanes, None), prepare=True)
                ids = [row[0] for row in cursor.fetchall()]
            # A commit that took longer than the quiet period came too late for the look that quietness relies on.
            self._wake(conn, [queue for queue in woken if queue not in due])
            return ids_in_order(planned, ids)

    def _append_unique(self, planned: list[PlannedJob], connection: Connection | None) -> list[int]:
        """All or nothing, in a transaction, or a savepoint of the caller's: a conflict is no database error."""
        if connection is not None:
            if any(job.unique is not None and job.unique.on_conflict == "replace" for job in planned):
                raise InvalidJob("unique.on_conflict", "replace needs a transaction of its own: leave connection out")
            with guarded_schema():
                lanes = self._lanes_for(connection, planned)
                # On a caller's idle connection this begins the transaction, without which the block below would not be a
                # savepoint of it but a transaction that is committed.
                tuple_cursor(connection).execute("SELECT")
                return self._enqueue_unique(connection, planned, lanes)
        with self._connection() as conn:
            return self._enqueue_unique(conn, planned, self._lanes_for(conn, planned), prepare=True)

    def _enqueue_unique(
        self, conn: Connection, planned: list[PlannedJob], lanes: Mapping[Route, int], *, prepare: bool = False
    ) -> list[int]:
        unique = [index for index, job in enumerate(planned) if job.unique is not None]
        plain = [index for index, job in enumerate(planned) if job.unique is None]
        ids = [0] * len(planned)
        woken = sorted({job.route.queue for job in planned if not job.deferred})
        with conn.transaction():
            answers = enqueue_unique(conn, [planned[index] for index in unique], lanes, woken, prepare=prepare)
            for index, (job_id, is_new) in zip(unique, answers, strict=True):
                claim = planned[index].unique
                assert claim is not None
                if not is_new and claim.on_conflict == "raise":
                    raise UniqueConflict(job_id, index)
                ids[index] = job_id if is_new or claim.on_conflict != "skip" else 0
            others = enqueue_jobs(conn, [planned[i] for i in plain], lanes, prepare=prepare)
            for index, job_id in zip(plain, others, strict=True):
                ids[index] = job_id
        return ids

    def _append_copy(
        self,
        planned: Iterator[PlannedJob],
        given: AnyConnection,
        progress: Callable[[int], object] | None,
    ) -> int:
        if self.diversion is not None:
            return len(self.diversion.run(list(planned), given))
        if given is not None:
            return self._copy(unwrap_connection(given, for_copy=True), planned, progress, notify=True)
        with self._connection() as conn:
            return self._copy(conn, planned, progress, notify=False)

    def _copy(
        self,
        conn: Connection,
        planned: Iterator[PlannedJob],
        progress: Callable[[int], object] | None,
        *,
        notify: bool,
    ) -> int:
        lanes: dict[Route, int] = {}

        def lane_of(route: Route) -> int:
            lane_id = lanes.get(route)
            if lane_id is None:
                lane_id = lanes[route] = self._lane(conn, installed, route)
            return lane_id

        with guarded_schema():
            installed = self._check(conn)  # before the COPY, during which the connection answers nothing else
            # Outside the block: on a caller's idle connection this begins the transaction, without which the block would
            # not be a savepoint of the caller's transaction but a transaction that it commits.
            slot = current_queue_slot(conn)
        with guarded_schema(), conn.transaction():
            written = copy_jobs(conn, planned, lane_of, slot, progress)
            # A queue that got deferred jobs only is woken in vain, which is harmless.
            woken = sorted({route.queue for route in lanes})
            if notify:
                for queue in woken:
                    tuple_cursor(conn).execute(NOTIFY, (queue,))
        if not notify:
            self._wake(conn, woken)
        if trace.on:
            trace.counted("copied", written)
        return written

    def _wake(self, conn: Connection, queues: Iterable[str]) -> None:
        for queue in queues:
            if self._quiet.is_due(queue):
                conn.execute(NOTIFY, (queue,))
                self._quiet.mark(queue)


def _without_unique(planned: Iterator[PlannedJob]) -> Iterator[PlannedJob]:
    for index, job in enumerate(planned):
        if job.unique is not None:
            raise InvalidJob(f"jobs[{index}].unique", "not with COPY yet: use enqueue_many")
        yield job
