"""Enqueueing and looking: what an application's own code does with the queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final
from weakref import WeakKeyDictionary

import psycopg
from psycopg.rows import TupleRow, tuple_row
from psycopg_pool import ConnectionPool, PoolTimeout

from awa.config import ClientSettings
from awa.errors import DatabaseUnavailable, InvalidJob
from awa.job import Job, JobOptions, NewJob, QueueCounts
from awa.migrate import InstalledSchema, check_schema, guarded_schema, load_sql
from awa.notify import NOTIFY, QuietPeriod
from awa.plan import JobTemplate, PlannedJob, Route, check_name, make_template, merge_options
from awa.postgres import Connection, engine_conninfo, has_been_closed, resolve_dsn, sibling, tuple_cursor
from awa.storage import jobs as stored
from awa.storage.copy import copy_jobs, current_queue_slot
from awa.storage.enqueue import ENQUEUE_JOBS, enqueue_jobs, enqueue_parameters, ensure_lane, ids_in_order
from awa.task import Task

MAX_TEMPLATES: Final = 1000
"""Shapes of jobs whose validation is remembered."""


class Client:
    """Puts jobs into the queue and reads them. Safe to share between threads; connects on first use.

    Args:
        dsn: a libpq URL or keyword string; `None` takes `AWA_DSN`, `DATABASE_URL` or libpq's variables.
        min_connections: kept open by the pool.
        max_connections: opened by the pool at the most.
        connect_timeout: seconds to wait for a connection.
        max_args_bytes: the largest JSON text of a job's arguments.

    Raises:
        ConfigurationError: on first use, when nothing names a database.

    >>> import awa
    >>> with awa.Client(dsn) as client:
    ...     job_id = client.enqueue("send_email", {"to": "ada@example.com"}, queue="docs")
    ...     client.get_job(job_id).state
    'available'
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        min_connections: int = ClientSettings().min_connections,
        max_connections: int = ClientSettings().max_connections,
        connect_timeout: float = ClientSettings().connect_timeout,
        max_args_bytes: int = ClientSettings().max_args_bytes,
    ) -> None:
        self.settings = ClientSettings(
            min_connections=min_connections,
            max_connections=max_connections,
            connect_timeout=connect_timeout,
            max_args_bytes=max_args_bytes,
        )
        self._dsn = dsn
        self._pool: ConnectionPool[psycopg.Connection[TupleRow]] | None = None
        self._opening = threading.Lock()
        self._installed: WeakKeyDictionary[Connection, InstalledSchema] = WeakKeyDictionary()
        self._lanes: dict[tuple[str, Route], int] = {}  # by install: a cached lane of one database is nothing in another
        self._templates: dict[tuple[object, ...], JobTemplate] = {}
        self._quiet = QuietPeriod()

    # -- enqueueing ----------------------------------------------------------------------------------------------------

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
        connection: Connection | None = None,
    ) -> int:
        """Enqueue one job and return its id. Without `connection` it is committed when this returns.

        Args:
            task_or_kind: a task, or a kind as text for a task this process does not import.
            args: a JSON object: a mapping, an attrs or a dataclass instance; `None` is an empty one.
            queue: 1 to 200 characters; the task's, then "default".
            priority: 1 (first) to 4.
            max_attempts: counted attempts before the job has failed, 1 to 32767.
            run_at: not before this instant (with a time zone); the past is now.
            tags: up to 32 labels of up to 100 characters.
            metadata: a JSON object that travels with the job.
            connection: your psycopg connection: the job commits or rolls back with its transaction, which is neither
                committed nor altered.

        Raises:
            InvalidJob: refused before the database saw it; names the field and the limit.
            SchemaOutOfDate: run `awa migrate`.
            DatabaseUnavailable: no connection in time.

        >>> client.enqueue("send_email", {"to": "ada@example.com"}, priority=1) > 0
        True
        """
        options = JobOptions(
            queue=queue, priority=priority, max_attempts=max_attempts, run_at=run_at, tags=tags, metadata=metadata
        )
        job = self._template(task_or_kind, options).plan({} if args is None else args, datetime.now(UTC))
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
        connection: Connection | None = None,
    ) -> list[int]:
        """Enqueue a batch in one statement, all or nothing, and return its ids in order.

        Args:
            jobs: arguments (JSON objects), or `NewJob` where one differs from the batch.
            kind: of all jobs that do not bring their own.
            queue, priority, max_attempts, run_at, tags, metadata, connection: as for `enqueue`.

        Raises:
            InvalidJob, SchemaOutOfDate, DatabaseUnavailable: as for `enqueue`; nothing was enqueued.

        >>> len(client.enqueue_many([{"n": 1}, {"n": 2}], kind="count"))
        2
        """
        options = JobOptions(
            queue=queue, priority=priority, max_attempts=max_attempts, run_at=run_at, tags=tags, metadata=metadata
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
        connection: Connection | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Enqueue any number of jobs through COPY, all or nothing, and return how many.

        Memory does not grow with the number of jobs: `jobs` is read as it is written.

        Args:
            jobs: any iterable, as for `enqueue_many`.
            kind, queue, priority, max_attempts, run_at, tags, metadata, connection: as for `enqueue_many`.
            progress: called with the number of jobs written so far, every few thousand.

        Raises:
            InvalidJob, SchemaOutOfDate, DatabaseUnavailable: as for `enqueue`; nothing was enqueued.

        >>> client.enqueue_many_copy(({"n": n} for n in range(5000)), kind="count", queue="bulk")
        5000
        """
        options = JobOptions(
            queue=queue, priority=priority, max_attempts=max_attempts, run_at=run_at, tags=tags, metadata=metadata
        )
        planned = self._plan_many(jobs, kind, options)
        if connection is not None:
            return self._copy(connection, planned, progress, notify=True)
        with self._connection() as conn:
            return self._copy(conn, planned, progress, notify=False)

    # -- reading -------------------------------------------------------------------------------------------------------

    def get_job(self, job_id: int) -> Job | None:
        """The job of that id, or None.

        >>> client.get_job(0) is None
        True
        """
        with self._connection() as conn:
            return stored.get_job(conn, job_id)

    def queue_counts(self, queue: str) -> QueueCounts:
        """How many jobs of a queue are in each state; zeros for a queue that never had one.

        >>> client.queue_counts("nobody").available
        0
        """
        with self._connection() as conn:
            counts = stored.queue_counts(conn, check_name(queue, "queue", 200))
        if counts:
            return counts[0]
        return QueueCounts(
            queue=queue, paused=False, available=0, running=0, scheduled=0, retryable=0, completed=0, failed=0
        )

    def list_queues(self) -> list[QueueCounts]:
        """The counts of every queue that ever had a job, by name.

        >>> all(counts.running >= 0 for counts in client.list_queues())
        True
        """
        with self._connection() as conn:
            return stored.queue_counts(conn, None)

    # -- queues --------------------------------------------------------------------------------------------------------

    def pause_queue(self, queue: str) -> None:
        """Workers claim nothing of the queue until `resume_queue`; enqueues and running jobs go on.

        >>> client.pause_queue("reports"); client.resume_queue("reports")
        """
        with self._connection() as conn:
            stored.pause_queue(conn, check_name(queue, "queue", 200))

    def resume_queue(self, queue: str) -> None:
        """Undo `pause_queue`."""
        with self._connection() as conn:
            stored.resume_queue(conn, check_name(queue, "queue", 200))

    # -- lifetime ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the pool. The client may be used again and then connects anew."""
        with self._opening:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _template(self, task_or_kind: Task[..., Any, Any] | str, options: JobOptions) -> JobTemplate:
        # Web views enqueue the same few shapes for ever: validating them once saves a tenth of an enqueue.
        key = None
        if options.metadata is None and options.run_at is None:
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
        now = datetime.now(UTC)
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

    def _append(self, planned: list[PlannedJob], connection: Connection | None) -> list[int]:
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
        return written

    def _wake(self, conn: Connection, queues: Iterable[str]) -> None:
        for queue in queues:
            if self._quiet.is_due(queue):
                conn.execute(NOTIFY, (queue,))
                self._quiet.mark(queue)

    def _lanes_for(self, conn: Connection, planned: Iterable[PlannedJob]) -> Mapping[Route, int]:
        installed = self._check(conn)
        return {route: self._lane(conn, installed, route) for route in {job.route for job in planned}}

    def _lane(self, conn: Connection, installed: InstalledSchema, route: Route) -> int:
        key = (installed.install_id, route)
        lane_id = self._lanes.get(key)
        if lane_id is None:
            lane_id = self._lanes[key] = self._make_lane(conn, route)
        return lane_id

    def _make_lane(self, conn: Connection, route: Route) -> int:
        # Committed at once on a connection of its own: in the caller's transaction the new lane's unique key would make
        # every other first user of the lane wait for that transaction's end.
        with sibling(conn) as own:
            return ensure_lane(own, route)

    def _check(self, conn: Connection) -> InstalledSchema:
        installed = self._installed.get(conn)
        if installed is None:
            installed = self._installed[conn] = check_schema(conn, load_sql())
        return installed

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[TupleRow]]:
        deadline = time.monotonic() + self.settings.connect_timeout
        pool = self._open()
        while True:
            try:
                conn = pool.getconn(timeout=max(0.001, deadline - time.monotonic()))
            except PoolTimeout as error:
                raise DatabaseUnavailable(
                    f"no database connection within {self.settings.connect_timeout:g} s: {self._reason()}"
                ) from error
            if not has_been_closed(conn):
                break
            conn.close()
            pool.putconn(conn)
        try:
            with guarded_schema():
                self._check(conn)
                yield conn
        except psycopg.OperationalError as error:
            if not conn.broken:
                raise
            raise DatabaseUnavailable(
                f"the connection was lost, and with it whether the last call took effect: {str(error).strip()}"
            ) from error
        finally:
            pool.putconn(conn)

    def _open(self) -> ConnectionPool[psycopg.Connection[TupleRow]]:
        if self._pool is None:
            with self._opening:
                if self._pool is None:
                    conninfo = engine_conninfo(
                        resolve_dsn(self._dsn), "awa client", connect_timeout=self.settings.connect_timeout
                    )
                    self._pool = ConnectionPool(
                        conninfo,
                        kwargs={"autocommit": True, "row_factory": tuple_row},
                        min_size=self.settings.min_connections,
                        max_size=self.settings.max_connections,
                        name="awa-client",
                        open=True,
                    )
        return self._pool

    def _reason(self) -> str:
        """Why the pool had no connection, which the pool does not say."""
        try:
            with psycopg.connect(engine_conninfo(resolve_dsn(self._dsn), "awa client", connect_timeout=2.0)):
                return f"all {self.settings.max_connections} connections of the pool are in use"
        except psycopg.Error as cause:
            return str(cause).strip()


_default = Client()


def default_client() -> Client:
    """The client that `task.enqueue` uses: it finds its database in the environment.

    >>> import awa
    >>> awa.default_client() is awa.default_client()
    True
    """
    return _default
